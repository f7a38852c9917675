"""Padding: when congestion windows are opened ahead of use, and for how long held open."""

from collections.abc import Callable

from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.events import SubflowCold, SubflowWarm
from stripetwist.core.frames import HEADER_SIZE
from stripetwist.core.liveness import State
from stripetwist.core.pace import INITIAL_WINDOW
from stripetwist.core.subflow import Subflow

# A single round trip says that a queue has formed when it takes this much longer than the least.
_LONG_FACTOR = 2.0
_LONG_TIME = 0.05
# An idle connection may send as much at once as a new one anyway (RFC 5681, section 4.1).
_WORTH_HOLDING = 2 * INITIAL_WINDOW
# Where 300 packets have arrived before the first that did not, that one found a queue full.
_CLEAN = 30 * INITIAL_WINDOW
# Less than this within so many seconds is no use that new windows would matter for.
_LITTLE = 8 * INITIAL_WINDOW
_LATELY = 1.0
# On a path at most so many times as many windows are being opened as have been.
_TIMES_AS_MANY = 3


class _Opening:
    """
    How far the windows of one path are opened, from its first subflow to its last.

    @ivar begun: those that have had filler and are to get more, by id.
    @ivar opened: how many have had all of their part.
    @ivar arrived: bytes that have come through on those.
    @ivar filler: bytes of it written to any of them.
    @ivar is_wide: whether more fits onto the path than a new connection sends at first.
    """

    __slots__ = ("arrived", "begun", "filler", "is_wide", "opened")

    def __init__(self) -> None:
        self.begun: dict[int, Subflow] = {}
        self.opened = 0
        self.arrived = 0
        self.filler = 0
        self.is_wide = False


