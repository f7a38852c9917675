"""The server's side of every connection: who comes in, and to which session."""

import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, ITransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.handshake import Established, Membership
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest
from stripetwist.core.zones import plain
from stripetwist.net import sockets
from stripetwist.net.arrival import Arrival
from stripetwist.net.association import Association
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground
from stripetwist.net.keystore import KeyStore
from stripetwist.net.opener import Opener
from stripetwist.net.refusals import Refusals
from stripetwist.net.registry import Registry
from stripetwist.net.subflow import SubflowProtocol
from stripetwist.net.worker import AgentWorker

_ROLES = {Role.CLIENT: "client", Role.AGENT: "agent"}
# How many of a key's names a sentence tells.
_FEW = 3

Entropy = Callable[[int], bytes]


@dataclass(slots=True)
class _Member:
    """A session that lives here, and who opened it."""

    driver: SessionDriver
    membership: Membership
    key_id: str
    role: Role


class Door:
    """
    What hellos are checked against: the keys, and the sessions that live.

    @ivar instance: 16 bytes, new at each start.
    @ivar sessions: by id.
    """

    def __init__(self, keys: KeyStore, entropy: Entropy, look: Callable[[], None]) -> None:
        """
        @param look: have what has changed of the keys be known.
        """
        self._keys = keys
        self._look = look
        self._unknown = entropy(32)
        self.instance = entropy(16)
        self.sessions: dict[bytes, _Member] = {}
        self._expected: dict[bytes, tuple[Membership, str]] = {}

    def key(self, key_id: str) -> bytes:
        """The secret of a key; of an unknown one, something that nobody can know."""
        # It may have been added or changed this moment, and who is refused tries again late.
        self._look()
        known = self._keys.lookup(key_id, datetime.now(UTC))
        if known is not None:
            return known.secret
        return hmac.digest(self._unknown, key_id.encode("utf-8", "replace"), "sha256")

    def knows(self, key_id: str) -> bool:
        """Whether there is a key of that id, valid now."""
        return self._keys.lookup(key_id, datetime.now(UTC)) is not None

    def role_is_allowed(self, key_id: str, role: Role) -> bool:
        """Whether the key is known, valid now, and for that role."""
        known = self._keys.lookup(key_id, datetime.now(UTC))
        return known is not None and known.role == _ROLES[role]

    def may_be_called(self, key_id: str, name: str) -> bool:
        """Whether an agent with that key may take that name."""
        known = self._keys.lookup(key_id, datetime.now(UTC))
        if known is None or not known.allows_name(name):
            return False
        # What a key was made for no key for anything takes away.
        return name in known.names or not any(name in key.names for key in self._keys.keys())  # noqa: SIM118

    def names_of(self, key_id: str) -> str:
        """The names that a key is for, in words."""
        known = self._keys.lookup(key_id, datetime.now(UTC))
        return " or ".join(known.names[:_FEW]) if known is not None else ""

    def session(self, session_id: bytes, key_id: str) -> Membership | None:
        """The session of that id, if that key opened it."""
        member = self.sessions.get(session_id)
        if member is not None:
            return member.membership if member.key_id == key_id else None
        membership, opener_id = self._expected.get(session_id, (None, ""))
        return membership if opener_id == key_id else None

    def expect(self, membership: Membership, key_id: str) -> None:
        """
        A session has been offered: joins may be answered before its own proof has come.

        Connections overtake each other.  Nobody gains by it: only who opened it can join.
        """
        if membership.session_id not in self.sessions:
            self._expected[membership.session_id] = (membership, key_id)

    def expect_no_more(self, membership: Membership) -> None:
        """Its first connection is gone."""
        self._expected.pop(membership.session_id, None)


class RefusingOpener:
    """
    What agents may open here: nothing, which the log has once.

    @param who: says what the log calls the agent.
    """

    log = Logger()

    def __init__(self, who: Callable[[], str]) -> None:
        self._who = who
        self._told = False

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        return fail(self._refusal())

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return fail(self._refusal())

    def _refusal(self) -> OpenRefused:
        if not self._told:
            self._told = True
            self.log.warn("{who}: an agent asks for streams, and is refused", who=self._who())
        return OpenRefused(Code.NOT_ALLOWED, "an agent opens no streams; a client does")


