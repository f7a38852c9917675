"""Frames: what the bytes of a subflow mean once its hello is over."""

import struct
from collections.abc import Callable, Iterable

from stripetwist.core.config import KIB
from stripetwist.core.errors import MAX_SENTENCE, Code, FramingError, OpenRefused, printable
from stripetwist.core.target import ANYWHERE, MAX_NAME, Kind, OpenRequest, Target

HEADER = struct.Struct(">BBHIIQ")
HEADER_SIZE = HEADER.size
TRAILER_SIZE = 4

DATA, ACK, CREDIT, OPEN, ACCEPT, REFUSE, RESET, STOP = range(8)
PING, PONG, DGRAM, SUBFLOW_FINAL, SUBFLOW_DRAIN, GOAWAY, CLOSE = range(0x09, 0x10)
PAD = 0x80

FIN, COPY, ADDRESSED = 0x01, 0x02, 0x04

# These call for no acknowledgement: both ends would answer each other for ever.
QUIET = frozenset((ACK, PING, PONG))

NAMES = {
    DATA: "DATA",
    ACK: "ACK",
    CREDIT: "CREDIT",
    OPEN: "OPEN",
    ACCEPT: "ACCEPT",
    REFUSE: "REFUSE",
    RESET: "RESET",
    STOP: "STOP",
    PING: "PING",
    PONG: "PONG",
    DGRAM: "DGRAM",
    SUBFLOW_FINAL: "SUBFLOW_FINAL",
    SUBFLOW_DRAIN: "SUBFLOW_DRAIN",
    GOAWAY: "GOAWAY",
    CLOSE: "CLOSE",
    PAD: "PAD",
}

MAX_DATA = 256 * KIB - HEADER_SIZE
# What UDP over IPv4 can carry; and before it the longest address.
MAX_DATAGRAM = 65_507
_MAX_ADDRESS = 4 + MAX_NAME
_UNKNOWN = -1
_MAX_PAYLOAD = [_UNKNOWN] * 0x80 + [64 * KIB] * 0x80
for _type in NAMES:
    _MAX_PAYLOAD[_type] = KIB
for _type in (ACK, CREDIT, OPEN):
    _MAX_PAYLOAD[_type] = 4 * KIB
for _type in (RESET, STOP, PONG, SUBFLOW_DRAIN):
    _MAX_PAYLOAD[_type] = 0
_MAX_PAYLOAD[DGRAM] = _MAX_ADDRESS + MAX_DATAGRAM
_MAX_PAYLOAD[PAD] = 64 * KIB

# A peer that sends a byte at a time must not make us keep an object for each.
_MAX_PIECES = 32
_BYTES_PER_PIECE = 2048

# A stamp or delay on the wire counts in these.
TICK = 64e-6

Checksum = Callable[[int, bytes], int]
"""CRC32C, to be continued: the value so far, more bytes, the new value (RFC 3720, B.4)."""

Frame = tuple[int, int, int, int, int, list[bytes], int]
"""type, flags, aux, stream id, offset, payload in pieces, payload length.

A tuple because a frozen dataclass costs twenty times as much to make.
"""


def pack(kind: int, flags: int = 0, aux: int = 0, stream: int = 0, offset: int = 0) -> bytes:
    """A frame without payload."""
    return HEADER.pack(kind, flags, aux, 0, stream, offset)


def pack_with(
    payload: bytes, kind: int, flags: int = 0, aux: int = 0, stream: int = 0, offset: int = 0
) -> bytes:
    """A frame with a payload, in one piece."""
    return HEADER.pack(kind, flags, aux, len(payload), stream, offset) + payload


