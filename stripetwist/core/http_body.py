"""How far the body of an HTTP request reaches (RFC 9112, section 6)."""

import re
from collections.abc import Sequence

_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\Z", re.DOTALL)
_MAX_LINE = 4096


class Body:
    """
    Tells what of a client's bytes belongs to its request: none behind its end.

    The bytes themselves are not changed.  Malformed chunks end it.

    @ivar is_over: whether all of it has come.
    """

    def __init__(self, length: int | None) -> None:
        """
        @param length: in bytes; C{None} if it comes in chunks that say so.
        """
        self._is_chunked = length is None
        self._left = length or 0
        self._line = b""
        self._is_behind = self._is_trailer = False
        self.is_over = length == 0

    @classmethod
    def of(cls, lengths: Sequence[bytes], codings: Sequence[bytes]) -> "Body":
        """
        The body that a request's C{Content-Length} and C{Transfer-Encoding} announce.

        @raise ValueError: they contradict each other, or announce none that has an end.
        """
        if codings:
            if lengths or [one.lower() for one in codings] != [b"chunked"]:
                raise ValueError
            return cls(None)
        if len(lengths) > 1 or not all(map(_LENGTH.match, lengths)):
            raise ValueError
        return cls(int(lengths[0]) if lengths else 0)

    def take(self, data: bytes) -> bytes:
        """The part of these bytes that belongs to it."""
        at = 0
        while at < len(data) and not self.is_over:
            at = self._skip(data, at) if self._left else self._read_line(data, at)
        return data[:at]

    def rest(self) -> bytes:
        """Nothing is held back."""
        return b""

    def _skip(self, data: bytes, at: int) -> int:
        step = min(self._left, len(data) - at)
        self._left -= step
        self.is_over = not self._left and not self._is_chunked
        return at + step

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if end:
            line, self._line = self._line, b""
            # A line that ends in a bare LF is one to some, and none to others.
            self.is_over = not line.endswith(b"\r\n")
            self._line_read(line[:-2])
        elif len(self._line) > _MAX_LINE:
            self.is_over = True
        return end or len(data)

    def _line_read(self, line: bytes) -> None:
        """A chunk's size, the empty line behind its data, or a line behind the last chunk."""
        if self._is_trailer:
            self.is_over |= not line
        elif self._is_behind:
            self._is_behind = False
            self.is_over |= bool(line)
        else:
            found = _CHUNK.match(line)
            self._left = int(found[1], 16) if found else 0
            self.is_over |= not found
            self._is_behind = self._left > 0
            self._is_trailer = not self._left