class Acceptor(Factory[SubflowProtocol]):
    """
    Lets connections in that prove a key, and keeps the sessions they belong to.

    Connections that have proved nothing are capped, in all and per source; the surplus is
    closed at once.

    @ivar door: keys and sessions.
    @ivar registry: the agents among them.
    @ivar refusals: those who prove a key and are not let in.
    @ivar strangers: those who name a key that is not known.
    @ivar speechless: those who name none.
    @ivar turned_away: how many were closed at once.
    @ivar is_leaving: whether it takes no new sessions.
    """

    log = Logger()

    def __init__(self, ground: Ground, keys: KeyStore, opener: Opener) -> None:
        self.ground = ground
        self.clock = ground.clock
        self.limits = ground.limits
        self.door = Door(keys, ground.entropy, self.look_at_keys)
        self.registry = Registry(ground.clock, ground.limits)
        self.refusals = Refusals(ground.clock)
        self.strangers = Refusals(ground.clock)
        self.speechless = Refusals(ground.clock, self.limits.max_unauthenticated_per_source)
        self._keys = keys
        self._opener = opener
        self._arrivals: set[Arrival] = set()
        self._unproved: dict[Arrival, str] = {}
        self._by_source: Counter[str] = Counter()
        self._stopped: Deferred[None] | None = None
        self.is_leaving = False
        self.turned_away = 0

    def doStart(self) -> None:
        """Silent: the tap says what listens."""

    def doStop(self) -> None:
        """Silent too."""

    # ---- connections

    def buildProtocol(self, addr: IAddress | None) -> SubflowProtocol | None:
        """A protocol for a new connection, unless too many have proved nothing yet."""
        host = getattr(addr, "host", None)
        source = str(plain(ip_address(host))) if host else "local"
        limits = self.limits
        if (
            self._stopped is not None
            or len(self._unproved) >= limits.max_unauthenticated
            or self._by_source[source] >= limits.max_unauthenticated_per_source
        ):
            self.turned_away += 1
            return None
        arrival = Arrival(self, source)
        self._arrivals.add(arrival)
        self._unproved[arrival] = source
        self._by_source[source] += 1
        return arrival.subflow

    def proved(self, arrival: Arrival) -> None:
        """A connection no longer counts as unknown."""
        source = self._unproved.pop(arrival, None)
        if source is not None:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def departed(self, arrival: Arrival) -> None:
        """A connection is gone."""
        self.proved(arrival)
        self._arrivals.discard(arrival)
        self._check_stopped()

    # ---- sessions

    def admit(self, subflow: SubflowProtocol, who: Established, rtt: float) -> SessionDriver:
        """
        Put a connection that has proved itself where it belongs.

        @raise Rejected: there is no room, or its session went away meanwhile.
        """
        if self.is_leaving and who.is_new:
            raise Rejected(Code.GOING_AWAY, "the server is shutting down")
        if who.agent is not None and not self.door.may_be_called(who.key_id, who.agent.name):
            names = self.door.names_of(who.key_id)
            why = f"this key is not for an agent called {who.agent.name}; say --name {names}"
            if names == "*":
                why = f"another key is for the agent called {who.agent.name}; say another --name"
            raise Rejected(Code.NOT_ALLOWED, why)
        raw = getattr(subflow.raw, "socket", None)
        if raw is not None:
            sockets.prepare(raw, self.ground.pace)
        member = self._new_session(who) if who.is_new else self.door.sessions.get(who.session_id)
        if member is None:
            raise Rejected(Code.UNKNOWN_SESSION, "its session has just ended")
        driver = member.driver
        others = driver.connections.keys() - {who.replaces}
        if len(others) >= self.limits.max_subflows:
            raise Rejected(Code.BUSY, f"a session may have {self.limits.max_subflows} of them here")
        try:
            checksum = None if subflow.is_tls else self.ground.checksum()
            driver.attach(who.subflow_id, subflow, rtt, checksum, who.replaces, who.path)
        except ProtocolError as error:
            raise Rejected(error.code, error.reason) from None
        if who.agent is not None:
            may_be_called = partial(self.door.may_be_called, who.key_id)
            worker = AgentWorker(who.agent, driver, who.key_id, may_be_called)
            self.registry.arrived(worker)
        return driver

    def _new_session(self, who: Established) -> _Member:
        most = self.limits.max_sessions
        if sum(member.key_id == who.key_id for member in self.door.sessions.values()) >= most:
            raise Rejected(Code.BUSY, f"a key may have {most} sessions here")
        budget = self.ground.store.budget
        session = Session(False, self.limits, budget, who.peer, self.clock.seconds())
        driver = SessionDriver(session, self.ground, self._session_ended, who.key_id)
        opener: Opener = self._opener
        if who.role is Role.AGENT:
            opener = RefusingOpener(lambda: driver.label)
        driver.serve(opener, who.key_id)
        membership = Membership(who.session_id, who.session_secret)
        self.door.expect_no_more(membership)
        member = self.door.sessions[who.session_id] = _Member(
            driver, membership, who.key_id, who.role
        )
        self.log.info("{key}: session opened", key=who.key_id)
        return member

    def _session_ended(self, driver: SessionDriver, code: Code, reason: str) -> None:
        for session_id, member in list(self.door.sessions.items()):
            if member.driver is driver:
                del self.door.sessions[session_id]
        self.registry.left(driver)
        self.log.info("{key}: session over: {reason}", key=driver.label, reason=reason)

    def look_at_keys(self) -> None:
        """Take over what has changed of the keys, and close sessions whose keys have ended."""
        self.end_sessions_of(self._keys.reload_if_changed(datetime.now(UTC)))

    def end_sessions_of(self, key_ids: set[str]) -> None:
        """Their keys are no longer good: close them."""
        for member in list(self.door.sessions.values()):
            if member.key_id in key_ids:
                member.driver.close(Code.AUTH, "its key was revoked")

    # ---- the end

    def leave(self) -> None:
        """Take no new sessions and tell the others to open no more streams."""
        self.is_leaving = True
        for member in list(self.door.sessions.values()):
            member.driver.go_away("the server is shutting down")

    @property
    def is_idle(self) -> bool:
        """Whether no stream is carried."""
        return all(member.driver.is_idle for member in self.door.sessions.values())

    def stop(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self.refusals.stop()
        self.strangers.stop()
        self.speechless.stop()
        for member in list(self.door.sessions.values()):
            member.driver.close(Code.GOING_AWAY, "the server was stopped")
        for arrival in list(self._arrivals):
            arrival.subflow.close()
        self._check_stopped()
        return stopped

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not stopped.called and not self._arrivals:
            stopped.callback(None)

    def snapshot(self) -> list[dict[str, object]]:
        """The sessions, for people."""
        return [
            {
                "id": session_id.hex()[:8],
                "key": member.key_id,
                "role": _ROLES[member.role],
                **member.driver.snapshot(),
            }
            for session_id, member in self.door.sessions.items()
        ]
