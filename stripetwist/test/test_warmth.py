"""L{stripetwist.core.warmth}: what is padded, when, and how much of it."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.bucket import NEVER
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.events import SubflowCold, SubflowWarm
from stripetwist.core.frames import HEADER_SIZE
from stripetwist.core.liveness import State
from stripetwist.core.path import PathInfo
from stripetwist.core.subflow import Subflow
from stripetwist.core.traits import Traits
from stripetwist.core.warmth import Warmth
from stripetwist.test.engine_case import EngineCase
from stripetwist.testing import Pair

LIMITS = Limits(max_memory=64 * MIB, prewarm=512 * KIB)


class WarmthTests(SynchronousTestCase):
    """The rule, on one subflow."""

    def setUp(self) -> None:
        """A session's, at 100 s, and a subflow 40 ms away."""
        self.told: list[SubflowCold | SubflowWarm] = []
        self.warmth = Warmth(LIMITS, 100.0, self.told.append)
        self.subflow = self.begun(0.04)

    def begun(self, rtt: float) -> Subflow:
        """The subflow, as one with such a round trip."""
        if (before := self.warmth.padding.get(1)) is not None:
            self.warmth.lost(before)
        subflow = Subflow(1, LIMITS, 100.0, rtt, Traits(window_decays=True))
        self.warmth.begin(subflow, 100.0)
        return subflow

    def pad(self, subflow: Subflow, now: float, count: int = 1) -> int:
        """Pad it as long as there is anything; how much that was."""
        total = 0
        self.warmth.settle(count, now)
        while size := self.warmth.filler_for(subflow, count, now):
            subflow.ledger.acked = subflow.ledger.written
            out: list[bytes] = []
            subflow.put_filler(size, out, now)
            self.warmth.spend(subflow, HEADER_SIZE + size)
            total += len(b"".join(out))
        subflow.ledger.acked = subflow.ledger.written
        self.warmth.settle(count, now)
        return total

    def more(self, first: int, count: int, path: int = 0, rtt: float = 0.04) -> list[Subflow]:
        """So many subflows beside the first one."""
        many = []
        for number in range(first, first + count):
            one = Subflow(number, LIMITS, 100.0, rtt, Traits(window_decays=True))
            one.path = path
            self.warmth.begin(one, 100.0)
            many.append(one)
        return many

    def begin_on(self, many: list[Subflow]) -> list[Subflow]:
        """Those of them that get filler now, all of which is still under way."""
        begun = []
        for one in many:
            if size := self.warmth.filler_for(one, 20, 100.1):
                one.put_filler(size, [], 100.1)
                self.warmth.spend(one, HEADER_SIZE + size)
                begun.append(one)
        return begun

    def test_all_of_it_once(self) -> None:
        """As much as its share, and then it is known to be open."""
        total = self.pad(self.subflow, 100.1, 2)
        self.assertTrue(256 * KIB - HEADER_SIZE <= total <= 256 * KIB, total)
        self.assertEqual(self.subflow.tx.pad, total)
        self.assertEqual(self.warmth.padding, {})
        self.assertEqual(self.told, [SubflowCold(1), SubflowWarm(1)])
        self.assertEqual(self.pad(self.subflow, 101.0), 0)

    def test_payload_opens_it_as_well(self) -> None:
        """What was written to it counts, whatever it was."""
        self.subflow.wrote(500 * KIB, None, 100.0)
        self.assertLessEqual(self.pad(self.subflow, 100.1), 12 * KIB)

    def test_as_tcp_would_start(self) -> None:
        """No more is under way than TCP sends at first, and what was acknowledged."""
        flights = []
        for _ in range(3):
            while size := self.warmth.filler_for(self.subflow, 1, 100.1):
                self.subflow.put_filler(size, [], 100.1)
            flights.append(self.subflow.ledger.in_flight)
            self.subflow.acked(self.subflow.ledger.written, None, 100.1)
        self.assertEqual(flights[0], 14_480)
        self.assertTrue(flights[0] * 1.5 < flights[1] < flights[0] * 3, flights)
        self.assertTrue(flights[1] * 1.5 < flights[2] < flights[1] * 3, flights)

    def test_not_on_a_short_path(self) -> None:
        """A few milliseconds away no window matters."""
        near = self.begun(0.004)
        self.assertEqual(self.pad(near, 100.1), 0)
        self.assertEqual(self.warmth.tick_at(near), NEVER)

    def test_no_more_once_a_queue_forms(self) -> None:
        """Round trips that take longer say that the path is full: so with a slow one."""
        self.subflow.rtt.sample(0.3, 100.2)
        self.assertEqual(self.pad(self.subflow, 100.2), 0)
        self.assertEqual(self.warmth.padding, {})

    def test_a_slow_hello_is_no_queue(self) -> None:
        """Nor is one late answer: both the last round trip and those before have to be long."""
        slow_hello = self.begun(0.4)
        slow_hello.rtt.sample(0.04, 100.1)
        self.assertGreater(self.pad(slow_hello, 100.1), 500 * KIB)
        late_answer = self.begun(0.04)
        late_answer.rtt.sample(0.1, 100.1)
        self.assertGreater(self.pad(late_answer, 100.1), 500 * KIB)

    def test_not_where_packets_get_lost(self) -> None:
        """None of that path's, nor one that comes later; other paths', and after some minutes."""
        beside, elsewhere, later = (Subflow(i, LIMITS, 100.0, 0.04) for i in (2, 3, 4))
        elsewhere.path = 1
        self.warmth.begin(beside, 100.0)
        self.warmth.begin(elsewhere, 100.0)
        self.told.clear()
        self.warmth.lost_packets(self.subflow, 100.0)
        self.warmth.begin(later, 100.1)
        self.assertEqual(self.warmth.padding, {3: elsewhere})
        self.assertEqual(self.told, [SubflowWarm(1), SubflowWarm(2)])
        alive = {1: self.subflow, 3: elsewhere, 4: later}
        self.warmth.watch(1, alive, 250.0)
        self.assertEqual(sorted(self.warmth.padding), [3])
        self.warmth.watch(2, alive, 100.0 + LIMITS.lossy_for)
        self.assertEqual(sorted(self.warmth.padding), [1, 3, 4])

    def test_a_path_that_is_gone_is_forgotten(self) -> None:
        """What comes up there next may take another way."""
        self.warmth.lost_packets(self.subflow, 100.0)
        self.warmth.forget(0)
        self.assertGreater(self.pad(self.begun(0.04), 100.1), 500 * KIB)

    def test_ever_more_at_a_time(self) -> None:
        """One, then three times as many as have been opened, and so on: a loss hits few."""
        many = [self.subflow, *self.more(2, 19)]
        for count in (1, 3, 12, 4):
            under_way = self.begin_on(many)
            self.assertEqual(len(under_way), count)
            for subflow in under_way:
                self.pad(subflow, 100.1, 20)
                self.assertGreater(subflow.tx.pad, 20 * KIB)

    def test_each_path_by_itself(self) -> None:
        """What came through on one says nothing of another, nor of the same when it is back."""
        mine, others = [self.subflow, *self.more(2, 9)], self.more(11, 10, path=1)
        self.assertEqual(self.begin_on(mine), mine[:1])
        self.pad(mine[0], 100.1, 20)
        self.assertEqual(self.begin_on(others), others[:1])
        self.assertEqual(self.begin_on(mine), mine[1:4])
        for subflow in mine:
            self.warmth.lost(subflow)
        self.warmth.forget(0)
        self.assertEqual(len(self.begin_on(self.more(21, 9))), 1)

    def test_what_is_under_way_may_get_lost(self) -> None:
        """A window is open when its part has arrived, whatever has been written to it since."""
        other = self.more(2, 1)
        while size := self.warmth.filler_for(self.subflow, 2, 100.1):
            self.subflow.ledger.acked = self.subflow.ledger.written
            self.subflow.put_filler(size, [], 100.1)
            self.warmth.spend(self.subflow, HEADER_SIZE + size)
        self.warmth.settle(2, 100.1)
        self.assertEqual(sorted(self.warmth.padding), [1, 2])
        self.assertEqual(self.begin_on(other), [])
        self.subflow.ledger.acked = self.subflow.ledger.written
        self.warmth.settle(2, 100.1)
        self.assertEqual(sorted(self.warmth.padding), [2])
        self.assertEqual(self.begin_on(other), other)

    def test_a_full_line_says_nothing_of_another(self) -> None:
        """Although that is longer: only those of its own have no room."""
        mine, others = [self.subflow, *self.more(2, 2)], self.more(11, 2, path=1, rtt=0.3)
        self.assertEqual(self.begin_on(mine), mine[:1])
        self.subflow.rtt.sample(0.3, 100.2)
        self.warmth.settle(5, 100.2)
        self.assertEqual(list(self.warmth.padding.values()), others)
        # What the other one takes does not make this one wide.
        self.pad(others[0], 100.3, 20)
        first, (beside,) = self.begun(0.04), self.more(21, 1)
        first.rtt.sample(0.3, 100.4)
        self.warmth.settle(5, 100.4)
        self.assertNotIn(beside, self.warmth.padding.values())

    def test_a_queue_is_no_open_window(self) -> None:
        """Where the path is wide, another takes the place of one whose path was full just then."""
        many = [self.subflow, *self.more(2, 9)]
        for _ in range(2):
            self.assertEqual(self.begin_on(many), many[:1])
            self.subflow.ledger.acked = self.subflow.ledger.written
        for _ in range(3):
            self.subflow.rtt.sample(0.3, 100.2)
        self.warmth.settle(10, 100.2)
        self.assertEqual(sorted(self.warmth.padding), list(range(2, 11)))
        self.assertEqual(self.begin_on(many[1:]), many[1:2])

    def test_what_is_gone_is_forgotten(self) -> None:
        """However many come and go while they are padded."""
        self.more(2, 1)
        for number in range(3, 300):
            (one,) = self.more(number, 1)
            self.warmth.spend(one, 1000)
            self.warmth.lost(one)
        self.assertEqual(len(self.warmth._openings[0].begun), 0)
        self.warmth.lost(self.subflow)
        self.warmth.lost(self.warmth.padding[2])
        self.assertEqual((self.warmth.padding, self.warmth._openings), ({}, {}))

    def test_not_where_it_is_to_be_closed(self) -> None:
        """Nothing is to go there any more; nor once it is cold, whatever its state."""
        self.subflow.life.drain()
        self.warmth.settle(1, 100.2)
        self.assertEqual(self.warmth.padding, {})
        doubtful = self.begun(0.04)
        doubtful.life.state = State.SUSPECT
        self.warmth.settle(1, 160.0 - 1e-3)
        self.assertEqual(sorted(self.warmth.padding), [1])
        self.warmth.settle(1, 160.0)
        self.assertEqual(self.warmth.padding, {})

    def test_what_moved_long_ago_is_no_use(self) -> None:
        """Of one that joins when nobody has looked for long; nor is little a second."""
        for ago, begins in ((0.5, False), (1.9, False), (2.1, True), (20.0, True)):
            warmth = Warmth(LIMITS, 100.0, self.told.append)
            warmth.watch(1, {}, 109.0)
            warmth.watch(MIB, {}, 110.0)
            subflow = Subflow(1, LIMITS, 100.0, 0.04)
            warmth.joined(subflow, MIB, 110.0 + ago)
            self.assertEqual(bool(warmth.padding), begins, ago)
        for span, begins in ((1.0, False), (20.0, True)):
            warmth = Warmth(LIMITS, 100.0, self.told.append)
            warmth.watch(200_000, {}, 100.0 + span)
            warmth.joined(Subflow(1, LIMITS, 100.0, 0.04), 200_000, 100.5 + span)
            self.assertEqual(bool(warmth.padding), begins, span)
        for ago, begins in ((1.0, False), (5.0, False), (23.0, True)):
            warmth = Warmth(LIMITS, 100.0, self.told.append)
            warmth.watch(1, {}, 110.0)
            warmth.joined(Subflow(1, LIMITS, 100.0, 0.04), MIB, 110.0 + ago)
            self.assertEqual(bool(warmth.padding), begins, ago)

    def test_not_while_it_is_in_doubt(self) -> None:
        """But afterwards."""
        self.subflow.life.state = State.SUSPECT
        self.assertEqual(self.pad(self.subflow, 100.2), 0)
        self.subflow.life.state = State.ACTIVE
        self.assertGreater(self.pad(self.subflow, 100.2), 0)

    def test_off(self) -> None:
        """Nothing at all."""
        self.warmth = Warmth(Limits(prewarm=0), 100.0, self.told.append)
        subflow = self.begun(0.04)
        self.warmth.watch(7, {1: subflow}, 100.1)
        self.assertEqual(self.pad(subflow, 100.1), 0)
        self.assertEqual(self.warmth.tick_at(subflow), NEVER)

    def test_cold_after_a_while(self) -> None:
        """Held for a minute after use; the first use after that opens it again."""
        self.pad(self.subflow, 100.1)
        self.warmth.watch(1, {1: self.subflow}, 130.0)
        self.assertEqual(self.warmth.until, 190.0)
        self.warmth.watch(1, {1: self.subflow}, 189.0)
        self.assertEqual(self.warmth.until, 190.0)
        self.assertEqual(self.pad(self.subflow, 189.0), 0)
        self.warmth.watch(2, {1: self.subflow}, 250.0)
        self.assertGreater(self.pad(self.subflow, 250.0), 500 * KIB)

    def test_ticks(self) -> None:
        """A PING 0.12 s after the last byte, until it gets cold; none where none is needed."""
        self.grow(self.subflow)
        self.assertAlmostEqual(self.warmth.tick_at(self.subflow), 102.12)
        self.warmth.tick(self.subflow, 102.12)
        self.assertEqual(len(self.subflow.take_owed(102.12)), 1)
        self.assertAlmostEqual(self.warmth.tick_at(self.subflow), 102.24)
        self.subflow.wrote_at = 160.0
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)
        self.subflow.wrote_at, self.subflow.window_decays = 101.0, False
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)

    def grow(self, subflow: Subflow, rate: float = 2e6, since: float = 101.0) -> None:
        """It carries something for a second."""
        for tenth in range(10):
            subflow.wrote(int(rate / 10), None, since + tenth / 10)
            subflow.acked(subflow.ledger.written - 1, None, since + (tenth + 1) / 10)
        subflow.wrote_at = since + 1

    def test_no_ticks_for_a_window_as_small_as_at_first(self) -> None:
        """Nothing was opened, or the line held no more however much has gone over it."""
        self.subflow.wrote_at = 102.0
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)
        self.grow(self.subflow, 50e3)
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)

    def test_ticks_whatever_little_it_carries(self) -> None:
        """That it was given little for a while says nothing of the line."""
        self.grow(self.subflow)
        rate = self.subflow.pace.rate
        self.grow(self.subflow, 50e3, 102.0)
        self.assertLess(self.subflow.pace.rate, rate / 10)
        self.assertLess(self.warmth.tick_at(self.subflow), NEVER)
        self.warmth.begin(self.subflow, 103.0)
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)

    def test_no_ticks_where_packets_get_lost(self) -> None:
        """Each that gets lost would halve the window that it is to hold open."""
        self.grow(self.subflow)
        self.warmth.lost_packets(self.subflow, 101.0)
        self.assertEqual(self.warmth.tick_at(self.subflow), NEVER)

    def test_a_full_queue_is_no_loss(self) -> None:
        """Where hundreds of packets have arrived before the first that did not."""
        second, third = self.more(2, 2)
        self.pad(self.subflow, 100.1, 2)
        second.wrote(200 * KIB, None, 100.2)
        self.warmth.spend(second, 200 * KIB)
        self.assertEqual(sorted(self.warmth.padding), [2, 3])
        second.ledger.acked = second.ledger.written
        self.warmth.lost_packets(third, 100.2)
        self.assertEqual(sorted(self.warmth.padding), [2, 3])

    def test_what_never_arrived_is_no_proof(self) -> None:
        """However much filler was written."""
        self.more(2, 2)
        self.subflow.wrote(480 * KIB, None, 100.1)
        self.warmth.spend(self.subflow, 480 * KIB)
        self.warmth.lost_packets(self.subflow, 100.2)
        self.assertEqual(self.warmth.padding, {})

    def test_filler_of_before_is_no_proof(self) -> None:
        """Counted anew once all of a path have had theirs."""
        self.pad(self.subflow, 100.1)
        self.warmth.begin(self.subflow, 200.0)
        self.warmth.lost_packets(self.subflow, 200.0)
        self.assertEqual(self.warmth.padding, {})

    def test_budget(self) -> None:
        """Four MiB at once, then 6 kB a second and a tenth of the payload."""
        moved, spent = 0, 0
        for _ in range(20):
            self.warmth.begin(self.subflow, 100.0)
            spent += self.pad(self.subflow, 100.0)
        self.assertTrue(4 * MIB - 16 * KIB < spent <= 4 * MIB, spent)
        self.warmth.begin(self.subflow, 100.0)
        self.assertLessEqual(self.pad(self.subflow, 110.0), 60_000)
        for _ in range(10):
            moved += 1_000_000
            self.warmth.watch(moved, {1: self.subflow}, 110.0)
        self.warmth.begin(self.subflow, 100.0)
        self.assertTrue(500 * KIB < self.pad(self.subflow, 110.0) <= 512 * KIB)
        self.warmth.spend(self.subflow, 4 * MIB)
        self.warmth.tick(self.subflow, 110.0)
        self.assertEqual(self.subflow.take_owed(110.0), [])


