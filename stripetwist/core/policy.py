"""What an exit may reach: rules by address, by name, by port."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from stripetwist.core.errors import OpenRefused, printable
from stripetwist.core.target import Kind, in_brackets, parse_host, parse_port
from stripetwist.core.zones import (
    MAPPED,
    Address,
    Network,
    Zone,
    carried,
    is_local_name,
    is_loopback_name,
    plain,
    tunnel_of,
    zone_of,
)

PORT_OF_MAIL = 25

# What a word may open; every other zone takes the address itself, or its network.
_BY_WORD = frozenset({Zone.INTERNET, Zone.LAN, Zone.LOCALHOST, Zone.SHARED, Zone.RESERVED})
# What a name may resolve to by a rule of its own: not what only the exit itself should reach.
_BY_NAME = frozenset({Zone.INTERNET, Zone.LAN, Zone.SHARED})
# Credentials live behind these, so that a wide network does not open them by the way.
_ONE_BY_ONE = frozenset({Zone.LINK_LOCAL, Zone.METADATA})

_WORDS = {
    "internet": frozenset({Zone.INTERNET}),
    "lan": frozenset({Zone.LAN}),
    "localhost": frozenset({Zone.LOCALHOST}),
    "all": frozenset(Zone),
}
_WORD_OF = {Zone.INTERNET: "internet", Zone.LAN: "lan", Zone.LOCALHOST: "localhost"}


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One item of an option, as parsed by L{parse_rule}: one of word, network and name.

    @ivar text: as the user wrote it.
    @ivar name: a host name, or one that starts with C{*.}.
    @ivar port: the only one that is meant, C{None} for all.
    @ivar kind: the only one that is meant, C{None} for all.
    """

    text: str
    word: str = ""
    network: Network | None = None
    name: str = ""
    port: int | None = None
    kind: Kind | None = None

    def fits(self, port: int, kind: Kind) -> bool:
        """Whether the rule speaks of that port and kind; a lookup alone has neither."""
        if kind is Kind.RESOLVE:
            return True
        return self.port in (None, port) and self.kind in (None, kind)

    def opens(self, port: int, kind: Kind) -> bool:
        """Whether the rule lets that port pass: C{internet} leaves out that of mail."""
        spared = self.word == "internet" and self.port is None and port == PORT_OF_MAIL
        return self.fits(port, kind) and not (spared and kind is not Kind.RESOLVE)

    def covers_name(self, name: str | None) -> bool:
        """Whether that name is meant; C{*.example.com} is what lies under it, not itself."""
        if not self.name or not name:
            return False
        return name.endswith(self.name[1:]) if self.name.startswith("*") else name == self.name

    def covers_address(self, address: Address) -> bool:
        """Whether that address is meant."""
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return bool(self.word) and (self.word == "all" or zone_of(address) in _WORDS[self.word])

    def admits(self, address: Address, name: str | None) -> bool:
        """Whether the rule, as one that allows, lets that address be dialed."""
        zone = zone_of(address)
        if self.covers_name(name):
            return zone in _BY_NAME
        if not self.covers_address(address) or zone is Zone.NOWHERE:
            return False
        if self.network is None:
            return zone in _BY_WORD
        return zone not in _ONE_BY_ONE or self.network.num_addresses == 1

    def opens_machine(self, address: Address) -> bool:
        """Whether it lets the exit's own machine be dialed at that public address of its."""
        listed = self.network is not None and self.covers_address(address)
        return listed or self.word in ("localhost", "all")


_HELP = (
    "write internet, lan, localhost, all, an address, a CIDR, NAME or *.NAME,"
    " then :PORT and /tcp or /udp if wanted"
)


def _bad_item(text: str, why: str) -> ValueError:
    return ValueError(f'the item "{printable(text, 50)}" {why}')


