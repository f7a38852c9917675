"""When a connection that was lost, or never came about, is dialed again."""

from collections.abc import Callable
from dataclasses import dataclass

from stripetwist.core.config import Limits

# The kernel repeats a SYN after 1, 3 and 7 s only: a first connect need not wait longer.
_FIRST_CONNECTS = (1.0, 2.0)
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Redial:
    """
    How long to wait before a dial, and how long a connect may take.

    @ivar chance: a number from 0 to 1, new each time: dialers must not march in step.
    """

    limits: Limits
    chance: Callable[[], float]

    def after_loss(self) -> float:
        """The pause after a connection that had worked for a while."""
        return self.chance() * _JITTER

    def after_refusal(self) -> float:
        """The pause after a server that will say the same next time."""
        return self.limits.redial_refused

    def after_failure(self, failures: int, down_for: float, outage: float | None) -> float:
        """
        The pause after a dial that came to nothing.

        @param failures: how many did before, in a row.
        @param down_for: seconds since the first of these.
        @param outage: seconds for which nothing at all has been up; C{None} while another
            connection lives.
        """
        limits = self.limits
        if outage is None and down_for < limits.outage_early:
            return limits.redial_alive
        if outage is not None and outage < limits.outage_early:
            most = limits.redial_first * 2.0 ** min(failures, 30)
            return self.chance() * min(limits.redial_most, most)
        return limits.redial_late

    def connect_timeout(self, failures: int, others_live: bool) -> float:
        """How long to wait for a connect."""
        if others_live:
            return self.limits.dial_timeout_alive
        if failures < len(_FIRST_CONNECTS):
            return _FIRST_CONNECTS[failures]
        return self.limits.dial_timeout
