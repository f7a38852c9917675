"""L{stripetwist.net.transport}: a carried stream as a transport."""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from stripetwist.core.config import KIB
from stripetwist.core.errors import Code
from stripetwist.core.frames import HEADER_SIZE
from stripetwist.net.transport import StreamReset, StreamTransport
from stripetwist.testing_transports import BoundedTransport

PIECE = 256 * KIB
READ = 64 * KIB - HEADER_SIZE
ID = 7


class Owner:
    """
    A session that has one stream.

    @ivar room: what it says after each write.
    @ivar done: what was asked of it.
    """

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.ends = False
        self.room: int = True
        self.written: list[bytes] = []
        self.counted = 0
        self.done: list[str] = []
        self.on_consumed: Callable[[], None] = lambda: None

    def room_left(self, stream_id: int) -> int:
        """Much or nothing, unless a number was set."""
        return self.room if self.room is not True else 1 << 20

    def write(self, stream_id: int, data: bytes) -> int:
        """Keep it."""
        assert stream_id == ID
        self.written.append(data)
        return self.room_left(stream_id)

    def end(self, stream_id: int) -> None:
        """Note it."""
        self.done.append("end")

    def reset(self, stream_id: int, code: Code) -> None:
        """Note it."""
        self.done.append(f"reset {code.name}")

    def stop_reading(self, stream_id: int) -> None:
        """Note it."""
        self.done.append("stop reading")

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """The next piece, and whether it is the last."""
        assert most == PIECE
        data = self.incoming.popleft() if self.incoming else b""
        ended = self.ends and not self.incoming
        if ended:
            self.ends = False
        return data, ended

    def consumed(self, stream_id: int, count: int) -> None:
        """Count it."""
        assert count > 0
        self.counted += count
        self.on_consumed()


class Plain(Protocol):
    """A protocol without half-close, that remembers everything."""

    def __init__(self) -> None:
        self.got = b""
        self.lost: list[BaseException | None] = []
        self.on_data: Callable[[], None] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        """Keep it, then do what the test wants."""
        self.got += data
        self.on_data()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Keep the reason."""
        self.lost.append(reason.value)


@implementer(IHalfCloseableProtocol)
class Half(Plain):
    """One with half-close."""

    ends = 0

    def readConnectionLost(self) -> None:
        """Count it."""
        self.ends += 1

    def writeConnectionLost(self) -> None:
        """Nothing."""


class Push:
    """A push producer that counts, and a pull producer that gives pieces."""

    def __init__(self, transport: Any = None, pieces: int = 0) -> None:
        self.calls: list[str] = []
        self.transport = transport
        self.pieces = pieces

    def pauseProducing(self) -> None:
        """Note it."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Note it, and write where there is something left."""
        self.calls.append("resume")
        if self.pieces:
            self.pieces -= 1
            self.transport.write(b"piece")

    def stopProducing(self) -> None:
        """Note it."""
        self.calls.append("stop")


class TransportTestCase(SynchronousTestCase):
    """A stream with a half-closeable protocol, running."""

    def setUp(self) -> None:
        self.owner = Owner()
        self.transport, self.protocol = self.make(Half())

    def make(self, protocol: Any) -> tuple[StreamTransport, Any]:
        """A transport with that protocol."""
        nowhere = UNIXAddress(None)
        transport = StreamTransport(ID, self.owner, nowhere, nowhere, PIECE)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        transport.resumeProducing()
        return transport, protocol

    def come(self, *pieces: bytes, end: bool = False) -> None:
        """Bytes come."""
        self.owner.incoming.extend(pieces)
        self.owner.ends = end
        self.transport.readable()


