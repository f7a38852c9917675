"""Subflows that are slow but alive: used for what they carry, never taken for dead."""

from functools import partial

from stripetwist.core import frames
from stripetwist.core.liveness import State
from stripetwist.core.pace import INITIAL_WINDOW
from stripetwist.core.path import PathInfo
from stripetwist.core.slow import Stage
from stripetwist.core.target import Target
from stripetwist.core.way import PathRole
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair, pattern
from stripetwist.testing_pipes import Queue


class SlowLinkTests(EngineCase):
    """All of them are slow, as where they share a throttled phone."""

    def test_six_that_share_little(self) -> None:
        """From 8 kbit/s each, six carry six times what one does, sent once, and none dies."""
        for rate in (1e3, 2.7e3, 8e3, 20e3):
            pair = self.pair(6, rate=rate, delay=0.05)
            scribe = Scribe(pair.a)
            seconds = self.upload(pair, int(rate * 480))
            self.assertLess(seconds, 80 * 1.1, rate)
            self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [], rate)
            self.assertLess(scribe.copied, rate * 480 / 50, rate)

    def test_both_directions(self) -> None:
        """Acknowledgements stand behind the other direction's bytes, and still nobody dies."""
        pair = self.pair(6, rate=4e3, delay=0.05)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 400_000, 1)
        self.send(pair.b, stream_id, 400_000, 2)
        self.wait(pair, pair.a, stream_id)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])

    def test_thirty_two_alike(self) -> None:
        """None of them rests because of the others."""
        pair = self.pair(32, rate=2e3, delay=0.05)
        seconds = self.upload(pair, 2_560_000)
        self.assertLess(seconds, 40 * 1.2)
        self.assertEqual(self.dead(pair.a), [])

    def test_a_new_stream_does_not_wait_long(self) -> None:
        """What stands before it on a slow link is seconds, not a minute."""
        pair = self.pair(6, rate=2.7e3, delay=0.05)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 1_000_000)
        pair.run(20)
        before = pair.heap.now
        self.opened(pair)
        self.assertLess(pair.heap.now - before, 8)


class SharedLineTests(EngineCase):
    """Six on one slow line, whose queue they share."""

    def line(self, rate: float, count: int = 6) -> Pair:
        """They share so many bytes per second, and begin with TCP's first window."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        for _ in range(count):
            subflow_id = pair.add(rate, 0.1, queues=queues)
            for pipe in pair.subflows[subflow_id]:
                pipe.window = INITIAL_WINDOW
        return pair

    def test_they_fill_it(self) -> None:
        """Nobody dies, next to nothing is sent twice, nothing waits for long."""
        for rate in (8e3, 16e3, 50e3):
            pair = self.line(rate)
            scribe = Scribe(pair.a)
            seconds = self.upload(pair, int(rate * 60))
            self.assertLess(seconds, 60 * 1.1, rate)
            self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [], rate)
            self.assertLess(scribe.copied, rate * 60 / 20, rate)
            self.assertLess(pair.b.longest_gap, 10, rate)

    def test_one_of_them_in_the_end(self) -> None:
        """The others carry nothing, and take over when it is gone."""
        pair = self.line(16e3)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 1_600_000)
        pair.run(20)
        before = [scribe.carried(i) for i in range(1, 7)]
        pair.run(20)
        more = [scribe.carried(i) - n for i, n in enumerate(before, 1)]
        self.assertEqual(sorted(more)[:5], [0] * 5)
        self.assertGreater(max(more), 250_000)
        pair.cut(more.index(max(more)) + 1)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

    def test_each_held_to_as_little(self) -> None:
        """Beside that, all carry: it takes some seconds to tell one from the other."""
        pair = self.pair(6, rate=8e3, delay=0.05)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 8_000 * 6 * 40)
        pair.run(20)
        before = [scribe.carried(i) for i in range(1, 7)]
        pair.run(15)
        more = [scribe.carried(i) - n for i, n in enumerate(before, 1)]
        self.assertGreater(min(more), 90_000)

    def test_a_silent_one_beside_another_path(self) -> None:
        """What it holds is sent on the other path at once."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        for _ in range(3):
            pair.add(16e3, 0.1, queues=queues)
        pair.add(100e3, 0.05, path=PathInfo(1))
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 2_000_000)
        pair.run(8)
        on_the_line = pair.subflows.keys() & {1, 2, 3}
        self.assertTrue(on_the_line)
        for subflow_id in on_the_line:
            pair.stall(subflow_id)
        pair.b.longest_gap = 0.0
        pair.run(5)
        self.assertLess(pair.b.longest_gap, 2)


