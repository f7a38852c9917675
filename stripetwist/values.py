"""The values of options, made of what users write; what is wrong is a C{ValueError}'s text."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Literal

from twisted.logger import LogLevel

from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.agents import MAX_NAME, is_agent_name, is_label_word
from stripetwist.core.config import KIB, MIB
from stripetwist.core.errors import OpenRefused
from stripetwist.core.link import Link
from stripetwist.core.policy import parse_rule
from stripetwist.core.pool import Selector
from stripetwist.core.spelling import nearest
from stripetwist.core.target import Target, parse_host, parse_port
from stripetwist.sources import show

# Instead of a link: run the server side in the client's process.
LOOPBACK: Literal["loopback:"] = "loopback:"

# What becomes of a stream that no agent can take.
REFUSE, DIRECT = "refuse", "direct"

# Before the exit of one port among others.
_EXIT = ",exit="
# How tables in a file are written as texts.
PROXY_TABLE = {"listen": "", "exit": _EXIT}
FORWARD_TABLE = {"listen": "", "to": "=", "exit": _EXIT}

MIN_SIZE = 256 * KIB
MAX_SIZE = 1024 * 1024 * MIB
MAX_SECONDS = 86_400.0

_SIZE = re.compile(r"([0-9]{1,15}) ?([KMG]?)(?:I?B)?\Z")
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": 1024 * MIB}
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")
_PACE = re.compile(r"[a-z][a-z0-9_-]{0,14}\Z")
_COUNT = re.compile(r"[0-9]{1,9}\Z")

Network = IPv4Network | IPv6Network
Server = Link | Path | Literal["loopback:"]


@dataclass(frozen=True, slots=True)
class Advertised:
    """
    What links say where the server is.

    @ivar host: a name, or an address without brackets.
    @ivar port: C{None} for the one that is listened at.
    """

    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """
    A port, and the one target that it leads to.

    @ivar listen: where local programs find it.
    @ivar exit: from where that is reached; C{None} for wherever all others are.
    """

    listen: Address
    target: Target
    exit: Selector | None = None

    def __str__(self) -> str:
        return f"{self.listen}={self.target}{_marked(self.exit)}"


@dataclass(frozen=True, slots=True)
class ProxyPort:
    """
    A proxy port.

    @ivar listen: where local programs find it.
    @ivar exit: as of a L{Forward}.
    """

    listen: Address
    exit: Selector | None = None

    def __str__(self) -> str:
        return f"{self.listen}{_marked(self.exit)}"


def _marked(selector: Selector | None) -> str:
    return "" if selector is None else f"{_EXIT}{selector}"


def path(text: str) -> Path:
    """A file or folder, by its absolute path: a daemon leaves the directory it started in."""
    if "\0" in text:
        raise ValueError("there is a zero byte in it; write the name of a file")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("nobody knows that home directory; write the whole path") from None
    except OSError:
        raise ValueError("the working directory is gone; write the whole path") from None


def size(text: str) -> int:
    """A number of bytes."""
    found = _SIZE.match(text.upper())
    if not found:
        raise ValueError("it is no size; write bytes, or a number with K, M or G such as 64M")
    value = int(found[1]) * _UNITS[found[2]]
    if not MIN_SIZE <= value <= MAX_SIZE:
        raise ValueError("it is out of range; write a size from 256K to 1024G")
    return value


def prewarm(text: str) -> int | None:
    """How much filler opens the windows of a session; C{None} where the program is to say."""
    if text == "auto":
        return None
    try:
        return 0 if text == "off" else size(text)
    except ValueError:
        raise ValueError("write auto, off, or a size from 256K, such as 2M") from None


def seconds(text: str) -> float:
    """A time."""
    if not _SECONDS.match(text) or not 1 <= float(text) <= MAX_SECONDS:
        raise ValueError(f"write a number of seconds from 1 to {MAX_SECONDS:g}")
    return float(text)


def count(most: int) -> Callable[[str], int]:
    """A whole number from 1 to C{most}."""

    def read(text: str) -> int:
        if not _COUNT.match(text) or not 1 <= int(text) <= most:
            raise ValueError(f"write a whole number from 1 to {most}")
        return int(text)

    return read


def count_or_auto(most: int) -> Callable[[str], int | None]:
    """A whole number from 1 to C{most}, or C{None} where the program is to choose."""

    def read(text: str) -> int | None:
        if text == "auto":
            return None
        if not _COUNT.match(text) or not 1 <= int(text) <= most:
            raise ValueError(f"write auto, or a whole number from 1 to {most}")
        return int(text)

    return read


def congestion(text: str) -> str:
    """The name of a congestion control, as the kernel has it, or one of two words."""
    if not _PACE.match(text):
        raise ValueError("write auto, system, or the name of a congestion control such as cubic")
    return text


def log_level(text: str) -> str:
    """The name of a level of L{LogLevel}."""
    names = [level.name for level in LogLevel.iterconstants()]
    if text in names:
        return text
    near = nearest(text, names)
    hint = f"did you mean {near}?" if near else f"write one of {', '.join(names)}"
    raise ValueError(f"there is no such level; {hint}")


def public_address(text: str) -> Address:
    """A place to listen at; a port alone means every address."""
    return Address.parse(text)


def local_address(text: str) -> Address:
    """A place to listen at; a port alone means this machine only."""
    return Address.parse(text, LOOPBACK_HOST)


def forward(text: str) -> Forward:
    """A place to listen at, and where that leads; a port alone means this machine only."""
    text, selector = _own_exit(text)
    listen, equals, target = text.rpartition("=")
    host, colon, port = target.rpartition(":")
    if not (equals and colon):
        raise ValueError("write LISTEN=HOST:PORT, such as 2222=host.example.com:22")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("write an IPv6 address in brackets")
    if not _COUNT.match(port):
        raise ValueError("a port is a number from 1 to 65535")
    try:
        where = Target.of(host[1:-1] if host.startswith("[") else host, int(port))
    except OpenRefused as error:
        raise ValueError(error.sentence) from None
    return Forward(local_address(listen), where, selector)


def proxy_port(text: str) -> ProxyPort:
    """A place to listen at; a port alone means this machine only."""
    text, selector = _own_exit(text)
    return ProxyPort(local_address(text), selector)


def _own_exit(text: str) -> tuple[str, Selector | None]:
    """What stands before an exit, and the exit if there is one."""
    head, mark, name = text.partition(_EXIT)
    return head, Selector.parse(name) if mark else None


def fallback(text: str) -> str:
    """What becomes of a stream that no agent can take."""
    if text not in (REFUSE, DIRECT):
        raise ValueError(f"write {REFUSE} or {DIRECT}")
    return text


def network(text: str) -> Network:
    """A network, or a single address."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        wider = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("write an address, or a network such as 192.168.0.0/16") from None
    raise ValueError(f"it has bits beyond /{wider.prefixlen}; write {wider}")


