"""L{stripetwist.net.meter}: how fast bytes come."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.meter import Giver, Meter, Source, Taker
from stripetwist.net.speed import PIECE
from stripetwist.testing_transports import BoundedTransport


class MeterTests(SynchronousTestCase):
    """Bytes by time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.meter = Meter(self.clock)
        self.transport = BoundedTransport()

    def test_without_time_there_is_no_rate(self) -> None:
        """Nor without bytes."""
        self.assertEqual(self.meter.rate, 0.0)
        self.meter.add(5)
        self.assertEqual(self.meter.rate, 0.0)

    def test_the_rate_is_over_all_of_its_time(self) -> None:
        """From when it was made until it last heard."""
        self.clock.advance(2)
        self.meter.add(300)
        self.clock.advance(1)
        self.meter.add(300)
        self.assertEqual(self.meter.rate, 200.0)

    def test_taker(self) -> None:
        """It counts what comes, and time in which nothing does."""
        taker = Taker(self.meter)
        self.transport.connect(taker)
        self.clock.advance(1)
        self.transport.arrive(bytes(1000))
        self.clock.advance(1)
        taker.look()
        self.assertEqual((self.meter.rate, taker.is_lost), (500.0, False))
        self.transport.arrive_reset()
        self.assertTrue(taker.is_lost)

    def test_source(self) -> None:
        """One piece waits to be sent, and then the next."""
        self.transport.connect(Source())
        for _ in range(3):
            self.assertEqual(self.transport.drain(), PIECE)

    def test_giver(self) -> None:
        """What the other end has taken counts, not what was written; split as it may come."""
        giver = Giver(self.meter)
        self.transport.connect(giver)
        self.assertEqual(self.transport.drain(), PIECE)
        words = b"".join(number.to_bytes(8, "big") for number in (0, 700, 1000))
        self.clock.advance(1)
        for at in range(0, len(words), 5):
            self.transport.arrive(words[at : at + 5])
        self.clock.advance(1)
        giver.look()
        self.assertEqual((self.meter.rate, self.meter.total), (1000.0, 1000))
        self.transport.arrive_reset()
        self.assertTrue(giver.is_lost)
