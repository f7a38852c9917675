"""How much may go onto a path whose rate is limited."""

NEVER = float("inf")

# What has been saved up is no more than this, and what is owed is waited for in such steps.
_SAVED = 0.05
_STEP = 0.01


class Bucket:
    """
    Bytes that may leave at a rate: those of all subflows of one path together.

    What has left is counted when it does, so that more may leave than there was room for; it
    closes then, until that is made up for.

    @ivar rate: bytes per second.
    @ivar most: how many of them are saved up.
    @ivar reopens_at: when it opens again, after being closed; else infinite.
    """

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self.reopens_at = NEVER
        self.most = self._tokens = rate * _SAVED
        self._counted_at = now

    def room(self, now: float) -> float:
        """How many bytes may leave now; none or less while it is closed."""
        earned = max(0.0, now - self._counted_at) * self.rate
        self._tokens = min(self.most, self._tokens + earned)
        self._counted_at = now
        if now >= self.reopens_at:
            self.reopens_at = NEVER
        return 0.0 if self.reopens_at < NEVER else self._tokens

    def spend(self, size: int, now: float) -> None:
        """So many bytes leave."""
        self.room(now)
        self._tokens -= size
        if self._tokens <= 0:
            # Not at the first byte: each time costs a turn of everything.
            self.reopens_at = now + _STEP - self._tokens / self.rate
