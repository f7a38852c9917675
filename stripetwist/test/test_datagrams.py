"""L{stripetwist.core.datagrams} and L{stripetwist.core.flow}: what waits, leaves, is dropped."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.config import KIB, Limits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.datagrams import Datagrams
from stripetwist.core.flow import Seen
from stripetwist.core.frames import FrameParser
from stripetwist.core.subflow import Subflow
from stripetwist.core.target import Target

PEER = Target.of("192.0.2.7", 53)
NOTHING = {"old": 0, "overflow": 0, "late": 0, "duplicate": 0}
NOW = 50.0


class SeenTests(SynchronousTestCase):
    """Which numbers have come."""

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 3000) | st.integers(0, 2**64 - 1), max_size=40))
    def test_as_a_set_would(self, numbers: list[int]) -> None:
        """Once each, unless they lie too far behind the highest."""
        seen, came, highest = Seen(), set[int](), -1
        for number in numbers:
            new = number not in came and number > highest - 1024
            self.assertEqual(seen.is_new(number), new, number)
            came.add(number)
            highest = max(highest, number)

    def test_the_edge(self) -> None:
        """1,024 numbers are known, the highest among them."""
        seen = Seen()
        self.assertTrue(seen.is_new(2000))
        self.assertFalse(seen.is_new(2000 - 1024))
        self.assertTrue(seen.is_new(2000 - 1023))
        self.assertFalse(seen.is_new(2000 - 1023))


class DatagramsTests(SynchronousTestCase):
    """A session's datagrams, of one flow where nothing else is said."""

    limits = Limits()

    def setUp(self) -> None:
        self.datagrams = Datagrams(self.limits, MemoryBudget(self.limits))
        self.datagrams.add(1, 1)
        self.subflows = {i: Subflow(i, self.limits, NOW, 0.02 * i) for i in (1, 2, 3)}

    def route(self, now: float, *ids: int) -> None:
        """Choose among these subflows."""
        self.datagrams.route([(self.subflows[i], 0.0, 0.0) for i in ids], now)

    def put(self, *payloads: bytes, stream_id: int = 1, now: float = NOW) -> None:
        """They are to be sent."""
        for payload in payloads:
            self.datagrams.put(stream_id, payload, None, now)

    def leave(self, subflow_id: int, now: float = NOW) -> list[bytes]:
        """What leaves on a subflow."""
        out: list[bytes] = []
        while (datagram := self.datagrams.take(subflow_id, now)) is not None:
            self.subflows[subflow_id].put_datagram(datagram, out, now, False)
        return [b"".join(frame[5]) for frame in FrameParser().feed(b"".join(out))]

    def dropped(self, **some: int) -> None:
        """That many were, by reason, and no others."""
        self.assertEqual(self.datagrams.dropped, {**NOTHING, **some})

    def test_the_nearest(self) -> None:
        """They leave in order, on the subflow with the shortest way."""
        self.put(b"a", b"b", b"c")
        self.route(NOW, 3, 1, 2)
        self.assertEqual(list(self.datagrams.routed), [1])
        self.assertEqual(self.leave(1), [b"a", b"b", b"c"])
        self.route(NOW, 3, 1, 2)
        self.assertEqual((self.datagrams.waits, self.datagrams.drop_at), (False, NEVER))

    def test_what_is_ahead_counts(self) -> None:
        """One with much on it is passed over, and gone back to when it is far better again."""
        self.subflows[1].wrote(30 * KIB, None, NOW)
        self.put(b"a")
        self.route(NOW, 1, 2)
        self.assertEqual(self.leave(2), [b"a"])
        self.subflows[1].acked(30 * KIB, 0.0, NOW + 0.02)
        self.put(b"b")
        self.route(NOW, 1, 2)
        self.assertEqual(self.leave(1), [b"b"])

    def test_stays(self) -> None:
        """Another that is a little better changes nothing."""
        self.put(b"a")
        self.route(NOW, 3)
        self.leave(3)
        self.put(b"b")
        self.subflows[2] = Subflow(2, self.limits, NOW, 0.05)
        self.route(NOW, 2, 3)
        self.assertEqual(self.leave(3), [b"b"])
        self.put(b"c")
        self.route(NOW, 1, 3)
        self.assertEqual(self.leave(1), [b"c"])

    def test_too_old(self) -> None:
        """What could not leave in time never does, and one moment says when that is."""
        self.put(b"a")
        self.put(b"b", now=NOW + 0.06)
        self.assertEqual(self.datagrams.drop_at, NOW + 0.1)
        self.route(NOW + 0.05)
        self.assertEqual(self.datagrams.drop_at, NOW + 0.1)
        self.route(NOW + 0.1)
        self.dropped(old=1)
        self.assertEqual(self.datagrams.drop_at, NOW + 0.06 + 0.1)
        self.route(NOW + 0.15, 1)
        self.assertEqual(self.leave(1, NOW + 0.17), [])
        self.dropped(old=2)

    def test_too_many(self) -> None:
        """The newest 64 are kept."""
        self.put(*[b"%d" % i for i in range(70)])
        self.dropped(overflow=6)
        self.route(NOW, 1)
        self.assertEqual(self.leave(1), [b"%d" % i for i in range(6, 70)])

    def test_too_large(self) -> None:
        """The newest 256 KiB are kept; more than UDP carries is no datagram."""
        self.put(*[bytes([i]) * 60_000 for i in range(6)], bytes(65_508))
        self.route(NOW, 1)
        self.assertEqual([one[0] for one in self.leave(1)], [2, 3, 4, 5])
        self.dropped(overflow=3)

    def test_too_many_flows(self) -> None:
        """Of all flows the oldest one goes once they hold too much together."""
        self.limits = replace(self.limits, datagram_bytes_all=10 * 1020)
        self.setUp()
        self.datagrams.add(3, 1)
        self.put(*[b"a" * 1000] * 2)
        self.put(*[b"b" * 1000] * 9, stream_id=3, now=NOW + 0.01)
        self.dropped(overflow=1)
        self.put(*[b"c" * 1000] * 2, stream_id=3, now=NOW + 0.02)
        self.route(NOW + 0.03, 1)
        self.assertEqual([one[:1] for one in self.leave(1)], [b"b"] * 8 + [b"c"] * 2)

    def test_many_sessions(self) -> None:
        """All of a process hold a sixteenth of its memory; whoever comes later finds some left."""
        budget = MemoryBudget(replace(self.limits, max_memory=16 * 16 * 1020))
        every = [Datagrams(self.limits, budget) for _ in range(3)]
        for datagrams in every:
            datagrams.add(1, 1)
            for _ in range(20):
                datagrams.put(1, bytes(1000), None, NOW)
        dropped = [datagrams.dropped["overflow"] for datagrams in every]
        self.assertEqual((dropped, budget.datagrams), ([12, 16, 18], 14 * 1020))
        for datagrams in every:
            datagrams.forget(1)
        self.assertEqual(budget.datagrams, 0)

    def test_too_late(self) -> None:
        """Where all are so busy that it would come too late it is dropped at once."""
        for subflow in self.subflows.values():
            subflow.wrote(200 * KIB, None, NOW)
        self.put(b"a")
        self.route(NOW, 1, 2, 3)
        self.dropped(late=1)
        self.assertEqual(self.leave(1), [])

    def test_flows_take_turns(self) -> None:
        """None waits until another has sent all."""
        self.datagrams.add(3, 1)
        self.put(b"a", b"b", b"c")
        self.put(b"1", b"2", stream_id=3)
        self.route(NOW, 1)
        self.assertEqual(self.leave(1), [b"a", b"1", b"b", b"2", b"c"])

    def test_copies(self) -> None:
        """The second goes on another path, though that is longer; once each."""
        self.datagrams.add(3, 2)
        self.subflows[3].path = 7
        self.put(b"a", stream_id=3)
        self.route(NOW, 1, 2, 3)
        self.assertEqual((self.leave(1), self.leave(2), self.leave(3)), ([b"a"], [], [b"a"]))
        traffic = [self.subflows[i].tx for i in (1, 3)]
        self.assertEqual([(one.first, one.copy) for one in traffic], [(1, 0), (0, 1)])
        self.assertEqual(self.datagrams.counters["sent"], 1)

    def test_copies_on_one_path(self) -> None:
        """Another subflow is the next best."""
        self.datagrams.add(3, 2)
        self.put(b"a", stream_id=3)
        self.route(NOW, 1, 2, 3)
        self.assertEqual((self.leave(1), self.leave(2), self.leave(3)), ([b"a"], [b"a"], []))

    def test_copies_on_one_subflow(self) -> None:
        """One will do."""
        self.datagrams.add(3, 2)
        self.put(b"a", stream_id=3)
        self.route(NOW, 1)
        self.assertEqual(self.leave(1), [b"a"])
        self.route(NOW, 1)
        self.assertEqual((self.datagrams.waits, self.datagrams._held), (False, 0))
        self.dropped()

    def test_a_copy_that_was_on_the_dead(self) -> None:
        """What is left of two ways takes the other copy too."""
        self.datagrams.add(3, 2)
        self.put(b"a", stream_id=3)
        self.route(NOW, 1, 2)
        self.leave(1)
        self.route(NOW, 2)
        self.assertEqual(self.leave(2), [b"a"])

    def test_an_association_ends(self) -> None:
        """Nothing of it is left, nothing is due."""
        self.put(b"a")
        self.route(NOW, 1)
        self.datagrams.forget(1)
        self.assertEqual((self.datagrams.routed, self.datagrams._held), ({}, 0))
        self.assertEqual((self.datagrams.waits, self.datagrams.drop_at), (False, NEVER))
        self.put(b"b")
        self.assertFalse(self.datagrams.waits)
        self.assertFalse(self.datagrams.is_new(1, 0))

    def test_it_names_its_peer(self) -> None:
        """In the frame, ahead of what it carries."""
        self.datagrams.put(1, b"x", PEER, NOW)
        self.route(NOW, 1)
        out: list[bytes] = []
        datagram = self.datagrams.take(1, NOW)
        assert datagram is not None
        self.subflows[1].put_datagram(datagram, out, NOW, False)
        (frame,) = FrameParser().feed(b"".join(out))
        self.assertEqual(frames.parse_datagram(frame[1], b"".join(frame[5])), (b"x", PEER))


