"""The dialing side: keeps K subflows to a server up, and the session they make."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Protocol as Shape

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTCP
from twisted.logger import Logger

from stripetwist.core.agents import Agent
from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.handshake import Established, Intent, Membership
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.link import Link
from stripetwist.core.session import Session
from stripetwist.core.way import Way
from stripetwist.core.zones import Address
from stripetwist.net import tls
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground
from stripetwist.net.opener import Opener
from stripetwist.net.path import Path, all_down
from stripetwist.net.place import Place
from stripetwist.net.strength import Strength
from stripetwist.net.waiters import Waiters

# Whether the last stream has been finished, where somebody waits for that.
_LOOK_EVERY = 0.25
# Why a server that is up wants nothing new, by our role.
_LEAVES = {
    Role.CLIENT: "the server {} takes nothing new: it is shutting down",
    Role.AGENT: "the server {} asks for nothing new: it is shutting down, or drains this agent",
}
# Reasons that are not told twice.
_MOST_TOLD = 64


class Resolves(Shape):
    """What a dialer needs of a L{stripetwist.net.resolver.Resolver}."""

    def resolve(self, name: str) -> Deferred[list[Address]]:
        """The addresses of a name; fails with L{OpenRefused}."""


class Dialer(Service):
    """
    Keeps K subflows to one server up, over one or several paths, for as long as it runs.

    Each place is dialed again after a pause that grows; the first to get through opens the
    session, the others join it.  When the session is over, a new one is opened; nothing of
    the old one is carried into it.  A session that has not been used for a while keeps one
    subflow per path.  Stopping ends every dial and every connection.

    @ivar link: the server, and the key to it.
    @ivar creator: makes the TLS connections of the session; C{None} for those without TLS.
    @ivar driver: the session, once there is one.
    @ivar strength: how many subflows it is to have.
    @ivar last_error: why the last dial came to nothing, a sentence.
    @ivar on_change: told when a subflow came or went, or the session ended.
    @ivar on_session: given each session before anything comes on it.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTCP,
        ground: Ground,
        resolver: Resolves,
        link: Link,
        ways: Sequence[Way] = (Way(),),
        agent: Agent | None = None,
    ) -> None:
        """
        @param agent: what we say of ourselves, if we are one; the link is then an agent's.
        @raise StartupError: TLS cannot be had here.
        """
        self.reactor = reactor
        self.ground = ground
        self.clock = ground.clock
        self.limits = ground.limits
        self.link = link
        self.driver: SessionDriver | None = None
        self.last_error = ""
        self.on_change: Callable[[], None] = lambda: None
        self.on_session: Callable[[SessionDriver], None] = lambda driver: None
        self._agent = agent
        self.role = Role.CLIENT if agent is None else Role.AGENT
        self.resolver = resolver
        self._membership: Membership | None = None
        self._opening: Place | None = None
        self._ready: deque[Place] = deque()
        self._queue: deque[Place] = deque()
        self._dialing: set[Place] = set()
        self._waiters = Waiters(self.clock, self.limits.session_wait, self._no_session)
        self._next_id = 1
        self._outage_since: float | None = None
        self._told: dict[str, float] = {}
        self._stopped: Deferred[None] | None = None
        self.creator: tls.ClientCreator | None = None
        self._returning: IDelayedCall | None = None
        self.paths = [Path(self, way, number) for number, way in enumerate(ways)]
        self.strength = Strength(
            self.clock, self.limits, self.paths, lambda: self.driver, link.address
        )
        self._fresh_session()

    # ---- the service

    def startService(self) -> None:
        """Dial: two places at once, the others a little later."""
        super().startService()
        self.strength.start()

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        super().stopService()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self.driver is not None:
            self.driver.close(Code.GOING_AWAY, f"the {self._whoami} was stopped")
        self._waiters.dismiss()
        if self._returning is not None and self._returning.active():
            self._returning.cancel()
        self.strength.stop()
        self._check_stopped()
        return stopped

    def left(self, place: Place) -> None:
        """A place has stopped, and has nothing left to end."""
        place.path.left(place)
        self._check_stopped()

    @property
    def _whoami(self) -> str:
        return self.role.name.lower()

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not stopped.called and not self.places:
            stopped.callback(None)

    @property
    def places(self) -> list[Place]:
        """All of them, over the paths in turn."""
        return self.strength.places

    def _doubted(self, subflow_id: int) -> None:
        """A subflow answers nothing: have another ready."""
        for place in self.places:
            if place.is_up and place.last_id == subflow_id:
                place.path.doubt(place)

    # ---- who wants a session

    def when_up(self) -> Deferred[Opener]:
        """
        The session's opener, once a subflow is up, within C{limits.session_wait}.

        A session without any may be one that the server has forgotten: what is opened now
        would be lost with it.  Fails with L{OpenRefused}.
        """
        self.strength.used()
        if self.driver is not None and self.driver.connections:
            return succeed(self.driver)
        if self._stopped is not None:
            return fail(self._no_session())
        return self._waiters.add()

    def _no_session(self) -> OpenRefused:
        return OpenRefused(Code.NET_UNREACHABLE, self._why_none())

    def _why_none(self) -> str:
        """Why there is no session, a sentence."""
        why = self.last_error or "no answer yet"
        if self._stopped is not None:
            why = f"the {self._whoami} is shutting down"
        elif down := all_down(self.paths):
            return down
        where = self.link.address
        known = why.startswith((where, f"the server {where}"))
        return why if known else f"no connection to the server {where}: {why}"

    # ---- places call these

    def may_dial(self, place: Place) -> bool:
        """Whether a handshake more may be under way there; else it is called when one ends."""
        if self._stopped is not None:
            return False
        if not self._has_turn(place):
            self._queue.append(place)
            return False
        self._dialing.add(place)
        return True

    def _has_turn(self, place: Place) -> bool:
        """Whether one more may dial there: a path that only takes time has its share of that."""
        most = self.limits.max_handshakes
        of_path = sum(one.path is place.path for one in self._dialing)
        return len(self._dialing) < most and of_path < max(1, most // len(self.paths))

    def done_dialing(self, place: Place) -> None:
        """A place's handshake is over, one way or the other: the next may begin."""
        self._dialing.discard(place)
        if place in self._ready:
            self._ready.remove(place)
        if self._opening is place:
            self._opening = None
        self._greet_next()
        for waiting in list(self._queue):
            # A dial that fails at once may have been here meanwhile.
            if waiting in self._queue and self._has_turn(waiting):
                self._queue.remove(waiting)
                waiting.dial()

    def ready(self, place: Place) -> None:
        """A place's connection is up and waits to say what it is for."""
        self._ready.append(place)
        self._greet_next()

    def _greet_next(self) -> None:
        while self._ready and self._stopped is None:
            if self._membership is None:
                # The others wait until one has opened the session that they join.
                if self._opening is not None:
                    return
                self._opening = self._ready[0]
            place = self._ready.popleft()
            intent = Intent(
                self.link.key_id,
                self.link.secret,
                self._next_id,
                self._membership,
                place.last_id if self._membership is not None else 0,
                self.role,
                self._agent,
                place.path.info,
            )
            self._next_id += 1
            place.greet(intent)

    def established(self, place: Place, who: Established, rtt: float) -> SessionDriver | None:
        """
        A place's connection has proved itself, and the server too.

        @return: the session that it belongs to; C{None} if that has ended meanwhile.
        """
        if who.is_new:
            self._open_session(who)
        driver, member = self.driver, self._membership
        if driver is None or member is None or who.session_id != member.session_id:
            return None
        assert place.subflow is not None
        checksum = self.ground.checksum() if self.link.plain else None
        try:
            driver.attach(who.subflow_id, place.subflow, rtt, checksum, place.last_id, who.path)
        except ProtocolError:
            return None
        self._outage_since = None
        self.last_error = ""
        place.path.keep_address(place.address)
        is_back = place.path.established(place)
        if is_back and len(driver.connections) > 1:
            self.log.info("path {path} is back", path=place.path.label)
        self.done_dialing(place)
        self._waiters.tell(driver)
        self.on_change()
        return driver

    def _open_session(self, who: Established) -> None:
        budget = self.ground.store.budget
        session = Session(True, self.limits, budget, who.peer, self.clock.seconds())
        self._membership = Membership(who.session_id, who.session_secret)
        self.driver = SessionDriver(session, self.ground, self._session_ended, self.link.address)
        self.driver.on_doubt = self._doubted
        self.driver.on_drained = partial(self._finish, self.driver)
        self.strength.fresh_session()
        self.on_session(self.driver)

    def _session_ended(self, driver: SessionDriver, code: Code, reason: str) -> None:
        if self.driver is driver:
            self.driver = None
            self._fresh_session()
            if self._stopped is None:
                self.log.warn(
                    "session with {address} over: {reason}",
                    address=self.link.address,
                    reason=reason,
                )
                if code is Code.DRAINED and self._agent is not None:
                    self._stay_away()
            self.on_change()

    def _finish(self, driver: SessionDriver) -> None:
        """The server wants to do without us: tell it once nothing is left to be done."""
        if driver.is_idle:
            driver.go_away("nothing is left for the agent to do", Code.DRAINED)
        elif self.driver is driver and self._stopped is None:
            self._returning = self.clock.callLater(_LOOK_EVERY, self._finish, driver)

    def _stay_away(self) -> None:
        """The server wants to do without us: come back much later, should it live by then."""
        away = self.limits.drained_away
        for place in self.places:
            place.stop()
        self._returning = self.clock.callLater(away, self._return)
        self.last_error = (
            f"{self.link.address} has drained this agent, which dials again in "
            f"{away / 60:g} minutes; start it anew to have it back at once"
        )
        self.log.warn("{sentence}", sentence=self.last_error)

    def _return(self) -> None:
        self._outage_since = None
        self.strength.begin_again()

    def _fresh_session(self) -> None:
        self._membership = None
        self._next_id = 1
        for path in self.paths:
            path.fresh_session()
        if not self.link.plain:
            label = tls.session_label(self.ground.entropy)
            self.creator = tls.ClientCreator(self.link, label)

    def not_let_in(self, driver: SessionDriver, rejected: Rejected) -> None:
        """The session that we believed to have opened does not exist at the server."""
        if self.driver is driver:
            # The place tells why; that a session is over would be news to nobody.
            self.driver = None
            self._fresh_session()
        driver.finish(rejected.code, f"it was not let in: {rejected.reason}")
        self.on_change()

    def unknown_session(self, joined: Membership | None) -> None:
        """
        The server does not know the session that a connection was to join.

        It has restarted, unless others live: then that connection was ahead of the first.
        """
        driver = self.driver
        if driver is not None and joined is self._membership and not driver.connections:
            driver.finish(Code.SESSION_LOST, "the server does not know it any more")

    def is_alive(self) -> bool:
        """Whether any subflow is up."""
        return self.driver is not None and bool(self.driver.connections)

    @property
    def why_away(self) -> str:
        """Why no subflow is up, a sentence; empty if one is, or if that is not known yet."""
        return "" if self.is_alive() else all_down(self.paths) or self.last_error

    @property
    def is_welcome(self) -> bool:
        """Whether a subflow is up to a server that does not leave."""
        driver = self.driver
        return driver is not None and bool(driver.connections) and not driver.session.peer_leaves

    @property
    def why_unwelcome(self) -> str:
        """Why not, a sentence; empty if that is not known yet, or not so."""
        if self.is_alive() and not self.is_welcome:
            return _LEAVES[self.role].format(self.link.address)
        return self.why_away

    @property
    def is_able(self) -> bool:
        """Whether a stream can be asked for now: the server neither leaves nor is silent."""
        if self.driver is None or not self.is_welcome:
            return False
        session = self.driver.session
        silence = self.clock.seconds() - session.last_heard
        return not session.is_stalled or silence <= self.limits.dead_alive

    @property
    def is_drained(self) -> bool:
        """Whether it stays away since the server wants to do without it."""
        return self._returning is not None and self._returning.active()

    def outage(self) -> float | None:
        """For how long none has been up, in seconds; C{None} while one is."""
        if self.is_alive():
            return None
        now = self.clock.seconds()
        if self._outage_since is None:
            self._outage_since = now
        return now - self._outage_since

    def failed(self, sentence: str, path: Path) -> None:
        """A dial came to nothing; each reason is told once, until its path has worked."""
        if not sentence:
            return
        self.last_error = sentence
        is_known = self._told.get(sentence, -inf) > path.worked_at
        if not is_known and self._stopped is None:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[sentence] = self.clock.seconds()
            self.log.warn("{sentence}", sentence=sentence)

    def place_lost(self, path: Path, since: float | None) -> None:
        """
        A subflow is gone.

        @param since: when it came up, if it has worked: what was told before that may be again.
        """
        if since is not None:
            path.worked_at = max(path.worked_at, since)
        self.outage()
        self.on_change()

    # ---- for people

    def snapshot(self) -> list[dict[str, object]]:
        """The session, if there is one; with what its places went through."""
        if self.driver is None or self._membership is None:
            return []
        seen = self.driver.snapshot()
        places = {place.last_id: place for place in self.places if place.is_up}
        for subflow in seen["subflows"]:
            if (place := places.get(subflow["id"])) is not None:
                subflow.update(deaths=place.deaths)
        session_id = self._membership.session_id.hex()[:8]
        return [{"id": session_id, "key": self.link.key_id, "role": self._whoami, **seen}]
