"""L{stripetwist.net.records}: TLS by the batch."""

from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stripetwist.core.link import Link
from stripetwist.net import tls
from stripetwist.net.records import BatchTLS, IReadListener
from stripetwist.net.tls import ClientCreator, ServerCreator, TLSFactory
from stripetwist.test.link_case import certificate
from stripetwist.testing_transports import BoundedTransport, Cable

ADDRESS = IPv4Address("TCP", "192.0.2.1", 8443)
BATCH = bytes(range(256)) * 1024


@implementer(IHandshakeListener)
class End(Protocol):
    """
    One end, that remembers what it is told.

    @ivar told: each call, and how many bytes came with it.
    """

    transport: BatchTLS

    def __init__(self) -> None:
        self.received = b""
        self.told: list[str] = []
        self.lost: Failure | None = None

    def handshakeCompleted(self) -> None:
        """See L{IHandshakeListener}."""
        self.told.append("up")

    def dataReceived(self, data: bytes) -> None:
        """Some came."""
        self.received += data
        self.told.append(f"{len(data)} bytes")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.lost = reason


@implementer(IReadListener)
class Listener(End):
    """An end that wants to know where a read ends."""

    def readEnded(self) -> None:
        """See L{IReadListener}."""
        self.told.append("that was all")


class BatchTLSTests(SynchronousTestCase):
    """Two ends, of which the second listens."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connect()

    def connect(self) -> None:
        """Two new ends."""
        self.wires = [BoundedTransport(clock=self.clock) for _ in range(2)]
        self.cable = Cable(self.clock, self.wires[0], self.wires[1])
        self.near, self.far = End(), Listener()
        link = Link("laptop", bytes(32), "192.0.2.1", 8443, (certificate().pin,))
        self.link(0, self.near, ClientCreator(link, "label"))
        self.link(1, self.far, ServerCreator(certificate()))

    def link(self, number: int, end: End, creator: Any) -> None:
        """Put an end behind TLS onto its wire."""
        factory: Any = Factory.forProtocol(partial(lambda: end))
        self.wires[number].connect(TLSFactory(creator, factory, self.clock).buildProtocol(ADDRESS))

    def up(self) -> None:
        """The handshake is over."""
        self.clock.advance(0)
        self.assertEqual(self.near.told.pop(), "up")
        self.far.told.clear()

    def pieces_of(self, batch: bytes) -> list[bytes]:
        """What the near wire is given when that is written."""
        pieces = self.below()
        self.near.transport.write(batch)
        return pieces

    def below(self) -> list[bytes]:
        """What the near wire is given from now on, piece by piece; nothing leaves."""
        pieces: list[bytes] = []
        wire: Any = self.wires[0]
        wire.write = pieces.append
        return pieces

    def test_a_batch_is_one_piece(self) -> None:
        """However many records it makes, the wire gets it at once, and nothing stays behind."""
        self.up()
        pieces = self.below()
        for size in (len(BATCH), 16_385, 100_000):
            self.near.transport.write(BATCH[:size])
            (piece,) = pieces
            # RFC 8446, section 5.2: a header, a content type, a tag.
            self.assertEqual(len(piece), size + -(-size // 16_384) * (5 + 1 + 16))
            pieces.clear()

    def test_it_arrives(self) -> None:
        """Small writes and batches, in order."""
        self.up()
        self.near.transport.write(b"before")
        self.near.transport.write(BATCH)
        self.near.transport.write(b"behind")
        self.clock.advance(0)
        self.assertEqual(self.far.received, b"before" + BATCH + b"behind")

    def test_a_read_has_an_end(self) -> None:
        """After all its records, and only for who wants to know."""
        self.up()
        pieces = self.below()
        self.near.transport.write(BATCH[:40_000])
        self.far.transport.dataReceived(pieces[0][:100])
        self.assertEqual(self.far.told, ["that was all"])
        self.far.told.clear()
        self.far.transport.dataReceived(pieces[0][100:])
        self.assertEqual(
            self.far.told, ["16384 bytes", "16384 bytes", "7232 bytes", "that was all"]
        )
        self.far.transport.write(b"answer")
        self.clock.advance(0)
        self.assertEqual(self.near.told, ["6 bytes"])

    def test_before_the_handshake(self) -> None:
        """A batch waits for it."""
        self.near.transport.write(BATCH)
        self.clock.advance(0)
        self.assertEqual(self.far.received, BATCH)

    def test_after_the_end(self) -> None:
        """A batch that is written after our own end, or after the connection's, goes nowhere."""
        self.up()
        self.near.transport.loseConnection()
        pieces = self.below()
        self.near.transport.write(BATCH)
        self.clock.advance(0)
        self.assertIsNotNone(self.near.lost)
        self.near.transport.write(BATCH)
        self.assertEqual(pieces, [])

    def test_a_context_that_seals_one_record_at_a_time(self) -> None:
        """Loses nothing by it."""
        self.patch(tls, "write_slices_whole", lambda context: None)
        self.connect()
        self.up()
        self.near.transport.write(BATCH)
        self.clock.advance(0)
        self.assertEqual(self.far.received, BATCH)

    def test_it_keeps_no_more_than_promised(self) -> None:
        """However long a batch is: OpenSSL's buffers are asked for a slice at a time."""
        self.up()
        seals, opens = self.near.transport.getHandle(), self.far.transport.getHandle()
        sizes: list[int] = []
        take, put = seals.bio_read, opens.bio_write

        def sealed(most: int) -> bytes:
            data: bytes = take(most)
            sizes.append(len(data))
            return data

        def came(data: bytes) -> int:
            sizes.append(len(data))
            taken: int = put(data)
            return taken

        self.patch(seals, "bio_read", sealed)
        self.patch(opens, "bio_write", came)
        (piece,) = self.pieces_of(BATCH)
        self.far.transport.dataReceived(piece)
        self.assertEqual(self.far.received, BATCH)
        self.assertGreater(sum(sizes), 2 * len(BATCH))
        self.assertLess(max(sizes), 99_000)

    def test_a_connection_that_has_failed(self) -> None:
        """What OpenSSL makes of a batch ends the connection; nobody is hurt."""
        self.up()
        self.near.transport.getHandle().shutdown()
        self.near.transport.write(BATCH)
        self.clock.advance(0)
        self.assertIsNotNone(self.near.lost)