class FrameParser:
    """
    The frames in a subflow's bytes, however these are cut.

    Holds at most one frame.  Payloads stay the pieces that came, never copied together.
    A frame that breaks the framing ends the parsing for good.

    @ivar parsed: bytes understood so far: whole frames, and what there is of a partial one.
    @ivar error: what broke the framing, once something has.
    """

    def __init__(self, checksum: Checksum | None = None, longest: int = MAX_DATA) -> None:
        """
        @param longest: how many bytes a DATA frame may carry here.
        """
        self._checksum = checksum
        self._longest = longest
        self._trailer = TRAILER_SIZE if checksum else 0
        self.parsed = 0
        self.error: FramingError | None = None
        self._good = 0
        self._head = b""
        self._header: tuple[int, int, int, int, int, int] | None = None
        self._missing = 0
        self._pieces: list[bytes] = []

    @property
    def inside_frame(self) -> bool:
        """Whether a frame has begun that calls for an acknowledgement."""
        return self._header is not None and self._header[0] not in QUIET

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take the next bytes.

        @return: the frames they complete, in order.  After the last good one C{error} may
            be set; what follows a bad frame is ignored.
        """
        frames: list[Frame] = []
        at, size = 0, len(data)
        while at < size and self.error is None:
            if self._header is None:
                at = self._feed_header(data, at)
            else:
                take = min(self._missing, size - at)
                self._pieces.append(data if take == size else data[at : at + take])
                self._missing -= take
                at += take
                if len(self._pieces) > _MAX_PIECES:
                    self._pieces = [b"".join(self._pieces)]
            if self._header is not None and self._missing == 0 and self.error is None:
                self._complete(frames, self.parsed + at)
        if self.error is None:
            self.parsed += size
        else:
            self.parsed = self._good
        return frames

    def take_back(self, frames: Iterable[Frame]) -> None:
        """The last of the frames handed over were no good: they count as never parsed."""
        sizes = (HEADER_SIZE + frame[6] + self._trailer for frame in frames)
        self._good -= sum(sizes)
        self.parsed = self._good

    def _feed_header(self, data: bytes, at: int) -> int:
        """Read as much of a header as there is; returns where it stopped."""
        if not self._head and len(data) - at >= HEADER_SIZE:
            header = HEADER.unpack_from(data, at)
            at += HEADER_SIZE
        else:
            end = at + HEADER_SIZE - len(self._head)
            self._head += data[at:end]
            if len(self._head) < HEADER_SIZE:
                return len(data)
            header = HEADER.unpack(self._head)
            self._head = b""
            at = end
        kind, length = header[0], header[3]
        most = self._longest if kind == DATA else _MAX_PAYLOAD[kind]
        if most == _UNKNOWN:
            self.error = FramingError(Code.PROTOCOL, f"unknown frame type {kind:#04x}")
        elif length > most:
            name = NAMES.get(kind, f"{kind:#04x}")
            self.error = FramingError(Code.PROTOCOL, f"{name} of {length} bytes, at most {most}")
        self._header = header
        self._missing = length + self._trailer
        return at

    def _complete(self, frames: list[Frame], end: int) -> None:
        """Hand the frame over whose last byte has come."""
        header = self._header
        assert header is not None
        kind, flags, aux, length, stream, offset = header
        pieces, self._pieces, self._header = self._pieces, [], None
        if self._checksum is not None and not self._strip_trailer(header, pieces):
            self.error = FramingError(Code.PROTOCOL, "a frame's checksum is wrong")
            return
        self._good = end
        if len(pieces) > 2 + length // _BYTES_PER_PIECE:
            pieces = [b"".join(pieces)]
        frames.append((kind, flags, aux, stream, offset, pieces, length))

    def _strip_trailer(self, header: tuple[int, ...], pieces: list[bytes]) -> bool:
        """Cut the checksum off the pieces; whether it is right."""
        assert self._checksum is not None
        tail = b""
        while len(tail) < TRAILER_SIZE:
            tail = pieces.pop() + tail
        rest, tail = tail[:-TRAILER_SIZE], tail[-TRAILER_SIZE:]
        if rest:
            pieces.append(rest)
        value = self._checksum(0, HEADER.pack(*header))
        for piece in pieces:
            value = self._checksum(value, piece)
        return value == int.from_bytes(tail, "big")


def with_trailers(buffers: Iterable[bytes], checksum: Checksum) -> list[bytes]:
    """
    Put the checksum behind each frame of a batch.

    @param buffers: headers (or whole small frames) and DATA payloads by turns: a payload
        is what follows a buffer whose header announces more than the buffer holds.
    """
    out: list[bytes] = []
    value = owed = 0
    for buffer in buffers:
        value = checksum(value, buffer)
        owed = (
            owed - len(buffer)
            if owed
            else HEADER.unpack_from(buffer)[3] - (len(buffer) - HEADER_SIZE)
        )
        out.append(buffer)
        if owed == 0:
            out.append(value.to_bytes(TRAILER_SIZE, "big"))
            value = 0
    return out


# ---- payloads of the frames that are not data -------------------------------------------

_ACK_RECORD = struct.Struct(">IQI")
_CREDIT_RECORD = struct.Struct(">IQ")
CREDITS_PER_FRAME = 4 * KIB // _CREDIT_RECORD.size


def pack_credit(limits: Iterable[tuple[int, int]]) -> bytes:
    """CREDIT: how far each stream may be sent, (stream id, absolute offset)."""
    payload = b"".join(_CREDIT_RECORD.pack(stream, limit) for stream, limit in limits)
    return pack_with(payload, CREDIT, aux=len(payload) // _CREDIT_RECORD.size)


def parse_credit(payload: bytes) -> list[tuple[int, int]]:
    """The records of a CREDIT; raises L{FramingError} if they are cut."""
    if len(payload) % _CREDIT_RECORD.size:
        raise FramingError(Code.PROTOCOL, "CREDIT with half a record")
    return list(_CREDIT_RECORD.iter_unpack(payload))


def parse_acks(payload: bytes) -> list[tuple[int, int, int]]:
    """Other subflows' records in an ACK: (subflow id, parsed bytes, delay in microseconds)."""
    if len(payload) % _ACK_RECORD.size:
        raise FramingError(Code.PROTOCOL, "ACK with half a record")
    return list(_ACK_RECORD.iter_unpack(payload))


