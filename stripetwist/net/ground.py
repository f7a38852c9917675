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

    def hold(self) -> None:
        """No more for now."""

    def release(self) -> None:
        """Go on."""


class Store:
    """
    The outgoing bytes of all sessions of a process, and those who have to wait for room.

    Above the budget's share every local socket is paused, whichever session it feeds.

    @ivar budget: what is held, and how much that may be.
    """

    def __init__(self, limits: Limits) -> None:
        self.budget = MemoryBudget(limits)
        self._holders: set[Holder] = set()
        self._full = False

    def add(self, holder: Holder) -> None:
        """One more session."""
        self._holders.add(holder)

    def remove(self, holder: Holder) -> None:
        """One less."""
        self._holders.discard(holder)
        self.check()

    def check(self) -> None:
        """Bytes came or went: hold or release everybody if that crossed a mark."""
        if not self._full and self.budget.store_is_full:
            self._full = True
            for holder in list(self._holders):
                holder.hold()
        elif self._full and self.budget.store_has_room:
            self._full = False
            for holder in list(self._holders):
                # Who is released may fill the store within this very call.
                if not self._full:
                    holder.release()


@dataclass(frozen=True, slots=True)
class Ground:
    """
    What all sessions of a process stand on.

    @ivar entropy: that many random bytes, fit for keys.
    @ivar checksum: CRC32C, for connections without TLS.
    @ivar pace: the congestion control of subflows; empty for the system's.
    """

    clock: IReactorTime
    limits: Limits
    store: Store
    entropy: Callable[[int], bytes]
    checksum: Checksum
    pace: str = ""
