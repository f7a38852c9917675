"""What C{stripe-client} can be told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.agents import SERVER
from stripetwist.core.config import Limits
from stripetwist.core.link import Link
from stripetwist.core.pool import Selector
from stripetwist.core.way import Via, Way
from stripetwist.net.files import StartupError
from stripetwist.net.keystore import read_link
from stripetwist.ports import Named, named_twice
from stripetwist.settings import NUMBER, CommonSettings
from stripetwist.sources import flag, option
from stripetwist.udp_values import UdpPort, udp_port
from stripetwist.values import (
    FORWARD_TABLE,
    LOOPBACK,
    Forward,
    Network,
    ProxyPort,
    Server,
    count,
    count_or_auto,
    forward,
    local_address,
    network,
    path,
    server,
)

MAX_SUBFLOWS = Limits().max_subflows


@dataclass(frozen=True, slots=True)
class ClientSettings(CommonSettings):
    """What C{stripe-client} can be told."""

    servers: tuple[Server, ...] = option(
        "server",
        "LINK|FILE|loopback:",
        server,
        (),
        "Dial the server that a link names, or a link in a file; loopback: runs "
        "the server side in this process, to try things out.  Of several, new streams go to the "
        "first that is up.",
        secret=True,
        repeatable=True,
        between=r"\s+",
    )
    socks: Address = option(
        "socks",
        "ADDRESS",
        local_address,
        Address(LOOPBACK_HOST, 1080),
        "Open the proxy port there; beyond this machine it needs --users or --from.",
        kinds=NUMBER,
    )
    users: Path | None = option(
        "users",
        "FILE",
        path,
        None,
        "Let only these users in; stripetwist passwd FILE USER adds one.",
    )
    sources: tuple[Network, ...] = option(
        "from",
        "CIDR",
        network,
        (),
        "Let only these addresses and networks use the proxy port and the forwarded ones.",
        repeatable=True,
    )
    forwards: tuple[Forward, ...] = option(
        "forward",
        "LISTEN=HOST:PORT",
        forward,
        (),
        "Open a port, each connection to which leads to HOST:PORT; a port alone for LISTEN "
        "means this machine only.  With ,exit=EXIT behind it, reached from there.",
        repeatable=True,
        table=FORWARD_TABLE,
    )
    udp: tuple[UdpPort, ...] = option(
        "udp",
        "LISTEN=HOST:PORT",
        udp_port,
        (),
        "Open a UDP port, whose datagrams lead to HOST:PORT; a port alone for LISTEN means this "
        "machine only.  With socktopus' four fields on each side, HOST:PORT:RHOST:RPORT, each end "
        "is bound to the first two and sends to the others.",
        repeatable=True,
    )
    udp_copies: int = option(
        "udp-copies",
        "N",
        count(2),
        1,
        "Send each datagram of those ports on so many paths, 1 or 2.",
        kinds=NUMBER,
    )
    exit: Selector = option(
        "exit",
        "server|any|NAME|LABEL=VALUE",
        Selector.parse,
        Selector(SERVER),
        "Have targets reached from the server, or from an agent that has dialed in there: any, "
        "the one called NAME, or one of those with a label.",
    )
    subflows: int | None = option(
        "subflows",
        "N|auto",
        count_or_auto(MAX_SUBFLOWS),
        None,
        "Stripe over so many connections (default auto: 6, and up to 32 while more are faster).",
        kinds=NUMBER,
    )
    paths: tuple[Way, ...] = option(
        "path",
        "PATH",
        Way.parse,
        (),
        "Dial the server this way: direct, tcp://HOST[:PORT] for a relay that leads there, "
        "socks:// or http://[USER:PASSWORD@]HOST[:PORT] for a proxy; with ,bind=ADDRESS or "
        ",nic=CARD from there, with ,role=overflow or ,role=backup when needed, with ,rate=RATE "
        "no faster, with ,subflows=N over so many.  Several share the subflows.",
        repeatable=True,
        secret=True,
        between=r"\s+",
    )
    optimistic: bool = flag(
        "optimistic", "Say connected before the target has answered: faster, but hides refusals."
    )

    def links(self) -> list[Link]:
        """
        The ways to the servers, the most preferred first; none where it runs in this process.

        @raise StartupError: a file holds no link, or two paths are one at that server's port.
        """
        return read_links(self.servers, self.paths)

    def limits(self) -> Limits:
        """As in L{CommonSettings}, with the subflows to start with."""
        # Named, since a class with slots is made twice and super() would mean the first.
        return with_subflows(CommonSettings.limits(self), self.subflows)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if not self.servers:
            return (
                "there is no server to dial; give --server LINK or FILE, or $STRIPETWIST_SERVER, "
                f"or try --server {LOOPBACK} on this machine alone"
            )
        if LOOPBACK in self.servers and len(self.servers) > 1:
            return f"--server {LOOPBACK} is for trying things out; give it alone, or leave it out"
        if astray := paths_complaint(self.servers, self.paths):
            return astray
        if self.udp_copies > 1 and not self.udp:
            return "--udp-copies is of no use without --udp LISTEN=HOST:PORT"
        if twice := named_twice(("--udp", one.listen) for one in self.udp):
            return twice
        open_to_others = "" if self.users or self.sources else proxy_open_to_others(self.socks)
        open_to_others = open_to_others or self._udp_open_to_others()
        return open_to_others or CommonSettings.complaint(self)

    def ports(self) -> list[Named]:
        """As in L{CommonSettings}, with those for programs."""
        return program_ports(self.proxy_ports, self.forwards) + CommonSettings.ports(self)

    def _udp_open_to_others(self) -> str:
        """What is wrong with a UDP port for everybody; datagrams give no user's name."""
        for one in () if self.sources else self.udp:
            if one.program is None and not one.listen.is_local:
                return (
                    f"--udp {one} is open to other machines; say who may use it with --from CIDR, "
                    "or which one program with all eight fields"
                )
        return ""

    @property
    def proxy_ports(self) -> Sequence[ProxyPort]:
        """The one to be opened."""
        return (ProxyPort(self.socks),)


