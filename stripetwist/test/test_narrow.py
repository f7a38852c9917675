"""L{stripetwist.net.narrow}: rate, delay and back-pressure of a line made on purpose."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.narrow import Line, NarrowEnd, NarrowRelay
from stripetwist.testing_transports import BoundedTransport

LINE = Line(rate=100_000.0, delay=0.5)
LIMIT = 1000
ADDRESS = IPv4Address("TCP", "127.0.0.1", 1)


class NarrowTestCase(SynchronousTestCase):
    """A relay, one connection to it, and the one that it dials."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.relay = NarrowRelay(self.reactor, self.reactor, LINE, "127.0.0.1", 8443)
        self.near = self.transport()
        self.far = self.transport()
        self.near_end: NarrowEnd = self.relay.buildProtocol(ADDRESS)
        self.near.connect(self.near_end)

    def transport(self) -> BoundedTransport:
        """One side's."""
        return BoundedTransport(LIMIT, self.reactor)

    def onward(self) -> Any:
        """The factory of the connection that the relay dials."""
        return self.reactor.tcpClients[0][2]

    def answer(self) -> None:
        """The far side is there."""
        self.far.connect(self.onward().buildProtocol(ADDRESS))
        self.reactor.advance(0)

    def assert_nothing_is_left(self) -> None:
        """No timer, no transport."""
        self.reactor.advance(0)
        self.assertFalse(self.near.connected or self.far.connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class FlowTests(NarrowTestCase):
    """Bytes, and when they come."""

    def setUp(self) -> None:
        super().setUp()
        self.answer()

    def test_delay(self) -> None:
        """What is small comes after the delay, not before, in either direction."""
        for source, sink in ((self.near, self.far), (self.far, self.near)):
            source.arrive(b"hi")
            self.reactor.advance(LINE.delay - 0.01)
            self.assertEqual(sink.drain(), b"")
            self.reactor.advance(0.02)
            self.assertEqual(sink.drain(), b"hi")

    def test_rate(self) -> None:
        """Pieces follow each other as fast as the line is, whenever they came."""
        for _ in range(4):
            self.near.arrive(bytes(10_000))
        came = []
        self.reactor.advance(0.05)
        for _ in range(9):
            self.reactor.advance(0.1)
            came.append(len(self.far.drain()))
        self.assertEqual(came, [0, 0, 0, 0, 0, 10_000, 10_000, 10_000, 10_000])

    def test_a_line_that_was_idle_owes_nothing(self) -> None:
        """Time without bytes is not saved up."""
        self.reactor.advance(100)
        self.near.arrive(bytes(50_000))
        self.reactor.advance(0.9)
        self.assertEqual(self.far.drain(), b"")
        self.reactor.advance(0.2)
        self.assertEqual(len(self.far.drain()), 50_000)

    def test_what_is_held_is_bounded(self) -> None:
        """Above that nothing is read; as it leaves, more is."""
        for _ in range(100):
            self.near.arrive(bytes(10_000))
        most, total = 0, 0
        for _ in range(2000):
            self.reactor.advance(0.01)
            most = max(most, self.near_end.held)
            total += len(self.far.drain())
        self.assertEqual(total, 1_000_000)
        self.assertLess(most, LINE.holds + 10_000)
        self.assertGreater(most, LINE.rate * LINE.delay)

    def test_a_reader_that_is_slow(self) -> None:
        """What is due waits for it, and the sender with that."""
        for _ in range(100):
            self.near.arrive(bytes(10_000))
        self.reactor.advance(20)
        self.assertEqual(self.far.unsent, 10_000)
        self.assertGreater(self.near.waiting, 800_000)
        total = 0
        for _ in range(2000):
            total += len(self.far.drain())
            self.reactor.advance(0.01)
        self.assertEqual(total, 1_000_000)


class EndTests(NarrowTestCase):
    """How connections end."""

    def test_half_close(self) -> None:
        """It comes after the bytes; the other direction goes on, and then ends too."""
        self.answer()
        self.near.arrive(b"question")
        self.near.arrive_end()
        self.reactor.advance(LINE.delay + 0.1)
        self.assertEqual((self.far.drain(), self.far.ended), (b"question", "fin"))
        self.far.arrive(b"answer")
        self.far.arrive_end()
        self.reactor.advance(LINE.delay + 0.1)
        self.assertEqual((self.near.drain(), self.near.ended), (b"answer", "fin"))
        self.assert_nothing_is_left()

    def test_the_end_comes_once(self) -> None:
        """A side that was told to wait when it ended is not read again."""
        self.answer()
        self.near.arrive(bytes(LINE.holds + 1))
        self.near_end.readConnectionLost()
        self.near.calls.clear()
        self.far.limit = 1_000_000
        self.reactor.advance(3)
        self.assertEqual(len(self.far.drain()), LINE.holds + 1)
        self.assertEqual(self.near.calls, [])
        self.assertEqual(self.far.ended, "fin")

    def test_a_reset_is_passed_on_at_once(self) -> None:
        """With all that was on its way."""
        for at_the_near_end in (True, False):
            self.setUp()
            self.answer()
            ends = (self.near, self.far)
            broken, other = ends if at_the_near_end else reversed(ends)
            broken.arrive(b"lost")
            broken.arrive_reset()
            self.assertIn("abort", other.calls)
            self.assert_nothing_is_left()

    def test_nothing_to_lead_to(self) -> None:
        """Who came is turned away."""
        self.onward().clientConnectionFailed(None, Failure(OSError()))
        self.reactor.advance(0)
        self.assertEqual(self.near.ended, "reset")

    def test_gone_before_it_was_led_on(self) -> None:
        """The far side is then not wanted."""
        self.near.arrive_reset()
        self.answer()
        self.assert_nothing_is_left()
