"""A proxy port between fakes: clients, openers, users and a relay that push back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.guests import Guests, Sources
from stripetwist.net.relay import Parked
from stripetwist.net.sieve import NOTHING_SIFTED, Sieves
from stripetwist.net.socks import LINGER, SocksFactory

LIMITS = Limits()
GREETING = b"\x05\x01\x00"
LOGIN_GREETING = b"\x05\x01\x02"
LOGIN = b"\x01\x03joe\x06secret"
WRONG_LOGIN = b"\x01\x03joe\x06secreT"
REQUEST = b"\x05\x01\x00\x01\x5d\xb8\xd8\x22\x01\xbb"
TARGET = Target.of("93.184.216.34", 443)
LOCAL = IPv4Address("TCP", "127.0.0.1", 50000)


def request_for(name: bytes, port: int = 80) -> bytes:
    """A CONNECT for a name."""
    return b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big")


def ways(message: bytes, following: bytes) -> Iterator[list[bytes]]:
    """The four ways to send a message: whole, by bytes, cut anywhere, with more behind it."""
    yield [message]
    yield [message[i : i + 1] for i in range(len(message))]
    for at in range(1, len(message)):
        yield [message[:at], message[at:]]
    yield [message + following]


class Wire:
    """
    A TCP connection as its server's transport, with the client's end to pull at.

    What one side does not read stays: the client's bytes while reading is paused, ours while
    the client does not drain.  As with Twisted's, closing waits for what is unsent.
    """

    bufferSize = 65536

    def __init__(self, address: IAddress = LOCAL) -> None:
        self.address = address
        self.protocol: Any = None
        self.is_read = True
        self.is_drained = True
        self.said = b""
        self.end = ""
        self._in = bytearray()
        self._out = bytearray()
        self._fin = False
        self._fin_told = False
        self._half = ""
        self._closing = False
        self._aborting = False
        self._turning = False

    def connect(self, factory: SocksFactory) -> "Wire":
        """The client has connected."""
        self.protocol = factory.buildProtocol(self.address)
        if self.protocol is None:
            self.end = "closed"
        else:
            self.protocol.makeConnection(self)
        return self

    # ---- the client's end

    def send(self, *pieces: bytes) -> "Wire":
        """The client writes, one segment each."""
        for piece in pieces:
            self._in += piece
            self.turn()
        return self

    def fin(self) -> "Wire":
        """The client has no more to say."""
        self._fin = True
        return self.turn()

    def rst(self) -> "Wire":
        """The client is gone."""
        self._lose("reset by client", ConnectionLost())
        return self

    @property
    def unread(self) -> int:
        """Bytes of the client that the kernel still has: a close now would be a reset."""
        return len(self._in)

    @property
    def fin_seen(self) -> bool:
        """Whether the client has read the end of what we say."""
        return self._half == "closed" or self.end == "closed"

    def turn(self) -> "Wire":
        """Let everything happen that can."""
        while not self._turning and not self.end:
            self._turning = True
            try:
                moved = self._abort_now() or self._deliver() or self._flush()
            finally:
                self._turning = False
            if not moved:
                break
        return self

    def _abort_now(self) -> bool:
        if self._aborting:
            self._lose("aborted", ConnectionAborted())
        return self._aborting

    def _deliver(self) -> bool:
        if not self.is_read or self._closing:
            return False
        if self._in:
            piece = bytes(self._in[: self.bufferSize])
            del self._in[: len(piece)]
            self.protocol.dataReceived(piece)
            return True
        if self._fin and not self._fin_told:
            self._fin_told = True
            self.is_read = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._lose("closed", ConnectionDone())
            return True
        return False

    def _flush(self) -> bool:
        if not self.is_drained:
            return False
        self.said += bytes(self._out)
        moved = bool(self._out)
        self._out.clear()
        if self._closing:
            self._lose("closed", ConnectionDone())
            return True
        if self._half == "closing":
            self._half = "closed"
            self.protocol.writeConnectionLost()
            return True
        return moved

    def _lose(self, how: str, why: Exception) -> None:
        if not self.end:
            self.end = how
            self.protocol.connectionLost(Failure(why))

    # ---- what the protocol calls

    def write(self, data: bytes) -> None:
        """See ITransport."""
        assert not self._half, "written after half-close"
        if not self.end and not self._closing:
            self._out += data

    def loseConnection(self) -> None:
        """See ITransport; at once if our half is closed, as in Twisted."""
        if self._half == "closed":
            self._lose("closed", ConnectionDone())
        self._closing = True

    def loseWriteConnection(self) -> None:
        """See ITCPTransport."""
        self._half = self._half or "closing"

    def abortConnection(self) -> None:
        """See ITCPTransport; happens in the next turn, as in Twisted."""
        self._aborting = True

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.is_read = False

    def resumeProducing(self) -> None:
        """See IPushProducer; reading goes on in the next turn."""
        if not self._fin_told:
            self.is_read = True

    def getPeer(self) -> IAddress:
        """See ITransport."""
        return self.address


class ScriptedOpener:
    """An opener whose targets answer when the test says so; or at once, with C{answer}."""

    def __init__(self) -> None:
        self.requests: list[OpenRequest] = []
        self.opens: list[Deferred[Any]] = []
        self.cancelled = 0
        self.answer: Callable[[], Deferred[Any]] | None = None
        self.late: Wire | None = None

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """No datagrams are asked for here."""
        raise NotImplementedError

    def open(self, request: OpenRequest) -> Deferred[Any]:
        """See Opener."""
        self.requests.append(request)
        waiting = self.answer() if self.answer else Deferred(self._cancel)
        self.opens.append(waiting)
        return waiting

    def _cancel(self, waiting: Deferred[Any]) -> None:
        self.cancelled += 1
        if self.late is not None:
            waiting.callback(self.late)

    def accept(self) -> Wire:
        """The last target answers."""
        far = far_wire()
        self.opens[-1].callback(far)
        return far

    def refuse(self, code: Code, sentence: str = "no") -> None:
        """The last target is not reached."""
        self.opens[-1].errback(Failure(OpenRefused(code, sentence)))


def far_wire() -> Wire:
    """A target's connection as openers give it."""
    far = Wire()
    far.protocol = Parked()
    far.protocol.makeConnection(far)
    return far