def rule(text: str) -> str:
    """An item of what may be reached, checked."""
    parse_rule(text)
    return text


def agent_name(text: str) -> str:
    """What an agent is to be called."""
    if not is_agent_name(text):
        raise ValueError(
            f"an agent's name is 1 to {MAX_NAME} of the characters a-z, 0-9 and -, "
            "and neither any nor server"
        )
    return text


def label(text: str) -> tuple[str, str]:
    """What else an agent can be chosen by."""
    key, equals, value = text.partition("=")
    if not (equals and is_label_word(key) and is_label_word(value)):
        raise ValueError("write KEY=VALUE, each 1 to 63 of the characters a-z, 0-9, ., _ and -")
    return key, value


def server(text: str) -> Server:
    """A link, the file that holds one, or the word for the server in this process."""
    if text == LOOPBACK:
        return LOOPBACK
    if "://" in text:
        return Link.parse(text)
    found = path(text)
    if found.exists():
        return found
    if nearest(text, ["loopback"]):
        raise ValueError("write loopback: with its colon, or ./NAME for a file")
    where = "" if text.startswith(("/", "~")) else f" in {show(os.getcwd())}"
    raise ValueError(
        f"there is no file {show(text)}{where}; give the link, or the file that holds it"
    )


def advertised(text: str) -> Advertised:
    """A host, perhaps with a port."""
    host, colon, digits = text.rpartition(":")
    port = parse_port(digits)
    if not colon or text.endswith("]") or _is_address(text):
        host, port = text, 0
    elif not port:
        raise ValueError("a port is a number from 1 to 65535")
    try:
        if host.startswith("[") and host.endswith("]"):
            host = str(IPv6Address(host[1:-1]))
        return Advertised(str(parse_host(host)), port or None)
    except (OpenRefused, ValueError):
        raise ValueError("write HOST or HOST:PORT, an IPv6 address in brackets") from None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
