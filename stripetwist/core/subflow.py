"""One TLS connection of a session, as the core sees it."""

from enum import Enum
from math import log2
from typing import TYPE_CHECKING

from stripetwist.core import frames
from stripetwist.core.batch import size_for, whole_segments
from stripetwist.core.config import Limits
from stripetwist.core.frames import HEADER, HEADER_SIZE, TICK, FrameParser
from stripetwist.core.ledger import Ledger
from stripetwist.core.progress import KernelView
from stripetwist.core.rtt import RttEstimator
from stripetwist.core.way import PathRole

if TYPE_CHECKING:
    from stripetwist.core.chunks import Chunk
    from stripetwist.core.flow import Datagram
    from stripetwist.core.outbox import Control

NEVER = float("inf")
# What TCP sends at first, before anything is acknowledged (RFC 6928).
INITIAL_WINDOW = 10 * 1448
# How long a measurement takes, unless much goes through; and with how little it says only
# that there was no more to send.
_RATE_SPAN = 0.2
_RATE_MUCH = 256 * 1024
_RATE_LITTLE = 8 * 1024
# What TLS may have added to bytes in flight, beside a share of them.
_RECORD = 256
# A queue that takes longer than this is that of a proxy, or of a line much too patient.
_DEEP = 0.25
# A path that takes so little time needs no window to speak of.
_NEAR = 0.005
# Of what goes onto it while stream bytes wait, datagrams may make this part.
_DATAGRAM_SHARE = 1 / 5


class State(Enum):
    """Whether a subflow may carry new data."""

    ACTIVE = "active"
    SUSPECT = "suspect"
    DRAINING = "draining"


class Traffic:
    """
    Bytes of one direction: payload sent for the first time, and the dummy rest.

    @ivar first: stream bytes, first transmission (receiving: first arrival).
    @ivar copy: stream bytes again.
    @ivar pad: filler.
    @ivar overhead: headers and control frames.
    """

    __slots__ = ("copy", "first", "overhead", "pad")

    def __init__(self) -> None:
        self.first = self.copy = self.pad = self.overhead = 0

    def as_dict(self) -> dict[str, int]:
        """For the snapshot."""
        return {
            "first": self.first,
            "copy": self.copy,
            "pad": self.pad,
            "overhead": self.overhead,
        }


