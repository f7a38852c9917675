"""Two transports coupled into one connection: bytes, back-pressure, half-close and reset."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import Limits
from stripetwist.net.sieve import NOTHING_SIFTED, Sieves, sift
from stripetwist.net.sockets import break_at_exit, is_broken


@implementer(IHalfCloseableProtocol)
class Parked(Protocol):
    """
    Holds a connected transport still until someone couples it.

    Nothing is read meanwhile.  Should it be lost all the same, that is remembered.
    """

    # Twisted's own type lacks what every transport of ours can do.
    transport: Any
    lost: Failure | None = None

    def connectionMade(self) -> None:
        """Stop reading: the bytes belong to whoever comes."""
        self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """Cannot come while paused."""

    def writeConnectionLost(self) -> None:
        """We have not closed it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep the reason for C{couple}."""
        self.lost = reason


@implementer(IPullProducer)
class _Drained:
    """
    Tells the source of an end's bytes that they have left this process.

    As a pull producer it is asked each time the destination's own buffer has gone to the
    kernel, so bytes in that buffer still count as held by us.
    """

    def __init__(self, source: "RelayEnd") -> None:
        self._source = source

    def resumeProducing(self) -> None:
        """The destination wants more."""
        self._source.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The destination is gone; its connectionLost follows."""


@implementer(IHalfCloseableProtocol)
class RelayEnd(Protocol):
    """
    One side of a relay: what arrives here leaves at the other side.

    Each direction ends by itself (half-close).  The transport is closed once both have
    ended, and aborted, so that the reset travels on, when the other side broke.  Keeps no
    bytes: what the other side cannot take stays in the transport they came from.
    """

    transport: Any
    other: "RelayEnd"

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self._read_ended = False
        self._write_ended = False
        self._exact = False
        self.is_lost = False

    def pace(self, source: "RelayEnd") -> None:
        """Let our transport say when C{source} may read on; starts its reading."""
        if self.is_lost or self._write_ended:
            return
        break_at_exit(self.transport, True)
        # A carried stream counts what its consumer took: it rests after each piece until
        # that piece is in the kernel.  A socket only needs to rest when we are full.
        source._exact = getattr(source.transport, "counts_consumption", False)
        if source._exact:
            self.transport.registerProducer(_Drained(source), False)
        else:
            # In this order: a transport that is full already pauses its producer at once.
            source.transport.resumeProducing()
            self.transport.registerProducer(source.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on at once."""
        self._relay.moved += len(data)
        if self._exact:
            self.transport.pauseProducing()
        self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        """This side sends no more: let the other end its writing."""
        if is_broken(self.transport):
            self.transport.abortConnection()
        else:
            self._read_ended = True
            self.other.end_writing()
            self._close_if_over()

    def writeConnectionLost(self) -> None:
        """Our own half-close is done."""

    def end_writing(self) -> None:
        """No more will be written here."""
        if self._write_ended or self.is_lost:
            return
        self._write_ended = True
        self.transport.unregisterProducer()
        self._relay.half_closed()
        if not self._close_if_over():
            self.transport.loseWriteConnection()

    def _close_if_over(self) -> bool:
        over = self._read_ended and self._write_ended
        if over and not self.is_lost:
            break_at_exit(self.transport, False)
            self.transport.loseConnection()
        return over

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone: in peace only if both directions had ended before."""
        self.is_lost = True
        if not (self._read_ended and self._write_ended) or not reason.check(ConnectionDone):
            self.other.abort()
        self._relay.lost_one()

    def abort(self) -> None:
        """Reset this side, unless it is over anyway."""
        if not self.is_lost and not (self._read_ended and self._write_ended):
            self.transport.abortConnection()


class Relay:
    """
    Two ends coupled; lives until both transports are gone.

    A relay that is half closed, or closing, and has moved nothing for C{limits.half_closed}
    seconds is aborted.

    @ivar moved: bytes passed on, both ways.
    @ivar ended: fires once both transports are gone.
    """

    def __init__(
        self,
        near: ITransport,
        far: ITransport,
        clock: IReactorTime,
        limits: Limits,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self.ended: Deferred[None] = Deferred()
        self._check: IDelayedCall | None = None
        self._moved_before = 0
        self.moved = 0
        self.near, self.far = RelayEnd(self), RelayEnd(self)
        self.near.other, self.far.other = self.far, self.near
        self._attach(near, self.near)
        self._attach(far, self.far)

    def _attach(self, transport: Any, end: RelayEnd) -> None:
        # A socket of Twisted's that is lost has no protocol any more.
        parked = getattr(transport, "protocol", None)
        end.is_lost = parked is None or parked.lost is not None
        if hasattr(transport, "SEND_LIMIT"):
            # A piece as a carried stream hands it over, at one go.
            transport.SEND_LIMIT = 2 * self._limits.batch_most
        transport.protocol = end
        end.makeConnection(transport)

    def start(self, early: bytes = b"", early_eof: bool = False) -> None:
        """
        Let bytes flow.

        @param early: bytes that were read from the near side before.
        @param early_eof: whether that side has already sent all it will.
        """
        near, far = self.near, self.far
        if near.is_lost or far.is_lost:
            near.abort()
            far.abort()
            self.lost_one()
            return
        if early:
            self.moved += len(early)
            far.transport.write(early)
        near.pace(far)
        if early_eof:
            near.readConnectionLost()
        else:
            far.pace(near)

    def half_closed(self) -> None:
        """One direction is over: from now on the other may not be silent for ever."""
        if self._check is None:
            self._moved_before = self.moved
            self._check = self._clock.callLater(self._limits.half_closed, self._look)

    def _look(self) -> None:
        self._check = None
        if self.moved == self._moved_before:
            for end in (self.near, self.far):
                if not end.is_lost:
                    end.transport.abortConnection()
        else:
            self.half_closed()

    def lost_one(self) -> None:
        """One transport is gone; after the second, whichever tells of it first, it is over."""
        if self.near.is_lost and self.far.is_lost and not self.ended.called:
            if self._check is not None:
                self._check.cancel()
                self._check = None
            self.ended.callback(None)


def couple(  # noqa: PLR0913, all that is known of it
    near: ITransport,
    far: ITransport,
    *,
    early: bytes = b"",
    early_eof: bool = False,
    sieves: Sieves = NOTHING_SIFTED,
    clock: IReactorTime,
    limits: Limits,
) -> Relay:
    """
    Make one connection out of two transports that are L{Parked}.

    @param early: bytes already read from C{near}, to be sent first.
    @param early_eof: whether C{near} has already ended its sending.
    @param sieves: what of C{near}'s is for the other side, and what of C{far}'s.
    """
    relay = Relay(near, far, clock, limits)
    # A carried stream may hand over what it has within the call that lets it.
    sift(near, sieves[0])
    sift(far, sieves[1])
    relay.start(early, early_eof)
    return relay
