"""A stream's outgoing bytes: what is unsent, and the chunks that are on their way."""

from collections import deque

from stripetwist.core.errors import UsageViolation

# A chunk under _SMALL may leave only while few are on their way, or where the last _SPARE
# spanned _SPARE * _SMALL bytes.  So no window of W bytes ever holds more than about
# 2 * _SPARE + 1.6 * W / _SMALL chunks, and the receiver can bound them (reorder.py).
_SPARE = 16
_SMALL = 2048


class Chunk:
    """
    A piece of a stream whose boundary never changes, since it was sent.

    @ivar owner: whose piece it is.
    @ivar number: its place in the order of cutting.
    @ivar offset: stream offset of its first byte.
    @ivar fin: whether the stream ends with it.
    @ivar done: whether it has arrived or is no longer wanted.
    @ivar queued: whether it waits to be sent again.
    @ivar sent: whether it was sent before.
    @ivar carriers: ids of the subflows it is in flight on.
    """

    __slots__ = ("carriers", "data", "done", "fin", "number", "offset", "owner", "queued", "sent")

    def __init__(self, owner: "SendBuffer", number: int, offset: int, data: bytes, fin: bool):
        self.owner = owner
        self.number = number
        self.offset = offset
        self.data = data
        self.fin = fin
        self.done = False
        self.queued = False
        self.sent = False
        self.carriers: tuple[int, ...] = ()


class SendBuffer:
    """
    The sending half's bytes: unsent in a queue, sent ones as chunks until acknowledged.

    Bytes are cut into chunks only when a subflow can take them.  Bounded by whoever writes:
    C{unsent} and C{stored} say when to stop.

    @ivar stream_id: which stream.
    @ivar offset: stream offset of the next byte to cut.
    @ivar unsent: bytes not yet cut.
    @ivar stored: bytes held in all, unsent and unacknowledged.
    @ivar ended: whether no more will be written.
    @ivar fin_cut: whether the chunk that ends the stream was cut.
    """

    __slots__ = (
        "_chunks",
        "_cuts",
        "_head",
        "_lowest",
        "_marks",
        "_queue",
        "ended",
        "fin_cut",
        "offset",
        "stored",
        "stream_id",
        "unsent",
    )

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.offset = 0
        self.unsent = 0
        self.stored = 0
        self.ended = False
        self.fin_cut = False
        self._queue: deque[bytes] = deque()
        self._head = 0
        self._cuts = 0
        self._lowest = 0
        self._marks: deque[int] = deque(maxlen=_SPARE)
        self._chunks: dict[int, Chunk] = {}

    @property
    def is_finished(self) -> bool:
        """Whether everything, the end included, has arrived."""
        return self.fin_cut and not self._chunks

    @property
    def has_more(self) -> bool:
        """Whether there is something to cut, credit aside."""
        return self.unsent > 0 or (self.ended and not self.fin_cut)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self.ended:
            raise UsageViolation("write after end")
        if not data:
            return
        queue = self._queue
        if len(data) < _SMALL and queue and len(queue[-1]) < _SMALL:
            queue[-1] += data
        else:
            queue.append(data)
        self.unsent += len(data)
        self.stored += len(data)

    def end(self) -> None:
        """No more bytes will come."""
        self.ended = True

    def may_cut(self, limit: int) -> bool:
        """
        Whether a chunk can be cut now.

        @param limit: the offset up to which the peer may be sent.
        """
        if self.unsent:
            size = min(self.unsent, limit - self.offset)
            return size >= _SMALL or (size > 0 and not self._too_many_small())
        return self.ended and not self.fin_cut

    def _too_many_small(self) -> bool:
        """Let small bytes gather for now; those on their way are many enough."""
        if self._cuts - self._lowest_unacked() < _SPARE:
            return False
        return self.offset - self._marks[0] < _SPARE * _SMALL

    def _lowest_unacked(self) -> int:
        """Number of the first chunk that has not arrived."""
        chunks = self._chunks
        while self._lowest < self._cuts and self._lowest not in chunks:
            self._lowest += 1
        return self._lowest

    def cut(self, size: int, limit: int) -> Chunk:
        """The next chunk, of at most C{size} bytes, none beyond C{limit}."""
        data = self._take(min(size, limit - self.offset, self.unsent))
        fin = self.ended and self.unsent == 0
        chunk = Chunk(self, self._cuts, self.offset, data, fin)
        self._cuts += 1
        self._chunks[chunk.number] = chunk
        self._marks.append(self.offset)
        self.offset += len(data)
        self.fin_cut = fin
        return chunk

    def _take(self, size: int) -> bytes:
        pieces: list[bytes] = []
        missing = size
        queue = self._queue
        while missing > 0:
            first = queue[0]
            rest = len(first) - self._head
            if rest <= missing:
                pieces.append(first[self._head :] if self._head else first)
                queue.popleft()
                self._head = 0
                missing -= rest
            else:
                pieces.append(first[self._head : self._head + missing])
                self._head += missing
                missing = 0
        self.unsent -= size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def arrived(self, chunk: Chunk) -> int:
        """A chunk was acknowledged; how many bytes that frees."""
        if chunk.done:
            return 0
        chunk.done = True
        del self._chunks[chunk.number]
        freed = len(chunk.data)
        chunk.data = b""
        self.stored -= freed
        return freed

    def discard(self) -> int:
        """Drop everything: the stream was reset; how many bytes that frees."""
        for chunk in self._chunks.values():
            chunk.done = True
            chunk.data = b""
        self._chunks.clear()
        self._queue.clear()
        self._head = 0
        self.ended = self.fin_cut = True
        freed, self.stored, self.unsent = self.stored, 0, 0
        return freed
