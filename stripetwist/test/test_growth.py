"""Tests for L{stripetwist.core.growth}."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.growth import Growth

LIMITS = Limits()
MBIT = 1e6 / 8


class Line:
    """
    A session on a line whose goodput depends on how many subflows it has.

    New ones carry nothing until they are dialed, and then start slowly.

    @ivar counts: how many there were to be, look by look, with the time.
    """

    def __init__(self, goodput: Callable[[int, float], float], rtt: float = 0.1) -> None:
        self.goodput = goodput
        self.rtt = rtt
        self.now = 100.0
        self.moved = 0.0
        self.growth = Growth(LIMITS, self.now)
        self.counts: list[tuple[float, int]] = []

    def run(self, seconds: float) -> int:
        """Let time pass; how many there are to be then."""
        for _ in range(round(seconds / LIMITS.grow_look)):
            self.now += LIMITS.grow_look
            self.moved += LIMITS.grow_look * self._goodput(self.now - 100.0)
            self.growth.look(int(self.moved), self.rtt, self.now)
            self.counts.append((self.now - 100.0, self.growth.count))
        return self.growth.count

    def _goodput(self, now: float) -> float:
        count = self.growth.count
        changed, before = next(
            ((when, seen) for when, seen in reversed(self.counts) if seen != count), (-10.0, count)
        )
        # Some four round trips to be let in, as many to find a rate.
        ready = min(1.0, max(0.0, (now - changed) / self.rtt - 4) / 4)
        most, least = self.goodput(count, now), self.goodput(min(before, count), now)
        return least + ready * (most - least)

    def reached(self, count: int) -> float:
        """When there were to be so many."""
        return next(when for when, seen in self.counts if seen >= count)


class GrowthTests(SynchronousTestCase):
    """More subflows for as long as they bring more."""

    def test_each_is_held_back(self) -> None:
        """By loss, say: as many as there may be, within seconds."""
        for rtt, most in ((0.1, 15.0), (0.2, 15.0), (0.6, 50.0)):
            line = Line(lambda count, _: min(count * 8, 800) * MBIT, rtt)
            self.assertEqual(line.run(90), 32)
            self.assertLess(line.reached(32), most)

    def test_the_first_seconds_are_lucky(self) -> None:
        """On a lossy line new connections are quick until each has lost something."""
        line = Line(lambda count, _: 0.0)

        def decays(count: int, now: float) -> float:
            since = next((t for t, n in reversed(line.counts) if n != count), 0.0)
            luck: float = 2 * 0.4 ** (now - since)
            return count * 1.3 * MBIT * (1 + luck)

        line.goodput = decays
        self.assertEqual(line.run(60), 32)
        self.assertLess(line.reached(32), 20.0)

    def test_the_line_is_full(self) -> None:
        """More are tried, rarely, and given up."""
        line = Line(lambda count, _: 94 * MBIT)
        self.assertEqual(line.run(600), 6)
        more = [when for when, count in line.counts if count > 6]
        self.assertGreater(len(more), 0)
        self.assertLess(len(more) * LIMITS.grow_look, 0.03 * 600)
        self.assertEqual(max(count for _, count in line.counts), 12)

    def test_as_many_as_fill_it(self) -> None:
        """A limiter of 8 Mbit/s per connection: twelve fill what six do not."""
        line = Line(lambda count, _: min(count * 8, 94) * MBIT)
        line.run(15)
        self.assertEqual(line.run(5), 12)

    def test_a_slow_start_is_no_growth(self) -> None:
        """What rises by itself proves nothing."""
        line = Line(lambda count, now: min(94, 5 * 2**now) * MBIT)
        line.run(10)
        self.assertEqual(line.run(5), 6)

    def test_little_to_do(self) -> None:
        """What is carried in no hurry needs no more of them, however near the server is."""
        line = Line(lambda count, _: 0.4 * MBIT)
        line.run(60)
        self.assertEqual({count for _, count in line.counts}, {6})

    def test_bursts(self) -> None:
        """A trial that a pause cuts short is over; one that nobody used starts anew."""
        line = Line(lambda count, now: count * 2 * MBIT if now < 5 else 0.0)
        self.assertGreater(line.run(4.5), 6)
        before = line.growth.count
        self.assertLessEqual(line.run(4), before)
        self.assertEqual(line.run(60), 6)

    def test_a_limiter_nearby(self) -> None:
        """Round trips of a millisecond, and 2 Mbit/s for each connection."""
        line = Line(lambda count, _: min(count * 2, 300) * MBIT, 0.001)
        self.assertEqual(line.run(30), 32)

    def test_no_flapping(self) -> None:
        """Pauses that cut trials short bring no trial after each."""
        line = Line(lambda count, now: 10 * MBIT if now % 4 < 2.5 else 0.0)
        line.run(120)
        starts = [
            when
            for (when, count), (_, before) in zip(line.counts[1:], line.counts, strict=False)
            if count > before
        ]
        self.assertLessEqual(len(starts), 4)

    def test_it_tries_again(self) -> None:
        """A line that becomes lossy is noticed, a while after."""
        line = Line(lambda count, now: 94 * MBIT if now < 20 else count * 1.7 * MBIT)
        self.assertEqual(line.run(20), 6)
        self.assertEqual(line.run(60), 32)

    def test_a_new_session_counts_from_nothing(self) -> None:
        """Fewer bytes than before are no reason to fall over."""
        line = Line(lambda count, _: count * 1.7 * MBIT)
        line.run(20)
        line.moved = 0.0
        line.growth.begin_again(line.now)
        line.run(2)
        self.assertEqual(line.run(30), 32)

    def test_the_peer_takes_no_more(self) -> None:
        """What it does not take is not tried again, in this session."""
        line = Line(lambda count, _: count * 1.7 * MBIT)
        self.assertEqual(line.run(3), 12)
        line.growth.take_no_more_than(8)
        self.assertEqual(line.growth.count, 6)
        self.assertEqual(line.run(20), 8)
        line.growth.take_no_more_than(3)
        self.assertEqual(line.run(20), 6)
        line.growth.begin_again(line.now)
        line.moved = 0
        self.assertEqual(line.run(60), 32)

    @given(st.lists(st.floats(0, 500), min_size=1, max_size=40), st.floats(0.0005, 3))
    def test_bounds(self, rates: list[float], rtt: float) -> None:
        """Never fewer than at the start, never more than the most, whatever goodput does."""
        line = Line(lambda count, now: rates[int(now) % len(rates)] * MBIT, rtt)
        line.run(60)
        seen = {count for _, count in line.counts}
        self.assertTrue(all(LIMITS.subflows <= count <= LIMITS.grow_most for count in seen))
