"""Which of a session's subflows are called for, by the roles and rates of their paths."""

from collections.abc import Iterable

from stripetwist.core.bucket import NEVER, Bucket
from stripetwist.core.pace import INITIAL_WINDOW
from stripetwist.core.subflow import Subflow
from stripetwist.core.way import PathRole

_RANKS = {PathRole.PRIMARY: 0, PathRole.OVERFLOW: 1, PathRole.BACKUP: 2}
# What the primary ones deliver within this time still fits onto them.
_FITS = 0.1
# For how long to take the round trip of one that has none.
_SOME_TIME = 0.05


class Paths:
    """
    Roles and rates of the paths that a session's subflows take.

    Each end applies them to what it sends.

    @ivar limited: what those with a limited rate may carry, by number.
    """

    def __init__(self) -> None:
        self.limited: dict[int, Bucket] = {}

    # ---- rates

    def limit(self, path: int, rate: int, now: float) -> None:
        """All its subflows together carry so many bytes per second; 0 for no limit."""
        if not rate:
            self.limited.pop(path, None)
        elif path not in self.limited or self.limited[path].rate != rate:
            self.limited[path] = Bucket(rate, now)

    def forget(self, path: int) -> None:
        """It has no subflow any more."""
        self.limited.pop(path, None)

    def room(self, subflow: Subflow, now: float) -> float:
        """How many bytes its path may carry now."""
        bucket = self.limited.get(subflow.path)
        return NEVER if bucket is None else bucket.room(now)

    def saved(self, subflow: Subflow) -> float:
        """How many bytes its path may save up: to wait for more would make datagrams too old."""
        bucket = self.limited.get(subflow.path)
        return NEVER if bucket is None else bucket.most

    def spend(self, subflow: Subflow, size: int, now: float) -> None:
        """So many bytes are written to it."""
        if (bucket := self.limited.get(subflow.path)) is not None:
            bucket.spend(size, now)

    def reopens_at(self) -> float:
        """When the next of those that may carry nothing for now may carry more."""
        return min((bucket.reopens_at for bucket in self.limited.values()), default=NEVER)

    def look(self, now: float) -> None:
        """See which may carry more by now."""
        for bucket in self.limited.values():
            bucket.room(now)

    def rate_of(self, subflows: Iterable[Subflow]) -> float:
        """What they deliver together, in bytes per second, as far as their paths may."""
        return self._held((subflow.path, _rate(subflow)) for subflow in subflows)

    def grown(self, subflows: Iterable[Subflow], doublings: float, seconds: float) -> float:
        """How many bytes they deliver in that time, their windows doubling so often meanwhile."""
        more = 2.0**doublings - 1.0
        return self._held(((one.path, one.pace.window * more) for one in subflows), seconds)

    def _held(self, shares: Iterable[tuple[int, float]], seconds: float = 1.0) -> float:
        """The sum of what subflows deliver in that time, held to the rates of their paths."""
        sums: dict[int, float] = {}
        for path, size in shares:
            sums[path] = sums.get(path, 0.0) + size
        limits = self.limited
        return sum(min(n, limits[p].rate * seconds) if p in limits else n for p, n in sums.items())

    # ---- roles

    def fits(self, primaries: list[Subflow], subflow: Subflow, now: float) -> float:
        """
        How many bytes still fit onto the primary ones; this overflow one takes what exceeds it.

        As long as one of them has room, everything does.
        """
        if any(one.since_drain == 0 and self.room(one, now) > 0 for one in primaries):
            return NEVER
        mine, least = subflow.rtt.minimum, min(one.rtt.minimum or NEVER for one in primaries)
        later = (mine - least) / 2 if mine is not None and mine > least else 0.0
        return self.rate_of(primaries) * (_FITS + later)


def rank(subflow: Subflow) -> int:
    """The lower the sooner it is used."""
    return _RANKS[subflow.role]


def _rate(subflow: Subflow) -> float:
    """What it delivers, or would at first."""
    return subflow.pace.rate or INITIAL_WINDOW / (subflow.rtt.minimum or _SOME_TIME)