class ShareTests(SynchronousTestCase):
    """What a subflow leaves to streams."""

    def test_a_fifth(self) -> None:
        """Of all that goes onto it while both wait; the first 16 KiB are free."""
        subflow = Subflow(1, Limits(), NOW, 0.02)
        datagrams = Datagrams(Limits(), MemoryBudget(Limits()))
        datagrams.add(1, 1)
        told = 0
        for _ in range(400):
            if subflow.datagram_share() > 0:
                datagrams.put(1, bytes(980), None, NOW)
                datagrams.route([(subflow, 0.0, 0.0)], NOW)
                if (datagram := datagrams.take(1, NOW)) is not None:
                    subflow.put_datagram(datagram, [], NOW, True)
                    told += 1000
            else:
                subflow.wrote(1000, None, NOW)
            subflow.acked(subflow.ledger.written, 0.0, NOW)
        self.assertLess(abs(told - 16 * KIB - 400_000 / 5), 2000)
        self.assertLess(subflow.streams_first(), 5000)


class RateTests(SynchronousTestCase):
    """What datagrams alone say of a subflow."""

    def carried(self, size: int, seconds: float) -> Subflow:
        """One that has carried datagrams of 1,000 bytes, evenly, and has them acknowledged."""
        subflow = Subflow(1, Limits(), NOW, 0.2)
        datagrams = Datagrams(Limits(), MemoryBudget(Limits()))
        datagrams.add(1, 1)
        count = size // 1000
        for number in range(count):
            now = NOW + seconds * number / count
            datagrams.put(1, bytes(980), None, now)
            datagrams.route([(subflow, 0.0, 0.0)], now)
            datagram = datagrams.take(1, now)
            assert datagram is not None
            subflow.put_datagram(datagram, [], now, False)
            if number > count // 10:
                subflow.acked((number - count // 10) * 1000, 0.0, now)
        return subflow

    def test_few_are_no_sign_of_a_slow_one(self) -> None:
        """They come at a rate of their own."""
        subflow = self.carried(20_000, 2.0)
        self.assertTrue(0 < subflow.pace.rate < 12e3)
        self.assertFalse(subflow.pace.is_slow(NOW + 2))
        self.assertEqual(subflow.pace.batch, Limits().batch_first)

    def test_before_its_rate_is_known(self) -> None:
        """It is taken to have doubled its window as TCP does, else it would never be known."""
        subflow = self.carried(14_000, 0.1)
        self.assertEqual(subflow.pace.rate, 0)
        self.assertEqual(subflow.pace.queued_for(20_000), 0)
        self.assertGreater(subflow.pace.queued_for(40_000), 0)
