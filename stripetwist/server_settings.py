"""What C{stripe-server} can be told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stripetwist.client_settings import (
    MAX_SUBFLOWS,
    ClientSettings,
    program_ports,
    proxy_open_to_others,
)
from stripetwist.core.address import Address
from stripetwist.core.agents import ANY
from stripetwist.core.config import Limits
from stripetwist.core.policy import Policy
from stripetwist.core.pool import Selector
from stripetwist.ports import Named, named_twice
from stripetwist.settings import NUMBER, CommonSettings
from stripetwist.sources import flag, option, same_option
from stripetwist.values import (
    PROXY_TABLE,
    REFUSE,
    Advertised,
    Forward,
    Network,
    ProxyPort,
    advertised,
    count,
    fallback,
    path,
    proxy_port,
    public_address,
    rule,
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
        kinds=NUMBER,
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
        kinds=NUMBER,
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
        if unheeded := self._unheeded():
            return unheeded
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
        open_to_others = next(filter(None, (proxy_open_to_others(one.listen) for one in ports)), "")
        return open_to_others or CommonSettings.complaint(self)

    def _unheeded(self) -> str:
        """What is wrong with an option about its own ports where there are none."""
        about = {
            "--exit": self.exit != Selector(ANY),
            "--fallback": self.fallback != REFUSE,
            "--from": bool(self.sources),
        }
        if self.users and not self.socks:
            name, ports = "--users", "--socks"
        elif any(about.values()) and not (self.socks or self.forwards):
            name, ports = next(one for one in about if about[one]), "--socks or --forward"
        else:
            return ""
        return (
            f"{name} says nothing of clients, only of the server's own ports; "
            f"add {ports}, or leave it out"
        )

    def ports(self) -> list[Named]:
        """As in L{CommonSettings}, with those for peers and for programs."""
        own = [("--listen", one) for one in self.listen]
        return own + program_ports(self.proxy_ports, self.forwards) + CommonSettings.ports(self)

    @property
    def proxy_ports(self) -> Sequence[ProxyPort]:
        """Those to be opened."""
        return self.socks
