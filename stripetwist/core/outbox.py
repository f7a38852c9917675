"""What a session has to send: control first, then what must go again, then new bytes."""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping

from stripetwist.core import frames
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.stream import Stream


class Control:
    """
    A frame that must arrive, whichever subflow it dies on.

    @ivar data: the frame, packed.
    @ivar credits: the streams whose credit it carries; these are packed anew when it has to
        go again, with what then holds.
    """

    __slots__ = ("carriers", "credits", "data", "done", "queued")

    def __init__(self, data: bytes, credits: tuple[int, ...] = ()) -> None:
        self.data = data
        self.credits = credits
        self.done = False
        self.queued = False
        self.carriers: tuple[int, ...] = ()


class Outbox:
    """
    Everything waiting to be sent, not yet bound to a subflow.

    Control frames wait in order; chunks to be sent again before new ones; streams with new
    bytes take turns.  What a peer can make us queue is capped, and the cap ends the session.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._control: deque[Control] = deque()
        self._control_bytes = 0
        self._again: deque[Chunk] = deque()
        self._turn: deque[Stream] = deque()
        self._in_turn: set[int] = set()
        self.credit_due: dict[int, Stream] = {}

    # ---- putting in

    def put(self, data: bytes) -> None:
        """Queue a control frame."""
        self._queue_control(Control(data))

    def _queue_control(self, control: Control) -> None:
        control.queued = True
        self._control.append(control)
        self._control_bytes += len(control.data)
        limits = self._limits
        if (
            len(self._control) > limits.max_control_items
            or self._control_bytes > limits.max_control_bytes
        ):
            raise ProtocolError(Code.LIMIT, "it makes us owe too many control frames")

    def put_again(self, item: Chunk | Control, streams: Mapping[int, Stream]) -> None:
        """Queue what was on a subflow that can no longer be trusted."""
        if item.done or item.queued:
            return
        if isinstance(item, Chunk):
            item.queued = True
            self._again.append(item)
        elif item.credits:
            for stream_id in item.credits:
                if (stream := streams.get(stream_id)) is not None:
                    self.credit_due[stream_id] = stream
        else:
            self._queue_control(item)

    def ready(self, stream: Stream) -> None:
        """A stream may have something to send."""
        if stream.stream_id not in self._in_turn and stream.may_send():
            self._in_turn.add(stream.stream_id)
            self._turn.append(stream)

    # ---- asking

    @property
    def has_control(self) -> bool:
        """Whether a control frame waits."""
        return bool(self._control) or bool(self.credit_due)

    @property
    def has_data(self) -> bool:
        """Whether stream bytes wait that may be sent."""
        return bool(self._again) or bool(self._turn)

    # ---- taking out

    def take_control(self, most: int) -> Iterator[Control]:
        """The control frames whose turn it is, about C{most} bytes of them."""
        while most > 0 and self._control:
            control = self._control.popleft()
            control.queued = False
            self._control_bytes -= len(control.data)
            if not control.done:
                most -= len(control.data)
                yield control
        while most > 0 and self.credit_due:
            control = self._pack_credit()
            most -= len(control.data)
            yield control

    def _pack_credit(self) -> Control:
        due: Iterable[int] = self.credit_due
        ids = tuple(i for i, _ in zip(due, range(frames.CREDITS_PER_FRAME), strict=False))
        limits = [(i, self.credit_due.pop(i).window.limit) for i in ids]
        return Control(frames.pack_credit(limits), ids)

    def take_again(self, healthy: Container[int]) -> Chunk | None:
        """A chunk to send again, unless it is in flight on a healthy subflow by now."""
        while self._again:
            chunk = self._again.popleft()
            chunk.queued = False
            if not chunk.done and not any(i in healthy for i in chunk.carriers):
                return chunk
        return None

    def cut(self, size: int) -> Chunk | None:
        """A chunk of new bytes, from the stream whose turn it is."""
        turn = self._turn
        while turn:
            stream = turn.popleft()
            if not stream.may_send():
                self._in_turn.discard(stream.stream_id)
                continue
            chunk = stream.send.cut(size, stream.credit.limit)
            if stream.may_send():
                turn.append(stream)
            else:
                self._in_turn.discard(stream.stream_id)
            return chunk
        return None

    def forget(self, stream: Stream) -> None:
        """A stream is gone; what it left in the queues is skipped when its turn comes."""
        self.credit_due.pop(stream.stream_id, None)

    def clear(self) -> None:
        """The session is over."""
        self._control.clear()
        self._again.clear()
        self._turn.clear()
        self._in_turn.clear()
        self.credit_due.clear()
        self._control_bytes = 0
