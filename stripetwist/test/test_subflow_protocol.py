"""L{stripetwist.net.subflow}: a connection below a session, with TLS and without."""

import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import KIB, Limits
from stripetwist.core.link import Link
from stripetwist.net.subflow import SubflowProtocol
from stripetwist.net.tls import ClientCreator, ServerCreator, TLSFactory
from stripetwist.test.link_case import certificate
from stripetwist.testing_transports import BoundedTransport, Cable

LIMITS = Limits()
READ = 64 * KIB
ADDRESS = IPv4Address("TCP", "192.0.2.1", 8443)


class Owner:
    """
    Greeter and session in one, that remember what they are told.

    @ivar verdict: what is said of the first bytes after the hello.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.hello = b""
        self.frames = b""
        self.reads: list[int] = []
        self.first: list[bytes] = []
        self.verdict: Callable[[bytes], bool | None] = lambda data: False
        self.on_drained: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None

    def secured(self, subflow: SubflowProtocol) -> None:
        """See L{Greeter}."""
        self.told.append("secured")

    def greeted(self, data: bytes) -> None:
        """See L{Greeter}."""
        self.hello += data

    def is_last_word(self, data: bytes) -> bool | None:
        """See L{Greeter}."""
        self.first.append(data)
        return self.verdict(data)

    def lost(self, subflow: SubflowProtocol, reason: Failure) -> None:
        """See L{Greeter}."""
        self.told.append("lost")

    def received(self, subflow_id: int, pieces: Sequence[bytes]) -> None:
        """See L{Carrier}."""
        assert subflow_id == 7
        self.frames += b"".join(pieces)
        self.reads.append(len(pieces))

    def drained(self, subflow_id: int) -> None:
        """See L{Carrier}."""
        self.told.append("drained")
        self.on_drained()

    def connection_lost(self, subflow_id: int) -> None:
        """See L{Carrier}."""
        self.told.append("connection lost")
        self.on_lost()


class SubflowTestCase(SynchronousTestCase):
    """A subflow on a transport that pushes back, without TLS."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.owner = Owner()
        self.subflow = SubflowProtocol(self.owner, self.clock, LIMITS)
        self.wire = BoundedTransport(clock=self.clock)
        self.wire.connect(self.subflow)

    def start(self, expects_answer: bool = False) -> None:
        """The hello is over."""
        self.subflow.start(self.owner, 7, expects_answer)
        self.owner.told.clear()

    def turn(self) -> None:
        """What Twisted does in its next turns."""
        self.clock.advance(0)


