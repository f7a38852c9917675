"""The ports of a process that local programs use: proxy ports, and forwarded ones."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.errors import Code
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.guests import Guests
from stripetwist.net.listening import listen
from stripetwist.net.socks import SocksFactory

Front = SocksFactory | ForwardFactory


def shown(address: Address, port: IListeningPort) -> str:
    """Where a port was opened, with its number where the system chose that."""
    number = getattr(port.getHost(), "port", address.port)
    return str(address if address.raw else replace(address, port=number))


def trial(port: IListeningPort, front: SocksFactory) -> str:
    """A command that a user of this machine can try; empty where there is none that works."""
    bound: Any = port.getHost()
    if not hasattr(bound, "port"):
        return ""
    host = LOOPBACK_HOST if bound.host in ("", "::", "0.0.0.0") else bound.host
    # Who dials an address of this machine comes from there.
    if not front.guests.welcome(host):
        return ""
    login = "" if front.users is None else " -U NAME"
    return f"curl -x socks5h://{Address(host, bound.port)}{login} https://example.com/"


class Fronts:
    """
    The ports of a process that local programs use.

    They listen from C{listen} on, before the process forks, so that a port that is taken
    stops the start.
    """

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._closing: list[Deferred[Any]] = []
        self._fronts: list[Front] = []

    def listen(self, address: Address, front: Front) -> IListeningPort:
        """
        Open a port.

        @raise StartupError: it is taken, or not for us.
        """
        option = "--socks" if isinstance(front, SocksFactory) else "--forward"
        port = listen(self._reactor, address, front, option)
        self._ports.append(port)
        self._fronts.append(front)
        return port

    @property
    def ports(self) -> Sequence[IListeningPort]:
        """Those that are open."""
        return self._ports

    def leave(self) -> None:
        """Take no new connections; let those that are there go on."""
        ports, self._ports = self._ports, []
        for port in ports:
            closing = maybeDeferred(port.stopListening)
            closing.addErrback(lambda failure: self.log.failure("a port did not close", failure))
            self._closing.append(closing)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left of any connection that carries a stream."""
        return all(guests.is_idle for guests in self._guests())

    def _guests(self) -> Iterable[Guests]:
        return {front.guests for front in self._fronts}

    def counters(self) -> dict[str, object]:
        """For the snapshot: of all proxy ports, and of all forwarded ones."""
        proxies = [front for front in self._fronts if isinstance(front, SocksFactory)]
        forwards = [front for front in self._fronts if isinstance(front, ForwardFactory)]
        found: dict[str, object] = {}
        if proxies:
            found["socks_active"] = sum(guests.active for guests in self._guests())
            found["socks_opened"] = sum(front.opened for front in proxies)
            found["socks_refused"] = _refused(proxies)
            found["socks_wrong_protocol"] = sum(front.wrong_protocol for front in proxies)
            found["socks_timed_out"] = sum(front.timed_out for front in proxies)
            found["socks_udp_dropped"] = sum(one.udp.dropped for one in proxies if one.udp)
            found["socks_turned_away"] = sum(guests.turned_away for guests in self._guests())
        if forwards:
            found["forward_opened"] = sum(front.opened for front in forwards)
            found["forward_refused"] = _refused(forwards)
        return found

    def stop(self) -> Deferred[None]:
        """Close the ports and cut what is left; fires when all is gone."""
        self.leave()
        for front in self._fronts:
            if isinstance(front, SocksFactory):
                front.logins.stop()
        closing: list[Deferred[Any]] = [*self._closing]
        closing += [guests.close_all() for guests in self._guests()]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)


def _refused(fronts: Sequence[Front]) -> dict[str, int]:
    """How often each refusal was told."""
    total: Counter[Code] = sum((front.refused for front in fronts), Counter())
    return {code.name.lower(): count for code, count in total.items()}
