"""What each command can be told: its settings, each option declared once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.agents import MAX_CAPACITY, MAX_LABELS, MAX_WEIGHT
from stripetwist.core.config import MIB, Limits
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.core.pool import ANY, SERVER, Selector
from stripetwist.core.way import Via, Way
from stripetwist.net.files import StartupError
from stripetwist.net.keystore import read_link
from stripetwist.net.memory import usable_memory
from stripetwist.ports import Named, named_twice
from stripetwist.sources import flag, option, same_option
from stripetwist.udp_values import UdpPort, udp_port
from stripetwist.values import (
    FORWARD_TABLE,
    LOOPBACK,
    PROXY_TABLE,
    REFUSE,
    Advertised,
    Forward,
    Network,
    ProxyPort,
    Server,
    advertised,
    agent_name,
    congestion,
    count,
    count_or_auto,
    fallback,
    forward,
    label,
    local_address,
    log_level,
    network,
    path,
    prewarm,
    proxy_port,
    public_address,
    rule,
    seconds,
    server,
    size,
)

MAX_SUBFLOWS = Limits().max_subflows
_NUMBER = (str, int)


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every command can be told."""

    config: Path | None = option(
        "config", "FILE", path, None, "Read options from a TOML file, NAME = VALUE."
    )
    state: Path | None = option(
        "state",
        "DIR",
        path,
        None,
        "Keep files in DIR (default $STATE_DIRECTORY, else $XDG_STATE_HOME/stripetwist, else "
        "~/.local/state/stripetwist): a server its keys, its certificate and the links, an agent "
        "what tells it from others, and each its lock, and its control socket where "
        "$XDG_RUNTIME_DIR is not set.",
    )
    status: Address | None = option(
        "status",
        "ADDRESS",
        local_address,
        None,
        "Answer HTTP there, /status.json and /healthz; beyond this machine it needs "
        "--status-users (default nowhere).",
        kinds=_NUMBER,
    )
    status_users: Path | None = option(
        "status-users",
        "FILE",
        path,
        None,
        "Let only these users see that; stripetwist passwd FILE USER adds one.",
    )
    log_level: str = option(
        "log-level",
        "LEVEL",
        log_level,
        "info",
        "Log debug, info, warn, error or critical events, and what is worse.",
    )
    log_targets: bool = flag("log-targets", "Log the hosts and ports that are reached.")
    max_memory: int | None = option(
        "max-memory",
        "SIZE",
        size,
        None,
        "Hold at most so much data under way, such as 64M or 1G "
        "(default a quarter of the memory, at most 256M).",
        kinds=_NUMBER,
    )
    session_timeout: float = option(
        "session-timeout",
        "SECONDS",
        seconds,
        Limits().session_timeout,
        "Reset the streams of a session that has been without any connection for so long.",
        kinds=(str, int, float),
    )

    congestion: str = option(
        "congestion",
        "auto|system|NAME",
        congestion,
        "auto",
        "Have the kernel pace what this end sends by bbr where that may be chosen (auto), as "
        "every connection of this system, or by the algorithm NAME.",
    )

    prewarm: int | None = option(
        "prewarm",
        "auto|off|SIZE",
        prewarm,
        None,
        "Open congestion windows by so much filler per session, and hold them open for a "
        "minute after use (default auto, 2M).",
        kinds=_NUMBER,
    )

    def limits(self) -> Limits:
        """Every limit and time, with those that options change."""
        return replace(
            Limits(),
            max_memory=self.max_memory or min(usable_memory() // 4, 256 * MIB),
            session_timeout=self.session_timeout,
            prewarm=Limits().prewarm if self.prewarm is None else self.prewarm,
        )

    def ports(self) -> list[Named]:
        """Those for TCP that it is to open, with the options that name them."""
        return [] if self.status is None else [("--status", self.status)]

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if twice := named_twice(self.ports()):
            return twice
        if self.status is None:
            return "--status-users is of no use without --status ADDRESS" * bool(self.status_users)
        if self.status.is_local or self.status_users:
            return ""
        return (
            f"--status {self.status} is open to other machines; "
            "say who may see it with --status-users FILE"
        )


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
        kinds=_NUMBER,
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
        kinds=_NUMBER,
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
        kinds=_NUMBER,
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

        @raise StartupError: a file holds no link.
        """
        return _read_links(self.servers)

    def limits(self) -> Limits:
        """As in L{CommonSettings}, with the subflows to start with."""
        # Named, since a class with slots is made twice and super() would mean the first.
        limits = CommonSettings.limits(self)
        if self.subflows is None:
            return limits
        return replace(limits, subflows=self.subflows, grow_most=self.subflows)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if not self.servers:
            return (
                "there is no server to dial; give --server LINK or FILE, or $STRIPETWIST_SERVER, "
                f"or try --server {LOOPBACK} on this machine alone"
            )
        if LOOPBACK in self.servers and len(self.servers) > 1:
            return f"--server {LOOPBACK} is for trying things out; give it alone, or leave it out"
        if relayed := _relayed(self.servers, self.paths):
            return relayed
        if twice := named_twice(("--udp", one.listen) for one in self.udp):
            return twice
        open_to_others = "" if self.users or self.sources else _open_to_others(self.socks)
        open_to_others = open_to_others or self._udp_open_to_others()
        return open_to_others or CommonSettings.complaint(self)

    def ports(self) -> list[Named]:
        """As in L{CommonSettings}, with those for programs."""
        return _ways_in(self.proxy_ports, self.forwards) + CommonSettings.ports(self)

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


def _read_links(servers: Sequence[Server]) -> list[Link]:
    """The links to those servers that are elsewhere."""
    found = [read_link(one) if isinstance(one, Path) else one for one in servers]
    links = [one for one in found if isinstance(one, Link)]
    for one, other in combinations(links, 2):
        if (one.address, one.key_id) == (other.address, other.key_id):
            raise StartupError(f"--server {one.address} is given twice; leave one out")
    return links


def _ways_in(proxies: Iterable[ProxyPort], forwards: Iterable[Forward]) -> list[Named]:
    """The ports for programs."""
    ports = [("--socks", one.listen) for one in proxies]
    return ports + [("--forward", one.listen) for one in forwards]


def _relayed(servers: Sequence[Server], ways: Sequence[Way]) -> str:
    """What is wrong with a relay where there are several servers: it leads to one."""
    relay = next((way for way in ways if way.via is Via.RELAY), None)
    if relay is None or len(servers) < 2:
        return ""
    return (
        f"--path {relay} leads to one server, and {len(servers)} are given; "
        "leave it out, or all but that server"
    )


def _open_to_others(socks: Address) -> str:
    """What is wrong with a proxy port for everybody, if others can reach it."""
    if socks.is_local:
        return ""
    return (
        f"--socks {socks} is open to other machines; "
        "say who may use it with --users FILE or --from CIDR"
    )


@dataclass(frozen=True, slots=True)
class ServerSettings(CommonSettings):
    """What C{stripe-server} can be told."""

    listen: tuple[Address, ...] = option(
        "listen",
        "ADDRESS",
        public_address,
        (Address(port=8443),),
        "Let peers dial in there; a port alone means every address, IPv4 and IPv6.",
        kinds=_NUMBER,
        repeatable=True,
    )
    advertise: Advertised | None = option(
        "advertise",
        "HOST[:PORT]",
        advertised,
        None,
        "Write this into links (default an address of this machine).",
    )
    tls_cert: Path | None = option(
        "tls-cert",
        "FILE",
        path,
        None,
        "Show this certificate chain, PEM (default one that is made and kept).",
    )
    tls_key: Path | None = option(
        "tls-key", "FILE", path, None, "The certificate's private key, PEM."
    )
    keys: Path | None = option(
        "keys",
        "FILE",
        path,
        None,
        "Who may dial in (default server/keys.toml in the state folder); "
        "stripetwist key add NAME adds one.",
    )
    allow: tuple[str, ...] = option(
        "allow",
        "ITEM",
        rule,
        ("internet",),
        "All that may be reached: internet, lan, localhost, all, an address, a CIDR, "
        "NAME or *.NAME, each with :PORT and /tcp or /udp if wanted.",
        repeatable=True,
    )
    deny: tuple[str, ...] = option(
        "deny",
        "ITEM",
        rule,
        (),
        "What may not be reached even so, in the same words.",
        repeatable=True,
    )
    socks: tuple[ProxyPort, ...] = same_option(
        ClientSettings,
        "socks",
        read=proxy_port,
        default=(),
        doc="Open a proxy port there; beyond this machine it needs --users or --from.  With "
        ",exit=EXIT behind it, its streams leave there.",
        repeatable=True,
        table=PROXY_TABLE,
    )
    users: Path | None = same_option(ClientSettings, "users")
    sources: tuple[Network, ...] = same_option(ClientSettings, "from")
    forwards: tuple[Forward, ...] = same_option(ClientSettings, "forward")
    exit: Selector = same_option(
        ClientSettings,
        "exit",
        metavar="any|NAME|LABEL=VALUE|server",
        default=Selector(ANY),
        doc="Have the targets of those ports reached from any agent that has dialed in, from the "
        "one called NAME, from one of those with a label, or from here.",
    )
    fallback: str = option(
        "fallback",
        "refuse|direct",
        fallback,
        REFUSE,
        "While none of these agents can take a stream of those ports, refuse it, or reach its "
        "target from here.",
    )
    max_subflows: int = option(
        "max-subflows",
        "N",
        count(MAX_SUBFLOWS),
        MAX_SUBFLOWS,
        "Take at most so many connections of one session.",
        kinds=_NUMBER,
    )
    plaintext: bool = flag(
        "plaintext", "Do without TLS; for loopback and Unix sockets, behind something that has it."
    )

    def limits(self) -> Limits:
        """As in L{CommonSettings}, with the most subflows of a session."""
        return replace(CommonSettings.limits(self), max_subflows=self.max_subflows)

    def policy(self) -> Policy:
        """
        What may be reached.

        @raise ValueError: an item would allow nothing.
        """
        return Policy(self.allow, self.deny)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("cert", "key") if self.tls_cert else ("key", "cert")
            return f"--tls-{given} needs --tls-{missing} FILE beside it"
        if self.plaintext and self.tls_cert:
            return "--plaintext has no use for --tls-cert and --tls-key; leave out one or the other"
        if twice := named_twice(self.ports()):
            return twice
        public = [place for place in self.listen if not place.is_local]
        if self.plaintext and public:
            return (
                f"--plaintext on --listen {public[0]} could be reached from other machines; "
                "listen at 127.0.0.1:PORT or unix:PATH, or use TLS"
            )
        if self.plaintext and self.advertise:
            return "--plaintext links lead to this machine only; leave out --advertise, or use TLS"
        if all(place.raw.startswith("unix:") for place in self.listen):
            return (
                f"--listen {self.listen[0]} alone gives no link that a client could dial; "
                "add --listen 127.0.0.1:PORT"
            )
        try:
            self.policy()
        except ValueError as error:
            return f"--allow: {error}"
        ports = () if self.users or self.sources else self.socks
        open_to_others = next(filter(None, (_open_to_others(one.listen) for one in ports)), "")
        return open_to_others or CommonSettings.complaint(self)

    def ports(self) -> list[Named]:
        """As in L{CommonSettings}, with those for peers and for programs."""
        own = [("--listen", one) for one in self.listen]
        return own + _ways_in(self.proxy_ports, self.forwards) + CommonSettings.ports(self)

    @property
    def proxy_ports(self) -> Sequence[ProxyPort]:
        """Those to be opened."""
        return self.socks


@dataclass(frozen=True, slots=True)
class AgentSettings(CommonSettings):
    """What C{stripe-agent} can be told."""

    servers: tuple[Server, ...] = same_option(
        ClientSettings,
        "server",
        metavar="LINK|FILE",
        doc="Dial the server that an agent's link names, or a link in a file; of several, each.",
    )
    name: str | None = option(
        "name",
        "NAME",
        agent_name,
        None,
        "Be called that by clients and servers (default the first part of the host's name).",
    )
    labels: tuple[tuple[str, str], ...] = option(
        "label",
        "KEY=VALUE",
        label,
        (),
        "Let servers choose this agent by that, too.",
        repeatable=True,
    )
    capacity: int | None = option(
        "capacity",
        "N",
        count(MAX_CAPACITY),
        None,
        "Take at most so many streams of a server at a time (default any number).",
        kinds=_NUMBER,
    )
    weight: int = option(
        "weight",
        "N",
        count(MAX_WEIGHT),
        1,
        "Take so many times as many streams as an agent of weight 1.",
        kinds=_NUMBER,
    )
    allow: tuple[str, ...] = same_option(ServerSettings, "allow", default=())
    deny: tuple[str, ...] = same_option(ServerSettings, "deny")
    subflows: int | None = same_option(ClientSettings, "subflows")
    paths: tuple[Way, ...] = same_option(ClientSettings, "path")

    def links(self) -> list[Link]:
        """
        The ways to the servers.

        @raise StartupError: a file holds no link.
        """
        return _read_links(self.servers)

    def limits(self) -> Limits:
        """As in L{CommonSettings}, with the subflows to start with."""
        limits = CommonSettings.limits(self)
        if self.subflows is None:
            return limits
        return replace(limits, subflows=self.subflows, grow_most=self.subflows)

    def policy(self) -> Policy:
        """
        What may be reached.

        @raise ValueError: an item would allow nothing.
        """
        return Policy(self.allow, self.deny)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if not self.servers:
            return "there is no server to dial; give --server LINK or FILE, or $STRIPETWIST_SERVER"
        if LOOPBACK in self.servers:
            return f"--server {LOOPBACK} is for clients; give an agent's link, or a file with one"
        if relayed := _relayed(self.servers, self.paths):
            return relayed
        if not self.allow:
            return (
                "--allow is missing; say what may be reached from here, such as --allow internet, "
                "--allow lan or --allow localhost"
            )
        keys = [key for key, _ in self.labels]
        if len(set(keys)) < len(keys):
            return "--label gives a KEY twice; leave one out"
        if len(keys) > MAX_LABELS:
            return f"--label is given {len(keys)} times; {MAX_LABELS} labels are the most"
        try:
            self.policy()
        except ValueError as error:
            return f"--allow: {error}"
        return CommonSettings.complaint(self)
