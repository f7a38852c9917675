"""A TCP relay that is slow on purpose: it holds each connection to a rate, and delays it."""

import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB
from stripetwist.net.sockets import is_broken

# What is read at a time, and with it what leaves at a time.
_PIECE = 16 * KIB
# What waits for its turn; it also is all that the kernel may keep for us.
_QUEUE = 32 * KIB


@dataclass(frozen=True, slots=True)
class Line:
    """
    What each connection gets, in either direction.

    @ivar rate: bytes a second.
    @ivar delay: seconds from one end to the other, waiting not counted.
    """

    rate: float
    delay: float

    @property
    def holds(self) -> int:
        """How many bytes are on their way before no more are read."""
        return int(self.rate * self.delay) + _QUEUE


@implementer(IHalfCloseableProtocol, IPushProducer)
class NarrowEnd(Protocol):
    """
    One side of a narrowed connection: what arrives here leaves at the other side, later.

    Holds what is on its way there: at most what the line holds and one piece more.  As a
    producer it serves the other side's transport, which tells it to wait.  Each direction
    ends by itself; when this side breaks, the other is reset at once.

    @ivar held: bytes on their way.
    @ivar is_lost: whether the connection on this side is gone.
    """

    transport: Any = None
    other: "NarrowEnd"

    def __init__(self, clock: IReactorTime, line: Line) -> None:
        self._clock = clock
        self._line = line
        # Each with the moment when it is due; the empty piece is the end.
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self._timer: IDelayedCall | None = None
        self._waits = False
        self._end_came = False
        self._read_ended = False
        self._write_ended = False
        self.held = 0
        self.is_lost = False

    # ---- the connection of this side

    def connectionMade(self) -> None:
        """Read once both sides are there."""
        _keep_little(self.transport)
        self.transport.pauseProducing()
        if self.other.is_lost:
            self.abort()
        elif self.other.transport is not None:
            self._start()
            self.other._start()

    def _start(self) -> None:
        self.other.transport.registerProducer(self, True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """Send it on its way."""
        self.held += len(data)
        self._send(data)
        if self.held >= self._line.holds:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """This side sends no more: that comes at the other end after all it has sent."""
        if is_broken(self.transport):
            self.transport.abortConnection()
        else:
            self._end_came = True
            self._send(b"")

    def writeConnectionLost(self) -> None:
        """Our own half-close is done."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone: in peace only if both directions had ended before."""
        self.is_lost = True
        self._drop()
        if not self._is_over or not reason.check(ConnectionDone):
            self.other.abort()

    def abort(self) -> None:
        """Reset this side, if it is there."""
        self._drop()
        if self.transport is not None and not self.is_lost:
            self.transport.abortConnection()

    def _drop(self) -> None:
        self._pieces.clear()
        self.held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- the way to the other side

    def _send(self, data: bytes) -> None:
        """One after the other leaves, at the line's rate; each is under way for its delay."""
        now = self._clock.seconds()
        self._free_at = max(now, self._free_at) + len(data) / self._line.rate
        self._pieces.append((self._free_at + self._line.delay, data))
        self._arm()

    def _arm(self) -> None:
        if self._pieces and self._timer is None and not self._waits:
            delay = max(0.0, self._pieces[0][0] - self._clock.seconds())
            self._timer = self._clock.callLater(delay, self._arrive)

    def _arrive(self) -> None:
        """Hand over what is due."""
        self._timer = None
        now = self._clock.seconds()
        while self._pieces and self._pieces[0][0] <= now and not self._waits:
            self._hand_over(self._pieces.popleft()[1])
        self._arm()

    def _hand_over(self, data: bytes) -> None:
        if not data:
            self._read_ended = True
            self.other.end_writing()
            self._close_if_over()
            return
        was_full = self.held >= self._line.holds
        self.held -= len(data)
        self.other.transport.write(data)
        # Once the end has come, Twisted would find it there again.
        if was_full and self.held < self._line.holds and not self._end_came:
            self.transport.resumeProducing()

    def end_writing(self) -> None:
        """No more will be written here."""
        self._write_ended = True
        self.transport.unregisterProducer()
        if not self._close_if_over():
            self.transport.loseWriteConnection()

    @property
    def _is_over(self) -> bool:
        return self._read_ended and self._write_ended

    def _close_if_over(self) -> bool:
        if self._is_over and not self.is_lost:
            self.transport.loseConnection()
        return self._is_over

    # ---- IPushProducer, for the other side's transport

    def pauseProducing(self) -> None:
        """The other side is full: what is due waits."""
        self._waits = True

    def resumeProducing(self) -> None:
        """It has room again."""
        self._waits = False
        self._arm()

    def stopProducing(self) -> None:
        """It is gone; its connectionLost follows."""


def _keep_little(transport: Any) -> None:
    """Have neither Twisted nor the kernel gather what has to wait at its sender."""
    transport.bufferSize = _PIECE
    transport.setTcpNoDelay(True)
    handle = getattr(transport, "socket", None)
    if handle is not None:
        with suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)


class _Onward(ClientFactory[NarrowEnd]):
    """The connection that goes on to where the relay leads."""

    noisy = False

    def __init__(self, far: NarrowEnd) -> None:
        self._far = far

    def buildProtocol(self, addr: IAddress | None) -> NarrowEnd:
        """The far side."""
        return self._far

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There is nothing to relay to."""
        self._far.other.abort()


class NarrowRelay(Factory[NarrowEnd]):
    """Leads each connection on to one place of this machine, over a line of its own."""

    noisy = False

    def __init__(
        self, reactor: IReactorTCP, clock: IReactorTime, line: Line, host: str, port: int
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._line = line
        self._where = host, port

    def buildProtocol(self, addr: IAddress | None) -> NarrowEnd:
        """The near side; the far one is dialed at once."""
        near, far = (NarrowEnd(self._clock, self._line) for _ in range(2))
        near.other, far.other = far, near
        self._reactor.connectTCP(*self._where, _Onward(far))
        return near