def pack_final(subflow: int, parsed: int) -> bytes:
    """SUBFLOW_FINAL: what was parsed of a subflow that is no more."""
    return pack_with(subflow.to_bytes(4, "big"), SUBFLOW_FINAL, offset=parsed)


def parse_final(payload: bytes) -> int:
    """The subflow a SUBFLOW_FINAL speaks of."""
    if len(payload) != 4:
        raise FramingError(Code.PROTOCOL, "SUBFLOW_FINAL without its subflow")
    return int.from_bytes(payload, "big")


def pack_text(text: str) -> bytes:
    """A sentence as payload of REFUSE, GOAWAY, CLOSE."""
    return printable(text).encode("ascii")


def parse_text(payload: bytes) -> str:
    """A peer's sentence, safe to show."""
    return printable(payload[: 2 * MAX_SENTENCE].decode("utf-8", "replace"))


def pack_datagram(
    stream: int, number: int, address: bytes, payload: bytes, copy: bool
) -> tuple[bytes, ...]:
    """DGRAM, in one piece or two: the second is the payload as it came."""
    flags = (ADDRESSED if address else 0) | (COPY if copy else 0)
    head = HEADER.pack(DGRAM, flags, 0, len(address) + len(payload), stream, number) + address
    return (head, payload) if payload else (head,)


def parse_datagram(flags: int, payload: bytes) -> tuple[bytes, Target | None]:
    """
    What a DGRAM carries, and the peer that it names.

    @raise FramingError: its address is cut.
    @raise stripetwist.core.errors.OpenRefused: it names what cannot be, or carries too much.
    """
    peer, at = None, 0
    if flags & ADDRESSED:
        decoded = Target.decode(payload)
        if decoded is None:
            raise FramingError(Code.PROTOCOL, "DGRAM without a whole address")
        peer, at = decoded
    if len(payload) - at > MAX_DATAGRAM:
        raise OpenRefused(Code.GENERAL, "a datagram is longer than any")
    return payload[at:], peer


_TLV_ADDRESS, _TLV_EXIT, _TLV_BIND, _TLV_COPIES = 1, 2, 5, 6

# A label and its value, of 63 characters each.
MAX_EXIT = 127
# On how many paths a datagram can be asked to travel.
MAX_COPIES = 2


def pack_open(stream: int, credit: int, request: OpenRequest) -> bytes:
    """OPEN: a stream, what it is to reach, and how far the other side may send on it."""
    fields: list[tuple[int, bytes]] = []
    if request.target != ANYWHERE:
        fields.append((_TLV_ADDRESS, request.target.encode()))
    if request.exit:
        fields.append((_TLV_EXIT, request.exit.encode("utf-8")))
    if request.bind is not None:
        fields.append((_TLV_BIND, request.bind.encode()))
    if request.copies > 1:
        fields.append((_TLV_COPIES, bytes([request.copies])))
    payload = b"".join(bytes([t]) + len(v).to_bytes(2, "big") + v for t, v in fields)
    return pack_with(payload, OPEN, 0, request.kind, stream, credit)


def parse_open(kind: int, payload: bytes) -> OpenRequest:
    """
    What an OPEN asks for.

    @raise FramingError: its fields are cut.
    @raise stripetwist.core.errors.OpenRefused: it asks for what cannot be.
    """
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(payload):
        end = at + 3 + int.from_bytes(payload[at + 1 : at + 3], "big")
        if end > len(payload) or at + 3 > len(payload):
            raise FramingError(Code.PROTOCOL, "OPEN with a field cut off")
        fields[payload[at]] = payload[at + 3 : end]
        at = end
    target = _address(fields, _TLV_ADDRESS)
    if target is None:
        if kind != Kind.UDP:
            raise FramingError(Code.PROTOCOL, "OPEN without a whole address")
        target = ANYWHERE
    exit_name = printable(fields.get(_TLV_EXIT, b"").decode("utf-8", "replace"), MAX_EXIT)
    copies = MAX_COPIES if fields.get(_TLV_COPIES) == bytes([MAX_COPIES]) else 1
    bind = _address(fields, _TLV_BIND)
    try:
        return OpenRequest(target, Kind(kind), exit_name, bind=bind, copies=copies)
    except ValueError:
        raise OpenRefused(
            Code.BAD_KIND, f"what it asks for, kind {kind}, is unknown here"
        ) from None


def _address(fields: dict[int, bytes], number: int) -> Target | None:
    """The address in a field, if that is there."""
    if (value := fields.get(number)) is None:
        return None
    decoded = Target.decode(value)
    if decoded is None or decoded[1] != len(value):
        raise FramingError(Code.PROTOCOL, "OPEN without a whole address")
    return decoded[0]
