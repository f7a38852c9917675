"""The server's side of a SOCKS5 dialogue (RFC 1928, RFC 1929), without a socket."""

from dataclasses import dataclass, field
from enum import Enum, auto

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import FORM_IPV4, FORM_IPV6, FORM_NAME, Target

VERSION = 5
LOGIN_VERSION = 1
METHOD_OPEN, METHOD_LOGIN, METHOD_NONE = 0, 2, 255
CONNECT, ASSOCIATE = 1, 3

MAX_HELD = 64 * 1024
MAX_REQUEST = 4 + 1 + 255 + 2

LOGIN_RIGHT = bytes([LOGIN_VERSION, 0])
LOGIN_WRONG = bytes([LOGIN_VERSION, 1])

_REPLY_ALIKE = frozenset(range(1, 9))
_REPLY_OF = {
    Code.DNS_FAIL: 4,
    Code.DNS_TIMEOUT: 4,
    # No exit is there at all, which to a client is a network without a way.
    Code.NO_WORKER: 3,
}


def reply_code(code: Code) -> int:
    """The number that tells a SOCKS5 client why (RFC 1928, section 6); never success."""
    if code in _REPLY_ALIKE:
        return int(code)
    return _REPLY_OF.get(code, 1)


def reply(number: int) -> bytes:
    """
    The answer to a request, 0 for success.

    The bound address is left at 0.0.0.0:0: where the exit stands is not told.
    """
    return bytes([VERSION, number, 0, 1]) + bytes(6)


SUCCESS = reply(0)


def bound_reply(place: Target) -> bytes:
    """Success, and where the client's datagrams are to be sent."""
    return bytes([VERSION, 0, 0]) + place.encode()


