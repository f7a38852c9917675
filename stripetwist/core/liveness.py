"""Whether a connection lives: bytes in flight must be acknowledged, silence answer to pings."""

from enum import Enum
from typing import Any

from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.ledger import Ledger
from stripetwist.core.progress import KernelView
from stripetwist.core.rtt import RttEstimator

# What TLS may have added to bytes in flight, beside a share of them.
_RECORD = 256


class State(Enum):
    """Whether a subflow may carry new data."""

    ACTIVE = "active"
    SUSPECT = "suspect"
    DRAINING = "draining"


class Liveness:
    """
    What one subflow's acknowledgements, its silence and its kernel say of it.

    Judges only itself; what follows from it is the session's, and that a PING leaves is the
    subflow's.

    @ivar last_heard: when bytes last came.
    @ivar asked_at: when it was last asked for a sign of life.
    @ivar pings_missed: how many times it was asked again without an answer.
    @ivar kernel_rate: bytes per second between the last two views of its kernel.
    @ivar is_patient: whether bytes may be long without progress on its path, and all is well.
    @ivar stood: seconds so far for which bytes went without progress beyond all patience.
    """

    def __init__(self, limits: Limits, ledger: Ledger[Any], rtt: RttEstimator, now: float) -> None:
        self.state = State.ACTIVE
        self.last_heard = self.asked_at = now
        self.pings_missed = 0
        self.kernel_rate = 0.0
        self.is_patient = False
        self.stood = 0.0
        self._limits = limits
        self._ledger = ledger
        self._rtt = rtt
        self._draining = False
        self._progress_at = self._stall_from = now
        self._kernel = (now, KernelView())
        self._believed_until: int | None = None
        self._probed_at: float | None = None
        self._reprieve = 0.0
        self._reprieved = False

    # ---- what happens

    def sets_out(self, now: float) -> None:
        """Bytes go out with nothing before them in flight."""
        self._progress_at = self._stall_from = now
        self._believed_until = None

    def acked(self, now: float) -> None:
        """More of its bytes are acknowledged."""
        self._progressed(now)
        self._stall_from = now
        self._reprieved = False
        self._believed_until = None
        self._trust()

    def heard(self, now: float) -> None:
        """Bytes came."""
        self.last_heard = now
        self.pings_missed = 0
        self._probed_at = None

    def answered(self) -> None:
        """A PING was answered: with nothing on it, no more is to be asked."""
        if not self._ledger.in_flight:
            self._trust()

    def kernel_says(self, view: KernelView, now: float) -> bool:
        """
        What its kernel sees.

        On a slow connection a TLS record takes long to arrive, and nothing of it is parsed
        before it is whole: there only the kernel knows that bytes move.  Its word is good for
        as many bytes as were in flight when it was first asked: a middlebox may take them all,
        and the peer acknowledges what it gets.

        @return: whether they have moved since the last time, and that is to be believed.
        """
        (since, before), self._kernel = self._kernel, (now, view)
        self.kernel_rate = (view.acked - before.acked) / max(now - since, 1e-3)
        flight = self._ledger.in_flight
        if self._believed_until is None and flight:
            self._believed_until = view.acked + flight + flight // 32 + _RECORD
        believed = self._believed_until is None or view.acked <= self._believed_until
        ago = view.moved(before) if believed else None
        if ago is not None:
            self._progressed(now - ago)
        heard_at = now - view.received_ago
        if view.received > before.received and heard_at > self.asked_at > self.last_heard:
            self.last_heard = heard_at
            self.pings_missed = 0
        return ago is not None

    def _progressed(self, now: float) -> None:
        self.stood += max(0.0, now - self._progress_at - self.stall_after)
        self._progress_at = max(self._progress_at, now)

    # ---- what is made of it

    def bear(self) -> None:
        """Slow as it is, it moves, and the others are no quicker: wait for it."""
        self._stall_from = max(self._stall_from, self._progress_at)
        self._probed_at = None
        self._trust()

    def _trust(self) -> None:
        if self.state is State.SUSPECT:
            self.state = State.DRAINING if self._draining else State.ACTIVE

    def suspect(self, now: float) -> None:
        """No progress: it is to carry nothing new until there is some, and is asked."""
        self.state = State.SUSPECT
        self.asked_at = now

    def probe(self, now: float) -> bool:
        """
        Something else on its path is silent: unless it answers soon, so is it.

        @return: whether it is to be asked.
        """
        if self.state is not State.ACTIVE or self._ledger.in_flight or self._probed_at is not None:
            return False
        self._probed_at = self.asked_at = now
        return True

    def ping(self, now: float) -> None:
        """It is asked for a sign of life; one that cannot even leave counts as missed, too."""
        if self.asked_at > self.last_heard:
            self.pings_missed += 1
        self.asked_at = now

    def excuse(self, lateness: float, now: float) -> bool:
        """
        We ourselves were late by so much: not its fault.

        Its answer may wait to be read, so once, until there is progress, it gets the time
        of a round trip more.

        @return: whether it is to be asked.
        """
        self._progress_at = min(now, self._progress_at + lateness)
        self._stall_from = min(now, self._stall_from + lateness)
        self.last_heard = min(now, self.last_heard + lateness)
        if self._probed_at is not None:
            self._probed_at = min(now, self._probed_at + lateness)
        if self._reprieved or not self._ledger.in_flight:
            return False
        self._reprieved = True
        self._reprieve = now + self.stall_after
        return True

    def drain(self) -> None:
        """It is to carry nothing new, whether it lives or not."""
        self._draining = True
        if self.state is State.ACTIVE:
            self.state = State.DRAINING

    # ---- when it is judged

    @property
    def stall_after(self) -> float:
        """How long bytes in flight may go without progress (T_stall)."""
        limits = self._limits
        if self.is_patient:
            return limits.stall_most
        smoothed = self._rtt.smoothed
        if smoothed is None:
            return 1.0
        patience = max(smoothed + 4 * self._rtt.variation, self._kernel[1].patience)
        return min(limits.stall_most, max(limits.stall_floor, patience + limits.stall_margin))

    def stalled_at(self) -> float:
        """When it is to be suspected."""
        if self.state is State.SUSPECT:
            return NEVER
        if self._ledger.in_flight:
            return self._stall_from + self.stall_after
        return NEVER if self._probed_at is None else self._probed_at + self.stall_after

    def dead_at(self, others_live: bool) -> float:
        """When it is to be given up for lack of progress."""
        since = self._progress_at if self._ledger.in_flight else self._probed_at
        if since is None:
            return NEVER
        limits = self._limits
        patience = max(self.stall_after, limits.dead_alive if others_live else limits.dead_alone)
        return max(since + patience, self._reprieve)

    @property
    def stuck_since(self) -> float:
        """Since when there has been no progress, where it is suspected for that."""
        is_stuck = self.state is State.SUSPECT and self._ledger.in_flight
        return self._progress_at if is_stuck else NEVER

    def overdue(self, now: float) -> float:
        """By how many seconds an acknowledgement of what is on it is late."""
        if not self._ledger.in_flight or self._rtt.minimum is None:
            return 0.0
        limits = self._limits
        expected = self._rtt.minimum + limits.ack_delay + limits.stall_margin
        return max(0.0, now - self._stall_from - expected)

    def ping_at(self, in_use: bool) -> float:
        """
        When its silence calls for a PING.

        Soon, where not even the kernel has seen the last one arrive: what forwarded the
        connection may have forgotten it.
        """
        limits = self._limits
        interval = limits.ping_busy if in_use else limits.ping_idle
        if self.asked_at <= self.last_heard:
            return self.last_heard + interval
        in_vain = self.asked_at > max(self.last_heard, self._progress_at)
        if in_vain and self.pings_missed < limits.pings_doubted:
            interval = min(interval, max(limits.ping_again, self.stall_after))
        return max(self.last_heard, self.asked_at) + interval

    def judged_at(self, in_use: bool, others_live: bool) -> float:
        """When its silence calls for anything."""
        at = self.ping_at(in_use)
        if self.state is State.SUSPECT:
            return min(at, self.dead_at(others_live))
        # It is suspected before it is given up.
        return min(at, self.stalled_at())
