"""
What the engine costs for each frame: C{pytest tests/bench/micro.py}.

Needs pytest-benchmark.  No socket, no TLS, no reactor: what is left is ours.
"""

from typing import Any

import pytest

from stripetwist.core import events, frames
from stripetwist.core.config import KIB, MIB, Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest, Target

Benchmark = Any
PAYLOAD = bytes(64 * KIB - frames.HEADER_SIZE)
READ = 16 * KIB
SUBFLOWS = 6
ROUND_TRIP = 1e-3


def test_pack_data(benchmark: Benchmark) -> None:
    """A DATA frame of 64 KiB is made of its payload."""
    benchmark(frames.pack_with, PAYLOAD, frames.DATA, 0, 0, 1, 1 << 32)


@pytest.mark.parametrize("read", [READ, len(PAYLOAD) + frames.HEADER_SIZE])
def test_parse_data(benchmark: Benchmark, read: int) -> None:
    """It is parsed, as it comes in TLS records and in one piece."""
    data = frames.pack_with(PAYLOAD, frames.DATA, 0, 0, 1, 1 << 32)
    reads = [data[at : at + read] for at in range(0, len(data), read)]

    def parse() -> list[frames.Frame]:
        parser = frames.FrameParser()
        return [frame for part in reads for frame in parser.feed(part)]

    (frame,) = benchmark(parse)
    assert frame[6] == len(PAYLOAD)


def test_pack_and_parse_ack(benchmark: Benchmark) -> None:
    """An ACK is made and parsed."""
    parser = frames.FrameParser()

    def there() -> list[frames.Frame]:
        return parser.feed(frames.pack(frames.ACK, 0, 7, 0, 1 << 32))

    assert len(benchmark(there)) == 1


class Joined:
    """
    Two sessions whose subflows deliver at once what is polled.

    @ivar got: bytes that the far application has taken.
    """

    def __init__(self) -> None:
        limits = Limits(max_memory=64 * MIB, prewarm=0)
        peer = PeerLimits(limits.min_window, limits.max_streams, 60.0, limits.batch_most)
        self._now = 100.0
        self._ends = [
            Session(is_dialer, limits, MemoryBudget(limits), peer, self._now)
            for is_dialer in (True, False)
        ]
        self.near, self.far = self._ends
        for number in range(1, SUBFLOWS + 1):
            for end in self._ends:
                end.subflow_up(number, self._now, ROUND_TRIP)
        self.got = 0

    def turn(self) -> None:
        """Let everything go that can; then a little time passes."""
        for end, other in (self._ends, reversed(self._ends)):
            for number in list(end.pollable(self._now)):
                if data := b"".join(end.poll(number, self._now)):
                    end.drained(number)
                    other.received(number, data, self._now)
        for end in self._ends:
            while (event := end.next_event()) is not None:
                self._happened(end, event)
            if end.has_to_judge(self._now):
                end.deadline_reached(self._now)
                end.next_deadline()
        self._now += ROUND_TRIP / 2

    def _happened(self, end: Session, event: events.Event) -> None:
        if isinstance(event, events.StreamOpened):
            end.accept(event.stream_id)
        elif isinstance(event, events.StreamReadable):
            while data := end.take(event.stream_id, 64 * KIB)[0]:
                end.consumed(event.stream_id, len(data))
                self.got += len(data)

    def carry(self, size: int) -> int:
        """Write so much to a stream, as it has room, until all of it has been taken."""
        stream = self.near.open(OpenRequest(Target.of("example.test", 80)))
        left = size
        while self.got < size:
            while left and self.near.room_left(stream) > 0:
                part = PAYLOAD[:left]
                self.near.write(stream, part)
                left -= len(part)
            self.turn()
        return self.got


def test_a_stream_between_two_sessions(benchmark: Benchmark) -> None:
    """64 MiB through both engines: cut, packed, parsed, put in order, acknowledged."""
    size = 64 * MIB
    got = benchmark.pedantic(lambda: Joined().carry(size), rounds=5, warmup_rounds=1)
    assert got == size
    if benchmark.stats is not None:
        benchmark.extra_info["seconds_per_64_kib"] = benchmark.stats.stats.median * 64 * KIB / size
