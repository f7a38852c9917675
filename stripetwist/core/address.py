"""Where a port is opened, as users write it."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import in_brackets, parse_host
from stripetwist.core.zones import plain

LOOPBACK_HOST = "127.0.0.1"

_PORT = re.compile(r"[0-9]{1,5}\Z")
# The kinds of endpoint that Twisted brings along; others are known by their further fields.
_ENDPOINTS = frozenset({"haproxy", "ssl", "stdio", "systemd", "tcp", "tcp6", "unix"})
_KIND = re.compile(r"[a-z][a-z0-9]*\Z")
# A zone (after %) goes into an endpoint string as it is.
_IPV6 = re.compile(r"[0-9a-fA-F:.]+(%[A-Za-z0-9_.-]+)?\Z")
_FIELD = re.compile(r"((?:[^\\:]|\\.)*)(?::|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """
    A place to listen at: a port of an interface, or whatever an endpoint string says.

    @ivar host: address or name of the interface; empty for every one, IPv4 and IPv6.
    @ivar port: 0 lets the system choose.
    @ivar raw: a Twisted endpoint string; then host and port mean nothing.
    """

    host: str = ""
    port: int = 0
    raw: str = ""

    @classmethod
    def parse(cls, text: str, bare: str = "") -> "Address":
        """
        Read C{PORT}, C{:PORT}, C{HOST:PORT}, C{[IPV6]:PORT} or an endpoint string.

        @param bare: the host that a port alone stands for; empty for every one.
        @raise ValueError: it is none of these; the words say what to write.
        """
        if _PORT.match(text):
            return cls(bare, _port(text, first=1))
        if _is_endpoint(text):
            return cls(raw=text)
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]") or not _PORT.match(port) or host.endswith(":"):
            raise ValueError(_complaint(text))
        return cls(_host(host), _port(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can come in, as far as the text alone can tell."""
        if not self.raw:
            return is_loopback(self.host)
        kind, *fields = _fields(self.raw)
        if kind == "unix":
            return True
        interfaces = [field[10:] for field in fields if field.startswith("interface=")]
        return kind in ("tcp", "tcp6") and bool(interfaces) and all(map(is_loopback, interfaces))

    def endpoint(self, dual: bool = True) -> str:
        """
        The Twisted endpoint string to listen with.

        @param dual: whether this machine can do IPv6; one such socket serves both.
        """
        if self.raw:
            return self._guarded()
        if not self.host:
            return f"tcp6:{self.port}" if dual else f"tcp:{self.port}"
        interface = self.host.replace(":", "\\:")
        return f"{'tcp6' if ':' in self.host else 'tcp'}:{self.port}:interface={interface}"

    def _guarded(self) -> str:
        """The endpoint string; a Unix socket is for this user only unless it says otherwise."""
        kind, *fields = _fields(self.raw)
        if kind != "unix" or any(field.startswith("mode=") for field in fields):
            return self.raw
        return f"{self.raw}:mode=600"

    def __str__(self) -> str:
        if self.raw:
            return self.raw
        return f"{in_brackets(self.host)}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, whatever any resolver says."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return plain(address).is_loopback


def _port(text: str, first: int = 0) -> int:
    if not first <= int(text) < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def _host(text: str) -> str:
    """The interface before the colon: nothing, a name, an address, IPv6 in brackets."""
    if not text:
        return ""
    if text.lower() == "localhost":
        return LOOPBACK_HOST
    if text.startswith("[") and text.endswith("]"):
        if not _is_ipv6(text[1:-1]):
            raise ValueError("there is no IPv6 address in the brackets")
        return str(IPv6Address(text[1:-1]))
    if ":" in text:
        raise ValueError("write an IPv6 address in brackets, such as [::1]:1080")
    try:
        return str(parse_host(text))
    except OpenRefused:
        raise ValueError(
            "the host is neither an address nor a name; write :PORT for every address"
        ) from None


def _is_endpoint(text: str) -> bool:
    """Whether it begins like an endpoint string and cannot be HOST:PORT."""
    kind, colon, rest = text.partition(":")
    if not colon or not _KIND.match(kind):
        return False
    return kind in _ENDPOINTS or ((":" in rest or "=" in rest) and not _is_ipv6(text))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return _IPV6.match(text) is not None


def _fields(text: str) -> list[str]:
    """The parts of an endpoint string, without their backslashes."""
    return [re.sub(r"\\(.)", r"\1", field) for field in _FIELD.findall(text)]


def _complaint(text: str) -> str:
    """What is missing in something that is no address."""
    if _is_ipv6(text):
        return "write an IPv6 address in brackets, with a port, such as [::1]:1080"
    host, colon, port = text.rpartition(":")
    if colon and not text.endswith("]") and (port or host.endswith(":")):
        return "a port is a number from 1 to 65535"
    return "it has no port; write PORT, :PORT, HOST:PORT or [IPV6]:PORT"
