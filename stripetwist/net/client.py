"""The client side as one service: a dialer for each server, and the ports that use them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from stripetwist.core.address import Address
from stripetwist.core.agents import ANY
from stripetwist.core.dialogues import LANGUAGES
from stripetwist.core.link import Link
from stripetwist.core.way import Way
from stripetwist.net import sockets
from stripetwist.net.dialer import Dialer
from stripetwist.net.driver import SessionDriver
from stripetwist.net.files import StartupError
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.fronts import Front, Fronts, shown, trial
from stripetwist.net.ground import Ground
from stripetwist.net.listening import listen_udp
from stripetwist.net.opener import Witness
from stripetwist.net.path import path_lines, subflow_count
from stripetwist.net.resolver import Resolver, daemon_threads
from stripetwist.net.servers import Servers
from stripetwist.net.udp_forward import UdpForward

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


def _leaves(way_out: str) -> str:
    """Where what comes in at a port leaves, if that is not the server."""
    where = "any agent" if way_out == ANY else f"exit {way_out}"
    return way_out and f"; leaves at {where}"


class Client(MultiService):
    """
    Keeps a session to each server and offers them to local programs.

    @ivar dialers: the subflows, of the most preferred server first.
    @ivar dialer: that server's.
    @ivar wants_bbr: whether its absence is worth a word.
    @ivar opener: opens streams to a server, and logs them as its C{targets} says.
    @ivar lines: what the user reads of its ports once it is connected.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, ground: Ground, links: Sequence[Link], ways: Sequence[Way] = ()
    ) -> None:
        """
        @param links: the servers, the most preferred first.
        @param ways: how to get to each; none means straight there.
        """
        super().__init__()
        self._reactor = reactor
        self._ground = ground
        clock, limits = ground.clock, ground.limits
        self._resolver = Resolver(clock, daemon_threads(reactor), timeout=limits.dns_timeout)
        self.wants_bbr = False
        self._ways = ways
        self.dialers = [
            Dialer(reactor, ground, self._resolver, link, ways or (Way(),)) for link in links
        ]
        self.dialer = self.dialers[0]
        for dialer in self.dialers:
            dialer.on_change = partial(self._changed, dialer)
            dialer.setServiceParent(self)
        self.opener = Witness(Servers(self.dialers), clock)
        self._fronts = Fronts(reactor)
        self._udp: list[UdpForward] = []
        self._udp_ports: list[Any] = []
        self._closing_udp: list[Deferred[Any]] = []
        self.lines: list[str] = []
        self._told: set[Dialer] = set()
        self._said: dict[Dialer, list[str]] = {}
        self._telling: dict[Dialer, IDelayedCall] = {}
        self._leaving = False

    def listen(self, address: Address, front: Front) -> None:
        """
        Open a proxy port, or a forwarded one.

        @raise StartupError: it is taken, or not for us.
        """
        port = self._fronts.listen(address, front)
        where = shown(address, port)
        if isinstance(front, ForwardFactory):
            self.lines.append(f"  forward     {where} leads to {front.target}{_leaves(front.exit)}")
            return
        self.lines.append(f"  proxy       {where}   {LANGUAGES}{_leaves(front.exit)}")
        if command := trial(port, front):
            self.lines.append(f"  try         {command}")

    def forward_udp(self, address: Address, front: UdpForward) -> None:
        """
        Open a forwarded UDP port.

        @raise StartupError: it is taken, or not for us.
        """
        port = listen_udp(self._reactor, address, front, "--udp")
        self._udp.append(front)
        self._udp_ports.append(port)
        where, request = shown(address, port), front.request
        self.lines.append(f"  udp         {where} leads to {request.target}{_leaves(request.exit)}")

    @property
    def ports(self) -> Sequence[Any]:
        """All that are open for local programs."""
        return [*self._fronts.ports, *self._udp_ports]

    def startService(self) -> None:
        """Dial, and ask for what forwarded UDP ports need."""
        super().startService()
        for front in self._udp:
            front.start()

    # ---- what the user reads

    def _changed(self, dialer: Dialer) -> None:
        """A subflow came or went, or a session ended."""
        driver = dialer.driver
        if driver is None or not driver.connections:
            self._told.discard(dialer)
            return
        if dialer in self._told:
            return
        if len(driver.connections) >= dialer.strength.wanted:
            self._tell(dialer)
        elif dialer not in self._telling:
            telling = self._ground.clock.callLater(_TELL_AFTER, self._tell, dialer)
            self._telling[dialer] = telling

    def _not_yet(self, dialer: Dialer) -> None:
        """Forget that something was to be told."""
        telling = self._telling.pop(dialer, None)
        if telling is not None and telling.active():
            telling.cancel()

    def _tell(self, dialer: Dialer) -> None:
        self._not_yet(dialer)
        driver = dialer.driver
        if driver is None or not driver.connections or dialer in self._told:
            return
        self._told.add(dialer)
        rtt, pace = way_of(driver, self._ground.clock.seconds())
        if pace not in ("", sockets.BBR) and self.wants_bbr:
            pace += " (bbr cannot be had here)"
        self._say(
            f"  connected   {dialer.link.address}, {subflow_count(len(driver.connections))}, "
            f"{rtt * 1000:.0f} ms" + (f", {pace}" if pace else "")
        )
        self._say_more(dialer)

    def _say_more(self, dialer: Dialer) -> None:
        """What the user has not read of it before; of the ports, where it is the first."""
        lines = path_lines(dialer.paths) if self._ways else []
        news = [line for line in lines if line not in self._said.get(dialer, [])]
        for line in news if self._said else news + self.lines:
            self._say(line)
        self._said[dialer] = lines

    def _say(self, line: str) -> None:
        self.log.info("{line}", line=line)

    # ---- who waits for it

    async def up(self, patience: float) -> SessionDriver:
        """
        The preferred server's session, with all its subflows or those that are up in time.

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
            raise StartupError(dialer.last_error or f"{dialer.link.address} does not answer")
        return dialer.driver

    # ---- while it runs

    def leave(self) -> None:
        """Take no new connections and no datagrams; let streams finish."""
        self._leaving = True
        self._fronts.leave()
        self._closing_udp += self._close_udp()

    def is_idle(self) -> bool:
        """Whether no stream is carried, and what was has left for the local programs."""
        drivers = [dialer.driver for dialer in self.dialers]
        idle = all(driver is None or driver.is_idle for driver in drivers)
        return idle and self._fronts.is_idle

    def complaint(self) -> str:
        """Why it cannot take more, a sentence; empty if it can: if one server does."""
        if self._leaving:
            return "the client is shutting down"
        if any(dialer.is_welcome for dialer in self.dialers):
            return ""
        reasons = [one.why_unwelcome for one in self.dialers if one.why_unwelcome]
        return "; ".join(reasons) or f"no connection to the server {self._addresses} yet"

    def _last_error(self) -> str:
        """What keeps it from those servers to whom there is no connection."""
        return "; ".join(one.why_away for one in self.dialers if one.why_away)

    @property
    def _addresses(self) -> str:
        """Where the servers are, the most preferred first."""
        return ", ".join(dialer.link.address for dialer in self.dialers)

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        return {
            "sessions": [one for dialer in self.dialers for one in dialer.snapshot()],
            "paths": [path.snapshot() for dialer in self.dialers for path in dialer.paths],
            "server": self._addresses,
            "last_error": self._last_error(),
            "counters": {**self._fronts.counters(), **self._udp_counters()},
        }

    def _udp_counters(self) -> dict[str, object]:
        if not self._udp:
            return {}
        return {
            "udp_forward_opened": sum(front.opened for front in self._udp),
            "udp_forward_dropped": sum(front.dropped for front in self._udp),
        }

    def _close_udp(self) -> list[Deferred[Any]]:
        """Close the forwarded UDP ports; each fires when one is gone."""
        for front in self._udp:
            front.stop()
        ports, self._udp_ports = self._udp_ports, []
        return [maybeDeferred(port.stopListening) for port in ports]

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        for dialer in self.dialers:
            self._not_yet(dialer)
        closing = [*self._closing_udp, *self._close_udp()]
        closing += [self._fronts.stop(), maybeDeferred(MultiService.stopService, self)]
        self._resolver.stop()
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)
