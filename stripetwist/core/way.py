"""One way to the server, as users write it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import parse_host

_PORT = re.compile(r"[0-9]{1,5}\Z")
# What the kernel takes for a network card's name.
_CARD = re.compile(r"[!-.0-~]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to the server: by what, and from where.

    @ivar host: a relay or a DNAT that leads there, a name or an address; empty for none.
    @ivar port: the relay's; 0 for the one that the link names.
    @ivar bind: the local address to dial from; empty for the kernel's choice.
    @ivar nic: the network card to dial from; empty for the kernel's choice.
    """

    host: str = ""
    port: int = 0
    bind: str = ""
    nic: str = ""

    @classmethod
    def parse(cls, text: str) -> "Way":
        """
        Read C{direct} or C{tcp://HOST[:PORT]}, with C{,bind=ADDRESS} and C{,nic=CARD}.

        @raise ValueError: it is none of these; the words say what to write.
        """
        place, *settings = text.split(",")
        host, port = _relay(place)
        found: dict[str, str] = {}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in ("bind", "nic"):
                raise ValueError(f'bind=ADDRESS and nic=CARD may follow a comma, not "{setting}"')
            if name in found:
                raise ValueError(f"{name}= may stand once")
            found[name] = _card(value) if name == "nic" else _local(value)
        return cls(host, port, **found)

    def __str__(self) -> str:
        place = "direct"
        if self.host:
            host = f"[{self.host}]" if ":" in self.host else self.host
            place = f"tcp://{host}" + (f":{self.port}" if self.port else "")
        settings = (("bind", self.bind), ("nic", self.nic))
        return ",".join([place, *(f"{name}={value}" for name, value in settings if value)])


def _relay(text: str) -> tuple[str, int]:
    if text == "direct":
        return "", 0
    scheme, found, rest = text.partition("://")
    if scheme != "tcp" or not found:
        raise ValueError("write direct or tcp://HOST:PORT")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, "0"
    elif not _PORT.match(port) or not 0 < int(port) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("write an IPv6 address in brackets")
    try:
        return str(parse_host(host)), int(port)
    except OpenRefused:
        raise ValueError(f'"{host}" is no host name and no address') from None


def _local(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f'bind= takes an address of this machine, not "{text}"') from None


def _card(text: str) -> str:
    if not _CARD.match(text):
        raise ValueError(f'nic= takes the name of a network card, not "{text}"')
    return text
