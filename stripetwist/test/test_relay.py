"""L{stripetwist.net.relay}: back-pressure, half-close and reset between two transports."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.http_answer import Answer
from stripetwist.core.http_body import Body
from stripetwist.net.relay import Parked, Relay, couple
from stripetwist.net.sieve import NOTHING_SIFTED, Sieves
from stripetwist.testing_transports import BoundedTransport

LIMIT = 1000


class Counting(BoundedTransport):
    """A transport that, like a carried stream, wants to rest until its bytes have gone."""

    counts_consumption = True

    def abortConnection(self) -> None:
        """Like a carried stream's, it tells the protocol within this very call."""
        clock, self._clock = self._clock, None
        super().abortConnection()
        self._clock = clock


class Eager(BoundedTransport):
    """A transport that hands over what it has within the call that lets it."""

    def resumeProducing(self) -> None:
        """Everything is here already."""
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")


class RelayTestCase(SynchronousTestCase):
    """Two parked transports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = replace(Limits(), half_closed=100.0)
        self.near = self.parked(BoundedTransport(LIMIT, self.clock))
        self.far = self.parked(BoundedTransport(LIMIT, self.clock))

    def parked(self, transport: BoundedTransport) -> BoundedTransport:
        """A transport as an opener hands it over."""
        transport.connect(Parked())
        transport.calls.clear()
        return transport

    def carried(self) -> None:
        """Let the far side be one that counts consumption."""
        self.far = self.parked(Counting(LIMIT, self.clock))

    def couple(
        self, early: bytes = b"", early_eof: bool = False, sieves: Sieves = NOTHING_SIFTED
    ) -> Relay:
        """Couple them."""
        relay = couple(
            self.near,
            self.far,
            early=early,
            early_eof=early_eof,
            sieves=sieves,
            clock=self.clock,
            limits=self.limits,
        )
        self.turn()
        return relay

    def turn(self) -> None:
        """What Twisted would do in its next turns."""
        self.clock.advance(0)

    def assert_over(self, relay: Relay) -> None:
        """Both transports are gone, who waits was told once, and no timer is left."""
        self.assertFalse(self.near.connected or self.far.connected)
        self.assertTrue(relay.ended.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PieceTests(RelayTestCase):
    """What a carried stream hands over."""

    def test_leaves_at_one_go(self) -> None:
        """However long: by itself Twisted sends less at a time."""
        self.couple()
        for one in (self.near, self.far):
            self.assertGreaterEqual(one.SEND_LIMIT, self.limits.batch_most)


class FlowTests(RelayTestCase):
    """Bytes, and who may stop them."""

    def test_sieves(self) -> None:
        """They are there before the first byte is, and sift what is read later."""
        self.far = self.parked(Eager(LIMIT, self.clock))
        self.couple(b"a", sieves=(Body(2), Answer()))
        self.near.arrive(b"bcd")
        self.turn()
        self.assertEqual(self.far.drain(), b"abc")
        self.assertEqual(self.near.drain(LIMIT), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    def test_nothing_is_read_before_it_is_coupled(self) -> None:
        """A parked transport keeps what comes, its end too, for the one who couples it."""
        self.far.arrive(b"banner")
        self.far.arrive_end()
        self.turn()
        self.assertEqual(self.far.waiting, 6)
        self.couple()
        self.assertEqual(self.near.drain(), b"banner")
        self.turn()
        self.assertEqual(self.near.ended, "fin")

    def test_both_ways(self) -> None:
        """What comes at one side leaves at the other."""
        relay = self.couple()
        self.near.arrive(b"question")
        self.far.arrive(b"answer")
        self.assertEqual(self.far.drain(), b"question")
        self.assertEqual(self.near.drain(), b"answer")
        self.assertEqual(relay.moved, 14)

    def test_early_bytes_go_first(self) -> None:
        """What was read before the coupling is sent before what comes after it."""
        self.near.arrive(b"late")
        relay = self.couple(early=b"early ")
        self.assertEqual(self.far.drain(), b"early late")
        self.assertEqual(relay.moved, 10)

    def test_full_socket_pauses_the_other(self) -> None:
        """A side that does not drain stops the reading of the other, and only that."""
        self.couple()
        self.near.arrive(bytes(LIMIT + 1))
        self.near.arrive(b"more")
        self.assertEqual(self.far.unsent, LIMIT + 1)
        self.assertEqual(self.near.waiting, 4)
        self.far.arrive(b"the other way goes on")
        self.assertEqual(self.near.drain(), b"the other way goes on")
        self.far.drain(LIMIT)
        self.turn()
        self.assertEqual(self.near.waiting, 4)
        self.far.drain()
        self.turn()
        self.assertEqual(self.far.drain(), b"more")

    def test_counting_source_rests_after_each_piece(self) -> None:
        """A source that counts is resumed only when its piece has left this process."""
        self.carried()
        self.couple()
        self.far.arrive(b"one")
        self.far.arrive(b"two")
        self.assertEqual((self.near.unsent, self.far.waiting), (3, 3))
        self.near.drain(2)
        self.turn()
        self.assertEqual((self.near.unsent, self.far.waiting), (1, 3))
        self.near.drain()
        self.turn()
        self.assertEqual(self.near.unsent, 3)
        self.assertEqual(bytes(self.near.sent), b"one")

    def test_two_counting_sides(self) -> None:
        """Two carried streams can be coupled with each other."""
        self.near = self.parked(Counting(LIMIT, self.clock))
        self.carried()
        self.couple()
        for _ in range(3):
            self.near.arrive(b"ping")
            self.far.arrive(b"pong")
        for _ in range(3):
            self.near.drain()
            self.far.drain()
            self.turn()
        self.assertEqual(bytes(self.near.sent + self.far.sent), b"pong" * 3 + b"ping" * 3)

    def test_full_before_it_is_coupled(self) -> None:
        """A far side that pauses its producer at once is not read into all the same."""

        class Full(BoundedTransport):
            """A transport without any room."""

            def registerProducer(self, producer: BoundedTransport, streaming: bool) -> None:
                super().registerProducer(producer, streaming)
                producer.pauseProducing()

        self.far = self.parked(Full(LIMIT, self.clock))
        self.near.arrive(b"must wait")
        self.couple()
        self.assertEqual((self.far.unsent, self.near.waiting), (0, 9))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=20), st.booleans())
    def test_nothing_is_lost_or_kept(self, pieces: list[tuple[bool, int]], carried: bool) -> None:
        """Whatever comes in whatever pieces arrives, and unsent bytes stay few."""
        self.setUp()
        if carried:
            self.carried()
        relay = self.couple()
        there, back = bytearray(), bytearray()
        for number, (to_far, size) in enumerate(pieces):
            source, expected = (self.near, there) if to_far else (self.far, back)
            data = bytes([number]) * size
            expected += data
            source.arrive(data)
            self.assertLessEqual(max(self.near.unsent, self.far.unsent), LIMIT + 3000)
            if size % 2:
                self.near.drain()
                self.far.drain(size)
            self.turn()
        self.near.arrive_end()
        self.far.arrive_end()
        while self.near.connected or self.far.connected:
            self.near.drain()
            self.far.drain()
            self.turn()
        self.assertEqual((self.far.sent, self.near.sent), (there, back))
        self.assert_over(relay)


class EndTests(RelayTestCase):
    """How it ends."""

    def test_near_half_closes_first(self) -> None:
        """Its end is passed on behind its bytes, and answers still come (D01)."""
        relay = self.couple()
        self.near.arrive(b"request")
        self.near.arrive_end()
        self.turn()
        self.assertEqual(self.far.ended, "")
        self.far.drain()
        self.assertEqual(self.far.ended, "fin")
        self.far.arrive(b"answer")
        self.assertEqual(self.near.drain(), b"answer")
        self.far.arrive_end()
        self.turn()
        self.assertEqual((self.near.ended, self.far.ended), ("fin", "fin"))
        self.assert_over(relay)

    def test_far_half_closes_first(self) -> None:
        """The other way round (D02)."""
        relay = self.couple()
        self.far.arrive(b"banner")
        self.far.arrive_end()
        self.near.drain()
        self.turn()
        self.assertEqual((self.near.ended, self.near.connected), ("fin", True))
        self.near.arrive(b"a long upload")
        self.assertEqual(self.far.drain(), b"a long upload")
        self.near.arrive_end()
        self.turn()
        self.assert_over(relay)
        self.assertEqual(self.far.ended, "fin")

    def test_both_at_once(self) -> None:
        """Two ends at the same time are a clean close (D03)."""
        for carried in (False, True):
            self.setUp()
            if carried:
                self.carried()
            relay = self.couple()
            self.near.arrive_end()
            self.far.arrive_end()
            self.turn()
            self.assert_over(relay)
            self.assertNotIn("abort", self.near.calls + self.far.calls)

    def test_close_waits_for_unsent_bytes(self) -> None:
        """Ended both ways, what was passed on is still delivered."""
        relay = self.couple()
        self.near.arrive_end()
        self.far.arrive(b"the last words")
        self.far.arrive_end()
        self.turn()
        self.assertTrue(self.near.connected)
        self.assertFalse(self.far.connected)
        self.assertFalse(relay.ended.called)
        self.near.drain()
        self.turn()
        self.assertEqual(bytes(self.near.sent), b"the last words")
        self.assert_over(relay)

    def test_early_end(self) -> None:
        """A near side that had ended before the coupling half-closes the far one (D13)."""
        relay = self.couple(early=b"abc", early_eof=True)
        self.assertEqual(self.far.drain(), b"abc")
        self.assertEqual(self.far.ended, "fin")
        self.far.arrive(b"answer")
        self.far.arrive_end()
        self.near.drain()
        self.turn()
        self.assertEqual(bytes(self.near.sent), b"answer")
        self.assert_over(relay)

    def test_reset_travels(self) -> None:
        """A side that breaks takes the other with it, by a reset (D04, D05)."""
        for broken, kind in (("near", False), ("far", False), ("near", True), ("far", True)):
            self.setUp()
            if kind:
                self.carried()
            relay = self.couple()
            source, sink = self.near, self.far
            if broken == "far":
                source, sink = sink, source
            source.arrive(b"prefix")
            source.arrive_reset()
            self.turn()
            self.assertEqual(sink.ended, "reset")
            self.assertEqual(sink.calls.count("abort"), 1)
            self.assert_over(relay)

    def test_reset_after_a_half_close(self) -> None:
        """Even when one direction had ended well, a break of the other is told."""
        relay = self.couple()
        self.near.arrive_end()
        self.turn()
        self.far.arrive_reset()
        self.turn()
        self.assertEqual(self.near.ended, "reset")
        self.assert_over(relay)

    def test_close_without_an_end_is_a_reset(self) -> None:
        """A transport lost in peace, whose own end was never seen, was cut off."""
        relay = self.couple()
        self.far._lose(Failure(ConnectionDone()))
        self.turn()
        self.assertEqual(self.near.ended, "reset")
        self.assert_over(relay)

    def test_reset_while_closing(self) -> None:
        """Once both directions have ended, how a side goes no longer matters to the other."""
        relay = self.couple()
        self.near.arrive_end()
        self.far.arrive(b"last")
        self.far.arrive_end()
        self.turn()
        self.near.arrive_reset()
        self.turn()
        self.assertNotIn("abort", self.far.calls)
        self.assert_over(relay)

    def test_lost_while_parked(self) -> None:
        """A transport that was lost before the coupling resets the other one."""
        for lost, kind in (("near", False), ("far", False), ("near", True), ("far", True)):
            self.setUp()
            if kind:
                self.carried()
            first, second = self.near, self.far
            if lost == "far":
                first, second = second, first
            first.arrive_reset()
            relay = self.couple(early=b"never sent")
            self.assertEqual((second.ended, bytes(second.sent)), ("reset", b""))
            self.assert_over(relay)

    def test_both_lost_while_parked(self) -> None:
        """Then there is nothing to do."""
        self.near.arrive_reset()
        self.far.arrive_reset()
        self.assert_over(self.couple())

    def test_lost_while_early_bytes_are_written(self) -> None:
        """A far side that breaks at its very first write is coped with."""

        class Brittle(Counting):
            """Breaks when written to."""

            def write(self, data: bytes) -> None:
                self._lose(Failure(ConnectionLost()))

        self.far = self.parked(Brittle(LIMIT, self.clock))
        relay = self.couple(early=b"early", early_eof=True)
        self.assertEqual(self.near.ended, "reset")
        self.assert_over(relay)


class SilenceTests(RelayTestCase):
    """A relay that is half closed may not stay for ever."""

    def test_half_closed_and_silent(self) -> None:
        """With one direction over and nothing in the other both sides are aborted (D15)."""
        for carried in (False, True):
            self.setUp()
            if carried:
                self.carried()
            relay = self.couple()
            self.near.arrive_end()
            self.clock.advance(99)
            self.assertTrue(self.far.connected)
            self.clock.advance(1)
            self.turn()
            self.assertEqual(self.near.ended, "reset")
            self.assert_over(relay)

    def test_half_closed_and_busy(self) -> None:
        """Bytes in the other direction put the end off (D14)."""
        relay = self.couple()
        self.near.arrive_end()
        for _ in range(5):
            self.clock.advance(99)
            self.far.arrive(b".")
            self.near.drain()
        self.assertTrue(self.near.connected and self.far.connected)
        self.clock.pump([100, 100])
        self.turn()
        self.assert_over(relay)

    def test_closing_and_stuck(self) -> None:
        """A side that never takes the last bytes is aborted, too."""
        relay = self.couple()
        self.near.arrive_end()
        self.far.arrive(b"never taken")
        self.far.arrive_end()
        self.turn()
        self.clock.pump([100, 100])
        self.turn()
        self.assertEqual(self.near.ended, "reset")
        self.assert_over(relay)

    def test_open_and_silent(self) -> None:
        """While both directions are open silence is nobody's business."""
        self.couple()
        self.assertEqual(self.clock.getDelayedCalls(), [])
