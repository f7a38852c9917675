"""Which part of the world an address or a name lies in."""

from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Zone(Enum):
    """Which part of the world an address lies in; the value says it to a person."""

    INTERNET = "a public address"
    LAN = "a private address"
    LOCALHOST = "the exit's own machine"
    SHARED = "an address that a carrier shares"
    RESERVED = "a reserved address"
    TUNNEL = "an IPv6 address that carries an IPv4 address"
    MULTICAST = "a multicast or broadcast address"
    LINK_LOCAL = "a link-local address"
    METADATA = "a cloud metadata address"
    NOWHERE = "no address of any machine"


def _networks(zone: Zone, texts: str) -> list[tuple[Network, Zone]]:
    return [(ip_network(text), zone) for text in texts.split()]


# The first that holds an address decides.  The standard library's is_global is no help: it
# holds 192.0.0.192, ::127.0.0.1, 64:ff9b::a9fe:a9fe, 2002:7f00:1:: and multicast for global.
_ZONES: dict[int, list[tuple[Network, Zone]]] = {
    4: [
        *_networks(Zone.NOWHERE, "0.0.0.0/8"),
        *_networks(Zone.LOCALHOST, "127.0.0.0/8"),
        # in this order: any cloud, Alibaba, Oracle, Azure
        *_networks(Zone.METADATA, "169.254.169.254 100.100.100.200 192.0.0.192 168.63.129.16"),
        *_networks(Zone.LINK_LOCAL, "169.254.0.0/16"),
        *_networks(Zone.LAN, "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16"),
        *_networks(Zone.SHARED, "100.64.0.0/10"),
        *_networks(Zone.RESERVED, "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15"),
        *_networks(Zone.RESERVED, "198.51.100.0/24 203.0.113.0/24"),
        *_networks(Zone.MULTICAST, "224.0.0.0/4 255.255.255.255"),
        *_networks(Zone.RESERVED, "240.0.0.0/4"),
        *_networks(Zone.INTERNET, "0.0.0.0/0"),
    ],
    6: [
        *_networks(Zone.NOWHERE, "::"),
        *_networks(Zone.LOCALHOST, "::1"),
        # Amazon, Google, Oracle, Scaleway, Akamai, Alibaba
        *_networks(Zone.METADATA, "fd00:ec2::/32 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42"),
        *_networks(Zone.METADATA, "fd00:a9fe:a9fe::1 fd00:100::100:200"),
        *_networks(Zone.LINK_LOCAL, "fe80::/10"),
        *_networks(Zone.MULTICAST, "ff00::/8"),
        *_networks(Zone.LAN, "fc00::/7"),
        *_networks(Zone.RESERVED, "2001::/23 2001:db8::/32 3fff::/20"),
        # nothing outside was ever given out as global unicast
        *_networks(Zone.INTERNET, "2000::/3"),
        *_networks(Zone.RESERVED, "::/0"),
    ],
}

MAPPED = IPv6Network("::ffff:0:0/96")
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
# IPv4-compatible, IPv4-translated, and both prefixes of NAT64: the last 32 bits
_LAST_32 = [
    IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
]
_ISATAP = 0x00005EFE
_ISATAP_BITS = 0xFCFFFFFF


def plain(address: Address) -> Address:
    """The address that a socket would really use: an IPv4-mapped one without its wrapping."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def tunnel_of(address: Address) -> IPv6Network | None:
    """The tunnelling network that an IPv6 address belongs to."""
    if not isinstance(address, IPv6Address) or int(address) <= 1:
        return None
    for network in (_6TO4, _TEREDO, *_LAST_32):
        if address in network:
            return network
    # ISATAP is told by its interface identifier, under any prefix.
    is_isatap = (int(address) >> 32) & _ISATAP_BITS == _ISATAP
    return IPv6Network(address) if is_isatap else None


def carried(address: Address) -> Sequence[IPv4Address]:
    """The IPv4 addresses within an IPv6 address of a tunnel, where its packets would go."""
    if not isinstance(address, IPv6Address) or tunnel_of(address) is None:
        return ()
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    return (IPv4Address(int(address) & 0xFFFFFFFF),)


def zone_of(address: Address) -> Zone:
    """The zone of an address, an IPv4-mapped one being the IPv4 address."""
    address = plain(address)
    zone = next(zone for network, zone in _ZONES[address.version] if address in network)
    if zone in (Zone.INTERNET, Zone.LAN, Zone.RESERVED) and tunnel_of(address):
        return Zone.TUNNEL
    return zone


def is_loopback_name(name: str) -> bool:
    """Whether it is C{localhost} or under it: this machine, never looked up (RFC 6761)."""
    return name == "localhost" or name.endswith(".localhost")


def is_local_name(name: str) -> bool:
    """Whether it is a name of some private network, without a meaning elsewhere."""
    return name.endswith((".local", ".internal")) or name in ("local", "internal")
