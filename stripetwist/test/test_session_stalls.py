"""Subflows go silent: what waits on them goes elsewhere, and they come back or are given up."""

from dataclasses import replace

from stripetwist.core import frames
from stripetwist.core.config import KIB
from stripetwist.core.events import SubflowDead
from stripetwist.core.liveness import State
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair


class StallTests(EngineCase):
    """Silence while bytes are on their way."""

    def state(self, pair: Pair, subflow_id: int) -> State | None:
        """What the sender thinks of a subflow; C{None} if it has given it up."""
        subflow = pair.a.session._subflows.alive.get(subflow_id)
        return subflow.life.state if subflow is not None else None

    def test_one_of_three(self) -> None:
        """Its load goes on the others within a stall's time; after 1 s it is dead."""
        pair = self.pair(3, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 9_000_000)
        pair.run(0.2)
        pair.stall(1)
        pair.run(0.3)
        self.assertIs(self.state(pair, 1), State.SUSPECT)
        self.assertEqual(self.dead(pair.a), [])
        self.wait(pair, pair.b, stream_id)
        pair.run(1)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertLess(pair.b.longest_gap, 0.25)
        self.assertIn(SubflowDead(1, "no progress"), self.dead(pair.a))
        self.assertEqual(set(pair.subflows), {2, 3})

    def test_a_path_goes_dark(self) -> None:
        """Half of them at once: the others carry the lowest bytes first, so the gap is short."""
        pair = Pair(replace(LIMITS, prewarm=0))
        pair.add_many(8, 780e3, 0.01)
        pair.add_many(8, 312e3, 0.04)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 20_000_000)
        pair.run(1.5)
        pair.b.longest_gap = 0.0
        for subflow_id in range(1, 9):
            pair.stall(subflow_id)
        pair.run(0.8)
        self.assertLess(pair.b.longest_gap, 0.38)
        self.wait(pair, pair.b, stream_id)

    def test_one_direction_only(self) -> None:
        """No acknowledgements come, or none of our bytes arrive: the same (row 7)."""
        for there, back in ((True, False), (False, True)):
            pair = self.pair(2, rate=3e6)
            stream_id = self.opened(pair)
            data = self.send(pair.a, stream_id, 6_000_000)
            pair.run(0.2)
            pair.stall(1, there, back)
            self.wait(pair, pair.b, stream_id)
            pair.run(1)
            self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
            self.assertLess(pair.b.longest_gap, 0.25)
            self.assertEqual(set(pair.subflows), {2})

    def test_a_suspect_recovers(self) -> None:
        """Back before its second is over, it carries again; nothing is delivered twice."""
        pair = self.pair(2, rate=3e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 9_000_000)
        pair.run(0.2)
        pair.stall(1)
        # Of its first frame a part may be acknowledged; that goes again as a whole.
        flying = pair.a.session._subflows.alive[1].ledger.in_flight + 64 * KIB
        pair.run(0.6)
        self.assertIs(self.state(pair, 1), State.SUSPECT)
        pair.resume(1)
        pair.run(0.1)
        self.assertIs(self.state(pair, 1), State.ACTIVE)
        before = scribe.carried(1)
        self.wait(pair, pair.b, stream_id)
        self.assertGreater(scribe.carried(1) - before, 1_000_000)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])
        self.assertGreater(scribe.copied, 0)
        self.assertLessEqual(scribe.copied, flying)

    def test_three_seconds_and_a_burst(self) -> None:
        """What was given up comes after all: dropped, not delivered twice (row 18)."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 12_000_000)
        pair.run(0.2)
        pair.stall(1)
        late = b"".join(pair.subflows[1][0]._flying)
        self.assertGreater(len(late), 10_000)
        pair.run(3)
        self.assertNotIn(1, pair.subflows)
        pair.b.session.received(1, [late], pair.heap.now)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

    def test_all_at_once(self) -> None:
        """Nothing is copied, since there is nowhere; all come back, and nobody was killed."""
        pair = self.pair(3, rate=3e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 6_000_000)
        pair.run(0.2)
        for subflow_id in pair.subflows:
            pair.stall(subflow_id)
        pair.run(15)
        self.assertEqual(len(pair.subflows), 3)
        for subflow_id in list(pair.subflows):
            pair.resume(subflow_id)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertEqual(scribe.copied, 0)
        pair.b.end(stream_id)
        self.assert_at_rest(pair)

    def test_all_for_good(self) -> None:
        """After 20 s they are dead; a new one then carries everything (row 8)."""
        pair = self.pair(3, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 6_000_000)
        pair.run(0.2)
        for subflow_id in pair.subflows:
            pair.stall(subflow_id)
        pair.run(19)
        self.assertEqual(len(pair.subflows), 3)
        pair.run(11)
        self.assertEqual(len(pair.subflows), 0)
        pair.add(rate=9e6)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

    def test_a_new_one_beside_the_silent(self) -> None:
        """It takes over at once, and the silent ones have a second left."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 3_000_000)
        pair.run(0.2)
        for subflow_id in (1, 2):
            pair.stall(subflow_id)
        pair.run(2)
        self.assertEqual(set(pair.subflows), {1, 2})
        pair.add(rate=9e6)
        self.assertLess(self.wait(pair, pair.b, stream_id), 1.0)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        pair.run(1)
        self.assertEqual(set(pair.subflows), {3})

    def test_control_does_not_wait_for_the_stalled(self) -> None:
        """OPEN and its answer go round a silent subflow (C46)."""
        pair = self.pair(2)
        pair.stall(1)
        stream_id = pair.a.open()
        pair.b.open()
        pair.run(1)
        self.assertTrue(pair.a.streams[stream_id].accepted)
        self.assertTrue(pair.b.streams[2].accepted)

    def test_a_consumer_that_stops_is_no_stall(self) -> None:
        """Bytes are acknowledged when parsed, so nobody is suspected."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        pair.b.stop_reading(stream_id)
        pair.a.write(stream_id, bytes(20_000_000))
        pair.run(100)
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])
        self.assertEqual({self.state(pair, i) for i in (1, 2)}, {State.ACTIVE})

    def test_a_peer_that_reads_nothing_on_one(self) -> None:
        """That subflow only is given up (C45)."""
        pair = self.pair(3, rate=3e6)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 6_000_000)
        pair.run(0.1)
        pair.stall(2, True, False)
        self.wait(pair, pair.b, stream_id)
        pair.run(2)
        self.assertEqual(set(pair.subflows), {1, 3})

    def test_a_peer_that_never_acknowledges(self) -> None:
        """What we keep for it is bounded by its window, and its subflows die (C24)."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        for subflow_id in (1, 2):
            pair.stall(subflow_id, False, True)
        data = bytes(2_000_000)
        while pair.a.streams[stream_id].may_write:
            pair.a.write(stream_id, data)
        pair.run(10)
        self.assertLessEqual(pair.a.budget.stored, 4_000_000)
        pair.run(20)
        self.assertEqual(len(pair.subflows), 0)


