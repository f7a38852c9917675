"""All subflows are lost: sessions wait, and resume where they were, or end."""

from dataclasses import replace

from stripetwist.core import frames
from stripetwist.core.config import KIB
from stripetwist.core.errors import Code
from stripetwist.core.events import SessionClosed, StreamOpened
from stripetwist.core.target import OpenRequest, Target
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair, pattern

REQUEST = OpenRequest(Target.of("example.test", 80))


class ResumeTests(EngineCase):
    """After a total loss, a join and a last word on each dead subflow."""

    def test_everything_goes_on(self) -> None:
        """Both directions, whole, after 30 s of nothing."""
        pair = self.pair(3, rate=3e6)
        stream_id = self.opened(pair)
        there = self.send(pair.a, stream_id, 3_000_000, 1)
        back = self.send(pair.b, stream_id, 2_000_000, 2)
        pair.run(0.1)
        pair.cut_all()
        pair.run(30)
        pair.add_many(3, rate=3e6)
        self.wait(pair, pair.b, stream_id)
        self.wait(pair, pair.a, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
        self.assert_at_rest(pair)

    def test_nothing_is_sent_twice(self) -> None:
        """Whole frames that arrived, acknowledged or not, do not go again."""
        pair = self.pair(3, rate=3e6, delay=0.05)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 3_000_000)
        pair.run(0.3)
        for subflow_id, (there, _) in list(pair.subflows.items()):
            pair.cut(subflow_id, there.in_flight // 2)
        got = pair.b.session._streams.table[stream_id].reorder
        arrived = got.next_offset + got.held
        sent = pair.a.session._streams.table[stream_id].send.offset
        self.assertGreater(sent - arrived, 100_000)
        pair.run(1)
        pair.add_many(2, rate=3e6, delay=0.05)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertEqual(scribe.copied, sent - arrived)
        copied = sum(one["rx"]["copy"] for one in pair.b.session.snapshot(0.0)["subflows"])  # type: ignore[attr-defined]
        self.assertEqual(copied, 0)

    def test_dying_one_by_one(self) -> None:
        """What the last ones took over from the first is not sent a third time for nothing."""
        pair = self.pair(4, rate=3e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 3_000_000)
        pair.run(0.1)
        flying = sum(there.in_flight for there, _ in pair.subflows.values())
        for subflow_id in list(pair.subflows):
            pair.run(0.001)
            pair.cut(subflow_id)
        pair.run(1)
        pair.add(rate=9e6)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertLess(scribe.copied, 2 * flying + 300 * KIB)

    def test_all_suspect_then_dead_then_back(self) -> None:
        """A black hole of 25 s costs only what it swallowed."""
        pair = self.pair(3, rate=3e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 3_000_000)
        pair.run(0.1)
        for subflow_id in pair.subflows:
            pair.stall(subflow_id)
        flying = sum(there.in_flight for there, _ in pair.subflows.values())
        pair.run(25)
        self.assertEqual(len(pair.subflows), 0)
        pair.add(rate=9e6)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertLessEqual(scribe.copied, flying + 200 * KIB)

    def test_a_join_that_the_peer_never_saw(self) -> None:
        """What was sent on it goes again as soon as the peer says that it knows nothing."""
        pair = self.pair(1)
        stream_id = self.opened(pair)
        pair.cut_all()
        a = pair.a.session
        a.subflow_up(50, pair.heap.now)
        data = self.send(pair.a, stream_id, 4000)
        self.assertEqual(pair.a.pipes, {})
        a.subflow_down(50, pair.heap.now)
        pair.add()
        scribe = Scribe(pair.b)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        finals = [f for _, f in scribe.sent if f[0] == frames.SUBFLOW_FINAL]
        self.assertIn((50, 0), [(int.from_bytes(f[5][0], "big"), f[4]) for f in finals])

    def test_a_death_that_only_one_end_saw(self) -> None:
        """The other hears of it in the first word on the next subflow."""
        for which in ("a", "b"):
            pair = self.pair(1, rate=3e6)
            stream_id = self.opened(pair)
            there = self.send(pair.a, stream_id, 300_000, 1)
            back = self.send(pair.b, stream_id, 300_000, 2)
            pair.run(0.05)
            for pipe in pair.subflows[1]:
                pipe.closed = True
            (pair.a if which == "a" else pair.b).leave(1)
            pair.run(0.05)
            pair.add(rate=3e6)
            self.wait(pair, pair.b, stream_id)
            self.wait(pair, pair.a, stream_id)
            self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
            self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
            other = pair.b if which == "a" else pair.a
            self.assertEqual([e.subflow_id for e in self.dead(other)], [1])

    def test_opens_and_resets_while_nothing_is_there(self) -> None:
        """They are done when there is something again, however many; none is opened in vain."""
        pair = self.pair(1)
        pair.cut_all()
        kept = [pair.a.open() for _ in range(50)]
        for _ in range(12_000):
            pair.a.session.reset(pair.a.session.open(REQUEST), Code.CANCELLED)
        pair.a.turn()
        pair.run(10)
        pair.add()
        pair.run(5)
        self.assertTrue(all(pair.a.streams[i].accepted for i in kept))
        self.assertEqual({type(e) for e in pair.b.log}, {StreamOpened})
        self.assertEqual(set(pair.b.streams), set(kept))
        self.assertEqual(len(pair.b.session._streams._numbers._gaps), 0)

    def test_many_losses_in_a_row(self) -> None:
        """Subflows that live for less than a round trip make no progress, and no harm."""
        pair = self.pair(1, rate=1e6, delay=0.05)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 300_000)
        for _ in range(100):
            pair.run(0.06)
            pair.cut_all()
            pair.run(0.01)
            pair.add(1e6, 0.05)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        pair.b.end(stream_id)
        self.assert_at_rest(pair)


