"""L{stripetwist.net.refusals}: what is logged of a flood."""

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.refusals import Refusals

GUEST = 'as "guest"'


class RefusalsTests(SynchronousTestCase):
    """Keys, and time."""

    def setUp(self) -> None:
        """None was refused yet."""
        self.clock = Clock()
        self.refusals = Refusals(self.clock)

    def told(self, seconds: float) -> list[str]:
        """What is logged meanwhile."""
        with capturedLogs() as logs:
            self.clock.advance(seconds)
        return [str(formatEvent(event)) for event in logs]

    def test_a_flood(self) -> None:
        """The first is news; of the others there is a line a minute, until there are none."""
        news = [self.refusals.is_news(GUEST, f"reason {number}") for number in range(100)]
        self.assertEqual(news, [True] + 99 * [False])
        self.assertEqual(self.told(59), [])
        line = '99 more not let in as "guest" within a minute: reason 99'
        self.assertEqual(self.told(1), [line])
        self.assertFalse(self.refusals.is_news(GUEST, "again"))
        self.assertEqual(self.told(60), ['1 more not let in as "guest" within a minute: again'])
        self.assertEqual(self.told(60), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.refusals.is_news(GUEST, "much later"))
        self.refusals.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_more_than_can_be_told_of(self) -> None:
        """Are not told of until there is room again."""
        news = [self.refusals.is_news(f"from {number}", "no") for number in range(300)]
        self.assertEqual(news, [True] * 256 + [False] * 44)
        self.assertEqual(self.told(60), [])
        self.assertTrue(self.refusals.is_news("from 299", "no"))

    def test_the_first_few(self) -> None:
        """Are news in the first minute; in those that follow at once none is."""
        refusals = Refusals(self.clock, 3)
        news = [refusals.is_news(GUEST, "no") for _ in range(5)]
        self.assertEqual(news, [True] * 3 + [False] * 2)
        self.assertEqual(self.told(60), ['2 more not let in as "guest" within a minute: no'])
        self.assertFalse(refusals.is_news(GUEST, "no"))
        refusals.stop()

    def test_nothing_after_the_end(self) -> None:
        """Nor is anything kept for later."""
        self.refusals.stop()
        self.assertFalse(self.refusals.is_news(GUEST, "no"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_key(self) -> None:
        """Has its own."""
        self.assertTrue(self.refusals.is_news(GUEST, "no"))
        self.assertTrue(self.refusals.is_news('as "desk"', "no"))
        self.assertEqual(self.told(60), [])
