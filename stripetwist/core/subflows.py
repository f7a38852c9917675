"""The subflows of a session: which live, which are to be asked, what the dead had on them."""

from collections.abc import Container, Iterator

from stripetwist.core import frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.events import SubflowDead, SubflowDoubted
from stripetwist.core.ledger import Ledger
from stripetwist.core.liveness import State
from stripetwist.core.outbox import Control, Outbox
from stripetwist.core.paths import Paths, rank
from stripetwist.core.progress import KernelView
from stripetwist.core.slow import SlowPaths
from stripetwist.core.subflow import Subflow
from stripetwist.core.warmth import Warmth
from stripetwist.core.way import PathRole

# Later than this by more, and it was we who slept, not the peer.
_LATE = 0.1
_REMEMBERED = 4096
# By how much a round trip has to be longer to count as such, beside what chance makes of
# it; and how often a window may double meanwhile before that is beyond any burst.
_LONGER = 1.3
_CLOSE = 0.02
_MOST_DOUBLINGS = 30
_DEAD_LEDGERS = 128
# On a path that may carry next to nothing, a batch is no less: headers are bytes, too.
_SLIVER = 512


class Subflows:
    """
    A session's subflows, living and dead.

    A subflow that dies leaves its ledger: what was on it goes to the others at once, and
    what the peer then says it had parsed (SUBFLOW_FINAL) is struck out.  Where none can
    take it over, stream bytes wait for that word, so that resuming sends none twice; control
    does not, since it may be that word.

    @ivar alive: by id.
    @ivar healthy: ids of those that may carry new data.
    @ivar paths: the roles and rates of their paths.
    @ivar slow: those of them that one subflow may fill.
    """

    def __init__(self, outbox: Outbox, limits: Limits, warmth: Warmth, longest: int = 0) -> None:
        """
        @param longest: bytes of a DATA frame that the peer takes, if more than anybody does.
        """
        self._longest = max(limits.batch, min(limits.batch_most, longest))
        self._outbox = outbox
        self._warmth = warmth
        self._limits = limits
        self.alive: dict[int, Subflow] = {}
        self.healthy: set[int] = set()
        self.paths = Paths()
        self.slow = SlowPaths(limits, self.alive, self.healthy)
        self._dead: dict[int, Ledger[Chunk | Control]] = {}
        self._ended: dict[int, None] = {}
        self._shortest = NEVER
        self._quick_ones: dict[tuple[int, float], tuple[int, float]] = {}
        self._moved_before = self._sent_before = 0

    def add(self, subflow: Subflow) -> None:
        """
        One more.

        @raise ProtocolError: that id was in use before.
        """
        if subflow.subflow_id in self.alive or subflow.subflow_id in self._ended:
            raise ProtocolError(Code.PROTOCOL, f"subflow {subflow.subflow_id} was there before")
        self.alive[subflow.subflow_id] = subflow
        self.healthy.add(subflow.subflow_id)
        self.slow.changed(subflow.path)

    @property
    def moved(self) -> int:
        """Payload bytes that went either way so far."""
        return self._moved_before + sum(map(_moved, self.alive.values()))

    @property
    def sent(self) -> int:
        """Those of them that we have sent."""
        return self._sent_before + sum(one.tx.first for one in self.alive.values())

    def remove(self, subflow_id: int) -> Subflow | None:
        """One is lost; what was on it is queued for the healthy ones, if there are any."""
        subflow = self.alive.pop(subflow_id, None)
        if subflow is None:
            return None
        self._moved_before += _moved(subflow)
        self._sent_before += subflow.tx.first
        self._quick_ones.clear()
        self._find_shortest()
        self.healthy.discard(subflow_id)
        self._warmth.lost(subflow)
        if all(other.path != subflow.path for other in self.alive.values()):
            self.paths.forget(subflow.path)
            self._warmth.forget(subflow.path)
            self.slow.forget(subflow.path)
        self.slow.changed(subflow.path)
        self._end(subflow_id)
        self._outbox.put(frames.pack_final(subflow_id, subflow.parser.parsed), owed=True)
        self._dead[subflow_id] = subflow.ledger
        self._send_again(subflow.ledger, bool(self.healthy))
        if not self.alive:
            self._outbox.hold_back(self._dead)
        if len(self._dead) > _DEAD_LEDGERS:
            oldest = next(iter(self._dead))
            self._send_again(self._dead.pop(oldest))
        return subflow

    def _end(self, subflow_id: int) -> None:
        self._ended[subflow_id] = None
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _send_again(self, ledger: Ledger[Chunk | Control], chunks: bool = True) -> None:
        for item in ledger.outstanding():
            if (chunks or isinstance(item, Control)) and not any(
                i in self.healthy for i in item.carriers
            ):
                self._outbox.put_again(item)

    def final(self, subflow_id: int, parsed: int) -> list[Chunk | Control]:
        """
        The peer says what it had parsed of a dead subflow; the rest goes again.

        @return: what has arrived after all.
        """
        ledger = self._dead.pop(subflow_id, None)
        if ledger is None:
            if subflow_id not in self._ended:
                # Its join never got to us: nothing of it was parsed.
                self._end(subflow_id)
                self._outbox.put(frames.pack_final(subflow_id, 0), owed=True)
            return []
        items, _ = ledger.ack(parsed)
        self._send_again(ledger)
        return items

    def clear(self) -> None:
        """The session is over: none of them carries anything more."""
        self.alive.clear()
        self.healthy.clear()
        self._dead.clear()
        self._warmth.clear()

    def state_changed(self, subflow: Subflow) -> None:
        """Its state may have changed with a sign of life."""
        least = subflow.rtt.minimum
        if least is not None and least < self._shortest:
            self._shortest = least
        if subflow.life.state is State.ACTIVE and subflow.subflow_id in self.alive:
            self.healthy.add(subflow.subflow_id)
        else:
            self.healthy.discard(subflow.subflow_id)

    # ---- sending

    def pollable(self, now: float, routed: Container[int] = ()) -> Iterator[int]:
        """
        Those with something to write, the quickest first.

        Each is named only if those before it, polled meanwhile, have left it something.

        @param routed: those for which there are datagrams.
        """
        outbox, ahead = self._outbox, self._limits.control_ahead
        control, data = outbox.has_control, outbox.has_data
        if padding := self._warmth.padding:
            self._warmth.settle(len(self.alive), now)
        # Of many, few at a time can do with anything; most have not drained yet.
        small, large = control or bool(routed), data or bool(padding)
        subflows = [
            s
            for s in self.alive.values()
            if (large and s.since_drain == 0)
            or ((small or s.owes_from <= now) and s.since_drain < ahead)
        ]
        if (control or data) and len(subflows) > 1:
            much = not control and outbox.has_much(self._limits.batch)
            subflows.sort(key=_workload if much else _batch_latency)
        if routed and self.paths.limited:
            # A stream's batch on another would close their path to them.
            subflows.sort(key=lambda s: s.subflow_id not in routed)
        for s in subflows:
            pads = s.since_drain == 0 and s.subflow_id in padding
            takes = s.since_drain == 0 and data and self.takes_data(s)
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

    def filler_for(self, subflow: Subflow, now: float) -> int:
        """How many bytes of filler to write to it if there is nothing else."""
        return self._warmth.filler_for(subflow, len(self.alive), now)

    # ---- datagrams

    def ways(self, now: float) -> list[tuple[Subflow, float, float]]:
        """
        Those that may carry datagrams.

        With each, how many bytes of streams are to go first, and by how much its
        acknowledgements are late.
        """
        ways = []
        for s in self.alive.values():
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

    # ---- time

    def owed_at(self) -> float:
        """When the first of them owes an acknowledgement."""
        return min((s.owed_at() for s in self.alive.values() if s.owes_from < NEVER), default=NEVER)

    def judged_at(self, in_use: bool) -> float:
        """When the first of them has to be judged."""
        deadline = self.paths.reopens_at()
        tick = self._limits.warm_tick
        for subflow in self.alive.values():
            # There may be many, and it is asked often.
            deadline = min(deadline, self._judged_at(subflow, in_use))
            if subflow.wrote_at + tick < deadline:
                deadline = min(deadline, self._warmth.tick_at(subflow))
        return deadline

    def _judged_at(self, subflow: Subflow, in_use: bool) -> float:
        return subflow.life.judged_at(in_use, self._is_outlived(subflow))

    def _is_outlived(self, subflow: Subflow) -> bool:
        """Whether it is suspected, and the peer has been heard on another since it was asked."""
        life = subflow.life
        if life.state is not State.SUSPECT or life.is_patient:
            return False
        others = (self.alive[i].life for i in self.healthy if i != subflow.subflow_id)
        return any(other.last_heard >= life.asked_at for other in others)

    def kernel_says(self, subflow_id: int, view: KernelView, now: float) -> None:
        """What the kernel sees of a connection that C{doubtful} names."""
        if (subflow := self.alive.get(subflow_id)) is None:
            return
        self.slow.seen(subflow, view, now)
        if subflow.life.kernel_says(view, now) and not self._others_are_quicker(subflow):
            subflow.life.bear()
            self.state_changed(subflow)

    def _others_are_quicker(self, subflow: Subflow) -> bool:
        """Whether what is on it would arrive in half the time if the others took it over."""
        others = [one for one in self._carry_with(subflow) if one is not subflow]
        rate = sum(other.pace.rate for other in others)
        if not rate:
            return False
        waiting = sum(other.ledger.in_flight for other in (subflow, *others))
        return subflow.time_left > 2 * waiting / rate

    def _used_with(self, subflow: Subflow) -> list[Subflow]:
        """The healthy ones that are used whenever it is."""
        mine = rank(subflow)
        return [s for s in map(self.alive.__getitem__, self.healthy) if rank(s) <= mine]

    def _carry_with(self, subflow: Subflow) -> list[Subflow]:
        """Those of them that do not rest beside another of their path."""
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
                for one in map(self.alive.__getitem__, self.healthy)
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
        rates = (s.pace.rate for s in self.alive.values())
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
        if subflow.pace.is_deep and not all(one.pace.is_deep for one in self._carry_with(subflow)):
            return False
        mine = subflow.rtt.minimum
        if mine is None or mine <= _LONGER * self._shortest + _CLOSE:
            return True
        faster = [s for s in self._carry_with(subflow) if _is_faster(s, mine)]
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

    def doubtful(self, now: float, in_use: bool) -> list[int]:
        """Those about to be asked, suspected or given up for their silence."""
        return [s.subflow_id for s in self.alive.values() if self._judged_at(s, in_use) <= now]

    def judge(
        self, now: float, lateness: float, in_use: bool
    ) -> list[SubflowDead | SubflowDoubted]:
        """
        Suspect the stalled, ping the silent.

        @param lateness: how late this call comes, through no fault of theirs.
        @return: those to be given up, and those that may have to be soon.
        """
        self.paths.look(now)
        self.slow.look(now)
        subflows = list(self.alive.values())
        self._find_shortest()
        if lateness > _LATE:
            for subflow in subflows:
                subflow.excuse(lateness, now)
        found: list[SubflowDead | SubflowDoubted] = []
        for subflow in subflows:
            if self._warmth.tick_at(subflow) <= now:
                self._warmth.tick(subflow, now)
            if self._judged_at(subflow, in_use) <= now:
                found += self._judge_one(subflow, now)
        return found

    def _find_shortest(self) -> None:
        rtts = (subflow.rtt.minimum or NEVER for subflow in self.alive.values())
        self._shortest = min(rtts, default=NEVER)

    def _judge_one(self, subflow: Subflow, now: float) -> list[SubflowDead | SubflowDoubted]:
        """One of those whose silence calls for something."""
        if subflow.life.dead_at(self._is_outlived(subflow)) <= now:
            return [SubflowDead(subflow.subflow_id, "no progress")]
        if subflow.life.stalled_at() <= now:
            subflow.suspect(now)
            self.healthy.discard(subflow.subflow_id)
            self._send_again(subflow.ledger)
            self._probe_path_of(subflow, now)
            return []
        subflow.ping(now)
        if subflow.life.pings_missed >= self._limits.pings_missed:
            return [SubflowDead(subflow.subflow_id, "no answer to pings")]
        if subflow.life.pings_missed == self._limits.pings_doubted:
            return [SubflowDoubted(subflow.subflow_id)]
        return []

    def _probe_path_of(self, suspect: Subflow, now: float) -> None:
        """Find out at once whether all of its path is silent, where there is another."""
        if any(self.alive[i].path != suspect.path for i in self.healthy):
            for other in self.alive.values():
                if other.path == suspect.path:
                    other.probe(now)

    def snapshot(self) -> list[dict[str, object]]:
        """For the session's."""
        return [
            {
                "id": s.subflow_id,
                "state": s.life.state.value,
                "rtt": s.rtt.smoothed,
                "rate": s.pace.rate,
                "in_flight": s.ledger.in_flight,
                "tx": s.tx.as_dict(),
                "rx": s.rx.as_dict(),
            }
            for s in self.alive.values()
        ]


def _moved(subflow: Subflow) -> int:
    return subflow.tx.first + subflow.rx.first


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
