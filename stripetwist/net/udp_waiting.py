"""Datagrams that wait while their targets are looked up: few, and never old ones."""

from collections import deque
from collections.abc import Hashable

from stripetwist.core.config import Limits

# What one costs beside its payload, so that many empty ones are not free.
_EXTRA = 128


class Waiting:
    """
    The newest datagrams of one key, each with the lookup that it waits for.

    @ivar size: their bytes.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queue: deque[tuple[float, Hashable, bytes]] = deque()
        self.size = 0

    def put(self, lookup: Hashable, payload: bytes, now: float) -> int:
        """One more; how many others are dropped for it, or for their age."""
        self._queue.append((now, lookup, payload))
        self.size += len(payload) + _EXTRA
        before = len(self._queue)
        while self.size > self._limits.datagram_bytes:
            self._drop()
        return before - len(self._queue) + self._drop_old(now)

    def take(self, lookup: Hashable, now: float) -> tuple[list[bytes], int]:
        """Those of a lookup that is done, and how many, of any, had become too old."""
        old = self._drop_old(now)
        taken = [payload for _, whose, payload in self._queue if whose == lookup]
        self._queue = deque(one for one in self._queue if one[1] != lookup)
        self.size -= sum(len(payload) + _EXTRA for payload in taken)
        return taken, old

    def _drop_old(self, now: float) -> int:
        before = len(self._queue)
        while self._queue and self._queue[0][0] + self._limits.datagram_age <= now:
            self._drop()
        return before - len(self._queue)

    def _drop(self) -> None:
        _, _, payload = self._queue.popleft()
        self.size -= len(payload) + _EXTRA