class ScriptedUsers:
    """Knows joe; answers at once, or when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.waiting: list[Deferred[bool]] = []
        self.cancelled = 0
        self.is_slow = False

    def check(self, user: bytes, password: bytes) -> Deferred[bool]:
        """See Checker."""
        self.asked.append((user, password))
        if not self.is_slow:
            return succeed((user, password) in ((b"joe", b"secret"), (b"u" * 255, b"\xff" * 255)))
        self.waiting.append(Deferred(self._cancel))
        return self.waiting[-1]

    def _cancel(self, waiting: Deferred[bool]) -> None:
        self.cancelled += 1


@dataclass
class Coupling:
    """What was coupled, and its end."""

    near: Wire
    far: Wire
    early: bytes = b""
    early_eof: bool = False
    sieves: Sieves = NOTHING_SIFTED
    clock: Any = None
    limits: Any = None
    ended: Deferred[None] = field(default_factory=Deferred)


class FrontCase(SynchronousTestCase):
    """A factory between fakes."""

    def setUp(self) -> None:
        """Everything fresh."""
        self.clock = Clock()
        self.opener = ScriptedOpener()
        self.users = ScriptedUsers()
        self.couplings: list[Coupling] = []
        self.logs = capturedLogs()
        self.events = self.logs.__enter__()
        self.addCleanup(self.logs.__exit__, None, None, None)
        self.fronts: list[SocksFactory] = []
        self.front = self.build()

    def build(self, **more: Any) -> SocksFactory:
        """A factory with these settings."""
        sources = Sources(more.pop("sources", ()), self.clock)
        self.guests = Guests(more.pop("most", 1024), sources)
        front = SocksFactory(
            self.opener, self.clock, LIMITS, self.guests, couple=self.couple, **more
        )
        self.fronts.append(front)
        return front

    def couple(self, near: Wire, far: Wire, **more: Any) -> Coupling:
        """Stands for the relay."""
        self.assertFalse(near.is_read)
        self.assertIsInstance(near.protocol, Parked)
        self.couplings.append(Coupling(near, far, **more))
        return self.couplings[-1]

    def client(self, *pieces: bytes, front: SocksFactory | None = None) -> Wire:
        """A client that has sent this."""
        return Wire().connect(front or self.front).send(*pieces)

    def later(self, wire: Wire, seconds: float) -> Wire:
        """Time passes; what follows from it happens."""
        self.clock.advance(seconds)
        return wire.turn()

    def texts(self, lowest: LogLevel = LogLevel.info) -> list[str]:
        """What was logged from this level up."""
        return [str(formatEvent(e)) for e in self.events if e["log_level"] >= lowest]

    def assert_closed_with(self, wire: Wire, said: bytes) -> None:
        """The client got these bytes and an end; nothing of it is left with us."""
        self.assertEqual(wire.said, said)
        self.assertTrue(wire.fin_seen)
        self.later(wire, LINGER)
        self.assertEqual(wire.end, "closed")
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """No connection, no timer but those that count wrong logins."""
        for front in self.fronts:
            front.logins.stop()
        self.assertEqual(self.guests.active, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
