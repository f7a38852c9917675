"""What a session has to send: control first, then what must go again, then new bytes."""

from collections import OrderedDict, deque
from collections.abc import Container, Iterator
from heapq import heappop, heappush
from itertools import islice

from stripetwist.core import frames
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import Limits
from stripetwist.core.stream import Stream

# What a store that is almost full is taken for: that many full ones.
_FULL_STORES = 4


class Control:
    """
    A frame that must arrive, whichever subflow it dies on.

    @ivar data: the frame, packed.
    @ivar credits: the streams whose credit it carries; these are packed anew when it has to
        go again, with what then holds.
    @ivar owed: whether it is the peer that made us queue it.
    @ivar done: whether it has arrived, or another has taken its place.
    @ivar flying: whether it counts as sent and not acknowledged.
    """

    __slots__ = ("carriers", "credits", "data", "done", "flying", "owed", "queued")

    def __init__(self, data: bytes, credits: tuple[Stream, ...] = (), owed: bool = False) -> None:
        self.data = data
        self.credits = credits
        self.owed = owed
        self.done = False
        self.flying = False
        self.queued = False
        self.carriers: tuple[int, ...] = ()


class Outbox:
    """
    Everything waiting to be sent, not yet bound to a subflow.

    Control frames wait in order; chunks to be sent again before new ones, the lowest offset
    first; streams with new bytes take turns.  What the peer makes us queue is counted, and so
    is what it does not acknowledge: a flood of either kind is bounded.

    @ivar credit_due: streams whose new limit the peer is to hear, by id.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._control: deque[Control] = deque()
        self._owed_items = 0
        self._owed_bytes = 0
        self._flying_bytes = 0
        self._again: list[tuple[int, int, Chunk]] = []
        self._requeued = 0
        self._turn: OrderedDict[int, Stream] = OrderedDict()
        self.credit_due: dict[int, Stream] = {}

    # ---- putting in

    def put(self, data: bytes, owed: bool = False) -> Control:
        """
        Queue a control frame.

        @param owed: whether the peer decides how many of these there are: every word about a
            stream that it opened, or a subflow.
        """
        control = Control(data, owed=owed)
        self._queue_control(control)
        return control

    def withdraw(self, control: Control) -> None:
        """It need not be said any more; too late if it has left."""
        control.done |= not control.carriers

    def _queue_control(self, control: Control) -> None:
        control.queued = True
        self._control.append(control)
        self._count(control, 1)

    def _count(self, control: Control, sign: int) -> None:
        if control.owed:
            self._owed_items += sign
            self._owed_bytes += sign * len(control.data)

    def put_again(self, item: Chunk | Control) -> None:
        """Queue what was on a subflow that can no longer be trusted."""
        if item.done or item.queued:
            return
        if isinstance(item, Chunk):
            self._queue_again(item)
            return
        self._land(item)
        if item.credits:
            item.done = True
            for stream in item.credits:
                self.renew(stream)
        else:
            self._queue_control(item)

    def _queue_again(self, chunk: Chunk) -> None:
        # What lies furthest back holds up the most, whichever subflow it was on.
        chunk.queued = True
        self._requeued += 1
        heappush(self._again, (chunk.offset, self._requeued, chunk))

    def renew(self, stream: Stream) -> None:
        """The peer is to hear how far it may send."""
        if not stream.window.ended:
            self.credit_due[stream.stream_id] = stream

    def ready(self, stream: Stream) -> None:
        """A stream may have something to send."""
        if stream.stream_id not in self._turn and stream.may_send():
            self._turn[stream.stream_id] = stream

    # ---- asking

    @property
    def has_control(self) -> bool:
        """Whether a control frame waits that may leave."""
        return (
            bool(self._control) or bool(self.credit_due)
        ) and self._flying_bytes < self._limits.max_control_bytes

    @property
    def has_again(self) -> bool:
        """Whether stream bytes are to be sent again."""
        return bool(self._again)

    @property
    def has_new(self) -> bool:
        """Whether new stream bytes may be sent."""
        return bool(self._turn)

    @property
    def has_data(self) -> bool:
        """Whether stream bytes wait that may be sent, again or for the first time."""
        return self.has_again or self.has_new

    def has_much(self, enough: float) -> bool:
        """
        Whether so many new bytes may be sent.

        Where a stream's store is almost full there is more where that came from.
        """
        found, most = 0, self._limits.max_unsent
        for stream in self._turn.values():
            unsent = stream.send.unsent
            if unsent > most * 3 // 4:
                unsent = _FULL_STORES * most
            found += min(unsent, stream.credit.limit - stream.send.offset)
            if found >= enough:
                return True
        return False

    @property
    def is_overfull(self) -> bool:
        """Whether the peer makes us owe more than anybody honest."""
        limits = self._limits
        return (
            self._owed_items > limits.max_control_items
            or self._owed_bytes > limits.max_control_bytes
        )

    # ---- taking out

    def take_control(self, most: int, healthy: Container[int]) -> Iterator[Control]:
        """
        The control frames whose turn it is, about C{most} bytes of them.

        @param healthy: the subflows on which a frame in flight need not be sent again.
        """
        while most > 0 and self.has_control:
            control = self._control.popleft() if self._control else self._pack_credit()
            if control.queued:
                control.queued = False
                self._count(control, -1)
            if control.done or any(i in healthy for i in control.carriers):
                continue
            if not control.flying:
                control.flying = True
                self._flying_bytes += len(control.data)
            most -= len(control.data)
            yield control

    def _pack_credit(self) -> Control:
        streams = tuple(islice(self.credit_due.values(), frames.CREDITS_PER_FRAME))
        for stream in streams:
            del self.credit_due[stream.stream_id]
        limits = [(stream.stream_id, stream.window.limit) for stream in streams]
        return Control(frames.pack_credit(limits), streams)

    def arrived(self, control: Control) -> None:
        """The peer has parsed it."""
        control.done = True
        self._land(control)

    def _land(self, control: Control) -> None:
        if control.flying:
            control.flying = False
            self._flying_bytes -= len(control.data)

    def take_again(self, healthy: Container[int]) -> Chunk | None:
        """A chunk to send again, unless it is in flight on a healthy subflow by now."""
        while self._again:
            _, _, chunk = heappop(self._again)
            chunk.queued = False
            if not chunk.done and not any(i in healthy for i in chunk.carriers):
                return chunk
        return None

    def cut(self, size: int) -> Chunk | None:
        """A chunk of new bytes, from the stream whose turn it is."""
        turn = self._turn
        while turn:
            stream_id, stream = turn.popitem(last=False)
            if not stream.may_send():
                continue
            chunk = stream.send.cut(size, stream.credit.limit)
            if stream.may_send():
                turn[stream_id] = stream
            return chunk
        return None

    def forget(self, stream: Stream) -> None:
        """A stream is gone."""
        self.credit_due.pop(stream.stream_id, None)
        self._turn.pop(stream.stream_id, None)

    def hold_back(self, dead: Container[int]) -> None:
        """Forget chunks to be sent again, where a dead subflow's last word is still to come."""
        again, self._again = self._again, []
        for _, _, chunk in again:
            chunk.queued = False
            if not any(i in dead for i in chunk.carriers):
                self._queue_again(chunk)

    def clear(self) -> None:
        """The session is over."""
        self._control.clear()
        self._again.clear()
        self._turn.clear()
        self.credit_due.clear()
        self._owed_items = self._owed_bytes = self._flying_bytes = 0
