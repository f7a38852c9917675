"""All that two peers share: streams on one side, subflows on the other."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stripetwist.core import events, frames
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow
from stripetwist.core.errors import Code, FramingError, OpenRefused, ProtocolError
from stripetwist.core.frames import HEADER, HEADER_SIZE, TICK, Frame
from stripetwist.core.outbox import Control, Outbox
from stripetwist.core.stream import Stream, StreamNumbers
from stripetwist.core.subflow import NEVER, State, Subflow
from stripetwist.core.subflows import Subflows
from stripetwist.core.target import OpenRequest


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """
    What the peer's hello allows us.

    @ivar init_window: bytes of a stream that may follow its OPEN at once.
    @ivar max_streams: streams that we may have open.
    @ivar session_timeout: seconds it keeps a session without subflows.
    """

    init_window: int
    max_streams: int
    session_timeout: float


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
        self._limits = limits
        self._budget = budget
        self._peer = peer
        self._streams: dict[int, Stream] = {}
        self._ours = 0
        self._next_id = 1 if is_dialer else 2
        self._numbers = StreamNumbers(2 if is_dialer else 1, limits.max_streams)
        self._outbox = Outbox(limits)
        self._subflows = Subflows(self._outbox, self._streams, limits)
        self._events: deque[events.Event] = deque()
        self._peer_leaves = False
        self._armed = NEVER
        self.closed: events.SessionClosed | None = None
        self._timeout = (
            limits.session_timeout
            if is_dialer
            else min(limits.session_timeout, peer.session_timeout) * limits.acceptor_grace
        )
        self._alone_since = now
        self.counters = {"opened": 0, "refused": 0, "reset": 0, "deaths": 0}
        self._handlers: dict[int, Callable[[Subflow, Frame, float], None]] = {
            frames.DATA: self._on_data,
            frames.ACK: self._on_ack,
            frames.CREDIT: self._on_credit,
            frames.OPEN: self._on_open,
            frames.ACCEPT: self._on_accept,
            frames.REFUSE: self._on_refuse,
            frames.RESET: self._on_reset,
            frames.STOP: self._on_stop,
            frames.PING: self._on_ping,
            frames.PONG: self._on_pong,
            frames.SUBFLOW_FINAL: self._on_final,
            frames.SUBFLOW_DRAIN: self._on_drain,
            frames.GOAWAY: self._on_goaway,
            frames.CLOSE: self._on_close,
        }

    # ---- subflows

    def subflow_up(
        self,
        subflow_id: int,
        now: float,
        rtt: float | None = None,
        checksum: frames.Checksum | None = None,
    ) -> None:
        """
        A connection has joined.

        @param rtt: seconds its hello took, if known.
        @param checksum: what its frames end in, where no TLS guards them.
        @raise ProtocolError: its id was used before.
        """
        self._subflows.add(Subflow(subflow_id, self._limits, now, rtt, checksum))

    def subflow_down(self, subflow_id: int, now: float) -> None:
        """A connection is lost; what was on it goes to the others at once."""
        if self._subflows.remove(subflow_id) is None:
            return
        self.counters["deaths"] += 1
        if not self._subflows.alive:
            self._alone_since = now

    def drained(self, subflow_id: int) -> None:
        """All that was given to a connection has left this process."""
        if (subflow := self._subflows.alive.get(subflow_id)) is not None:
            subflow.since_drain = 0

    def received(self, subflow_id: int, data: bytes, now: float) -> None:
        """
        Bytes came on a subflow.

        @raise FramingError: they make no frames: this subflow is to be closed.
        @raise ProtocolError: they make no sense: the session is to be closed.
        """
        subflow = self._subflows.alive.get(subflow_id)
        if subflow is None or self.closed:
            return
        calls = False
        for frame in subflow.parser.feed(data):
            kind = frame[0]
            calls |= kind not in (frames.ACK, frames.PING, frames.PONG)
            if kind == frames.PAD:
                subflow.rx.pad += HEADER_SIZE + frame[6]
                continue
            subflow.rx.overhead += HEADER_SIZE if kind == frames.DATA else HEADER_SIZE + frame[6]
            if (handler := self._handlers.get(kind)) is not None:
                handler(subflow, frame, now)
        subflow.heard(now, calls or subflow.parser.inside_frame)
        if subflow.parser.error is not None:
            raise subflow.parser.error

    def pollable(self, now: float) -> list[int]:
        """Ids of the subflows that have something to write now, the quickest first."""
        return self._subflows.pollable(now)

    def poll(self, subflow_id: int, now: float) -> list[bytes]:
        """
        One batch for a subflow, to be joined and written once.

        Its own small frames and control may come although it has not drained; stream bytes
        are bound to it only when it has.
        """
        subflow = self._subflows.alive.get(subflow_id)
        if subflow is None or not subflow.has_room_for_control:
            return []
        out: list[bytes] = []
        if subflow.state is State.ACTIVE and not self.closed:
            self._poll_control(subflow, out, now)
            if subflow.since_drain == 0:
                self._poll_data(subflow, out, now)
        if out or subflow.owes(now):
            out[:0] = subflow.take_owed(now)
        if out:
            subflow.since_drain += sum(map(len, out))
            if subflow.checksum is not None:
                out = subflow.with_trailers(out)
        return out

    def _poll_control(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        for control in self._outbox.take_control(self._limits.control_ahead):
            control.carriers += (subflow.subflow_id,)
            subflow.wrote(len(control.data), control, now)
            subflow.tx.overhead += len(control.data)
            out.append(control.data)

    def _poll_data(self, subflow: Subflow, out: list[bytes], now: float) -> None:
        room = self._limits.batch
        payload = subflow.frame_payload
        outbox = self._outbox
        while room > 0:
            chunk = outbox.take_again(self._subflows.healthy)
            if chunk is None and (chunk := outbox.cut(payload)) is None:
                return
            self._write_chunk(subflow, chunk, out, now)
            room -= HEADER_SIZE + len(chunk.data)

    def _write_chunk(self, subflow: Subflow, chunk: Chunk, out: list[bytes], now: float) -> None:
        size = len(chunk.data)
        flags = frames.FIN if chunk.fin else 0
        if chunk.sent:
            flags |= frames.COPY
            subflow.tx.copy += size
        else:
            subflow.tx.first += size
            self._maybe_writable(chunk.owner.stream_id)
        subflow.tx.overhead += HEADER_SIZE
        chunk.sent = True
        chunk.carriers += (subflow.subflow_id,)
        subflow.wrote(HEADER_SIZE + size, chunk, now)
        owner = chunk.owner.stream_id
        out.append(HEADER.pack(frames.DATA, flags, 0, size, owner, chunk.offset))
        if size:
            out.append(chunk.data)

    # ---- streams, for the owner

    def open(self, request: OpenRequest) -> int:
        """
        Ask the peer for a stream.

        @return: its id; C{StreamAccepted} or C{StreamRefused} will follow.
        @raise OpenRefused: there can be none now.
        """
        if self.closed or self._peer_leaves:
            raise OpenRefused(Code.GOING_AWAY, "the server is shutting down; try again later")
        if self._ours >= self._peer.max_streams:
            raise OpenRefused(Code.TOO_MANY_STREAMS, f"{self._ours} streams are open, the most")
        if not self._budget.may_open():
            raise OpenRefused(
                Code.OVERLOAD, "no memory is left for one more stream; raise --max-memory"
            )
        stream_id = self._next_id
        self._next_id += 2
        window = ReceiveWindow(self._budget.first_window(), self._budget, self._limits)
        stream = Stream(stream_id, True, self._peer.init_window, window)
        self._streams[stream_id] = stream
        self._ours += 1
        self.counters["opened"] += 1
        self._outbox.put(frames.pack_open(stream_id, window.limit, request))
        return stream_id

    def accept(self, stream_id: int) -> None:
        """The target of a stream that the peer opened has answered."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.answered:
            return
        stream.answered = True
        stream.window.widen(self._budget.first_window())
        self._outbox.put(frames.pack(frames.ACCEPT, stream=stream_id, offset=stream.window.limit))
        self._outbox.ready(stream)
        self._tell_readable(stream)

    def refuse(self, stream_id: int, code: Code, sentence: str) -> None:
        """The target of a stream that the peer opened cannot be had."""
        if (stream := self._streams.get(stream_id)) is not None:
            self.counters["refused"] += 1
            self._drop(stream)
            self._put_refusal(stream_id, code, sentence)

    def _put_refusal(self, stream_id: int, code: Code, sentence: str) -> None:
        text = frames.pack_text(sentence)
        self._outbox.put(frames.pack_with(text, frames.REFUSE, 0, code, stream_id))

    def write(self, stream_id: int, data: bytes) -> bool:
        """
        Send bytes.

        @return: whether more may follow at once; else wait for C{StreamWritable}.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.stopped:
            return True
        stream.send.write(data)
        self._budget.stored += len(data)
        self._outbox.ready(stream)
        if stream.send.unsent < self._limits.max_unsent and not self._budget.store_is_full:
            return True
        stream.wants_room = True
        return False

    def end(self, stream_id: int) -> None:
        """No more bytes will be written; what was is still delivered."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.send.ended:
            stream.send.end()
            self._outbox.ready(stream)

    def reset(self, stream_id: int, code: Code) -> None:
        """Break a stream, in both directions; what was not delivered is lost."""
        if (stream := self._streams.get(stream_id)) is not None:
            self._reset(stream, code)

    def _reset(self, stream: Stream, code: Code) -> None:
        self.counters["reset"] += 1
        self._drop(stream)
        size = stream.send.offset
        self._outbox.put(frames.pack(frames.RESET, 0, code, stream.stream_id, size))

    def stop_reading(self, stream_id: int) -> None:
        """Want no more of what the peer sends; our own half goes on."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.reading_ended:
            stream.stop_reading()
            self._outbox.credit_due.pop(stream_id, None)
            self._outbox.put(frames.pack(frames.STOP, 0, Code.CANCELLED, stream_id))
            self._maybe_finished(stream)

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """Received bytes in order, and whether the stream's end comes after them."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.answered or not stream.is_readable:
            if stream is not None:
                stream.told = False
            return b"", False
        data, ended = stream.take(most)
        if ended:
            self._maybe_finished(stream)
        return data, ended

    def consumed(self, stream_id: int, count: int) -> None:
        """The consumer took bytes: they no longer count, and the peer may send as many."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.window.take(count) and stream.reorder.final is None:
            self._outbox.credit_due[stream_id] = stream

    def room_again(self) -> None:
        """The process's store has room: those who wait for it may write."""
        for stream_id in list(self._streams):
            self._maybe_writable(stream_id)

    def _maybe_writable(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if (
            stream is not None
            and stream.wants_room
            and stream.send.unsent <= self._limits.max_unsent // 2
            and not self._budget.store_is_full
        ):
            stream.wants_room = False
            self._events.append(events.StreamWritable(stream_id))

    # ---- events and time

    def next_event(self) -> events.Event | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None

    def next_deadline(self) -> float:
        """When C{deadline_reached} wants to be called; infinite for never."""
        if self.closed:
            return NEVER
        deadline = self._subflows.next_deadline(bool(self._streams))
        if not self._subflows.alive:
            deadline = self._alone_since + self._timeout
        self._armed = deadline
        return deadline

    def deadline_reached(self, now: float) -> None:
        """Time has passed: judge who is silent."""
        if self.closed:
            return
        lateness = now - self._armed
        for subflow_id, reason in self._subflows.judge(now, lateness, bool(self._streams)):
            self._events.append(events.SubflowDead(subflow_id, reason))
            self.subflow_down(subflow_id, now)
        if not self._subflows.alive and now >= self._alone_since + self._timeout:
            self.finish(Code.SESSION_LOST, f"no connection for {self._timeout:g} s")

    # ---- the end

    def go_away(self, sentence: str) -> None:
        """Tell the peer to open no more streams."""
        text = frames.pack_text(sentence)
        self._outbox.put(frames.pack_with(text, frames.GOAWAY, 0, Code.GOING_AWAY))

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
        for stream in list(self._streams.values()):
            self._drop(stream)
            self._events.append(events.StreamReset(stream.stream_id, Code.SESSION_LOST))
        self._outbox.clear()
        self._subflows.forget_dead()
        self._events.append(self.closed)

    def _drop(self, stream: Stream) -> None:
        if self._streams.pop(stream.stream_id, None) is not None:
            self._ours -= stream.is_ours
            self._budget.stored -= stream.discard()
            self._outbox.forget(stream)

    def _maybe_finished(self, stream: Stream) -> None:
        if stream.is_finished and stream.stream_id in self._streams:
            self._drop(stream)
            self._events.append(events.StreamFinished(stream.stream_id))

    # ---- frames

    def _known(self, stream_id: int, may_be_new: bool) -> Stream | None:
        """
        The live stream of that id; C{None} for one that is closed.

        @param may_be_new: whether this frame can be the first of a stream of the peer's.
        @raise ProtocolError: nobody can have sent this yet.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        if not self._numbers.has_parity(stream_id):
            if stream_id >= self._next_id or stream_id == 0:
                raise ProtocolError(Code.STREAM_STATE, f"stream {stream_id} was never opened")
            return None
        if not self._numbers.is_new(stream_id):
            return None
        if not may_be_new:
            raise ProtocolError(Code.STREAM_STATE, f"stream {stream_id} is not open yet")
        self._numbers.use(stream_id)
        return self._new(stream_id)

    def _new(self, stream_id: int) -> Stream | None:
        """A stream of the peer's, if there is room for one."""
        if len(self._streams) - self._ours >= self._limits.max_streams:
            self._put_refusal(stream_id, Code.TOO_MANY_STREAMS, "too many streams are open there")
            return None
        if not self._budget.may_open():
            self._put_refusal(stream_id, Code.OVERLOAD, "no memory is left for a stream there")
            return None
        window = ReceiveWindow(self._limits.min_window, self._budget, self._limits)
        stream = self._streams[stream_id] = Stream(stream_id, False, 0, window)
        return stream

    def _on_data(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, flags, _, stream_id, offset, pieces, length = frame
        stream = self._known(stream_id, True)
        if stream is None or stream.reading_ended:
            subflow.rx.copy += length
            return
        try:
            fresh = stream.received(offset, pieces, length, bool(flags & frames.FIN))
        except ProtocolError as error:
            if error.code is not Code.LIMIT:
                raise
            self._reset(stream, Code.LIMIT)
            self._events.append(events.StreamReset(stream_id, Code.LIMIT))
            return
        subflow.rx.first += fresh
        subflow.rx.copy += length - fresh
        if stream.answered:
            window, highest = stream.window, stream.reorder.highest
            if (
                window.limit - highest < window.size // 2
                and stream.reorder.final is None
                and window.grow(highest, stream.ready, self._subflows.min_rtt(), now)
            ):
                self._outbox.credit_due[stream_id] = stream
            self._tell_readable(stream)

    def _tell_readable(self, stream: Stream) -> None:
        if not stream.told and stream.is_readable:
            stream.told = True
            self._events.append(events.StreamReadable(stream.stream_id))

    def _on_ack(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, _, aux, _, offset, pieces, _ = frame
        self._arrived(subflow.acked(offset, aux * TICK, now))
        self._subflows.recovered(subflow)
        for other_id, parsed, delay in frames.parse_acks(b"".join(pieces)):
            other = self._subflows.alive.get(other_id)
            if other is not None:
                self._arrived(other.acked(parsed, delay * 1e-6, now))
                self._subflows.recovered(other)

    def _arrived(self, items: list[Chunk | Control]) -> None:
        for item in items:
            if isinstance(item, Control):
                item.done = True
                continue
            self._budget.stored -= item.owner.arrived(item)
            stream = self._streams.get(item.owner.stream_id)
            if stream is not None:
                self._maybe_finished(stream)
                self._outbox.ready(stream)

    def _on_credit(self, subflow: Subflow, frame: Frame, now: float) -> None:
        for stream_id, limit in frames.parse_credit(b"".join(frame[5])):
            stream = self._known(stream_id, False)
            if stream is not None and stream.credit.raise_to(limit):
                self._outbox.ready(stream)

    def _on_open(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, _, kind, stream_id, credit, pieces, _ = frame
        if not self._numbers.has_parity(stream_id):
            raise ProtocolError(Code.STREAM_STATE, "it opens a stream with a number of ours")
        stream = self._known(stream_id, True)
        if stream is None or stream.asked:
            return
        stream.asked = True
        try:
            request = frames.parse_open(kind, b"".join(pieces))
        except OpenRefused as refused:
            self.refuse(stream_id, refused.code, refused.sentence)
            return
        stream.credit.raise_to(credit)
        self.counters["opened"] += 1
        self._events.append(events.StreamOpened(stream_id, request))

    def _ours_of(self, frame: Frame) -> Stream | None:
        """The stream of ours that the peer answers."""
        stream_id = frame[3]
        if self._numbers.has_parity(stream_id):
            raise ProtocolError(Code.STREAM_STATE, "it answers a stream that it opened itself")
        return self._known(stream_id, False)

    def _on_accept(self, subflow: Subflow, frame: Frame, now: float) -> None:
        stream = self._ours_of(frame)
        if stream is None or stream.answered:
            return
        stream.answered = True
        stream.credit.raise_to(frame[4])
        self._events.append(events.StreamAccepted(stream.stream_id))
        self._outbox.ready(stream)
        self._tell_readable(stream)

    def _on_refuse(self, subflow: Subflow, frame: Frame, now: float) -> None:
        stream = self._ours_of(frame)
        if stream is None:
            return
        code, sentence = Code.of(frame[2]), frames.parse_text(b"".join(frame[5]))
        self.counters["refused"] += 1
        self._drop(stream)
        if stream.answered:
            self._events.append(events.StreamReset(stream.stream_id, code))
        else:
            self._events.append(events.StreamRefused(stream.stream_id, code, sentence))

    def _on_reset(self, subflow: Subflow, frame: Frame, now: float) -> None:
        _, _, aux, stream_id, size, _, _ = frame
        if self._numbers.has_parity(stream_id) and self._numbers.is_new(stream_id):
            self._numbers.use(stream_id)
            return
        stream = self._known(stream_id, False)
        if stream is None:
            return
        if size < stream.reorder.highest:
            raise ProtocolError(Code.FINAL_SIZE, "a stream breaks off before bytes that came")
        self.counters["reset"] += 1
        self._drop(stream)
        self._events.append(events.StreamReset(stream_id, Code.of(aux)))

    def _on_stop(self, subflow: Subflow, frame: Frame, now: float) -> None:
        stream = self._known(frame[3], True)
        if stream is not None and not stream.stopped:
            stream.stopped = True
            self._budget.stored -= stream.send.discard()
            if stream.wants_room:
                stream.wants_room = False
                self._events.append(events.StreamWritable(stream.stream_id))
            self._maybe_finished(stream)

    def _on_ping(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.ping_came(frame[4], now)

    def _on_pong(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.pong_came(frame[4], frame[2] * TICK, now)
        self._subflows.recovered(subflow)

    def _on_final(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow_id = frames.parse_final(b"".join(frame[5]))
        if subflow_id in self._subflows.alive:
            self._events.append(events.SubflowDead(subflow_id, "the peer has lost it"))
            self.subflow_down(subflow_id, now)
        self._arrived(self._subflows.final(subflow_id, frame[4]))

    def _on_drain(self, subflow: Subflow, frame: Frame, now: float) -> None:
        subflow.state = State.DRAINING
        self._subflows.recovered(subflow)

    def _on_goaway(self, subflow: Subflow, frame: Frame, now: float) -> None:
        self._peer_leaves = True
        self._events.append(events.PeerGoesAway(frames.parse_text(b"".join(frame[5]))))

    def _on_close(self, subflow: Subflow, frame: Frame, now: float) -> None:
        self.finish(Code.of(frame[2]), frames.parse_text(b"".join(frame[5])))

    # ---- for people

    def snapshot(self, now: float) -> dict[str, object]:
        """What a person would like to know, JSON-ready."""
        return {
            "subflows": self._subflows.snapshot(),
            "streams": {"open": len(self._streams), **self.counters},
        }


__all__ = ["FramingError", "PeerLimits", "ProtocolError", "Session"]
