"""The client's side of HTTP CONNECT (RFC 9110, section 9.3.6), without a socket."""

import re
from base64 import b64encode

from stripetwist.core.errors import ProxyRefused
from stripetwist.core.target import Target

MAX_HEAD = 16 * 1024

_BEGIN, _END = b"HTTP/1.", b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")
_LOGINS = re.compile(rb"^proxy-authenticate:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)

_NO_HTTP = "it answers, but not as an HTTP proxy does; if it is a SOCKS proxy write socks://"
_NO_END = "the head of its answer is longer than 16 KiB; check that it is an HTTP proxy"
_NO_LOGIN = "it wants a login: write http://USER:PASSWORD@HOST:PORT"
_WRONG_LOGIN = "it does not accept this user name and password ({status}); check both"
_OTHER_LOGIN = (
    "it takes no user name and password ({status}), only logins of other kinds, such as NTLM; "
    "have a local proxy that can do these in between"
)
_UNKNOWN = "it does not know CONNECT ({status}); check that it is an HTTP proxy"
_UNREACHED = "it does not reach {target} ({status}): check that the server is up and listens there"
_SHUT = (
    "it does not allow CONNECT to port {target.port} ({status}): "
    "many allow only 443; start the server with --listen 443"
)
_SHUT_AT_443 = "it does not allow CONNECT to {target} ({status}): ask whoever runs it to"
_STRANGE = "it answers CONNECT with {status}, which is no tunnel; see its log"


class HttpConnect:
    """
    One request for a tunnel to the server, and the answer to it.

    However the answer is cut, the outcome is the same.  Headers mean nothing to us but for
    which logins there are; holds no more than L{MAX_HEAD} and the last piece.

    @ivar kind: what it speaks with.
    @ivar first: what to say first.
    @ivar rest: what came behind the answer and belongs to the tunnel; C{None} before that.
    """

    kind = "an HTTP"

    def __init__(self, target: Target, user: bytes = b"", password: bytes = b"") -> None:
        """
        @param user: who we are, said at once; empty for nobody.
        """
        self._target = target
        self._has_login = bool(user)
        self._held = bytearray()
        self.rest: bytes | None = None
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode("ascii")
        if user:
            head += b"Proxy-Authorization: Basic " + b64encode(user + b":" + password) + b"\r\n"
        self.first = head + b"\r\n"

    def feed(self, data: bytes) -> bytes:
        """
        Take what the proxy sent.

        @return: what to say to that: nothing.
        @raise ProxyRefused: there will be no tunnel.
        """
        held = self._held
        # The end may have been cut anywhere.
        seen = max(0, len(held) - len(_END) + 1)
        held += data
        if not _BEGIN.startswith(held[: len(_BEGIN)]):
            raise ProxyRefused(_NO_HTTP, lasting=True)
        end = held.find(_END, seen, MAX_HEAD)
        if end >= 0:
            end += len(_END)
            self._read(bytes(held[:end]))
            self.rest = bytes(held[end:])
        elif len(held) >= MAX_HEAD:
            raise ProxyRefused(_NO_END, lasting=True)
        return b""

    def _read(self, head: bytes) -> None:
        found = _STATUS.match(head)
        if found is None:
            raise ProxyRefused(_NO_HTTP, lasting=True)
        status = int(found[1])
        if not 200 <= status < 300:
            sentence = self._why(status, head).format(status=status, target=self._target)
            raise ProxyRefused(sentence, lasting=status < 500)

    def _why(self, status: int, head: bytes) -> str:
        # 401 is what tinyproxy says of a wrong login.
        if status in (401, 407):
            return self._why_no_login(head)
        if status == 403:
            return _SHUT if self._target.port != 443 else _SHUT_AT_443
        if status in (400, 404, 405, 501):
            return _UNKNOWN
        return _UNREACHED if status in (500, 502, 503, 504) else _STRANGE

    def _why_no_login(self, head: bytes) -> str:
        logins = [one.lower() for one in _LOGINS.findall(head)]
        if logins and not any(b"basic" in one for one in logins):
            return _OTHER_LOGIN
        return _WRONG_LOGIN if self._has_login else _NO_LOGIN
