"""The client's side of a SOCKS5 dialogue (RFC 1928, RFC 1929), without a socket."""

from collections.abc import Callable

from stripetwist.core.errors import ProxyRefused
from stripetwist.core.socks5 import (
    CONNECT,
    LOGIN_RIGHT,
    LOGIN_VERSION,
    METHOD_LOGIN,
    METHOD_NONE,
    METHOD_OPEN,
    VERSION,
)
from stripetwist.core.target import FORM_IPV4, FORM_IPV6, FORM_NAME, Target

_NO_SOCKS = "it answers, but not as a SOCKS5 proxy does; if it is an HTTP proxy write http://"
_NO_LOGIN = "it wants a login: write socks://USER:PASSWORD@HOST:PORT"
_OTHER_LOGIN = "it takes neither a user name and password nor nobody; let it take one of these"
_WRONG_LOGIN = "it does not accept this user name and password; check both"
_SHUT = (
    "it does not allow connections to port {target.port} (2): "
    "many allow only 443; start the server with --listen 443"
)
_SHUT_AT_443 = "it does not allow connections to {target} (2): ask whoever runs it to"
_STRANGE = "it does not reach {target}, and its reason has no meaning ({code}); see its log"

# The replies of RFC 1928, section 6.
_REPLIES = {
    1: "it does not reach {target}, and does not say why (1): check that the server is up",
    2: _SHUT,
    3: "it has no way to the network of {target} (3): check the host in the link",
    4: "it does not reach the host of {target} (4): check the host in the link",
    5: "it says that {target} refuses connections (5): start the server there, or check the port",
    6: "it says that {target} does not answer (6): check the address, and its firewall",
    7: "it does not offer CONNECT (7); take a proxy that does",
    8: "it does not take addresses like that of {target} (8): write another one into the link",
}
_LASTING = frozenset({2, 7, 8})
# How long the address in a reply is, by its form.
_SIZES = {FORM_IPV4: 4, FORM_IPV6: 16}


class SocksConnect:
    """
    One request for a connection to the server, and what goes before it.

    However the proxy's bytes are cut, the outcome is the same.  Nothing is said before the
    answer to the last word has come: there are proxies that lose what is sent ahead.

    @ivar kind: what it speaks with.
    @ivar first: what to say first.
    @ivar rest: what came behind the reply and belongs to the server; C{None} before that.
    """

    kind = "a SOCKS5"

    def __init__(self, target: Target, user: bytes = b"", password: bytes = b"") -> None:
        """
        @param user: who we are, where it is asked; empty for nobody.
        """
        self._target = target
        self._login = b""
        methods = [METHOD_OPEN]
        if user:
            methods.append(METHOD_LOGIN)
            self._login = bytes([LOGIN_VERSION, len(user), *user, len(password), *password])
        self._held = bytearray()
        self._read: Callable[[], bytes | None] = self._read_method
        self.rest: bytes | None = None
        self.first = bytes([VERSION, len(methods), *methods])

    def feed(self, data: bytes) -> bytes:
        """
        Take what the proxy sent.

        @return: what to say to that.
        @raise ProxyRefused: there will be no connection.
        """
        self._held += data
        said = b""
        while self.rest is None and (words := self._read()) is not None:
            said += words
        return said

    def _read_method(self) -> bytes | None:
        held = self._held
        if held and held[0] != VERSION:
            raise ProxyRefused(_NO_SOCKS, lasting=True)
        if len(held) < 2:
            return None
        method = held[1]
        del held[:2]
        if method == METHOD_NONE:
            raise ProxyRefused(_OTHER_LOGIN if self._login else _NO_LOGIN, lasting=True)
        if method == METHOD_LOGIN and self._login:
            self._read = self._read_login
            return self._login
        if method != METHOD_OPEN:
            raise ProxyRefused(_NO_SOCKS, lasting=True)
        return self._request()

    def _read_login(self) -> bytes | None:
        held = self._held
        if held and held[0] != LOGIN_VERSION:
            raise ProxyRefused(_NO_SOCKS, lasting=True)
        if len(held) < 2:
            return None
        if held[:2] != LOGIN_RIGHT:
            raise ProxyRefused(_WRONG_LOGIN, lasting=True)
        del held[:2]
        return self._request()

    def _request(self) -> bytes:
        self._read = self._read_reply
        return bytes([VERSION, CONNECT, 0]) + self._target.encode()

    def _read_reply(self) -> bytes | None:
        held = self._held
        if held and held[0] != VERSION:
            raise ProxyRefused(_NO_SOCKS, lasting=True)
        if len(held) >= 2 and held[1]:
            raise self._refusal(held[1])
        # The form, and the length byte of a name; no address is as short as one byte.
        if len(held) < 5:
            return None
        size = 1 + held[4] if held[3] == FORM_NAME else _SIZES.get(held[3])
        if size is None:
            raise ProxyRefused(_NO_SOCKS, lasting=True)
        end = 4 + size + 2
        if len(held) < end:
            return None
        self.rest = bytes(held[end:])
        return b""

    def _refusal(self, code: int) -> ProxyRefused:
        words = _REPLIES.get(code, _STRANGE)
        if code == 2 and self._target.port == 443:
            words = _SHUT_AT_443
        return ProxyRefused(words.format(code=code, target=self._target), code in _LASTING)
