"""The subflows of a session: which live, which are to be asked, what the dead had on them."""

from stripetwist.core import frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.carrying import Carrying
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.events import SubflowDead, SubflowDoubted
from stripetwist.core.ledger import Ledger
from stripetwist.core.liveness import State
from stripetwist.core.outbox import Control, Outbox
from stripetwist.core.progress import KernelView
from stripetwist.core.subflow import Subflow
from stripetwist.core.warmth import Warmth

# Later than this by more, and it was we who slept, not the peer.
_LATE = 0.1
_REMEMBERED = 4096
_DEAD_LEDGERS = 128


class Subflows:
    """
    A session's subflows, living and dead.

    A subflow that dies leaves its ledger: what was on it goes to the others at once, and
    what the peer then says it had parsed (SUBFLOW_FINAL) is struck out.  Where none can
    take it over, stream bytes wait for that word, so that resuming sends none twice; control
    does not, since it may be that word.

    @ivar alive: by id.
    @ivar healthy: ids of those that may carry new data.
    @ivar carrying: which of them may carry what.
    @ivar paths: the roles and rates of their paths.
    @ivar slow: those of them that one subflow may fill.
    """

    def __init__(self, outbox: Outbox, limits: Limits, warmth: Warmth, longest: int = 0) -> None:
        """
        @param longest: bytes of a DATA frame that the peer takes, if more than anybody does.
        """
        self._outbox = outbox
        self._warmth = warmth
        self._limits = limits
        self.alive: dict[int, Subflow] = {}
        self.healthy: set[int] = set()
        self.carrying = Carrying(outbox, limits, warmth, self.alive, self.healthy, longest)
        self.paths, self.slow = self.carrying.paths, self.carrying.slow
        self._dead: dict[int, Ledger[Chunk | Control]] = {}
        self._ended: dict[int, None] = {}
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
        self.carrying.look()
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
        self.carrying.seen(subflow)
        if subflow.life.state is State.ACTIVE and subflow.subflow_id in self.alive:
            self.healthy.add(subflow.subflow_id)
        else:
            self.healthy.discard(subflow.subflow_id)

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
        others = [one for one in self.carrying.carry_with(subflow) if one is not subflow]
        rate = sum(other.pace.rate for other in others)
        if not rate:
            return False
        waiting = sum(other.ledger.in_flight for other in (subflow, *others))
        return subflow.time_left > 2 * waiting / rate

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
        self.carrying.look()
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
