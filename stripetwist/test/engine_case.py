"""Pairs of sessions for tests: transfers, a thief of frames, what must be left at the end."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import events, frames
from stripetwist.core.config import MIB, Limits
from stripetwist.core.frames import Frame
from stripetwist.testing import End, Pair, pattern

# Padding has tests of its own.
LIMITS = Limits(max_memory=64 * MIB, prewarm=0)


class Thief:
    """
    Cuts the subflow on which a frame of some type leaves, before a byte of it arrives.

    @ivar stolen: how many it got.
    """

    def __init__(self, pair: Pair, end: End, kind: int, most: int = 1) -> None:
        self.stolen = 0
        self._pair = pair
        self._kind = kind
        self._most = most
        end.watch = self._watch

    def _watch(self, subflow_id: int, frame: Frame) -> None:
        if frame[0] == self._kind and self.stolen < self._most:
            self.stolen += 1
            self._pair.heap.at(self._pair.heap.now, lambda: self._pair.cut(subflow_id))


class Scribe:
    """
    Writes down each frame that an end sends.

    @ivar sent: subflow id and frame, in order.
    """

    def __init__(self, end: End) -> None:
        self.sent: list[tuple[int, Frame]] = []
        end.watch = lambda subflow_id, frame: self.sent.append((subflow_id, frame))

    def count(self, kind: int) -> int:
        """How many frames of a type were sent."""
        return sum(1 for _, frame in self.sent if frame[0] == kind)

    @property
    def copied(self) -> int:
        """Payload bytes sent again."""
        return sum(f[6] for _, f in self.sent if f[0] == frames.DATA and f[1] & frames.COPY)

    def carried(self, subflow_id: int) -> int:
        """Payload bytes sent on a subflow."""
        return sum(f[6] for i, f in self.sent if i == subflow_id and f[0] == frames.DATA)


class EngineCase(SynchronousTestCase):
    """Tests of two sessions over simulated subflows."""

    def pair(self, count: int = 1, rate: float = 12.5e6, delay: float = 0.01) -> Pair:
        """Two sessions with so many subflows."""
        pair = Pair(LIMITS)
        pair.add_many(count, rate, delay)
        return pair

    def opened(self, pair: Pair) -> int:
        """A stream of the dialer's that the acceptor has accepted."""
        stream_id = pair.a.open()
        pair.run_while(lambda: not pair.a.streams[stream_id].accepted, 5.0)
        self.assertTrue(pair.a.streams[stream_id].accepted)
        return stream_id

    def send(self, sender: End, stream_id: int, size: int, seed: int = 0) -> bytes:
        """Write that many bytes and the end."""
        data = pattern(size, seed)
        sender.write(stream_id, data)
        sender.end(stream_id)
        return data

    def wait(self, pair: Pair, receiver: End, stream_id: int, most: float = 120.0) -> float:
        """Run until the end of a stream is seen; how long that took."""
        seconds = pair.run_while(lambda: not receiver.streams[stream_id].saw_end, most)
        self.assertTrue(receiver.streams[stream_id].saw_end, f"nothing after {seconds} s")
        return seconds

    def upload(self, pair: Pair, size: int) -> float:
        """Carry that much from the dialer to the acceptor; how long it took."""
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, size)
        seconds = self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        return seconds

    def dead(self, end: End) -> list[events.SubflowDead]:
        """The subflows that an end gave up."""
        return [event for event in end.log if isinstance(event, events.SubflowDead)]

    def assert_at_rest(self, pair: Pair) -> None:
        """Nothing is held, promised, queued, in flight or due at either end, but pings."""
        pair.run(30)
        for end in (pair.a, pair.b):
            session = end.session
            outbox = session._outbox
            self.assertEqual(session._streams.table, {})
            self.assertEqual((end.budget.promised, end.budget.stored), (0, 0))
            self.assertEqual(end.budget.datagrams, 0)
            self.assertFalse(outbox.has_control or outbox.has_data)
            self.assertEqual(
                (outbox._owed_items, outbox._owed_bytes, outbox._flying_bytes), (0,) * 3
            )
            self.assertEqual(session._subflows._dead, {})
            self.assertEqual(len(session._streams._numbers._gaps), 0)
            self.assertEqual(session._streams.room._waiting, {})
            for subflow in session._subflows.alive.values():
                self.assertEqual(subflow.ledger.in_flight, 0)
                self.assertEqual(subflow.ledger.outstanding(), [])
            self.assertGreaterEqual(session.next_deadline(), pair.heap.now)
            self.assertEqual(list(session.pollable(pair.heap.now)), [])
