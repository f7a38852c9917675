"""The streams of one session on the reactor: as transports, and as opens under way."""

from collections.abc import Callable

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.logger import Logger

from stripetwist.core import events
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest, refusal_line
from stripetwist.net.association import Association
from stripetwist.net.datagrams import SessionAssociations
from stripetwist.net.ground import Ground
from stripetwist.net.opener import Opener
from stripetwist.net.relay import Parked
from stripetwist.net.serving import Serving
from stripetwist.net.tally import Tally
from stripetwist.net.transport import StreamTransport


class SessionStreams:
    """
    The streams of one session on the reactor.

    Gives each a transport, keeps who waits for the peer's answer, and hands what the peer
    asks for to an opener.  After anything that makes the session send it has the driver
    take its turn.

    @ivar label: what sentences and logs call the peer.
    @ivar held: whose those are that we have opened, or are opening.
    @ivar opening: whose the latter are.
    @ivar associations: the streams that carry datagrams; for these nobody waits at the end.
    """

    log = Logger()

    def __init__(
        self,
        session: Session,
        clock: IReactorTime,
        limits: Limits,
        turn: Callable[[], None],
        much_to_send: Callable[[], None],
        label: str,
    ) -> None:
        """
        @param turn: something may be to be sent.
        @param much_to_send: called with each write that leaves no room, where that is for
            what the peer would take and not for what it would not.
        """
        self.label = label
        self.held, self.opening = Tally(), Tally()
        self.associations = SessionAssociations(
            session, clock, limits, turn, self.held, self.opening
        )
        self._session = session
        self._piece = limits.batch_most
        self._turn = turn
        self._much_to_send = much_to_send
        self._transports: dict[int, StreamTransport] = {}
        self._opening: dict[int, Deferred[ITransport]] = {}
        self._serving: Serving | None = None
        self._address = UNIXAddress(None)

    def serve(self, ground: Ground, opener: Opener, key_id: str) -> None:
        """Reach what the peer asks for, on behalf of that key; without this it is refused."""
        self._serving = Serving(self, ground, opener, key_id)

    @property
    def is_idle(self) -> bool:
        """Whether there are none, and nothing that they carried is still on its way out."""
        serving = self._serving
        return not self._transports and not self._opening and (serving is None or serving.is_idle)

    @property
    def active(self) -> int:
        """How many there are, and are being opened by us."""
        return len(self._transports) + len(self._opening) + self.associations.active

    # ---- being opened

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """Have the peer reach something; see L{Opener.open}."""
        try:
            stream_id = self._session.open(request)
        except OpenRefused as refused:
            return fail(refused)
        opening: Deferred[ITransport] = Deferred(lambda _: self._cancel_open(stream_id))
        self._opening[stream_id] = opening
        self.held.add(stream_id, request.key_id)
        self.opening.add(stream_id, request.key_id)
        if request.at_once:
            self._opening.pop(stream_id).callback(self._parked(stream_id))
        self._turn()
        return opening

    def _cancel_open(self, stream_id: int) -> None:
        self._answered(stream_id)
        self.reset(stream_id, Code.CANCELLED)

    def _answered(self, stream_id: int) -> "Deferred[ITransport] | None":
        """Nobody waits for an answer any more; who did, if anybody."""
        self.opening.discard(stream_id)
        return self._opening.pop(stream_id, None)

    def accept(self, stream_id: int) -> ITransport:
        """See L{Asker.accept<stripetwist.net.serving.Asker.accept>}."""
        transport = self._parked(stream_id)
        self._session.accept(stream_id)
        self._turn()
        return transport

    def accept_association(self, stream_id: int) -> Association:
        """See L{Asker.accept_association<stripetwist.net.serving.Asker.accept_association>}."""
        return self.associations.accept(stream_id)

    def refuse(self, stream_id: int, code: Code, sentence: str) -> None:
        """See L{Asker.refuse<stripetwist.net.serving.Asker.refuse>}."""
        self._session.refuse(stream_id, code, sentence)
        self._turn()

    def _parked(self, stream_id: int) -> StreamTransport:
        transport = StreamTransport(stream_id, self, self._address, self._address, self._piece)
        self._transports[stream_id] = transport
        transport.protocol = parked = Parked()
        parked.makeConnection(transport)
        return transport

    # ---- their transports call these

    def room_left(self, stream_id: int) -> int:
        """See L{StreamOwner.room_left<stripetwist.net.transport.StreamOwner.room_left>}."""
        return self._session.room_left(stream_id)

    def write(self, stream_id: int, data: bytes) -> int:
        """See L{StreamOwner.write<stripetwist.net.transport.StreamOwner.write>}."""
        room = self._session.write(stream_id, data)
        if not room and self._session.has_much:
            self._much_to_send()
        self._turn()
        return room

    def end(self, stream_id: int) -> None:
        """See L{StreamOwner.end<stripetwist.net.transport.StreamOwner.end>}."""
        self._session.end(stream_id)
        self._turn()

    def reset(self, stream_id: int, code: Code) -> None:
        """See L{StreamOwner.reset<stripetwist.net.transport.StreamOwner.reset>}."""
        self._transports.pop(stream_id, None)
        self.held.discard(stream_id)
        self._session.reset(stream_id, code)
        self._turn()

    def stop_reading(self, stream_id: int) -> None:
        """See L{StreamOwner.stop_reading<stripetwist.net.transport.StreamOwner.stop_reading>}."""
        self._session.stop_reading(stream_id)
        self._turn()

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """See L{StreamOwner.take<stripetwist.net.transport.StreamOwner.take>}."""
        return self._session.take(stream_id, most)

    def consumed(self, stream_id: int, count: int) -> None:
        """See L{StreamOwner.consumed<stripetwist.net.transport.StreamOwner.consumed>}."""
        self._session.consumed(stream_id, count)
        self._turn()

    # ---- the driver calls these

    def hold(self) -> None:
        """The process's store is full."""
        for transport in list(self._transports.values()):
            transport.hold()

    def release(self) -> None:
        """It has room again."""
        for transport in list(self._transports.values()):
            transport.release()

    def happened(self, event: events.Event) -> bool:
        """Act on an event of the session; whether it was one of a stream."""
        match event:
            case events.StreamReadable(stream_id):
                if (transport := self._transports.get(stream_id)) is not None:
                    transport.readable()
                else:
                    self.associations.readable(stream_id)
            case events.DatagramArrived():
                self.associations.came(event)
            case events.StreamWritable(stream_id):
                if (transport := self._transports.get(stream_id)) is not None:
                    transport.has_room()
            case events.StreamFinished(stream_id):
                self._lost(stream_id, None)
            case events.StreamReset(stream_id, code):
                self._lost(stream_id, code)
            case _:
                return self._is_answered(event)
        return True

    def _is_answered(self, event: events.Event) -> bool:
        """Act on a question or an answer, if it is one."""
        match event:
            case events.StreamOpened(stream_id, request):
                self._asked(stream_id, request)
            case events.StreamAccepted(stream_id):
                if (opening := self._answered(stream_id)) is not None:
                    opening.callback(self._parked(stream_id))
                else:
                    self.associations.accepted(stream_id)
            case events.StreamRefused(stream_id, code, sentence):
                self._refused(stream_id, code, sentence)
                self._refused_late(stream_id, code, sentence)
            case _:
                return False
        return True

    def _asked(self, stream_id: int, request: OpenRequest) -> None:
        if self._serving is None:
            self.refuse(stream_id, Code.NOT_ALLOWED, "nothing is reached through a client")
        else:
            self._serving.opened(stream_id, request)

    def _refused(self, stream_id: int, code: Code, sentence: str) -> None:
        self.held.discard(stream_id)
        refusal = OpenRefused(code, sentence)
        if (opening := self._answered(stream_id)) is not None:
            opening.errback(refusal)
        else:
            self.associations.refused(stream_id, refusal)

    def _refused_late(self, stream_id: int, code: Code, sentence: str) -> None:
        """Whoever asked has been given its stream already."""
        if (transport := self._transports.pop(stream_id, None)) is not None:
            self.log.info("{line}", line=refusal_line(sentence))
            transport.lost(code)

    def _lost(self, stream_id: int, code: Code | None) -> None:
        if self._serving is not None:
            self._serving.lost(stream_id)
        sentence = f"the connection to {self.label} was lost before it answered; try again"
        self._refused(stream_id, Code.GENERAL, sentence)
        if (transport := self._transports.pop(stream_id, None)) is not None:
            transport.lost(code)
        self.associations.lost(stream_id, code)

    def stop(self) -> None:
        """The session is over: whoever has not been told yet is."""
        if self._serving is not None:
            self._serving.stop()
        for stream_id in [*self._opening, *self._transports, *self.associations.ids]:
            self._lost(stream_id, Code.SESSION_LOST)
