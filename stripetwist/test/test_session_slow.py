"""Subflows that are slow but alive: used for what they carry, never taken for dead."""

from functools import partial

from stripetwist.core import frames
from stripetwist.core.liveness import State
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair, pattern


class SlowLinkTests(EngineCase):
    """All of them are slow, as where they share a throttled phone."""

    def test_six_that_share_little(self) -> None:
        """From 8 kbit/s each, six carry six times what one does, sent once, and none dies."""
        for rate in (1e3, 2.7e3, 8e3, 20e3):
            pair = self.pair(6, rate=rate, delay=0.05)
            scribe = Scribe(pair.a)
            seconds = self.upload(pair, int(rate * 480))
            self.assertLess(seconds, 80 * 1.1, rate)
            self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [], rate)
            self.assertLess(scribe.copied, rate * 480 / 50, rate)

    def test_both_directions(self) -> None:
        """Acknowledgements stand behind the other direction's bytes, and still nobody dies."""
        pair = self.pair(6, rate=4e3, delay=0.05)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 400_000, 1)
        self.send(pair.b, stream_id, 400_000, 2)
        self.wait(pair, pair.a, stream_id)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])

    def test_thirty_two_alike(self) -> None:
        """None of them rests because of the others."""
        pair = self.pair(32, rate=2e3, delay=0.05)
        seconds = self.upload(pair, 2_560_000)
        self.assertLess(seconds, 40 * 1.2)
        self.assertEqual(self.dead(pair.a), [])

    def test_a_new_stream_does_not_wait_long(self) -> None:
        """What stands before it on a slow link is seconds, not a minute."""
        pair = self.pair(6, rate=2.7e3, delay=0.05)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 1_000_000)
        pair.run(20)
        before = pair.heap.now
        self.opened(pair)
        self.assertLess(pair.heap.now - before, 8)


class SlowAmongFastTests(EngineCase):
    """One of them is slow, beside others that are not."""

    def fast_and_slow(self, rate: float, fast: float = 6e6) -> tuple[Pair, int]:
        """Two fast ones, and one more."""
        pair = Pair(LIMITS)
        pair.add_many(2, fast, 0.02)
        return pair, pair.add(rate, 0.02)

    def test_it_costs_the_others_little(self) -> None:
        """Nine tenths of what they could do alone, with no gap of half a second."""
        for rate in (1e3, 8e3, 50e3, 200e3):
            pair, _ = self.fast_and_slow(rate)
            seconds = self.upload(pair, 18_000_000)
            self.assertGreater(18e6 / 12e6 / seconds, 0.9, rate)
            self.assertLess(pair.b.longest_gap, 0.5, rate)

    def test_it_is_not_given_up(self) -> None:
        """It is alive: what was on it went on others too, and it is asked again later."""
        pair, slow = self.fast_and_slow(8e3)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 30_000_000)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(self.dead(pair.a), [])
        self.assertIn(slow, pair.subflows)

    def test_it_carries_again_when_it_is_quick_again(self) -> None:
        """Within the time that it rests."""
        pair, slow = self.fast_and_slow(8e3, 1e6)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 40_000_000)
        pair.run(4)
        pair.subflows[slow][0].rate = 1e6
        before = scribe.carried(slow)
        pair.run(LIMITS.slow_rest + 3)
        self.assertGreater(scribe.carried(slow) - before, 1e6)

    def test_control_does_not_go_on_it(self) -> None:
        """A new stream opens as fast as the others carry it."""
        pair, slow = self.fast_and_slow(3e3)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 40_000_000)
        pair.run(2)
        scribe = Scribe(pair.a)
        before = pair.heap.now
        for _ in range(20):
            self.opened(pair)
        self.assertLess(pair.heap.now - before, 20 * 0.25)
        self.assertNotIn(slow, [i for i, frame in scribe.sent if frame[0] == frames.OPEN])


class SwallowingTests(EngineCase):
    """The kernel sees bytes move, and nobody gets them: that is no slowness either."""

    def write_steadily(self, pair: Pair, stream_id: int, sent: bytearray) -> None:
        """20 kB every 10 ms, both ways, until there are 8 MB."""
        data = pattern(20_000, at=len(sent))
        sent.extend(data)
        for end in (pair.a, pair.b):
            end.write(stream_id, data)
        if len(sent) < 8_000_000:
            again = partial(self.write_steadily, pair, stream_id, sent)
            pair.heap.at(pair.heap.now + 0.01, again)

    def test_found_while_new_bytes_go_on(self) -> None:
        """With bytes both ways all the time: no gap of half a second, and it is given up."""
        for subflow_id in (1, 6):
            pair = self.pair(6, rate=4e6, delay=0.001 * subflow_id)
            stream_id = self.opened(pair)
            sent = bytearray()
            self.write_steadily(pair, stream_id, sent)
            pair.run(1)
            pipes = pair.swallow(subflow_id)
            pair.run(6)
            self.assertGreater(pipes[0].swallowed + pipes[1].swallowed, 0)
            for end in (pair.a, pair.b):
                self.assertLess(end.longest_gap, 0.5)
                self.assertEqual(bytes(end.streams[stream_id].got), bytes(sent))
            found = self.dead(pair.a) + self.dead(pair.b)
            self.assertEqual({one.subflow_id for one in found}, {subflow_id})


class StalledTests(EngineCase):
    """The kernel sees no bytes move: that is no slowness."""

    def test_found_as_quickly_as_ever(self) -> None:
        """A stalled one among slow ones is suspected within seconds, and given up."""
        pair = self.pair(6, rate=20e3, delay=0.05)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 1_200_000)
        pair.run(2)
        pair.stall(1)
        pair.run(3.5)
        subflow = pair.a.session._subflows.alive.get(1)
        self.assertTrue(subflow is None or subflow.life.state is State.SUSPECT)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual([one.subflow_id for one in self.dead(pair.a)], [1])
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
