"""
Endless payload that shows at a glance where its bytes belong.

Every 16 bytes are a stream id and a counter, 8 bytes each, little-endian, so that a byte
that is lost, doubled, moved or carried over from another stream is found and named.
"""

import array
from collections.abc import Iterator

RECORD = 16
PAGE = 4096
_RECORDS = PAGE // RECORD
_COUNTER_HIGH = 9
_COLUMN = [bytes([value]) * _RECORDS for value in range(256)]


class PayloadError(AssertionError):
    """The bytes that came are not the bytes that were sent."""


class _Page:
    """
    One page of a stream's payload, rewritten for whichever page is asked for.

    A page has 256 records, so the lowest byte of the counter never changes; of the others
    only the columns that differ are written anew, which makes a page cost a microsecond.
    """

    def __init__(self, stream_id: int) -> None:
        words = array.array("Q", bytes(PAGE))
        words[0::2] = array.array("Q", [stream_id]) * _RECORDS
        words[1::2] = array.array("Q", range(_RECORDS))
        self._bytes = bytearray(words.tobytes())
        self._number = 0

    def at(self, number: int) -> bytearray:
        """The page of that number; valid until another one is asked for."""
        changed = number ^ self._number
        self._number = number
        column = _COUNTER_HIGH
        while changed:
            if changed & 255:
                self._bytes[column::RECORD] = _COLUMN[number & 255]
            changed >>= 8
            number >>= 8
            column += 1
        return self._bytes


class Source:
    """The payload of one stream, from its first byte on."""

    def __init__(self, stream_id: int) -> None:
        self._page = _Page(stream_id)
        self.offset = 0

    def read(self, size: int) -> bytes:
        """The next C{size} bytes."""
        parts = []
        while size > 0:
            number, start = divmod(self.offset, PAGE)
            part = bytes(self._page.at(number)[start : start + size])
            parts.append(part)
            self.offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def blocks(self, total: int, size: int = 256 * 1024) -> Iterator[bytes]:
        """C{total} bytes in pieces of at most C{size}."""
        end = self.offset + total
        while self.offset < end:
            yield self.read(min(size, end - self.offset))


class Checker:
    """
    Compares what arrives with the payload of one stream.

    @ivar offset: how many bytes have arrived, all of them right.
    """

    def __init__(self, stream_id: int) -> None:
        self._stream_id = stream_id
        self._page = _Page(stream_id)
        self.offset = 0

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes.

        @raise PayloadError: the first wrong byte, and what stands there.
        """
        at, size = 0, len(data)
        while at < size:
            number, start = divmod(self.offset, PAGE)
            expected = self._page.at(number)[start : start + size - at]
            part = data[at : at + len(expected)]
            if part != expected:
                self._explain(part, expected)
            self.offset += len(part)
            at += len(part)

    def _explain(self, part: bytes, expected: bytes) -> None:
        wrong = next(i for i in range(len(part)) if part[i] != expected[i])
        record = max(wrong - (self.offset + wrong) % RECORD, 0)
        found = part[record : record + RECORD]
        stream_id, counter = (int.from_bytes(found[i : i + 8], "little") for i in (0, 8))
        raise PayloadError(
            f"stream {self._stream_id}: byte {self.offset + wrong} is wrong; "
            f"found the record (stream {stream_id}, offset {counter * RECORD}), {found.hex()}"
        )