def with_subflows(limits: Limits, subflows: int | None) -> Limits:
    """Those limits with that many subflows, neither more nor fewer, if a number is given."""
    return limits if subflows is None else replace(limits, subflows=subflows, grow_most=subflows)


def read_links(servers: Sequence[Server], ways: Sequence[Way]) -> list[Link]:
    """The links to those servers that are elsewhere; toward each those ways are different ones."""
    found = [read_link(one) if isinstance(one, Path) else one for one in servers]
    links = [one for one in found if isinstance(one, Link)]
    for one, other in combinations(links, 2):
        if (one.address, one.key_id) == (other.address, other.key_id):
            raise StartupError(f"--server {one.address} is given twice; leave one out")
    for link in links:
        if twice := _path_twice(ways, link.port):
            raise StartupError(twice)
    return links


def program_ports(proxies: Iterable[ProxyPort], forwards: Iterable[Forward]) -> list[Named]:
    """The ports for programs."""
    ports = [("--socks", one.listen) for one in proxies]
    return ports + [("--forward", one.listen) for one in forwards]


def paths_complaint(servers: Sequence[Server], ways: Sequence[Way]) -> str:
    """Why those paths make no sense together, or nothing."""
    if twice := _path_twice(ways):
        return twice
    total = sum(way.subflows or 1 for way in ways)
    if total > MAX_SUBFLOWS:
        return (
            f"--path asks for {total} connections in all, and a session has {MAX_SUBFLOWS} at "
            "most; give some of them fewer by ,subflows=N"
        )
    return _relay_among(servers, ways)


def _path_twice(ways: Sequence[Way], port: int = 0) -> str:
    """Which path stands there twice, or nothing; the port is the link's, where it is known."""
    for one, other in combinations(ways, 2):
        if replace(one, port=one.port or port) == replace(other, port=other.port or port):
            again = "stands twice" if one == other else f"and {other} are one path"
            return f"--path {one} {again}; leave one out"
    return ""


def _relay_among(servers: Sequence[Server], ways: Sequence[Way]) -> str:
    """What is wrong with a relay where there are several servers: it leads to one."""
    relay = next((way for way in ways if way.via is Via.RELAY), None)
    if relay is None or len(servers) < 2:
        return ""
    return (
        f"--path {relay} leads to one server, and {len(servers)} are given; "
        "leave it out, or all but that server"
    )


def proxy_open_to_others(socks: Address) -> str:
    """What is wrong with a proxy port for everybody, if others can reach it."""
    if socks.is_local:
        return ""
    return (
        f"--socks {socks} is open to other machines; "
        "say who may use it with --users FILE or --from CIDR"
    )
