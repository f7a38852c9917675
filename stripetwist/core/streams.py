"""The streams of a session: which there are, and what the frames about them mean."""

from collections.abc import Callable

from stripetwist.core import events, frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow, SendStore
from stripetwist.core.datagrams import Datagrams
from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.frames import Frame
from stripetwist.core.outbox import Control, Outbox
from stripetwist.core.room import Room
from stripetwist.core.stream import Stream, StreamNumbers
from stripetwist.core.subflow import Subflow
from stripetwist.core.target import Kind, OpenRequest

# Beyond this a new session has to take over.
_MOST_ID = 2**31


class Streams:
    """
    A session's streams: their table, their numbers, and the frames that speak of them.

    Methods on an id that is gone do nothing.  What streams have to send goes to the outbox,
    what their owners must know to the events.

    @ivar table: the live streams by id.
    @ivar datagrams: those of the streams that are associations.
    @ivar store: what they have to send and to repeat.
    @ivar room: who waits for room to write.
    @ivar leaving: whether the peer was told to open no more.
    @ivar counters: how many were opened, refused, reset since the session began.
    """

    def __init__(
        self,
        is_dialer: bool,
        limits: Limits,
        budget: MemoryBudget,
        peer: PeerLimits,
        outbox: Outbox,
        tell: Callable[[events.Event], None],
    ) -> None:
        self.table: dict[int, Stream] = {}
        self.counters = {"opened": 0, "refused": 0, "reset": 0}
        self.leaving = False
        self.datagrams = Datagrams(limits, budget)
        self.store = SendStore(budget)
        self.room = Room(limits, self.store, tell)
        self._limits = limits
        self._budget = budget
        self._peer = peer
        self._outbox = outbox
        self._tell = tell
        self._ours = 0
        self._unasked: dict[int, float] = {}
        self._next_id = 1 if is_dialer else 2
        self._numbers = StreamNumbers(2 if is_dialer else 1, limits.max_streams)

    def open(self, request: OpenRequest) -> int:
        """Ask the peer for a stream; its id.  Raises L{OpenRefused} if there can be none now."""
        if self._ours >= self._peer.max_streams:
            raise OpenRefused(Code.TOO_MANY_STREAMS, f"{self._ours} streams are open, the most")
        if not self._budget.may_open():
            raise OpenRefused(
                Code.OVERLOAD, "no memory is left for one more stream; raise --max-memory"
            )
        stream_id = self._next_id
        if stream_id > _MOST_ID:
            raise OpenRefused(Code.GOING_AWAY, "the session has used all its stream numbers")
        self._next_id += 2
        if request.kind is Kind.UDP:
            self.datagrams.add(stream_id, request.copies)
            first = self._limits.min_window
        else:
            first = self._budget.first_window()
        window = ReceiveWindow(first, self._budget, self._limits)
        stream = Stream(stream_id, True, self._peer.init_window, window)
        self.table[stream_id] = stream
        self._ours += 1
        self.counters["opened"] += 1
        stream.opening = self._outbox.put(frames.pack_open(stream_id, window.limit, request))
        return stream_id

    def accept(self, stream_id: int) -> None:
        """The target of a stream that the peer opened has answered."""
        stream = self.table.get(stream_id)
        if stream is None or stream.answered:
            return
        stream.answered = True
        if stream_id not in self.datagrams:
            stream.window.widen(self._budget.first_window())
        word = frames.pack(frames.ACCEPT, stream=stream_id, offset=stream.window.limit)
        self._outbox.put(word, owed=True)
        self._outbox.ready(stream)
        self._tell_readable(stream)

    def refuse(self, stream_id: int, code: Code, sentence: str) -> None:
        """The target of a stream that the peer opened cannot be had."""
        if (stream := self.table.get(stream_id)) is not None:
            self.counters["refused"] += 1
            self._drop(stream)
            self._put_refusal(stream_id, code, sentence)

    def _put_refusal(self, stream_id: int, code: Code, sentence: str) -> None:
        text = frames.pack_text(sentence)
        self._outbox.put(frames.pack_with(text, frames.REFUSE, 0, code, stream_id), owed=True)

    def write(self, stream_id: int, data: bytes) -> int:
        """Send bytes; how many more may follow at once."""
        stream = self.table.get(stream_id)
        if stream is None or stream.stopped:
            return self._limits.max_unsent
        stream.send.write(data)
        self.store.add(len(data))
        self._outbox.ready(stream)
        return self.room.may_go_on(stream)

    def room_left(self, stream_id: int) -> int:
        """How many bytes may be written now."""
        stream = self.table.get(stream_id)
        return self._limits.max_unsent if stream is None else self.room.left(stream)

    def end(self, stream_id: int) -> None:
        """No more bytes will be written; what was is still delivered."""
        stream = self.table.get(stream_id)
        if stream is not None and not stream.send.ended:
            stream.send.end()
            self._outbox.ready(stream)

    def reset(self, stream_id: int, code: Code) -> None:
        """Break a stream, in both directions; what was not delivered is lost."""
        if (stream := self.table.get(stream_id)) is not None:
            self._reset(stream, code)

    def _reset(self, stream: Stream, code: Code) -> None:
        self.counters["reset"] += 1
        self._drop(stream)
        if stream.opening is not None:
            self._outbox.withdraw(stream.opening)
        size = stream.send.offset
        word = frames.pack(frames.RESET, 0, code, stream.stream_id, size)
        self._outbox.put(word, owed=not stream.is_ours)

    def stop_reading(self, stream_id: int) -> None:
        """Want no more of what the peer sends; our own half goes on."""
        stream = self.table.get(stream_id)
        if stream is not None and not stream.reading_ended:
            stream.stop_reading()
            self._outbox.credit_due.pop(stream_id, None)
            word = frames.pack(frames.STOP, 0, Code.CANCELLED, stream_id)
            self._outbox.put(word, owed=not stream.is_ours)
            self._maybe_finished(stream)

    def take(self, stream_id: int, most: int) -> tuple[bytes, bool]:
        """Received bytes in order, and whether the stream's end comes after them."""
        stream = self.table.get(stream_id)
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
        stream = self.table.get(stream_id)
        if stream is not None and stream.window.take(count):
            self._outbox.renew(stream)

    def _drop(self, stream: Stream) -> None:
        """The stream is over, and whatever it holds."""
        del self.table[stream.stream_id]
        self._unasked.pop(stream.stream_id, None)
        self.datagrams.forget(stream.stream_id)
        self.room.forget(stream)
        self._ours -= stream.is_ours
        self.store.add(-stream.discard())
        self._outbox.forget(stream)
        self.room.freed()

    def _break(self, stream: Stream, code: Code) -> None:
        """The stream is over, and its owner has to know; if it knows of it at all."""
        self._drop(stream)
        if stream.asked:
            self._tell(events.StreamReset(stream.stream_id, code))

    def _maybe_finished(self, stream: Stream) -> None:
        if stream.is_finished and stream.stream_id in self.table:
            self._drop(stream)
            self._tell(events.StreamFinished(stream.stream_id))

    def arrived(self, items: list[Chunk | Control]) -> None:
        """The peer has parsed these."""
        for item in items:
            if isinstance(item, Control):
                self._outbox.arrived(item)
                continue
            self.store.add(-item.owner.arrived(item))
            stream = self.table.get(item.owner.stream_id)
            if stream is not None:
                self._maybe_finished(stream)
                self._outbox.ready(stream)
        self.room.freed()

    def _known(self, stream_id: int, now: float | None = None) -> Stream | None:
        """
        The live stream of that id; C{None} for one that is closed.

        @param now: given where this frame can be the first of a stream of the peer's.
        @raise ProtocolError: nobody can have sent this yet.
        """
        stream = self.table.get(stream_id)
        if stream is not None:
            return stream
        if not self._numbers.has_parity(stream_id):
            if stream_id >= self._next_id or stream_id == 0:
                raise ProtocolError(Code.STREAM_STATE, f"stream {stream_id} was never opened")
            return None
        if not self._numbers.is_new(stream_id):
            return None
        if now is None:
            raise ProtocolError(Code.STREAM_STATE, f"stream {stream_id} is not open yet")
        self._numbers.use(stream_id)
        return self._new(stream_id, now)

    def _new(self, stream_id: int, now: float) -> Stream | None:
        """A stream of the peer's, if there is room for one."""
        if len(self.table) - self._ours >= self._limits.max_streams:
            self._put_refusal(stream_id, Code.TOO_MANY_STREAMS, "too many streams are open there")
            return None
        if not self._budget.may_open():
            self._put_refusal(stream_id, Code.OVERLOAD, "no memory is left for a stream there")
            return None
        if len(self._unasked) >= self._limits.max_opening:
            why = "too many streams are waiting for their OPEN there"
            self._put_refusal(stream_id, Code.TOO_MANY_STREAMS, why)
            return None
        window = ReceiveWindow(self._limits.min_window, self._budget, self._limits)
        stream = self.table[stream_id] = Stream(stream_id, False, 0, window)
        self._unasked[stream_id] = now
        return stream

    def unasked_until(self) -> float:
        """When the oldest stream whose OPEN has not come is given up."""
        since = next(iter(self._unasked.values()), NEVER)
        return since + self._limits.session_timeout

    def give_up_unasked(self, now: float) -> None:
        """Their OPEN got lost with a peer that does not send again what it must."""
        while self.unasked_until() <= now:
            self._reset(self.table[next(iter(self._unasked))], Code.LIMIT)

    def drop_all(self) -> None:
        """The session is over: every stream breaks."""
        for stream in list(self.table.values()):
            self._break(stream, Code.SESSION_LOST)

    # ---- frames

    def on_data(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """Bytes of a stream, or its end."""
        _, flags, _, stream_id, offset, pieces, length = frame
        stream = self._known(stream_id, now)
        if stream is None or stream.reading_ended:
            subflow.rx.copy += length
            return
        waited = stream.ready
        try:
            fresh = stream.received(offset, pieces, length, bool(flags & frames.FIN))
        except ProtocolError as error:
            if error.code is not Code.LIMIT:
                raise
            self._reset(stream, Code.LIMIT)
            if stream.asked:
                self._tell(events.StreamReset(stream_id, Code.LIMIT))
            return
        subflow.rx.first += fresh
        subflow.rx.copy += length - fresh
        if stream.answered:
            if stream.window.grow(stream.reorder, waited, subflow.rtt.minimum or 0.0, now):
                self._outbox.renew(stream)
            self._tell_readable(stream)

    def _tell_readable(self, stream: Stream) -> None:
        if not stream.told and stream.is_readable:
            stream.told = True
            self._tell(events.StreamReadable(stream.stream_id))

    def on_credit(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer can take more."""
        for stream_id, limit in frames.parse_credit(b"".join(frame[5])):
            stream = self._known(stream_id)
            if stream is not None and stream.credit.raise_to(limit):
                self._outbox.ready(stream)
                self.room.check(stream_id)

    def on_open(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer asks for a stream."""
        _, _, kind, stream_id, credit, pieces, _ = frame
        if not self._numbers.has_parity(stream_id):
            raise ProtocolError(Code.STREAM_STATE, "it opens a stream with a number of ours")
        stream = self._known(stream_id, now)
        if stream is None or stream.asked:
            return
        try:
            request = frames.parse_open(kind, b"".join(pieces))
            if self.leaving:
                raise OpenRefused(Code.GOING_AWAY, "the other side is shutting down")
        except OpenRefused as refused:
            self.refuse(stream_id, refused.code, refused.sentence)
            return
        stream.asked = True
        del self._unasked[stream_id]
        stream.credit.raise_to(credit)
        self.counters["opened"] += 1
        if request.kind is Kind.UDP:
            self.datagrams.add(stream_id, request.copies)
        self._tell(events.StreamOpened(stream_id, request))

    def _ours_of(self, frame: Frame) -> Stream | None:
        """The stream of ours that the peer answers."""
        stream_id = frame[3]
        if self._numbers.has_parity(stream_id):
            raise ProtocolError(Code.STREAM_STATE, "it answers a stream that it opened itself")
        return self._known(stream_id)

    def on_accept(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer has reached what we asked for."""
        stream = self._ours_of(frame)
        if stream is None or stream.answered:
            return
        stream.answered = True
        stream.opening = None
        stream.credit.raise_to(frame[4])
        self._tell(events.StreamAccepted(stream.stream_id))
        self._outbox.ready(stream)
        self.room.check(stream.stream_id)
        self._tell_readable(stream)

    def on_refuse(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer will not."""
        stream = self._ours_of(frame)
        if stream is None:
            return
        code, sentence = Code.of(frame[2]), frames.parse_text(b"".join(frame[5]))
        self.counters["refused"] += 1
        self._drop(stream)
        if stream.answered:
            self._tell(events.StreamReset(stream.stream_id, code))
        else:
            self._tell(events.StreamRefused(stream.stream_id, code, sentence))

    def on_reset(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer broke a stream."""
        _, _, aux, stream_id, size, _, _ = frame
        if self._numbers.has_parity(stream_id) and self._numbers.is_new(stream_id):
            self._numbers.use(stream_id)
            return
        stream = self._known(stream_id)
        if stream is None:
            return
        if size < stream.reorder.highest or stream.reorder.final not in (None, size):
            raise ProtocolError(Code.FINAL_SIZE, "a stream breaks off where it did not end")
        self.counters["reset"] += 1
        self._break(stream, Code.of(aux))

    def on_stop(self, subflow: Subflow, frame: Frame, now: float) -> None:
        """The peer wants no more of a stream."""
        stream = self._known(frame[3], now)
        if stream is not None and not stream.stopped:
            stream.stopped = True
            self.store.add(-stream.send.discard())
            self.room.freed()
            self.room.check(stream.stream_id)
            self._maybe_finished(stream)

    def snapshot(self) -> dict[str, int]:
        """For the session's."""
        return {"open": len(self.table), **self.counters}
