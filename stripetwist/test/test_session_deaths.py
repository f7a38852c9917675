"""Subflows die: what was on them arrives all the same, once."""

import random
from collections.abc import Callable

from stripetwist.core import frames
from stripetwist.core.config import KIB
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.events import PeerGoesAway
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe, Thief
from stripetwist.testing import End, Pair, pattern


class DataTests(EngineCase):
    """Stream bytes survive the subflows that carry them."""

    def test_any_suffix_may_be_lost_in_each_direction(self) -> None:
        """Of what is in flight, any first part arrives, in each direction another."""
        rng = random.Random(7)
        for round_ in range(12):
            pair = self.pair(3, rate=1e6)
            stream_id = self.opened(pair)
            there = self.send(pair.a, stream_id, 400_000, round_)
            back = self.send(pair.b, stream_id, 300_000, round_ + 50)
            while pair.cuts < 8:
                pair.run(rng.random() * 0.05)
                victim = rng.choice(list(pair.subflows))
                pipes = pair.subflows[victim]
                keep = [rng.randrange(pipe.in_flight + 1) for pipe in pipes]
                pair.cut(victim, *keep)
                pair.add(rate=1e6)
            self.wait(pair, pair.a, stream_id)
            self.wait(pair, pair.b, stream_id)
            self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
            self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
            self.assertEqual(pair.cuts, 8)
            self.assert_at_rest(pair)

    def test_every_cut_of_a_small_exchange(self) -> None:
        """After each byte that the dying connection may still deliver, nothing is lost."""
        whole = self.exchange(None)
        self.assertGreater(whole, 400)
        for keep in range(0, whole + 1, 3):
            self.exchange(keep)

    def exchange(self, keep: int | None) -> int:
        """
        A short stream that acknowledges as it sends; its subflow dies in the middle.

        @return: how many bytes were in flight from the acceptor then.
        """
        pair = self.pair(2, delay=0.02)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, b"question" * 20)
        pair.run(0.0235)
        answer = self.send(pair.b, stream_id, 500)
        flying = max(pipes[1].in_flight for pipes in pair.subflows.values())
        if keep is not None:
            (victim,) = (i for i, pipes in pair.subflows.items() if pipes[1].in_flight == flying)
            pair.cut(victim, 0, keep)
        self.wait(pair, pair.a, stream_id)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), answer)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), b"question" * 20)
        return flying

    def test_part_of_a_frame_behind_an_acknowledgement_is_not_the_frame(self) -> None:
        """The ledger counts what rides in front: a count short of the frame's end is no ack."""
        for keep in range(50):
            self.partly(pattern(500), keep)

    def partly(self, data: bytes, keep: int) -> None:
        """An upload whose frame stays C{keep} bytes behind when its subflow dies."""
        pair = self.pair(1, delay=0.01)
        stream_id = self.opened(pair)
        pair.b.write(stream_id, b"x")
        pair.run(0.0105)
        scribe = Scribe(pair.a)
        pair.a.write(stream_id, data)
        self.assertEqual([f[0] for _, f in scribe.sent][:2], [frames.ACK, frames.DATA])
        there, back = pair.subflows[1]
        flying = b"".join(there._flying)
        self.assertEqual(len(there._flying[-1]), 540, "an acknowledgement and the data")
        part = flying[: len(flying) - keep]
        there._flying.clear()
        there.deliver(part)
        pair.run(0.05)
        self.assertEqual(back.in_flight, 0)
        pair.cut(1)
        pair.add()
        pair.a.end(stream_id)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

    def test_a_cut_in_the_middle_of_a_duty(self) -> None:
        """Between a poll and its write, at either end, with and without others left."""
        for count in (1, 3):
            for at_a in (True, False):
                pair = self.pair(count, rate=1e6)
                stream_id = self.opened(pair)
                there = self.send(pair.a, stream_id, 300_000, 1)
                back = self.send(pair.b, stream_id, 300_000, 2)
                end = pair.a if at_a else pair.b
                for _ in range(10):
                    end.hook = self.cutter(pair)
                    pair.run(0.03)
                self.assertGreater(pair.cuts, 5)
                self.wait(pair, pair.a, stream_id)
                self.wait(pair, pair.b, stream_id)
                self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
                self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
                self.assert_at_rest(pair)

    def cutter(self, pair: Pair) -> Callable[[], None]:
        """Cuts the newest subflow, and adds another a little later."""

        def add() -> None:
            pair.add(rate=1e6)

        def cut() -> None:
            pair.cut(max(pair.subflows), 1000, 10)
            pair.heap.at(pair.heap.now + 0.001, add)

        return cut

    def test_flapping(self) -> None:
        """Subflows that live for 200 ms still carry everything (row 5)."""
        pair = self.pair(2, rate=2e6, delay=0.02)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 4_000_000)
        while not pair.b.streams[stream_id].saw_end and pair.heap.now < 200:
            pair.run(0.1)
            pair.cut(min(pair.subflows), 500, 500)
            pair.add(2e6, 0.02)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertGreater(pair.cuts, 10)
        pair.b.end(stream_id)
        self.assert_at_rest(pair)

    def test_a_death_costs_few_copies(self) -> None:
        """What was in flight there, and no more."""
        pair = self.pair(4, rate=2e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 2_000_000)
        pair.run(0.1)
        flying = pair.subflows[1][0].in_flight
        pair.cut(1)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertGreater(flying, 0)
        self.assertLess(scribe.copied, flying + 100 * KIB)
        self.assertLess(pair.b.longest_gap, 0.1)


