"""Bytes that came before their turn."""

from stripetwist.core.errors import Code, ProtocolError

# An honest sender stays well below (chunks.py).
_SPARE_ENTRIES = 64
_BYTES_PER_ENTRY = 1024


class ReorderBuffer:
    """
    Bytes of one stream that arrived before their turn.

    Chunks come in any order, over any subflow, sometimes twice; they leave in stream order,
    once.  A chunk's boundaries never change once it was sent, so each is kept or dropped
    whole.  Holds at most what was granted: its size is bounded by the credit.

    @ivar next_offset: offset of the next byte to leave.
    @ivar highest: end of the highest byte that has come.
    @ivar final: the stream's size, once its end is known.
    @ivar held: bytes waiting behind the first gap.
    """

    __slots__ = ("_waiting", "final", "held", "highest", "next_offset")

    def __init__(self) -> None:
        self.next_offset = 0
        self.highest = 0
        self.final: int | None = None
        self.held = 0
        self._waiting: dict[int, tuple[list[bytes], int]] = {}

    @property
    def is_complete(self) -> bool:
        """Whether every byte up to the end has left."""
        return self.final is not None and self.next_offset == self.final

    def end_at(self, final: int) -> None:
        """
        Note the stream's size.

        @raise ProtocolError: it had another, or bytes beyond it have come.
        """
        if self.final is not None and self.final != final:
            raise ProtocolError(Code.FINAL_SIZE, "a stream's size has changed")
        if final < self.highest:
            raise ProtocolError(Code.FINAL_SIZE, "a stream ends before bytes that came")
        self.final = final

    def insert(self, offset: int, pieces: list[bytes], length: int, window: int) -> list[bytes]:
        """
        Take a chunk; a duplicate is dropped whole.

        @param window: what the stream was granted at a time; it bounds the number of chunks.
        @return: the pieces whose turn has come.
        @raise ProtocolError: bytes past the end, an overlap with other boundaries, or a
            flood of tiny chunks.
        """
        end = offset + length
        if self.final is not None and end > self.final:
            raise ProtocolError(Code.FINAL_SIZE, "bytes came beyond a stream's end")
        if offset < self.next_offset:
            if end > self.next_offset:
                raise ProtocolError(Code.STREAM_STATE, "a chunk overlaps others")
            return []
        if length == 0:
            return []
        if offset in self._waiting:
            if self._waiting[offset][1] != length:
                raise ProtocolError(Code.STREAM_STATE, "a chunk came again with another size")
            return []
        if end > self.highest:
            self.highest = end
        if offset == self.next_offset:
            return self._leave(pieces, length)
        self._keep(offset, pieces, length, window)
        return []

    def _keep(self, offset: int, pieces: list[bytes], length: int, window: int) -> None:
        self._waiting[offset] = (pieces, length)
        self.held += length
        self._check_overlap()
        if len(self._waiting) > _SPARE_ENTRIES + window // _BYTES_PER_ENTRY:
            raise ProtocolError(Code.LIMIT, "too many tiny chunks out of order")

    def _leave(self, pieces: list[bytes], length: int) -> list[bytes]:
        self.next_offset += length
        waiting = self._waiting
        if not waiting:
            return pieces
        out = list(pieces)
        while (entry := waiting.pop(self.next_offset, None)) is not None:
            out += entry[0]
            self.next_offset += entry[1]
            self.held -= entry[1]
        self._check_overlap()
        return out

    def _check_overlap(self) -> None:
        """More waits than there is room for only if boundaries differ."""
        if self.held > self.highest - self.next_offset:
            raise ProtocolError(Code.STREAM_STATE, "chunks overlap each other")

    def discard(self) -> None:
        """Drop what waits: nobody will read it."""
        self._waiting.clear()
        self.held = 0
