"""L{stripetwist.core.carrying}: which subflows may carry what, now."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow
from stripetwist.core.outbox import Outbox
from stripetwist.core.path import PathInfo
from stripetwist.core.stream import Stream
from stripetwist.core.subflow import Subflow
from stripetwist.core.subflows import Subflows
from stripetwist.core.traits import Traits
from stripetwist.core.warmth import Warmth
from stripetwist.core.way import PathRole

LIMITS = Limits(prewarm=0)


class CarryingTests(SynchronousTestCase):
    """Of three subflows, which get what there is."""

    def setUp(self) -> None:
        """Three subflows."""
        self.outbox = Outbox(LIMITS)
        self.subflows = Subflows(self.outbox, LIMITS, Warmth(LIMITS, 100.0, lambda event: None))
        self.carrying = self.subflows.carrying
        self.three = [Subflow(i, LIMITS, 100.0, 0.01 * i) for i in (1, 2, 3)]
        for subflow in self.three:
            self.subflows.add(subflow)

    def test_slow_is_who_is_slow_beside_each_of_the_others(self) -> None:
        """A small share of many is no reason to rest: on a lossy line all are slow by turns."""
        for number in range(4, 33):
            self.subflows.add(Subflow(number, LIMITS, 100.0, 0.1))
        for subflow in self.subflows.alive.values():
            subflow.pace.rate, subflow.pace._rated_at = 150e3, 100.0
        one = self.subflows.alive[32]
        for rate, carries in ((50e3, True), (8e3, True), (7e3, False)):
            one.pace.rate = rate
            self.assertEqual(self.carrying.carries(one, 100.0), carries, rate)

    def test_much_waits_behind_a_proxy(self) -> None:
        """It takes nothing new meanwhile, unless as much waits on all of the others."""
        for subflow in self.three:
            subflow.pace.rate = 1e6
        slow = self.three[2]
        self.come_late(slow)
        for size, takes in ((200_000, True), (200_000, False)):
            slow.wrote(size, None, 100.0)
            self.assertEqual(self.carrying.takes_new(slow), takes)
        self.assertTrue(self.carrying.takes_new(self.three[0]))
        for subflow in self.three[:2]:
            self.come_late(subflow)
            subflow.wrote(400_000, None, 100.0)
        self.assertTrue(self.carrying.takes_new(slow))
        slow.acked(400_000, None, 101.0)
        self.assertTrue(self.carrying.takes_new(slow))

    def come_late(self, subflow: Subflow) -> None:
        """What was written of late came through a queue."""
        least = subflow.rtt.minimum or 0.0
        for _ in range(3):
            subflow.rtt.sample(1.5 * least + 0.005, 100.0)

    def test_much_is_in_flight_behind_a_lost_packet(self) -> None:
        """Or in a window that has grown since it was measured: nothing waits, nothing is late."""
        subflow = self.three[2]
        for other in self.three:
            other.pace.rate = 1e6
        subflow.wrote(400_000, None, 100.0)
        self.assertTrue(self.carrying.takes_new(subflow))
        self.come_late(subflow)
        self.assertFalse(self.carrying.takes_new(subflow))
        # One answer in time, and there was no queue.
        subflow.rtt.sample(subflow.rtt.minimum or 0.0, 100.0)
        self.assertTrue(self.carrying.takes_new(subflow))

    def test_the_quickest_is_asked_first(self) -> None:
        """Control has no time to lose."""
        self.outbox.put(b"x" * 20)
        self.assertEqual(list(self.carrying.pollable(100.0)), [1, 2, 3])
        self.three[0].suspect(100.0)
        self.three[0].take_owed(100.0)
        self.assertEqual(list(self.carrying.pollable(100.0)), [2, 3])

    def stream_with(self, size: int) -> None:
        """A stream that has so much to send."""
        stream = Stream(7, True, size, ReceiveWindow(0, MemoryBudget(LIMITS), LIMITS))
        stream.send.write(bytes(size))
        self.outbox.ready(stream)

    def test_frames_are_as_long_as_any_subflow_takes_over(self) -> None:
        """And the peer: where one is slow or may carry little, nothing long is cut."""
        longest = Subflows(self.outbox, LIMITS, self.subflows._warmth, 262_144)
        self.assertEqual((longest.carrying.longest, self.carrying.longest), (262_144, 65_536))
        for subflow in self.three:
            subflow.pace.rate = 9e6
            longest.add(subflow)
        self.assertEqual(longest.carrying.longest, 262_144)
        self.three[1].pace.rate = 1e6
        self.assertEqual(longest.carrying.longest, 65_536)
        longest.remove(2)
        self.assertEqual(longest.carrying.longest, 262_144)
        longest.paths.limit(0, 1_000_000, 100.0)
        self.assertEqual(longest.carrying.longest, 65_536)

    def test_of_near_ones_the_fastest_is_asked_first(self) -> None:
        """With much to do where round trips are next to nothing few carry what they can."""
        for number, rate in ((4, 1e6), (5, 3e6), (6, 2e6)):
            near = Subflow(number, LIMITS, 100.0, 0.001 * (7 - number))
            near.pace.rate = rate
            self.subflows.add(near)
        self.outbox.put(b"x" * 20)
        self.assertEqual(list(self.carrying.pollable(100.0)), [6, 5, 4, 1, 2, 3])
        for size, order in ((1000, [6, 5, 4, 1, 2, 3]), (100_000, [5, 6, 4, 1, 2, 3])):
            self.outbox.clear()
            self.stream_with(size)
            self.assertEqual(list(self.carrying.pollable(100.0)), order)

    def asked(self) -> list[int]:
        """Who owes a PING once the first of those polled has taken all that there was."""
        for _ in self.carrying.pollable(102.0):
            self.outbox.clear()
        return [s.subflow_id for s in self.subflows.alive.values() if s.take_owed(102.0)]

    def test_who_is_passed_over_is_asked(self) -> None:
        """For a round trip that seems long, where there was something to carry, if it may."""
        backup = Traits(path=PathInfo(1, PathRole.BACKUP))
        limited = Traits(path=PathInfo(2, PathRole.PRIMARY, 10_000_000))
        for number, traits in ((4, Traits()), (5, backup), (6, limited)):
            self.subflows.add(Subflow(number, LIMITS, 100.0, 0.1, traits))
        self.carrying.look()
        self.outbox.put(b"x" * 20)
        self.assertEqual(self.asked(), [])
        self.stream_with(1000)
        self.assertEqual(self.asked(), [4])

    def test_who_is_not_passed_over_is_not_asked(self) -> None:
        """It carries some of what there is: that will measure it."""
        self.subflows.add(Subflow(4, LIMITS, 100.0, 0.1))
        self.carrying.look()
        self.stream_with(1_000_000)
        self.assertEqual(list(self.carrying.pollable(102.0)), [1, 2, 3, 4])
        self.assertEqual(self.subflows.alive[4].take_owed(102.0), [])

    def test_nothing_to_write_nobody_to_poll(self) -> None:
        """No busy loop."""
        self.assertEqual(list(self.carrying.pollable(100.0)), [])
        self.outbox.put(b"x" * 20)
        for subflow in self.three:
            subflow.since_drain = 20_000
        self.assertEqual(list(self.carrying.pollable(100.0)), [])
