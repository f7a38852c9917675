"""Paths with roles and rates: what each carries of a session's bytes."""

from stripetwist.core import frames
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.path import PathInfo
from stripetwist.core.way import PathRole
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair

OVERFLOW = PathInfo(1, PathRole.OVERFLOW)
BACKUP = PathInfo(1, PathRole.BACKUP)
PINGS = {frames.PING, frames.PONG}
MEGABIT = 125_000


class RoleCase(EngineCase):
    """A stream that is written to at some rate, from the dialer's end."""

    def start(self, limits: Limits = LIMITS) -> None:
        """Three subflows of a path of 10 Mbit/s and 40 ms."""
        self.ends = Pair(limits)
        self.primaries = self.ends.add_many(3, 10 * MEGABIT / 3, 0.02)

    def open(self) -> None:
        """And the stream; what is sent from now on is written down."""
        self.stream_id = self.opened(self.ends)
        self.scribe = Scribe(self.ends.a)

    def feed(self, rate: float, seconds: float, every: float = 0.01) -> None:
        """Write so many bytes per second, as far as the session takes them."""
        pair, due = self.ends, 0.0
        for _ in range(round(seconds / every)):
            due += rate * every
            size = min(int(due), pair.a.session.room_left(self.stream_id))
            if size:
                pair.a.write(self.stream_id, bytes(size))
                due -= size
            pair.run(every)

    def on(self, subflow_ids: list[int]) -> int:
        """Payload bytes sent on these."""
        return sum(map(self.scribe.carried, subflow_ids))

    @property
    def arrived(self) -> int:
        """Payload bytes that have come out at the other end."""
        return len(self.ends.b.streams[self.stream_id].got)


class BackupTests(RoleCase):
    """A path that is kept for when no other is left."""

    def setUp(self) -> None:
        """Beside three primary ones: quicker, and faster."""
        self.start()
        self.backup = self.ends.add(20 * MEGABIT, 0.005, path=BACKUP)
        self.open()

    def kinds(self) -> set[int]:
        """Of the frames that either end has sent on it."""
        return {frame[0] for i, frame in self.scribe.sent if i == self.backup}

    def test_pings_only(self) -> None:
        """However much waits for the primary one."""
        theirs = Scribe(self.ends.b)
        self.feed(20 * MEGABIT, 6, 0.03)
        self.assertGreater(self.arrived, 5.5 * 10 * MEGABIT)
        self.assertEqual(self.kinds() - PINGS, set())
        self.assertEqual({f[0] for i, f in theirs.sent if i == self.backup} - PINGS, set())

    def test_no_filler(self) -> None:
        """Nor is its window opened ahead of use."""
        self.start(Limits(max_memory=64 * MIB))
        self.backup = self.ends.add(20 * MEGABIT, 0.02, path=BACKUP)
        self.open()
        self.feed(MEGABIT, 2)
        self.assertEqual(self.kinds() - PINGS, set())

    def test_silence(self) -> None:
        """Once every other is silent it carries everything, half a second later."""
        self.feed(5 * MEGABIT, 1)
        for subflow_id in self.primaries:
            self.ends.stall(subflow_id)
        self.feed(5 * MEGABIT, 0.5)
        before = self.arrived
        self.feed(5 * MEGABIT, 1)
        self.assertGreater(self.arrived - before, 0.95 * 5 * MEGABIT)

    def test_cut(self) -> None:
        """Where the others break it does so at once; when one is back, nothing more."""
        self.feed(5 * MEGABIT, 1)
        for subflow_id in self.primaries:
            self.ends.cut(subflow_id)
        before = self.arrived
        self.feed(5 * MEGABIT, 1)
        self.assertGreater(self.arrived - before, 0.95 * 5 * MEGABIT)
        self.ends.add(10 * MEGABIT, 0.02)
        before = self.on([self.backup])
        self.feed(5 * MEGABIT, 1)
        self.assertEqual(self.on([self.backup]), before)

    def test_overflow_before_it(self) -> None:
        """While an overflow path is left that carries everything."""
        overflow = self.ends.add(20 * MEGABIT, 0.02, path=PathInfo(2, PathRole.OVERFLOW))
        for subflow_id in self.primaries:
            self.ends.cut(subflow_id)
        self.feed(5 * MEGABIT, 1)
        self.assertGreater(self.on([overflow]), 0.95 * 5 * MEGABIT)
        self.assertEqual(self.on([self.backup]), 0)


class OverflowTests(RoleCase):
    """A path for what the primary ones cannot carry."""

    def with_overflow(self, delay: float) -> None:
        """Beside three primary ones, three of 20 Mbit/s."""
        self.start()
        rate = 20 * MEGABIT / 3
        self.others = [self.ends.add(rate, delay, path=OVERFLOW) for _ in range(3)]
        self.open()

    def test_what_fits(self) -> None:
        """Half of the primary ones' rate, even or in bursts, or nearly all: nothing."""
        for rate, every in ((5, 0.01), (5, 0.16), (9, 0.01)):
            self.with_overflow(0.005)
            self.feed(rate * MEGABIT, 1.5, every)
            self.assertEqual(self.on(self.others), 0)

    def test_what_does_not(self) -> None:
        """Of 20 Mbit/s the primary ones carry all they can, whichever way is longer."""
        for delay in (0.005, 0.06):
            self.with_overflow(delay)
            self.feed(20 * MEGABIT, 1.5)
            self.assertGreater(self.on(self.primaries), 0.95 * 1.5 * 10 * MEGABIT)
            self.assertGreater(self.arrived, 0.9 * 1.5 * 20 * MEGABIT)

    def test_alone(self) -> None:
        """When no primary one is left it carries everything."""
        self.with_overflow(0.02)
        for subflow_id in self.primaries:
            self.ends.cut(subflow_id)
        self.feed(5 * MEGABIT, 1)
        self.assertGreater(self.arrived, 0.9 * 5 * MEGABIT)


