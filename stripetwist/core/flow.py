"""One carried UDP flow: what waits to leave, and what has come."""

from collections import deque

from stripetwist.core.frames import HEADER_SIZE

_SPAN = 1024
_MASK = (1 << _SPAN) - 1


class Datagram:
    """
    One that waits to leave.

    @ivar born: when it was given to us.
    @ivar size: bytes of its frame.
    @ivar lanes: in how many it waits.
    @ivar carriers: ids of the subflows that it was put on.
    """

    __slots__ = ("address", "born", "carriers", "lanes", "number", "payload", "size", "stream_id")

    def __init__(
        self, stream_id: int, number: int, address: bytes, payload: bytes, born: float
    ) -> None:
        self.stream_id = stream_id
        self.number = number
        self.address = address
        self.payload = payload
        self.born = born
        self.size = HEADER_SIZE + len(address) + len(payload)
        self.lanes = 0
        self.carriers: tuple[int, ...] = ()


class Lane:
    """
    The way of one copy of each datagram of a flow.

    @ivar queue: those that wait, the oldest first.
    @ivar size: their bytes.
    @ivar subflow_id: where the last ones went; 0 before the first.
    """

    __slots__ = ("queue", "size", "subflow_id")

    def __init__(self) -> None:
        self.queue: deque[Datagram] = deque()
        self.size = 0
        self.subflow_id = 0

    def put(self, datagram: Datagram) -> None:
        """One more."""
        self.queue.append(datagram)
        self.size += datagram.size
        datagram.lanes += 1

    def take(self) -> Datagram:
        """The oldest."""
        datagram = self.queue.popleft()
        self.size -= datagram.size
        datagram.lanes -= 1
        return datagram


class Seen:
    """Which datagrams have come, of the last 1,024 numbers up to the highest."""

    __slots__ = ("_bits", "_highest")

    def __init__(self) -> None:
        self._highest = -1
        self._bits = 0

    def is_new(self, number: int) -> bool:
        """Whether that one comes for the first time, and not far too late."""
        ahead = number - self._highest
        if ahead > 0:
            # A number may be anything up to 2**64: no shift by that much.
            self._bits = ((self._bits << ahead) | 1) & _MASK if ahead < _SPAN else 1
            self._highest = number
            return True
        if -ahead >= _SPAN or self._bits >> -ahead & 1:
            return False
        self._bits |= 1 << -ahead
        return True


class Flow:
    """
    The datagrams of one association, both ways.

    @ivar lanes: one for each copy that is sent.
    @ivar seen: what has come.
    """

    __slots__ = ("_sent", "lanes", "seen", "stream_id")

    def __init__(self, stream_id: int, copies: int) -> None:
        self.stream_id = stream_id
        self.lanes = [Lane() for _ in range(copies)]
        self.seen = Seen()
        self._sent = 0

    def put(self, address: bytes, payload: bytes, now: float) -> Datagram:
        """Have one wait, once for each copy."""
        datagram = Datagram(self.stream_id, self._sent, address, payload, now)
        self._sent += 1
        for lane in self.lanes:
            lane.put(datagram)
        return datagram

    @property
    def oldest(self) -> float:
        """When the first of those that wait was given to us; infinite if none does."""
        return min((lane.queue[0].born for lane in self.lanes if lane.queue), default=float("inf"))
