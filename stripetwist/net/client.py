"""The client side as one service: a dialer, and the ports that use its session."""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from stripetwist.core.address import Address
from stripetwist.core.link import Link
from stripetwist.core.way import Way
from stripetwist.net import sockets
from stripetwist.net.dialer import Dialer
from stripetwist.net.driver import SessionDriver
from stripetwist.net.files import StartupError
from stripetwist.net.ground import Ground
from stripetwist.net.listening import listen
from stripetwist.net.opener import SessionOpener, Witness
from stripetwist.net.resolver import Resolver, daemon_threads
from stripetwist.net.socks import SocksFactory

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
        self._port: IListeningPort | None = None
        self._closed: Deferred[Any] = succeed(None)
        self._front: SocksFactory | None = None
        self._where = ""
        self._told = False
        self._telling: IDelayedCall | None = None

    def listen(self, address: Address, front: SocksFactory) -> None:
        """
        Open the proxy port.

        @raise StartupError: it is taken, or not for us.
        """
        self._port = listen(self._reactor, address, front, "--socks")
        self._front = front
        host: Any = self._port.getHost()
        if hasattr(host, "port"):
            # Where every address is listened at, this machine's own is the one to try.
            self._where = f"{address.host or '127.0.0.1'}:{host.port}"

    # ---- what the user reads

    def _changed(self) -> None:
        """A subflow came or went, or the session ended."""
        driver = self.dialer.driver
        if driver is None or not driver.connections:
            self._told = False
            return
        if self._told:
            return
        if len(driver.connections) >= self.dialer.wanted:
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
        self._tell_paths()
        if self._where:
            self._say(f"  proxy       {self._where}   SOCKS5")
            self._say(f"  try         curl -x socks5h://{self._where} https://example.com/")

    def _tell_paths(self) -> None:
        """Which ways there are, where the user has chosen them."""
        if not self._ways:
            return
        for path in self.dialer.paths:
            up = sum(place.is_up for place in path.places)
            self._say(f"  path        {path.label}, {up} of {len(path.wanted)} subflows")
        if all(way.host for way in self._ways):
            self._say("  path        direct is not used; --path direct adds it")

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
            if dialer.driver is not None and len(dialer.driver.connections) >= dialer.wanted:
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
        port, self._port = self._port, None
        if port is not None:
            self._closed = maybeDeferred(port.stopListening)

    def is_idle(self) -> bool:
        """Whether no stream is carried, and what was has left for the local programs."""
        driver, front = self.dialer.driver, self._front
        return (driver is None or driver.is_idle) and (front is None or not front.active)

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        front = self._front
        counters: dict[str, object] = {}
        if front is not None:
            counters = {
                "socks_active": front.active,
                "socks_opened": front.opened,
                "socks_refused": {code.name.lower(): n for code, n in front.refused.items()},
                "socks_wrong_protocol": front.wrong_protocol,
                "socks_timed_out": front.timed_out,
                "socks_turned_away": front.turned_away,
            }
        return {
            "sessions": self.dialer.snapshot(),
            "server": self._link.address,
            "last_error": self.dialer.last_error,
            "counters": counters,
        }

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self.leave()
        closing: list[Deferred[Any]] = [self._closed]
        if self._front is not None:
            closing.append(self._front.close_all())
        closing.append(maybeDeferred(MultiService.stopService, self))
        self._resolver.stop()
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)
