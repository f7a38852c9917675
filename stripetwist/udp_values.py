"""UDP forwards as users write them; what is wrong is a C{ValueError}'s text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import Target, parse_port
from stripetwist.values import forward

# Fields between colons; an IPv6 address stands in brackets.
_FIELD = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::|\Z)")
_SIDES = "host:serv:rhost:rserv=host:serv:rhost:rserv"
_HOW = f"write LISTEN=HOST:PORT, such as 51820=127.0.0.1:51820, or socktopus' {_SIDES}"
# socktopus' own, for what its variables leave out.
_HOST, _PORT = "localhost", "23461"


@dataclass(frozen=True, slots=True)
class UdpPort:
    """
    A UDP port, and the one target that its datagrams lead to.

    @ivar listen: where local programs send to.
    @ivar program: the one program that is meant; C{None} for whoever sends.
    @ivar bind: where the far end is bound; C{None} for anywhere.
    """

    listen: Address
    target: Target
    program: Target | None = None
    bind: Target | None = None

    def __str__(self) -> str:
        if self.program is None:
            return f"{self.listen}={self.target}"
        return f"{self.listen}:{self.program}={self.bind}:{self.target}"


def udp_port(text: str) -> UdpPort:
    """C{LISTEN=HOST:PORT}, or socktopus' two sides of four fields each."""
    near, _, far = text.partition("=")
    if len(_fields(near)) == len(_fields(far)) == 4:
        return _sides(_fields(near), _fields(far))
    if len(_fields(far)) == 4:
        raise ValueError(f"write all eight fields, {_SIDES}")
    if not near or ":" not in far:
        raise ValueError(_HOW)
    one = forward(text)
    if one.listen.raw or one.exit is not None:
        raise ValueError(_HOW)
    return UdpPort(_literal(one.listen), one.target)


def _sides(near: list[str], far: list[str]) -> UdpPort:
    listen, program = _place(*near[:2]), _place(*near[2:])
    address = _literal(Address(str(listen.host), listen.port))
    host = ip_address(_literal(Address(str(program.host))).host)
    if ip_address(address.host).version != host.version:
        raise ValueError("write two IPv4 or two IPv6 addresses before the equals sign")
    local = Target(host, program.port)
    return UdpPort(address, _place(*far[2:]), local, _place(*far[:2]))


def _place(host: str, port: str) -> Target:
    number = parse_port(port)
    if not number:
        raise ValueError("a port is a number from 1 to 65535")
    try:
        return Target.of(host.strip("[]"), number)
    except OpenRefused as error:
        raise ValueError(error.sentence) from None


def _literal(place: Address) -> Address:
    """The same, with an address for a host: nothing is looked up before the start."""
    if place.host == "localhost":
        return Address(LOOPBACK_HOST, place.port)
    try:
        ip_address(place.host or "::")
    except ValueError:
        raise ValueError(
            "write an address of this machine, or localhost, before the port"
        ) from None
    return place


def _fields(side: str) -> list[str]:
    return [found[1] for found in _FIELD.finditer(side) if found[0]] if side else []


def socktopus_sides(environ: Mapping[str, str]) -> str:
    """What C{UDPLOC} and C{UDPREM} say, as the option would; empty if neither is there."""
    if not environ.get("UDPLOC") and not environ.get("UDPREM"):
        return ""
    return "=".join(_filled(environ.get(name, "")) for name in ("UDPLOC", "UDPREM"))


def _filled(side: str) -> str:
    """All four fields, of which those that stand are the last ones."""
    fields = _fields(side)
    defaults = [_HOST, _PORT, _HOST, _PORT]
    return ":".join([*defaults[: 4 - len(fields)], *fields])
