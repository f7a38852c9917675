"""One TLS connection of a session, as the core sees it."""

from typing import TYPE_CHECKING

from stripetwist.core import frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits
from stripetwist.core.frames import HEADER, HEADER_SIZE, TICK, FrameParser
from stripetwist.core.ledger import Ledger
from stripetwist.core.liveness import Liveness, State
from stripetwist.core.pace import Pace
from stripetwist.core.rtt import RttEstimator
from stripetwist.core.traits import UNKNOWN, Traits
from stripetwist.core.way import PathRole

if TYPE_CHECKING:
    from stripetwist.core.chunks import Chunk
    from stripetwist.core.flow import Datagram
    from stripetwist.core.outbox import Control

# Of what goes onto it while stream bytes wait, datagrams may make this part.
_DATAGRAM_SHARE = 1 / 5


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
    One TLS connection: its ledger, and what it owes in small frames of its own.

    @ivar subflow_id: chosen by the dialer, never used twice in a session.
    @ivar window_decays: whether its congestion window shrinks while it is idle.
    @ivar path: the number of the way to the peer that it takes.
    @ivar role: when that is used.
    @ivar is_kept_warm: whether its window is opened ahead of use.
    @ivar wrote_at: when anything was last written to it.
    @ivar since_drain: bytes given to the connection since it last had room.
    @ivar pace: how fast it is.
    @ivar life: whether it lives.
    @ivar owes_from: when a small frame of its own should leave.
    """

    def __init__(
        self,
        subflow_id: int,
        limits: Limits,
        now: float,
        rtt: float | None = None,
        traits: Traits = UNKNOWN,
    ) -> None:
        self.subflow_id = subflow_id
        self.window_decays = traits.window_decays
        self.path = traits.path.number
        self.role = traits.path.role
        self.is_kept_warm = self.role is PathRole.PRIMARY and not traits.path.rate
        self.wrote_at = now
        self.ledger: Ledger[Chunk | Control] = Ledger()
        self.checksum = traits.checksum
        self.parser = FrameParser(self.checksum, limits.batch_most - HEADER_SIZE)
        self.rtt = RttEstimator()
        if rtt is not None:
            self.rtt.sample(rtt, now)
        self.pace = Pace(limits, self.ledger, self.rtt, now)
        if self.checksum is None:
            # What TLS adds is known.
            self.pace.fill_segments(traits.segment)
        self.life = Liveness(limits, self.ledger, self.rtt, now)
        self.tx = Traffic()
        self.rx = Traffic()
        self.since_drain = 0
        self._limits = limits
        self._trailer = frames.TRAILER_SIZE if self.checksum else 0
        self._share = float(limits.control_ahead)
        self._share_from = 0
        self.owes_from = NEVER
        self._ack_wanted = False
        self._ping_wanted = False
        self._drain_wanted = False
        self._pong: tuple[int, float] | None = None

    # ---- what it may carry

    @property
    def latency(self) -> float:
        """What to expect of a small frame sent now; infinite where nothing should be sent."""
        if self.life.state is not State.ACTIVE:
            return NEVER
        return self.rtt.smoothed if self.rtt.smoothed is not None else 1.0

    @property
    def batch_latency(self) -> float:
        """The same of a batch: one that TCP's window has no room for takes a round trip more."""
        latency, flight = self.latency, self.ledger.in_flight
        # Asked often, and mostly there is no need to know the window.
        if flight == 0 or flight + self.pace.batch <= self.pace.window:
            return latency
        return 2 * latency

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
        self.pace.datagrams += size
        if shares:
            self._share -= size
        datagram.carriers += (self.subflow_id,)
        self.wrote(size, None, now)
        stream_id, number, address = datagram.stream_id, datagram.number, datagram.address
        out += frames.pack_datagram(stream_id, number, address, payload, copy)

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

    def wrote(self, size: int, item: "Chunk | Control | None", now: float) -> None:
        """Bytes that call for an acknowledgement go out."""
        if not self.ledger.in_flight:
            self.life.sets_out(now)
            self.pace.sets_out(now, self.life.stood)
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
            self.life.acked(now)
            self.pace.acked(now, self.life.stood)
            if sent_at is not None and delay is not None:
                self.rtt.sample(now - sent_at - delay, now)
        return items

    @property
    def time_left(self) -> float:
        """Seconds that what is on it takes yet, as far as can be told."""
        rate = max(self.pace.rate, self.life.kernel_rate)
        return self.ledger.in_flight / rate if rate else NEVER

    def heard(self, now: float, calls: bool) -> None:
        """Bytes came; C{calls} if they call for an acknowledgement."""
        self.life.heard(now)
        if calls and not self._ack_wanted:
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
        self.life.answered()

    def take_owed(self, now: float) -> list[bytes]:
        """Its own small frames: the acknowledgement first, it rides free with anything."""
        out: list[bytes] = []
        self.owes_from = NEVER
        if self._ack_wanted:
            held = _ticks16(now - self.life.last_heard)
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

    # ---- its signs of life

    def suspect(self, now: float) -> None:
        """No progress: carry nothing new until there is some; ask."""
        self.life.suspect(now)
        self.ask(now)

    def probe(self, now: float) -> None:
        """Something else on its path is silent: unless it answers soon, so is it."""
        if self.life.probe(now):
            self.ask(now)

    def ping(self, now: float) -> None:
        """Ask for a sign of life, and note whether the last one came."""
        self.life.ping(now)
        self.ask(now)

    def excuse(self, lateness: float, now: float) -> None:
        """We ourselves were late by so much: not its fault."""
        if self.life.excuse(lateness, now):
            self.ask(now)

    def passed_over(self, now: float) -> None:
        """
        It got none of the bytes that there were, since its round trip seems long: is it?

        What carries nothing measures nothing; and while the peer's bytes come on it, it is
        not silent, which would call for a PING.
        """
        life = self.life
        if self.ledger.in_flight or life.state is not State.ACTIVE:
            return
        wait = self._limits.ping_again if self.rtt.is_guess else self._limits.ping_idle
        since = max(life.asked_at, self.rtt.sampled_at)
        if life.asked_at <= life.last_heard and now >= since + wait:
            self.ping(now)

    def ask(self, now: float) -> None:
        """Let a PING leave; what is to follow from its answer is the caller's."""
        self._ping_wanted = True
        self.owes_from = now

    def ask_to_drain(self, now: float) -> None:
        """Carry nothing new, and have the peer do so too."""
        self.life.drain()
        self._drain_wanted = True
        self.owes_from = now

    def owed_at(self) -> float:
        """When an acknowledgement has waited long enough; never while it could not leave."""
        return self.owes_from if self._ack_wanted and self.has_room_for_control else NEVER

    @property
    def has_room_for_control(self) -> bool:
        """Whether a small frame may still be put behind what has not drained."""
        return self.since_drain < self._limits.control_ahead


def _ticks16(seconds: float) -> int:
    return max(0, min(0xFFFF, int(seconds / TICK)))
