"""How far each side may send, and what that can cost in memory."""

from stripetwist.core.config import MIB, Limits
from stripetwist.core.reorder import ReorderBuffer

# Frames and turns of the reactor make anything shorter a matter of chance.
_SHORTEST = 0.01


class SendCredit:
    """How far the peer allows us to send on one stream; only ever grows."""

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def raise_to(self, limit: int) -> bool:
        """Note a new limit; C{True} if it is news.  Older limits are ignored."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True


class MemoryBudget:
    """
    What all sessions of a process may hold.

    Nothing is over-promised, so no stream ever has to be ended for memory: receive promises
    stay under three quarters, and stored outgoing bytes under the last one, of which each
    session has a part; see L{SendStore}.  Datagrams have a sixteenth, beside that.

    @ivar promised: bytes that peers may still make us hold: the windows of all streams.
    @ivar stored: bytes of ours that peers have not acknowledged.
    @ivar datagrams: bytes of datagrams that wait to leave.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.promised = 0
        self.stored = 0
        self.datagrams = 0

    @property
    def limit(self) -> int:
        """The whole of it."""
        return self._limits.max_memory

    def may_open(self) -> bool:
        """Whether one more stream can have its guarantee."""
        return self.promised + self._limits.min_window <= self.limit * 3 // 4

    @property
    def left_for_datagrams(self) -> int:
        """What is left of their sixteenth; a session holds no more of them than that."""
        return self.limit // 16 - self.datagrams

    def first_window(self) -> int:
        """What a stream is granted to start with."""
        share = (self.limit // 8 - self.promised) // 4
        return max(self._limits.min_window, min(self._limits.first_window, share))

    def largest_window(self, size: int) -> int:
        """
        To what a window of that size may grow: a quarter of what it and no other has.

        A grant cannot be taken back from a stream that has gone idle, so each leaves most of
        what is left to those that come after it (dynamic thresholds, Choudhury and Hahne 1998).
        Together they grow to half of the limit: what the allocator wastes has to fit in too.
        """
        return (self.limit // 2 - self.promised + size) // 4


class SendStore:
    """
    The outgoing bytes of one session, in the budget of its process.

    A session may have as much as is left of the quarter that all of them have: half of it
    if it is alone, and whoever comes later still finds something (dynamic thresholds,
    Choudhury and Hahne 1998).  Above that its local sockets are paused.

    @ivar stored: bytes of this session's that the peer has not acknowledged.
    """

    __slots__ = ("_budget", "stored")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.stored = 0

    def add(self, count: int) -> None:
        """So many more bytes are held, or fewer."""
        self.stored += count
        self._budget.stored += count

    @property
    def _share(self) -> int:
        return self._budget.limit // 4 - self._budget.stored

    @property
    def is_full(self) -> bool:
        """Whether local sockets have to wait."""
        return self.stored > self._share

    @property
    def has_room(self) -> bool:
        """Whether those that wait may go on."""
        return self.stored <= self._share * 3 // 4


class ReceiveWindow:
    """
    What one stream's sender may send.

    The window doubles when the sender uses it up in about a round trip, while the consumer
    keeps up; it is renewed as bytes are consumed, never when they arrive.  All of it is
    booked in the process's budget, also what is not granted again yet, until the stream's
    size is known; then what can still come is.

    @ivar limit: the absolute offset granted so far.
    @ivar size: how far beyond the consumed bytes it is to reach.
    @ivar consumed: bytes that the consumer took.
    @ivar booked: its share of the budget's promises, never less than C{limit - consumed}.
    @ivar ended: whether it will never be renewed: the stream's size is known, or nobody reads.
    """

    __slots__ = (
        "_budget",
        "_grown_at",
        "_limits",
        "_measured_at",
        "_measured_from",
        "_round_trip",
        "booked",
        "consumed",
        "ended",
        "limit",
        "size",
    )

    def __init__(self, size: int, budget: MemoryBudget, limits: Limits) -> None:
        self._budget = budget
        self._limits = limits
        self._grown_at = self._measured_at = float("-inf")
        self._measured_from = 0
        self._round_trip = _SHORTEST
        self.ended = False
        self.size = size
        self.limit = size
        self.consumed = 0
        self.booked = 0
        self._book(size)

    def _book(self, size: int) -> None:
        self._budget.promised += size - self.booked
        self.booked = size

    def widen(self, size: int) -> None:
        """Grant a first window in place of the guarantee."""
        if not self.ended and size > self.size:
            self._resize(size)

    def _resize(self, size: int) -> None:
        self.size = size
        self._book(size)
        self.limit = self.consumed + size

    def take(self, count: int) -> bool:
        """The consumer took bytes; C{True} if the peer should hear of more credit."""
        self.consumed += min(count, self.limit - self.consumed)
        if self.ended:
            self._book(self.limit - self.consumed)
            return False
        if self.consumed + self.size - self.limit < self.size // 4:
            return False
        self.limit = self.consumed + self.size
        return True

    def grow(self, reorder: ReorderBuffer, waited: int, min_rtt: float, now: float) -> bool:
        """
        Double the window if it is what holds the sender back.

        That is so where the bytes of a round trip come near the window, or where those
        behind a gap do.  Bytes that wait for the consumer mean that it is he who is slow.

        @param reorder: what has come on the stream.
        @param waited: bytes that waited for the consumer before the last came.
        @return: C{True} if the peer should hear of more credit.
        """
        size = self.size
        round_trip = self._round_trip = max(min_rtt, self._round_trip)
        fast = self._comes_fast(reorder.next_offset + reorder.held, now)
        if (
            self.ended
            or not (fast or self._gap_fills(reorder))
            or size >= self._limits.max_window
            or waited > max(size // 4, self._limits.batch // 2)
            or now - self._grown_at < round_trip * 3 / 4
        ):
            return False
        more = min(size, min(self._limits.max_window, self._budget.largest_window(size)) - size)
        if more < size // 4:
            return False
        self._grown_at = now
        self._resize(size + more)
        return True

    def _comes_fast(self, came: int, now: float) -> bool:
        """Whether two fifths of the window come in a round trip, or in less."""
        elapsed = now - self._measured_at
        size: float = came - self._measured_from
        if elapsed < self._round_trip * 3 / 4:
            return size >= self.size * 2 / 5
        size *= self._round_trip / elapsed
        self._measured_at, self._measured_from = now, came
        # The longest of the subflows that carry the stream; it is forgotten with them.
        self._round_trip = max(self._round_trip / 2, _SHORTEST)
        return size >= self.size * 2 / 5

    def _gap_fills(self, reorder: ReorderBuffer) -> bool:
        """Whether what waits behind a gap leaves the sender little."""
        return self.limit - reorder.highest < self.size // 2 and reorder.held >= self.size // 4

    def end_at(self, final: int) -> None:
        """The stream's size is known: what was granted beyond it will never be used."""
        self.ended = True
        self.limit = max(self.consumed, min(self.limit, final))
        self._book(self.limit - self.consumed)

    def close(self) -> None:
        """No more will be received: give the promise back."""
        self.end_at(self.consumed)


def default_memory(total: int) -> int:
    """C{--max-memory} where none is said: a quarter of the machine, at most 256 MiB."""
    return max(16 * MIB, min(total // 4, 256 * MIB))