class ReadTests(TransportTestCase):
    """From the session to the protocol."""

    def test_interfaces(self) -> None:
        """It is all that a relay and Twisted expect of a transport."""
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.transport))

    def test_begins_paused(self) -> None:
        """Nothing is taken before somebody resumes it."""
        nowhere = UNIXAddress(None)
        transport = StreamTransport(ID, self.owner, nowhere, nowhere, PIECE)
        self.owner.incoming.append(b"early")
        transport.readable()
        self.assertEqual(list(self.owner.incoming), [b"early"])

    def test_what_is_taken_counts(self) -> None:
        """Bytes count as consumed as soon as the protocol has them."""
        self.come(b"abc", b"de")
        self.assertEqual((self.protocol.got, self.owner.counted), (b"abcde", 5))

    def test_pause_in_the_middle(self) -> None:
        """What was handed over before a pause counts when it ends, and not a byte else."""
        self.protocol.on_data = self.transport.pauseProducing
        self.come(b"abc", b"de")
        self.assertEqual((self.protocol.got, self.owner.counted), (b"abc", 0))
        self.transport.readable()
        self.assertEqual(self.owner.counted, 0)
        self.transport.resumeProducing()
        self.assertEqual((self.protocol.got, self.owner.counted), (b"abcde", 3))
        self.transport.resumeProducing()
        self.assertEqual(self.owner.counted, 5)
        self.transport.resumeProducing()
        self.assertEqual(self.owner.counted, 5)

    def test_pause_and_resume_at_once(self) -> None:
        """A consumer that takes a piece within the call has it counted once."""

        def blink() -> None:
            self.transport.pauseProducing()
            self.transport.resumeProducing()

        self.protocol.on_data = blink
        self.come(b"abc", b"de")
        self.assertEqual((self.protocol.got, self.owner.counted), (b"abcde", 5))

    def test_reading_is_not_re_entered(self) -> None:
        """News that come while bytes are handed over are seen after them, in order."""

        def more() -> None:
            if len(self.protocol.got) == 1:
                self.come(b"b", b"c")
                self.assertEqual(self.protocol.got, b"a")

        self.protocol.on_data = more
        self.come(b"a")
        self.assertEqual(self.protocol.got, b"abc")

    def test_consumption_may_bring_more(self) -> None:
        """Counting can make bytes come, within that call."""
        fresh = [b"c", b"b"]

        def grant() -> None:
            if fresh:
                self.come(fresh.pop())

        self.owner.on_consumed = grant
        self.protocol.on_data = self.transport.pauseProducing
        self.come(b"a")
        for _ in range(3):
            self.transport.resumeProducing()
        self.assertEqual((self.protocol.got, self.owner.counted), (b"abc", 3))

    def test_end(self) -> None:
        """The end comes after the bytes, once."""
        self.come(b"abc", end=True)
        self.assertEqual((self.protocol.got, self.protocol.ends), (b"abc", 1))
        self.transport.readable()
        self.assertEqual(self.protocol.ends, 1)
        self.assertEqual(self.protocol.lost, [])

    def test_end_waits_behind_a_pause(self) -> None:
        """A paused protocol hears of the end when it is resumed."""
        self.protocol.on_data = self.transport.pauseProducing
        self.come(b"abc", end=True)
        self.assertEqual(self.protocol.ends, 0)
        self.transport.resumeProducing()
        self.assertEqual((self.protocol.ends, self.owner.counted), (1, 3))

    def test_finished_while_the_end_waits(self) -> None:
        """A stream that is over does not go before a paused protocol has heard of its end."""
        self.protocol.on_data = self.transport.pauseProducing
        self.come(b"the last piece", end=True)
        self.transport.lost(None)
        self.assertEqual((self.protocol.ends, self.protocol.lost), (0, []))
        self.transport.resumeProducing()
        self.assertEqual(self.protocol.ends, 1)
        self.assertIsInstance(self.protocol.lost[0], ConnectionDone)
        self.assertEqual(len(self.protocol.lost), 1)

    def test_finished_while_the_last_piece_is_handed_over(self) -> None:
        """The same where the news come within that call."""
        self.protocol.on_data = lambda: self.transport.lost(None)
        self.come(b"the last piece", end=True)
        self.assertEqual((self.protocol.ends, len(self.protocol.lost)), (1, 1))

    def test_aborted_while_the_end_waits(self) -> None:
        """Who aborts does not want to hear of the end."""
        self.protocol.on_data = self.transport.pauseProducing
        self.come(b"x", end=True)
        self.transport.lost(None)
        self.transport.abortConnection()
        self.transport.resumeProducing()
        self.assertEqual(self.protocol.ends, 0)
        self.assertEqual([type(one) for one in self.protocol.lost], [ConnectionAborted])

    def test_end_without_half_close(self) -> None:
        """A protocol that knows no half-close has its connection closed."""
        self.transport, protocol = self.make(Plain())
        self.come(b"abc", end=True)
        self.assertEqual(self.owner.done, ["end", "stop reading"])
        self.assertTrue(self.transport.disconnecting)
        self.transport.lost(None)
        self.assertIsInstance(protocol.lost[0], ConnectionDone)

    def test_nobody(self) -> None:
        """Without a protocol bytes come to nothing, without harm."""
        self.transport = StreamTransport(
            ID, self.owner, UNIXAddress(None), UNIXAddress(None), PIECE
        )
        self.transport.resumeProducing()
        self.come(b"abc", end=True)
        self.transport.lost(Code.IDLE)
        self.assertEqual(self.owner.counted, 3)

    def test_protocol_that_raises(self) -> None:
        """It loses its stream, with one line in the log, and nobody else suffers."""

        def fail() -> None:
            raise ValueError("of this test")

        self.protocol.on_data = fail
        self.come(b"abc", b"def")
        self.assertEqual(self.owner.done, ["reset PEER_RESET"])
        self.assertIsInstance(self.protocol.lost[0], ConnectionAborted)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.protocol.got, b"abc")


