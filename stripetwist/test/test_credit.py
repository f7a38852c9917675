"""L{stripetwist.core.credit}: how far each side may send, and what that costs."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow, SendCredit, default_memory

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

    def test_growth_ends_at_nine_sixteenths(self) -> None:
        """The rest is for those that come."""
        self.budget.promised = 17 * MIB
        self.assertTrue(self.budget.may_grow(MIB))
        self.assertFalse(self.budget.may_grow(MIB + 1))

    def test_the_store_is_full_above_a_quarter(self) -> None:
        """And has room again a little below."""
        self.budget.stored = 8 * MIB
        self.assertFalse(self.budget.store_is_full)
        self.budget.stored += 1
        self.assertTrue(self.budget.store_is_full)
        self.assertFalse(self.budget.store_has_room)
        self.budget.stored = 7 * MIB
        self.assertTrue(self.budget.store_has_room)

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

    def test_doubles_while_it_holds_the_sender_back(self) -> None:
        """Less than half left, the consumer keeps up, a round trip has passed."""
        self.assertFalse(self.window.grow(32 * KIB, 0, 0.1, 1.0), "half is left")
        self.assertTrue(self.window.grow(33 * KIB, 0, 0.1, 1.0))
        self.assertEqual((self.window.size, self.window.limit), (128 * KIB, 128 * KIB))
        self.assertFalse(self.window.grow(100 * KIB, 0, 0.1, 1.09), "too soon")
        self.assertTrue(self.window.grow(100 * KIB, 0, 0.1, 1.1))
        self.assertEqual(self.budget.promised, 256 * KIB)

    def test_does_not_grow_for_a_slow_consumer(self) -> None:
        """Bytes in order that nobody takes are no reason for more of them."""
        self.assertFalse(self.window.grow(64 * KIB, 65 * KIB, 0.1, 1.0))
        self.assertTrue(self.window.grow(64 * KIB, 64 * KIB, 0.1, 1.0))

    def test_grows_to_its_most(self) -> None:
        """16 MiB, or whatever the limits say."""
        limits = replace(LIMITS, max_window=200 * KIB)
        window = ReceiveWindow(128 * KIB, self.budget, limits)
        self.assertTrue(window.grow(128 * KIB, 0, 0.1, 1.0))
        self.assertEqual(window.size, 200 * KIB)
        self.assertFalse(window.grow(200 * KIB, 0, 0.1, 9.0))

    def test_does_not_grow_where_memory_is_short(self) -> None:
        """Nothing is over-promised."""
        self.budget.promised = 18 * MIB
        self.assertFalse(self.window.grow(64 * KIB, 0, 0.1, 1.0))
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
        self.assertFalse(self.window.grow(30 * KIB, 0, 0.0, 1.0))
        self.window.close()
        self.assertEqual(self.budget.promised, 0)

    def test_closing_gives_everything_back_once(self) -> None:
        """Late news from the consumer changes nothing."""
        self.window.take(1000)
        self.window.close()
        self.window.close()
        self.assertFalse(self.window.take(1000))
        self.window.widen(MIB)
        self.assertFalse(self.window.grow(64 * KIB, 0, 0.0, 1.0))
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
        """Whatever streams do, the promises are the sum of limit - consumed, under 3M/4."""
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
                    window.grow(window.limit, 0, 0.0, float(now))
                elif what == "end":
                    window.end_at(window.consumed + min(size, left))
                elif what == "close":
                    windows.pop(which).close()
            self.assertEqual(budget.promised, sum(w.limit - w.consumed for w in windows.values()))
            self.assertLessEqual(budget.promised, limits.max_memory * 3 // 4)
