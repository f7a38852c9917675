"""Who has to wait before writing more."""

from collections.abc import Callable

from stripetwist.core import events
from stripetwist.core.config import Limits
from stripetwist.core.credit import SendStore
from stripetwist.core.stream import Stream


class Room:
    """
    The streams of a session whose owners wait for room to write.

    A stream may hold unsent what the peer has granted and no more, so that one whose far
    consumer has stopped holds nothing here; and it waits while the session stores more than
    its share.  It is told once, with a C{StreamWritable}, when there is room again.

    @ivar was_short: whether anybody waits for the store.
    """

    def __init__(
        self, limits: Limits, store: SendStore, tell: Callable[[events.Event], None]
    ) -> None:
        self._most = limits.max_unsent
        self._store = store
        self._tell = tell
        self._waiting: dict[int, Stream] = {}
        self.was_short = False

    def left(self, stream: Stream) -> int:
        """How many bytes its owner may write now."""
        if self._store.is_full:
            self.was_short = True
            return 0
        send = stream.send
        return max(0, min(self._most, stream.credit.limit - send.offset) - send.unsent)

    def may_go_on(self, stream: Stream) -> int:
        """How many bytes more its owner may write at once; if none, it waits from now on."""
        left = self.left(stream)
        if not left:
            self._waiting[stream.stream_id] = stream
        return left

    def check(self, stream_id: int) -> None:
        """A stream has less to send, or more credit; if it waits, it may be told."""
        stream = self._waiting.get(stream_id)
        if stream is None or stream.send.unsent > self._most // 2:
            return
        if self.left(stream) or stream.stopped:
            del self._waiting[stream_id]
            self._tell(events.StreamWritable(stream_id))

    def freed(self) -> None:
        """The store holds less than before."""
        if self.was_short and self._store.has_room:
            self.check_all()

    def check_all(self) -> None:
        """The store has room."""
        self.was_short = False
        for stream_id in list(self._waiting):
            self.check(stream_id)

    def forget(self, stream: Stream) -> None:
        """A stream is gone."""
        self._waiting.pop(stream.stream_id, None)