class PingTests(EngineCase):
    """Silence while nothing is on its way."""

    def test_idle_subflows_are_pinged(self) -> None:
        """Every 20 s where no stream is open, every 5 s where one is."""
        pair = self.pair(1)
        scribe = Scribe(pair.a)
        pair.run(250)
        idle = scribe.count(frames.PING)
        self.assertTrue(10 <= idle <= 13, idle)
        self.opened(pair)
        pair.run(100)
        self.assertTrue(17 <= scribe.count(frames.PING) - idle <= 21)
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])

    def test_idle_traffic_is_small(self) -> None:
        """At most 2 MB a day on a subflow that rests."""
        pair = self.pair(1)
        pair.run(3600)
        carried = sum(pipe.carried for pipe in pair.subflows[1])
        # Each PING and PONG is a segment and a TLS record of its own, both ways.
        segments = carried // 20
        self.assertLess((carried + segments * (22 + 40 + 40)) * 24, 2e6)

    def test_the_silent_are_given_up(self) -> None:
        """Six missed: 27 s in use, 102 s idle."""
        for in_use, earliest, latest in ((True, 18, 30), (False, 98, 105)):
            pair = self.pair(1)
            if in_use:
                self.opened(pair)
                pair.run(0.1)
            pair.stall(1)
            pair.run(earliest)
            self.assertEqual(len(pair.subflows), 1)
            pair.run(latest - earliest)
            self.assertEqual(len(pair.subflows), 0)


class SleepTests(EngineCase):
    """A process that was stopped blames nobody."""

    def test_a_late_tick_kills_nobody(self) -> None:
        """Stopped for 2 or 10 s in the middle of a transfer (rows 9, 45)."""
        for seconds in (2, 10):
            for which in ("a", "b"):
                pair = self.pair(3, rate=3e6)
                stream_id = self.opened(pair)
                data = self.send(pair.a, stream_id, 3_000_000)
                pair.run(0.2)
                sleeper = pair.a if which == "a" else pair.b
                other = pair.b if which == "a" else pair.a
                sleeper.sleep()
                pair.run(seconds)
                sleeper.wake()
                self.wait(pair, pair.b, stream_id)
                self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
                self.assertEqual(self.dead(sleeper), [])
                self.assertEqual(self.dead(other), [])
                self.assertEqual(len(pair.subflows), 3)

    def test_an_idle_pair_survives_a_long_sleep(self) -> None:
        """A laptop's lid, for less than the other end's patience."""
        pair = self.pair(2)
        pair.run(10)
        pair.a.sleep()
        pair.run(90)
        pair.a.wake()
        pair.run(60)
        self.assertEqual(len(pair.subflows), 2)

    def test_an_answer_that_came_while_we_slept_counts(self) -> None:
        """The timer fires before the sockets are read."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 3_000_000)
        pair.run(0.2)
        pair.stall(1, False, True)
        pair.run(0.7)
        self.assertEqual(pair.a.session._subflows.healthy, {2})
        pair.a.sleep()
        pair.resume(1)
        pair.run(5)
        pair.a.wake()
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertEqual(self.dead(pair.a), [])

    def test_the_really_dead_are_still_found(self) -> None:
        """A subflow that died while we slept is given up soon after."""
        pair = self.pair(2, rate=3e6)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 6_000_000)
        pair.run(0.2)
        pair.stall(1)
        pair.a.sleep()
        pair.run(5)
        pair.a.wake()
        pair.run(2)
        self.assertEqual(set(pair.subflows), {2})
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)


class QuietTests(EngineCase):
    """A session that carries nothing."""

    def test_one_side_asks(self) -> None:
        """The other hears the question, and that is what it would have asked for."""
        pair = Pair(LIMITS)
        pair.add_many(2)
        scribes = Scribe(pair.a), Scribe(pair.b)
        pair.run(600)
        asked = [scribe.count(frames.PING) for scribe in scribes]
        self.assertEqual(asked, [2 * 29, 0])
        self.assertEqual(len(scribes[1].sent), 2 * 29)
