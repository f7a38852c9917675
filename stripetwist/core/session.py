"""All that two peers share: streams on one side, subflows on the other."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from stripetwist.core import events, frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.config import Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.errors import Code, FramingError, OpenRefused, ProtocolError
from stripetwist.core.frames import HEADER_SIZE, TICK, Frame
from stripetwist.core.outbox import Outbox
from stripetwist.core.progress import KernelView
from stripetwist.core.streams import Streams
from stripetwist.core.subflow import Subflow
from stripetwist.core.subflows import Subflows
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.traits import UNKNOWN, Traits
from stripetwist.core.warmth import Warmth

# Less room than this in a batch is not worth a frame.
_CRUMB = 4 * HEADER_SIZE
# More than a page; whoever grants less than this has no memory for more.
_WORTH_SPREADING = 256 * 1024


class Session:
    """
    Streams carried over whatever subflows there are; outlives each of them.

    It is asked and never calls: bytes and time come in, buffers and events are taken out.
    After any input the owner drains C{next_event}, polls what C{pollable} names, and arms
    one timer to C{next_deadline}.  Stream methods on an id that is gone do nothing, since
    its last event may still be on the way to the caller.

    @ivar closed: why it is over, once it is.
    """

    def __init__(
        self, is_dialer: bool, limits: Limits, budget: MemoryBudget, peer: PeerLimits, now: float
    ) -> None:
        if not is_dialer:
            # One side's question is enough: its answer is the other's sign of life.
            longer = limits.ping_busy * limits.ping_grace, limits.ping_idle * limits.ping_grace
            limits = replace(limits, ping_busy=longer[0], ping_idle=longer[1])
        self._limits = limits
        self._events: deque[events.Event] = deque()
        self._outbox = Outbox(limits)
        self._streams = Streams(is_dialer, limits, budget, peer, self._outbox, self._events.append)
        self._datagrams = self._streams.datagrams
        self._warmth = Warmth(limits, now, self._events.append)
        self._subflows = Subflows(self._outbox, limits, self._warmth, peer.longest)
        self._carrying = self._subflows.carrying
        self._peer_leaves = False
        self._armed = NEVER
        self._judged_from = NEVER
        self._owes_from = NEVER
        self.closed: events.SessionClosed | None = None
        self._timeout = (
            limits.session_timeout
            if is_dialer
            else min(limits.session_timeout, peer.session_timeout) * limits.acceptor_grace
        )
        self._alone_since = now
        self._deaths = 0
        self._handlers: dict[int, Callable[[Subflow, Frame, float], None]] = {
            frames.DATA: self._streams.on_data,
            frames.ACK: self._on_ack,
            frames.CREDIT: self._streams.on_credit,
            frames.OPEN: self._streams.on_open,
            frames.ACCEPT: self._streams.on_accept,
            frames.REFUSE: self._streams.on_refuse,
            frames.RESET: self._streams.on_reset,
            frames.STOP: self._streams.on_stop,
            frames.PING: self._on_ping,
            frames.PONG: self._on_pong,
            frames.DGRAM: self._on_datagram,
            frames.SUBFLOW_FINAL: self._on_final,
            frames.SUBFLOW_DRAIN: self._on_drain,
            frames.GOAWAY: self._on_goaway,
            frames.CLOSE: self._on_close,
        }

    # ---- subflows

    def subflow_up(
        self, subflow_id: int, now: float, rtt: float | None = None, traits: Traits = UNKNOWN
    ) -> None:
        """
        A connection has joined.

        @param rtt: seconds its hello took, if known.
        @raise ProtocolError: its id was used before.
        """
        if not self.closed:
            path = traits.path
            subflow = Subflow(subflow_id, self._limits, now, rtt, traits)
            self._subflows.add(subflow)
            self._subflows.paths.limit(path.number, path.rate, now)
            self._warmth.joined(subflow, self._used, now)

    def subflow_down(self, subflow_id: int, now: float) -> None:
        """A connection is lost; what was on it goes to the others at once."""
        if self._subflows.remove(subflow_id) is None:
            return
        self._deaths += 1
        if not self._subflows.alive:
            self._alone_since = now

    def drain(self, subflow_id: int, now: float) -> None:
        """A connection is to be closed soon: nothing new is to go onto it, either way."""
        if (subflow := self._subflows.alive.get(subflow_id)) is not None:
            subflow.ask_to_drain(now)
            self._subflows.state_changed(subflow)

    def drained(self, subflow_id: int) -> None:
        """All that was given to a connection has left this process."""
        if (subflow := self._subflows.alive.get(subflow_id)) is not None:
            subflow.since_drain = 0
            # What it owes had no room to leave, and so no time to leave by.
            self._owes_from = min(self._owes_from, subflow.owes_from)

    def kernel_says(self, subflow_id: int, view: KernelView, now: float) -> None:
        """What the kernel sees of a connection that C{doubtful} names."""
        self._subflows.kernel_says(subflow_id, view, now)

    def seems_slow(self, subflow_id: int, view: KernelView, now: float) -> None:
        """What the kernel sees of a connection that C{SubflowSlow} has named."""
        if (subflow := self._subflows.alive.get(subflow_id)) is not None:
            self._subflows.slow.seen(subflow, view, now)

    def lost_packets(self, subflow_id: int, now: float) -> None:
        """A connection has had to send something twice since C{SubflowCold} named it."""
        if (subflow := self._subflows.alive.get(subflow_id)) is not None:
            self._warmth.lost_packets(subflow, now)

    def doubtful(self, now: float) -> list[int]:
        """
        Ids of the subflows about to be asked, suspected or given up for their silence.

        The owner asks the kernel about them before it calls C{deadline_reached}.
        """
        return self._subflows.doubtful(now, bool(self._streams.table))

    def received(self, subflow_id: int, pieces: Sequence[bytes], now: float) -> None:
        """
        Bytes came on a subflow, in these pieces.

        @raise FramingError: they make no frames: this subflow is to be closed.
        @raise ProtocolError: they make no sense: the session is to be closed.
        """
        subflow = self._subflows.alive.get(subflow_id)
        if subflow is None:
            return
        calls = False
        feed = subflow.parser.feed
        if came := [frame for piece in pieces for frame in feed(piece)]:
            calls = self._act_on(subflow, came, now)
            if self.closed:
                return
        subflow.heard(now, calls or subflow.parser.inside_frame)
        self._owes_from = min(self._owes_from, subflow.owes_from)
        if subflow.parser.error is not None:
            raise subflow.parser.error
        if self._outbox.is_overfull:
            raise ProtocolError(Code.LIMIT, "it makes us owe too many control frames")

    def _act_on(self, subflow: Subflow, came: list[Frame], now: float) -> bool:
        """Handle frames; whether any of them calls for an acknowledgement."""
        calls = False
        rest = iter(came)
        for frame in rest:
            kind = frame[0]
            calls = calls or kind not in frames.QUIET
            if kind == frames.PAD:
                subflow.rx.pad += HEADER_SIZE + frame[6]
                continue
            carries = kind == frames.DATA or kind == frames.DGRAM
            subflow.rx.overhead += HEADER_SIZE if carries else HEADER_SIZE + frame[6]
            if (handler := self._handlers.get(kind)) is None:
                continue
            try:
                handler(subflow, frame, now)
            except FramingError:
                # The peer must send this one, and what came after it, again elsewhere.
                subflow.parser.take_back([frame, *rest])
                raise
            if self.closed:
                break
        return calls

    def pollable(self, now: float) -> Iterator[int]:
        """
        Ids of the subflows that have something to write now, the quickest first.

        To be polled as they come: each is named only if those before it have left something.
        """
        if now >= self._warmth.until:
            self._watch_use(now)
        if self._datagrams.waits:
            self._datagrams.route(self._carrying.ways(now), now)
        return self._carrying.pollable(now, self._datagrams.routed)

    @property
    def moved(self) -> int:
        """Payload bytes that went either way so far."""
        return self._subflows.moved

    @property
    def peer_leaves(self) -> bool:
        """Whether the peer takes no new streams."""
        return self._peer_leaves

    @property
    def is_stalled(self) -> bool:
        """Whether no subflow may carry anything new: all that there are answer nothing."""
        return not self._subflows.healthy

    @property
    def last_heard(self) -> float:
        """When bytes last came, on any subflow there is."""
        return max((s.life.last_heard for s in self._subflows.alive.values()), default=-NEVER)

    @property
    def stuck_since(self) -> float:
        """Since when bytes have been under way and none arrived; never while any may."""
        # A pool asks this of each agent at each open.
        if self._subflows.healthy:
            return NEVER
        return max((s.life.stuck_since for s in self._subflows.alive.values()), default=NEVER)

    def ask(self, now: float) -> None:
        """Have the peer give a sign of life on every subflow; C{last_heard} will tell."""
        for subflow in self._subflows.alive.values():
            subflow.ask(now)

    @property
    def rtt(self) -> float | None:
        """The shortest of its subflows' round trips, in seconds; C{None} if none is known."""
        known = [s.rtt.smoothed for s in self._subflows.alive.values() if s.rtt.smoothed]
        return min(known, default=None)

    @property
    def _used(self) -> int:
        """A number that grows with all use: payload bytes, and streams."""
        return self._subflows.moved + self._streams.counters["opened"]

    def _watch_use(self, now: float) -> None:
        self._warmth.watch(self._used, self._subflows.alive, now)

    def poll(self, subflow_id: int, now: float) -> list[bytes]:
        """
        One batch for a subflow, to be joined and written once.

        Its own small frames, control and datagrams may come although it has not drained;
        stream bytes are bound to it only when it has.
        """
        subflow = self._subflows.alive.get(subflow_id)
        if subflow is None or not subflow.has_room_for_control:
            return []
        outbox = self._outbox
        carries = self._carrying.carries(subflow, now)
        drained = subflow.since_drain == 0
        out: list[bytes] = []
        # Noted in the ledger in the order of the wire: an acknowledgement counts its bytes.
        takes = carries and drained and self._carrying.takes_data(subflow)
        told = subflow_id in self._datagrams.routed and self._carrying.may_carry(subflow, now)
        speaks = told or (carries and (outbox.has_control or takes))
        if speaks or subflow.owes_from <= now:
            out += subflow.take_owed(now)
        if carries:
            self._poll_control(subflow, out, now)
        if told:
            self._poll_datagrams(subflow, out, now)
        if takes:
            self._poll_data(subflow, out, now)
        if carries and drained and not out:
            self._poll_filler(subflow, out, now)
        if out:
            subflow.wrote_at = now
            self._judged_from = min(self._judged_from, now + self._limits.stall_floor)
            size = sum(map(len, out))
            subflow.since_drain += size
            if (paths := self._subflows.paths).limited:
                paths.spend(subflow, size, now)
            if subflow.checksum is not None:
                out = subflow.with_trailers(out)
        return out

    def _poll_control(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        healthy = self._subflows.healthy
        for control in self._outbox.take_control(self._limits.control_ahead, healthy):
            subflow.put_control(control, out, now)

    def _poll_datagrams(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        shares = self._carrying.data_waits(subflow)
        room = self._carrying.datagram_room(subflow)
        while room > 0:
            datagram = self._datagrams.take(subflow.subflow_id, now)
            if datagram is None:
                return
            subflow.put_datagram(datagram, out, now, shares)
            room -= datagram.size

    def _poll_data(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        room = self._carrying.batch_for(subflow, now)
        room -= subflow.pace.beyond_segment(sum(map(len, out)))
        payload = min(subflow.pace.frame_payload, room - HEADER_SIZE)
        if payload > self._limits.batch:
            payload = min(payload, self._carrying.longest - HEADER_SIZE)
        outbox = self._outbox
        takes_new = self._carrying.takes_new(subflow)
        while room > _CRUMB:
            payload = min(payload, room - HEADER_SIZE)
            chunk = outbox.take_again(self._subflows.healthy)
            if chunk is None and (not takes_new or (chunk := outbox.cut(payload)) is None):
                return
            if not chunk.sent:
                self._streams.room.check(chunk.owner.stream_id)
            subflow.put_chunk(chunk, out, now)
            room -= HEADER_SIZE + len(chunk.data)

    def _poll_filler(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        if self._warmth.padding and (size := self._carrying.filler_for(subflow, now)):
            subflow.put_filler(size, out, now)
            self._warmth.spend(subflow, HEADER_SIZE + size)

    # ---- streams, for the owner

    def open(self, request: OpenRequest) -> int:
        """
        Ask the peer for a stream.

        @return: its id; C{StreamAccepted} or C{StreamRefused} will follow.
        @raise OpenRefused: there can be none now.
        """
        if self.closed or self._peer_leaves:
            raise OpenRefused(Code.GOING_AWAY, "the server is shutting down; try again later")
        return self._streams.open(request)

    def accept(self, stream_id: int) -> None:
        """The target of a stream that the peer opened has answered."""
        self._streams.accept(stream_id)

    def refuse(self, stream_id: int, code: Code, sentence: str) -> None:
        """The target of a stream that the peer opened cannot be had."""
        self._streams.refuse(stream_id, code, sentence)

    def write(self, stream_id: int, data: bytes) -> int:
        """
        Send bytes.

        @return: how many more may follow at once; after 0 wait for C{StreamWritable}.
        """
        return self._streams.write(stream_id, data)

    @property
    def has_much(self) -> bool:
        """Whether much waits that the peer would take."""
        return self._outbox.has_much(_WORTH_SPREADING)

    def room_left(self, stream_id: int) -> int:
        """How many bytes may be written now."""
        return self._streams.room_left(stream_id)

    def end(self, stream_id: int) -> None:
        """No more bytes will be written; what was is still delivered."""
        self._streams.end(stream_id)

    def reset(self, stream_id: int, code: Code) -> None:
        """Break a stream, in both directions; what was not delivered is lost."""
        self._streams.reset(stream_id, code)

    def stop_reading(self, stream_id: int) -> None:
        """Want no more of what the peer sends; our own half goes on."""
        self._streams.stop_reading(stream_id)

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """Received bytes in order, and whether the stream's end comes after them."""
        return self._streams.take(stream_id, most)

    def consumed(self, stream_id: int, count: int) -> None:
        """The consumer took bytes: they no longer count, and the peer may send as many."""
        self._streams.consumed(stream_id, count)

    def send_datagram(
        self, stream_id: int, payload: bytes, peer: Target | None, now: float
    ) -> None:
        """
        Have a datagram leave on an association, soon or not at all.

        @param peer: where it is to go, or who has sent it; C{None} for the association's own.
        """
        stream = self._streams.table.get(stream_id)
        if stream is not None and stream.answered:
            self._datagrams.put(stream_id, payload, peer, now)

    @property
    def is_short(self) -> bool:
        """Whether it stores more than its share of the process's memory."""
        return self._streams.room.was_short or self._streams.store.is_full

    @property
    def has_room(self) -> bool:
        """Whether it stores less than that, by some margin."""
        return self._streams.store.has_room

    def room_again(self) -> None:
        """There is room for more: those who wait for it may write."""
        self._streams.room.check_all()

    # ---- events and time

    def next_event(self) -> events.Event | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None

    def next_deadline(self) -> float:
        """When C{deadline_reached} wants to be called; infinite for never."""
        if self.closed:
            return NEVER
        owed = self._subflows.owed_at()
        # An acknowledgement comes first nearly always, and to look at each of many is work.
        if owed >= min(self._judged_from, self._datagrams.drop_at) or self._subflows.paths.limited:
            self._judged_from = self._next_judgement()
        self._owes_from = NEVER
        self._armed = min(owed, self._judged_from)
        return self._armed

    def _next_judgement(self) -> float:
        deadline = self._alone_since + self._timeout
        if self._subflows.alive:
            judged_at = self._subflows.judged_at(bool(self._streams.table))
            deadline = min(judged_at, self._streams.unasked_until())
        return min(deadline, self._datagrams.drop_at)

    def has_to_judge(self, now: float) -> bool:
        """Whether C{deadline_reached} may have anything to do: acknowledgements just leave."""
        return now >= self._judged_from

    def no_deadline_before(self, now: float) -> float:
        """
        None that came up since C{next_deadline} was asked is sooner, as far as it matters.

        Cheap to ask: only acknowledgements, datagrams and paths with a limit have less time
        than the least patience.  One that is due has left by now, or waits for room.
        """
        latest = min(now + self._limits.stall_floor, self._datagrams.drop_at)
        if now < self._owes_from < latest:
            latest = self._owes_from
        paths = self._subflows.paths
        return min(latest, paths.reopens_at()) if paths.limited else latest

    def deadline_reached(self, now: float) -> None:
        """Time has passed: judge who is silent."""
        if self.closed:
            return
        self._watch_use(now)
        lateness = now - self._armed
        for found in self._subflows.judge(now, lateness, bool(self._streams.table)):
            self._events.append(found)
            if isinstance(found, events.SubflowDead):
                self.subflow_down(found.subflow_id, now)
        if self._subflows.alive:
            self._streams.give_up_unasked(now)
        elif now >= self._alone_since + self._timeout:
            self.finish(Code.SESSION_LOST, f"no connection for {self._timeout:g} s")

    # ---- the end

    def go_away(self, sentence: str, code: Code = Code.GOING_AWAY) -> None:
        """Tell the peer to open no more streams; those it opens all the same are refused."""
        if not self._streams.leaving:
            self._streams.leaving = True
            text = frames.pack_text(sentence)
            self._outbox.put(frames.pack_with(text, frames.GOAWAY, 0, code))

    def close(self, code: Code, reason: str) -> dict[int, bytes]:
        """
        End the session now; its streams break.

        @return: the last words, by subflow.
        """
        word = frames.pack_with(frames.pack_text(reason), frames.CLOSE, 0, code)
        subflows = self._subflows.alive.values()
        words = {s.subflow_id: b"".join(s.with_trailers([word])) for s in subflows}
        self.finish(code, reason)
        return words

    def finish(self, code: Code, reason: str) -> None:
        """The session is over, without a word to the peer."""
        if self.closed:
            return
        self.closed = events.SessionClosed(code, reason)
        self._streams.drop_all()
        self._outbox.clear()
        self._subflows.clear()
        self._events.append(self.closed)

    # ---- frames of subflows and the session

    def _on_ack(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, _, aux, _, offset, pieces, _ = frame
        others = frames.parse_acks(b"".join(pieces)) if pieces else ()
        pace = subflow.pace
        batch, rate = pace.batch, pace.rate
        self._streams.arrived(subflow.acked(offset, aux * TICK, now))
        if pace.batch != batch:
            self._events.append(events.SubflowPaced(subflow.subflow_id, pace.batch))
        slow = self._subflows.slow
        if slow.paths:
            slow.delivered(subflow, self._outbox.has_data, now)
        if pace.rate != rate and slow.is_in_question(subflow):
            self._events.append(events.SubflowSlow(subflow.subflow_id))
        self._subflows.state_changed(subflow)
        for other_id, parsed, _ in others:
            if (other := self._subflows.alive.get(other_id)) is not None:
                self._streams.arrived(other.acked(parsed, None, now))
                self._subflows.state_changed(other)

    def _on_datagram(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, flags, _, stream_id, number, pieces, length = frame
        try:
            payload, peer = frames.parse_datagram(flags, b"".join(pieces))
        except OpenRefused:
            payload, peer, stream_id = b"", None, 0
        stream = self._streams.table.get(stream_id)
        # It may be ahead of its OPEN, or behind the end.
        if stream is None or not stream.answered or not self._datagrams.is_new(stream_id, number):
            subflow.rx.copy += length
            return
        subflow.rx.first += len(payload)
        subflow.rx.overhead += length - len(payload)
        self._events.append(events.DatagramArrived(stream_id, payload, peer))

    def _on_ping(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.ping_came(frame[4], now)

    def _on_pong(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.pong_came(frame[4], frame[2] * TICK, now)
        self._subflows.state_changed(subflow)

    def _on_final(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow_id = frames.parse_final(b"".join(frame[5]))
        if subflow_id in self._subflows.alive:
            self._events.append(events.SubflowDead(subflow_id, ""))
            self.subflow_down(subflow_id, now)
        self._streams.arrived(self._subflows.final(subflow_id, frame[4]))

    def _on_drain(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.life.drain()
        self._subflows.state_changed(subflow)

    def _on_goaway(self, subflow: Subflow, frame: Frame, now: float) -> None:
        self._peer_leaves = True
        sentence, code = frames.parse_text(b"".join(frame[5])), Code.of(frame[2])
        self._events.append(events.PeerGoesAway(sentence, code))

    def _on_close(self, subflow: Subflow, frame: Frame, now: float) -> None:
        self.finish(Code.of(frame[2]), frames.parse_text(b"".join(frame[5])))

    # ---- for people

    def snapshot(self, now: float) -> dict[str, object]:
        """What a person would like to know, JSON-ready."""
        return {
            "sent": self._subflows.sent,
            "received": self._subflows.moved - self._subflows.sent,
            "subflows": self._subflows.snapshot(),
            "deaths": self._deaths,
            "streams": self._streams.snapshot(),
            "datagrams": self._datagrams.snapshot(),
        }
