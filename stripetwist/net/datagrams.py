"""The associations of one session on the reactor."""

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.events import DatagramArrived
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.association import Association, Receiver
from stripetwist.net.tally import Tally

_READ = 64 * 1024
_NO_ROOM = "this key has its share of the UDP associations there; end some, or try again"


class SessionAssociation:
    """
    One association through a session: see L{Association}.

    @ivar receiver: who gets what comes.
    """

    def __init__(self, stream_id: int, owner: "SessionAssociations") -> None:
        self.receiver: Receiver | None = None
        self._stream_id = stream_id
        self._owner = owner

    def send(self, payload: bytes, peer: Target | None) -> None:
        """See L{Association.send}."""
        self._owner.send(self._stream_id, payload, peer)

    def close(self) -> None:
        """See L{Association.close}."""
        self.receiver = None
        self._owner.close(self._stream_id)

    def came(self, payload: bytes, peer: Target | None) -> None:
        """The peer has sent one."""
        if self.receiver is not None:
            self.receiver.datagram_came(payload, peer)

    def lost(self, code: Code | None) -> None:
        """It is over."""
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.association_lost(code)


class SessionAssociations:
    """
    The associations of one session on the reactor.

    Each lives on a stream whose bytes mean nothing and whose end is the association's.
    After anything that makes the session send it has the driver take its turn.
    """

    def __init__(
        self,
        session: Session,
        clock: IReactorTime,
        limits: Limits,
        turn: Callable[[], None],
        held: Tally,
        opening: Tally,
    ) -> None:
        """
        @param held: whose the streams are that we have opened, or are opening.
        @param opening: whose the latter are.
        """
        self._held, self._opened = held, opening
        self._session = session
        self._clock = clock
        self._most = limits.max_associations
        self._ours = Tally()
        self._turn = turn
        self._table: dict[int, SessionAssociation] = {}
        self._opening: dict[int, Deferred[Association]] = {}

    @property
    def active(self) -> int:
        """How many there are, and are being opened by us."""
        return len(self._table) + len(self._opening)

    @property
    def ids(self) -> list[int]:
        """Their streams."""
        return [*self._opening, *self._table]

    # ---- being opened

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """Have the peer make one; see L{Associator.associate}."""
        if request.key_id and not self._ours.has_room(request.key_id, self._most):
            return fail(request.refused(Code.OVERLOAD, _NO_ROOM))
        try:
            stream_id = self._session.open(request)
        except OpenRefused as refused:
            return fail(refused)
        opening: Deferred[Association] = Deferred(lambda _: self._cancel(stream_id))
        self._opening[stream_id] = opening
        self._held.add(stream_id, request.key_id)
        self._opened.add(stream_id, request.key_id)
        self._ours.add(stream_id, request.key_id)
        self._turn()
        return opening

    def _cancel(self, stream_id: int) -> None:
        self._opening.pop(stream_id, None)
        self._held.discard(stream_id)
        self._opened.discard(stream_id)
        self._ours.discard(stream_id)
        self._session.reset(stream_id, Code.CANCELLED)
        self._turn()

    def accept(self, stream_id: int) -> Association:
        """The far end of one that the peer asks for is bound."""
        association = self._table[stream_id] = SessionAssociation(stream_id, self)
        self._session.accept(stream_id)
        self._turn()
        return association

    # ---- they call these

    def send(self, stream_id: int, payload: bytes, peer: Target | None) -> None:
        """One is to leave."""
        if stream_id in self._table:
            self._session.send_datagram(stream_id, payload, peer, self._clock.seconds())
            self._turn()

    def close(self, stream_id: int) -> None:
        """Nobody here wants one any more; what it has sent last may still leave."""
        if self._table.pop(stream_id, None) is not None:
            self._session.end(stream_id)
            self._session.stop_reading(stream_id)
            self._turn()

    # ---- events

    def came(self, event: DatagramArrived) -> None:
        """The peer has sent one."""
        if (association := self._table.get(event.stream_id)) is not None:
            association.came(event.payload, event.peer)

    def accepted(self, stream_id: int) -> None:
        """The peer has made one."""
        if (opening := self._opening.pop(stream_id, None)) is not None:
            association = self._table[stream_id] = SessionAssociation(stream_id, self)
            opening.callback(association)

    def refused(self, stream_id: int, refusal: OpenRefused) -> None:
        """The peer will not, or no longer."""
        self._ours.discard(stream_id)
        if (opening := self._opening.pop(stream_id, None)) is not None:
            opening.errback(refusal)

    def readable(self, stream_id: int) -> None:
        """Bytes have come, which mean nothing, or the end."""
        if stream_id not in self._table:
            return
        data = b"-"
        while data:
            data, ended = self._session.take(stream_id, _READ)
            self._session.consumed(stream_id, len(data))
            if ended:
                self._session.end(stream_id)
                self.lost(stream_id, None)
        self._turn()

    def lost(self, stream_id: int, code: Code | None) -> None:
        """The stream is over."""
        if (association := self._table.pop(stream_id, None)) is not None:
            association.lost(code)
