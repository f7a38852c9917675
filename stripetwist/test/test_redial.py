"""L{stripetwist.net.redial}: the table of pauses."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.net.redial import Redial

LIMITS = Limits()
MINUTE = 60.0


def redial(chance: float) -> Redial:
    """With a chance that was decided before."""
    return Redial(LIMITS, lambda: chance)


class RedialTests(SynchronousTestCase):
    """When, and how long."""

    def test_after_a_loss(self) -> None:
        """A connection that worked is dialed again at once, within 0.1 s."""
        self.assertEqual(redial(0.0).after_loss(), 0.0)
        self.assertEqual(redial(1.0).after_loss(), 0.1)

    def test_after_a_refusal(self) -> None:
        """Refused key or version: 30 s from the start."""
        self.assertEqual(redial(0.5).after_refusal(), 30.0)

    def test_while_another_lives(self) -> None:
        """Every 0.2 s for 5 minutes, however often; then 30 s."""
        for failures in (0, 1, 7, 1000):
            for down_for in (0.0, 1.0, 5 * MINUTE - 1):
                pause = redial(1.0).after_failure(failures, down_for, None)
                self.assertEqual(pause, 0.2)
            self.assertEqual(redial(1.0).after_failure(failures, 5 * MINUTE, None), 30.0)

    def test_while_nothing_lives(self) -> None:
        """0.2 s, doubled each time, at most 2 s, with full jitter; after 5 minutes 30 s."""
        most = [redial(1.0).after_failure(n, 0.0, 1.0) for n in range(7)]
        self.assertEqual(most, [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
        half = [redial(0.5).after_failure(n, 0.0, 1.0) for n in range(4)]
        self.assertEqual(half, [0.1, 0.2, 0.4, 0.8])
        self.assertEqual(redial(0.0).after_failure(5, 0.0, 1.0), 0.0)
        self.assertEqual(redial(1.0).after_failure(5, 0.0, 5 * MINUTE), 30.0)

    def test_an_old_failure_in_a_new_outage(self) -> None:
        """What counts, when nothing lives, is how long nothing has lived."""
        self.assertEqual(redial(1.0).after_failure(9, 60 * MINUTE, 1.0), 2.0)

    def test_connects(self) -> None:
        """1 s while another lives; else 1 s, 2 s, then 10 s."""
        times = [redial(0.5).connect_timeout(n, False) for n in range(5)]
        self.assertEqual(times, [1.0, 2.0, 10.0, 10.0, 10.0])
        self.assertEqual([redial(0.5).connect_timeout(n, True) for n in (0, 9)], [1.0, 1.0])

    @settings(max_examples=100, deadline=None)
    @given(
        st.floats(0, 1),
        st.integers(0, 10**9),
        st.floats(0, 1e9),
        st.none() | st.floats(0, 1e9),
    )
    def test_bounds(
        self, chance: float, failures: int, down_for: float, outage: float | None
    ) -> None:
        """No pause is negative or longer than half a minute, whatever happened."""
        pause = redial(chance).after_failure(failures, down_for, outage)
        self.assertTrue(0 <= pause <= 30)