@dataclass(frozen=True, slots=True)
class Say:
    """Bytes for the client; the dialogue goes on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """The client says who it is; L{Dialogue.login_checked} is to follow."""

    user: bytes = field(repr=False)
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connect:
    """The whole request is here; what comes behind it is for the target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Associate:
    """
    The client wants to send datagrams for as long as it stays connected.

    @ivar port: from which they will come; 0 if it does not know yet.
    """

    port: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    The dialogue is over: these bytes, then close.

    @ivar code: the reason, to be counted.
    @ivar sentence: the reason for a person; safe to log.
    """

    data: bytes
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class NotSocks:
    """
    Something else speaks here: close without a byte.

    @ivar first: the byte that gave it away.
    """

    first: int


Event = Say | Login | Connect | Associate | Refuse | NotSocks


class _Phase(Enum):
    METHODS = auto()
    LOGIN = auto()
    CHECKING = auto()
    REQUEST = auto()
    ASKED = auto()
    OVER = auto()


_LISTENING = frozenset({_Phase.METHODS, _Phase.LOGIN, _Phase.REQUEST})

_NO_METHOD = "the client speaks no login method that this port takes; "
_GIVE_LOGIN = _NO_METHOD + "give it a user name and a password"
_NO_LOGIN = _NO_METHOD + "let it connect without one"
_BAD_LOGIN = "the client's login message is malformed; SOCKS5 user name and password are needed"
_WRONG_LOGIN = "wrong user name or password; see the file given with --users"
_BAD_REQUEST = "the client's request is malformed; this port speaks SOCKS5"
_NOT_OFFERED = "SOCKS command {0} is not offered here, only {1}; let the client use that"


class Dialogue:
    """
    One client's dialogue, from its first byte to the target it asks for.

    Fed with C{received}, asked with C{next_event} until that has nothing more.  However
    the bytes are cut, the events are the same.  What the client sends ahead is kept, in
    the login's time for the parser and after the request for the target; whoever feeds
    it no more than C{room} bytes at a time keeps that below L{MAX_HELD}.

    @cvar success: what the client is told once its target has answered.
    @cvar keep: C{None}, since all that follows the request is for the target.
    @cvar mend: C{None}, since all that the target says is for the client.
    @param login: whether clients must say who they are.
    @param udp: whether they may ask for datagrams.
    """

    success = SUCCESS
    keep = mend = None

    def __init__(self, login: bool = False, udp: bool = False) -> None:
        self._commands = (CONNECT, ASSOCIATE) if udp else (CONNECT,)
        self._method = METHOD_LOGIN if login else METHOD_OPEN
        self._phase = _Phase.METHODS
        self._held = bytearray()

    @property
    def room(self) -> int:
        """How many more bytes may come now."""
        return max(0, MAX_HELD - len(self._held))

    @property
    def is_listening(self) -> bool:
        """Whether the next move is the client's: without more bytes nothing happens."""
        return self._phase in _LISTENING

    def received(self, data: bytes) -> None:
        """Take what the client sent; after the end it is thrown away."""
        if self._phase is not _Phase.OVER:
            self._held += data

    def next_event(self) -> Event | None:
        """What follows from the bytes so far, one thing at a time."""
        if not self._held:
            return None
        match self._phase:
            case _Phase.METHODS:
                return self._read_methods()
            case _Phase.LOGIN:
                return self._read_login()
            case _Phase.REQUEST:
                return self._read_request()
            case _:
                return None

    def login_checked(self, right: bool) -> Event:
        """Go on, or not, now that L{Login} has its answer."""
        if right:
            self._phase = _Phase.REQUEST
            return Say(LOGIN_RIGHT)
        return self._refuse(LOGIN_WRONG, Code.AUTH, _WRONG_LOGIN)

    def refusal(self, code: Code, sentence: str) -> bytes:
        """The bytes that tell a client that its target will not be reached."""
        return reply(reply_code(code))

    def take_early(self) -> bytes:
        """What came behind the request, for the target; once."""
        early = bytes(self._held)
        self._end()
        return early

    def _end(self) -> None:
        self._phase = _Phase.OVER
        self._held.clear()

    def _refuse(self, data: bytes, code: Code, sentence: str) -> Refuse:
        self._end()
        return Refuse(data, code, sentence)

    def _refuse_request(self, code: Code, sentence: str) -> Refuse:
        return self._refuse(reply(reply_code(code)), code, sentence)

    def _read_methods(self) -> Event | None:
        held = self._held
        if held[0] != VERSION:
            first = held[0]
            self._end()
            return NotSocks(first)
        if len(held) < 2 or len(held) < 2 + held[1]:
            return None
        end = 2 + held[1]
        offered = held[2:end]
        if self._method not in offered:
            why = _GIVE_LOGIN if self._method == METHOD_LOGIN else _NO_LOGIN
            return self._refuse(bytes([VERSION, METHOD_NONE]), Code.AUTH, why)
        del held[:end]
        self._phase = _Phase.LOGIN if self._method == METHOD_LOGIN else _Phase.REQUEST
        return Say(bytes([VERSION, self._method]))

    def _read_login(self) -> Event | None:
        held = self._held
        if held[0] != LOGIN_VERSION:
            return self._refuse(LOGIN_WRONG, Code.AUTH, _BAD_LOGIN)
        at = 1
        fields = []
        for _ in ("user", "password"):
            if len(held) <= at:
                return None
            start, end = at + 1, at + 1 + held[at]
            if start == end:
                return self._refuse(LOGIN_WRONG, Code.AUTH, _BAD_LOGIN)
            if len(held) < end:
                return None
            fields.append(bytes(held[start:end]))
            at = end
        del held[:at]
        self._phase = _Phase.CHECKING
        return Login(*fields)

    def _read_request(self) -> Event | None:
        held = self._held
        if held[0] != VERSION:
            return self._refuse_request(Code.GENERAL, _BAD_REQUEST)
        if len(held) < 4:
            return None
        if held[1] not in self._commands:
            offered = " and UDP ASSOCIATE" if ASSOCIATE in self._commands else ""
            why = _NOT_OFFERED.format(held[1], "CONNECT" + offered)
            return self._refuse_request(Code.BAD_KIND, why)
        if held[2] != 0:
            return self._refuse_request(Code.GENERAL, _BAD_REQUEST)
        if held[1] == ASSOCIATE:
            return self._read_associate()
        try:
            found = Target.decode(bytes(held[:MAX_REQUEST]), 3)
        except OpenRefused as refusal:
            return self._refuse_request(refusal.code, refusal.sentence)
        if found is None:
            return None
        target, end = found
        del held[:end]
        self._phase = _Phase.ASKED
        return Connect(target)

    def _read_associate(self) -> Event | None:
        """Of the address only the port means something: the host is the client's own."""
        held = self._held
        sizes = {FORM_IPV4: 4, FORM_IPV6: 16, FORM_NAME: 1 + held[4] if len(held) > 4 else 1}
        if held[3] not in sizes:
            return self._refuse_request(Code.BAD_ADDRESS, f"address type {held[3]} is unknown")
        end = 4 + sizes[held[3]] + 2
        if len(held) < max(end, 5):
            return None
        port = int.from_bytes(held[end - 2 : end], "big")
        del held[:end]
        self._phase = _Phase.ASKED
        return Associate(port)
