"""How fast one connection is: its rate, its window, and how much to give it at a time."""

from math import log2
from typing import Any

from stripetwist.core.batch import size_for, whole_segments
from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.frames import HEADER_SIZE
from stripetwist.core.ledger import Ledger
from stripetwist.core.rtt import RttEstimator

# What TCP sends at first, before anything is acknowledged (RFC 6928).
INITIAL_WINDOW = 10 * 1448
# How long a measurement takes, unless much goes through; and with how little it says only
# that there was no more to send.
_RATE_SPAN = 0.2
_RATE_MUCH = 256 * 1024
_RATE_LITTLE = 8 * 1024
# A queue that takes longer than this is that of a proxy, or of a line much too patient.
_DEEP = 0.25
# A path that takes so little time needs no window to speak of.
_NEAR = 0.005


class Pace:
    """
    What one subflow's acknowledgements say of its rate, and what follows for a batch.

    @ivar rate: acknowledged bytes per second, while busy.
    @ivar batch: about how many bytes to give it at a time.
    @ivar full_batch: how many exactly, for TCP segments without a gap.
    @ivar datagrams: bytes of them written to it.
    @ivar cold_from: bytes written to it when its window was last known to be small.
    """

    def __init__(self, limits: Limits, ledger: Ledger[Any], rtt: RttEstimator, now: float) -> None:
        self.rate = self._rate_most = 0.0
        self.batch = self.full_batch = limits.batch_first
        self.datagrams = self._datagrams_rated = 0
        self.cold_from = 0
        self._limits = limits
        self._ledger = ledger
        self._rtt = rtt
        self._segment = 0
        self._rated_at = now
        self._rate_from = (now, 0, 0.0)

    # ---- what is measured

    def sets_out(self, now: float, stood: float) -> None:
        """
        Bytes go out with nothing before them in flight.

        @param stood: seconds for which it has been stalled so far.
        """
        self._rate_from = (now, self._ledger.acked, stood)

    def acked(self, now: float, stood: float) -> None:
        """
        More of its bytes are acknowledged.

        @param stood: as in C{sets_out}.
        """
        since, acked, before = self._rate_from
        # What it did not do while it was stalled says nothing of its rate.
        span, size = now - since - (stood - before), self._ledger.acked - acked
        if (span >= _RATE_SPAN or size >= _RATE_MUCH) and span > 0 and size >= _RATE_LITTLE:
            self.rate = size / span
            self._rate_most = max(self._rate_most, self.rate)
            if self.datagrams - self._datagrams_rated > size // 2:
                # Datagrams come at a rate of their own: no sign that it is slow.
                self._rated_at = -NEVER
            else:
                self._rated_at = now
                self._set_batch(size_for(self.rate, self._limits))
            self._datagrams_rated = self.datagrams
            self._rate_from = (now, self._ledger.acked, stood)

    def is_slow(self, now: float) -> bool:
        """Whether even a small frame was seen to take long on it, not long ago."""
        limits = self._limits
        return 0 < self.rate < limits.slow_below and now - self._rated_at < limits.slow_rest

    @property
    def is_near(self) -> bool:
        """Whether round trips take next to nothing."""
        return self._rtt.minimum is not None and self._rtt.minimum < _NEAR

    # ---- its window

    @property
    def window(self) -> float:
        """About what it has under way when it is busy: what TCP starts with, and has grown to."""
        return self._window_at(self.rate)

    @property
    def widest(self) -> float:
        """The most that its window was since it was cold."""
        return self._window_at(self._rate_most)

    def _window_at(self, rate: float) -> float:
        grown = max(0, self._ledger.acked - self.cold_from)
        known = rate * (self._rtt.minimum or 0.0)
        return INITIAL_WINDOW + (min(grown, known) if rate else grown)

    def begin_cold(self) -> None:
        """Whatever its window was, it is small now."""
        self.cold_from = self._ledger.written
        self._rate_most = 0.0

    @property
    def rounds_more(self) -> float:
        """For how many round trips a batch more would wait for TCP's window to double."""
        return max(0.0, log2((self._ledger.in_flight + self.batch) / self.window))

    def queued_for(self, more: float) -> float:
        """Seconds that what is on it and so many bytes more take to be all under way."""
        window = self.window
        excess = self._ledger.in_flight + more - window
        return max(0.0, excess) / (self.rate or window / (self._rtt.minimum or 1.0))

    @property
    def is_deep(self) -> bool:
        """Whether much waits on its way, behind this end's own kernel."""
        # Asked for every batch, and mostly far from it.
        if self._ledger.in_flight + self.batch <= _DEEP * self.rate or not self.rate:
            return False
        # What is known of a long way is old: its window may have doubled since, and again.
        least = max(_DEEP, 3 * (self._rtt.minimum or 0.0))
        # Behind a lost packet as much is in flight, and nothing is in its way.
        return self.queued_for(self.batch) > least and self._rtt.is_queued

    def arrival(self, size: float) -> float:
        """Seconds until so many bytes written now would have arrived, as far as can be told."""
        return (self._rtt.minimum or 1.0) / 2 + self.queued_for(size)

    # ---- how much at a time

    @property
    def frame_payload(self) -> int:
        """How many bytes a DATA frame here should carry."""
        limits = self._limits
        fast = self.rate > limits.frame_large_above
        most = self.full_batch if fast else min(self.full_batch, limits.frame_small)
        return most - HEADER_SIZE

    @property
    def datagram_batch(self) -> int:
        """How many bytes of datagrams to give it at a time; their own rate is a sign here."""
        return max(self.batch, size_for(self.rate, self._limits))

    def fill_segments(self, segment: int) -> None:
        """
        Have what TLS makes of a batch fill TCP segments, where a batch is several of them.

        @param segment: bytes that TCP puts into a packet; 0 if unknown.
        """
        if segment <= self._limits.batch_least // 2:
            self._segment = segment
            self._set_batch(self.batch)

    def _set_batch(self, size: int) -> None:
        self.batch = size
        self.full_batch = whole_segments(size, self._segment) if self._segment else size

    def beyond_segment(self, size: int) -> int:
        """How much of so many bytes is more than full segments."""
        return size % self._segment if self._segment else 0
