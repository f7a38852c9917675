"""One carried connection: a half that sends and a half that receives."""

from collections import deque
from typing import TYPE_CHECKING

from stripetwist.core.chunks import SendBuffer
from stripetwist.core.credit import ReceiveWindow, SendCredit
from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.reorder import ReorderBuffer

if TYPE_CHECKING:
    from stripetwist.core.outbox import Control

_SMALL = 2048


class Stream:
    """
    One carried TCP connection: a send half and a receive half.

    Each half ends by itself (RFC 9000, section 3): sending once its end is acknowledged,
    receiving once all bytes up to the end were taken.  A reset, from either side, ends both,
    as TCP's does.  Holds unsent and unacknowledged bytes, which the owner bounds by heeding
    C{write}, and received ones, which the granted window bounds.

    @ivar stream_id: odd if the dialer opened it.
    @ivar is_ours: whether we opened it.
    @ivar answered: whether it was accepted (by us or the peer).
    @ivar asked: whether the peer's OPEN has come (it may come after data).
    @ivar opening: our OPEN, until it is answered.
    @ivar told: whether a C{StreamReadable} is under way.
    @ivar stopped: whether the peer wants no more of our bytes.
    """

    __slots__ = (
        "_end_taken",
        "_ready",
        "answered",
        "asked",
        "credit",
        "is_ours",
        "opening",
        "received_bytes",
        "reorder",
        "send",
        "stopped",
        "stream_id",
        "told",
        "window",
    )

    def __init__(
        self, stream_id: int, is_ours: bool, send_limit: int, window: ReceiveWindow
    ) -> None:
        self.stream_id = stream_id
        self.is_ours = is_ours
        self.send = SendBuffer(stream_id)
        self.credit = SendCredit(send_limit)
        self.window = window
        self.reorder = ReorderBuffer()
        self.answered = False
        self.asked = is_ours
        self.opening: Control | None = None
        self.told = False
        self.stopped = False
        self._ready: deque[bytes] = deque()
        self._end_taken = False

    def received(self, offset: int, pieces: list[bytes], length: int, fin: bool) -> int:
        """
        Take a chunk.

        @return: how many bytes were new.
        @raise ProtocolError: beyond what was granted, or against the stream's own history.
        """
        reorder = self.reorder
        if offset + length > self.window.limit:
            if reorder.final is not None:
                raise ProtocolError(Code.FINAL_SIZE, "bytes came beyond a stream's end")
            raise ProtocolError(Code.FLOW_CONTROL, "bytes came beyond what was granted")
        if fin:
            reorder.end_at(offset + length)
            self.window.end_at(offset + length)
        elif length == 0:
            raise ProtocolError(Code.STREAM_STATE, "DATA of no bytes came without an end")
        before = reorder.next_offset + reorder.held
        ready = self._ready
        for piece in reorder.insert(offset, pieces, length, self.window.size):
            # Tiny pieces would cost many times their size while they wait.
            if len(piece) < _SMALL and ready and len(ready[-1]) < _SMALL:
                ready[-1] += piece
            else:
                ready.append(piece)
        return reorder.next_offset + reorder.held - before

    @property
    def ready(self) -> int:
        """Bytes in order that the consumer has not taken."""
        return 0 if self._end_taken else self.reorder.next_offset - self.window.consumed

    @property
    def is_readable(self) -> bool:
        """Whether C{take} has something to give."""
        return bool(self._ready) or (self.reorder.is_complete and not self._end_taken)

    def take(self, most: int) -> tuple[bytes, bool]:
        """
        The next bytes in order, at most C{most} but at least a piece; whether they are the last.

        They stay booked until C{window.take} says that the consumer took them.
        """
        pieces: list[bytes] = []
        size = 0
        ready = self._ready
        while ready and (not pieces or size + len(ready[0]) <= most):
            piece = ready.popleft()
            pieces.append(piece)
            size += len(piece)
        ended = self.reorder.is_complete and not ready
        self._end_taken |= ended
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), ended

    def may_send(self) -> bool:
        """Whether a chunk can be cut now."""
        return self.send.may_cut(self.credit.limit)

    @property
    def is_finished(self) -> bool:
        """Whether both halves are over."""
        return (self.send.is_finished or self.stopped) and self._end_taken

    def stop_reading(self) -> None:
        """Nobody will take what still comes."""
        self.reorder.discard()
        self._ready.clear()
        self.window.close()
        self._end_taken = True

    @property
    def reading_ended(self) -> bool:
        """Whether the owner has seen the end, or wants no more."""
        return self._end_taken

    def discard(self) -> int:
        """Drop everything held; how many stored outgoing bytes that frees."""
        self.stop_reading()
        return self.send.discard()


class StreamNumbers:
    """
    Which of the peer's stream ids are new, live or closed.

    Ids of one parity count up and are never used twice, but their first frames may overtake
    each other on different subflows: an id that was jumped over stays new.

    @ivar highest: the highest id seen.
    """

    def __init__(self, parity: int, most: int) -> None:
        self._parity = parity
        self._most = most
        self.highest = parity - 2
        self._gaps: set[int] = set()

    def is_new(self, stream_id: int) -> bool:
        """Whether that id has never been used."""
        return stream_id > self.highest or stream_id in self._gaps

    def use(self, stream_id: int) -> None:
        """
        An id is used now.

        @raise ProtocolError: it jumps further than any honest peer has streams.
        """
        if stream_id <= self.highest:
            self._gaps.discard(stream_id)
            return
        jumped = (stream_id - self.highest) // 2 - 1
        if jumped + len(self._gaps) > self._most:
            raise ProtocolError(Code.LIMIT, "stream numbers jump too far")
        self._gaps.update(range(self.highest + 2, stream_id, 2))
        self.highest = stream_id

    def has_parity(self, stream_id: int) -> bool:
        """Whether that side may open this id."""
        return stream_id > 0 and stream_id % 2 == self._parity % 2
