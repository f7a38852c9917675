"""What a stream is asked to reach: a checked host with a port."""

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from stripetwist.core.errors import Code, OpenRefused, printable

Host = str | IPv4Address | IPv6Address

FORM_IPV4, FORM_NAME, FORM_IPV6 = 1, 3, 4
MAX_NAME = 253

# What stands between a target and why it is refused.
IS_REFUSED = " is refused: "

_PORT = re.compile(r"[0-9]{1,5}\Z")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
# getaddrinfo takes such a last label for a number, and with it the name for an address.
_NUMERIC_LABEL = re.compile(r"([0-9]+|0[xX][0-9a-fA-F]*)\Z")


class Kind(IntEnum):
    """What is asked for at the address."""

    TCP = 1
    UDP = 2
    RESOLVE = 3


def bad_name(name: str, why: str) -> OpenRefused:
    """The refusal of a name that no lookup should ever see."""
    return OpenRefused(Code.GENERAL, f'the name "{printable(name, 80)}" {why}')


def parse_host(text: str) -> Host:
    """
    A host as a user or a peer wrote it: an address where it is one, else a checked name.

    Names are refused before any lookup if a resolver could take them for something else:
    control characters, other scripts (clients send A-labels), and the number forms that
    C{getaddrinfo} accepts as addresses.

    @return: the address, or the name in lower case without its trailing dot.
    @raise OpenRefused: it is neither.
    """
    try:
        return IPv4Address(text)
    except AddressValueError:
        pass
    if ":" in text and "%" not in text:
        try:
            return IPv6Address(text)
        except AddressValueError:
            raise bad_name(text, "is no address") from None
    name = text.removesuffix(".")
    if not name:
        raise bad_name(text, "is empty")
    if len(name) > MAX_NAME:
        raise bad_name(text, f"is longer than {MAX_NAME} characters")
    labels = name.split(".")
    if not all(_LABEL.match(label) for label in labels):
        raise bad_name(text, "is no host name")
    if _NUMERIC_LABEL.match(labels[-1]):
        raise bad_name(text, "looks like an address but is none")
    return name.lower()


def parse_port(text: str) -> int:
    """A port as a user or a peer wrote it, 1 to 65535; 0 if it is none."""
    port = int(text) if _PORT.match(text) else 0
    return port if port < 65536 else 0


def in_brackets(host: str) -> str:
    """A host as it stands before a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where a stream is to go.

    @ivar host: an address, or a name that L{parse_host} has passed.
    @ivar port: 1 to 65535.
    """

    host: Host
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> "Target":
        """
        The target of a host as text, and a port.

        @raise OpenRefused: the host is malformed or the port out of range.
        """
        if not 0 < port < 65536:
            raise OpenRefused(Code.GENERAL, f"port {port} cannot be connected to")
        return cls(parse_host(host), port)

    def __str__(self) -> str:
        return f"{in_brackets(str(self.host))}:{self.port}"

    def encode(self) -> bytes:
        """The SOCKS5 form (RFC 1928, section 5): type, address, port."""
        port = self.port.to_bytes(2, "big")
        if isinstance(self.host, IPv4Address):
            return bytes([FORM_IPV4]) + self.host.packed + port
        if isinstance(self.host, IPv6Address):
            return bytes([FORM_IPV6]) + self.host.packed + port
        name = self.host.encode("ascii")
        return bytes([FORM_NAME, len(name)]) + name + port

    @classmethod
    def decode(cls, data: bytes, at: int = 0) -> "tuple[Target, int] | None":
        """
        Read the SOCKS5 form that starts at C{at}.

        @return: the target and where it ended; C{None} if more bytes are needed.
        @raise OpenRefused: unknown address type, malformed name, port 0.
        """
        if len(data) <= at:
            return None
        form = data[at]
        if form == FORM_IPV4:
            start, length = at + 1, 4
        elif form == FORM_IPV6:
            start, length = at + 1, 16
        elif form == FORM_NAME:
            if len(data) < at + 2:
                return None
            start, length = at + 2, data[at + 1]
        else:
            raise OpenRefused(Code.BAD_ADDRESS, f"address type {form} is unknown")
        end = start + length + 2
        if len(data) < end:
            return None
        raw = data[start : start + length]
        port = int.from_bytes(data[end - 2 : end], "big")
        if form == FORM_NAME:
            # Latin-1 keeps every byte, so that the name check sees what came.
            return cls.of(raw.decode("latin-1"), port), end
        host = IPv4Address(raw) if form == FORM_IPV4 else IPv6Address(raw)
        if port == 0:
            raise OpenRefused(Code.GENERAL, "port 0 cannot be connected to")
        return cls(host, port), end


def shown(target: Target) -> str:
    """A target, short enough that the reason after it is read."""
    if isinstance(target.host, str):
        return f"{printable(target.host, 80)}:{target.port}"
    return str(target)


def refusal_line(sentence: str, whom: str = "") -> str:
    """
    A refusal for the log, of somebody if that matters.

    Many sentences say themselves that they are one: that goes.  A peer may have written the
    sentence, so that what we say stands before it, whatever it is.
    """
    return f"refused{whom}: {sentence.replace(IS_REFUSED, ': ', 1)}"


# The target of an association whose datagrams each name their own.
ANYWHERE = Target(IPv4Address(0), 0)


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """
    What a front, a forward or a peer asks an opener for.

    @ivar target: where to; of an association L{ANYWHERE} if each datagram says so itself.
    @ivar kind: as what.
    @ivar exit: which exit is to reach it, by name; empty for the opener's own.
    @ivar key_id: the key of the peer that asks; empty for a local user.
    @ivar bind: of an association, where its far end is to be bound; C{None} for anywhere.
    @ivar copies: of an association, on how many paths each datagram is to travel.
    @ivar at_once: whether a session is to give its stream before the answer, so that bytes go
        with the question; a refusal then breaks it.  Nobody else heeds it.
    """

    target: Target
    kind: Kind = Kind.TCP
    exit: str = ""
    key_id: str = ""
    bind: Target | None = None
    copies: int = 1
    at_once: bool = False

    def refused(self, code: Code, why: str) -> OpenRefused:
        """A refusal of it, which names its target."""
        return OpenRefused(code, f"{shown(self.target)}{IS_REFUSED}{why}")
