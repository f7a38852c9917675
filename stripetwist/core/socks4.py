"""The server's side of a SOCKS4 or SOCKS4a dialogue, without a socket."""

from ipaddress import IPv4Address

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.socks5 import MAX_HELD, Connect, Event, NotSocks, Refuse
from stripetwist.core.target import Target

VERSION = 4
CONNECT = 1
# Of the whole request; longer ones are no client's.
MAX_REQUEST = 512

GRANTED, REJECTED = 90, 91
_HEAD = 8
# 0.0.0.1 to 0.0.0.255 stand for a name behind the user (SOCKS4a).
_NAME_FOLLOWS = range(1, 256)

_ONLY_CONNECT = "SOCKS4 command {0} is not offered here, only CONNECT; let the client use that"
_TOO_LONG = "the client's SOCKS4 request does not end; let it use SOCKS5"
_NO_LOGIN = "SOCKS4 has no passwords, which this port asks for; let the client use SOCKS5 or HTTP"


def reply(number: int) -> bytes:
    """The answer to a request; the bound address is not told."""
    return bytes([0, number]) + bytes(6)


class Socks4Dialogue:
    """
    One client's dialogue; see L{stripetwist.core.socks5.Dialogue}.

    The user that a client names proves nothing and is not looked at.

    @param login: whether clients must say who they are, which none of these can.
    """

    success = reply(GRANTED)
    keep = mend = None

    def __init__(self, login: bool = False) -> None:
        self._login = login
        self._held = bytearray()
        self._is_asked = self._is_over = False

    @property
    def room(self) -> int:
        """How many more bytes may come now."""
        return max(0, MAX_HELD - len(self._held))

    @property
    def is_listening(self) -> bool:
        """Whether the next move is the client's: without more bytes nothing happens."""
        return not self._is_asked and not self._is_over

    def received(self, data: bytes) -> None:
        """Take what the client sent; after the end it is thrown away."""
        if not self._is_over:
            self._held += data

    def next_event(self) -> Event | None:
        """What follows from the bytes so far."""
        if not self.is_listening or not self._held:
            return None
        if self._held[0] != VERSION:
            first = self._held[0]
            self._end()
            return NotSocks(first)
        if self._login:
            return self._reject(Code.AUTH, _NO_LOGIN)
        if len(self._held) > 1 and self._held[1] != CONNECT:
            return self._reject(Code.BAD_KIND, _ONLY_CONNECT.format(self._held[1]))
        try:
            return self._read_request()
        except OpenRefused as refusal:
            return self._reject(refusal.code, refusal.sentence)

    def login_checked(self, right: bool) -> Event:
        """Nobody asks: there are no logins."""
        return self._reject(Code.AUTH, _NO_LOGIN)

    def refusal(self, code: Code, sentence: str) -> bytes:
        """The bytes that tell a client that its target will not be reached."""
        return reply(REJECTED)

    def take_early(self) -> bytes:
        """What came behind the request, for the target; once."""
        early = bytes(self._held)
        self._end()
        return early

    def _end(self) -> None:
        self._is_over = True
        self._held.clear()

    def _reject(self, code: Code, sentence: str) -> Refuse:
        self._end()
        return Refuse(reply(REJECTED), code, sentence)

    def _read_request(self) -> Event | None:
        request = bytes(self._held[:MAX_REQUEST])
        address = IPv4Address(request[4:_HEAD]) if len(request) >= _HEAD else IPv4Address(0)
        is_named = int(address) in _NAME_FOLLOWS
        texts = request[_HEAD:].split(b"\0", 2 if is_named else 1)
        if len(texts) < (3 if is_named else 2):
            return self._reject(Code.LIMIT, _TOO_LONG) if len(request) == MAX_REQUEST else None
        if int(address) == 0:
            raise OpenRefused(Code.GENERAL, "address 0.0.0.0 cannot be connected to")
        # Latin-1 keeps every byte, so that the name check sees what came.
        host = texts[1].decode("latin-1") if is_named else str(address)
        target = Target.of(host, int.from_bytes(request[2:4], "big"))
        del self._held[: len(request) - len(texts[-1])]
        self._is_asked = True
        return Connect(target)
