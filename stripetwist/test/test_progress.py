"""L{stripetwist.core.progress}: what a kernel tells of a connection."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.progress import KernelView


class KernelViewTests(SynchronousTestCase):
    """Whether bytes have moved since an earlier look."""

    def test_what_is_acknowledged(self) -> None:
        """Since when, is when the last acknowledgement came."""
        before = KernelView(acked=1000, waiting=True)
        self.assertEqual(KernelView(2000, 0.3, waiting=True).moved(before), 0.3)
        self.assertIsNone(KernelView(1000, 0.3, waiting=True).moved(before))

    def test_what_comes(self) -> None:
        """Counts where all of ours has arrived, and the answer is behind other bytes."""
        before = KernelView(acked=1000, received=500)
        self.assertEqual(KernelView(1000, 5.0, 900, 0.1).moved(before), 0.1)
        self.assertIsNone(KernelView(1000, 5.0, 900, 0.1, waiting=True).moved(before))
        self.assertIsNone(KernelView(1000, 5.0, 500, 4.0).moved(before))