def parse_rule(text: str) -> Rule:
    """
    One item of C{--allow} or C{--deny}.

    @raise ValueError: it is malformed; the sentence says what to write.
    """
    item = text.strip().lower()
    kind = None
    for one in (Kind.TCP, Kind.UDP):
        if item.endswith(f"/{one.name.lower()}"):
            item, kind = item[:-4], one
    front, _, ending = item.rpartition("/")
    if front and front[-1] != "/" and ending.isalpha():
        raise _bad_item(text, f"ends in neither /tcp nor /udp; {_HELP}")
    what, port_text = _split_port(item)
    port = None
    if port_text is not None:
        port = parse_port(port_text)
        if not port:
            raise _bad_item(text, f"has no port from 1 to 65535; {_HELP}")
    if what in _WORDS:
        return Rule(text, word=what, port=port, kind=kind)
    network = _parse_network(what, text)
    if network is not None:
        return Rule(text, network=network, port=port, kind=kind)
    return Rule(text, name=_parse_name(what, text), port=port, kind=kind)


def _split_port(item: str) -> tuple[str, str | None]:
    """What comes before the port, and the port, of which brackets leave no doubt."""
    if item.startswith("[") and "]" in item:
        inside, _, rest = item[1:].partition("]")
        if not rest:
            return inside, None
        # anything but a colon after the bracket makes an empty port, which is none
        return inside, rest[1:] if rest.startswith(":") else ""
    if item.count(":") == 1:
        what, _, port = item.partition(":")
        return what, port
    return item, None


def _parse_network(what: str, text: str) -> Network | None:
    """The network that is written there, C{None} if it looks like a name."""
    if not ("/" in what or ":" in what or what.replace(".", "").isdigit()):
        return None
    try:
        network = ip_network(what, strict=False)
        start = ip_address(what.partition("/")[0])
    except ValueError:
        raise _bad_item(text, f"is no address and no CIDR; {_HELP}") from None
    if "%" in what:
        raise _bad_item(text, "names an interface; write the address alone")
    if start != network.network_address:
        why = f"has bits beyond its /{network.prefixlen}; write {network} or {start}"
        raise _bad_item(text, why)
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        # Judged addresses are plain ones: a rule in the mapped form would never meet any.
        low = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((low, network.prefixlen - 96))
    return network


def _parse_name(what: str, text: str) -> str:
    """The host name or C{*.name} that is written there."""
    star, name = ("*.", what[2:]) if what.startswith("*.") else ("", what)
    meant = [] if star or "." in name else difflib.get_close_matches(name, _WORDS, 1, 0.8)
    if meant:
        why = f'is not known; did you mean {meant[0]}?  A host of that name is "{name}."'
        raise _bad_item(text, why)
    try:
        host = parse_host(name)
    except OpenRefused:
        raise _bad_item(text, f"is not known; {_HELP}") from None
    if not isinstance(host, str):
        raise _bad_item(text, f"has a * before an address; {_HELP}")
    if is_loopback_name(host):
        raise _bad_item(text, "is the machine itself; write localhost")
    return star + host


def _allowing(text: str) -> Rule:
    """A rule that allows; refused if it would allow nothing, so that nobody believes it does."""
    rule = parse_rule(text)
    network = rule.network
    if network is None:
        return rule
    zones = {zone_of(network.network_address), zone_of(network.broadcast_address)}
    if zones == {Zone.NOWHERE}:
        raise _bad_item(text, "is no address of any machine and can never be reached")
    if network.num_addresses > 1 and zones <= _ONE_BY_ONE:
        why = "is a whole network of link-local or metadata addresses; allow them one by one"
        raise _bad_item(text, why)
    return rule


