"""Targets inside the server, to measure the way to it: a source without end, and a sink."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB
from stripetwist.core.errors import Code
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.net.association import Association
from stripetwist.net.guard import Guard
from stripetwist.net.opener import Opener
from stripetwist.net.relay import Parked

# No such name can ever be registered (RFC 6761, section 6.4); the ports are those of the
# services that do the same (RFC 863, RFC 864).
NAME = "speed.stripetwist.invalid"
SINK, SOURCE = Target(NAME, 9), Target(NAME, 19)

# What the sink says: how many bytes it has taken, big endian; so often.
TALLY_SIZE = 8
_TALLY_EVERY = 0.1

PIECE = bytes(range(256)) * 256

# Of one key: each fills a store of its own as fast as memory is written.
_MOST = 8


@implementer(ITransport, IConsumer, IPushProducer)
class SpeedTransport:
    """
    A connection to the source or the sink, as if it were a socket to a target.

    The source gives bytes for as long as it is let, one piece in each turn of the reactor;
    the sink takes all that comes, and tells how much that was, a tenth of a second after.
    Both end once the asker has ended.  Keeps no bytes.

    @ivar protocol: who is given the bytes; L{Parked} at first.
    @ivar bufferSize: how much the source gives at a time; whoever takes it may want less.
    """

    bufferSize = 64 * KIB
    disconnecting = False

    def __init__(
        self, clock: IReactorTime, gives: bool, ended: Callable[[], None] = lambda: None
    ) -> None:
        """
        @param gives: whether it is the source.
        @param ended: called once it is over.
        """
        self._clock = clock
        self._gives = gives
        self._ended = ended
        self._taken = self._told = 0
        self._paused = False
        self._asker_ended = False
        self._end_told = False
        self._lost = False
        self._producer: Any = None
        self._next: IDelayedCall | None = None
        self.protocol: Any = Parked()
        self.protocol.makeConnection(self)

    # ---- what it does by itself

    def _soon(self, delay: float = 0.0) -> None:
        if self._next is None and not self._lost and not self._end_told:
            self._next = self._clock.callLater(delay, self._turn)

    def _turn(self) -> None:
        self._next = None
        if self._paused:
            return
        if self._gives and not self._asker_ended:
            self.protocol.dataReceived(PIECE[: self.bufferSize])
            self._soon()
            return
        if self._taken != self._told:
            self._told = self._taken
            self.protocol.dataReceived(self._taken.to_bytes(TALLY_SIZE, "big"))
        if self._asker_ended:
            self._end_told = True
            self.protocol.readConnectionLost()
        else:
            self._soon(_TALLY_EVERY)

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    # ---- ITransport

    def write(self, data: bytes) -> None:
        """Take bytes; there is always room for more."""
        if not self._gives:
            self._taken += len(data)
        if self._producer is not None:
            self._producer.resumeProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Take several pieces."""
        self.write(b"".join(data))

    def loseWriteConnection(self) -> None:
        """The asker has ended."""
        self._asker_ended = True
        self._cancel()
        self._soon()

    def loseConnection(self) -> None:
        """Close."""
        self._leave(ConnectionDone())

    def abortConnection(self) -> None:
        """Break it."""
        self._leave(ConnectionAborted())

    def _leave(self, reason: Exception) -> None:
        if not self._lost:
            self._lost = self.disconnecting = True
            self._cancel()
            self._clock.callLater(0, self._left, Failure(reason))

    def _left(self, reason: Failure) -> None:
        self._producer = None
        self._ended()
        self.protocol.connectionLost(reason)

    def getPeer(self) -> IAddress:
        """There is no address."""
        return UNIXAddress(None)

    def getHost(self) -> IAddress:
        """There is none here either."""
        return UNIXAddress(None)

    # ---- IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """A pull producer is asked whenever it has written; another is never told to wait."""
        if not streaming and not self._lost:
            self._producer = producer
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Whoever wrote here no longer asks."""
        self._producer = None

    # ---- IPushProducer

    def pauseProducing(self) -> None:
        """Give nothing until resumed."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Give what there is."""
        self._paused = False
        self._soon()

    def stopProducing(self) -> None:
        """Whoever took is gone."""
        self.loseConnection()


class SpeedOpener:
    """
    Reaches the source and the sink by the name that is reserved for them; all else is passed on.

    Where the name may not be reached, or the key's few are taken, it is refused like another.
    """

    def __init__(self, opener: Opener, clock: IReactorTime, guard: Guard) -> None:
        self._opener = opener
        self._clock = clock
        self._guard = guard
        self._of_key: Counter[str] = Counter()

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        target = request.target
        if target.host != NAME or request.kind is not Kind.TCP:
            return self._opener.open(request)
        refusal = self._refusal(request)
        if refusal is not None:
            return fail(request.refused(*refusal))
        self._of_key[request.key_id] += 1
        ended = partial(self._ended, request.key_id)
        return succeed(SpeedTransport(self._clock, target == SOURCE, ended))

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self._opener.associate(request)

    def _refusal(self, request: OpenRequest) -> tuple[Code, str] | None:
        if request.target not in (SINK, SOURCE):
            why = f"{NAME} has the ports {SINK.port} and {SOURCE.port} only"
            return Code.REFUSED_BY_TARGET, why
        if (said := self._guard.refusal_of_name(NAME, request)) is not None:
            return Code.NOT_ALLOWED, said
        if self._of_key[request.key_id] >= _MOST:
            return Code.TOO_MANY_STREAMS, f"{_MOST} of this key are there already; try again"
        return None

    def _ended(self, key_id: str) -> None:
        self._of_key[key_id] -= 1
        if not self._of_key[key_id]:
            del self._of_key[key_id]
