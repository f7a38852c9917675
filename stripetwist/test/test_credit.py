"""L{stripetwist.core.credit}: how far each side may send, and what that costs."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.credit import (
    MemoryBudget,
    ReceiveWindow,
    SendCredit,
    SendStore,
    default_memory,
)
from stripetwist.core.reorder import ReorderBuffer

LIMITS = Limits(max_memory=32 * MIB)


class SendCreditTests(SynchronousTestCase):
    """What the peer allows us."""

    def test_only_ever_grows(self) -> None:
        """Older limits are ignored (C26)."""
        credit = SendCredit(10)
        self.assertFalse(credit.raise_to(10))
        self.assertFalse(credit.raise_to(3))
        self.assertEqual(credit.limit, 10)
        self.assertTrue(credit.raise_to(2**63))
        self.assertEqual(credit.limit, 2**63)


class MemoryBudgetTests(SynchronousTestCase):
    """Promises under three quarters, stores under one."""

    def setUp(self) -> None:
        """A budget of 32 MiB."""
        self.budget = MemoryBudget(LIMITS)

    def test_the_first_window_shrinks_with_the_promises(self) -> None:
        """min(4 MiB, (M/8 - S)/4), never under 8 KiB."""
        self.assertEqual(self.budget.first_window(), MIB)
        self.budget.promised = 2 * MIB
        self.assertEqual(self.budget.first_window(), MIB // 2)
        for promised in (4 * MIB, 24 * MIB):
            self.budget.promised = promised
            self.assertEqual(self.budget.first_window(), 8 * KIB)
        self.assertEqual(MemoryBudget(Limits(max_memory=256 * MIB)).first_window(), 4 * MIB)

    def test_opens_end_at_three_quarters(self) -> None:
        """The last guarantee that fits is given, the next is not."""
        self.budget.promised = 24 * MIB - 8 * KIB
        self.assertTrue(self.budget.may_open())
        self.budget.promised += 1
        self.assertFalse(self.budget.may_open())

    def test_growth_ends_at_a_half(self) -> None:
        """A window grows to a quarter of what it and no other has; so there is always a rest."""
        self.budget.promised = 10 * MIB
        self.assertEqual(self.budget.largest_window(2 * MIB), 8 * MIB // 4)
        for _ in range(20):
            size = max(8 * KIB, self.budget.largest_window(0))
            self.budget.promised += size
        self.assertTrue(15 * MIB < self.budget.promised < 16 * MIB)

    def test_a_session_alone_stores_half_of_a_quarter(self) -> None:
        """And goes on a little below."""
        store = SendStore(self.budget)
        store.add(4 * MIB)
        self.assertFalse(store.is_full)
        store.add(2)
        self.assertTrue(store.is_full)
        store.add(-MIB // 4)
        self.assertFalse(store.has_room)
        store.add(-MIB // 2)
        self.assertTrue(store.has_room)
        self.assertEqual(self.budget.stored, store.stored)

    def test_something_is_left_for_the_next_session(self) -> None:
        """However many have filled their shares, and never more than the quarter in all."""
        for number in range(1, 8):
            store = SendStore(self.budget)
            while not store.is_full:
                store.add(KIB)
            # As in a geometric row.
            self.assertGreater(store.stored, 8 * MIB * 0.6 / 3**number)
            self.assertLessEqual(self.budget.stored, 8 * MIB + number * KIB)

    def test_the_default_is_a_quarter_within_bounds(self) -> None:
        """A quarter of the machine, at most 256 MiB."""
        self.assertEqual(default_memory(2**40), 256 * MIB)
        self.assertEqual(default_memory(400 * MIB), 100 * MIB)
        self.assertEqual(default_memory(MIB), 16 * MIB)


class ReceiveWindowTests(SynchronousTestCase):
    """What one stream's sender may send."""

    def setUp(self) -> None:
        """A window of 64 KiB."""
        self.budget = MemoryBudget(LIMITS)
        self.window = ReceiveWindow(64 * KIB, self.budget, LIMITS)

    def test_is_renewed_as_bytes_are_consumed(self) -> None:
        """In steps of a quarter; what was not consumed is not granted again."""
        self.assertFalse(self.window.take(10 * KIB))
        self.assertEqual(self.window.limit, 64 * KIB)
        self.assertTrue(self.window.take(6 * KIB))
        self.assertEqual(self.window.limit, 80 * KIB)
        self.assertEqual(self.budget.promised, 64 * KIB)

    def grow(self, next_offset: int, held: int, now: float, rtt: float = 0.1) -> bool:
        """More came: in order up to there, and so much behind a gap of 1 KiB."""
        reorder = ReorderBuffer()
        reorder.next_offset, reorder.held = next_offset, held
        reorder.highest = next_offset + held + (KIB if held else 0)
        waited = next_offset - self.window.consumed
        return self.window.grow(reorder, waited, rtt, now)

    def test_doubles_while_bytes_wait_behind_a_gap(self) -> None:
        """Less than half of the grant is left; a round trip has passed since the last time."""
        self.assertFalse(self.grow(0, 31 * KIB, 1.0), "half is left")
        self.assertTrue(self.grow(0, 33 * KIB, 1.0))
        self.assertEqual((self.window.size, self.window.limit), (128 * KIB, 128 * KIB))
        self.assertFalse(self.grow(0, 100 * KIB, 1.05), "too soon")
        self.assertTrue(self.grow(0, 100 * KIB, 1.1))
        self.assertEqual(self.budget.promised, 256 * KIB)

    def test_offsets_alone_do_not_count(self) -> None:
        """A byte at the far end of the grant is one byte."""
        reorder = ReorderBuffer()
        reorder.insert(64 * KIB - 1, [b"x"], 1, 64 * KIB)
        for now in range(100):
            self.assertFalse(self.window.grow(reorder, 0, 0.1, float(now)))

    def flow(self, rate: float, rtt: float, seconds: float = 5.0) -> int:
        """A sender of that rate, held back by the window alone; the window's size then."""
        received, now = 0.0, 100.0
        granted = [(now, self.window.limit)]
        while now < 100.0 + seconds:
            now += 0.001
            while len(granted) > 1 and granted[1][0] <= now - rtt:
                granted.pop(0)
            before, received = received, min(received + rate * 0.001, granted[0][1])
            if received > before:
                self.grow(int(received), 0, now, rtt)
                self.window.take(int(received) - int(before))
            granted.append((now, self.window.limit))
        return self.window.size

    def test_doubles_while_a_round_trip_uses_it_up(self) -> None:
        """Although a consumer that keeps up leaves the grant nearly whole at any moment."""
        self.assertGreaterEqual(self.flow(1e6, 0.2, 1.0), 256 * KIB)
        self.setUp()
        self.assertIn(self.flow(1e6, 0.2), (512 * KIB, 1024 * KIB))

    def test_does_not_double_for_slow_senders(self) -> None:
        """Who never comes near the window in a round trip needs no more of it."""
        self.assertEqual(self.flow(0.1e6, 0.2), 64 * KIB)

    def test_does_not_grow_for_a_slow_consumer(self) -> None:
        """Bytes in order that nobody takes are no reason for more of them."""
        self.assertFalse(self.grow(1, 0, 1.0))
        self.assertFalse(self.grow(33 * KIB, 0, 1.1))
        self.setUp()
        self.assertFalse(self.grow(1, 0, 1.0))
        self.assertTrue(self.grow(32 * KIB, 0, 1.1))

    def test_grows_to_its_most(self) -> None:
        """16 MiB, or whatever the limits say."""
        limits = replace(LIMITS, max_window=200 * KIB)
        window = ReceiveWindow(128 * KIB, self.budget, limits)
        self.window = window
        self.assertTrue(self.grow(0, 127 * KIB, 1.0))
        self.assertEqual(window.size, 200 * KIB)
        self.assertFalse(self.grow(0, 199 * KIB, 9.0))

    def test_does_not_grow_where_memory_is_short(self) -> None:
        """Nothing is over-promised."""
        self.budget.promised = 18 * MIB
        self.assertFalse(self.grow(0, 63 * KIB, 1.0))
        self.assertEqual(self.window.limit, 64 * KIB)

    def test_a_first_window_only_widens(self) -> None:
        """An accepted stream never gets less than its guarantee."""
        self.window.widen(8 * KIB)
        self.assertEqual(self.window.limit, 64 * KIB)
        self.window.widen(MIB)
        self.assertEqual((self.window.limit, self.budget.promised), (MIB, MIB))

    def test_an_end_gives_the_rest_back(self) -> None:
        """A stream whose size is known holds no promise beyond it, and gets no more."""
        self.window.take(20 * KIB)
        self.window.end_at(30 * KIB)
        self.assertEqual(self.budget.promised, 10 * KIB)
        self.assertFalse(self.window.take(10 * KIB))
        self.assertEqual(self.budget.promised, 0)
        self.window.end_at(30 * KIB)
        self.window.widen(MIB)
        self.assertFalse(self.grow(0, 30 * KIB, 1.0))
        self.window.close()
        self.assertEqual(self.budget.promised, 0)

    def test_closing_gives_everything_back_once(self) -> None:
        """Late news from the consumer changes nothing."""
        self.window.take(1000)
        self.window.close()
        self.window.close()
        self.assertFalse(self.window.take(1000))
        self.window.widen(MIB)
        self.assertFalse(self.grow(0, 64 * KIB, 1.0))
        self.assertEqual(self.budget.promised, 0)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 7),
                st.sampled_from(["open", "widen", "take", "grow", "end", "close"]),
                st.integers(0, 2 * MIB),
            ),
            max_size=60,
        )
    )
    def test_the_budget_is_the_sum_and_never_over(self, steps: list[tuple[int, str, int]]) -> None:
        """Whatever streams do, the promises are what could come, and under 3M/4."""
        limits = replace(LIMITS, max_memory=2 * MIB)
        budget = MemoryBudget(limits)
        windows: dict[int, ReceiveWindow] = {}
        for now, (which, what, size) in enumerate(steps):
            window = windows.get(which)
            if what == "open" and window is None and budget.may_open():
                windows[which] = ReceiveWindow(budget.first_window(), budget, limits)
            elif window is not None:
                left = window.limit - window.consumed
                if what == "widen":
                    window.widen(budget.first_window())
                elif what == "take":
                    window.take(min(size, left))
                elif what == "grow":
                    self.window = window
                    self.grow(window.consumed, left, float(now))
                elif what == "end":
                    window.end_at(window.consumed + min(size, left))
                elif what == "close":
                    windows.pop(which).close()
            self.assertEqual(budget.promised, sum(w.booked for w in windows.values()))
            self.assertLessEqual(budget.promised, limits.max_memory * 3 // 4)
            for one in windows.values():
                self.assertTrue(0 <= one.limit - one.consumed <= one.booked)
