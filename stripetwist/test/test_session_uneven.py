"""Paths that are unlike: two are never slower than the better one alone."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stripetwist.core.config import KIB, MIB
from stripetwist.core.pace import INITIAL_WINDOW
from stripetwist.test.engine_case import LIMITS, EngineCase
from stripetwist.testing import Pair, pattern

# Bytes per second, and seconds one way.
Path = tuple[float, float]
NEAR, MIDDLE, FAR = (6.25e6, 0.01), (2.5e6, 0.04), (2.5e6, 0.08)
QUICK, REMOTE = (12.5e6, 0.005), (1.25e6, 0.15)


class UnevenTests(EngineCase):
    """A transfer over some paths, of three subflows each."""

    def seconds(
        self, size: int, *paths: Path, stalls: bool = False, cold: bool = False, proxy: int = 0
    ) -> float:
        """
        How long it takes, on subflows that have carried something before.

        @param stalls: whether nothing arrives over the last path any more when it begins.
        @param cold: whether they have carried nothing, and TCP begins with ten packets.
        @param proxy: bytes that a proxy before the last path takes, of each of its subflows.
        """
        pair = Pair(LIMITS)
        ids: list[int] = []
        for rate, delay in paths:
            ids = pair.add_many(3, rate / 3, delay)
        for subflow_id in ids:
            pair.subflows[subflow_id][0].proxy = proxy
        if not cold:
            self.carry(pair, 3 * MIB)
            pair.run(1)
        if stalls:
            for subflow_id in ids:
                pair.stall(subflow_id)
        if cold:
            for there, _ in pair.subflows.values():
                there.window, there.slice = INITIAL_WINDOW, 1448 if size < MIB else 2 * 1448
        return self.carry(pair, size)

    def carry(self, pair: Pair, size: int) -> float:
        """So many bytes, as they come from a socket; the seconds from the first to the last."""
        stream_id = self.opened(pair)
        before, data = pair.heap.now, pattern(size)
        written = 0
        while written < size:
            room = pair.a.session.room_left(stream_id)
            pair.a.write(stream_id, data[written : written + room])
            written += min(room, size - written)
            pair.run(0.002)
        pair.run_while(lambda: len(pair.b.streams[stream_id].got) < size)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        took = pair.heap.now - before
        pair.a.reset(stream_id)
        return took

    def test_short_ones(self) -> None:
        """A few packets, or a page: at most a tenth more than without the slower path."""
        for better, other in ((NEAR, MIDDLE), (NEAR, FAR), (QUICK, REMOTE)):
            for size in (10 * KIB, 256 * KIB):
                alone = self.seconds(size, better)
                self.assertLess(self.seconds(size, better, other), 1.1 * alone + 0.004)

    def test_some_megabytes(self) -> None:
        """Where the slower path can help it does, up to the end."""
        for better, other, most in ((NEAR, MIDDLE, 0.8), (NEAR, FAR, 0.87), (QUICK, REMOTE, 1.02)):
            alone = self.seconds(5 * MIB, better)
            self.assertLess(self.seconds(5 * MIB, better, other), most * alone)

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(
        st.integers(10, 10_000).map(lambda kilobytes: kilobytes * 250),
        *[st.tuples(st.floats(1.25e6, 12.5e6), st.floats(0.005, 0.15)) for _ in range(2)],
    )
    def test_never_slower(self, size: int, one: Path, other: Path) -> None:
        """Up to ten times the rate, up to thirty times the delay, whatever there is to carry."""
        best = min(self.seconds(size, one), self.seconds(size, other))
        self.assertLess(self.seconds(size, one, other), 1.1 * best + 0.01)

    def test_cold_ones(self) -> None:
        """Nothing waits on the slower path for a window that has yet to grow."""
        for better, other, most in ((NEAR, MIDDLE, 0.85), (NEAR, FAR, 0.95), (QUICK, REMOTE, 1.0)):
            for size, share in ((64 * KIB, 1.0), (256 * KIB, 1.0), (5 * MIB, most)):
                alone = self.seconds(size, better, cold=True)
                both = self.seconds(size, better, other, cold=True)
                self.assertLess(both, 1.01 * share * alone)

    def test_many_cold_ones(self) -> None:
        """A page that fits into the windows of all takes no round trip more on a few of them."""
        pair = Pair(LIMITS)
        pair.add_many(32, 12.5e6, 0.05)
        stream_id = self.opened(pair)
        for there, _ in pair.subflows.values():
            there.window, there.slice = INITIAL_WINDOW, 1448
        before, data = pair.heap.now, pattern(256 * KIB)
        for at in range(0, len(data), 16 * KIB):
            pair.a.write(stream_id, data[at : at + 16 * KIB])
            pair.run(0.0003)
        pair.run_while(lambda: len(pair.b.streams[stream_id].got) < len(data))
        self.assertLess(pair.heap.now - before, 0.06)

    def test_one_that_stalls(self) -> None:
        """What it had on it comes late by the time that it takes to doubt its three subflows."""
        for better, other, size in (
            (NEAR, MIDDLE, 3 * MIB),
            (MIDDLE, NEAR, 64 * KIB),
            (REMOTE, QUICK, 64 * KIB),
        ):
            doubt = LIMITS.stall_floor + LIMITS.stall_margin + 2 * other[1]
            most = 1.1 * self.seconds(size, better) + 3 * doubt
            self.assertLess(self.seconds(size, better, other, stalls=True), most)

    def test_chance_makes_no_path_longer(self) -> None:
        """On one machine a round trip is ten times another's, and that means nothing."""
        pair = Pair(LIMITS)
        for delay in (0.0001, 0.0003, 0.001, 0.02):
            pair.add(20e6, delay)
        self.upload(pair, MIB)
        pair.run(1)
        subflows = pair.a.session._subflows
        takes = [subflows.carrying.takes_new(one) for one in subflows.alive.values()]
        self.assertEqual(takes, [True, True, True, False])

    def test_chance_leaves_none_out(self) -> None:
        """One whose hello came late carries its part soon, though others suffice."""
        pair = self.pair(2, delay=0.001)
        stream_id = self.opened(pair)
        pair.hello_excess = 0.06
        late = pair.add(12.5e6, 0.001)
        found = pair.b.session._subflows.alive[late]
        for _ in range(150):
            pair.a.write(stream_id, bytes(40 * KIB))
            pair.b.write(stream_id, bytes(150 * KIB))
            pair.run(0.01)
        self.assertGreater(found.rx.first, 0)
        self.assertGreater(found.tx.first, MIB)

    def test_what_a_proxy_takes(self) -> None:
        """Bytes that it takes and cannot send on hold up those that went another way."""
        slow = (1.5e6, 0.01)
        for size in (3 * MIB, 12 * MIB):
            seconds = self.seconds(size, NEAR, slow, proxy=MIB)
            self.assertLess(seconds, size / (NEAR[0] + slow[0]) + 0.3)

    def test_many_megabytes(self) -> None:
        """Nearly the sum of both."""
        for better, other in ((NEAR, FAR), (QUICK, REMOTE)):
            seconds = self.seconds(12 * MIB, better, other)
            self.assertLess(seconds, 12 * MIB / (better[0] + other[0]) * 1.06 + other[1])
