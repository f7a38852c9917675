"""The server's side of an HTTP proxy's dialogue (RFC 9110, RFC 9112), without a socket."""

import base64
import binascii
import re
from collections.abc import Sequence
from http import HTTPStatus

from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.http_answer import Answer
from stripetwist.core.http_body import Body
from stripetwist.core.socks5 import MAX_HELD, Connect, Event, Login, NotSocks, Refuse
from stripetwist.core.target import Target, parse_port

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_REQUEST = re.compile(rb"([A-Z][A-Z-]*) ([!-~]+) (HTTP/[0-9](?:\.[0-9])?)\Z")
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*\Z")
_URL = re.compile(rb"http://([^/?#]+)([^#]*)", re.IGNORECASE)
_WEB = 80

# These are for us, not for the target; and so is what Connection names.
_OURS = frozenset(
    (b"connection", b"host", b"keep-alive", b"proxy-authenticate", b"proxy-authorization")
) | {b"proxy-connection", b"te", b"upgrade"}

# Whatever Connection says, these tell where the body ends.
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))

_STATUS_OF = {
    Code.NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    Code.DNS_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Code.TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Code.BAD_KIND: HTTPStatus.NOT_IMPLEMENTED,
    Code.BAD_ADDRESS: HTTPStatus.BAD_REQUEST,
    Code.TOO_MANY_STREAMS: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.NO_WORKER: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.OVERLOAD: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.GOING_AWAY: HTTPStatus.SERVICE_UNAVAILABLE,
}

_TOO_LONG = "the head of the client's request is longer than 64 KiB"
_MALFORMED = "the head of the client's HTTP request is malformed"
_OTHER_VERSION = "this proxy speaks HTTP/1.1; let the client use that"
_NO_END = "the client's request contradicts itself as to where its body ends"
_NO_TARGET = "the client asks for a page of the proxy, which has none; give it http://HOST/PATH"
_NO_HTTPS = "the proxy reaches http:// itself and the rest by CONNECT; let the client use that"
_BAD_PORT = "the port that the client asks for is none; write a number from 1 to 65535"
_GIVE_LOGIN = "this proxy asks for a user name and a password; give them to the client"
_WRONG_LOGIN = "wrong user name or password; see the file given with --users"


def status_of(code: Code) -> HTTPStatus:
    """The status that tells an HTTP client why a target was not reached; never success."""
    return _STATUS_OF.get(code, HTTPStatus.BAD_GATEWAY)


def answer(status: HTTPStatus, sentence: str) -> bytes:
    """A whole response that says what went wrong; the connection is closed behind it."""
    body = f"{printable(sentence)}\n".encode("ascii")
    fields = ["Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close"]
    if status is HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        fields.append('Proxy-Authenticate: Basic realm="stripetwist"')
    head = "\r\n".join([f"HTTP/1.1 {status.value} {status.phrase}", *fields])
    return head.encode("ascii") + b"\r\n\r\n" + body


class _BadRequest(Exception):
    """The sentence says why."""


