"""How long a round trip takes on one subflow."""

_BUCKET = 5.0
# A queue has formed when round trips take this much longer than the least of late.
QUEUE_FACTOR = 1.25
_QUEUE_TIME = 0.005
# So many samples are looked at; of fewer even the least may be long by chance.
_LAST = 3


class RttEstimator:
    """
    Smoothed round trip time, its variation, and its recent minimum.

    Smoothing after RFC 6298, section 2; the minimum is over the last 5 to 10 s, in two
    buckets.  All in seconds.

    @ivar smoothed: C{None} before the first sample.
    @ivar variation: C{rttvar} of the RFC.
    @ivar last: the samples of late, at most three.
    @ivar minimum: the least of the recent samples; C{None} before the first.
    @ivar sampled_at: when the last one was taken.
    """

    __slots__ = (
        "_bucket_ends",
        "_current",
        "_previous",
        "last",
        "minimum",
        "sampled_at",
        "smoothed",
        "variation",
    )

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self.last: tuple[float, ...] = ()
        self.minimum: float | None = None
        self.sampled_at = 0.0
        self._previous = float("inf")
        self._current = float("inf")
        self._bucket_ends = 0.0

    def sample(self, rtt: float, now: float) -> None:
        """One measured round trip."""
        rtt = max(rtt, 1e-6)
        self.sampled_at = now
        self.last = (*self.last, rtt)[-_LAST:]
        if self.smoothed is None:
            self.smoothed = rtt
            self.variation = rtt / 2
        else:
            self.variation += (abs(rtt - self.smoothed) - self.variation) / 4
            self.smoothed += (rtt - self.smoothed) / 8
        if now >= self._bucket_ends:
            self._previous, self._current = self._current, rtt
            self._bucket_ends = now + _BUCKET
        else:
            self._current = min(self._current, rtt)
        self.minimum = min(self._previous, self._current)

    @property
    def is_guess(self) -> bool:
        """Whether the minimum is of so few samples that chance may have made it."""
        return len(self.last) < _LAST

    @property
    def is_queued(self) -> bool:
        """Whether packets wait on the way: none of late has come as soon as it might have."""
        if self.minimum is None:
            return False
        return min(self.last) > QUEUE_FACTOR * self.minimum + _QUEUE_TIME