class Policy:
    """
    What may be reached, as listed by C{--allow} less C{--deny}; nothing else may.

    Asked twice: of a name before its lookup, then of the very address that is to be dialed.
    Answers with what is wrong, the middle of a sentence, or with C{None}.

    A word opens unicast addresses only: C{all} too leaves out link-local, metadata, multicast
    and tunnelled ones.  A network opens what it holds, but a link-local or metadata address
    only if it is that one address.  A name opens what it resolves to if that is public,
    private or shared; whoever wants a name for the exit's own machine allows C{localhost} too.
    An IPv6 address that carries an IPv4 address takes a network of its own, and what it
    carries must be public or allowed, and not denied.  A public address of the exit's own
    machine is its own machine.

    @ivar allow: the items that list what may be reached.
    @ivar deny: the items that cut holes.
    """

    def __init__(
        self,
        allow: Iterable[str] = ("internet",),
        deny: Iterable[str] = (),
        hint: str = "allow it there with --allow",
    ) -> None:
        """
        @param hint: what tells the reader how to change an answer; the missing item follows.
        @raise ValueError: an item is malformed.
        """
        self.allow = tuple(_allowing(text) for text in allow)
        self.deny = tuple(parse_rule(text) for text in deny)
        self._hint = hint

    def refusal_of_name(self, name: str, port: int, kind: Kind) -> str | None:
        """
        Why a name is not even looked up, C{None} if it may be.

        @param name: in lower case, without a trailing dot.
        """
        for rule in self.deny:
            if rule.fits(port, kind) and rule.covers_name(name):
                return _denied(rule)
        if is_loopback_name(name):
            return None
        opening = [rule for rule in self.allow if rule.opens(port, kind)]
        if not opening:
            return self._closed_port(name, Zone.INTERNET, port, kind)
        if any(rule.covers_name(name) for rule in opening):
            return None
        if is_local_name(name) and not any(rule.word in ("lan", "all") for rule in opening):
            return f"a name of the exit's own network; {self._hint} lan"
        if all(rule.name for rule in opening):
            return f"none of the names that are listed; {self._hint} {printable(name, 80)}"
        return None

    def refusal_of_address(
        self,
        address: Address,
        port: int,
        kind: Kind,
        name: str | None = None,
        is_own: bool = False,
    ) -> str | None:
        """
        Why an address is not dialed, C{None} if it may be.

        @param name: what it was resolved from.
        @param is_own: whether it is one of the exit's own machine.
        """
        address = plain(address)
        for rule in self.deny:
            forms = (address, *carried(address))
            covered = rule.covers_name(name) or any(map(rule.covers_address, forms))
            if covered and rule.fits(port, kind):
                return _denied(rule)
        opening = [rule for rule in self.allow if rule.opens(port, kind)]
        if not any(rule.admits(address, name) for rule in opening):
            return self._not_listed(address, port, kind, name)
        public = zone_of(address) is Zone.INTERNET
        if is_own and public and not any(rule.opens_machine(address) for rule in opening):
            # What a firewall keeps from the world outside is not kept from this machine.
            return f"{Zone.LOCALHOST.value}; {self._hint} localhost"
        for inner in carried(address):
            admitted = any(rule.admits(inner, None) for rule in opening)
            if zone_of(inner) is not Zone.INTERNET and not admitted:
                return f"it carries {inner}, {self._lacking(inner)}"
        return None

    def _not_listed(self, address: Address, port: int, kind: Kind, name: str | None) -> str:
        if any(rule.admits(address, name) for rule in self.allow):
            return self._closed_port(_item(address), zone_of(address), port, kind)
        return self._lacking(address)

    def _lacking(self, address: Address) -> str:
        """What the address is, and the item that would allow it."""
        zone = zone_of(address)
        if zone is Zone.NOWHERE:
            return str(zone.value)
        return f"{zone.value}; {self._hint} {_item(address)}"

    def _closed_port(self, item: str, zone: Zone, port: int, kind: Kind) -> str:
        """The answer where only the port, or TCP against UDP, stands in the way."""
        if not self.allow:
            return "nothing may be reached there"
        has_internet = any(rule.word == "internet" for rule in self.allow)
        if port == PORT_OF_MAIL and zone is Zone.INTERNET and has_internet:
            return f"port {port} sends mail; {self._hint} internet:{port}"
        shown = in_brackets(printable(item, 80))
        return f"{kind.name} port {port} is not listed; {self._hint} {shown}:{port}"


def _denied(rule: Rule) -> str:
    return f"denied there by --deny {printable(rule.text, 80)}"


def _item(address: Address) -> str:
    """The shortest item that allows an address for what it is."""
    zone = zone_of(address)
    if zone is Zone.TUNNEL:
        network = tunnel_of(address)
        return str(network) if network and network.prefixlen < 128 else str(address)
    if zone is Zone.SHARED:
        return "100.64.0.0/10"
    return _WORD_OF.get(zone) or str(address)
