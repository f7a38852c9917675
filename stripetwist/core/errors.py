"""What can go wrong with a peer, a target or ourselves, as codes and exceptions."""

from enum import IntEnum


class Code(IntEnum):
    """
    Why something was refused, reset or closed, as it travels on the wire.

    0 to 8 have the numbers of the SOCKS5 replies that fit them (RFC 1928, section 6).
    """

    NO_ERROR = 0
    GENERAL = 1
    NOT_ALLOWED = 2
    NET_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED_BY_TARGET = 5
    TIMEOUT = 6
    BAD_KIND = 7
    BAD_ADDRESS = 8
    DNS_FAIL = 10
    DNS_TIMEOUT = 11
    TOO_MANY_STREAMS = 12
    NO_WORKER = 13
    OVERLOAD = 14
    GOING_AWAY = 15
    PROTOCOL = 20
    FINAL_SIZE = 21
    FLOW_CONTROL = 22
    STREAM_STATE = 23
    LIMIT = 24
    AUTH = 30
    VERSION = 31
    UNKNOWN_SESSION = 32
    BUSY = 34
    DRAINED = 35
    CANCELLED = 40
    PEER_RESET = 41
    IDLE = 42
    SESSION_LOST = 43

    @classmethod
    def of(cls, number: int) -> "Code":
        """The code of that number; one we do not know is L{GENERAL}."""
        try:
            return cls(number)
        except ValueError:
            return cls.GENERAL


class StripetwistError(Exception):
    """Everything that this package raises for others to catch."""


class ProtocolError(StripetwistError):
    """
    The peer broke the rules.

    @ivar code: which one.
    @ivar reason: what it did, for the log.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class FramingError(ProtocolError):
    """The bytes of one subflow make no frames: that subflow ends, the session goes on."""


class UsageViolation(StripetwistError):
    """Our own code misused the core; never caught."""


class ProxyRefused(StripetwistError):
    """
    A proxy does not lead us to the server.

    @ivar sentence: the reason, said of C{it}, the proxy: what happened, what to do.
    @ivar lasting: whether it would say the same in a moment.
    """

    def __init__(self, sentence: str, lasting: bool) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.lasting = lasting


class OpenRefused(StripetwistError):
    """
    A target will not be reached.

    @ivar code: the reason as a number; the SOCKS reply follows from it.
    @ivar sentence: the reason for a person: what happened, where, what to do.
    """

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


MAX_SENTENCE = 256


def printable(text: str, limit: int = MAX_SENTENCE) -> str:
    """
    Text of unknown origin, made safe for a log line or a terminal.

    Anything but printable ASCII becomes a backslash escape; what is longer than C{limit} then
    is cut, and ends in three dots.
    """
    pieces = [
        c if " " <= c <= "~" and c != "\\" else c.encode("unicode_escape").decode("ascii")
        for c in text[: limit + 1]
    ]
    safe = "".join(pieces)
    return safe if len(safe) <= limit else _cut(pieces, limit - 3) + "..."


def _cut(pieces: list[str], limit: int) -> str:
    """As many of them as fit, and no half word, unless that would be much of it."""
    kept = ""
    for piece in pieces:
        if len(kept) + len(piece) > limit:
            words = (kept + piece).rpartition(" ")[0]
            return words if len(words) >= limit // 2 else kept
        kept += piece
    return kept