class PaddedSessionTests(EngineCase):
    """Two sessions with padding."""

    def padded(self, rate: float = 2e6, delay: float = 0.02) -> Pair:
        """Four subflows, a second after they came up."""
        pair = Pair(LIMITS)
        pair.add_many(4, rate, delay)
        pair.run(1)
        return pair

    def dummy(self, pair: Pair) -> tuple[int, int, int]:
        """Filler written by the dialer, seen by the acceptor, and first bytes."""
        sent = pair.a.session._subflows.alive.values()
        seen = pair.b.session._subflows.alive.values()
        return (
            sum(one.tx.pad for one in sent),
            sum(one.rx.pad for one in seen),
            sum(one.tx.first + one.rx.first for one in (*sent, *seen)),
        )

    def test_counted_apart_at_both_ends(self) -> None:
        """The session's share, all of it acknowledged, and nothing of it is payload."""
        pair = self.padded()
        sent, seen, first = self.dummy(pair)
        self.assertTrue(500 * KIB < sent <= 512 * KIB, sent)
        self.assertEqual((seen, first), (sent, 0))
        pair.run(20)
        self.assertEqual(self.dummy(pair), (sent, seen, 0))
        self.assertEqual(self.dead(pair.a) + self.dead(pair.b), [])

    def test_payload_goes_first(self) -> None:
        """Filler holds a stream up by no more than what is already under way."""
        pair = Pair(LIMITS)
        pair.add_many(4, 2e6, 0.02)
        pair.run(0.13)
        before = pair.heap.now
        stream_id = self.opened(pair)
        self.assertLess(pair.heap.now - before, 0.04 + 0.02)
        self.assertGreater(self.dummy(pair)[0], 100 * KIB)
        self.send(pair.a, stream_id, 2_000_000)
        self.assertLess(self.wait(pair, pair.b, stream_id), 2e6 / 8e6 + 0.05)

    def test_a_slow_line_is_spared(self) -> None:
        """Where filler would stand in the way for seconds, it ends at the first queue."""
        pair = Pair(LIMITS)
        pair.add_many(4, 20e3, 0.05)
        pair.run(1)
        self.assertLess(self.dummy(pair)[0], 16 * KIB)

    def test_a_slow_line_is_spared_each_time(self) -> None:
        """When it gets cold, what was known of the line is forgotten."""
        pair = Pair(LIMITS)
        lines = pair.add_many(4, 2e6, 0.05)
        pair.run(200)
        before, _, _ = self.dummy(pair)
        for line in lines:
            for pipe in pair.subflows[line]:
                pipe.rate = 20e3
        self.opened(pair)
        pair.run(1)
        self.assertLess(self.dummy(pair)[0] - before, 32 * KIB)

    def test_the_first_is_in_trouble(self) -> None:
        """Then another goes first."""
        pair = Pair(LIMITS)
        first = pair.add(2e6, 0.02)
        pair.stall(first)
        pair.run(0.4)
        pair.add_many(3, 2e6, 0.02)
        pair.run(0.4)
        self.assertGreater(self.dummy(pair)[0], 100 * KIB)

    def test_not_in_the_midst_of_use(self) -> None:
        """One that joins while much is carried has no need of filler, either way."""
        pair = Pair(LIMITS)
        pair.add(2e6, 0.02)
        pair.run(1)
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 3_000_000)
        pair.run(1.2)
        before = self.dummy(pair)[0]
        late = pair.add(2e6, 0.02)
        self.wait(pair, pair.b, stream_id)
        for end in (pair.a, pair.b):
            self.assertEqual(end.session._subflows.alive[late].tx.pad, 0)
        self.assertEqual(self.dummy(pair)[0], before)

    def test_another_path_is_padded_all_the_same(self) -> None:
        """One that is slow says nothing of one that is not, whichever has the longer way."""
        for slow_delay, delay in ((0.2, 0.02), (0.02, 0.2)):
            pair = Pair(LIMITS)
            for rate, one_way, number in ((20e3, slow_delay, 0), (2e6, delay, 1)) * 2:
                pair.add(rate, one_way, path=PathInfo(number))
            pair.run(4)
            self.assertGreater(self.dummy(pair)[0], 200 * KIB, delay)

    def test_connections_come_and_go(self) -> None:
        """Of those that die in the midst of their filler nothing is left."""
        pair = Pair(LIMITS)
        for _ in range(10):
            lost = pair.add(2e6, 0.02)
            pair.run(0.05)
            pair.cut(lost)
        for end in (pair.a, pair.b):
            warmth = end.session._warmth
            self.assertEqual((warmth.padding, warmth._openings), ({}, {}))

    def test_once_more_after_a_pause(self) -> None:
        """The first stream after a cold time has the windows opened again."""
        pair = self.padded()
        before, _, _ = self.dummy(pair)
        pair.run(200)
        self.assertEqual(self.dummy(pair)[0], before)
        self.opened(pair)
        pair.run(1)
        self.assertGreater(self.dummy(pair)[0], before + 500 * KIB)