class ControlTests(EngineCase):
    """Every frame that must arrive does, although the first one dies with its subflow."""

    def each_way(self, test: Callable[[Pair, Callable[[], None]], None]) -> None:
        """
        Run a test with a healthy subflow beside the one that dies, and without.

        The test gets a pair and what to call once the frame was stolen.
        """
        for spare in (True, False):
            pair = self.pair(2 if spare else 1)

            def heal(pair: Pair = pair, spare: bool = spare) -> None:
                pair.run(0.1)
                self.assertEqual(len(pair.subflows), 1 if spare else 0)
                if not spare:
                    pair.add()
                pair.run(1)

            test(pair, heal)
            self.assertEqual(pair.cuts, 1)

    def steal(self, pair: Pair, end: End, kind: int) -> Thief:
        """Lose the next frame of that type, with its subflow."""
        return Thief(pair, end, kind)

    def test_open(self) -> None:
        """The stream is opened, once (row 52)."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            thief = self.steal(pair, pair.a, frames.OPEN)
            stream_id = pair.a.open()
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertTrue(pair.a.streams[stream_id].accepted)
            self.assertEqual([type(e).__name__ for e in pair.b.log], ["StreamOpened"])

        self.each_way(check)

    def test_accept(self) -> None:
        """The opener hears of it, with its credit (row 53)."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            thief = self.steal(pair, pair.b, frames.ACCEPT)
            stream_id = pair.a.open()
            pair.a.write(stream_id, pattern(50_000))
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertTrue(pair.a.streams[stream_id].accepted)
            self.assertEqual(len(pair.b.streams[stream_id].got), 50_000)

        self.each_way(check)

    def test_refuse(self) -> None:
        """The opener hears why."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            pair.b.policy = lambda request: OpenRefused(Code.HOST_UNREACHABLE, "no way")
            thief = self.steal(pair, pair.b, frames.REFUSE)
            stream_id = pair.a.open()
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertEqual(pair.a.streams[stream_id].outcome, "refused")

        self.each_way(check)

    def test_reset(self) -> None:
        """The other end breaks its stream, too."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            stream_id = self.opened(pair)
            thief = self.steal(pair, pair.a, frames.RESET)
            pair.a.reset(stream_id)
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertEqual(pair.b.streams[stream_id].outcome, "reset")
            self.assert_at_rest(pair)

        self.each_way(check)

    def test_fin(self) -> None:
        """The end is seen, whether it came alone or with bytes."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            stream_id = self.opened(pair)
            pair.a.write(stream_id, b"abc")
            pair.run(1)
            thief = self.steal(pair, pair.a, frames.DATA)
            pair.a.end(stream_id)
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertTrue(pair.b.streams[stream_id].saw_end)

        self.each_way(check)

    def test_stop(self) -> None:
        """The sender learns that nobody reads, and drops what it holds."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            stream_id = self.opened(pair)
            pair.b.stop_reading(stream_id)
            pair.a.write(stream_id, bytes(4_000_000))
            pair.run(1)
            self.assertGreater(pair.a.budget.stored, 0)
            thief = self.steal(pair, pair.b, frames.STOP)
            pair.b.session.stop_reading(stream_id)
            pair.b.turn()
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertEqual(pair.a.budget.stored, 0)

        self.each_way(check)

    def test_credit(self) -> None:
        """A sender that has used up its window goes on."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            stream_id = self.opened(pair)
            pair.b.stop_reading(stream_id)
            data = self.send(pair.a, stream_id, 3_000_000)
            pair.run(2)
            self.assertLess(pair.b.session._streams.table[stream_id].reorder.highest, 3_000_000)
            thief = self.steal(pair, pair.b, frames.CREDIT)
            pair.b.resume_reading(stream_id)
            heal()
            self.assertEqual(thief.stolen, 1)
            self.wait(pair, pair.b, stream_id)
            self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

        self.each_way(check)

    def test_goaway(self) -> None:
        """The peer learns that nothing new is wanted."""

        def check(pair: Pair, heal: Callable[[], None]) -> None:
            thief = self.steal(pair, pair.b, frames.GOAWAY)
            pair.b.session.go_away("bye")
            pair.b.turn()
            heal()
            self.assertEqual(thief.stolen, 1)
            self.assertEqual(pair.a.log, [PeerGoesAway("bye")])

        self.each_way(check)

    def test_subflow_final(self) -> None:
        """Without the last word on a dead subflow its bytes could not go again."""
        pair = self.pair(1, rate=1e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 200_000)
        pair.run(0.05)
        pair.cut_all()
        thieves = [Thief(pair, end, frames.SUBFLOW_FINAL, 1) for end in (pair.a, pair.b)]
        for _ in range(2):
            pair.add(rate=1e6)
            pair.run(0.1)
        self.assertEqual([thief.stolen for thief in thieves], [1, 1])
        pair.add(rate=1e6)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        pair.b.end(stream_id)
        self.assert_at_rest(pair)

    def test_each_kind_lost_again_and_again(self) -> None:
        """Five times in a row is no different from once."""
        for kind in (frames.OPEN, frames.ACCEPT, frames.RESET, frames.SUBFLOW_FINAL):
            pair = self.pair(2)
            thieves = [Thief(pair, end, kind, 5) for end in (pair.a, pair.b)]
            stream_id = pair.a.open()
            pair.cut(1)
            self.heal(pair)
            pair.a.reset(stream_id)
            self.heal(pair)
            self.assertEqual(pair.b.streams[stream_id].outcome, "reset")
            self.assertEqual(max(thief.stolen for thief in thieves), 5)
            self.assert_at_rest(pair)

    def heal(self, pair: Pair) -> None:
        """Two subflows at any time, for 3 seconds."""
        for _ in range(30):
            pair.run(0.1)
            while len(pair.subflows) < 2:
                pair.add()


class DuplicateTests(EngineCase):
    """A frame that comes twice has no effect the second time."""

    def test_every_frame_twice(self) -> None:
        """Each frame that goes on the ledger, again on another subflow (row 55)."""
        pair = Pair(LIMITS)
        pair.add()
        echoes = [self.echo(pair, end) for end in (pair.a, pair.b)]
        stream_id = self.opened(pair)
        there = self.send(pair.a, stream_id, 50_000, 1)
        back = self.send(pair.b, stream_id, 50_000, 2)
        self.wait(pair, pair.a, stream_id)
        self.wait(pair, pair.b, stream_id)
        other = self.opened(pair)
        pair.a.reset(other)
        pair.run(1)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
        for end in (pair.a, pair.b):
            self.assertEqual(len(end.log), len(set(map(repr, end.log))) + self.repeats(end))
        self.assertTrue(all(len(sent) > 3 for sent in echoes))

    def repeats(self, end: End) -> int:
        """How often C{StreamReadable} was rightly told again."""
        readable = [repr(e) for e in end.log if type(e).__name__ == "StreamReadable"]
        return len(readable) - len(set(readable))

    def echo(self, pair: Pair, end: End) -> list[int]:
        """Deliver each frame of an end a second time, at once."""
        other = pair.b if end is pair.a else pair.a
        sent: list[int] = []

        def again(subflow_id: int, frame: frames.Frame) -> None:
            kind, flags, aux, stream, offset, pieces, _ = frame
            if kind in frames.QUIET:
                return
            sent.append(kind)
            data = frames.pack_with(b"".join(pieces), kind, flags, aux, stream, offset)

            def deliver() -> None:
                # As on a subflow of its own, so that this one's counts stay right.
                subflow = other.session._subflows.alive[subflow_id]
                other.session._act_on(subflow, frames.FrameParser().feed(data), pair.heap.now)
                other.turn()

            pair.heap.at(pair.heap.now + 0.05, deliver)
            pair.heap.at(pair.heap.now + 0.5, deliver)

        end.watch = again
        return sent
