"""The server's side of every connection: who comes in, and to which session."""

import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.errors import Code, ProtocolError, printable
from stripetwist.core.handshake import AcceptorHandshake, Established, Membership
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.session import Session
from stripetwist.net import sockets, tls
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground
from stripetwist.net.keystore import KeyStore
from stripetwist.net.opener import Opener
from stripetwist.net.subflow import SubflowProtocol

_NO_BINDING = bytes(32)
_ROLES = {Role.CLIENT: "client", Role.AGENT: "agent"}

Entropy = Callable[[int], bytes]


@dataclass(slots=True)
class _Member:
    """A session that lives here, and who opened it."""

    driver: SessionDriver
    membership: Membership
    key_id: str


class Door:
    """
    What hellos are checked against: the keys, and the sessions that live.

    @ivar instance: 16 bytes, new at each start.
    @ivar sessions: by id.
    """

    def __init__(self, keys: KeyStore, entropy: Entropy) -> None:
        self._keys = keys
        self._unknown = entropy(32)
        self.instance = entropy(16)
        self.sessions: dict[bytes, _Member] = {}

    def key(self, key_id: str) -> bytes:
        """The secret of a key; of an unknown one, something that nobody can know."""
        known = self._keys.lookup(key_id, datetime.now(UTC))
        if known is not None:
            return known.secret
        return hmac.digest(self._unknown, key_id.encode("utf-8", "replace"), "sha256")

    def role_is_allowed(self, key_id: str, role: Role) -> bool:
        """Whether the key is known, valid now, and for that role."""
        known = self._keys.lookup(key_id, datetime.now(UTC))
        return known is not None and known.role == _ROLES[role]

    def session(self, session_id: bytes, key_id: str) -> Membership | None:
        """The session of that id, if that key opened it."""
        member = self.sessions.get(session_id)
        if member is None or member.key_id != key_id:
            return None
        return member.membership


