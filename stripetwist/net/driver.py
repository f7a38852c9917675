"""One session on the reactor: its subflows, its streams, its one timer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core import events
from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.errors import Code, FramingError, OpenRefused, ProtocolError
from stripetwist.core.frames import Checksum
from stripetwist.core.session import Session
from stripetwist.core.subflow import NEVER
from stripetwist.core.target import OpenRequest
from stripetwist.net import relay
from stripetwist.net.opener import Opener
from stripetwist.net.transport import StreamTransport


class Connection(Protocol):
    """A subflow as the driver knows it: somewhere to write, something to end."""

    def send(self, data: bytes) -> None:
        """Write one batch."""

    def close(self) -> None:
        """End it in order, within a deadline."""

    def abort(self) -> None:
        """End it now."""


class Store:
    """
    The outgoing bytes of all sessions of a process, and those who have to wait for room.

    Above the budget's share every local socket is paused, whichever session it feeds.
    """

    def __init__(self, limits: Limits) -> None:
        self.budget = MemoryBudget(limits)
        self._drivers: set[SessionDriver] = set()
        self._full = False

    def add(self, driver: "SessionDriver") -> None:
        """One more session."""
        self._drivers.add(driver)

    def remove(self, driver: "SessionDriver") -> None:
        """One less."""
        self._drivers.discard(driver)
        self.check()

    def check(self) -> None:
        """Bytes came or went: hold or release everybody if that crossed a mark."""
        if not self._full and self.budget.store_is_full:
            self._full = True
            for driver in list(self._drivers):
                driver.hold()
        elif self._full and self.budget.store_has_room:
            self._full = False
            for driver in list(self._drivers):
                driver.release()


@dataclass(frozen=True, slots=True)
class Ground:
    """
    What all sessions of a process stand on.

    @ivar entropy: that many random bytes, fit for keys.
    @ivar checksum: CRC32C, for connections without TLS.
    """

    clock: IReactorTime
    limits: Limits
    store: Store
    entropy: Callable[[int], bytes]
    checksum: Checksum


class SessionDriver:
    """
    One session on the reactor.

    Carries bytes between the core and its connections, keeps its timer, gives each stream a
    transport, and hands the streams that the peer opens to an opener.  Lives until the
    session is over; then every stream has been told, and C{ended} is called once.

    @ivar connections: the living subflows.
    @ivar label: what logs call it.
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
        self.connections: dict[int, Connection] = {}
        self.started = ground.clock.seconds()
        self._clock = ground.clock
        self._store = ground.store
        self._limits = ground.limits
        self._ended = ended
        self._opener: Opener | None = None
        self._key_id = ""
        self._transports: dict[int, StreamTransport] = {}
        self._opening: dict[int, Deferred[ITransport]] = {}
        self._reaching: dict[int, Deferred[ITransport]] = {}
        self._timer: IDelayedCall | None = None
        self._timer_at = NEVER
        self._turning = False
        self._address = UNIXAddress(None)
        self._store.add(self)

    def serve(self, opener: Opener, key_id: str) -> None:
        """Reach what the peer asks for, on behalf of that key; without this it is refused."""
        self._opener = opener
        self._key_id = key_id

    # ---- subflows call these

    def attach(
        self,
        subflow_id: int,
        connection: Connection,
        rtt: float | None,
        checksum: Checksum | None,
        replaces: int = 0,
    ) -> None:
        """
        A connection has joined.

        @raise ProtocolError: with a number that was used before.
        """
        self.session.subflow_up(subflow_id, self._clock.seconds(), rtt, checksum)
        self.connections[subflow_id] = connection
        if (gone := self.connections.get(replaces)) is not None:
            gone.abort()
            self.connection_lost(replaces)
        self.turn()

    def received(self, subflow_id: int, data: bytes) -> None:
        """Bytes came on a connection; the one place where a peer's errors end."""
        try:
            self.session.received(subflow_id, data, self._clock.seconds())
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
        self.turn()

    def drained(self, subflow_id: int) -> None:
        """A connection has given all it had to the kernel."""
        session = self.session
        session.drained(subflow_id)
        if self._turning:
            return
        data = session.poll(subflow_id, self._clock.seconds())
        if data:
            self.connections[subflow_id].send(b"".join(data))
        self.turn()

    def connection_lost(self, subflow_id: int) -> None:
        """A connection is gone."""
        if self.connections.pop(subflow_id, None) is not None:
            self._guarded(lambda: self.session.subflow_down(subflow_id, self._clock.seconds()))

    def _drop(self, subflow_id: int, reason: str) -> None:
        connection = self.connections.get(subflow_id)
        if connection is not None:
            self.log.info(
                "{label}: subflow {subflow} given up: {reason}",
                label=self.label,
                subflow=subflow_id,
                reason=reason,
            )
            connection.abort()
            self.connection_lost(subflow_id)

    # ---- streams

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """
        Have the peer reach something; see L{Opener.open}.
        """
        try:
            stream_id = self.session.open(request)
        except OpenRefused as refused:
            failed: Deferred[ITransport] = Deferred()
            failed.errback(Failure(refused))
            return failed
        except ProtocolError as error:
            self.close(error.code, error.reason)
            failed = Deferred()
            failed.errback(Failure(OpenRefused(Code.OVERLOAD, "too much is queued already")))
            return failed
        opening: Deferred[ITransport] = Deferred(lambda _: self._cancel_open(stream_id))
        self._opening[stream_id] = opening
        self.turn()
        return opening

    def _cancel_open(self, stream_id: int) -> None:
        self._opening.pop(stream_id, None)
        self.reset(stream_id, Code.CANCELLED)

    def _transport(self, stream_id: int) -> StreamTransport:
        transport = StreamTransport(stream_id, self, self._address, self._address)
        self._transports[stream_id] = transport
        return transport

    def write(self, stream_id: int, data: bytes) -> bool:
        """See L{StreamOwner.write}."""
        room = self.session.write(stream_id, data)
        self._store.check()
        self.turn()
        return room

    def end(self, stream_id: int) -> None:
        """See L{StreamOwner.end}."""
        self.session.end(stream_id)
        self.turn()

    def reset(self, stream_id: int, code: Code) -> None:
        """See L{StreamOwner.reset}."""
        self._transports.pop(stream_id, None)
        self._guarded(lambda: self.session.reset(stream_id, code))

    def stop_reading(self, stream_id: int) -> None:
        """See L{StreamOwner.stop_reading}."""
        self._guarded(lambda: self.session.stop_reading(stream_id))

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """See L{StreamOwner.take}."""
        return self.session.take(stream_id, most)

    def consumed(self, stream_id: int, count: int) -> None:
        """See L{StreamOwner.consumed}."""
        self.session.consumed(stream_id, count)
        self.turn()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do what queues a control frame; a queue that is full ends the session."""
        try:
            act()
        except ProtocolError as error:
            self.close(error.code, error.reason)
            return
        self.turn()

    # ---- room

    def hold(self) -> None:
        """The process's store is full."""
        for transport in list(self._transports.values()):
            transport.hold()

    def release(self) -> None:
        """It has room again."""
        for transport in list(self._transports.values()):
            transport.release()
        self.session.room_again()
        self.turn()

    # ---- the turn

    def turn(self) -> None:
        """After any input: act on events, poll who can write, arm the timer."""
        if self._turning:
            return
        self._turning = True
        broken: ProtocolError | None = None
        try:
            self._act_on_events()
            while self._poll():
                self._act_on_events()
        except ProtocolError as error:
            broken = error
        finally:
            self._turning = False
        if broken is not None:
            self.close(broken.code, broken.reason)
        else:
            self._arm()

    def _poll(self) -> bool:
        session, now = self.session, self._clock.seconds()
        polled = False
        for subflow_id in session.pollable(now):
            data = session.poll(subflow_id, now)
            connection = self.connections.get(subflow_id)
            if data and connection is not None:
                polled = True
                connection.send(b"".join(data))
        return polled

    def _act_on_events(self) -> None:
        next_event = self.session.next_event
        while (event := next_event()) is not None:
            self._act_on(event)
        self._store.check()

    def _act_on(self, event: events.Event) -> None:
        match event:
            case events.StreamReadable(stream_id):
                if (transport := self._transports.get(stream_id)) is not None:
                    transport.readable()
            case events.StreamWritable(stream_id):
                if (transport := self._transports.get(stream_id)) is not None:
                    transport.has_room()
            case events.StreamFinished(stream_id):
                self._stream_lost(stream_id, None)
            case events.StreamReset(stream_id, code):
                self._stream_lost(stream_id, code)
            case events.StreamOpened(stream_id, request):
                self._peer_opens(stream_id, request)
            case events.StreamAccepted(stream_id):
                self._accepted(stream_id)
            case events.StreamRefused(stream_id, code, sentence):
                self._refused(stream_id, code, sentence)
            case _:
                self._act_on_rare(event)

    def _act_on_rare(self, event: events.Event) -> None:
        match event:
            case events.SubflowDead(subflow_id, reason):
                connection = self.connections.pop(subflow_id, None)
                if connection is not None:
                    self.log.info(
                        "{label}: subflow {subflow} given up: {reason}",
                        label=self.label,
                        subflow=subflow_id,
                        reason=reason,
                    )
                    connection.abort()
            case events.PeerGoesAway(sentence):
                self.log.info("{label}: {sentence}", label=self.label, sentence=sentence)
            case events.SessionClosed(code, reason):
                self._over(code, reason)

    def _stream_lost(self, stream_id: int, code: Code | None) -> None:
        if (opening := self._opening.pop(stream_id, None)) is not None:
            opening.errback(OpenRefused(Code.GENERAL, "the connection to the server was lost"))
        if (reaching := self._reaching.pop(stream_id, None)) is not None:
            reaching.cancel()
        if (transport := self._transports.pop(stream_id, None)) is not None:
            transport.lost(code)

    def _accepted(self, stream_id: int) -> None:
        opening = self._opening.pop(stream_id, None)
        if opening is not None:
            opening.callback(self._parked(stream_id))

    def _parked(self, stream_id: int) -> StreamTransport:
        transport = self._transport(stream_id)
        transport.protocol = parked = relay.Parked()
        parked.makeConnection(transport)
        return transport

    def _refused(self, stream_id: int, code: Code, sentence: str) -> None:
        opening = self._opening.pop(stream_id, None)
        if opening is not None:
            opening.errback(OpenRefused(code, sentence))

    # ---- streams that the peer opens

    def _peer_opens(self, stream_id: int, request: OpenRequest) -> None:
        if self._opener is None:
            self.session.refuse(stream_id, Code.NOT_ALLOWED, "nothing can be reached through us")
            return
        if len(self._reaching) >= self._limits.max_opening:
            self.session.refuse(
                stream_id, Code.TOO_MANY_STREAMS, "too many streams are being opened there"
            )
            return
        own = OpenRequest(request.target, request.kind, request.exit, self._key_id)
        reaching = self._opener.open(own)
        self._reaching[stream_id] = reaching
        reaching.addCallbacks(
            self._reached, self._not_reached, callbackArgs=(stream_id,), errbackArgs=(stream_id,)
        )

    def _reached(self, far: Any, stream_id: int) -> None:
        if self._reaching.pop(stream_id, None) is None:
            far.abortConnection()
            return
        near = self._parked(stream_id)
        self._guarded(lambda: self.session.accept(stream_id))
        relay.couple(near, far, clock=self._clock, limits=self._limits)

    def _not_reached(self, failure: Failure, stream_id: int) -> None:
        if self._reaching.pop(stream_id, None) is None:
            return
        if isinstance(failure.value, OpenRefused):
            code, sentence = failure.value.code, failure.value.sentence
        else:
            code, sentence = Code.GENERAL, "it could not be reached, for a reason of the server's"
            if not failure.check(CancelledError):
                self.log.failure("{label}: an open failed", failure, label=self.label)
        self._guarded(lambda: self.session.refuse(stream_id, code, sentence))

    # ---- time

    def _arm(self) -> None:
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
        if self.session.next_deadline() <= now:
            self._guarded(lambda: self.session.deadline_reached(now))
        else:
            self.turn()

    # ---- the end

    def go_away(self, sentence: str) -> None:
        """Tell the peer to open no more streams."""
        self._guarded(lambda: self.session.go_away(sentence))

    def close(self, code: Code, reason: str) -> None:
        """End the session: its streams break, the peer is told."""
        if self.session.closed:
            return
        words = self.session.close(code, reason)
        for subflow_id, data in words.items():
            if (connection := self.connections.get(subflow_id)) is not None:
                connection.send(data)
        self.turn()

    def _over(self, code: Code, reason: str) -> None:
        """The last event: nothing of the session is left but its connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream_id in list(self._reaching) + list(self._opening):
            self._stream_lost(stream_id, Code.SESSION_LOST)
        connections, self.connections = self.connections, {}
        for connection in connections.values():
            connection.close()
        self._store.remove(self)
        self._ended(self, code, reason)

    @property
    def is_idle(self) -> bool:
        """Whether it carries nothing."""
        return not self._transports and not self._opening and not self._reaching

    def snapshot(self) -> dict[str, object]:
        """For people: see L{Session.snapshot}."""
        now = self._clock.seconds()
        return {"name": self.label, "age": now - self.started, **self.session.snapshot(now)}