class PlainTests(SubflowTestCase):
    """Without TLS."""

    def test_secured_at_once(self) -> None:
        """There is nothing to wait for."""
        self.assertEqual(self.owner.told, ["secured"])
        self.assertFalse(self.subflow.is_tls)
        self.assertIs(self.subflow.raw, self.wire)

    def test_a_batch_leaves_at_one_go(self) -> None:
        """Once it carries frames, with what TLS adds to the longest."""
        self.start()
        self.assertGreater(self.wire.SEND_LIMIT, 1.01 * LIMITS.batch_most)

    def test_bytes_go_to_the_greeter_first(self) -> None:
        """From C{start} on they go to the session."""
        self.wire.arrive(b"hello")
        self.start()
        self.wire.arrive(b"frames")
        self.assertEqual((self.owner.hello, self.owner.frames), (b"hello", b"frames"))

    def test_reads_more_where_much_comes(self) -> None:
        """And little again once little comes, as a large read costs more."""
        self.start()
        for came, after in ((1000, READ), (READ, LIMITS.batch_most), (READ // 2, READ)):
            self.wire.arrive(bytes(came))
            self.assertEqual(self.wire.bufferSize, after)

    def test_asks_when_drained(self) -> None:
        """The session is asked at the start, and whenever all has left this process."""
        self.subflow.start(self.owner, 7)
        self.assertEqual(self.owner.told, ["secured", "drained"])
        self.assertIs(self.wire.producer, self.subflow)
        self.assertFalse(self.wire.streaming)
        self.subflow.send(b"batch")
        self.wire.drain(3)
        self.assertEqual(self.owner.told, ["secured", "drained"])
        self.wire.drain()
        self.assertEqual(self.owner.told, ["secured", "drained", "drained"])

    def test_the_kernel_hears_of_the_pace(self) -> None:
        """It holds a batch unsent; and says what it sees and has lost."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
        self.addCleanup(near.close)
        self.assertIsNone(self.subflow.kernel_view())
        self.wire.socket = near  # type: ignore[attr-defined]
        self.subflow.pace(16_384)
        self.assertEqual(near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT), 16384)
        self.assertIsNotNone(self.subflow.kernel_view())
        self.assertGreater(self.subflow.segment, 500)
        self.assertEqual(self.subflow.retransmitted, 0)
        self.subflow.smooth()
        rate = near.getsockopt(socket.SOL_SOCKET, 47, 8)
        self.assertEqual(int.from_bytes(rate, sys.byteorder), 1 << 40)

    def test_close(self) -> None:
        """What was written still leaves; nothing more is read, sent or asked for."""
        self.start()
        self.subflow.send(b"last words")
        self.subflow.close()
        self.subflow.close()
        self.subflow.send(b"too late")
        self.wire.arrive(b"too late")
        self.assertEqual(self.wire.drain(), b"last words")
        self.turn()
        self.assertEqual(self.owner.told, ["connection lost", "lost"])
        self.assertEqual((self.owner.frames, self.wire.ended), (b"", "fin"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_that_takes_too_long(self) -> None:
        """It is aborted after 5 s (23, 24)."""
        self.start()
        self.subflow.send(b"never taken")
        self.subflow.close()
        self.clock.advance(4.9)
        self.assertEqual(self.owner.told, [])
        self.clock.advance(0.1)
        self.turn()
        self.assertEqual(self.owner.told, ["connection lost", "lost"])
        self.assertEqual(self.wire.ended, "reset")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_within_the_call(self) -> None:
        """A transport that closes at once leaves no timer behind."""
        wire = BoundedTransport()
        subflow = SubflowProtocol(self.owner, self.clock, LIMITS)
        wire.connect(subflow)
        subflow.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.owner.told[-1], "lost")

    def test_abort(self) -> None:
        """It ends now, once, whatever was asked before; afterwards there is nothing to end."""
        self.start()
        self.subflow.send(b"never taken")
        self.subflow.close()
        self.subflow.abort()
        self.subflow.abort()
        self.turn()
        self.subflow.abort()
        self.subflow.close()
        self.assertEqual(self.owner.told, ["connection lost", "lost"])
        self.assertEqual(self.wire.calls.count("abort"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_start_after_the_end(self) -> None:
        """A session that ends its connection while taking it over does not keep it."""
        self.subflow.close()
        self.subflow.start(self.owner, 7)
        self.assertIsNone(self.wire.producer)
        self.turn()
        self.assertEqual(self.owner.told, ["secured", "connection lost", "lost"])

    def test_lost(self) -> None:
        """A loss is told to the session and the greeter, once; before C{start} to one."""
        self.wire.arrive_reset()
        self.assertEqual(self.owner.told, ["secured", "lost"])
        self.setUp()
        self.start()
        self.wire.arrive_reset()
        self.assertEqual(self.owner.told, ["connection lost", "lost"])

    def test_ended_by_its_own_loss(self) -> None:
        """A session may want to end a connection that it hears is lost."""
        self.start()

        def end() -> None:
            self.subflow.send(b"x")
            self.subflow.abort()

        self.owner.on_lost = end
        self.wire.arrive_reset()
        self.assertEqual(self.owner.told, ["connection lost", "lost"])


class AnswerTests(SubflowTestCase):
    """Where a rejection may come in place of frames."""

    def test_frames(self) -> None:
        """The first bytes are shown to the greeter, then they are frames."""
        self.start(expects_answer=True)
        self.wire.arrive(b"fra")
        self.wire.arrive(b"mes")
        self.assertEqual((self.owner.first, self.owner.frames), ([b"fra"], b"frames"))

    def test_rejection(self) -> None:
        """A last word ends the connection, and is no frame."""
        self.start(expects_answer=True)
        self.owner.verdict = lambda data: True
        self.wire.arrive(b"no")
        self.turn()
        self.assertEqual((self.owner.frames, self.wire.ended), (b"", "reset"))

    def test_in_pieces(self) -> None:
        """While more bytes are needed to tell, they are kept, and none is lost."""
        for rejected in (False, True):
            self.setUp()
            self.start(expects_answer=True)
            verdicts = iter([None, None, rejected])
            self.owner.verdict = lambda data, left=verdicts: next(left)  # type: ignore[misc]
            for one in (b"S", b"T", b"W"):
                self.wire.arrive(one)
            self.assertEqual(self.owner.first, [b"S", b"ST", b"STW"])
            self.turn()
            self.assertEqual(self.owner.frames, b"" if rejected else b"STW")
            self.assertEqual(self.wire.ended, "reset" if rejected else "")


class TLSTests(SynchronousTestCase):
    """With TLS, between a client and a server."""

    def setUp(self) -> None:
        self.clock = Clock()
        link = Link("laptop", bytes(32), "192.0.2.1", 8443, (certificate().pin,))
        self.owners = [Owner(), Owner()]
        self.wires = [BoundedTransport(clock=self.clock) for _ in range(2)]
        self.cable = Cable(self.clock, self.wires[0], self.wires[1])
        self.subflows: list[Any] = []
        creators: list[Any] = [ClientCreator(link, "label"), ServerCreator(certificate())]
        for owner, wire, creator in zip(self.owners, self.wires, creators, strict=True):
            self.subflows.append(SubflowProtocol(owner, self.clock, LIMITS))
            inner: Any = Factory.forProtocol(partial(self.subflows.__getitem__, -1))
            wire.connect(TLSFactory(creator, inner, self.clock).buildProtocol(ADDRESS))

    def turn(self) -> None:
        """Let everything arrive."""
        self.clock.advance(0)

    def start(self) -> None:
        """The hello is over at both ends."""
        self.turn()
        for subflow, owner in zip(self.subflows, self.owners, strict=True):
            subflow.start(owner, 7)
        self.turn()
        for owner in self.owners:
            owner.told.clear()

    def test_secured_by_the_handshake(self) -> None:
        """Not before TLS is up."""
        self.assertEqual(self.owners[0].told, [])
        self.turn()
        self.assertEqual([owner.told for owner in self.owners], [["secured"], ["secured"]])

    def test_late_binding(self) -> None:
        """It is a pull producer on the TCP transport, not on TLS above it."""
        self.start()
        for subflow, wire in zip(self.subflows, self.wires, strict=True):
            self.assertTrue(subflow.is_tls)
            self.assertIs(subflow.raw, wire)
            self.assertIs(wire.producer, subflow)
            self.assertFalse(wire.streaming)
            self.assertIsInstance(subflow.transport, TLSMemoryBIOProtocol)
            self.assertIsNone(subflow.transport._producer)

    def test_asked_when_the_wire_is_empty(self) -> None:
        """What TLS has made of a batch has left before the next is asked for."""
        self.start()
        self.cable.silent = True
        self.subflows[0].send(bytes(50_000))
        wire = self.wires[0]
        self.assertGreater(wire.unsent, 50_000)
        wire.drain(50_000)
        self.assertEqual(self.owners[0].told, [])
        wire.drain()
        self.assertEqual(self.owners[0].told, ["drained"])

    def test_bytes_arrive(self) -> None:
        """Both ways."""
        self.start()
        self.subflows[0].send(b"there")
        self.subflows[1].send(b"back")
        self.turn()
        self.assertEqual([owner.frames for owner in self.owners], [b"back", b"there"])

    def test_a_read_comes_at_one_go(self) -> None:
        """However many records were in it."""
        self.start()
        self.subflows[0].send(bytes(50_000))
        self.turn()
        self.assertEqual(self.owners[1].frames, bytes(50_000))
        self.assertEqual(self.owners[1].reads, [4])

    def test_part_of_a_record(self) -> None:
        """Is nothing yet."""
        self.start()
        pieces: list[bytes] = []
        near: Any = self.wires[0]
        near.write = pieces.append
        self.subflows[0].send(bytes(20_000))
        self.wires[1].arrive(pieces[0][:100])
        self.assertEqual(self.owners[1].reads, [])
        self.wires[1].arrive(pieces[0][100:])
        self.assertEqual(self.owners[1].reads, [2])

    def test_nothing_comes_after_the_end(self) -> None:
        """What is on its way then is dropped."""
        self.start()
        self.subflows[0].send(bytes(50_000))
        self.subflows[1].abort()
        self.turn()
        self.assertEqual(self.owners[1].frames, b"")

    def test_close(self) -> None:
        """Both ends are gone after one has closed, the last words have arrived, no timer stays."""
        self.start()
        self.subflows[1].send(b"last words")
        self.subflows[1].close()
        self.turn()
        self.assertEqual(self.owners[0].frames, b"last words")
        for owner, wire in zip(self.owners, self.wires, strict=True):
            self.assertEqual(owner.told[-2:], ["connection lost", "lost"])
            self.assertFalse(wire.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_before_tls(self) -> None:
        """A handshake that is not over is not waited for."""
        self.cable.silent = True
        self.subflows[0].close()
        self.turn()
        self.assertEqual(self.owners[0].told, ["lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abort_when_secured(self) -> None:
        """Who does not like the other end aborts within the handshake; no byte is sent."""
        self.owners[0].secured = lambda subflow: subflow.abort()  # type: ignore[method-assign]
        self.turn()
        self.assertEqual([owner.told[-1] for owner in self.owners], ["lost", "lost"])
        self.assertEqual([owner.hello for owner in self.owners], [b"", b""])

    def test_not_secured_after_the_end(self) -> None:
        """A handshake that completes after an abort is nobody's business."""
        self.subflows[1].abort()
        self.subflows[1].handshakeCompleted()
        self.turn()
        self.assertEqual(self.owners[1].told, ["lost"])

    def test_corrupted(self) -> None:
        """A changed byte ends the connection; nothing of it is delivered (21, T-X6-1)."""
        self.start()
        self.cable.silent = True
        self.subflows[0].send(b"x" * 1000)
        data = bytearray(self.wires[0].drain())
        data[500] ^= 1
        self.wires[1].arrive(bytes(data))
        self.turn()
        self.wires[1].drain()
        self.turn()
        self.assertEqual(self.owners[1].frames, b"")
        self.assertEqual(self.owners[1].told[-2:], ["connection lost", "lost"])