class Arrival:
    """
    One connection from its accept until it has proved itself, or not in time.

    Keeps a message at most, and one timer that bytes do not reset.
    """

    log = Logger()

    def __init__(self, acceptor: "Acceptor", source: str) -> None:
        self._acceptor = acceptor
        self._source = source
        self._subflow: SubflowProtocol | None = None
        self._handshake: AcceptorHandshake | None = None
        self._answered_at = 0.0
        self._done = False
        self._said = False
        self._timer: IDelayedCall | None = None

    def begin(self, subflow: SubflowProtocol) -> None:
        """The connection was accepted."""
        self._subflow = subflow
        self._set_timer(self._acceptor.limits.tls_timeout, "no TLS handshake in time")

    def _set_timer(self, delay: float, reason: str) -> None:
        self._cancel_timer()
        self._timer = self._acceptor.clock.callLater(delay, self._too_late, reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _too_late(self, reason: str) -> None:
        self._timer = None
        self._refuse(reason)

    def _refuse(self, reason: str, reply: bytes = b"") -> None:
        """Close the connection, with one line in the log."""
        self._done = True
        self._say(reason)
        assert self._subflow is not None
        if reply:
            self._subflow.send(reply)
            self._subflow.close()
        else:
            self._subflow.abort()

    def _say(self, reason: str) -> None:
        if not self._said:
            self._said = True
            key_id = self._handshake.key_id if self._handshake is not None else ""
            self.log.info(
                "{source} not let in{as_whom}: {reason}",
                source=self._source,
                as_whom=f' as "{key_id}"' if key_id else "",
                reason=reason,
            )

    def secured(self, subflow: SubflowProtocol) -> None:
        """TLS is up: wait for the hello."""
        acceptor = self._acceptor
        if subflow.is_tls:
            connection = subflow.transport.getHandle()
            try:
                tls.check_protocol(connection)
            except tls.PeerRejected as error:
                self._refuse(error.sentence)
                return
            binding = tls.exporter(connection)
        else:
            self.begin(subflow)
            binding = _NO_BINDING
        self._handshake = AcceptorHandshake(
            acceptor.door, binding, acceptor.limits, acceptor.ground.entropy, not subflow.is_tls
        )
        self._set_timer(acceptor.limits.proof_timeout, "no proof of a key in time")

    def greeted(self, data: bytes) -> None:
        """Bytes of the hello came."""
        if self._done or self._handshake is None or self._subflow is None:
            return
        try:
            reply, established = self._handshake.feed(data)
        except Rejected as error:
            self._refuse(error.reason, error.reply)
            return
        if reply:
            self._answered_at = self._acceptor.clock.seconds()
            self._subflow.send(reply)
        if established is not None:
            self._done = True
            self._cancel_timer()
            self._admit(self._subflow, established, self._handshake.rest)

    def _admit(self, subflow: SubflowProtocol, established: Established, rest: bytes) -> None:
        rtt = self._acceptor.clock.seconds() - self._answered_at
        try:
            driver = self._acceptor.admit(subflow, established, rtt)
        except Rejected as error:
            self._refuse(error.reason, error.reply)
            return
        self._acceptor.proved(self)
        subflow.start(driver, established.subflow_id)
        if rest:
            driver.received(established.subflow_id, rest)

    def is_last_word(self, data: bytes) -> bool:
        """Only a dialer gets one."""
        return False

    def lost(self, subflow: SubflowProtocol, reason: Failure) -> None:
        """The connection is gone."""
        self._cancel_timer()
        self._acceptor.departed(self, subflow)
        if not self._done:
            why = (
                tls.tls_sentence(cast(BaseException, reason.value), "it")
                if self._handshake is None
                else ""
            )
            self._say(printable(why, 120) if why else "it left without a proof of its key")
        self._done = True

    @property
    def source(self) -> str:
        """The address it came from."""
        return self._source


class Acceptor(Factory[SubflowProtocol]):
    """
    Lets connections in that prove a key, and keeps the sessions they belong to.

    Connections that have proved nothing are capped, in all and per source; the surplus is
    closed at once.

    @ivar door: keys and sessions.
    """

    log = Logger()

    def __init__(self, ground: Ground, keys: KeyStore, opener: Opener) -> None:
        self.ground = ground
        self.clock = ground.clock
        self.limits = ground.limits
        self.door = Door(keys, ground.entropy)
        self._opener = opener
        self._subflows: set[SubflowProtocol] = set()
        self._unproved: dict[Arrival, str] = {}
        self._by_source: Counter[str] = Counter()
        self._stopping: Deferred[None] | None = None
        self._leaving = False
        self.turned_away = 0

    def doStart(self) -> None:
        """Silent: the tap says what listens."""

    def doStop(self) -> None:
        """Silent too."""

    # ---- connections

    def buildProtocol(self, addr: IAddress | None) -> SubflowProtocol | None:
        """A protocol for a new connection, unless too many have proved nothing yet."""
        source = str(getattr(addr, "host", "local"))
        limits = self.limits
        if (
            self._stopping is not None
            or len(self._unproved) >= limits.max_unauthenticated
            or self._by_source[source] >= limits.max_unauthenticated_per_source
        ):
            self.turned_away += 1
            return None
        arrival = Arrival(self, source)
        subflow = SubflowProtocol(arrival, self.clock, limits)
        arrival.begin(subflow)
        self._unproved[arrival] = source
        self._by_source[source] += 1
        self._subflows.add(subflow)
        return subflow

    def proved(self, arrival: Arrival) -> None:
        """A connection no longer counts as unknown."""
        source = self._unproved.pop(arrival, None)
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def departed(self, arrival: Arrival, subflow: SubflowProtocol) -> None:
        """A connection is gone."""
        self.proved(arrival)
        self._subflows.discard(subflow)
        self._check_stopped()

    # ---- sessions

    def admit(self, subflow: SubflowProtocol, who: Established, rtt: float) -> SessionDriver:
        """
        Put a connection that has proved itself where it belongs.

        @raise Rejected: there is no room, or its session went away meanwhile.
        """
        if self._leaving and who.is_new:
            raise Rejected(Code.GOING_AWAY, "the server is shutting down")
        raw = getattr(subflow.raw, "socket", None)
        if raw is not None:
            sockets.prepare(raw)
        if who.is_new:
            member = self._new_session(who)
        elif (found := self.door.sessions.get(who.session_id)) is not None:
            member = found
        else:
            raise Rejected(Code.UNKNOWN_SESSION, "its session has just ended")
        driver = member.driver
        if len(driver.connections) >= self.limits.max_subflows and not who.replaces:
            raise Rejected(Code.BUSY, "that session has as many connections as it may have")
        try:
            checksum = None if subflow.is_tls else self.ground.checksum
            driver.attach(who.subflow_id, subflow, rtt, checksum, who.replaces)
        except ProtocolError as error:
            raise Rejected(error.code, error.reason) from None
        return driver

    def _new_session(self, who: Established) -> _Member:
        budget = self.ground.store.budget
        session = Session(False, self.limits, budget, who.peer, self.clock.seconds())
        driver = SessionDriver(session, self.ground, self._session_ended, who.key_id)
        driver.serve(self._opener, who.key_id)
        member = _Member(driver, Membership(who.session_id, who.session_secret), who.key_id)
        self.door.sessions[who.session_id] = member
        self.log.info("{key}: session opened", key=who.key_id)
        return member

    def _session_ended(self, driver: SessionDriver, code: Code, reason: str) -> None:
        for session_id, member in list(self.door.sessions.items()):
            if member.driver is driver:
                del self.door.sessions[session_id]
        self.log.info("{key}: session over: {reason}", key=driver.label, reason=reason)

    def end_sessions_of(self, key_ids: set[str]) -> None:
        """Their keys are no longer good: close them."""
        for member in list(self.door.sessions.values()):
            if member.key_id in key_ids:
                member.driver.close(Code.AUTH, "its key was revoked")

    # ---- the end

    def leave(self) -> None:
        """Take no new sessions and tell the others to open no more streams."""
        self._leaving = True
        for member in list(self.door.sessions.values()):
            member.driver.go_away("the server is shutting down")

    @property
    def is_idle(self) -> bool:
        """Whether no stream is carried."""
        return all(member.driver.is_idle for member in self.door.sessions.values())

    def stop(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        for member in list(self.door.sessions.values()):
            member.driver.close(Code.GOING_AWAY, "the server was stopped")
        stopping: Deferred[None] = Deferred()
        self._stopping = stopping
        for subflow in list(self._subflows):
            subflow.close()
        self._check_stopped()
        return stopping

    def _check_stopped(self) -> None:
        if self._stopping is not None and not self._subflows:
            stopping, self._stopping = self._stopping, succeed(None)
            if not stopping.called:
                stopping.callback(None)

    def snapshot(self) -> list[dict[str, object]]:
        """The sessions, for people."""
        return [
            {"id": session_id.hex()[:8], "key": m.key_id, "role": "client", **m.driver.snapshot()}
            for session_id, m in self.door.sessions.items()
        ]
