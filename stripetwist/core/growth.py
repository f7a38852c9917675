"""How many subflows a session should have: more for as long as that brings more."""

from stripetwist.core.config import Limits

# Goodput that differs by more from what it was before is still on its way.
_STEADY = 0.15
# Of what the added subflows would bring if nothing but their number held goodput back, so
# much has to show.
_WORTH = 0.25


class Growth:
    """
    How many subflows a session should have.

    Where each TCP connection is held back by itself (by loss, by its window, by a limiter)
    twice as many carry twice as much; where the line is full they carry no more and only take
    from others.  Which of the two holds shows by trying: while the session is busy and its
    goodput steady, twice as many are tried, and given up again if goodput has not grown with
    them; then not for a while, longer each time.  A session that rests starts over.

    @ivar count: how many it should have by now.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._most = limits.grow_most
        self._rest(now, 0)

    def _rest(self, now: float, moved: int) -> None:
        self.count = self._limits.subflows
        self._pause = self._limits.grow_again
        self._next_trial = now
        self._tried_from = 0
        self._base = 0.0
        self._busy_at = now
        self._settles = False
        self._begin(now, moved)

    def _begin(self, now: float, moved: int) -> None:
        """Measure from here on."""
        self._since, self._from = now, moved

    def begin_again(self, now: float) -> None:
        """Another session counts its bytes, from nothing; and its peer may take more of them."""
        self._most = self._limits.grow_most
        self._give_up()
        self._base = 0.0
        self._begin(now, 0)

    def take_no_more_than(self, count: int) -> None:
        """The peer does not; what was tried is over."""
        self._give_up()
        self._most = max(count, self._limits.subflows)
        self.count = min(self.count, self._most)

    def _give_up(self) -> None:
        if self._tried_from:
            self.count, self._tried_from = self._tried_from, 0
        self._settles = False

    def look(self, moved: int, rtt: float, now: float) -> int:
        """
        See how it goes; to be called twice a second or so.

        @param moved: payload bytes of the session so far, both ways; only ever grows.
        @param rtt: the session's round trip, in seconds.
        @return: how many subflows it should have.
        """
        limits = self._limits
        enough = max(limits.grow_span, limits.grow_rounds * rtt)
        span = now - self._since
        if span < enough:
            return self.count
        if self._settles:
            # The new ones had to be dialed and to find their rate.
            self._settles = False
            self._begin(now, moved)
            return self.count
        goodput = (moved - self._from) / span
        self._begin(now, moved)
        if goodput < limits.grow_above:
            self._quiet(now, moved)
        elif self._tried_from:
            self._busy_at = now
            self._judge(goodput, now)
        else:
            self._busy_at = now
            self._maybe_try(goodput, now)
        return self.count

    def _quiet(self, now: float, moved: int) -> None:
        self._base = 0.0
        if self._tried_from:
            self._give_up()
            self._next_trial = now + self._limits.grow_again
        if now - self._busy_at >= self._limits.grow_forget:
            self._rest(now, moved)

    def _maybe_try(self, goodput: float, now: float) -> None:
        # New connections may do better than they can keep up, or worse.
        is_steady = abs(goodput - self._base) <= _STEADY * self._base
        self._base = goodput
        more = min(2 * self.count, self._most)
        if is_steady and now >= self._next_trial and more > self.count:
            self._tried_from, self.count = self.count, more
            self._settles = True

    def _judge(self, goodput: float, now: float) -> None:
        before, self._tried_from = self._tried_from, 0
        worth = 1 + _WORTH * (self.count / before - 1)
        if goodput >= worth * self._base:
            self._base = goodput
            self._pause = self._limits.grow_again
            return
        self.count = before
        self._next_trial = now + self._pause
        self._pause = min(2 * self._pause, self._limits.grow_again_most)
