"""A guess at the address under which others reach this machine."""

import fcntl
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

# Addresses that nobody has: nothing is sent to them, the kernel only says by which of ours it
# would go there.
_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PORT = 9
_SIOCGIFADDR = 0x8915
_IPV6_TABLE = Path("/proc/net/if_inet6")


def local_address(source: Callable[[int, str], str] | None = None) -> str | None:
    """
    A global address of this machine, IPv4 if there is one.

    @param source: tells by which address the kernel would go somewhere, or raises OSError.
    @return: C{None} behind NAT, where only the user knows.
    """
    source = source or source_address
    for family, away in _AWAY:
        with suppress(OSError, ValueError):
            address = ip_address(source(family, away))
            if address.is_global and not address.is_multicast:
                return str(address)
    return None


def source_address(family: int, away: str) -> str:
    """
    The address from which the kernel would send to another; no packet leaves.

    @raise OSError: there is no way there.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((away, _PORT))
        name: str = asking.getsockname()[0]
    return name


def interface_of(address: str) -> str | None:
    """The network card that has an address, for people; C{None} where Linux does not tell."""
    with suppress(OSError, ValueError):
        if ip_address(address).version == 6:
            return _card_of_ipv6(address)
        return _card_of_ipv4(address)
    return None


def _card_of_ipv4(address: str) -> str | None:
    """The card whose first IPv4 address it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            # A card without an IPv4 address is an error of its own.
            with suppress(OSError):
                reply = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(reply[20:24]) == address:
                    return name
    return None


def _card_of_ipv6(address: str) -> str | None:
    """The card that the kernel's table of IPv6 addresses names."""
    packed = IPv6Address(address).packed.hex()
    for line in _IPV6_TABLE.read_text("ascii", "replace").splitlines():
        digits, *_, name = line.split() or ["", ""]
        if digits == packed:
            return name
    return None
