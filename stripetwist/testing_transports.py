"""Public fakes: connections in memory that push back."""

# The names are Twisted's.
# ruff: noqa: N802, N815

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB

_ADDRESS = IPv4Address("TCP", "192.0.2.1", 40000)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class BoundedTransport:
    """
    One end of a connection that behaves as Twisted's TCP transports do, and pushes back.

    What is written waits until the test, or a L{Cable}, drains it.  Above the limit a push
    producer is paused; whenever nothing is left unsent it is resumed, or a pull producer
    asked.  What arrives while reading is paused waits, too.  Closing waits for what is
    unsent, and for ever while a pull producer is registered.  Once the connection is lost
    it has no protocol any more.

    @ivar sent: all that was drained.
    @ivar calls: what was done to it, oldest first: C{pause}, C{resume}, C{abort} and so on.
    @ivar on_change: told when there may be something to drain, or its state is another.
    @ivar ended: how our writing ended: not yet (empty), C{fin}, or C{reset}.
    """

    bufferSize = 64 * KIB
    SEND_LIMIT = 128 * KIB

    def __init__(
        self, limit: int = 64 * KIB, clock: Clock | None = None, peer: IAddress = _ADDRESS
    ) -> None:
        """
        @param clock: what Twisted does in the reactor's next turn happens when this is
            advanced; without one, at once.
        """
        self.limit = limit
        self.sent = bytearray()
        self.calls: list[str] = []
        self.on_change: Callable[[], None] = lambda: None
        self.protocol: Any = None
        self.connected = True
        self.disconnecting = False
        self.ended = ""
        self.producer: Any = None
        self.streaming = False
        self.producer_paused = False
        self._clock = clock
        self._peer = peer
        self._unsent = bytearray()
        self._come: list[bytes] = []
        self._end_comes = False
        self._reading = True
        self._half_closing = False
        self._aborting = False
        self._due = False

    def connect(self, protocol: Any) -> "BoundedTransport":
        """Give it its protocol."""
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    def _soon(self, call: Callable[[], None]) -> None:
        if self._clock is None:
            call()
        else:
            self._clock.callLater(0, call)

    # ---- the other end

    @property
    def unsent(self) -> int:
        """How many bytes wait to be drained."""
        return len(self._unsent)

    @property
    def waiting(self) -> int:
        """How many bytes have come and were not read."""
        return sum(map(len, self._come))

    @property
    def is_reading(self) -> bool:
        """Whether bytes that come are handed on."""
        return self._reading and self.connected and not self.disconnecting and not self._aborting

    def drain(self, most: int | None = None) -> bytes:
        """The other end takes what was written, or as much of it; what may follow follows."""
        count = len(self._unsent) if most is None else most
        data = bytes(self._unsent[:count])
        del self._unsent[:count]
        self.sent += data
        if not self._unsent and self.connected and not self._aborting:
            self._all_sent()
        return data

    def _all_sent(self) -> None:
        # The order of Twisted's FileDescriptor.doWrite, and so its trap with pull producers.
        if self.producer is not None and (not self.streaming or self.producer_paused):
            self.producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._lose(Failure(ConnectionDone()))
        elif self._half_closing and not self.ended:
            self.ended = "fin"
            self.on_change()
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.writeConnectionLost()

    def arrive(self, data: bytes) -> None:
        """Bytes come from the other end."""
        if self.connected:
            self._come.append(data)
            self._read()

    def arrive_end(self) -> None:
        """The other end will send no more."""
        self._end_comes = True
        self._read()

    def arrive_reset(self) -> None:
        """The other end has broken the connection."""
        if not self._aborting:
            self._lose(Failure(ConnectionLost()))

    def _read(self) -> None:
        while self._come and self.is_reading:
            self.protocol.dataReceived(self._come.pop(0))
            self.on_change()
        if self._end_comes and not self._come and self.is_reading:
            self._end_comes = False
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.readConnectionLost()
            else:
                self._lose(Failure(ConnectionDone()))

    def _lose(self, reason: Failure) -> None:
        if not self.connected:
            return
        self.connected = False
        clean = reason.check(ConnectionDone) and not self._unsent
        self.ended = self.ended or ("fin" if clean else "reset")
        if reason.check(ConnectionAborted):
            self.ended = "reset"
        self._unsent.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        protocol = self.protocol
        del self.protocol
        self.on_change()
        protocol.connectionLost(reason)

    # ---- ITransport

    def write(self, data: bytes) -> None:
        """See L{ITransport.write}."""
        if not isinstance(data, bytes):
            raise TypeError("only bytes are written")
        if not self.connected or self.ended or not data:
            return
        self._unsent += data
        if self.producer is not None and self.streaming and len(self._unsent) > self.limit:
            self.producer_paused = True
            self.producer.pauseProducing()
        self.on_change()

    def writeSequence(self, data: Any) -> None:
        """See L{ITransport.writeSequence}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See L{ITransport.loseConnection}."""
        self.calls.append("close")
        if not self.connected or self.disconnecting:
            return
        if self.ended:
            # Twisted closes within this very call, too, once our half has ended.
            self._lose(Failure(ConnectionDone()))
            return
        self.disconnecting = True
        self._soon(self._close_if_sent)

    def _close_if_sent(self) -> None:
        if self.connected and not self._unsent and not self._aborting:
            self._all_sent()
        self.on_change()

    def loseWriteConnection(self) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport.loseWriteConnection}."""
        self.calls.append("half-close")
        self._half_closing = True
        self._soon(self._close_if_sent)

    def abortConnection(self) -> None:
        """See L{twisted.internet.interfaces.ITCPTransport.abortConnection}."""
        self.calls.append("abort")
        if self.connected and not self._aborting:
            self._aborting = True
            self._soon(lambda: self._lose(Failure(ConnectionAborted())))

    def getPeer(self) -> Any:
        """See L{ITransport.getPeer}."""
        return self._peer

    def getHost(self) -> Any:
        """See L{ITransport.getHost}."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """It is on."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It stays on."""

    def getTcpKeepAlive(self) -> bool:
        """It is on."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It stays on."""

    # ---- IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See L{IConsumer.registerProducer}."""
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer, self.streaming, self.producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See L{IConsumer.unregisterProducer}."""
        self.producer = None
        if self.connected and self.disconnecting:
            self._soon(self._close_if_sent)

    # ---- IPushProducer

    def pauseProducing(self) -> None:
        """See L{IPushProducer.pauseProducing}."""
        self.calls.append("pause")
        self._reading = False
        self.on_change()

    def resumeProducing(self) -> None:
        """See L{IPushProducer.resumeProducing}; reading goes on in the next turn."""
        self.calls.append("resume")
        if not self.connected or self.disconnecting:
            return
        self._reading = True
        self._soon(self._read)
        self.on_change()

    def stopProducing(self) -> None:
        """See L{IPushProducer.stopProducing}."""
        self.loseConnection()


class Cable:
    """
    Joins two transports: what one sends comes at the other, a little later.

    Holds no more than the receiving end takes: one that does not read makes the other wait.

    @ivar delay: seconds one way.
    @ivar window: bytes that the receiving end may leave unread.
    @ivar silent: nothing comes through any more, and nobody is told.
    """

    def __init__(
        self, clock: Clock, near: BoundedTransport, far: BoundedTransport, delay: float = 0.0
    ) -> None:
        self._clock = clock
        self.ends = near, far
        self.delay = delay
        self.window = 256 * KIB
        self.silent = False
        self._flying = {near: 0, far: 0}
        self._moving: set[BoundedTransport] = set()
        self._told: set[BoundedTransport] = set()
        for end in self.ends:
            end.on_change = self._changed

    def _changed(self) -> None:
        near, far = self.ends
        for source, sink in ((near, far), (far, near)):
            ready = source.unsent and self._room(sink)
            if (ready or (source.ended and source not in self._told)) and (
                source not in self._moving
            ):
                self._moving.add(source)
                self._clock.callLater(0, self._move, source, sink)

    def _room(self, sink: BoundedTransport) -> int:
        return max(0, self.window - sink.waiting - self._flying[sink])

    def _move(self, source: BoundedTransport, sink: BoundedTransport) -> None:
        self._moving.discard(source)
        if self.silent:
            return
        data = source.drain(self._room(sink))
        if data:
            self._flying[sink] += len(data)
            self._clock.callLater(self.delay, self._come, sink, data)
        if source.ended and source not in self._told:
            self._told.add(source)
            self._clock.callLater(self.delay, self._end, sink, source.ended)
        self._changed()

    def _come(self, sink: BoundedTransport, data: bytes) -> None:
        self._flying[sink] -= len(data)
        if self.silent:
            return
        if sink.connected:
            sink.arrive(data)
            self._changed()
        else:
            # Nobody is there any more: the kernel answers with a reset.
            near, far = self.ends
            (far if sink is near else near).arrive_reset()

    def _end(self, sink: BoundedTransport, how: str) -> None:
        if self.silent or not sink.connected:
            return
        if how == "reset":
            sink.arrive_reset()
        else:
            sink.arrive_end()

    def cut(self) -> None:
        """Break it, as both ends learn at once."""
        self.silent = True
        for end in self.ends:
            end.arrive_reset()
