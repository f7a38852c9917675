"""The dialing side: keeps K subflows to a server up, and the session they make."""

import random
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol as Shape

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTCP
from twisted.logger import Logger

from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.handshake import Established, Intent, Membership
from stripetwist.core.link import Link
from stripetwist.core.session import Session
from stripetwist.core.target import parse_host
from stripetwist.net import tls
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground
from stripetwist.net.opener import Opener
from stripetwist.net.place import Place
from stripetwist.net.redial import Redial

Address = IPv4Address | IPv6Address


class Resolves(Shape):
    """What a dialer needs of a L{stripetwist.net.resolver.Resolver}."""

    def resolve(self, name: str) -> Deferred[list[Address]]:
        """The addresses of a name; fails with L{OpenRefused}."""


class Dialer(Service):
    """
    Keeps K subflows to one server up for as long as it runs.

    Each place is dialed again after a pause that grows; the first to get through opens the
    session, the others join it.  When the session is over, a new one is opened; nothing of
    the old one is carried into it.  Stopping ends every dial and every connection.

    @ivar link: the server, and the key to it.
    @ivar creator: makes the TLS connections of the session; C{None} for those without TLS.
    @ivar driver: the session, once there is one.
    @ivar last_error: why the last dial came to nothing, a sentence.
    @ivar on_change: told when a subflow came or went, or the session ended.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTCP, ground: Ground, resolver: Resolves, link: Link
    ) -> None:
        """
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
        self._resolver = resolver
        self._membership: Membership | None = None
        self._opening: Place | None = None
        self._ready: deque[Place] = deque()
        self._queue: deque[Place] = deque()
        self._dialing: set[Place] = set()
        self._waiters: list[Deferred[Opener]] = []
        self._address: Address | None = None
        self._next_id = 1
        self._outage_since: float | None = None
        self._told = ""
        self._stopped: Deferred[None] | None = None
        self.creator: tls.ClientCreator | None = None
        redial = Redial(self.limits, random.random)
        self.places = [Place(self, redial) for _ in range(self.limits.subflows)]
        self._fresh_session()

    # ---- the service

    def startService(self) -> None:
        """Dial: two places at once, the others a little later."""
        super().startService()
        for number, place in enumerate(self.places):
            place.dial_after(max(0, number - 1) * self.limits.dial_spacing)

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        super().stopService()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self.driver is not None:
            self.driver.close(Code.GOING_AWAY, "the client was stopped")
        while self._waiters:
            self._fail(self._waiters[0], "the client is shutting down")
        for place in self.places:
            place.stop()
        self.left()
        return stopped

    def left(self) -> None:
        """A place may have nothing left to end."""
        stopped = self._stopped
        if stopped is not None and not stopped.called and all(p.is_over for p in self.places):
            stopped.callback(None)

    # ---- who wants a session

    def when_up(self) -> Deferred[Opener]:
        """
        The session's opener, once a subflow is up, within C{limits.session_wait}.

        A session without any may be one that the server has forgotten: what is opened now
        would be lost with it.  Fails with L{OpenRefused}.
        """
        if self.driver is not None and self.driver.connections:
            return succeed(self.driver)
        if self._stopped is not None:
            return fail(self._no_session("the client is shutting down"))
        waiter: Deferred[Opener] = Deferred(self._forget)
        self._waiters.append(waiter)
        timer = self.clock.callLater(self.limits.session_wait, self._fail, waiter, "")

        def settled(result: object) -> object:
            if timer.active():
                timer.cancel()
            return result

        waiter.addBoth(settled)
        return waiter

    def _forget(self, waiter: Deferred[Opener]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _fail(self, waiter: Deferred[Opener], why: str) -> None:
        self._forget(waiter)
        waiter.errback(self._no_session(why or self.last_error or "no answer yet"))

    def _no_session(self, why: str) -> OpenRefused:
        sentence = f"no connection to the server {self.link.address}: {why}"
        return OpenRefused(Code.NET_UNREACHABLE, sentence)

    # ---- places call these

    def may_dial(self, place: Place) -> bool:
        """Whether a handshake more may be under way; else it is called when one ends."""
        if self._stopped is not None:
            return False
        if len(self._dialing) >= self.limits.max_handshakes:
            self._queue.append(place)
            return False
        self._dialing.add(place)
        return True

    def done_dialing(self, place: Place) -> None:
        """A place's handshake is over, one way or the other: the next may begin."""
        self._dialing.discard(place)
        if place in self._ready:
            self._ready.remove(place)
        if self._opening is place:
            self._opening = None
        self._greet_next()
        while self._queue and len(self._dialing) < self.limits.max_handshakes:
            self._queue.popleft().dial()

    def find_address(self) -> Deferred[Address]:
        """The server's address: looked up anew for each session, the same within one."""
        if self._address is not None:
            return succeed(self._address)
        host = parse_host(self.link.host)
        if not isinstance(host, str):
            return succeed(host)
        return self._resolver.resolve(host).addCallback(self._keep_address)

    def _keep_address(self, addresses: list[Address]) -> Address:
        index = random.randrange(len(addresses)) if self.last_error else 0
        return addresses[index]

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
                place.replaces if self._membership is not None else 0,
            )
            self._next_id += 1
            place.greet(intent)

    def established(self, place: Place, who: Established, rtt: float) -> SessionDriver | None:
        """
        A place's connection has proved itself, and the server too.

        @return: the session that it belongs to; C{None} if that has ended meanwhile.
        """
        if who.is_new:
            self._open_session(who, place.address)
        driver, member = self.driver, self._membership
        if driver is None or member is None or who.session_id != member.session_id:
            return None
        assert place.subflow is not None
        checksum = self.ground.checksum if self.link.plain else None
        try:
            driver.attach(who.subflow_id, place.subflow, rtt, checksum)
        except ProtocolError:
            return None
        self._outage_since = None
        self.last_error = ""
        self.done_dialing(place)
        self._tell_waiters(driver)
        self.on_change()
        return driver

    def _open_session(self, who: Established, address: Address | None) -> None:
        budget = self.ground.store.budget
        session = Session(True, self.limits, budget, who.peer, self.clock.seconds())
        self._membership = Membership(who.session_id, who.session_secret)
        self._address = address
        self.driver = SessionDriver(session, self.ground, self._session_ended, self.link.address)

    def _tell_waiters(self, driver: SessionDriver) -> None:
        # One that is told may cancel another.
        while self._waiters:
            self._waiters.pop(0).callback(driver)

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
            self.on_change()

    def _fresh_session(self) -> None:
        self._membership = None
        self._address = None
        self._next_id = 1
        for place in self.places:
            place.replaces = 0
        if not self.link.plain:
            label = tls.session_label(self.ground.entropy)
            self.creator = tls.ClientCreator(self.link, label)

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

    def outage(self) -> float | None:
        """For how long none has been up, in seconds; C{None} while one is."""
        if self.is_alive():
            return None
        now = self.clock.seconds()
        if self._outage_since is None:
            self._outage_since = now
        return now - self._outage_since

    def failed(self, sentence: str) -> None:
        """A dial came to nothing; each reason is told once in a row."""
        if sentence:
            self.last_error = sentence
        if sentence not in ("", self._told) and self._stopped is None:
            self._told = sentence
            self.log.warn("{sentence}", sentence=sentence)

    def place_lost(self, worked: bool) -> None:
        """A subflow is gone; C{worked} if it was up for a while."""
        if worked:
            self._told = ""
        self.outage()
        self.on_change()

    # ---- for people

    def snapshot(self) -> list[dict[str, object]]:
        """The session, if there is one; with what its places went through."""
        if self.driver is None or self._membership is None:
            return []
        seen = self.driver.snapshot()
        places = {place.replaces: place for place in self.places}
        for subflow in seen["subflows"]:
            if (place := places.get(subflow["id"])) is not None:
                subflow.update(deaths=place.deaths, last_error=place.last_error)
        session_id = self._membership.session_id.hex()[:8]
        return [{"id": session_id, "key": self.link.key_id, "role": "client", **seen}]