class WriteTests(TransportTestCase):
    """From the protocol to the session."""

    def test_write(self) -> None:
        """Bytes are sent as they are; none are not sent at all."""
        self.transport.write(b"abc")
        self.transport.write(b"")
        self.transport.writeSequence([b"d", b"ef"])
        self.assertEqual(self.owner.written, [b"abc", b"def"])

    def test_half_close(self) -> None:
        """The end follows what was written; nothing follows the end."""
        self.transport.loseWriteConnection()
        self.transport.loseWriteConnection()
        self.transport.write(b"too late")
        self.assertEqual((self.owner.done, self.owner.written), (["end"], []))
        self.come(b"still read")
        self.assertEqual(self.protocol.got, b"still read")

    def test_close(self) -> None:
        """Both directions end, each once."""
        self.transport.loseWriteConnection()
        self.transport.loseConnection()
        self.assertEqual(self.owner.done, ["end", "stop reading"])

    def test_abort(self) -> None:
        """The peer sees a reset; the protocol is told before the call returns, once."""
        self.transport.abortConnection()
        self.transport.abortConnection()
        self.transport.lost(Code.IDLE)
        self.assertEqual(self.owner.done, ["reset PEER_RESET"])
        self.assertEqual([type(one) for one in self.protocol.lost], [ConnectionAborted])

    def test_abort_within_data(self) -> None:
        """A protocol may abort while it is given bytes; it is given no more."""
        self.protocol.on_data = self.transport.abortConnection
        self.come(b"abc", b"def", end=True)
        self.assertEqual((self.protocol.got, self.protocol.ends), (b"abc", 0))
        self.assertEqual(self.owner.done, ["reset PEER_RESET"])

    def test_nothing_after_the_loss(self) -> None:
        """A stream that is gone is not asked for anything any more."""
        self.transport.lost(Code.SESSION_LOST)
        self.transport.write(b"abc")
        self.transport.loseWriteConnection()
        self.transport.loseConnection()
        self.transport.abortConnection()
        self.transport.resumeProducing()
        self.come(b"abc")
        self.assertEqual((self.owner.done, self.owner.written), ([], []))
        self.assertEqual(self.protocol.got, b"")

    def test_reset(self) -> None:
        """A broken stream is lost with its reason, as a kind of C{ConnectionLost}."""
        self.transport.lost(Code.SESSION_LOST)
        error = self.protocol.lost[0]
        assert isinstance(error, StreamReset)
        self.assertIs(error.code, Code.SESSION_LOST)
        self.assertIn("session_lost", str(error))

    def test_addresses(self) -> None:
        """It has addresses to show."""
        self.assertEqual(self.transport.getPeer(), UNIXAddress(None))
        self.assertEqual(self.transport.getHost(), UNIXAddress(None))