class Subflow:
    """
    One TLS connection: its ledger, what it owes in acknowledgements, and whether it lives.

    Liveness is judged by progress: bytes in flight must be acknowledged, silence must answer
    to pings.  Judges only itself; what follows from it is the session's.

    @ivar subflow_id: chosen by the dialer, never used twice in a session.
    @ivar window_decays: whether its congestion window shrinks while it is idle.
    @ivar path: the number of the way to the peer that it takes.
    @ivar role: when that is used.
    @ivar is_kept_warm: whether its window is opened ahead of use.
    @ivar cold_from: bytes written to it when its window was last known to be small.
    @ivar wrote_at: when anything was last written to it.
    @ivar since_drain: bytes given to the connection since it last had room.
    @ivar rate: acknowledged bytes per second, while busy.
    @ivar batch: about how many bytes to give it at a time.
    @ivar full_batch: how many exactly, for TCP segments without a gap.
    @ivar last_heard: when bytes last came.
    @ivar owes_from: when a small frame of its own should leave.
    @ivar asked_at: when it was last asked for a sign of life.
    """

    def __init__(
        self,
        subflow_id: int,
        limits: Limits,
        now: float,
        rtt: float | None = None,
        checksum: frames.Checksum | None = None,
        window_decays: bool = False,
    ) -> None:
        self.subflow_id = subflow_id
        self.window_decays = window_decays
        self.path = 0
        self.role = PathRole.PRIMARY
        self.is_kept_warm = True
        self.cold_from = 0
        self.wrote_at = now
        self.state = State.ACTIVE
        self.ledger: Ledger[Chunk | Control] = Ledger()
        self.checksum = checksum
        self.parser = FrameParser(checksum, limits.batch_most - HEADER_SIZE)
        self.rtt = RttEstimator()
        if rtt is not None:
            self.rtt.sample(rtt, now)
        self.tx = Traffic()
        self.rx = Traffic()
        self.rate = self._rate_most = 0.0
        self._segment = 0
        self.batch = self.full_batch = limits.batch_first
        self.since_drain = 0
        self.up_since = now
        self.last_heard = now
        self._limits = limits
        self._trailer = frames.TRAILER_SIZE if checksum else 0
        self._progress_at = now
        self._stall_from = now
        self._kernel = (now, KernelView())
        self._kernel_rate = 0.0
        self._believed_until: int | None = None
        self._rated_at = now
        self._rate_from = (now, 0)
        self._stood = 0.0
        self._datagrams = 0
        self._datagrams_rated = 0
        self._share = float(limits.control_ahead)
        self._share_from = 0
        self._draining = False
        self._reprieve = 0.0
        self._reprieved = False
        self._probed_at: float | None = None
        self.owes_from = NEVER
        self._ack_wanted = False
        self._ping_wanted = False
        self._drain_wanted = False
        self._pong: tuple[int, float] | None = None
        self.asked_at = now
        self.pings_missed = 0

    # ---- what it may carry

    @property
    def frame_payload(self) -> int:
        """How many bytes a DATA frame here should carry."""
        limits = self._limits
        fast = self.rate > limits.frame_large_above
        most = self.full_batch if fast else min(self.full_batch, limits.frame_small)
        return most - HEADER_SIZE

    @property
    def latency(self) -> float:
        """What to expect of a small frame sent now; infinite where nothing should be sent."""
        if self.state is not State.ACTIVE:
            return NEVER
        return self.rtt.smoothed if self.rtt.smoothed is not None else 1.0

    @property
    def batch_latency(self) -> float:
        """The same of a batch: one that TCP's window has no room for takes a round trip more."""
        latency, flight = self.latency, self.ledger.in_flight
        # Asked often, and mostly there is no need to know the window.
        if flight == 0 or flight + self.batch <= self.window:
            return latency
        return 2 * latency

    @property
    def window(self) -> float:
        """About what it has under way when it is busy: what TCP starts with, and has grown to."""
        return self._window_at(self.rate)

    @property
    def widest(self) -> float:
        """The most that its window was since it was cold."""
        return self._window_at(self._rate_most)

    def _window_at(self, rate: float) -> float:
        grown = max(0, self.ledger.acked - self.cold_from)
        known = rate * (self.rtt.minimum or 0.0)
        return INITIAL_WINDOW + (min(grown, known) if rate else grown)

    def begin_cold(self) -> None:
        """Whatever its window was, it is small now."""
        self.cold_from = self.ledger.written
        self._rate_most = 0.0

    @property
    def is_near(self) -> bool:
        """Whether round trips take next to nothing."""
        return self.rtt.minimum is not None and self.rtt.minimum < _NEAR

    @property
    def rounds_more(self) -> float:
        """For how many round trips a batch more would wait for TCP's window to double."""
        return max(0.0, log2((self.ledger.in_flight + self.batch) / self.window))

    def put_control(self, control: "Control", out: list[bytes], now: float) -> None:
        """Put a control frame into a batch."""
        size = len(control.data)
        control.carriers += (self.subflow_id,)
        self.wrote(size, control, now)
        self.tx.overhead += size
        out.append(control.data)

    def put_chunk(self, chunk: "Chunk", out: list[bytes], now: float) -> None:
        """Put a DATA frame into a batch."""
        size = len(chunk.data)
        flags = frames.FIN if chunk.fin else 0
        if chunk.sent:
            flags |= frames.COPY
            self.tx.copy += size
        else:
            self.tx.first += size
        self.tx.overhead += HEADER_SIZE
        chunk.sent = True
        chunk.carriers += (self.subflow_id,)
        self.wrote(HEADER_SIZE + size, chunk, now)
        owner = chunk.owner.stream_id
        out.append(HEADER.pack(frames.DATA, flags, 0, size, owner, chunk.offset))
        if size:
            out.append(chunk.data)

    def put_datagram(
        self, datagram: "Datagram", out: list[bytes], now: float, shares: bool
    ) -> None:
        """
        Put a DGRAM frame into a batch.

        @param shares: whether stream bytes wait for this subflow.
        """
        copy = bool(datagram.carriers)
        payload, size = datagram.payload, datagram.size
        if copy:
            self.tx.copy += len(payload)
        else:
            self.tx.first += len(payload)
        self.tx.overhead += size - len(payload)
        self._datagrams += size
        if shares:
            self._share -= size
        datagram.carriers += (self.subflow_id,)
        self.wrote(size, None, now)
        stream_id, number, address = datagram.stream_id, datagram.number, datagram.address
        out += frames.pack_datagram(stream_id, number, address, payload, copy)

    @property
    def datagram_batch(self) -> int:
        """How many bytes of datagrams to give it at a time; their own rate is a sign here."""
        return max(self.batch, size_for(self.rate, self._limits))

    def datagram_share(self) -> float:
        """How many bytes of datagrams may go onto it while stream bytes wait; less if negative."""
        written = self.ledger.written
        earned = (written - self._share_from) * _DATAGRAM_SHARE
        self._share = min(self._limits.control_ahead, self._share + earned)
        self._share_from = written
        return self._share

    def streams_first(self) -> float:
        """How many bytes of streams are to go before the next datagram."""
        return max(0.0, -self.datagram_share() / _DATAGRAM_SHARE)

    def queued_for(self, more: float) -> float:
        """Seconds that what is on it and so many bytes more take to be all under way."""
        window = self.window
        excess = self.ledger.in_flight + more - window
        return max(0.0, excess) / (self.rate or window / (self.rtt.minimum or 1.0))

    @property
    def is_deep(self) -> bool:
        """Whether much waits on its way, behind this end's own kernel."""
        # Asked for every batch, and mostly far from it.
        if self.ledger.in_flight + self.batch <= _DEEP * self.rate or not self.rate:
            return False
        # What is known of a long way is old: its window may have doubled since, and again.
        least = max(_DEEP, 3 * (self.rtt.minimum or 0.0))
        return self.queued_for(self.batch) > least

    def overdue(self, now: float) -> float:
        """By how many seconds an acknowledgement of what is on it is late."""
        if not self.ledger.in_flight or self.rtt.minimum is None:
            return 0.0
        limits = self._limits
        expected = self.rtt.minimum + limits.ack_delay + limits.stall_margin
        return max(0.0, now - self._stall_from - expected)

    def arrival(self, size: float) -> float:
        """Seconds until so many bytes written now would have arrived, as far as can be told."""
        return (self.rtt.minimum or 1.0) / 2 + self.queued_for(size)

    def wrote(self, size: int, item: "Chunk | Control | None", now: float) -> None:
        """Bytes that call for an acknowledgement go out."""
        if not self.ledger.in_flight:
            self._progress_at = self._stall_from = now
            self._believed_until = None
            self._rate_from = (now, self.ledger.acked)
            self._stood = 0.0
        self.ledger.note(size + self._trailer, item, now)

    def put_filler(self, size: int, out: list[bytes], now: float) -> None:
        """Put a PAD frame with so much payload into a batch."""
        self.wrote(HEADER_SIZE + size, None, now)
        self.tx.pad += HEADER_SIZE + size
        out += (HEADER.pack(frames.PAD, 0, 0, size, 0, 0), bytes(size))

    def wrote_quiet(self, count: int) -> None:
        """Frames without payload that call for none go out."""
        self.ledger.note_quiet(count * (HEADER_SIZE + self._trailer))
        self.tx.overhead += count * HEADER_SIZE

    def with_trailers(self, buffers: list[bytes]) -> list[bytes]:
        """The batch as it goes on the wire, with checksums where no TLS guards it."""
        return frames.with_trailers(buffers, self.checksum) if self.checksum else buffers

    # ---- acknowledgements

    def acked(self, parsed: int, delay: float | None, now: float) -> "list[Chunk | Control]":
        """
        The peer has parsed that many of our bytes.

        @param delay: seconds for which it kept that to itself; C{None} if the news came on
            another subflow, and says nothing of this one's round trip.
        @return: what has arrived.
        """
        before = self.ledger.acked
        items, sent_at = self.ledger.ack(parsed)
        if self.ledger.acked > before:
            self._progressed(now)
            self._stall_from = now
            self._measure_rate(now)
            self._reprieved = False
            self._believed_until = None
            if sent_at is not None and delay is not None:
                self.rtt.sample(now - sent_at - delay, now)
            self._trust()
        return items

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
        self._kernel_rate = (view.acked - before.acked) / max(now - since, 1e-3)
        flight = self.ledger.in_flight
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

    @property
    def time_left(self) -> float:
        """Seconds that what is on it takes yet, as far as can be told."""
        rate = max(self.rate, self._kernel_rate)
        return self.ledger.in_flight / rate if rate else NEVER

    def bear(self, now: float) -> None:
        """Slow as it is, it moves, and the others are no quicker: wait for it."""
        self._stall_from = max(self._stall_from, self._progress_at)
        self._probed_at = None
        self._trust()

    def _trust(self) -> None:
        if self.state is State.SUSPECT:
            self.state = State.DRAINING if self._draining else State.ACTIVE

    def _progressed(self, now: float) -> None:
        # What it did not do while it was stalled says nothing of its rate.
        self._stood += max(0.0, now - self._progress_at - self.stall_after)
        self._progress_at = max(self._progress_at, now)

    def _measure_rate(self, now: float) -> None:
        since, acked = self._rate_from
        span, size = now - since - self._stood, self.ledger.acked - acked
        if (span >= _RATE_SPAN or size >= _RATE_MUCH) and span > 0 and size >= _RATE_LITTLE:
            self.rate = size / span
            self._rate_most = max(self._rate_most, self.rate)
            if self._datagrams - self._datagrams_rated > size // 2:
                # Datagrams come at a rate of their own: no sign that it is slow.
                self._rated_at = -NEVER
            else:
                self._rated_at = now
                self._set_batch(size_for(self.rate, self._limits))
            self._datagrams_rated = self._datagrams
            self._rate_from = (now, self.ledger.acked)
            self._stood = 0.0

    def is_slow(self, now: float) -> bool:
        """Whether even a small frame was seen to take long on it, not long ago."""
        limits = self._limits
        return 0 < self.rate < limits.slow_below and now - self._rated_at < limits.slow_rest

    def fill_segments(self, segment: int) -> None:
        """
        Have what TLS makes of a batch fill TCP segments, where a batch is several of them.

        @param segment: bytes that TCP puts into a packet; 0 if unknown.
        """
        if segment <= self._limits.batch_least // 2 and self.checksum is None:
            self._segment = segment
            self._set_batch(self.batch)

    def _set_batch(self, size: int) -> None:
        self.batch = size
        self.full_batch = whole_segments(size, self._segment) if self._segment else size

    def beyond_segment(self, size: int) -> int:
        """How much of so many bytes is more than full segments."""
        return size % self._segment if self._segment else 0

    def heard(self, now: float, calls: bool) -> None:
        """Bytes came; C{calls} if they call for an acknowledgement."""
        self.last_heard = now
        self.pings_missed = 0
        self._probed_at = None
        if not calls:
            return
        if not self._ack_wanted:
            self._ack_wanted = True
            limits = self._limits
            smoothed = self.rtt.smoothed if self.rtt.smoothed is not None else 1.0
            wait = max(limits.ack_delay_floor, min(limits.ack_delay, smoothed / 4))
            self.owes_from = min(self.owes_from, now + wait)

    def ping_came(self, stamp: int, now: float) -> None:
        """A PING is to be answered; only the latest is, so a flood owes us one frame."""
        self._pong = (stamp, now)
        self.owes_from = now

    def pong_came(self, stamp: int, held: float, now: float) -> None:
        """The answer to a PING of ours."""
        rtt = now - stamp * TICK - held
        if 0 <= rtt < 100:
            self.rtt.sample(rtt, now)
        if not self.ledger.in_flight:
            self._trust()

    def take_owed(self, now: float) -> list[bytes]:
        """Its own small frames: the acknowledgement first, it rides free with anything."""
        out: list[bytes] = []
        self.owes_from = NEVER
        if self._ack_wanted:
            held = _ticks16(now - self.last_heard)
            out.append(frames.pack(frames.ACK, aux=held, offset=self.parser.parsed))
            self._ack_wanted = False
        if self._pong is not None:
            stamp, came = self._pong
            out.append(frames.pack(frames.PONG, aux=_ticks16(now - came), offset=stamp))
            self._pong = None
        if self._ping_wanted:
            self._ping_wanted = False
            out.append(frames.pack(frames.PING, offset=int(now / TICK)))
        if out:
            self.wrote_quiet(len(out))
        if self._drain_wanted:
            self._drain_wanted = False
            self.wrote(HEADER_SIZE, None, now)
            self.tx.overhead += HEADER_SIZE
            out.append(frames.pack(frames.SUBFLOW_DRAIN))
        return out

    # ---- liveness

    @property
    def stall_after(self) -> float:
        """How long bytes in flight may go without progress (T_stall)."""
        limits = self._limits
        smoothed = self.rtt.smoothed
        if smoothed is None:
            return 1.0
        patience = max(smoothed + 4 * self.rtt.variation, self._kernel[1].patience)
        return min(limits.stall_most, max(limits.stall_floor, patience + limits.stall_margin))

    def stalled_at(self) -> float:
        """When it is to be suspected."""
        if self.state is State.SUSPECT:
            return NEVER
        if self.ledger.in_flight:
            return self._stall_from + self.stall_after
        return NEVER if self._probed_at is None else self._probed_at + self.stall_after

    def dead_at(self, others_live: bool) -> float:
        """When it is to be given up for lack of progress."""
        since = self._progress_at if self.ledger.in_flight else self._probed_at
        if since is None:
            return NEVER
        limits = self._limits
        patience = max(self.stall_after, limits.dead_alive if others_live else limits.dead_alone)
        return max(since + patience, self._reprieve)

    @property
    def stuck_since(self) -> float:
        """Since when there has been no progress, where it is suspected for that."""
        is_stuck = self.state is State.SUSPECT and self.ledger.in_flight
        return self._progress_at if is_stuck else NEVER

    def suspect(self, now: float) -> None:
        """No progress: carry nothing new until there is some; ask."""
        self.state = State.SUSPECT
        self.ask(now)
        self.asked_at = now

    def probe(self, now: float) -> None:
        """Something else on its path is silent: unless it answers soon, so is it."""
        if self.state is State.ACTIVE and not self.ledger.in_flight and self._probed_at is None:
            self._probed_at = now
            self.ask(now)
            self.asked_at = now

    def ask(self, now: float) -> None:
        """Let a PING leave; what is to follow from its answer is the caller's."""
        self._ping_wanted = True
        self.owes_from = now

    def drain(self) -> None:
        """One side wants nothing new on it."""
        self._draining = True
        if self.state is State.ACTIVE:
            self.state = State.DRAINING

    def ask_to_drain(self, now: float) -> None:
        """Carry nothing new, and have the peer do so too."""
        self.drain()
        self._drain_wanted = True
        self.owes_from = now

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

    def ping(self, now: float) -> None:
        """Ask for a sign of life; one that cannot even leave counts as missed, too."""
        if self.asked_at > self.last_heard:
            self.pings_missed += 1
        self.ask(now)
        self.asked_at = now

    def owed_at(self) -> float:
        """When an acknowledgement has waited long enough; never while it could not leave."""
        return self.owes_from if self._ack_wanted and self.has_room_for_control else NEVER

    @property
    def has_room_for_control(self) -> bool:
        """Whether a small frame may still be put behind what has not drained."""
        return self.since_drain < self._limits.control_ahead

    def excuse(self, lateness: float, now: float) -> None:
        """
        We ourselves were late by so much: not its fault.

        Its answer may wait to be read, so once, until there is progress, it gets the time
        of a round trip more.
        """
        self._progress_at = min(now, self._progress_at + lateness)
        self._stall_from = min(now, self._stall_from + lateness)
        self.last_heard = min(now, self.last_heard + lateness)
        if self._probed_at is not None:
            self._probed_at = min(now, self._probed_at + lateness)
        if not self._reprieved and self.ledger.in_flight:
            self._reprieved = True
            self._reprieve = now + self.stall_after
            self.ask(now)


def _ticks16(seconds: float) -> int:
    return max(0, min(0xFFFF, int(seconds / TICK)))