class HttpDialogue:
    """
    One client's dialogue, of one request; see L{stripetwist.core.socks5.Dialogue}.

    C{CONNECT} opens a tunnel.  A request for an C{http://} address is rewritten as one to
    its target, which is asked to close the connection after its answer; whatever follows
    the request's body is kept from the target.

    @ivar success: what the client is told once its target has answered.
    @ivar keep: what of the client's later bytes is for the target; C{None} for all of them.
    @ivar mend: what becomes of the target's bytes; C{None} for no change.
    @param login: whether clients must say who they are.
    """

    def __init__(self, login: bool = False) -> None:
        self._login = login
        self._held = bytearray()
        self._is_http = False
        self._searched = 0
        self._target: Target | None = None
        self._head = b""
        self._body: Body | None = None
        self._is_over = False

    @property
    def success(self) -> bytes:
        """See the class."""
        return CONNECTED if self._body is None else b""

    @property
    def keep(self) -> Body | None:
        """See the class."""
        return self._body

    @property
    def mend(self) -> Answer | None:
        """See the class."""
        return None if self._body is None else Answer()

    @property
    def room(self) -> int:
        """How many more bytes may come now."""
        return max(0, MAX_HELD - len(self._held))

    @property
    def is_listening(self) -> bool:
        """Whether the next move is the client's: without more bytes nothing happens."""
        return self._target is None and not self._is_over

    def received(self, data: bytes) -> None:
        """Take what the client sent; after the end it is thrown away."""
        if not self._is_over:
            self._held += data

    def next_event(self) -> Event | None:
        """What follows from the bytes so far."""
        if not self.is_listening:
            return None
        if not self._is_http:
            line, ended, _ = self._held.partition(b"\r\n")
            if ended and not _REQUEST.match(line):
                first = line[0]
                self._end()
                return NotSocks(first)
            self._is_http = bool(ended)
        end = self._held.find(b"\r\n\r\n", max(0, self._searched - 3))
        self._searched = len(self._held)
        if end < 0:
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            return None if self.room else self._refuse(too_long, Code.LIMIT, _TOO_LONG)
        head = bytes(self._held[:end])
        del self._held[: end + 4]
        try:
            return self._read_head(head)
        except _BadRequest as error:
            return self._refuse(HTTPStatus.BAD_REQUEST, Code.GENERAL, str(error))
        except OpenRefused as refusal:
            return self._refuse(HTTPStatus.BAD_REQUEST, refusal.code, refusal.sentence)

    def login_checked(self, right: bool) -> Event:
        """Go on, or not, now that L{Login} has its answer."""
        if right and self._target is not None:
            return Connect(self._target)
        return self._ask_for_login(_WRONG_LOGIN)

    def refusal(self, code: Code, sentence: str) -> bytes:
        """The bytes that tell a client that its target will not be reached."""
        return answer(status_of(code), sentence)

    def take_early(self) -> bytes:
        """What is for the target of what came; once."""
        early = bytes(self._held)
        if self._body is not None:
            early = self._head + self._body.take(early)
        self._end()
        return early

    def _end(self) -> None:
        self._is_over = True
        self._held.clear()

    def _refuse(self, status: HTTPStatus, code: Code, sentence: str) -> Refuse:
        self._end()
        return Refuse(answer(status, sentence), code, sentence)

    def _ask_for_login(self, sentence: str) -> Refuse:
        return self._refuse(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, Code.AUTH, sentence)

    def _read_head(self, head: bytes) -> Event:
        line, *lines = head.split(b"\r\n")
        method, where, version = line.split(b" ")
        if version not in _VERSIONS:
            other = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
            return self._refuse(other, Code.GENERAL, _OTHER_VERSION)
        fields = list(map(_field, lines))
        if method == b"CONNECT":
            self._target = _target(where, None)
        else:
            authority, path = _page(method, where)
            self._target = _target(authority, _WEB)
            self._body = _body(fields, version)
            first = [b"%b %b %b" % (method, path, version), b"Host: " + authority]
            lines = [*first, *_theirs(fields), b"Connection: close"]
            self._head = b"\r\n".join(lines) + b"\r\n\r\n"
        if not self._login:
            return Connect(self._target)
        return _login(fields) or self._ask_for_login(_GIVE_LOGIN)


def _field(line: bytes) -> tuple[bytes, bytes]:
    """A header field: its name in lower case, and the whole line."""
    found = _FIELD.match(line)
    if found is None:
        raise _BadRequest(_MALFORMED)
    return found[1].lower(), line


def _values(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of a field: of all lines that have it, and of each item there."""
    lines = [line.partition(b":")[2] for one, line in fields if one == name]
    return [item.strip(b" \t") for line in lines for item in line.split(b",")]


def _page(method: bytes, where: bytes) -> tuple[bytes, bytes]:
    """The authority and the path that an address names; C{*} for all of a server."""
    found = _URL.match(where)
    if found is None:
        raise _BadRequest(_NO_HTTPS if b"://" in where else _NO_TARGET)
    path = found[2]
    if method == b"OPTIONS" and not path:
        path = b"*"
    elif not path.startswith(b"/"):
        path = b"/" + path
    return found[1].rpartition(b"@")[2], path


def _target(authority: bytes, port: int | None) -> Target:
    """What HOST:PORT names, or HOST alone where there is a port to go by."""
    text = authority.decode("ascii")
    host, colon, digits = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, digits = text, ""
    number = port if not digits and port is not None else parse_port(digits)
    if not number:
        raise _BadRequest(_BAD_PORT)
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if is_bracketed != (":" in host):
        raise _BadRequest(_MALFORMED)
    return Target.of(host, number)


def _body(fields: Sequence[tuple[bytes, bytes]], version: bytes) -> Body:
    codings = _values(fields, b"transfer-encoding")
    try:
        if codings and version != _VERSIONS[-1]:
            raise ValueError
        return Body.of(_values(fields, b"content-length"), codings)
    except ValueError:
        raise _BadRequest(_NO_END) from None


def _theirs(fields: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The lines that are for the target."""
    ours = _OURS | {name.lower() for name in _values(fields, b"connection")} - _FRAMING
    return [line for name, line in fields if name not in ours]


def _login(fields: Sequence[tuple[bytes, bytes]]) -> Login | None:
    """Who the client says it is, if it does."""
    for value in _values(fields, b"proxy-authorization"):
        scheme, _, encoded = value.partition(b" ")
        encoded = encoded.lstrip(b" ")
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        except binascii.Error:
            continue
        if scheme.lower() == b"basic" and colon:
            return Login(user, password)
    return None