class Warmth:
    """
    When a session's subflows are padded, so that their congestion windows are open in time.

    TCP starts slowly, and after an idle time of some 0.2 s it does so again (RFC 5681,
    section 4.1): a burst then takes some round trips more than the path would need.  So from
    its first minute, and from the first byte after a cold time on, each subflow gets filler
    until as much has arrived on it as its window should hold; and then a small frame
    now and then, for as long as the session was in use lately.  All of it within a budget.
    Where packets get lost all that filler does is to make windows small before their time:
    so on each path one subflow goes first, and then ever more.

    @ivar until: when the session gets cold.
    @ivar padding: the subflows whose windows are to be opened yet, by id.
    """

    def __init__(
        self, limits: Limits, now: float, tell: Callable[[SubflowCold | SubflowWarm], None]
    ) -> None:
        self._limits = limits
        self._tell = tell
        self._seen = 0
        self._tokens = float(limits.pad_burst)
        self._counted_at = now
        self._mark = now, 0
        self._lately = 0.0
        # By path; of the lossy ones until when they are taken for that.
        self._openings: dict[int, _Opening] = {}
        self._lossy: dict[int, float] = {}
        self.padding: dict[int, Subflow] = {}
        # Where there is to be no padding nobody need look whether it is time for it.
        self.until = now + limits.warm_hold if limits.prewarm else NEVER

    # ---- the session's state

    def watch(self, moved: int, alive: dict[int, Subflow], now: float) -> None:
        """
        See whether the session is in use.

        @param moved: a number that grows whenever it is: payload bytes and streams.
        """
        since, before = self._mark
        if (spans := (now - since) / _LATELY) >= 1:
            self._lately, self._mark = (moved - before) / spans, (now, moved)
        if moved == self._seen or not self._limits.prewarm:
            return
        was_cold = now >= self.until
        self._earn(max(0, moved - self._seen) * self._limits.pad_share, now)
        self._seen = moved
        self.until = now + self._limits.warm_hold
        if was_cold:
            for subflow in list(self.padding.values()):
                self._end(subflow)
            for subflow in alive.values():
                self.begin(subflow, now)

    def joined(self, subflow: Subflow, moved: int, now: float) -> None:
        """
        One more subflow.

        In the midst of use there is payload for its window, or the way back is what counts
        and filler would stand in it.

        @param moved: as for L{watch}.
        """
        since, before = self._mark
        # Nobody may have looked for long.
        spans = (now - since) / _LATELY
        lately = (moved - before) / max(1.0, spans) + (self._lately if spans < 2 else 0.0)
        if lately < _LITTLE:
            self.begin(subflow, now)

    def begin(self, subflow: Subflow, now: float) -> None:
        """A subflow's window is small, as far as we know."""
        subflow.pace.begin_cold()
        may = self._limits.prewarm and not self._is_lossy(subflow, now)
        if may and subflow.is_kept_warm and subflow.subflow_id not in self.padding:
            self._openings.setdefault(subflow.path, _Opening())
            self.padding[subflow.subflow_id] = subflow
            # bbr, which keeps its window idle, keeps it whatever gets lost.
            if subflow.window_decays:
                self._tell(SubflowCold(subflow.subflow_id))

    def _padded_with(self, subflow: Subflow) -> list[Subflow]:
        return [one for one in self.padding.values() if one.path == subflow.path]

    def _is_lossy(self, subflow: Subflow, now: float) -> bool:
        return now < self._lossy.get(subflow.path, 0.0)

    def lost_packets(self, subflow: Subflow, now: float) -> None:
        """
        Its path loses packets: open no more windows there, for some minutes.

        Nor hold any open: each small frame that is lost would halve one.  What is lost after
        many that were not found a queue full, and says nothing of the path.
        """
        padded = self._padded_with(subflow)
        if (opening := self._openings.get(subflow.path)) is not None:
            arrived = opening.arrived + sum(map(_arrived, padded))
            if min(arrived, opening.filler) > _CLEAN:
                return
        self._lossy[subflow.path] = now + self._limits.lossy_for
        for other in padded:
            self._end(other)

    def lost(self, subflow: Subflow) -> None:
        """A subflow is gone."""
        if self.padding.pop(subflow.subflow_id, None) is None:
            return
        if self._padded_with(subflow):
            self._openings[subflow.path].begun.pop(subflow.subflow_id, None)
        else:
            del self._openings[subflow.path]

    def forget(self, path: int) -> None:
        """There is no subflow on a path any more."""
        self._lossy.pop(path, None)

    def clear(self) -> None:
        """The session is over."""
        self.padding.clear()
        self._openings.clear()

    # ---- what is written

    def settle(self, count: int, now: float) -> None:
        """
        See whose windows are as open as they are to be: others may begin then.

        @param count: how many subflows share what the session may open.
        """
        for subflow in list(self.padding.values()):
            if subflow.subflow_id in self.padding:
                self._settle_one(subflow, self._limits.prewarm // count, now)

    def _settle_one(self, subflow: Subflow, share: int, now: float) -> None:
        state, is_late = subflow.life.state, now >= self.until
        if state is State.SUSPECT and not is_late:
            return
        opening = self._openings[subflow.path]
        # What is under way may yet get lost.
        arrived = _arrived(subflow)
        opening.is_wide = opening.is_wide or arrived >= INITIAL_WINDOW
        if arrived + HEADER_SIZE >= share:
            opening.opened += 1
            opening.arrived += arrived
            self._end(subflow)
        elif _queues(subflow):
            # A line that the first has filled has no room for the others.
            for other in [subflow] if opening.is_wide else self._padded_with(subflow):
                self._end(other)
        elif is_late or state is State.DRAINING or subflow.pace.is_near:
            self._end(subflow)

    def filler_for(self, subflow: Subflow, count: int, now: float) -> int:
        """
        How many bytes of filler to write to a subflow that has nothing else to do.

        C{settle} has been asked before in this turn.

        @param count: how many subflows share what the session may open.
        """
        if subflow.subflow_id not in self.padding or subflow.life.state is not State.ACTIVE:
            return 0
        self._earn(0.0, now)
        if not self._may_begin(subflow):
            return 0
        ledger = subflow.ledger
        window = INITIAL_WINDOW + _arrived(subflow) - ledger.in_flight
        left = self._limits.prewarm // count - (ledger.written - subflow.pace.cold_from)
        size = min(left, window, subflow.pace.batch, self._limits.frame_small)
        return size - HEADER_SIZE if HEADER_SIZE < size <= self._tokens else 0

    def _end(self, subflow: Subflow) -> None:
        self.lost(subflow)
        self._tell(SubflowWarm(subflow.subflow_id))

    def _may_begin(self, subflow: Subflow) -> bool:
        """
        Whether filler may be written to it yet.

        Of a path one goes first, and then ever more: on a slow line the first windows of all
        would be seconds of it, and where packets get lost there is to be little harm done
        before that shows.
        """
        opening = self._openings[subflow.path]
        if subflow.subflow_id in opening.begun:
            return True
        able = sum(one.life.state is State.ACTIVE for one in opening.begun.values())
        return able < max(1, _TIMES_AS_MANY * opening.opened)

    def spend(self, subflow: Subflow, size: int) -> None:
        """So many bytes were written to it that carry nothing."""
        if subflow.subflow_id in self.padding:
            opening = self._openings[subflow.path]
            opening.begun[subflow.subflow_id] = subflow
            opening.filler += size
        self._tokens -= size

    def tick_at(self, subflow: Subflow) -> float:
        """When a subflow that is idle is to get a small frame; never if that is no use."""
        if not (subflow.window_decays and self._limits.prewarm and subflow.is_kept_warm):
            return NEVER
        at = subflow.wrote_at
        if at >= self.until or subflow.pace.is_near or self._is_lossy(subflow, at):
            return NEVER
        return at + self._limits.warm_tick if subflow.pace.widest >= _WORTH_HOLDING else NEVER

    def tick(self, subflow: Subflow, now: float) -> None:
        """It is due: a PING, if the budget has it."""
        self._earn(0.0, now)
        subflow.wrote_at = now
        if self._tokens >= HEADER_SIZE and subflow.life.state is State.ACTIVE:
            self.spend(subflow, HEADER_SIZE)
            subflow.ask(now)

    def _earn(self, tokens: float, now: float) -> None:
        limits = self._limits
        tokens += (now - self._counted_at) * limits.pad_rate
        self._counted_at = now
        self._tokens = min(limits.pad_burst, self._tokens + tokens)


def _arrived(subflow: Subflow) -> int:
    """Bytes that have come through on it since its window was small."""
    return max(0, subflow.ledger.acked - subflow.pace.cold_from)


def _queues(subflow: Subflow) -> bool:
    """
    Whether its round trips take longer than they need to: the path is full.

    One may be long for the peer's work on a hello, or for a window that had no room.
    """
    rtt = subflow.rtt
    if rtt.minimum is None:
        return False
    return rtt.is_queued or rtt.last[-1] > _LONG_FACTOR * rtt.minimum + _LONG_TIME
