"""A carried stream in the clothes of a transport."""

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB
from stripetwist.core.errors import Code
from stripetwist.core.frames import HEADER_SIZE

# How many bytes of a local socket to read at first, and after it had fewer than these.
_READ = 64 * KIB - HEADER_SIZE


class StreamReset(ConnectionLost):
    """
    The carried stream broke.

    @ivar code: why.
    """

    def __init__(self, code: Code) -> None:
        super().__init__(f"stream reset: {code.name.lower()}")
        self.code = code


class StreamOwner(Protocol):
    """What a stream's transport asks of the session it belongs to."""

    def room_left(self, stream_id: int) -> int:
        """How many bytes may be written now."""

    def write(self, stream_id: int, data: bytes) -> int:
        """Send; how many bytes more may follow at once."""

    def end(self, stream_id: int) -> None:
        """Half-close."""

    def reset(self, stream_id: int, code: Code) -> None:
        """Break it."""

    def stop_reading(self, stream_id: int) -> None:
        """Want nothing more of it."""

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """Received bytes, and whether they are the last."""

    def consumed(self, stream_id: int, count: int) -> None:
        """The consumer took bytes."""


@implementer(IHalfCloseableProtocol)
class _Nobody:
    """The protocol of a stream that has none: nothing to be told, nothing to be done."""

    def makeConnection(self, transport: object) -> None: ...

    def dataReceived(self, data: bytes) -> None: ...

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure) -> None: ...


@implementer(ITransport, IConsumer, IPushProducer)
class StreamTransport:
    """
    One carried stream as a transport: what a protocol or a relay holds in its hand.

    Bytes count as consumed once the protocol has taken them and has not paused us; what it
    was given before pausing counts when it resumes.  Keeps no bytes of its own.  Unlike a
    socket's, its C{abortConnection} tells the protocol before it returns.

    @ivar counts_consumption: tells a relay to pause us until a piece has really gone.
    @ivar protocol: who is given the bytes; swap it only while paused.
    """

    log = Logger()
    counts_consumption = True

    def __init__(
        self, stream_id: int, owner: StreamOwner, peer: IAddress, host: IAddress, piece: int
    ) -> None:
        """
        @param piece: how many bytes to hand over at a time; with its header, a read of a socket.
        """
        self.stream_id = stream_id
        self._piece = piece
        self.protocol: Any = _Nobody()
        self.disconnecting = False
        self._owner = owner
        self._peer = peer
        self._host = host
        self._paused = True
        self._delivering = False
        self._unreported = 0
        self._end_waits = False
        self._finished = False
        self._write_ended = False
        self._lost = False
        self._producer: Any = None
        self._streaming = False
        self._resting = False
        self._asking = False
        self._fed = False
        self._full = False
        self._held = False
        self._reads_much = False

    # ---- the session calls these

    def readable(self) -> None:
        """There is something to take."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while not self._paused and not self._lost and self._deliver():
                pass
        # As with Twisted's own transports: who raises loses its connection, and only that.
        except Exception:  # noqa: BLE001
            self.log.failure("the consumer of a stream failed")
            self.abortConnection()
        finally:
            self._delivering = False

    def _deliver(self) -> bool:
        """Hand one batch over; whether there was one."""
        if self._end_waits:
            self._tell_end()
            return False
        data, self._end_waits = self._owner.take(self.stream_id, self._piece)
        if data:
            self._unreported += len(data)
            self.protocol.dataReceived(data)
            if not self._paused:
                self._report()
        return bool(data) or self._end_waits

    def _report(self) -> None:
        if self._unreported:
            count, self._unreported = self._unreported, 0
            self._owner.consumed(self.stream_id, count)

    def _tell_end(self) -> None:
        self._end_waits = False
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.readConnectionLost()
        else:
            self.loseConnection()
        if self._finished:
            self.lost(None)

    def has_room(self) -> None:
        """The stream may be written to again."""
        self._full = False
        self._limit_reads(self._owner.room_left(self.stream_id))
        self._settle()

    def hold(self) -> None:
        """The process's store is full: no more until C{release}, and then little at first."""
        self._held = True
        self._reads_much = False
        self._limit_reads(self._owner.room_left(self.stream_id))
        self._settle()

    def release(self) -> None:
        """The store has room."""
        self._held = False
        self._settle()

    def lost(self, code: Code | None) -> None:
        """The stream is gone: cleanly (C{None}), or broken."""
        if code is not None:
            self._leave(StreamReset(code))
        elif self._end_waits:
            # Its bytes have all been handed over, but a pause holds back the news of the end.
            self._finished = True
        else:
            self._leave(ConnectionDone())

    def _leave(self, reason: Exception) -> None:
        if self._lost:
            return
        self._lost = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))

    # ---- ITransport

    def write(self, data: bytes) -> None:
        """Send bytes; a registered producer is paused when there is no more room."""
        if self._lost or self._write_ended or not data:
            return
        room = self._owner.write(self.stream_id, data)
        self._reads_much = len(data) >= _READ
        self._limit_reads(room)
        if not room:
            self._full = True
            self._settle()
        elif not self._streaming:
            self._ask()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces."""
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """Half-close, after what was written."""
        if not self._lost and not self._write_ended:
            self._write_ended = True
            self._owner.end(self.stream_id)

    def loseConnection(self) -> None:
        """Close both directions; what was written is still delivered."""
        self.disconnecting = True
        self.loseWriteConnection()
        if not self._lost:
            self._owner.stop_reading(self.stream_id)

    def abortConnection(self) -> None:
        """Break it; the peer sees a reset."""
        if not self._lost:
            self._owner.reset(self.stream_id, Code.PEER_RESET)
            self._leave(ConnectionAborted())

    def getPeer(self) -> IAddress:
        """The peer process's address on one of the subflows, or a placeholder."""
        return self._peer

    def getHost(self) -> IAddress:
        """Our address there."""
        return self._host

    # ---- IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take bytes from a producer, paused and resumed as there is room."""
        if self._producer is not None:
            raise RuntimeError("this stream already has a producer")
        if self._lost:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        # A push producer runs of its own accord, a pull producer when it is asked.
        self._resting = not streaming
        self._limit_reads(self._owner.room_left(self.stream_id))
        self._settle()

    def _limit_reads(self, room: int) -> None:
        """One read of a local socket, one frame; and never more than there is room for."""
        if room and hasattr(self._producer, "bufferSize"):
            # A large read costs more than a small one, whatever there was to read.
            most = self._piece - HEADER_SIZE if self._reads_much else _READ
            self._producer.bufferSize = min(room, most)

    def unregisterProducer(self) -> None:
        """Whoever wrote here no longer asks."""
        self._producer = None

    def _settle(self) -> None:
        """Have the producer run if there is room, and rest if there is none; tell it once."""
        must_rest = self._full or self._held
        if self._producer is None or must_rest == self._resting:
            return
        self._resting = must_rest
        if not self._streaming:
            self._ask()
        elif must_rest:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()

    def _ask(self) -> None:
        """Have a pull producer write, once more after each time that it did."""
        self._fed = True
        if self._asking:
            return
        self._asking = True
        try:
            while self._fed and self._producer is not None and not self._resting:
                self._fed = False
                self._producer.resumeProducing()
        finally:
            self._asking = False

    # ---- IPushProducer

    def pauseProducing(self) -> None:
        """Hand nothing over until resumed; what was just handed over does not count yet."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Hand over what there is."""
        self._paused = False
        if not self._lost:
            self._report()
            self.readable()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.loseConnection()
