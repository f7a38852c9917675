"""One session on the reactor: its subflows, its turns, its one timer."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.logger import Logger

from stripetwist.core import events
from stripetwist.core.bucket import NEVER
from stripetwist.core.errors import Code, FramingError, ProtocolError
from stripetwist.core.frames import Checksum
from stripetwist.core.path import PLAIN, PathInfo
from stripetwist.core.progress import KernelView
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest
from stripetwist.core.traits import Traits
from stripetwist.net.association import Association
from stripetwist.net.ground import Ground
from stripetwist.net.opener import Opener
from stripetwist.net.streams import SessionStreams
from stripetwist.net.windows import Windowed, Windows


class Connection(Windowed, Protocol):
    """A subflow as the driver knows it: somewhere to write, something to end."""

    def send(self, data: bytes) -> None:
        """Write one batch."""

    def pace(self, batch: int) -> None:
        """It is given so many bytes at a time."""

    @property
    def window_decays(self) -> bool:
        """Whether its congestion window shrinks while it is idle."""

    @property
    def segment(self) -> int:
        """How many bytes its kernel puts into a packet; 0 if unknown."""

    def kernel_view(self) -> KernelView | None:
        """What the kernel knows of it, if it says."""

    def close(self) -> None:
        """End it in order, within a deadline."""

    def abort(self) -> None:
        """End it now."""


class SessionDriver:
    """
    One session on the reactor.

    Carries bytes between the core and its connections, and keeps its timer; its streams are
    in the hands of L{SessionStreams}.  Lives until the session is over; then every stream
    has been told, and C{ended} is called once.

    @ivar connections: the living subflows.
    @ivar label: what logs call it.
    @ivar last_error: why a subflow was last given up here, or that none is left; empty if neither.
    @ivar on_doubt: told of subflows that answer nothing, before they are given up.
    @ivar on_drained: told when the peer goes away to have an agent drained.
    @ivar on_change: told when a subflow came or went, or the peer goes away.
    """

    log = Logger()

    def __init__(
        self,
        session: Session,
        ground: Ground,
        ended: Callable[["SessionDriver", Code, str], None],
        label: str = "",
    ) -> None:
        self.session = session
        self.label = label
        self.last_error = ""
        self.connections: dict[int, Connection] = {}
        self.on_doubt: Callable[[int], None] = lambda subflow_id: None
        self.on_drained: Callable[[], None] = lambda: None
        self.on_change: Callable[[], None] = lambda: None
        self.started = ground.clock.seconds()
        self._ground = ground
        self._clock = ground.clock
        self._store = ground.store
        self._ended = ended
        self._paths: dict[int, str] = {}
        self._windows = Windows(session, self.connections)
        self._streams = SessionStreams(
            session, ground.clock, ground.limits, self.soon, self._windows.much_to_send, label
        )
        self._turn_comes: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._timer_at = NEVER
        self._turning = False
        self._is_over = False

    def serve(self, opener: Opener, key_id: str) -> None:
        """Reach what the peer asks for, on behalf of that key; without this it is refused."""
        self._streams.serve(self._ground, opener, key_id)

    def rename(self, label: str) -> None:
        """Be called something else in logs."""
        self.label = self._streams.label = label

    # ---- subflows call these

    def attach(
        self,
        subflow_id: int,
        connection: Connection,
        rtt: float | None,
        checksum: Checksum | None,
        replaces: int = 0,
        path: PathInfo = PLAIN,
    ) -> None:
        """
        A connection has joined.

        @param replaces: a subflow that it takes the place of.
        @param path: the path that it takes.
        @raise ProtocolError: with a number that was used before.
        """
        traits = Traits(checksum, connection.window_decays, connection.segment, path)
        self.session.subflow_up(subflow_id, self._clock.seconds(), rtt, traits)
        self.connections[subflow_id] = connection
        self._windows.joined(connection)
        self._paths[subflow_id] = path.label
        if (gone := self.connections.get(replaces)) is not None:
            gone.abort()
            self.connection_lost(replaces)
        self.turn()
        self.on_change()

    def received(self, subflow_id: int, pieces: Sequence[bytes]) -> None:
        """Bytes came on a connection; the one place where a peer's errors end."""
        now = self._clock.seconds()
        try:
            self.session.received(subflow_id, pieces, now)
        except FramingError as error:
            self._drop(subflow_id, error.reason)
        except ProtocolError as error:
            self.log.warn(
                "{label}: session closed, the peer broke the protocol: {reason}",
                label=self.label,
                reason=error.reason,
            )
            self.close(error.code, error.reason)
            return
        self._windows.look(subflow_id, now)
        self.soon()

    def drained(self, subflow_id: int) -> None:
        """A connection has given all it had to the kernel."""
        self.session.drained(subflow_id)
        self.soon()

    def drain(self, subflow_id: int) -> None:
        """A connection is to be closed soon: have both sides put nothing new onto it."""
        self.session.drain(subflow_id, self._clock.seconds())
        self.turn()

    def connection_lost(self, subflow_id: int) -> None:
        """A connection is gone."""
        if self.connections.pop(subflow_id, None) is not None:
            self._paths.pop(subflow_id, None)
            self._windows.forget(subflow_id)
            if not self.connections:
                self.last_error = "the last connection was lost"
            self.session.subflow_down(subflow_id, self._clock.seconds())
            self.turn()
            self.on_change()

    def _drop(self, subflow_id: int, reason: str) -> None:
        connection = self.connections.get(subflow_id)
        if connection is None:
            return
        if reason:
            self.log.info(
                "{label}: subflow {subflow} given up: {reason}",
                label=self.label,
                subflow=subflow_id,
                reason=reason,
            )
        connection.abort()
        self.connection_lost(subflow_id)
        if reason:
            self.last_error = f"subflow {subflow_id} was given up: {reason}"

    # ---- streams

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """Have the peer reach something; see L{Opener.open}."""
        return self._streams.open(request)

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """Have the peer make an association; see L{Associator.associate}."""
        return self._streams.associations.associate(request)

    @property
    def active(self) -> int:
        """How many streams there are, and are being opened by us."""
        return self._streams.active

    def has_room_for(self, key_id: str, most: int) -> bool:
        """Whether a key may open one more, of so many for all; see L{Tally}."""
        streams, limits = self._streams, self._ground.limits
        most = min(most or limits.max_streams, limits.max_streams)
        is_left = streams.held.has_room(key_id, most)
        return is_left and streams.opening.has_room(key_id, limits.max_opening)

    def ask(self) -> None:
        """Have the peer give a sign of life; the session's C{last_heard} will tell."""
        self.session.ask(self._clock.seconds())
        self.turn()

    @property
    def is_short(self) -> bool:
        """Whether its session stores more than its share."""
        return self.session.is_short

    @property
    def has_room(self) -> bool:
        """Whether its session stores less than that."""
        return self.session.has_room

    def hold(self) -> None:
        """It stores too much: read no more from local sockets."""
        self._streams.hold()

    def release(self) -> None:
        """It may store more again."""
        self._streams.release()
        self.session.room_again()
        self.turn()

    # ---- the turn

    def soon(self) -> None:
        """Have one turn for all that comes in this turn of the reactor."""
        if self._turn_comes is None and not self._turning and not self._is_over:
            self._turn_comes = self._clock.callLater(0, self.turn)

    def turn(self) -> None:
        """After any input: act on events, poll who can write, arm the timer."""
        if self._turning:
            return
        self._turning = True
        comes, self._turn_comes = self._turn_comes, None
        if comes is not None and comes.active():
            comes.cancel()
        try:
            self._act_on_events()
            while self._poll():
                self._act_on_events()
        finally:
            self._turning = False
        self._arm()

    def _poll(self) -> bool:
        """Give every subflow that can write its batch; whether there was one."""
        now = self._clock.seconds()
        polled = False
        for subflow_id in self.session.pollable(now):
            polled |= self._poll_one(subflow_id, now)
        return polled

    def _poll_one(self, subflow_id: int, now: float) -> bool:
        connection = self.connections.get(subflow_id)
        if connection is None:
            return False
        data = self.session.poll(subflow_id, now)
        if data:
            connection.send(b"".join(data))
        return bool(data)

    def _act_on_events(self) -> None:
        next_event = self.session.next_event
        while (event := next_event()) is not None:
            if not self._streams.happened(event):
                self._happened(event)
        self._store.check(self)

    def _happened(self, event: events.Event) -> None:
        match event:
            case events.SubflowDead(subflow_id, reason):
                self._drop(subflow_id, reason)
            case events.SubflowPaced(subflow_id, batch):
                if (connection := self.connections.get(subflow_id)) is not None:
                    connection.pace(batch)
            case events.SubflowDoubted(subflow_id):
                self.on_doubt(subflow_id)
            case events.SubflowSlow(subflow_id):
                self._look_at(subflow_id)
            case events.SubflowCold() | events.SubflowWarm():
                self._windows.happened(event)
            case events.PeerGoesAway(sentence, code):
                self.log.info("{label}: {sentence}", label=self.label, sentence=sentence)
                if code is Code.DRAINED:
                    self.on_drained()
                self.on_change()
            case events.SessionClosed(code, reason):
                self._over(code, reason)

    # ---- time

    def _arm(self) -> None:
        if self._timer_at <= self.session.no_deadline_before(self._clock.seconds()):
            return
        deadline = self.session.next_deadline()
        if deadline >= self._timer_at and self._timer is not None:
            return
        if deadline == NEVER:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        delay = max(0.0, deadline - self._clock.seconds())
        self._timer = self._clock.callLater(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        now = self._clock.seconds()
        if self.session.has_to_judge(now):
            self._ask_kernel(now)
            self.session.deadline_reached(now)
        self.turn()

    def _ask_kernel(self, now: float) -> None:
        for subflow_id in self.session.doubtful(now):
            if (view := self._view_of(subflow_id)) is not None:
                self.session.kernel_says(subflow_id, view, now)

    def _look_at(self, subflow_id: int) -> None:
        if (view := self._view_of(subflow_id)) is not None:
            self.session.seems_slow(subflow_id, view, self._clock.seconds())

    def _view_of(self, subflow_id: int) -> KernelView | None:
        connection = self.connections.get(subflow_id)
        return None if connection is None else connection.kernel_view()

    # ---- the end

    def go_away(self, sentence: str, code: Code = Code.GOING_AWAY) -> None:
        """Tell the peer to open no more streams."""
        self.session.go_away(sentence, code)
        self.turn()

    def close(self, code: Code, reason: str) -> None:
        """End the session: its streams break, the peer is told."""
        if self.session.closed:
            return
        words = self.session.close(code, reason)
        for subflow_id, data in words.items():
            if (connection := self.connections.get(subflow_id)) is not None:
                connection.send(data)
        self.turn()

    def finish(self, code: Code, reason: str) -> None:
        """End the session, of which the peer knows nothing (any more)."""
        self.session.finish(code, reason)
        self.turn()

    def _over(self, code: Code, reason: str) -> None:
        """The last event: nothing of the session is left but its connections."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._streams.stop()
        connections, self.connections = self.connections, {}
        for connection in connections.values():
            connection.close()
        self._store.leave(self)
        self._ended(self, code, reason)

    @property
    def is_idle(self) -> bool:
        """Whether it carries nothing, and nothing that it carried is still on its way out."""
        return self._streams.is_idle

    def snapshot(self) -> dict[str, Any]:
        """For people: see L{Session.snapshot}."""
        now = self._clock.seconds()
        seen: dict[str, Any] = self.session.snapshot(now)
        for subflow in seen["subflows"]:
            subflow.update(path=self._paths.get(subflow["id"]) or None, deaths=0, last_error="")
        return {"name": self.label, "age": now - self.started, **seen}
