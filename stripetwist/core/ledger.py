"""What was written to one subflow and not yet acknowledged."""

from collections import deque
from typing import Generic, TypeVar

from stripetwist.core.errors import Code, ProtocolError

Item = TypeVar("Item")


class Ledger(Generic[Item]):
    """
    Everything written to one subflow, oldest first.

    A subflow delivers its bytes in order or not at all, so "I have parsed N bytes of it" is
    a complete selective acknowledgement of all that the first N bytes carried.

    @ivar written: bytes written since the hello.
    @ivar acked: bytes the peer says it has parsed.
    @ivar in_flight: bytes on the way, up to the last that calls for an acknowledgement.
    """

    __slots__ = ("_calls_until", "_entries", "acked", "in_flight", "written")

    def __init__(self) -> None:
        self.written = 0
        self.acked = 0
        self.in_flight = 0
        self._calls_until = 0
        self._entries: deque[tuple[int, Item | None, float]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, size: int, item: Item | None, now: float) -> None:
        """C{size} more bytes were written, carrying C{item}; they call for an acknowledgement."""
        self.written += size
        self._calls_until = self.written
        self.in_flight = self.written - self.acked
        self._entries.append((self.written, item, now))

    def note_quiet(self, size: int) -> None:
        """C{size} more bytes were written that call for no acknowledgement."""
        self.written += size

    def ack(self, parsed: int) -> tuple[list[Item], float | None]:
        """
        The peer has parsed that many bytes; an older count than the last is ignored.

        @return: the items that have arrived, and when the newest of them was written.
        @raise ProtocolError: more than was ever written.
        """
        if parsed > self.written:
            raise ProtocolError(Code.PROTOCOL, "it acknowledges bytes that were never sent")
        self.acked = max(self.acked, parsed)
        self.in_flight = max(0, self._calls_until - self.acked)
        items: list[Item] = []
        sent_at = None
        entries = self._entries
        while entries and entries[0][0] <= parsed:
            _, item, sent_at = entries.popleft()
            if item is not None:
                items.append(item)
        return items, sent_at

    def outstanding(self) -> list[Item]:
        """The items not known to have arrived, oldest first."""
        return [item for _, item, _ in self._entries if item is not None]
