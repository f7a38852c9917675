"""Slow paths: whether one connection delivers there what all of them do."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum

from stripetwist.core.config import Limits
from stripetwist.core.pace import INITIAL_WINDOW
from stripetwist.core.progress import KernelView
from stripetwist.core.rtt import QUEUE_FACTOR
from stripetwist.core.subflow import Subflow

# What fits on such a path at once is less than a new connection may send at first.
_SMALL = INITIAL_WINDOW / 2
# So much may be in flight on one that carries nothing: a few small frames.
_NOTHING = 1024
# For so many seconds what others have of before may keep one from being measured.
_DRAINED = 8.0
# Our round trips take longer than the kernel's, but not by more where both are of one way.
_WHOLE = 3.0
# That a path is not slow after all shows sooner than that it is.
_SOON = 0.5
# One alone does as well if it delivers such a part of what all did.
_AS_WELL = 0.6


class Stage(Enum):
    """How far it is known."""

    ALL = "all carry, and are measured"
    ONE = "one carries alone, and is measured"
    SOLE = "one does as well as all"
    SEVERAL = "all do better than one, as far as could be found out"


@dataclass(slots=True)
class Trial:
    """
    What is known of one path.

    @ivar until: when that is over; in the first two stages, whether it came to an end or not.
    @ivar since: when the measuring began; C{None} for not yet.
    @ivar acked: bytes that had been delivered by then.
    @ivar base: bytes per second that all deliver together.
    @ivar carrier: the one that carries; 0 for none chosen.
    @ivar alone_from: when it began to.
    """

    until: float
    stage: Stage = Stage.ALL
    since: float | None = None
    acked: int = 0
    base: float = 0.0
    carrier: int = 0
    alone_from: float = 0.0


class SlowPaths:
    """
    Which paths are slow enough for one connection to fill them.

    A line that holds less than TCP's initial window is full with one connection.  More of
    them lose each other's packets, and bytes bound to each wait for seconds; and where some
    wait for a timeout nothing is wrong with them.  But a network may as well hold each
    connection to so little, and there all are needed.  Which of the two it is shows by
    trying: while the path is busy one carries alone for some seconds.

    @ivar paths: what is known of those that look slow, by number.
    """

    def __init__(
        self, limits: Limits, alive: Mapping[int, Subflow], healthy: Container[int]
    ) -> None:
        self._limits = limits
        self._alive = alive
        self._healthy = healthy
        self.paths: dict[int, Trial] = {}
        # The kernel's least round trip and ours, by path: a queue that has stood for minutes
        # is part of what the kernel calls the least.
        self._least: dict[int, tuple[float, float]] = {}

    # ---- what is seen

    def is_in_question(self, subflow: Subflow) -> bool:
        """Whether its kernel should be asked: the path looks slow, and nothing is known yet."""
        is_slow = 0 < subflow.pace.rate < self._limits.slow_below
        return is_slow and subflow.path not in self.paths

    def seen(self, subflow: Subflow, view: KernelView, now: float) -> None:
        """What the kernel sees of one."""
        path, limits = subflow.path, self._limits
        if path in self.paths or not view.least or subflow.rtt.minimum is None:
            return
        known = self._least.get(path, (view.least, subflow.rtt.minimum))
        least, ours = min(known[0], view.least), min(known[1], subflow.rtt.minimum)
        self._least[path] = least, ours
        # What a relay's kernel says is of the way to it.
        is_whole = ours <= _WHOLE * least and not subflow.pace.is_near
        if not view.rate or not is_whole or view.rtt <= QUEUE_FACTOR * least:
            return
        others = [s for s in self._on(path) if s is not subflow]
        rate = view.rate + sum(s.pace.rate for s in others)
        if others and rate < limits.slow_below and rate * least < _SMALL:
            self.paths[path] = Trial(now + limits.slow_trial)
            self._set_patience()

    def changed(self, path: int) -> None:
        """There is a subflow more, or less: what was being measured has to begin again."""
        if (trial := self.paths.get(path)) is not None:
            trial.since = None
        self._set_patience()

    def forget(self, path: int) -> None:
        """There is no subflow on a path any more."""
        self._least.pop(path, None)
        self._end(path)

    def look(self, now: float) -> None:
        """See what is known for too long."""
        for path in [path for path, trial in self.paths.items() if now >= trial.until]:
            self._expire(path, now)

    def _expire(self, path: int, now: float) -> None:
        """Begin anew; but if one carried alone to no result, only after all have for long."""
        trial = self.paths[path]
        if trial.stage is Stage.ONE:
            self._let_all_carry(trial, now + self._limits.slow_for)
        else:
            self._end(path)

    def _let_all_carry(self, trial: Trial, until: float) -> None:
        trial.stage, trial.until, trial.since = Stage.SEVERAL, until, None
        self._set_patience()

    def _end(self, path: int) -> None:
        if self.paths.pop(path, None) is not None:
            self._set_patience()

    def _on(self, path: int) -> list[Subflow]:
        return [s for s in self._alive.values() if s.path == path]

    def _set_patience(self) -> None:
        """
        Where bytes may wait for long without anything being wrong, let them.

        Not where there is another path: what waits can go there instead.
        """
        is_only = len({s.path for s in self._alive.values()}) == 1
        for s in self._alive.values():
            trial = self.paths.get(s.path)
            s.life.is_patient = is_only and trial is not None and trial.stage is not Stage.SEVERAL

    # ---- what is tried

    def delivered(self, subflow: Subflow, is_busy: bool, now: float) -> None:
        """
        Bytes have arrived on one.

        @param is_busy: whether there are stream bytes that wait for a subflow.
        """
        path = subflow.path
        if (trial := self.paths.get(path)) is None:
            return
        is_known = trial.stage is Stage.SOLE or trial.stage is Stage.SEVERAL
        is_wide = is_known and subflow.pace.rate >= 2 * self._limits.slow_below
        if is_wide:
            self._end(path)
        elif now >= trial.until:
            self._expire(path, now)
        elif not is_known:
            self._measure(path, is_busy, now)

    def _measure(self, path: int, is_busy: bool, now: float) -> None:
        trial = self.paths[path]
        acked = sum(s.ledger.acked for s in self._on(path))
        if not is_busy or self._drains(path, now):
            trial.since = None
        elif trial.since is None:
            trial.since, trial.acked = now, acked
        elif (span := now - trial.since) >= _SOON:
            self._judge(path, (acked - trial.acked) / span, span, now)

    def _drains(self, path: int, now: float) -> bool:
        """Whether those that are to rest still have something of before."""
        trial = self.paths[path]
        if trial.stage is Stage.ALL or now >= trial.alone_from + _DRAINED:
            return False
        others = (s for s in self._on(path) if s.subflow_id != trial.carrier)
        return any(s.ledger.in_flight > _NOTHING for s in others)

    def _judge(self, path: int, rate: float, span: float, now: float) -> None:
        """So much was delivered per second, for so many of them."""
        limits, trial = self._limits, self.paths[path]
        if rate >= limits.slow_below:
            self._end(path)
        elif span < limits.slow_span:
            return
        elif trial.stage is Stage.ALL:
            trial.stage, trial.base, trial.alone_from = Stage.ONE, rate, now
            trial.until = now + limits.slow_trial
        elif rate >= _AS_WELL * trial.base:
            trial.stage, trial.until = Stage.SOLE, now + limits.slow_for
        else:
            self._let_all_carry(trial, now + 2 * limits.slow_for)
        trial.since = None

    def is_full(self, subflow: Subflow) -> bool:
        """Whether what it has is enough for now, as long as little is known."""
        trial = self.paths.get(subflow.path)
        is_tried = trial is not None and trial.stage is Stage.ALL
        return is_tried and subflow.ledger.in_flight >= _SMALL

    def rests(self, subflow: Subflow) -> bool:
        """Whether another of its path carries the bytes of streams, and it none."""
        trial = self.paths.get(subflow.path)
        if trial is None or trial.stage is Stage.ALL or trial.stage is Stage.SEVERAL:
            return False
        return self._carrier(subflow, trial) != subflow.subflow_id

    def _carrier(self, subflow: Subflow, trial: Trial) -> int:
        """The one that carries; another in its place once it may not."""
        if trial.carrier not in self._healthy:
            able = [s for s in self._on(subflow.path) if s.subflow_id in self._healthy]
            best = max(able, key=lambda s: s.pace.rate, default=subflow)
            trial.carrier, trial.since = best.subflow_id, None
        return trial.carrier
