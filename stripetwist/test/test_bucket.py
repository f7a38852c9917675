"""L{stripetwist.core.bucket}: what a limited path may carry."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.bucket import NEVER, Bucket


class BucketTests(SynchronousTestCase):
    """A path of 100 kB/s."""

    def setUp(self) -> None:
        """One that has rested."""
        self.bucket = Bucket(100_000, 10.0)

    def test_saved_up(self) -> None:
        """After a rest some bytes may leave at once, however long that was."""
        for now in (10.0, 11.0, 4000.0):
            self.assertEqual(self.bucket.room(now), 5_000)
        self.assertEqual(self.bucket.reopens_at, NEVER)

    def test_too_much(self) -> None:
        """What left beyond that is made up for before anything more does."""
        self.bucket.spend(15_000, 10.0)
        self.assertAlmostEqual(self.bucket.reopens_at, 10.11)
        self.assertEqual(self.bucket.room(10.105), 0)
        self.assertAlmostEqual(self.bucket.room(10.11), 1_000)
        self.assertEqual(self.bucket.reopens_at, NEVER)

    def test_more_while_closed(self) -> None:
        """What must leave does, and is counted."""
        self.bucket.spend(15_000, 10.0)
        self.bucket.spend(2_000, 10.05)
        self.assertAlmostEqual(self.bucket.reopens_at, 10.13)

    def test_clock_that_stands(self) -> None:
        """Time that goes back earns nothing and costs nothing."""
        self.bucket.spend(4_000, 10.0)
        self.assertEqual(self.bucket.room(9.0), 1_000)