class SilenceTests(RoleCase):
    """A path that goes dark under a few packets at a time."""

    def setUp(self) -> None:
        """Six subflows of one, and six of another that is farther away."""
        self.ends = Pair(LIMITS)
        self.near = self.ends.add_many(6, 16 * MEGABIT, 0.01)
        for _ in range(6):
            self.ends.add(16 * MEGABIT, 0.04, path=PathInfo(1))
        self.open()

    def slowest(self) -> float:
        """Of some words, one after another: how long the slowest took."""
        return max(self.word() for _ in range(20))

    def word(self) -> float:
        """How long one takes."""
        wanted = self.arrived + 500
        self.ends.a.write(self.stream_id, bytes(500))
        seconds = self.ends.run_while(lambda: self.arrived < wanted, 5)
        self.ends.run(0.05)
        return seconds

    def test_all_of_it(self) -> None:
        """That is found in the time that two subflows take, not six."""
        for subflow_id in self.near:
            self.ends.stall(subflow_id)
        self.assertLess(self.slowest(), 2 * LIMITS.stall_floor + 0.06)
        self.ends.run(1)
        self.assertEqual(len(self.ends.subflows), 6)
        self.assertLess(self.slowest(), 0.06)

    def test_one_of_it(self) -> None:
        """The others go on as they were."""
        self.ends.stall(self.near[0])
        self.assertLess(self.slowest(), LIMITS.stall_floor + 0.06)
        self.ends.run(1)
        self.assertEqual(len(self.ends.subflows), 11)
        self.assertLess(self.slowest(), 0.03)

    def test_no_other_path(self) -> None:
        """Then there is nothing to find out: the next may work, and is not asked first."""
        self.ends = self.pair(3)
        self.open()
        self.word()
        (used,) = {i for i, frame in self.scribe.sent if frame[0] == frames.DATA}
        self.ends.stall(used)
        self.slowest()
        asked = {i for i, frame in self.scribe.sent if frame[0] == frames.PING}
        self.assertEqual(asked, {used})


class RateTests(RoleCase):
    """A path whose rate is limited."""

    def limited(self, rate: int, count: int = 3) -> list[int]:
        """Subflows of one that could carry much more."""
        path = PathInfo(0, rate=rate)
        return [self.ends.add(12.5e6, 0.02, path=path) for _ in range(count)]

    def test_held(self) -> None:
        """By all its subflows together, from little to much, within a tenth."""
        for rate in (20 * KIB, MEGABIT, 20 * MEGABIT):
            self.ends = Pair(Limits(max_memory=64 * MIB))
            ids = self.limited(rate)
            self.open()
            self.feed(2 * rate, 2)
            carried = sum(self.ends.subflows[i][0].carried for i in ids)
            self.assertLess(abs(carried / 2 / rate - 1), 0.1)

    def test_both_directions(self) -> None:
        """Each end limits what it sends."""
        self.ends = Pair(LIMITS)
        ids = self.limited(4 * MEGABIT)
        self.open()
        self.ends.b.write(self.stream_id, bytes(2 * MIB))
        self.ends.run(2)
        carried = sum(self.ends.subflows[i][1].carried for i in ids)
        self.assertLess(abs(carried / 2 / (4 * MEGABIT) - 1), 0.05)

    def test_datagrams_beside_a_stream(self) -> None:
        """However little it may carry, a batch of the stream's keeps none waiting too long."""
        for kilobits in (64, 100, 200, 320):
            self.ends = Pair(LIMITS)
            self.limited(kilobits * 125)
            self.open()
            flow = self.ends.a.associate()
            self.feed(kilobits * 250, 1)
            for _ in range(60):
                self.ends.a.send_datagram(flow, bytes(60))
                self.feed(kilobits * 250, 0.05)
            came = self.ends.b.streams[flow].datagrams
            self.assertGreaterEqual(len(came), 57, kilobits)

    def test_another_beside_it(self) -> None:
        """What it may not carry goes elsewhere at once."""
        self.start()
        self.ends.add(12.5e6, 0.005, path=PathInfo(1, rate=2 * MEGABIT))
        self.open()
        self.feed(11.5 * MEGABIT, 2)
        self.assertGreater(self.arrived, 0.93 * 2 * 11.5 * MEGABIT)

    def test_overflow(self) -> None:
        """A primary one at its limit has no room, whatever its line could carry."""
        self.ends = Pair(LIMITS)
        self.primaries = self.limited(5 * MEGABIT)
        overflow = self.ends.add(12.5e6, 0.02, path=OVERFLOW)
        self.open()
        self.feed(10 * MEGABIT, 2)
        self.assertGreater(self.on(self.primaries), 0.93 * 2 * 5 * MEGABIT)
        self.assertGreater(self.arrived, 0.93 * 2 * 10 * MEGABIT)
        self.assertLess(self.on([overflow]), 0.6 * self.arrived)

    def test_last_subflow(self) -> None:
        """When a path's last subflow has gone nothing of it is kept."""
        self.ends = Pair(LIMITS)
        for subflow_id in self.limited(MEGABIT):
            self.assertTrue(self.ends.a.session._subflows.paths.limited)
            self.ends.cut(subflow_id)
        self.assertFalse(self.ends.a.session._subflows.paths.limited)

    def test_at_rest(self) -> None:
        """No deadline is left behind."""
        self.ends = Pair(LIMITS)
        self.limited(MEGABIT)
        self.upload(self.ends, 64 * KIB)
        for stream_id in self.ends.b.streams:
            self.ends.b.end(stream_id)
        self.assert_at_rest(self.ends)
