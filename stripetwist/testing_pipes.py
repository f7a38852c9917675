"""Public fakes: connections on simulated time."""

import heapq
import math
from collections import deque
from collections.abc import Callable
from functools import partial

from stripetwist.core.config import KIB
from stripetwist.core.progress import KernelView

# A rate is what came through in so many seconds.
_LATELY = 1.0


class EventHeap:
    """Simulated time: calls in the order of their moments, ties in the order of asking."""

    def __init__(self) -> None:
        self.now = 100.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Run C{call} at a moment, or next if that has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(moment, self.now), self._count, call))

    def run_until(self, moment: float) -> None:
        """Let everything happen up to a moment."""
        while self._heap and self._heap[0][0] <= moment:
            self.now, _, call = heapq.heappop(self._heap)
            call()
        self.now = max(self.now, moment)

    def step(self) -> bool:
        """Let the next thing happen; C{False} if there is none."""
        if not self._heap:
            return False
        self.now, _, call = heapq.heappop(self._heap)
        call()
        return True


class Queue:
    """What waits for a line, first come first served; several pipes may share one."""

    def __init__(self) -> None:
        self.busy_until = 0.0


class Pipe:
    """
    One direction of a simulated connection: in order, whole, at a rate, after a delay.

    @ivar rate: bytes per second.
    @ivar delay: seconds one way.
    @ivar slice: bytes come out in pieces of at most this.
    @ivar lowat: bytes still unsent when it asks for more, as with TCP_NOTSENT_LOWAT.
    @ivar window: how many bytes may be on the way unacknowledged; grows as in slow start.
    @ivar queue: what its bytes wait in.
    @ivar proxy: how many bytes a proxy before the line takes, whatever goes through.
    @ivar back: the other direction of the connection.
    @ivar carried: bytes delivered.
    @ivar swallowing: what arrives is acknowledged by the other kernel, and goes nowhere: so
        does a middlebox that has lost its other side.
    @ivar swallowed: bytes that went that way.
    """

    def __init__(self, heap: EventHeap, rate: float, delay: float) -> None:
        self._heap = heap
        self.rate = rate
        self.delay = delay
        self.slice = 16 * KIB
        self.lowat = 4 * KIB
        self.window = math.inf
        self.queue = Queue()
        self.proxy = 0
        self.back = self
        self.carried = 0
        self.swallowing = False
        self.swallowed = 0
        self.deliver: Callable[[bytes], None] = lambda data: None
        self.drained: Callable[[], None] = lambda: None
        # When the last byte of a piece leaves, its size, and what was sent before it.
        self._sent: deque[tuple[float, int, int]] = deque()
        self._left_at = 0.0
        self._flying: deque[bytes] = deque()
        self._unsent: deque[int] = deque()
        self._on_the_way = 0
        self._due = 0
        self._stalled = False
        self._stalled_at = 0.0
        self._written = 0
        self.closed = False

    @property
    def in_flight(self) -> int:
        """Bytes written and not delivered."""
        return sum(map(len, self._flying))

    @property
    def moved_at(self) -> float:
        """When anything last came through."""
        return self._stalled_at if self._stalled else self._heap.now

    def passed(self, delay: float, now: float) -> tuple[int, float]:
        """Bytes that had gone through C{delay} before then, and how long the last is away."""
        passed = 0
        for leaves_at, size, before in reversed(self._sent):
            left = max(0.0, leaves_at + delay - now) * self.rate
            if left < size:
                passed = before + size - math.ceil(left)
                break
        ago = max(0.0, now - self._left_at - delay) + self._heap.now - now
        return passed, ago

    def kernel(self) -> KernelView:
        """What the writing end's kernel sees."""
        # What comes back with the other direction's bytes stalls with them.
        acked, ago = self.passed(2 * self.delay, min(self.moved_at, self.back.moved_at))
        received = self.back.passed(self.back.delay, self.back.moved_at)
        taken, rtt = min(self._written, acked + self.proxy), 2 * self.delay
        waits = taken < self._written
        queued = max(0.0, self.queue.busy_until - self._heap.now)
        lately = acked - self.passed(rtt, self._heap.now - _LATELY)[0]
        speed = rtt + queued, rtt, lately / _LATELY if waits else 0.0
        return KernelView(taken, ago, *received, waits, rtt, *speed)

    def write(self, data: bytes) -> None:
        """Take a batch; asks for more through C{drained}."""
        if self.closed:
            return
        self._written += len(data)
        for at in range(0, len(data), self.slice):
            piece = data[at : at + self.slice]
            self._flying.append(piece)
            self._unsent.append(len(piece))
        self._send()

    def _send(self) -> None:
        while self._unsent and self._on_the_way < self.window:
            size = self._unsent.popleft()
            leaves_at = self._leave(size)
            self._heap.at(leaves_at + self.delay, self._arrive)
            if self.window < math.inf:
                self._on_the_way += size
                self._heap.at(leaves_at + 2 * self.delay, partial(self._acked, size))
        room = self.lowat + self.proxy
        if sum(self._unsent) <= room:
            self._heap.at(self._left_at - room / self.rate, self._drain)

    def _leave(self, size: int) -> float:
        """When a piece will have left."""
        queue, now = self.queue, self._heap.now
        self._left_at = queue.busy_until = max(now, queue.busy_until) + size / self.rate
        before = self._sent[-1][1] + self._sent[-1][2] if self._sent else 0
        self._sent.append((self._left_at, size, before))
        # What a kernel is asked for is of late.
        known_from = min(self.moved_at, self.back.moved_at) - 2 * _LATELY - 2 * self.delay
        while len(self._sent) > 1 and self._sent[1][0] < known_from:
            self._sent.popleft()
        return self._left_at

    def _acked(self, size: int) -> None:
        self._on_the_way -= size
        # A queue as long as the line holds no more.
        self.window = min(self.window + size, max(self.window, 4 * self.rate * self.delay))
        self._send()

    def _drain(self) -> None:
        if not self.closed and not self._stalled:
            self.drained()

    def _arrive(self) -> None:
        if self._stalled:
            self._due += 1
        elif self._flying and not self.closed:
            piece = self._flying.popleft()
            if self.swallowing:
                self.swallowed += len(piece)
                return
            self.carried += len(piece)
            self.deliver(piece)

    def stall(self) -> None:
        """Deliver nothing, and take nothing more, until C{resume}."""
        if not self._stalled:
            self._stalled = True
            self._stalled_at = self._heap.now

    def resume(self) -> None:
        """Go on; what has waited comes at once."""
        if self._stalled:
            self._stalled = False
            due, self._due = self._due, 0
            for _ in range(due):
                self._heap.at(self._heap.now, self._arrive)
            self._heap.at(self._heap.now, self._drain)

    def corrupt(self) -> bool:
        """Flip a bit of what is in flight; C{False} if nothing is."""
        if not self._flying:
            return False
        piece = bytearray(self._flying[-1])
        piece[len(piece) // 2] ^= 0x10
        self._flying[-1] = bytes(piece)
        return True

    def cut(self, keep: int) -> None:
        """Deliver the first C{keep} bytes still in flight, lose the others, close."""
        while keep > 0 and self._flying:
            piece = self._flying.popleft()[:keep]
            keep -= len(piece)
            self.carried += len(piece)
            self.deliver(piece)
        self._flying.clear()
        self.closed = True
