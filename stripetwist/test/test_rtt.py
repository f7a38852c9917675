"""L{stripetwist.core.rtt}: how long a round trip takes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.rtt import RttEstimator


class RttEstimatorTests(SynchronousTestCase):
    """RFC 6298's smoothing, and a recent minimum."""

    def setUp(self) -> None:
        """An estimator without samples."""
        self.rtt = RttEstimator()

    def test_nothing_is_known_before_the_first_sample(self) -> None:
        """No guess."""
        self.assertIsNone(self.rtt.smoothed)
        self.assertIsNone(self.rtt.minimum)
        self.assertEqual(self.rtt.last, ())

    def test_the_last_three(self) -> None:
        """In their order."""
        for second, rtt in enumerate((0.1, 0.2, 0.3, 0.2)):
            self.rtt.sample(rtt, float(second))
        self.assertEqual(self.rtt.last, (0.2, 0.3, 0.2))

    def test_few_are_a_guess(self) -> None:
        """Of two round trips even the less may have been chance."""
        for second, is_guess in enumerate((True, True, False, False)):
            self.rtt.sample(0.1, 50.0 + second)
            self.assertEqual((self.rtt.is_guess, self.rtt.sampled_at), (is_guess, 50.0 + second))

    def test_a_queue(self) -> None:
        """Where none of the last three was as quick as one of late."""
        self.assertFalse(self.rtt.is_queued)
        for second, (rtt, is_queued) in enumerate(
            ((0.1, False), (0.2, False), (0.2, False), (0.2, True), (0.13, False), (0.14, False))
        ):
            self.rtt.sample(rtt, second / 10)
            self.assertEqual(self.rtt.is_queued, is_queued, second)

    def test_smoothing_follows_the_rfc(self) -> None:
        """First sample R: R and R/2; then gains of 1/8 and 1/4, the variation first."""
        self.rtt.sample(0.1, 0.0)
        self.assertEqual((self.rtt.smoothed, self.rtt.variation), (0.1, 0.05))
        self.rtt.sample(0.2, 0.1)
        self.assertAlmostEqual(self.rtt.smoothed or 0, 0.1125)
        self.assertAlmostEqual(self.rtt.variation, 0.0625)

    def test_the_minimum_forgets(self) -> None:
        """A path that got longer is seen as such after 10 s."""
        self.rtt.sample(0.01, 0.0)
        for second in range(1, 12):
            self.rtt.sample(0.1, float(second))
            if second < 5:
                self.assertEqual(self.rtt.minimum, 0.01)
        self.assertEqual(self.rtt.minimum, 0.1)

    def test_no_sample_is_zero_or_less(self) -> None:
        """A clock that does not move, or a lying peer, gives the least there is."""
        self.rtt.sample(-1.0, 0.0)
        self.assertEqual(self.rtt.minimum, 1e-6)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(-10, 100), min_size=1, max_size=50))
    def test_estimates_stay_among_the_samples(self, samples: list[float]) -> None:
        """Smoothed and minimum lie between the extremes."""
        rtt = RttEstimator()
        seen = [max(sample, 1e-6) for sample in samples]
        for now, sample in enumerate(samples):
            rtt.sample(sample, float(now))
        assert rtt.smoothed is not None and rtt.minimum is not None
        self.assertTrue(min(seen) * 0.999 <= rtt.smoothed <= max(seen) * 1.001)
        self.assertTrue(min(seen) <= rtt.minimum <= max(seen))
        self.assertGreaterEqual(rtt.variation, 0)
