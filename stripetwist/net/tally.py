"""Whose each of a session's streams is, and what is left for others."""

from collections import Counter


class Tally:
    """
    Whose each of a session's streams is.

    A key gets one more only while more are free than it has, so that something is left for
    whoever comes next: one key alone has half, two have a third each.  Local users, who have
    no key, get what there is.
    """

    def __init__(self) -> None:
        self._keys: dict[int, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, stream_id: int, key_id: str) -> None:
        """One more is that key's."""
        self._keys[stream_id] = key_id
        self._counts[key_id] += 1

    def discard(self, stream_id: int) -> None:
        """It is over, if it was there."""
        key_id = self._keys.pop(stream_id, None)
        if key_id is None:
            return
        self._counts[key_id] -= 1
        if not self._counts[key_id]:
            del self._counts[key_id]

    def has_room(self, key_id: str, most: int) -> bool:
        """Whether that key gets one more, where there may be so many in all."""
        held = self._counts.get(key_id, 0) if key_id else 0
        return held < most - len(self._keys)
