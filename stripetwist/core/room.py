"""Who has to wait before writing more."""

from collections.abc import Callable

from stripetwist.core import events
from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.stream import Stream


class Room:
    """
    The streams of a session whose owners wait for room to write.

    A stream waits while its own unsent bytes, or the stored bytes of the whole process, are
    too many; it is told once, with a C{StreamWritable}, when neither holds any more.
    """

    def __init__(
        self, limits: Limits, budget: MemoryBudget, tell: Callable[[events.Event], None]
    ) -> None:
        self._most = limits.max_unsent
        self._budget = budget
        self._tell = tell
        self._waiting: dict[int, Stream] = {}
        self._store_was_full = False

    def may_go_on(self, stream: Stream) -> bool:
        """Whether its owner may write more at once; else it waits from now on."""
        if self._is_there(stream, self._most - 1):
            return True
        self._waiting[stream.stream_id] = stream
        return False

    def _is_there(self, stream: Stream, most: int) -> bool:
        if self._budget.store_is_full:
            self._store_was_full = True
            return False
        return stream.send.unsent <= most

    def check(self, stream_id: int) -> None:
        """A stream has less to send than before; if it waits, it may be told."""
        stream = self._waiting.get(stream_id)
        if stream is not None and self._is_there(stream, self._most // 2):
            del self._waiting[stream_id]
            self._tell(events.StreamWritable(stream_id))

    def freed(self) -> None:
        """The store holds less than before."""
        if self._store_was_full and self._budget.store_has_room:
            self.check_all()

    def check_all(self) -> None:
        """The store has room."""
        self._store_was_full = False
        for stream_id in list(self._waiting):
            self.check(stream_id)

    def forget(self, stream: Stream) -> None:
        """A stream is gone."""
        self._waiting.pop(stream.stream_id, None)
