"""The connections of local programs, at all ports of a process together."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress

from stripetwist.core.zones import plain

Network = IPv4Network | IPv6Network


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

    def __init__(self, most: int = 1024, sources: Iterable[Network] = ()) -> None:
        """
        @param most: more than these are closed at once.
        @param sources: networks that may connect; none given, all may.
        """
        self._most = most
        self._sources = tuple(sources)
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
        welcome = len(self._live) < self._most and self._is_source(address)
        self.turned_away += not welcome
        return welcome

    def _is_source(self, address: IAddress | None) -> bool:
        host = getattr(address, "host", None)
        if not self._sources or host is None:
            # Who may open a Unix socket is decided by its file's mode.
            return True
        source = plain(ip_address(host))
        return any(source in network for network in self._sources)

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
