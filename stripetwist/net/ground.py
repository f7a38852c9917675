"""What all sessions of a process share: time, limits, chance, and room for outgoing bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.frames import Checksum


class Holder(Protocol):
    """A session whose local producers can be told to wait."""

    @property
    def is_short(self) -> bool:
        """Whether it holds more than its share."""

    @property
    def has_room(self) -> bool:
        """Whether it holds less than that."""

    def hold(self) -> None:
        """No more for now."""

    def release(self) -> None:
        """Go on."""


class Store:
    """
    The outgoing bytes of all sessions of a process, and which of these have to wait.

    Every local socket of a session above its share is paused, until others or its own peer
    have made room.

    @ivar budget: what is held, and how much that may be.
    """

    def __init__(self, limits: Limits) -> None:
        self.budget = MemoryBudget(limits)
        self._held: set[Holder] = set()
        self._checking = False

    def leave(self, holder: Holder) -> None:
        """A session is over: what it had is there for others."""
        self._held.discard(holder)
        self._release()

    def check(self, holder: Holder) -> None:
        """A session's bytes came or went: hold it if they are too many; others may go on."""
        if holder not in self._held and holder.is_short:
            self._held.add(holder)
            holder.hold()
        self._release()

    def _release(self) -> None:
        # Who is released writes within that very call, and comes by here again.
        if self._checking or not self._held:
            return
        self._checking = True
        released: set[Holder] = set()
        try:
            while ready := {one for one in self._held if one.has_room} - released:
                holder = ready.pop()
                released.add(holder)
                self._held.discard(holder)
                holder.release()
        finally:
            self._checking = False


@dataclass(frozen=True, slots=True)
class Ground:
    """
    What all sessions of a process stand on.

    @ivar entropy: that many random bytes, fit for keys.
    @ivar checksum: makes CRC32C, for connections without TLS.
    @ivar pace: the congestion control of subflows; empty for the system's.
    """

    clock: IReactorTime
    limits: Limits
    store: Store
    entropy: Callable[[int], bytes]
    checksum: Callable[[], Checksum]
    pace: str = ""