class ProducerTests(TransportTestCase):
    """Who writes here is told when to rest."""

    def setUp(self) -> None:
        super().setUp()
        self.producer = Push()
        self.transport.registerProducer(self.producer, True)

    def fill(self) -> None:
        """The stream has no room after this."""
        self.owner.room = False
        self.transport.write(b"x")

    def test_paused_and_resumed_once(self) -> None:
        """Each change is told once, however often it is heard of."""
        self.fill()
        self.fill()
        self.assertEqual(self.producer.calls, ["pause"])
        self.transport.has_room()
        self.transport.has_room()
        self.assertEqual(self.producer.calls, ["pause", "resume"])

    def test_hold_and_release(self) -> None:
        """A full store pauses it as well, and both must have room again."""
        self.transport.hold()
        self.fill()
        self.assertEqual(self.producer.calls, ["pause"])
        self.transport.release()
        self.assertEqual(self.producer.calls, ["pause"])
        self.transport.has_room()
        self.assertEqual(self.producer.calls, ["pause", "resume"])
        self.fill()
        self.transport.hold()
        self.transport.has_room()
        self.assertEqual(self.producer.calls, ["pause", "resume", "pause"])
        self.transport.release()
        self.assertEqual(self.producer.calls, ["pause", "resume", "pause", "resume"])

    def test_release_without_hold(self) -> None:
        """Somebody else's relief is nothing to us."""
        self.transport.release()
        self.assertEqual(self.producer.calls, [])

    def test_registered_when_full(self) -> None:
        """A producer that comes when there is no room is paused at once."""
        for by_store in (False, True):
            self.setUp()
            self.transport.unregisterProducer()
            if by_store:
                self.transport.hold()
            else:
                self.fill()
            late = Push()
            self.transport.registerProducer(late, True)
            self.assertEqual(late.calls, ["pause"])

    def test_registered_with_room(self) -> None:
        """One that comes when there is room is left running."""
        self.assertEqual(self.producer.calls, [])

    def test_unregistered(self) -> None:
        """Who is not registered any more is not told anything."""
        self.transport.unregisterProducer()
        self.fill()
        self.transport.has_room()
        self.transport.lost(None)
        self.assertEqual(self.producer.calls, [])

    def test_only_one(self) -> None:
        """There can be one producer at a time."""
        self.assertRaises(RuntimeError, self.transport.registerProducer, Push(), True)
        self.transport.unregisterProducer()
        self.transport.registerProducer(Push(), True)

    def test_stopped_at_the_end(self) -> None:
        """A loss stops it, and so does an abort; one that comes later is stopped at once."""
        self.transport.lost(Code.IDLE)
        self.assertEqual(self.producer.calls, ["stop"])
        late = Push()
        self.transport.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])
        self.setUp()
        self.transport.abortConnection()
        self.assertEqual(self.producer.calls, ["stop"])

    def test_reads_become_frames(self) -> None:
        """A socket that writes here reads as much at a time as one frame carries."""
        self.transport.unregisterProducer()
        socket = BoundedTransport()
        self.transport.registerProducer(socket, True)
        self.assertEqual(socket.bufferSize, READ)

    def test_reads_grow_with_what_there_is(self) -> None:
        """After a full read comes a large one; after a small one it is as in the beginning."""
        self.transport.unregisterProducer()
        socket = BoundedTransport()
        self.transport.registerProducer(socket, True)
        for size, after in ((READ - 1, READ), (READ, PIECE - HEADER_SIZE), (700, READ)):
            self.transport.write(bytes(size))
            self.assertEqual(socket.bufferSize, after)

    def test_reads_are_small_after_the_store_was_full(self) -> None:
        """Many are released at once, and each reads before it hears that it is full again."""
        self.transport.unregisterProducer()
        socket = BoundedTransport()
        self.transport.registerProducer(socket, True)
        self.transport.write(bytes(READ))
        self.transport.hold()
        self.transport.release()
        self.assertEqual(socket.bufferSize, READ)

    def test_reads_fit_the_room(self) -> None:
        """Never more than there is room for, so that nothing is read which must wait here."""
        self.transport.unregisterProducer()
        socket = BoundedTransport()
        self.transport.registerProducer(socket, True)
        self.owner.room = 700
        self.transport.write(b"x")
        self.assertEqual(socket.bufferSize, 700)
        self.owner.room = True
        self.transport.has_room()
        self.assertEqual(socket.bufferSize, READ)


class PullProducerTests(TransportTestCase):
    """A producer that writes when it is asked."""

    def pull(self, pieces: int) -> Push:
        """Register one that has so many pieces."""
        producer = Push(self.transport, pieces)
        self.transport.registerProducer(producer, False)
        return producer

    def test_asked_while_there_is_room(self) -> None:
        """Asked at once, and again after each piece, without going deeper."""
        producer = self.pull(5000)
        self.assertEqual((len(self.owner.written), producer.pieces), (5000, 0))
        self.assertEqual(len(producer.calls), 5001)

    def test_asked_again_after_a_late_write(self) -> None:
        """One that had nothing is asked again when it has written after all."""
        producer = self.pull(0)
        producer.pieces = 1
        self.transport.write(b"late")
        self.assertEqual(self.owner.written, [b"late", b"piece"])

    def test_left_alone_when_full(self) -> None:
        """No room, no question; it is never paused, and asked when there is room."""
        self.owner.room = False
        producer = self.pull(3)
        self.assertEqual(producer.calls, ["resume"])
        self.owner.room = True
        self.transport.has_room()
        self.assertEqual((producer.pieces, producer.calls), (0, ["resume"] * 4))

    def test_left_alone_while_held(self) -> None:
        """The same for the store."""
        self.transport.hold()
        producer = self.pull(2)
        self.assertEqual(producer.calls, [])
        self.transport.release()
        self.assertEqual(producer.pieces, 0)
