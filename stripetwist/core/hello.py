"""The first messages of a connection: HELLO, HELLO_ACK, CONFIRM, REJECT."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from stripetwist.core.config import Limits, PeerLimits
from stripetwist.core.errors import Code, ProtocolError

MAGIC = b"STWP"
VERSION = 1
MAX_BODY = 4096

_HEADER = struct.Struct(">4sBBBBI")
_TLV = struct.Struct(">HH")
_LIMIT = struct.Struct(">BI")
_CRITICAL = 0x8000

HELLO, HELLO_ACK, CONFIRM, REJECT = 1, 2, 3, 4
CHECKSUMS, NO_TLS = 0x01, 0x02

MODE, NONCE, SESSION, SUBFLOW = 0x8001, 0x8002, 0x8003, 0x8004
ROLE, KEY_ID = 0x8005, 0x8006
LIMITS, INSTANCE, PATH, REPLACES, AGENT, ERROR = range(0x0008, 0x000E)
MAC = 0x80FE
_UNDERSTOOD = {MODE, NONCE, SESSION, SUBFLOW, ROLE, KEY_ID, MAC}

NEW, JOIN = 1, 2
_INIT_WINDOW, _MAX_STREAMS, _SESSION_TIMEOUT, _LONGEST = 1, 3, 6, 7


class Role(IntEnum):
    """What a dialer is."""

    CLIENT = 1
    AGENT = 2


class Rejected(ProtocolError):
    """
    A hello came to nothing.

    @ivar reply: what to send before closing; empty for nothing.
    """

    def __init__(self, code: Code, reason: str, reply: bytes = b"") -> None:
        super().__init__(code, reason)
        self.reply = reply


def pack(kind: int, fields: list[tuple[int, bytes]], flags: int, spare: int = 0) -> bytes:
    """A message; C{spare} bytes of body are announced that the caller appends."""
    body = b"".join(_TLV.pack(t, len(v)) + v for t, v in fields)
    header = _HEADER.pack(MAGIC, VERSION, VERSION, kind, flags, len(body) + spare)
    return header + body


def with_mac(unsealed: bytes, mac: bytes) -> bytes:
    """A message that was packed with C{MAC_SIZE} to spare, and its proof."""
    return unsealed + _TLV.pack(MAC, len(mac)) + mac


MAC_SIZE = _TLV.size + 32


def pack_reject(code: Code, text: str, flags: int = 0) -> bytes:
    """REJECT: the connection will be closed, and why."""
    return pack(REJECT, [(ERROR, code.to_bytes(2, "big") + text.encode("ascii"))], flags)


@dataclass(frozen=True, slots=True)
class Message:
    """
    A message as it came.

    @ivar kind: C{HELLO}, C{HELLO_ACK}, C{CONFIRM} or C{REJECT}.
    @ivar fields: its values by type.
    @ivar raw: all its bytes.
    """

    kind: int
    flags: int
    fields: Mapping[int, bytes]
    raw: bytes

    def need(self, field: int, size: int) -> bytes:
        """
        A field that has to be there.

        @raise Rejected: it is not, or has another size.
        """
        value = self.fields.get(field)
        if value is None or len(value) != size:
            raise Rejected(Code.PROTOCOL, f"a hello lacks its field {field:#06x}")
        return value

    @property
    def unsealed(self) -> bytes:
        """The message as sent, cut before its proof."""
        return self.raw[:-MAC_SIZE]


class Reader:
    """
    Hello messages out of a connection's first bytes.

    Holds at most one message of bounded size.
    """

    def __init__(self) -> None:
        self._data = b""

    @property
    def rest(self) -> bytes:
        """What came after the messages taken."""
        return self._data

    def feed(self, data: bytes) -> None:
        """Keep what came."""
        self._data += data

    def take(self, *kinds: int) -> Message | None:
        """
        The next message, once it is whole.

        @raise Rejected: it is none, of another version, too long, or of another kind.
        """
        data = self._data
        if not MAGIC.startswith(data[:4]):
            raise Rejected(Code.PROTOCOL, "what came is no stripetwist hello")
        if len(data) < _HEADER.size:
            return None
        _, highest, lowest, kind, flags, length = _HEADER.unpack_from(data)
        if not 0 < length <= MAX_BODY:
            raise Rejected(Code.PROTOCOL, f"a hello of {length} bytes")
        if not lowest <= VERSION <= highest:
            raise _version_error(lowest, highest)
        if kind not in kinds:
            raise Rejected(Code.PROTOCOL, f"a hello of kind {kind} out of turn")
        end = _HEADER.size + length
        if len(data) < end:
            return None
        self._data = data[end:]
        return Message(kind, flags, fields(data[_HEADER.size : end]), data[:end])


def _version_error(lowest: int, highest: int) -> Rejected:
    text = f"version {VERSION} is spoken here, the other end speaks {lowest} to {highest}"
    return Rejected(Code.VERSION, text, pack_reject(Code.VERSION, text))


def fields(body: bytes) -> dict[int, bytes]:
    """
    The fields of a body, by type; unknown ones that are not critical stay in.

    @raise Rejected: they are cut off, stand twice, must be understood and are not, or the
        proof is not the last.
    """
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        if at + _TLV.size > len(body):
            raise Rejected(Code.PROTOCOL, "a hello with a field cut off")
        field, length = _TLV.unpack_from(body, at)
        end = at + _TLV.size + length
        if end > len(body) or field in fields:
            raise Rejected(Code.PROTOCOL, "a hello with a field cut off or twice")
        if field & _CRITICAL and field not in _UNDERSTOOD:
            raise Rejected(Code.PROTOCOL, f"a hello with a field {field:#06x} unknown here")
        fields[field] = body[at + _TLV.size : end]
        at = end
    if MAC in fields and not body.endswith(_TLV.pack(MAC, 32) + fields[MAC]):
        raise Rejected(Code.PROTOCOL, "a hello's proof is not its last field")
    return fields


def pack_limits(limits: Limits) -> bytes:
    """What the other side has to keep to, as a field's value."""
    values = [
        (_INIT_WINDOW, limits.min_window),
        (_MAX_STREAMS, limits.max_streams),
        (_SESSION_TIMEOUT, max(1, round(limits.session_timeout))),
    ]
    if limits.batch_most > limits.batch:
        values.append((_LONGEST, limits.batch_most))
    return b"".join(_LIMIT.pack(*v) for v in values)


def parse_limits(data: bytes) -> PeerLimits:
    """
    What the other side allows us; numbers that are unknown here are ignored.

    @raise Rejected: the value is cut off.
    """
    if len(data) % _LIMIT.size:
        raise Rejected(Code.PROTOCOL, "a hello with a limit cut off")
    values = dict(_LIMIT.iter_unpack(data))
    return PeerLimits(
        values.get(_INIT_WINDOW, 0),
        values.get(_MAX_STREAMS, 0),
        float(values.get(_SESSION_TIMEOUT, 60)),
        values.get(_LONGEST, 0),
    )
