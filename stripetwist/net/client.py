"""The client side as one service: a dialer, and the ports that use its session."""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from stripetwist.core.address import Address
from stripetwist.core.link import Link
from stripetwist.core.way import Way
from stripetwist.net import sockets
from stripetwist.net.dialer import Dialer
from stripetwist.net.driver import SessionDriver
from stripetwist.net.files import StartupError
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.fronts import Front, Fronts, place_of
from stripetwist.net.ground import Ground
from stripetwist.net.opener import SessionOpener, Witness
from stripetwist.net.path import path_lines
from stripetwist.net.resolver import Resolver, daemon_threads

# Told once all subflows are up, or with what there is after this long.
_TELL_AFTER = 2.0
_LOOK_EVERY = 0.05


def way_of(driver: SessionDriver, now: float) -> tuple[float, str]:
    """
    How far the peer of a session that is up is away, and what paces what we send there.

    @return: the least round trip, in seconds; the congestion control, empty where unknown.
    """
    subflows: Any = driver.session.snapshot(now)["subflows"]
    rtt = min((one["rtt"] for one in subflows if one["rtt"] is not None), default=0.0)
    first: Any = next(iter(driver.connections.values()))
    return rtt, sockets.congestion_control(first.raw)


class Client(MultiService):
    """
    Keeps a session to a server and offers it to local programs.

    @ivar dialer: the subflows.
    @ivar wants_bbr: whether its absence is worth a word.
    @ivar opener: opens streams to the server, and logs them as its C{targets} says.
    """

    log = Logger()

    def __init__(self, reactor: Any, ground: Ground, link: Link, ways: Sequence[Way] = ()) -> None:
        """
        @param ways: how to get to the server; none means straight there.
        """
        super().__init__()
        self._reactor = reactor
        self._ground = ground
        self._link = link
        clock, limits = ground.clock, ground.limits
        self._resolver = Resolver(clock, daemon_threads(reactor), timeout=limits.dns_timeout)
        self.dialer = Dialer(reactor, ground, self._resolver, link, ways or (Way(),))
        self.wants_bbr = False
        self._ways = ways
        self.dialer.on_change = self._changed
        self.dialer.setServiceParent(self)
        self.opener = Witness(SessionOpener(self.dialer.when_up))
        self._fronts = Fronts(reactor)
        self._lines: list[str] = []
        self._told = False
        self._telling: IDelayedCall | None = None

    def listen(self, address: Address, front: Front) -> None:
        """
        Open a proxy port, or a forwarded one.

        @raise StartupError: it is taken, or not for us.
        """
        where = place_of(address, self._fronts.listen(address, front))
        if isinstance(front, ForwardFactory):
            self._lines.append(f"  forward     {where or address} leads to {front.target}")
        elif where:
            self._lines.append(f"  proxy       {where}   SOCKS5")
            self._lines.append(f"  try         curl -x socks5h://{where} https://example.com/")

    # ---- what the user reads

    def _changed(self) -> None:
        """A subflow came or went, or the session ended."""
        driver = self.dialer.driver
        if driver is None or not driver.connections:
            self._told = False
            return
        if self._told:
            return
        if len(driver.connections) >= self.dialer.strength.wanted:
            self._tell()
        elif self._telling is None:
            self._telling = self._ground.clock.callLater(_TELL_AFTER, self._tell)

    def _tell(self) -> None:
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._telling = None
        driver = self.dialer.driver
        if driver is None or not driver.connections or self._told:
            return
        self._told = True
        rtt, pace = way_of(driver, self._ground.clock.seconds())
        if pace not in ("", sockets.BBR) and self.wants_bbr:
            pace += " (bbr cannot be had here)"
        self._say(
            f"  connected   {self._link.address}, {len(driver.connections)} subflows, "
            f"{rtt * 1000:.0f} ms" + (f", {pace}" if pace else "")
        )
        for line in path_lines(self.dialer.paths) if self._ways else ():
            self._say(line)
        for line in self._lines:
            self._say(line)

    def _say(self, line: str) -> None:
        self.log.info("{line}", line=line)

    # ---- who waits for it

    async def up(self, patience: float) -> SessionDriver:
        """
        The session, with all its subflows or those that have come up in time.

        @param patience: seconds to wait; once one is up the others have two at most.
        @raise StartupError: there is none, or the first dial has failed.
        """
        clock, dialer = self._ground.clock, self.dialer
        until = clock.seconds() + patience
        came = False
        while clock.seconds() < until:
            if (
                dialer.driver is not None
                and len(dialer.driver.connections) >= dialer.strength.wanted
            ):
                return dialer.driver
            if dialer.is_alive() and not came:
                came, until = True, min(until, clock.seconds() + _TELL_AFTER)
            if dialer.last_error and not dialer.is_alive():
                break
            await deferLater(clock, _LOOK_EVERY)
        if dialer.driver is None or not dialer.is_alive():
            raise StartupError(dialer.last_error or f"{self._link.address} does not answer")
        return dialer.driver

    # ---- while it runs

    def leave(self) -> None:
        """Take no new connections; let streams finish."""
        self._fronts.leave()

    def is_idle(self) -> bool:
        """Whether no stream is carried, and what was has left for the local programs."""
        driver = self.dialer.driver
        return (driver is None or driver.is_idle) and self._fronts.is_idle

    def complaint(self) -> str:
        """Why it cannot do its job, a sentence; empty if it can."""
        if self.dialer.is_alive():
            return ""
        return self.dialer.last_error or f"no connection to the server {self._link.address} yet"

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        return {
            "sessions": self.dialer.snapshot(),
            "server": self._link.address,
            "last_error": self.dialer.last_error,
            "counters": self._fronts.counters(),
        }

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        closing = [self._fronts.stop(), maybeDeferred(MultiService.stopService, self)]
        self._resolver.stop()
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)
