"""The datagrams of a session: which wait, where each leaves, which are dropped."""

from collections import deque
from collections.abc import Sequence

from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.flow import Datagram, Flow, Lane
from stripetwist.core.frames import MAX_DATAGRAM
from stripetwist.core.subflow import Subflow
from stripetwist.core.target import Target
from stripetwist.core.way import PathRole

# A flow stays on its subflow until another is better by this.
_BETTER = 0.75

# A subflow that may carry datagrams, how many bytes of streams are to go first, and by how many
# seconds its acknowledgements are late.
Way = tuple[Subflow, float, float]


class Datagrams:
    """
    A session's datagrams: never sent again, never kept long, the newest wins.

    Each leaves on the subflow where it is expected to arrive first, and its copy on another
    path.  What cannot leave at once waits in a lane of its flow; the lanes are short, and
    what waits too long is dropped.

    @ivar routed: by subflow, the lanes whose turn on it has come.
    @ivar drop_at: no datagram gets too old before then.
    @ivar counters: how many were sent and received.
    @ivar dropped: how many were dropped, by reason.
    """

    def __init__(self, limits: Limits, budget: MemoryBudget) -> None:
        self._limits = limits
        self._budget = budget
        self._flows: dict[int, Flow] = {}
        self._waiting: dict[int, Flow] = {}
        self._held = 0
        self.routed: dict[int, deque[Lane]] = {}
        self.drop_at = NEVER
        self.counters = {"sent": 0, "received": 0}
        self.dropped = {"old": 0, "overflow": 0, "late": 0, "duplicate": 0}

    def add(self, stream_id: int, copies: int) -> None:
        """A stream is an association."""
        self._flows[stream_id] = Flow(stream_id, copies)

    def forget(self, stream_id: int) -> None:
        """A stream is gone."""
        if (flow := self._flows.pop(stream_id, None)) is None:
            return
        for lane in flow.lanes:
            while lane.queue:
                self._drop(lane, "old")
        self._waiting.pop(stream_id, None)
        if not self._waiting:
            self.routed = {}
            self.drop_at = NEVER

    def __contains__(self, stream_id: int) -> bool:
        """Whether a stream is an association."""
        return stream_id in self._flows

    @property
    def waits(self) -> bool:
        """Whether any may wait to be sent."""
        return bool(self._waiting)

    # ---- coming

    def is_new(self, stream_id: int, number: int) -> bool:
        """Whether a datagram that has come is to be handed over."""
        flow = self._flows.get(stream_id)
        if flow is None:
            return False
        new = flow.seen.is_new(number)
        if new:
            self.counters["received"] += 1
        else:
            self.dropped["duplicate"] += 1
        return new

    # ---- going

    def put(self, stream_id: int, payload: bytes, peer: Target | None, now: float) -> None:
        """One is to be sent."""
        if (flow := self._flows.get(stream_id)) is None:
            return
        if len(payload) > MAX_DATAGRAM:
            self.dropped["overflow"] += 1
            return
        datagram = flow.put(b"" if peer is None else peer.encode(), payload, now)
        self._hold(datagram.size * len(flow.lanes))
        self._waiting[stream_id] = flow
        self.drop_at = min(self.drop_at, now + self._limits.datagram_age)
        self._keep_short(flow)

    def _keep_short(self, flow: Flow) -> None:
        limits = self._limits
        for lane in flow.lanes:
            while len(lane.queue) > limits.datagrams or lane.size > limits.datagram_bytes:
                self._drop(lane, "overflow")
        while self._is_over:
            oldest = min(self._waiting.values(), key=lambda one: one.oldest)
            for lane in oldest.lanes:
                if lane.queue:
                    self._drop(lane, "overflow")

    def _hold(self, count: int) -> None:
        """So many more bytes wait, or fewer."""
        self._held += count
        self._budget.datagrams += count

    @property
    def _is_over(self) -> bool:
        """Whether too many wait: of this session, or for what other sessions leave it."""
        most = min(self._limits.datagram_bytes_all, max(0, self._budget.left_for_datagrams))
        return self._held > most

    def _drop(self, lane: Lane, why: str) -> None:
        """The oldest in a lane does not leave; counted if no copy of it has or will."""
        datagram = self._take(lane)
        if not datagram.lanes and not datagram.carriers:
            self.dropped[why] += 1

    def _take(self, lane: Lane) -> Datagram:
        datagram = lane.take()
        self._hold(-datagram.size)
        return datagram

    def route(self, ways: Sequence[Way], now: float) -> None:
        """
        Choose for all that wait where to leave; drop what is too old.

        To be asked again after some have left, since that changes what is ahead.
        """
        self.routed = {}
        self.drop_at = NEVER
        for flow in list(self._waiting.values()):
            self._drop_old(flow, now)
            self._route(flow, self._called_for(flow, ways))
            oldest = flow.oldest
            if oldest == NEVER:
                del self._waiting[flow.stream_id]
            self.drop_at = min(self.drop_at, oldest + self._limits.datagram_age)

    def _called_for(self, flow: Flow, ways: Sequence[Way]) -> Sequence[Way]:
        """Those for this flow: overflow ones only if what waits does not fit onto the others."""
        others = [way for way in ways if way[0].role is not PathRole.OVERFLOW]
        if len(others) == len(ways) or not others:
            return ways
        lane = max(flow.lanes, key=lambda lane: lane.size)
        least = min(subflow.pace.queued_for(owed + lane.size) for subflow, owed, _ in others)
        limits = self._limits
        fits = least <= limits.datagram_age / 2 and len(lane.queue) <= limits.datagrams / 2
        return others if fits else ways

    def _drop_old(self, flow: Flow, now: float) -> None:
        for lane in flow.lanes:
            while lane.queue and self._is_old(lane.queue[0], now):
                self._drop(lane, "old")

    def _is_old(self, datagram: Datagram, now: float) -> bool:
        return datagram.born + self._limits.datagram_age <= now

    def _route(self, flow: Flow, ways: Sequence[Way]) -> None:
        first: Way | None = None
        for lane in flow.lanes:
            size = lane.queue[0].size if lane.queue else 0
            way = _choose(ways if first is None else _others(ways, first[0]), lane, size) or first
            if way is None:
                return
            if way is not first:
                lane.subflow_id = way[0].subflow_id
            first = first or way
            self._line_up(lane, way)

    def _line_up(self, lane: Lane, way: Way) -> None:
        subflow, owed, _ = way
        subflow_id = subflow.subflow_id
        late = subflow.pace.queued_for(owed) > self._limits.datagram_age
        while lane.queue and (late or subflow_id in lane.queue[0].carriers):
            self._drop(lane, "late")
        if lane.queue:
            self.routed.setdefault(subflow_id, deque()).append(lane)

    def take(self, subflow_id: int, now: float) -> Datagram | None:
        """The next for a subflow; flows take turns."""
        while lanes := self.routed.get(subflow_id):
            lane = lanes.popleft()
            datagram = self._next(lane, subflow_id, now)
            if lane.queue:
                lanes.append(lane)
            if not lanes:
                del self.routed[subflow_id]
            if datagram is not None:
                self.counters["sent"] += not datagram.carriers
                return datagram
        return None

    def _next(self, lane: Lane, subflow_id: int, now: float) -> Datagram | None:
        """The oldest that is not too old, and need not stay behind for one that left already."""
        while lane.queue:
            first = lane.queue[0]
            # Where there is no room for everything, a copy must not keep others from leaving.
            is_crowded = len(lane.queue) > self._limits.datagrams / 2
            gone = first.carriers and (is_crowded or subflow_id in first.carriers)
            if not gone and not self._is_old(first, now):
                return self._take(lane)
            self._drop(lane, "old")
        return None

    def snapshot(self) -> dict[str, object]:
        """For the session's."""
        return {**self.counters, "dropped": dict(self.dropped)}


def _others(ways: Sequence[Way], first: Subflow) -> Sequence[Way]:
    """Those on other paths; without such, the other subflows."""
    unlike = [way for way in ways if way[0].path != first.path]
    return unlike or [way for way in ways if way[0] is not first]


def _choose(ways: Sequence[Way], lane: Lane, size: int) -> Way | None:
    """Where so many bytes arrive first; where the last ones went unless that is far better."""
    best, least, stays, here = None, NEVER, None, NEVER
    for way in ways:
        subflow, owed, overdue = way
        # Who has not been heard of in time may be about to stall: others are a better bet.
        seconds = subflow.pace.arrival(owed + size) + overdue
        if seconds < least:
            best, least = way, seconds
        if subflow.subflow_id == lane.subflow_id:
            stays, here = way, seconds
    return stays if stays is not None and least > _BETTER * here else best
