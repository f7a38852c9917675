"""One way to the server, with the places on it."""

import random
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from stripetwist.core.http_connect import HttpConnect
from stripetwist.core.path import PathInfo
from stripetwist.core.socks5_client import SocksConnect
from stripetwist.core.target import Target, parse_host
from stripetwist.core.way import Via, Way
from stripetwist.core.zones import Address
from stripetwist.net import sockets
from stripetwist.net.dial_errors import connect_sentence, proxy_sentence
from stripetwist.net.place import Place
from stripetwist.net.redial import Redial
from stripetwist.net.tunnel import Dialogue

if TYPE_CHECKING:
    from stripetwist.net.dialer import Dialer


class Path:
    """
    One way to the server, with the places on it.

    Has as many places as it was last told to; a place whose connection has become doubtful
    gets a substitute, and ends once that is up.

    @ivar label: what people call it.
    @ivar info: what the server is told of it.
    @ivar server: what is at its end, for sentences.
    @ivar where: what it leads to, for sentences.
    @ivar first_stop: what is dialed, for sentences.
    @ivar places: those that dial or are up, and those that are about to end.
    @ivar last_error: why a dial last came to nothing, a sentence; empty once one has not.
    @ivar worked_at: when the newest of its lost connections came up that had worked.
    """

    def __init__(self, dialer: "Dialer", way: Way, number: int = 0) -> None:
        """
        @param number: which of the dialer's it is.
        """
        link = dialer.link
        self.way = way
        self.label = str(way)
        self.info = PathInfo(number, way.role, way.rate, self.label)
        self._host = way.host or link.host
        self.port = way.port or link.port
        self.server = f"the server {link.address}"
        self.where = f"{link.address} by {self.label}" if way.host else link.address
        self.first_stop = f"the server {self.where}"
        if way.is_by_proxy:
            self.first_stop = f"path {self.label}: the proxy"
        self.places: list[Place] = []
        self.last_error = ""
        self.worked_at = -inf
        self._dialer = dialer
        self._redial = Redial(dialer.limits, random.random)
        self._address: Address | None = None
        self._source = ""
        self._is_cut_off = False
        self._substitutes: dict[Place, Place] = {}

    # ---- where it leads

    def fresh_session(self) -> None:
        """The next connection belongs to another session: look the address up anew."""
        self._address = None
        for place in self.places:
            place.last_id = 0

    def keep_address(self, address: Address | None) -> None:
        """All connections of a session lead to one address."""
        if self._address is None and address is not None:
            self._address = address
            self._source = self._source_towards(address) or ""

    def find_address(self) -> Deferred[Address]:
        """Where to dial: looked up anew for each session, the same within one."""
        if self._address is not None:
            return succeed(self._address)
        host = parse_host(self._host)
        if not isinstance(host, str):
            return succeed(host)
        return self._dialer.resolver.resolve(host).addCallback(self._choose)

    def _choose(self, addresses: list[Address]) -> Address:
        index = random.randrange(len(addresses)) if self._dialer.last_error else 0
        return addresses[index]

    def dialogue(self) -> Dialogue | None:
        """
        What is to be said to the proxy of this path; C{None} where none stands there.

        It is told the server's host as the link has it: names are looked up by the proxy.
        """
        way, link = self.way, self._dialer.link
        if not way.is_by_proxy:
            return None
        kind = SocksConnect if way.via is Via.SOCKS else HttpConnect
        return kind(Target.of(link.host, link.port), way.user, way.password)

    def why_not(self, reason: Failure) -> str:
        """Why a connect on it failed, a sentence."""
        if self.way.is_by_proxy:
            return proxy_sentence(reason, self.label)
        if self.way.nic or self.way.bind:
            return connect_sentence(reason, f"{self._dialer.link.address} by {self.label}")
        return connect_sentence(reason, self.where)

    # ---- how many

    @property
    def wanted(self) -> list[Place]:
        """The places that are to stay; of one in doubt and its substitute, the substitute."""
        return [place for place in self.places if not (place.is_stopped or self.is_replaced(place))]

    def fit(self, count: int) -> list[Place]:
        """
        Have so many places; the ones that are up, and have been for longest, stay longest.

        @return: those that are new, to be dialed.
        """
        wanted = self.wanted
        for place in sorted(reversed(wanted), key=_is_up)[: max(0, len(wanted) - count)]:
            for one in (self._substitutes.get(place), place):
                if one is not None:
                    one.leave()
        return [self._add() for _ in range(count - len(wanted))]

    def _add(self) -> Place:
        place = Place(self._dialer, self, self._redial)
        self.places.append(place)
        return place

    def doubt(self, place: Place) -> None:
        """Its connection may be dead or lead nowhere: dial another that is to replace it."""
        if place.is_stopped or self.is_replaced(place):
            return
        substitute = self._add()
        substitute.last_id = place.last_id
        self._substitutes[substitute] = place
        substitute.dial_after(0)

    def is_replaced(self, place: Place) -> bool:
        """Whether another has been dialed in its stead."""
        return place in self._substitutes.values()

    def failed(self, sentence: str) -> None:
        """A dial came to nothing."""
        self.last_error = sentence or self.last_error

    def established(self, place: Place) -> bool:
        """
        A place is up: the one that it replaces is not needed any more.

        @return: whether dials had failed here, and none of the others is up.
        """
        is_back = bool(self.last_error) and sum(map(_is_up, self.places)) == 1
        self.last_error = ""
        doubted = self._substitutes.pop(place, None)
        if doubted is not None:
            doubted.stop()
        return is_back

    def left(self, place: Place) -> None:
        """A place has ended."""
        self.places.remove(place)
        self._substitutes.pop(place, None)
        for substitute, doubted in list(self._substitutes.items()):
            if doubted is place:
                del self._substitutes[substitute]

    # ---- where it comes from

    def look_around(self) -> None:
        """
        Dial anew what the kernel would send from another address by now, or can send again.

        It has moved to another network, whatever its connections still believe; or its card
        or route was not there, and now is.
        """
        addresses = (self._address, *(place.address for place in self.places))
        address = next((one for one in addresses if one is not None), None)
        source = "" if address is None else self._source_towards(address)
        if source == "":
            return
        before, was_cut_off = self._source, self._is_cut_off
        self._source, self._is_cut_off = source or before, source is None
        has_moved = before not in ("", source)
        if source is None or not (has_moved or was_cut_off):
            return
        for place in self.wanted:
            if not place.is_up:
                place.dial_now()
            elif has_moved:
                self.doubt(place)

    def _source_towards(self, address: Address) -> str | None:
        """Where the kernel would send from by now; C{None} if it cannot, empty if not known."""
        return "" if self.way.bind else sockets.source_towards(str(address), self.way.nic)

    # ---- for people

    def snapshot(self) -> dict[str, object]:
        """Whether it is of use, how far, and what keeps it from more."""
        up, wanted = sum(map(_is_up, self.places)), len(self.wanted)
        why = self.last_error if up < wanted else ""
        if up and self._is_cut_off:
            # They do not know it yet: what they send next will tell them.
            card = f" by {self.way.nic}" if self.way.nic else ""
            up, why = 0, f"this machine has no route there{card} for now"
        return {
            "server": self._dialer.link.address,
            "path": self.label,
            "state": "up" if up else "down",
            "subflows": min(up, wanted),
            "wanted": wanted,
            "last_error": why,
        }


def subflow_count(number: int) -> str:
    """So many, in words."""
    return f"{number} subflow{'' if number == 1 else 's'}"


def path_lines(paths: Sequence[Path]) -> list[str]:
    """Which ways there are, for people who have chosen them."""
    lines = []
    for path in paths:
        up = sum(place.is_up for place in path.places)
        lines.append(f"  path        {path.label}, {up} of {subflow_count(len(path.wanted))}")
    if all(path.way.host for path in paths):
        lines.append("  path        direct is not used; --path direct adds it")
    return lines


def all_down(paths: Sequence[Path]) -> str:
    """
    Why none of several paths is up, a sentence; empty where that is not so.

    What is the same on each of them is not for want of a path: the server has said it.
    """
    down = [path for path in paths if path.wanted and not any(map(_is_up, path.places))]
    reasons = [path.last_error for path in down if path.last_error]
    if len(paths) < 2 or len(reasons) < len(paths):
        return ""
    if len(set(reasons)) == 1:
        return reasons[0]
    return f"no path of {len(paths)} leads to {paths[0].server}; the first: {reasons[0]}"


def _is_up(place: Place) -> bool:
    return place.is_up