class TimeoutTests(EngineCase):
    """A session without subflows ends, at both ends."""

    def test_both_ends_give_up(self) -> None:
        """The dialer after 60 s, the acceptor after 75; every stream is reset (row 4)."""
        pair = self.pair(2)
        streams = [self.opened(pair) for _ in range(5)]
        pair.a.write(streams[0], pattern(5_000_000))
        pair.run(0.1)
        pair.cut_all()
        start = pair.heap.now
        pair.run_while(lambda: pair.a.session.closed is None, 100)
        self.assertAlmostEqual(pair.heap.now - start, 60.0)
        self.assertIsNone(pair.b.session.closed)
        pair.run_while(lambda: pair.b.session.closed is None, 100)
        self.assertAlmostEqual(pair.heap.now - start, 75.0)
        for end in (pair.a, pair.b):
            self.assertEqual({end.streams[i].outcome for i in streams}, {"reset"})
            closed = end.log[-1]
            assert isinstance(closed, SessionClosed)
            self.assertIs(closed.code, Code.SESSION_LOST)
            self.assertEqual((end.budget.promised, end.budget.stored), (0, 0))
            self.assertEqual(end.session.next_deadline(), float("inf"))

    def test_a_session_that_never_had_a_subflow(self) -> None:
        """Ends as well."""
        pair = Pair(LIMITS)
        pair.a.turn()
        pair.run(61)
        self.assertIsNotNone(pair.a.session.closed)

    def test_the_time_starts_with_the_last_loss(self) -> None:
        """A subflow in between starts it anew."""
        pair = self.pair(1)
        pair.cut_all()
        pair.run(50)
        pair.add()
        pair.run(1)
        pair.cut_all()
        pair.run(59)
        self.assertIsNone(pair.a.session.closed)
        pair.run(2)
        self.assertIsNotNone(pair.a.session.closed)

    def test_the_acceptor_follows_the_dialers_wish(self) -> None:
        """1.25 times what the dialer's limits say."""
        pair = Pair(replace(LIMITS, session_timeout=8.0), LIMITS)
        pair.b.turn()
        start = pair.heap.now
        pair.run_while(lambda: pair.b.session.closed is None, 100)
        self.assertAlmostEqual(pair.heap.now - start, 10.0)

    def test_after_the_end_nothing_happens(self) -> None:
        """Late news of any kind is ignored, and the last event was the last."""
        pair = self.pair(1)
        stream_id = self.opened(pair)
        session = pair.a.session
        session.finish(Code.SESSION_LOST, "gone")
        while session.next_event() is not None:
            pass
        session.write(stream_id, b"x")
        session.end(stream_id)
        session.reset(stream_id, Code.CANCELLED)
        session.consumed(stream_id, 5)
        session.stop_reading(stream_id)
        session.accept(stream_id)
        session.refuse(stream_id, Code.GENERAL, "")
        session.take(stream_id, 5)
        session.room_again()
        session.received(1, [b"\x7f" * 100], pair.heap.now)
        session.deadline_reached(pair.heap.now)
        session.subflow_down(1, pair.heap.now)
        session.subflow_up(2, pair.heap.now)
        session.go_away("too late")
        self.assertEqual(list(session.pollable(pair.heap.now + 100)), [])
        self.assertEqual(session.poll(2, pair.heap.now + 100), [])
        session.finish(Code.GENERAL, "again")
        self.assertEqual(session.close(Code.GENERAL, "again"), {})
        self.assertIsNone(session.next_event())
        self.assertEqual((pair.a.budget.promised, pair.a.budget.stored), (0, 0))
