"""Public fakes: two sessions joined by simulated subflows on simulated time."""

import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from stripetwist.core import events
from stripetwist.core.config import KIB, MIB, Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.errors import Code, FramingError, OpenRefused
from stripetwist.core.frames import Checksum, Frame, FrameParser
from stripetwist.core.path import PLAIN, PathInfo
from stripetwist.core.session import Session
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.core.traits import Traits
from stripetwist.testing_pipes import EventHeap, Pipe, Queue


@dataclass
class Carried:
    """
    One stream as an end's application sees it.

    @ivar wrote: bytes given to the session.
    @ivar got: bytes taken from it.
    @ivar outcome: how it ended: C{finished}, C{reset}, C{refused}, or still C{open}.
    @ivar datagrams: when each came, its payload, and the peer that it names.
    """

    wrote: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    ended: bool = False
    saw_end: bool = False
    accepted: bool = False
    may_write: bool = True
    reading: bool = True
    outcome: str = "open"
    datagrams: list[tuple[float, bytes, Target | None]] = field(default_factory=list)


class End:
    """
    One peer: a session with the owner's duties, and applications that write and read.

    @ivar streams: what its applications saw, by stream id.
    @ivar policy: the answer to a stream that the peer opens; C{None} accepts.
    @ivar hook: called once, in the middle of the next duty, then forgotten: for cutting
        subflows where it hurts.
    @ivar watch: if set, called with a subflow's id and each frame written to it.
    """

    def __init__(self, heap: EventHeap, is_dialer: bool, limits: Limits, peer: PeerLimits) -> None:
        self.heap = heap
        self.limits = limits
        self.budget = MemoryBudget(limits)
        self.session = Session(is_dialer, limits, self.budget, peer, heap.now)
        self.pipes: dict[int, Pipe] = {}
        self.streams: dict[int, Carried] = {}
        self.policy: Callable[[OpenRequest], OpenRefused | None] = lambda request: None
        self.hook: Callable[[], None] | None = None
        self.watch: Callable[[int, Frame], None] | None = None
        self.log: list[events.Event] = []
        self.on_dead: Callable[[int], None] = lambda subflow_id: None
        self.longest_gap = 0.0
        self._last_byte = heap.now
        self._timer = float("inf")
        self._busy = False
        self._watched: dict[int, FrameParser] = {}
        self._missed: list[Callable[[], None]] | None = None
        self._line: list[Callable[[], None]] | None = None

    # ---- the application

    def open(self, port: int = 80) -> int:
        """Open a stream; its id."""
        stream_id = self.session.open(OpenRequest(Target.of("example.test", port)))
        self.streams[stream_id] = Carried()
        self.turn()
        return stream_id

    def associate(self, copies: int = 1) -> int:
        """Open an association; its id."""
        stream_id = self.session.open(OpenRequest(ANYWHERE, Kind.UDP, copies=copies))
        self.streams[stream_id] = Carried()
        self.turn()
        return stream_id

    def send_datagram(self, stream_id: int, payload: bytes, peer: Target | None = None) -> None:
        """Send one, if it may leave."""
        self.session.send_datagram(stream_id, payload, peer, self.heap.now)
        self.turn()

    def write(self, stream_id: int, data: bytes) -> None:
        """Write, whatever the session says of room."""
        carried = self.streams[stream_id]
        carried.wrote += data
        carried.may_write = self.session.write(stream_id, data) > 0
        self.turn()

    def end(self, stream_id: int) -> None:
        """Half-close."""
        self.streams[stream_id].ended = True
        self.session.end(stream_id)
        self.turn()

    def reset(self, stream_id: int) -> None:
        """Break it."""
        carried = self.streams[stream_id]
        if carried.outcome == "open":
            carried.outcome = "reset"
        self.session.reset(stream_id, Code.CANCELLED)
        self.turn()

    def stop_reading(self, stream_id: int) -> None:
        """The application takes nothing for now."""
        self.streams[stream_id].reading = False

    def resume_reading(self, stream_id: int) -> None:
        """It takes what there is."""
        self.streams[stream_id].reading = True
        self._read(stream_id)
        self.turn()

    def _read(self, stream_id: int) -> None:
        carried = self.streams[stream_id]
        while carried.reading:
            data, ended = self.session.take(stream_id, 64 * KIB)
            if data:
                self.longest_gap = max(self.longest_gap, self.heap.now - self._last_byte)
                self._last_byte = self.heap.now
            carried.got += data
            carried.saw_end |= ended
            self.session.consumed(stream_id, len(data))
            if not data:
                return

    # ---- the owner's duties

    def turn(self) -> None:
        """Drain events, poll subflows, arm the timer: what a driver does after any input."""
        if self._busy:
            return
        self._busy = True
        try:
            self._drain_events()
            while self._poll_all():
                self._drain_events()
        finally:
            self._busy = False
        self._arm()

    def _poll_all(self) -> bool:
        polled = False
        for subflow_id in self.session.pollable(self.heap.now):
            self._poll(subflow_id)
            polled = True
        return polled

    def _poll(self, subflow_id: int) -> None:
        data = b"".join(self.session.poll(subflow_id, self.heap.now))
        if self.hook is not None:
            hook, self.hook = self.hook, None
            hook()
        if data and (pipe := self.pipes.get(subflow_id)) is not None:
            pipe.write(data)
            self._show(subflow_id, data)

    def _show(self, subflow_id: int, data: bytes) -> None:
        if self.watch is not None:
            for frame in self._watched[subflow_id].feed(data):
                self.watch(subflow_id, frame)

    def _drain_events(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.log.append(event)
            self._happened(event)

    def _happened(self, event: events.Event) -> None:
        if isinstance(event, events.StreamOpened):
            if (refused := self.policy(event.request)) is not None:
                self.session.refuse(event.stream_id, refused.code, refused.sentence)
                return
            self.streams[event.stream_id] = Carried(accepted=True)
            self.session.accept(event.stream_id)
        elif isinstance(event, events.SubflowDead | events.SubflowPaced | events.SubflowSlow):
            self._found(event)
        elif isinstance(event, events.StreamAccepted):
            self.streams[event.stream_id].accepted = True
        elif isinstance(event, events.StreamReadable):
            self._read(event.stream_id)
        elif isinstance(event, events.DatagramArrived):
            came = self.heap.now, event.payload, event.peer
            self.streams[event.stream_id].datagrams.append(came)
        elif isinstance(event, events.StreamWritable):
            self.streams[event.stream_id].may_write = True
        else:
            self._ended(event)

    def _found(self, event: events.SubflowDead | events.SubflowPaced | events.SubflowSlow) -> None:
        pipe = self.pipes.get(event.subflow_id)
        if isinstance(event, events.SubflowDead):
            self.on_dead(event.subflow_id)
        elif pipe is None:
            return
        elif isinstance(event, events.SubflowSlow):
            self.session.seems_slow(event.subflow_id, pipe.kernel(), self.heap.now)
        else:
            pipe.lowat = event.batch // 2

    def _ended(self, event: events.Event) -> None:
        outcomes = {
            events.StreamReset: "reset",
            events.StreamRefused: "refused",
            events.StreamFinished: "finished",
        }
        outcome = outcomes.get(type(event))
        carried = self.streams.get(getattr(event, "stream_id", 0))
        if outcome is not None and carried is not None and carried.outcome == "open":
            carried.outcome = outcome

    def _arm(self) -> None:
        # As a driver does: what the session says of its deadlines is proved with it.
        if self._timer <= self.session.no_deadline_before(self.heap.now):
            return
        deadline = self.session.next_deadline()
        if deadline < self._timer:
            self._timer = deadline
            self.heap.at(deadline, self._tick)

    def _tick(self) -> None:
        if self.heap.now < self._timer or self._missed is not None:
            return
        self._timer = float("inf")
        if self.session.has_to_judge(self.heap.now):
            self._ask_kernel()
            self.session.deadline_reached(self.heap.now)
        self.turn()

    def _ask_kernel(self) -> None:
        for subflow_id in self.session.doubtful(self.heap.now):
            if (pipe := self.pipes.get(subflow_id)) is not None:
                self.session.kernel_says(subflow_id, pipe.kernel(), self.heap.now)

    # ---- its subflows

    def join(
        self,
        subflow_id: int,
        pipe: Pipe,
        rtt: float | None,
        checksum: Checksum | None,
        path: PathInfo = PLAIN,
    ) -> None:
        """A connection is up."""
        self.pipes[subflow_id] = pipe
        self._watched[subflow_id] = FrameParser(checksum)
        self.session.subflow_up(subflow_id, self.heap.now, rtt, Traits(checksum, path=path))

    def leave(self, subflow_id: int) -> None:
        """A connection is lost."""
        if self.pipes.pop(subflow_id, None) is not None:
            self.session.subflow_down(subflow_id, self.heap.now)
            self.turn()

    def came(self, subflow_id: int, data: bytes) -> None:
        """Bytes came on a connection."""
        line = self._line if self._missed is None else self._missed
        if line is None:
            self._take(subflow_id, data)
        else:
            line.append(lambda: self._take(subflow_id, data))

    def _take(self, subflow_id: int, data: bytes) -> None:
        if subflow_id not in self.pipes:
            return
        try:
            self.session.received(subflow_id, [data], self.heap.now)
        except FramingError:
            self.on_dead(subflow_id)
        self.turn()

    def drained(self, subflow_id: int) -> None:
        """A connection has room."""
        if self._missed is not None:
            self._missed.append(lambda: self.drained(subflow_id))
            return
        self.session.drained(subflow_id)
        self.turn()

    # ---- trouble of its own

    def sleep(self) -> None:
        """The process is stopped: it sees nothing, and its timer does not fire."""
        self._missed = []

    def wake(self) -> None:
        """
        It goes on: the timer first, then what has come, as a reactor would.

        What comes meanwhile, a cut's last bytes say, stands in line behind that.
        """
        self._line, self._missed = self._missed or [], None
        self._tick()
        while self._line:
            self._line.pop(0)()
        self._line = None

    def close(self, code: Code = Code.NO_ERROR, reason: str = "done") -> None:
        """End the session in order."""
        for subflow_id, data in self.session.close(code, reason).items():
            self.pipes[subflow_id].write(data)
            self._show(subflow_id, data)
        self.turn()


class Pair:
    """
    Two sessions joined by simulated subflows: the dialer's end C{a}, the acceptor's C{b}.

    @ivar subflows: the two pipes (a to b, b to a) of each living subflow.
    @ivar hello_excess: seconds beyond two delays that a hello seems to take, from now on.
    """

    def __init__(self, limits: Limits | None = None, limits_b: Limits | None = None) -> None:
        self.heap = EventHeap()
        limits = limits or Limits(max_memory=64 * MIB)
        limits_b = limits_b or limits
        self.a = End(self.heap, True, limits, _as_peer(limits_b))
        self.b = End(self.heap, False, limits_b, _as_peer(limits))
        self.subflows: dict[int, tuple[Pipe, Pipe]] = {}
        self.a.on_dead = self.b.on_dead = lambda subflow_id: self.cut(subflow_id, 0, 0)
        self._next = 1
        self.cuts = 0
        self.hello_excess = 0.0

    def add(
        self,
        rate: float = 12.5e6,
        delay: float = 0.01,
        rate_back: float | None = None,
        checksum: Checksum | None = None,
        path: PathInfo = PLAIN,
        queues: tuple[Queue, Queue] | None = None,
    ) -> int:
        """
        A subflow more; its id.

        @param rate: bytes per second.
        @param delay: seconds, one way.
        @param queues: those of a line that it shares with others, there and back.
        """
        subflow_id = self._next
        self._next += 1
        there = Pipe(self.heap, rate, delay)
        back = Pipe(self.heap, rate_back or rate, delay)
        there.back, back.back = back, there
        there.queue, back.queue = queues or (there.queue, back.queue)
        for end, mine, theirs in ((self.a, there, back), (self.b, back, there)):
            end.join(subflow_id, mine, 2 * delay + self.hello_excess, checksum, path)
            theirs.deliver = _bound(end.came, subflow_id)
            mine.drained = _bound0(end.drained, subflow_id)
        self.subflows[subflow_id] = (there, back)
        self.a.turn()
        self.b.turn()
        return subflow_id

    def add_many(self, count: int, rate: float = 12.5e6, delay: float = 0.01) -> list[int]:
        """Several alike."""
        return [self.add(rate, delay) for _ in range(count)]

    def cut(self, subflow_id: int, keep_ab: int = 0, keep_ba: int = 0) -> None:
        """
        A connection breaks; of what was in flight only the first bytes still arrive.

        Each direction loses a suffix of its own, as a dying TCP connection does.
        """
        pipes = self.subflows.pop(subflow_id, None)
        if pipes is None:
            return
        self.cuts += 1
        pipes[0].cut(keep_ab)
        pipes[1].cut(keep_ba)
        self.a.leave(subflow_id)
        self.b.leave(subflow_id)

    def cut_all(self) -> None:
        """Nothing is left."""
        for subflow_id in list(self.subflows):
            self.cut(subflow_id)

    def stall(self, subflow_id: int, ab: bool = True, ba: bool = True) -> None:
        """A connection goes silent, in one direction or both."""
        there, back = self.subflows[subflow_id]
        if ab:
            there.stall()
        if ba:
            back.stall()

    def swallow(self, subflow_id: int) -> tuple[Pipe, Pipe]:
        """A connection takes everything, as its kernels see it, and delivers nothing."""
        pipes = self.subflows[subflow_id]
        for pipe in pipes:
            pipe.swallowing = True
        return pipes

    def resume(self, subflow_id: int) -> None:
        """It comes back."""
        for pipe in self.subflows.get(subflow_id, ()):
            pipe.resume()

    def run(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.heap.run_until(self.heap.now + seconds)

    def run_while(self, busy: Callable[[], bool], most: float = 120.0) -> float:
        """Let time pass while something holds; how long it took, at most C{most} seconds."""
        start = self.heap.now
        while busy() and self.heap.now < start + most and self.heap.step():
            pass
        return self.heap.now - start


def _as_peer(limits: Limits) -> PeerLimits:
    timeout = limits.session_timeout
    return PeerLimits(limits.min_window, limits.max_streams, timeout, limits.batch_most)


def _bound(call: Callable[[int, bytes], None], subflow_id: int) -> Callable[[bytes], None]:
    return lambda data: call(subflow_id, data)


def _bound0(call: Callable[[int], None], subflow_id: int) -> Callable[[], None]:
    return lambda: call(subflow_id)


def pattern(size: int, seed: int = 0, at: int = 0) -> bytes:
    """Bytes in which every place looks different from its neighbours; C{at} is where to begin."""
    return _counted(seed, 1 << (at + size).bit_length())[at : at + size]


@lru_cache(maxsize=2)
def _counted(seed: int, size: int) -> bytes:
    """So many bytes of numbers that count up, each of eight bytes."""
    first = seed << 40
    words = array("Q", range(first, first + size // 8 + 1))
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()
