"""Which subflows may carry what, now."""

from collections.abc import Container, Iterator, Mapping, Set

from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.liveness import State
from stripetwist.core.outbox import Outbox
from stripetwist.core.paths import Paths, rank
from stripetwist.core.slow import SlowPaths
from stripetwist.core.subflow import Subflow
from stripetwist.core.warmth import Warmth
from stripetwist.core.way import PathRole

# By how much a round trip has to be longer to count as such, beside what chance makes of
# it; and how often a window may double meanwhile before that is beyond any burst.
_LONGER = 1.3
_CLOSE = 0.02
_MOST_DOUBLINGS = 30
# On a path that may carry next to nothing, a batch is no less: headers are bytes, too.
_SLIVER = 512


class Carrying:
    """
    Which of a session's subflows may carry what, as they are now.

    By the roles and rates of their paths, by what is known of how long their ways are and how
    much waits there, and by what there is to be sent.

    @ivar paths: the roles and rates of their paths.
    @ivar slow: those of them that one subflow may fill.
    """

    def __init__(
        self,
        outbox: Outbox,
        limits: Limits,
        warmth: Warmth,
        alive: Mapping[int, Subflow],
        healthy: Set[int],
        longest: int,
    ) -> None:
        """
        @param healthy: ids of those that may carry new data.
        @param longest: bytes of a DATA frame that the peer takes, if more than anybody does.
        """
        self._longest = max(limits.batch, min(limits.batch_most, longest))
        self._outbox = outbox
        self._limits = limits
        self._warmth = warmth
        self._alive = alive
        self._healthy = healthy
        self.paths = Paths()
        self.slow = SlowPaths(limits, alive, healthy)
        self._shortest = NEVER
        self._quick_ones: dict[tuple[int, float], tuple[int, float]] = {}

    # ---- what there is to know

    def seen(self, subflow: Subflow) -> None:
        """A subflow may have a new least round trip."""
        least = subflow.rtt.minimum
        if least is not None and least < self._shortest:
            self._shortest = least

    def look(self) -> None:
        """See anew which round trip is the least: it may have become longer, or be gone."""
        rtts = (subflow.rtt.minimum or NEVER for subflow in self._alive.values())
        self._shortest = min(rtts, default=NEVER)
        self._quick_ones.clear()

    @property
    def _near(self) -> float:
        """Up to this a round trip is longer than the least by chance."""
        return _LONGER * self._shortest + _CLOSE

    # ---- who has something to write

    def pollable(self, now: float, routed: Container[int] = ()) -> Iterator[int]:
        """
        Those with something to write, the quickest first.

        Each is named only if those before it, polled meanwhile, have left it something.  Those
        whose round trips seem too long for what there is are asked whether they still are.

        @param routed: those for which there are datagrams.
        """
        outbox = self._outbox
        control, data = outbox.has_control, outbox.has_data
        if padding := self._warmth.padding:
            self._warmth.settle(len(self._alive), now)
        # What there is now, those that come first may take.
        far_above = self._near if data else NEVER
        small, large = control or bool(routed), data or bool(padding)
        for s in self._in_order(small, large, now, routed):
            pads = s.since_drain == 0 and s.subflow_id in padding
            takes = s.since_drain == 0 and data and self.takes_data(s)
            if not takes and (s.rtt.minimum or 0.0) > far_above and s.is_kept_warm:
                s.passed_over(now)
            told = s.subflow_id in routed and self.datagram_room(s) > 0
            if (
                s.owes_from <= now
                or (told and self.may_carry(s, now))
                or (
                    (control or takes or (pads and self.filler_for(s, now)))
                    and self.carries(s, now)
                )
            ):
                yield s.subflow_id
                control, data = outbox.has_control, outbox.has_data

    def _in_order(
        self, small: bool, large: bool, now: float, routed: Container[int]
    ) -> list[Subflow]:
        """Those with room for what there is, small frames or batches, the quickest first."""
        outbox, ahead = self._outbox, self._limits.control_ahead
        # Of many, few at a time can do with anything; most have not drained yet.
        subflows = [
            s
            for s in self._alive.values()
            if (large and s.since_drain == 0)
            or ((small or s.owes_from <= now) and s.since_drain < ahead)
        ]
        control = outbox.has_control
        if (control or outbox.has_data) and len(subflows) > 1:
            much = not control and outbox.has_much(self._limits.batch)
            subflows.sort(key=_workload if much else _batch_latency)
        if routed and self.paths.limited:
            # A stream's batch on another would close their path to them.
            subflows.sort(key=lambda s: s.subflow_id not in routed)
        return subflows

    def filler_for(self, subflow: Subflow, now: float) -> int:
        """How many bytes of filler to write to it if there is nothing else."""
        return self._warmth.filler_for(subflow, len(self._alive), now)

    # ---- datagrams

    def ways(self, now: float) -> list[tuple[Subflow, float, float]]:
        """
        Those that may carry datagrams.

        With each, how many bytes of streams are to go first, and by how much its
        acknowledgements are late.
        """
        ways = []
        for s in self._alive.values():
            if self.may_carry(s, now):
                first = s.streams_first() if self.data_waits(s) else 0.0
                # One that rests gets none of those, and so has no more to give.
                if not first or not self.slow.rests(s):
                    ways.append((s, first, s.life.overdue(now)))
        return ways

    def datagram_room(self, subflow: Subflow) -> float:
        """How many bytes of datagrams to put onto it now; the last of them may go beyond."""
        behind = subflow.since_drain
        room = self._limits.control_ahead - behind if behind else subflow.pace.datagram_batch
        return min(room, subflow.datagram_share()) if self.data_waits(subflow) else room

    # ---- the others

    def _used_with(self, subflow: Subflow) -> list[Subflow]:
        """The healthy ones that are used whenever it is."""
        mine = rank(subflow)
        return [s for s in map(self._alive.__getitem__, self._healthy) if rank(s) <= mine]

    def carry_with(self, subflow: Subflow) -> list[Subflow]:
        """The healthy ones that are used whenever it is, and do not rest beside another."""
        return [one for one in self._used_with(subflow) if not self.slow.rests(one)]

    def _before(self, subflow: Subflow) -> list[Subflow]:
        """The healthy ones that are to be used sooner."""
        mine = rank(subflow)
        return [one for one in self._used_with(subflow) if rank(one) < mine]

    def _is_called_for(self, subflow: Subflow, now: float) -> bool:
        """Whether an overflow one is to carry bytes of streams, with the others as they are."""
        if not (before := self._before(subflow)):
            return True
        return self._outbox.has_new and self._outbox.has_much(self.paths.fits(before, subflow, now))

    def carries(self, subflow: Subflow, now: float) -> bool:
        """Whether it may be given anything new."""
        return self.may_carry(subflow, now) and (
            subflow.role is not PathRole.OVERFLOW or self._is_called_for(subflow, now)
        )

    def may_carry(self, subflow: Subflow, now: float) -> bool:
        """
        Whether it may be given datagrams: an overflow one for those that fit onto no other.

        One so slow beside the others that what it carries would only hold theirs up rests.
        """
        if subflow.life.state is not State.ACTIVE:
            return False
        if self.paths.limited and self.paths.room(subflow, now) <= 0:
            return False
        if subflow.role is PathRole.BACKUP and self._before(subflow):
            return False
        if not subflow.pace.is_slow(now):
            return True
        count, rate = self._quick(rank(subflow), now)
        return subflow.pace.rate * count >= self._limits.slow_share * rate

    def _quick(self, most: int, now: float) -> tuple[int, float]:
        """How many healthy ones up to that rank are not slow, and their rates together."""
        if (most, now) not in self._quick_ones:
            rates = [
                one.pace.rate
                for one in map(self._alive.__getitem__, self._healthy)
                if rank(one) <= most and not one.pace.is_slow(now)
            ]
            # Of use within one turn, in which many may ask.
            self._quick_ones = {(most, now): (len(rates), sum(rates))}
        return self._quick_ones[most, now]

    def batch_for(self, subflow: Subflow, now: float) -> int:
        """How many bytes to give it at a time: however little its path may carry, some."""
        if not self.paths.limited:
            return subflow.pace.full_batch
        least = min(self._limits.batch_least, self.paths.saved(subflow))
        return int(min(subflow.pace.full_batch, max(self.paths.room(subflow, now), least, _SLIVER)))

    @property
    def longest(self) -> int:
        """Of a frame: should its subflow die, others carry what it had as it was cut."""
        limits = self._limits
        rates = (s.pace.rate for s in self._alive.values())
        fast = (rate > limits.frame_large_above or not rate for rate in rates)
        return self._longest if not self.paths.limited and all(fast) else limits.batch

    def takes_data(self, subflow: Subflow) -> bool:
        """Whether there are stream bytes that it should carry."""
        slow = self.slow
        if slow.paths and (slow.rests(subflow) or slow.is_full(subflow)):
            return False
        return self.data_waits(subflow)

    def data_waits(self, subflow: Subflow) -> bool:
        """Whether there are any for it, or for the one beside which it rests."""
        outbox = self._outbox
        return outbox.has_again or (outbox.has_new and self.takes_new(subflow))

    def takes_new(self, subflow: Subflow) -> bool:
        """
        Whether it is worth its longer way for new bytes.

        Not at the end of a burst, nor for a short one: if those with a shorter round trip
        will have delivered all that waits, starting slowly if need be, before a byte sent
        here could arrive.  Nor behind much that waits on its way already, as a proxy lets it,
        while another has less: what is bound late arrives in its turn.
        """
        if subflow.pace.is_deep and not all(one.pace.is_deep for one in self.carry_with(subflow)):
            return False
        mine = subflow.rtt.minimum
        if mine is None or mine <= self._near:
            return True
        faster = [s for s in self.carry_with(subflow) if _is_faster(s, mine)]
        if not faster:
            return True
        least = min(s.rtt.minimum or NEVER for s in faster)
        later = (mine - least) / 2
        if subflow.pace.rate:
            later += subflow.pace.batch / subflow.pace.rate
        else:
            later += mine * subflow.pace.rounds_more
        if all(s.pace.rate for s in faster):
            return self._outbox.has_much(later * self.paths.rate_of(faster))
        doublings = later / least
        return doublings < _MOST_DOUBLINGS and self._outbox.has_much(
            self.paths.grown(faster, doublings, later)
        )


def _is_faster(subflow: Subflow, rtt: float) -> bool:
    least = subflow.rtt.minimum
    return least is not None and least * _LONGER < rtt


def _batch_latency(subflow: Subflow) -> float:
    return subflow.batch_latency


def _workload(subflow: Subflow) -> tuple[float, float]:
    """
    As much as waits, those first whose round trips are shorter; of near ones, the fastest.

    There what counts is the work, and that is less where few carry what they can.
    """
    if subflow.life.state is not State.ACTIVE:
        return NEVER, 0.0
    if subflow.pace.is_near:
        return 0.0, -subflow.pace.rate
    latency = subflow.batch_latency
    return latency // _CLOSE, latency
