"""The link: one line of text that lets a peer in and proves the server to it."""

import base64
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import Host, in_brackets, parse_host, parse_port

SECRET_SIZE = 32
PIN_SIZE = 32
MAX_PINS = 2
MAX_LINK = 4096
# What a server writes that does not know under which address it is dialed.
UNKNOWN_HOST = "HOST"

_TLS_SCHEME = "stripetwist"
_PLAIN_SCHEME = "stripetwist+plain"
_KEY_ID = re.compile(r"[a-z0-9-]{1,32}\Z")
_BASE64URL_32 = re.compile(r"[A-Za-z0-9_-]{43}\Z")

# No sentence quotes the link: whatever part is wrong might be, or contain, the secret.
_CUT = "the link is cut or mangled: {}; copy the whole line again from the server"
_HOST_UNKNOWN = (
    "the link still says HOST where the server's address belongs; "
    "write the name or address under which you reach the server in its place"
)


def is_key_id(text: str) -> bool:
    """Whether a key may be called that."""
    return _KEY_ID.match(text) is not None


def encode32(raw: bytes) -> str:
    """32 bytes as the 43 characters (base64url, no padding) that links and files carry."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode32(text: str) -> bytes | None:
    """
    The 32 bytes that C{text} stands for.

    @return: C{None} if it does not, exactly: each value has one spelling.
    """
    if not _BASE64URL_32.match(text):
        return None
    raw = base64.urlsafe_b64decode(text + "=")
    return raw if encode32(raw) == text else None


@dataclass(frozen=True, slots=True)
class Link:
    """
    What a dialer needs to know of a server; as secret as a password.

    One of three things proves the server: its pins, a certificate authority, or, on
    loopback without TLS, nothing but the key itself.

    @ivar key_id: which key.
    @ivar secret: the key's 32 bytes; never shown.
    @ivar host: a name, an address without brackets, or L{UNKNOWN_HOST}.
    @ivar port: 1 to 65535.
    @ivar pins: SHA-256 of the server's public key (SPKI); two while it changes.
    @ivar ca: whether an authority vouches for the server instead.
    @ivar plain: whether there is no TLS at all.
    """

    key_id: str
    secret: bytes = field(repr=False)
    host: str
    port: int
    pins: tuple[bytes, ...] = ()
    ca: bool = False
    plain: bool = False

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise ValueError(problem)

    def _problem(self) -> str:
        """What keeps these values from being a link, or nothing."""
        if not is_key_id(self.key_id):
            return "a link's key id is 1 to 32 of the characters a-z, 0-9 and -"
        if len(self.secret) != SECRET_SIZE:
            return f"a link's secret has {SECRET_SIZE} bytes"
        if not 0 < self.port < 65536:
            return "a link's port is 1 to 65535"
        if bool(self.pins) + self.ca + self.plain != 1:
            return "a link has pins, or says ca, or is plain: one of the three"
        if len(self.pins) > MAX_PINS or any(len(pin) != PIN_SIZE for pin in self.pins):
            return f"a link has at most {MAX_PINS} pins, of {PIN_SIZE} bytes each"
        if self.host != UNKNOWN_HOST and _parsed(self.host) is None:
            return "a link's host is a name, or an address without brackets"
        if self.plain and not _is_loopback(self.host):
            return "a plaintext link leads to this machine only; write 127.0.0.1 or [::1]"
        return ""

    @property
    def address(self) -> str:
        """C{HOST:PORT}, the part of a link that may be shown."""
        return f"{in_brackets(self.host)}:{self.port}"

    def format(self) -> str:
        """The line of text: to be kept like a password."""
        scheme = _PLAIN_SCHEME if self.plain else _TLS_SCHEME
        proof = "/ca" if self.ca else ""
        if self.pins:
            proof = "/" + ",".join(encode32(pin) for pin in self.pins)
        return f"{scheme}://{self.key_id}:{encode32(self.secret)}@{self.address}{proof}"

    @classmethod
    def parse(cls, text: str) -> "Link":
        """
        Read a link as a user hands it over.

        @raise ValueError: one sentence that says which part is wrong, and quotes none.
        """
        line = text.strip()
        if len(line) > MAX_LINK:
            raise ValueError(_CUT.format("it is far too long"))
        scheme, separator, rest = line.partition("://")
        if not separator or scheme not in (_TLS_SCHEME, _PLAIN_SCHEME):
            raise ValueError(f"this is no link: a link begins with {_TLS_SCHEME}://")
        if len(line.split()) > 1:
            raise ValueError(_CUT.format("there is a space or a line break in it"))
        authority, _, tail = rest.partition("/")
        key, at, address = authority.rpartition("@")
        if not at:
            raise ValueError(_CUT.format("there is no @ before the server's address"))
        key_id, secret = _parse_key(key)
        host, port = _parse_address(address)
        plain = scheme == _PLAIN_SCHEME
        pins, ca = ((), False) if plain else _parse_proof(tail)
        if plain:
            _check_further(tail.split("/"))
        return cls(key_id, secret, host, port, pins, ca, plain)


def _parse_key(text: str) -> tuple[str, bytes]:
    """C{KEYID:SECRET}."""
    key_id, _, rest = text.partition(":")
    if not is_key_id(key_id):
        raise ValueError(_CUT.format("its key id is none"))
    secret = decode32(rest)
    if secret is None:
        raise ValueError(_CUT.format("its secret is not whole"))
    return key_id, secret


def _parse_address(text: str) -> tuple[str, int]:
    """C{HOST:PORT}: the part that users edit, hence the plainest words."""
    host, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        raise ValueError("the link has no port; write the server's address as HOST:PORT")
    port = parse_port(digits)
    if not port:
        raise ValueError("the link's port is none; write a number from 1 to 65535 after the colon")
    if host == UNKNOWN_HOST:
        raise ValueError(_HOST_UNKNOWN)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("the link's IPv6 address has no brackets; write it as [ADDRESS]:PORT")
    parsed = _host(host)
    if parsed is None:
        raise ValueError(
            "the link's host is neither a name nor an address; "
            "write what you reach the server by between @ and the port"
        )
    return str(parsed), port


def _host(text: str) -> Host | None:
    """The host as it stands in a link, IPv6 in brackets; C{None} if it is none."""
    bracketed = text.startswith("[") and text.endswith("]")
    host = _parsed(text[1:-1] if bracketed else text)
    return host if isinstance(host, IPv6Address) == bracketed else None


def _parsed(text: str) -> Host | None:
    """The host, without the exception that would quote it."""
    try:
        return parse_host(text)
    except OpenRefused:
        return None


def _is_loopback(text: str) -> bool:
    """Whether the host is this machine, whatever any resolver says."""
    host = _parsed(text)
    return isinstance(host, IPv4Address | IPv6Address) and host.is_loopback


def _parse_proof(tail: str) -> tuple[tuple[bytes, ...], bool]:
    """C{PIN}, C{PIN,PIN} or C{ca}, and what a later version may have added behind it."""
    proof, *further = tail.split("/")
    _check_further(further)
    if proof == "ca":
        return (), True
    if not proof:
        raise ValueError(_CUT.format("its end, the pin, is missing"))
    texts = proof.split(",")
    pins = tuple(pin for pin in map(decode32, texts) if pin is not None)
    if len(pins) != len(texts) or len(pins) > MAX_PINS:
        raise ValueError(_CUT.format("its end, the pin, is not whole"))
    return pins, False


def _check_further(segments: list[str]) -> None:
    """Segments we do not know are of a later version, as long as they name themselves."""
    if any(segment and "=" not in segment for segment in segments):
        raise ValueError(_CUT.format("there is something behind its end"))