class TrialTests(EngineCase):
    """What goes on meanwhile on a path that is being tried."""

    def held(self, count: int = 6) -> tuple[Pair, int]:
        """A network that holds each connection to 8 kB/s, and much to carry."""
        pair = self.pair(count, rate=8e3, delay=0.05)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, pattern(4_000_000))
        return pair, stream_id

    def got(self, pair: Pair, stream_id: int, seconds: float) -> float:
        """How many bytes come in each second of the next ones."""
        before = len(pair.b.streams[stream_id].got)
        pair.run(seconds)
        return (len(pair.b.streams[stream_id].got) - before) / seconds

    def speak(self, pair: Pair, call: int, pause: float) -> None:
        """A datagram now, and one after each pause."""
        pair.a.send_datagram(call, bytes(1200), Target.of("10.0.0.1", 99))
        pair.heap.at(pair.heap.now + pause, partial(self.speak, pair, call, pause))

    def stage(self, pair: Pair) -> Stage | None:
        """How far it is known."""
        trial = pair.a.session._subflows.slow.paths.get(0)
        return None if trial is None else trial.stage

    def test_with_datagrams(self) -> None:
        """They go on all, all the time, and keep nobody from finding out."""
        pair, stream_id = self.held()
        call = pair.a.associate()
        self.speak(pair, call, 0.25)
        pair.run(25)
        self.assertGreater(self.got(pair, stream_id, 20), 35e3)

    def test_one_that_dies(self) -> None:
        """One that was to rest goes silent: the others carry again all the same."""
        pair, stream_id = self.held()
        pair.run_while(lambda: self.stage(pair) is not Stage.ONE)
        alive = pair.a.session._subflows.alive.values()
        carrier = pair.a.session._subflows.slow.paths[0].carrier
        holds = [s.subflow_id for s in alive if s.ledger.in_flight and s.subflow_id != carrier]
        pair.stall(holds[0])
        pair.run(14)
        self.assertGreater(self.got(pair, stream_id, 10), 30e3)

    def test_no_backup(self) -> None:
        """A path that is for when there is no other carries nothing."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        for _ in range(3):
            pair.add(16e3, 0.1, queues=queues)
        backup = pair.add(100e3, 0.05, path=PathInfo(1, PathRole.BACKUP))
        stream_id = self.opened(pair)
        pair.a.write(stream_id, pattern(400_000))
        used = {Stage.ALL: False, Stage.ONE: False}
        for _ in range(100):
            pair.run(0.1)
            if (stage := self.stage(pair)) in used:
                used[stage] = True
        self.assertEqual(set(used.values()), {True})
        self.assertEqual(pair.a.session._subflows.alive[backup].tx.first, 0)

    def test_datagrams_leave_streams_their_share(self) -> None:
        """Four fifths, wherever there is but one that carries these."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        for _ in range(6):
            pair.add(16e3, 0.1, queues=queues)
        stream_id = self.opened(pair)
        call = pair.a.associate()
        pair.a.write(stream_id, pattern(2_000_000))
        pair.run(20)
        self.assertIs(self.stage(pair), Stage.SOLE)
        self.speak(pair, call, 0.03)
        pair.run(5)
        heard = len(pair.b.streams[call].datagrams)
        self.assertGreater(self.got(pair, stream_id, 20), 9e3)
        self.assertGreater(len(pair.b.streams[call].datagrams) - heard, 20)

    def test_a_line_that_was_slow_for_a_moment(self) -> None:
        """Bursts too short to measure by are soon as quick as they were, and so is a rescue."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        ids = [pair.add(30e3, 0.02, queues=queues) for _ in range(6)]
        stream_id = self.opened(pair)
        pair.a.write(stream_id, pattern(60_000))
        pair.run(1.5)
        self.assertIs(self.stage(pair), Stage.ALL)
        for pipe in (pipe for i in ids for pipe in pair.subflows[i]):
            pipe.rate = 1.25e6
        for _ in range(round(LIMITS.slow_trial / 2)):
            pair.run(2)
            pair.a.write(stream_id, pattern(50_000))
        pair.run(2)
        self.assertIs(self.stage(pair), None)

    def test_a_path_that_comes_again(self) -> None:
        """Nothing is known of it."""
        pair = Pair(LIMITS)
        queues = Queue(), Queue()
        ids = [pair.add(16e3, 0.1, queues=queues) for _ in range(3)]
        stream_id = self.opened(pair)
        pair.a.write(stream_id, pattern(400_000))
        pair.run(2)
        self.assertIs(self.stage(pair), Stage.ALL)
        for subflow_id in ids:
            pair.cut(subflow_id)
        self.assertIs(self.stage(pair), None)


class SlowAmongFastTests(EngineCase):
    """One of them is slow, beside others that are not."""

    def fast_and_slow(self, rate: float, fast: float = 6e6) -> tuple[Pair, int]:
        """Two fast ones, and one more."""
        pair = Pair(LIMITS)
        pair.add_many(2, fast, 0.02)
        return pair, pair.add(rate, 0.02)

    def test_it_costs_the_others_little(self) -> None:
        """Nine tenths of what they could do alone, with no gap of half a second."""
        for rate in (1e3, 8e3, 50e3, 200e3):
            pair, _ = self.fast_and_slow(rate)
            seconds = self.upload(pair, 18_000_000)
            self.assertGreater(18e6 / 12e6 / seconds, 0.9, rate)
            self.assertLess(pair.b.longest_gap, 0.5, rate)

    def test_it_is_not_given_up(self) -> None:
        """It is alive: what was on it went on others too, and it is asked again later."""
        pair, slow = self.fast_and_slow(8e3)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 30_000_000)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(self.dead(pair.a), [])
        self.assertIn(slow, pair.subflows)

    def test_it_carries_again_when_it_is_quick_again(self) -> None:
        """Within the time that it rests."""
        pair, slow = self.fast_and_slow(8e3, 1e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 40_000_000)
        pair.run(4)
        pair.subflows[slow][0].rate = 1e6
        before = scribe.carried(slow)
        pair.run(LIMITS.slow_rest + 3)
        self.assertGreater(scribe.carried(slow) - before, 1e6)

    def test_control_does_not_go_on_it(self) -> None:
        """A new stream opens as fast as the others carry it."""
        pair, slow = self.fast_and_slow(3e3)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 40_000_000)
        pair.run(2)
        scribe = Scribe(pair.a)
        before = pair.heap.now
        for _ in range(20):
            self.opened(pair)
        self.assertLess(pair.heap.now - before, 20 * 0.25)
        self.assertNotIn(slow, [i for i, frame in scribe.sent if frame[0] == frames.OPEN])


class SwallowingTests(EngineCase):
    """The kernel sees bytes move, and nobody gets them: that is no slowness either."""

    def write_steadily(self, pair: Pair, stream_id: int, sent: bytearray) -> None:
        """20 kB every 10 ms, both ways, until there are 8 MB."""
        data = pattern(20_000, at=len(sent))
        sent.extend(data)
        for end in (pair.a, pair.b):
            end.write(stream_id, data)
        if len(sent) < 8_000_000:
            again = partial(self.write_steadily, pair, stream_id, sent)
            pair.heap.at(pair.heap.now + 0.01, again)

    def test_found_while_new_bytes_go_on(self) -> None:
        """With bytes both ways all the time: no gap of half a second, and it is given up."""
        for subflow_id in (1, 6):
            pair = self.pair(6, rate=4e6, delay=0.001 * subflow_id)
            stream_id = self.opened(pair)
            sent = bytearray()
            self.write_steadily(pair, stream_id, sent)
            pair.run(1)
            pipes = pair.swallow(subflow_id)
            pair.run(6)
            self.assertGreater(pipes[0].swallowed + pipes[1].swallowed, 0)
            for end in (pair.a, pair.b):
                self.assertLess(end.longest_gap, 0.5)
                self.assertEqual(bytes(end.streams[stream_id].got), bytes(sent))
            found = self.dead(pair.a) + self.dead(pair.b)
            self.assertEqual({one.subflow_id for one in found}, {subflow_id})


class StalledTests(EngineCase):
    """The kernel sees no bytes move: that is no slowness."""

    def test_found_as_quickly_as_ever(self) -> None:
        """A stalled one among slow ones is suspected within seconds, and given up."""
        pair = self.pair(6, rate=20e3, delay=0.05)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 1_200_000)
        pair.run(2)
        pair.stall(1)
        pair.run(3.5)
        subflow = pair.a.session._subflows.alive.get(1)
        self.assertTrue(subflow is None or subflow.life.state is State.SUSPECT)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual([one.subflow_id for one in self.dead(pair.a)], [1])
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
