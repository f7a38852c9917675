"""The connections of local programs, at all ports of a process together."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger

from stripetwist.core.zones import plain

Network = IPv4Network | IPv6Network

_TELL_EVERY = 60.0
# More sources than that within a minute are not told of.
_MOST_TOLD = 256


class Sources:
    """The networks that may come; none given, all may."""

    log = Logger()

    def __init__(self, networks: Iterable[Network], clock: IReactorTime) -> None:
        self._networks = tuple(networks)
        self._clock = clock
        self._told: dict[str, float] = {}

    def welcome(self, host: str) -> bool:
        """Whether an address is in one of them."""
        source = plain(ip_address(host))
        return not self._networks or any(source in network for network in self._networks)

    def turn_away(self, host: str) -> None:
        """Say that an address is in none, once a minute."""
        now, source = self._clock.seconds(), str(plain(ip_address(host)))
        self._told = {one: at for one, at in self._told.items() if now - at < _TELL_EVERY}
        if source not in self._told and len(self._told) < _MOST_TOLD:
            self._told[source] = now
            self.log.info("{source} is not among --from", source=source)


class Guest(Protocol):
    """One connection."""

    def abort(self) -> None:
        """Close it now."""


class Guests:
    """
    The connections of local programs, in whatever stage, and who may come.

    All fronts of a process share one, so that its limit is the process's.

    @ivar turned_away: connections from a wrong source, or above the number allowed.
    """

    def __init__(self, most: int = 1024, sources: Sources | None = None) -> None:
        """
        @param most: more than these are closed at once.
        @param sources: networks that may connect; C{None} for all.
        """
        self._most = most
        self._sources = sources
        self._live: set[Guest] = set()
        self._excused: set[Guest] = set()
        self._waiting: list[Deferred[None]] = []
        self.turned_away = 0

    @property
    def active(self) -> int:
        """How many there are."""
        return len(self._live)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is left for whose end to wait."""
        return self._live <= self._excused

    def may_come(self, address: IAddress | None) -> bool:
        """Whether there is room for one more, from there; if not, it is counted."""
        # Who may open a Unix socket is decided by its file's mode.
        host = getattr(address, "host", None)
        is_source = host is None or self.welcome(host)
        if self._sources is not None and not is_source:
            self._sources.turn_away(str(host))
        may = is_source and len(self._live) < self._most
        self.turned_away += not may
        return may

    def welcome(self, host: str) -> bool:
        """Whether they may come from an address."""
        return self._sources is None or self._sources.welcome(host)

    def came(self, guest: Guest) -> None:
        """A connection is there."""
        self._live.add(guest)

    def coupled(self, guest: Guest, coupling: object) -> None:
        """
        A connection is now the relay's.

        It still counts, if the relay has a Deferred C{ended} by which to learn of its end.
        """
        ended = getattr(coupling, "ended", None)
        if isinstance(ended, Deferred):
            ended.addBoth(lambda _: self.went(guest))
        else:
            self.went(guest)

    def excuse(self, guest: Guest) -> None:
        """A connection only stands for datagrams: its end need not be waited for."""
        self._excused.add(guest)

    def went(self, guest: Guest) -> None:
        """A connection is gone."""
        self._live.discard(guest)
        self._excused.discard(guest)
        while self._waiting and not self._live:
            self._waiting.pop().callback(None)

    def close_all(self) -> Deferred[None]:
        """
        Abort every connection, in whatever stage.

        @return: fires when the last one is gone.
        """
        for guest in tuple(self._live):
            guest.abort()
        if not self._live:
            return succeed(None)
        last: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(last)
        return last
