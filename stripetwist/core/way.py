"""One way to the server, as users write it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import in_brackets, parse_host, parse_port

# What the kernel takes for a network card's name.
_CARD = re.compile(r"[!-.0-~]{1,15}\Z")
_COUNT = re.compile(r"[1-9][0-9]?\Z")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([KMG])\Z")
_UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}
# Bits per second.
LEAST_RATE = 8_000

# What a user's name and password may take up in either dialogue (RFC 1929, section 2).
_MAX_CREDENTIAL = 255
_WRITE = "write direct, tcp://HOST:PORT, socks://HOST:PORT or http://HOST:PORT"


class Via(Enum):
    """What stands on the way to the server, and is spoken to before it."""

    DIRECT = "direct"
    RELAY = "tcp"
    SOCKS = "socks"
    HTTP = "http"


class PathRole(Enum):
    """When a path is used: always, when the primary ones do not suffice, or when none is left."""

    PRIMARY = "primary"
    OVERFLOW = "overflow"
    BACKUP = "backup"


# The port of each, where none is written; a relay is reached at the port that the link names.
_PORTS = {Via.RELAY: 0, Via.SOCKS: 1080, Via.HTTP: 8080}


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to the server: by what, from where, and when.

    @ivar host: what stands on the way, a name or an address; empty for nothing.
    @ivar port: its port; 0 for the one that the link names.
    @ivar bind: the local address to dial from; empty for the kernel's choice.
    @ivar nic: the network card to dial from; empty for the kernel's choice.
    @ivar via: what C{host} is.
    @ivar user: who we are to a proxy; empty for nobody.
    @ivar password: what proves that to it.
    @ivar role: when it is used.
    @ivar subflows: how many connections it has; 0 for its share of all.
    @ivar rate: how much may go onto it, in bytes per second and direction; 0 for no limit.
    """

    host: str = ""
    port: int = 0
    bind: str = ""
    nic: str = ""
    via: Via = Via.DIRECT
    user: bytes = field(default=b"", repr=False)
    password: bytes = field(default=b"", repr=False)
    role: PathRole = PathRole.PRIMARY
    subflows: int = 0
    rate: int = 0

    @property
    def is_by_proxy(self) -> bool:
        """Whether what stands on the way has to be asked to lead on."""
        return self.via in (Via.SOCKS, Via.HTTP)

    @classmethod
    def parse(cls, text: str) -> "Way":
        """
        Read a path: C{direct}, or C{SCHEME://[USER:PASSWORD@]HOST[:PORT]}, and settings.

        @raise ValueError: it is none of these; the words say what to write, and no password.
        """
        place, *settings = text.split(",")
        if any("@" in setting for setting in settings):
            # What stands before the comma is then a password's first half, behind it the other.
            raise ValueError("a comma in a password is written %2C, an @ is written %40")
        found: dict[str, Any] = _place(place)
        for setting in settings:
            name, _, value = setting.partition("=")
            if (read := _SETTINGS.get(name)) is None:
                raise ValueError(f"{_KNOWN} may follow a comma")
            if name in found:
                raise ValueError(f"{name}= may stand once")
            found[name] = read(value)
        return cls(**found)

    def __str__(self) -> str:
        """As it is written, but without user and password."""
        place = "direct"
        if self.host:
            port = f":{self.port}" if self.port != _PORTS[self.via] else ""
            place = f"{self.via.value}://{in_brackets(self.host)}{port}"
        role = "" if self.role is PathRole.PRIMARY else self.role.value
        rate = f"{self.rate * 8 / 1e6:.12g}M" if self.rate else ""
        settings = (
            ("bind", self.bind),
            ("nic", self.nic),
            ("role", role),
            ("subflows", self.subflows),
            ("rate", rate),
        )
        return ",".join([place, *(f"{name}={value}" for name, value in settings if value)])


def _place(text: str) -> dict[str, Any]:
    if text == "direct":
        return {}
    scheme, slashes, rest = text.partition("://")
    if not slashes or scheme not in ("tcp", "socks", "http"):
        raise ValueError(_WRITE)
    via = Via(scheme)
    credentials, at, place = rest.rpartition("@")
    found: dict[str, Any] = {"via": via}
    if at:
        if via is Via.RELAY:
            raise ValueError("a relay asks for no password; socks:// and http:// may")
        found["user"], found["password"] = _credentials(credentials)
    found["host"], found["port"] = _host_and_port(place)
    found["port"] = found["port"] or _PORTS[via]
    return found


def _credentials(text: str) -> tuple[bytes, bytes]:
    user, colon, password = text.partition(":")
    both = unquote_to_bytes(user), unquote_to_bytes(password)
    if not colon or not all(0 < len(one) <= _MAX_CREDENTIAL for one in both) or b":" in both[0]:
        raise ValueError(
            "before the @ stand USER:PASSWORD, each of 1 to 255 bytes, "
            "with %2C for a comma, %3A for a colon and %40 for an @ in them"
        )
    return both


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, digits = text.rpartition(":")
    port = parse_port(digits)
    if not colon or text.endswith("]"):
        host, port = text, 0
    elif not port:
        raise ValueError("a port is a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("write an IPv6 address in brackets")
    try:
        return str(parse_host(host)), port
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


def _role(text: str) -> PathRole:
    try:
        return PathRole(text)
    except ValueError:
        raise ValueError(f'role= takes primary, overflow or backup, not "{text}"') from None


def _count(text: str) -> int:
    if not _COUNT.match(text) or int(text) > 64:
        raise ValueError(f'subflows= takes a number from 1 to 64, not "{text}"')
    return int(text)


def _rate(text: str) -> int:
    """Bytes per second, of a number of bits."""
    found = _RATE.match(text)
    bits = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if bits < LEAST_RATE:
        raise ValueError(
            f'rate= takes bits per second, such as 500K or 20M, from 8K on, not "{text}"'
        )
    return bits // 8


_SETTINGS: dict[str, Callable[[str], Any]] = {
    "bind": _local,
    "nic": _card,
    "role": _role,
    "subflows": _count,
    "rate": _rate,
}
_KNOWN = "bind=ADDRESS, nic=CARD, role=ROLE, subflows=N and rate=RATE"
