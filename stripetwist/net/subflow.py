"""One TLS connection, as frames."""

from collections.abc import Sequence
from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPullProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB, Limits
from stripetwist.core.progress import KernelView
from stripetwist.net import sockets
from stripetwist.net.records import IReadListener

# How many bytes to read where little comes: as many as Twisted reads at first.
_READ = 64 * KIB


class Carrier(Shape):
    """The session that a subflow carries frames for."""

    def received(self, subflow_id: int, pieces: Sequence[bytes]) -> None:
        """Bytes came."""

    def drained(self, subflow_id: int) -> None:
        """All that was written has left this process."""

    def connection_lost(self, subflow_id: int) -> None:
        """The connection is gone."""


class Greeter(Shape):
    """Who does the hello of a subflow, and wants to know what becomes of it."""

    def secured(self, subflow: "SubflowProtocol") -> None:
        """The connection is up, TLS included."""

    def greeted(self, data: bytes) -> None:
        """Bytes of the hello came."""

    def is_last_word(self, data: bytes) -> bool | None:
        """
        Whether the first bytes after the hello are a rejection instead of frames.

        @return: C{None} if only more of them can tell.
        """

    def lost(self, subflow: "SubflowProtocol", reason: Failure) -> None:
        """The connection is gone."""


@implementer(IHandshakeListener, IReadListener, IPullProducer)
class SubflowProtocol(Protocol):
    """
    One TLS connection, as frames.

    First its greeter has the bytes; from C{start} on a session has.  Asks that session for
    bytes whenever its transport has room: it is a pull producer on the TCP transport, below
    TLS, so that bytes are bound to it as late as can be.  Lost once: then it tells both and
    is dropped.
    """

    # Twisted's own type lacks what TCP and TLS transports can do.
    transport: Any

    def __init__(
        self, greeter: Greeter, clock: IReactorTime, limits: Limits, by_proxy: bool = False
    ) -> None:
        """
        @param by_proxy: whether its kernel knows of the way to a proxy only.
        """
        self._greeter = greeter
        self._by_proxy = by_proxy
        self._clock = clock
        self._limits = limits
        self._carrier: Carrier | None = None
        self._subflow_id = 0
        self._answer: bytes | None = None
        self._came: list[bytes] = []
        self._pulling = False
        self._closing: IDelayedCall | None = None
        self._ended = False
        self._aborted = False
        self._lost = False

    @property
    def is_tls(self) -> bool:
        """Whether there is TLS below."""
        return isinstance(self.transport, TLSMemoryBIOProtocol)

    @property
    def raw(self) -> Any:
        """The TCP (or Unix) transport itself."""
        # TLS forwards what it does not know itself: take exactly the one below.
        return self.transport.transport if self.is_tls else self.transport

    def connectionMade(self) -> None:
        """Without TLS that is all there is to wait for."""
        if not self.is_tls:
            self._greeter.secured(self)

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        if not self._ended:
            self._greeter.secured(self)

    def dataReceived(self, data: bytes) -> None:
        """Hand the bytes to whoever has them now."""
        if self._ended:
            return
        if self._carrier is None:
            self._greeter.greeted(data)
            return
        if self._answer is not None:
            self._answered(self._carrier, self._answer + data)
            return
        self._came.append(data)
        if not self.is_tls:
            self.readEnded()

    def readEnded(self) -> None:
        """Let the session act once on all that came at one go."""
        if self._carrier is not None and self._came:
            pieces, self._came = self._came, []
            # A large read costs more than a small one, whatever there was to read.
            much = sum(map(len, pieces)) > _READ // 2
            self.raw.bufferSize = self._limits.batch_most if much else _READ
            self._carrier.received(self._subflow_id, pieces)

    def _answered(self, carrier: Carrier, data: bytes) -> None:
        is_last_word = self._greeter.is_last_word(data)
        self._answer = data if is_last_word is None else None
        if is_last_word:
            self.abort()
        elif is_last_word is False:
            carrier.received(self._subflow_id, [data])

    def start(self, carrier: Carrier, subflow_id: int, expects_answer: bool = False) -> None:
        """
        The hello is over: from now on there are frames.

        @param expects_answer: whether a rejection may still come in place of frames.
        """
        self._carrier = carrier
        self._subflow_id = subflow_id
        self._answer = b"" if expects_answer else None
        if not self._ended:
            self._pulling = True
            # A batch with what TLS adds, at one go; what is left of it is copied each time.
            self.raw.SEND_LIMIT = 2 * self._limits.batch_most
            self.raw.registerProducer(self, False)

    def send(self, data: bytes) -> None:
        """Write one batch."""
        if not self._ended:
            self.transport.write(data)

    def resumeProducing(self) -> None:
        """The transport has room: fill one turn."""
        if self.raw.disconnecting:
            # TLS has been closed by the other end, and waits below for us.
            self._stop_pulling()
        elif self._carrier is not None and not self._ended:
            self._carrier.drained(self._subflow_id)

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost follows."""

    def _stop_pulling(self) -> None:
        # With a pull producer Twisted would never finish closing.
        if self._pulling:
            self._pulling = False
            self.raw.unregisterProducer()

    def pace(self, batch: int) -> None:
        """It is given so many bytes at a time: let the kernel hold as many unsent."""
        sockets.hold_unsent(self.raw, batch)

    @property
    def window_decays(self) -> bool:
        """
        Whether its congestion window shrinks while it is idle: bbr keeps its own.

        A proxy's connection to the server is taken for one of the usual kind.
        """
        return self._by_proxy or sockets.congestion_control(self.raw) not in ("", sockets.BBR)

    @property
    def segment(self) -> int:
        """How many bytes its kernel puts into a packet; 0 if unknown."""
        return 0 if self._by_proxy else sockets.segment_size(self.raw)

    @property
    def retransmitted(self) -> int:
        """How many packets its kernel has had to send again, as far as that is known."""
        return 0 if self._by_proxy else sockets.retransmitted(self.raw)

    def smooth(self) -> None:
        """Spread what is sent over the round trip."""
        sockets.smooth(self.raw)

    def kernel_view(self) -> KernelView | None:
        """What the kernel knows of it; a proxy's kernel takes bytes whatever becomes of them."""
        return None if self._by_proxy else sockets.kernel_view(self.raw)

    def close(self) -> None:
        """End it in order; abort it if that takes too long."""
        if not self._ended:
            self._ended = True
            self._stop_pulling()
            self._closing = self._clock.callLater(self._limits.close_timeout, self._give_up)
            self.transport.loseConnection()

    def retire(self) -> None:
        """Carry nothing more for the session, which goes on without it, and end in order."""
        if self._carrier is not None:
            self._carrier.connection_lost(self._subflow_id)
        self.close()

    def _give_up(self) -> None:
        self._closing = None
        self.abort()

    def abort(self) -> None:
        """End it now."""
        self._ended = True
        self._stop_pulling()
        if not self._aborted and not self._lost:
            self._aborted = True
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone: say so once."""
        self._ended = self._lost = True
        self._pulling = False
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._carrier is not None:
            self._carrier.connection_lost(self._subflow_id)
        self._greeter.lost(self, reason)
