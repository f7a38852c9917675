"""Which paths one connection fills, and how that is found out."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.liveness import State
from stripetwist.core.path import PathInfo
from stripetwist.core.progress import KernelView
from stripetwist.core.slow import SlowPaths, Stage
from stripetwist.core.subflow import Subflow
from stripetwist.core.traits import Traits

LIMITS = Limits()
# 16 kB/s, 200 ms, and a queue.
FULL = KernelView(rtt=0.4, least=0.2, rate=16e3)


class SlowCase(SynchronousTestCase):
    """A session's subflows on one path, or more."""

    def setUp(self) -> None:
        """Four of them."""
        self.now = 100.0
        self.alive: dict[int, Subflow] = {}
        self.healthy: set[int] = set()
        self.slow = SlowPaths(LIMITS, self.alive, self.healthy)
        for number in range(1, 5):
            self.add(number)

    def add(self, number: int, path: int = 0) -> Subflow:
        """One more."""
        traits = Traits(path=PathInfo(path))
        subflow = self.alive[number] = Subflow(number, LIMITS, self.now, 0.2, traits)
        self.healthy.add(number)
        self.slow.changed(0)
        return subflow

    def stage(self, path: int = 0) -> Stage | None:
        """What is known of a path."""
        trial = self.slow.paths.get(path)
        return None if trial is None else trial.stage

    def carry(self, seconds: float, *numbers: int, rate: float = 2000.0, busy: bool = True) -> None:
        """So many bytes per second go over each of some subflows, and arrive."""
        for _ in range(round(seconds)):
            self.now += 1.0
            for number in numbers:
                subflow = self.alive[number]
                subflow.wrote(int(rate), None, self.now)
                subflow.acked(subflow.ledger.written, None, self.now)
                self.slow.delivered(subflow, busy, self.now)

    def resting(self) -> list[int]:
        """Those that get no stream bytes."""
        rests, is_full = self.slow.rests, self.slow.is_full
        return [i for i, subflow in self.alive.items() if rests(subflow) or is_full(subflow)]

    def patient(self) -> list[bool]:
        """Which of them may be without progress for long."""
        return [subflow.life.is_patient for subflow in self.alive.values()]


class SeenTests(SlowCase):
    """What makes a path one to be tried."""

    def test_a_small_line_with_a_queue(self) -> None:
        """All carry for now, with patience."""
        self.slow.seen(self.alive[2], FULL, self.now)
        self.assertIs(self.stage(), Stage.ALL)
        self.assertEqual(self.resting(), [])
        self.assertEqual(self.patient(), [True] * 4)

    def test_what_does_not(self) -> None:
        """No queue; a line that holds more; no more to send; what the others carry; a near one."""
        for view in (
            KernelView(rtt=0.22, least=0.2, rate=16e3),
            KernelView(rtt=0.6, least=0.2, rate=40e3),
            KernelView(rtt=0.2, least=0.02, rate=120e3),
            KernelView(rtt=0.4, least=0.2, rate=0),
        ):
            self.slow.seen(self.alive[1], view, self.now)
            self.assertIs(self.stage(), None, view)
        for number in (2, 3, 4):
            self.alive[number].pace.rate = 16e3
        self.slow.seen(self.alive[1], FULL, self.now)
        self.assertIs(self.stage(), None)
        near = self.alive[1]
        near.rtt.sample(0.001, self.now)
        self.alive[2].pace.rate = self.alive[3].pace.rate = self.alive[4].pace.rate = 0.0
        self.slow.seen(near, FULL, self.now)
        self.assertIs(self.stage(), None)

    def test_a_queue_that_has_stood_for_long(self) -> None:
        """The kernel forgets what the least was; that is known until the path goes."""
        subflow = self.alive[1]
        self.slow.seen(subflow, KernelView(rtt=0.2, least=0.2, rate=0), self.now)
        old = KernelView(rtt=1.0, least=0.9, rate=16e3)
        self.slow.seen(subflow, old, self.now)
        self.assertIs(self.stage(), Stage.ALL)
        self.slow.forget(0)
        self.slow.seen(subflow, old, self.now)
        self.assertIs(self.stage(), None)

    def test_the_way_to_a_relay(self) -> None:
        """What its kernel says of that is nothing of the path."""
        self.slow.seen(self.alive[1], KernelView(rtt=0.03, least=0.01, rate=16e3), self.now)
        self.assertIs(self.stage(), None)

    def test_one_alone_needs_no_trial(self) -> None:
        """It carries whatever there is."""
        for number in (2, 3, 4):
            del self.alive[number]
        self.slow.seen(self.alive[1], FULL, self.now)
        self.assertIs(self.stage(), None)

    def test_when_to_ask(self) -> None:
        """Once it is known to be slow, until the path is being tried."""
        subflow = self.alive[1]
        self.assertFalse(self.slow.is_in_question(subflow))
        subflow.pace.rate = LIMITS.slow_below
        self.assertFalse(self.slow.is_in_question(subflow))
        subflow.pace.rate = 5e3
        self.assertTrue(self.slow.is_in_question(subflow))
        self.slow.seen(subflow, FULL, self.now)
        self.assertFalse(self.slow.is_in_question(subflow))


class TrialTests(SlowCase):
    """All carry, then one."""

    def setUp(self) -> None:
        """Its path is slow."""
        super().setUp()
        self.slow.seen(self.alive[1], FULL, self.now)

    def to_one(self) -> None:
        """All were measured."""
        self.carry(LIMITS.slow_span + 2, 1, 2, 3, 4)
        self.assertIs(self.stage(), Stage.ONE)

    def test_little_is_bound_to_each(self) -> None:
        """What waits on one holds up what is on others."""
        self.alive[3].wrote(10_000, None, self.now)
        self.assertEqual(self.resting(), [3])

    def test_one_does_as_well(self) -> None:
        """It goes on alone; the others wait, in case."""
        self.alive[2].pace.rate = 5e3
        self.to_one()
        self.assertEqual(self.resting(), [1, 3, 4])
        self.carry(LIMITS.slow_span + 2, 2, rate=8000)
        self.assertIs(self.stage(), Stage.SOLE)
        self.assertEqual(self.resting(), [1, 3, 4])
        self.assertEqual(self.patient(), [True] * 4)

    def test_how_well_is_as_well(self) -> None:
        """Six tenths: what two seconds show is rough, and several times as much is not."""
        for part, stage in ((0.55, Stage.SEVERAL), (0.65, Stage.SOLE)):
            self.slow.forget(0)
            self.slow.seen(self.alive[1], FULL, self.now)
            self.to_one()
            carrier = ({1, 2, 3, 4} - set(self.resting())).pop()
            self.carry(LIMITS.slow_span + 2, carrier, rate=8000 * part)
            self.assertIs(self.stage(), stage)

    def test_all_do_better(self) -> None:
        """So all carry again, as if nothing had been."""
        self.to_one()
        carrier = ({1, 2, 3, 4} - set(self.resting())).pop()
        self.carry(LIMITS.slow_span + 2, carrier)
        self.assertIs(self.stage(), Stage.SEVERAL)
        self.assertEqual(self.resting(), [])
        self.assertEqual(self.patient(), [False] * 4)
        self.slow.seen(self.alive[1], FULL, self.now)
        self.assertIs(self.stage(), Stage.SEVERAL)

    def test_found_out_again(self) -> None:
        """After some minutes; later where all did better."""
        for rate, later in ((8000.0, LIMITS.slow_for), (2000.0, 2 * LIMITS.slow_for)):
            self.slow.seen(self.alive[1], FULL, self.now)
            self.to_one()
            carrier = ({1, 2, 3, 4} - set(self.resting())).pop()
            self.carry(LIMITS.slow_span + 2, carrier, rate=rate)
            known = self.stage()
            self.slow.look(self.now + later - 5)
            self.assertIs(self.stage(), known)
            self.now += later
            self.slow.look(self.now)
            self.assertIs(self.stage(), None)

    def test_not_slow_after_all(self) -> None:
        """That shows within a second or two."""
        self.carry(3, 1, 2, 3, 4, rate=30e3)
        self.assertIs(self.stage(), None)
        self.assertEqual(self.patient(), [False] * 4)

    def test_a_line_that_gets_wider(self) -> None:
        """All carry again, whichever it was; and what is known of it is out of date."""
        for rate, stage in ((8000.0, Stage.SOLE), (2000.0, Stage.SEVERAL)):
            self.slow.seen(self.alive[1], FULL, self.now)
            self.to_one()
            carrier = ({1, 2, 3, 4} - set(self.resting())).pop()
            self.carry(LIMITS.slow_span + 2, carrier, rate=rate)
            self.assertIs(self.stage(), stage)
            self.alive[carrier].pace.rate = 2 * LIMITS.slow_below
            self.carry(1, carrier)
            self.assertIs(self.stage(), None)
            self.alive[carrier].pace.rate = 5e3

    def test_only_what_is_busy_counts(self) -> None:
        """A pause says nothing of what the path can do."""
        self.carry(LIMITS.slow_span - 1, 1, 2, 3, 4)
        self.carry(1, 1, busy=False)
        self.carry(LIMITS.slow_span - 1, 1, 2, 3, 4)
        self.assertIs(self.stage(), Stage.ALL)

    def test_what_the_others_have_goes_first(self) -> None:
        """It is not what the one carries."""
        self.to_one()
        carrier, other, *_ = sorted({1, 2, 3, 4}, key=self.resting().__contains__)
        self.alive[other].wrote(10_000, None, self.now)
        self.carry(6, carrier)
        self.assertIs(self.stage(), Stage.ONE)
        self.alive[other].acked(self.alive[other].ledger.written, None, self.now)
        self.carry(LIMITS.slow_span + 1, carrier)
        self.assertIs(self.stage(), Stage.SEVERAL)

    def test_others_are_not_waited_for_for_long(self) -> None:
        """Datagrams go on them all the time, or one of them is dead."""
        self.to_one()
        carrier, other, *_ = sorted({1, 2, 3, 4}, key=self.resting().__contains__)
        self.alive[other].wrote(10_000, None, self.now)
        self.carry(LIMITS.slow_span + 10, carrier)
        self.assertIs(self.stage(), Stage.SEVERAL)

    def test_no_trial_lasts(self) -> None:
        """One that nothing comes of, for want of use, is over after a while."""
        self.carry(3, 1, 2, 3, 4, busy=False)
        self.slow.look(self.now + LIMITS.slow_trial - 5)
        self.assertIs(self.stage(), Stage.ALL)
        self.slow.look(self.now + LIMITS.slow_trial)
        self.assertIs(self.stage(), None)
        self.assertEqual(self.patient(), [False] * 4)

    def test_no_trial_soon_after_one_that_came_to_nothing(self) -> None:
        """Bursts too short to be measured would have one carry them all for ever."""
        self.to_one()
        self.alive[1].pace.rate = 2000.0
        end = self.now + LIMITS.slow_trial
        self.slow.delivered(self.alive[1], True, end)
        self.assertIs(self.stage(), Stage.SEVERAL)
        self.assertFalse(self.slow.is_in_question(self.alive[1]))
        self.slow.look(end + LIMITS.slow_for - 1)
        self.assertIs(self.stage(), Stage.SEVERAL)
        self.slow.look(end + LIMITS.slow_for)
        self.assertIs(self.stage(), None)
        self.assertTrue(self.slow.is_in_question(self.alive[1]))

    def test_begins_again_with_another(self) -> None:
        """What a subflow had delivered goes with it."""
        self.carry(LIMITS.slow_span - 1, 1, 2, 3, 4)
        self.add(5)
        self.carry(2, 1, 2, 3, 4, 5)
        self.assertIs(self.stage(), Stage.ALL)

    def test_another_takes_over(self) -> None:
        """Whenever the one that carries may not."""
        self.to_one()
        carrier = ({1, 2, 3, 4} - set(self.resting())).pop()
        self.healthy.discard(carrier)
        self.assertEqual(len(self.resting()), 3)
        self.assertIn(carrier, self.resting())

    def test_forgotten(self) -> None:
        """There is no subflow on it any more."""
        self.slow.forget(0)
        self.assertIs(self.stage(), None)
        self.assertEqual(self.patient(), [False] * 4)

    def test_no_patience_beside_another_path(self) -> None:
        """There is somewhere to send what waits."""
        self.add(9, path=1)
        self.assertEqual(self.patient(), [False] * 5)
        self.assertIs(self.stage(1), None)
        del self.alive[9]
        self.slow.changed(0)
        self.assertEqual(self.patient(), [True] * 4)

    def test_patience(self) -> None:
        """Bytes of theirs may be without progress for seconds; it has an end."""
        subflow = self.alive[1]
        subflow.wrote(5000, None, self.now)
        self.assertEqual(subflow.life.stalled_at(), self.now + LIMITS.stall_most)
        self.assertIs(subflow.life.state, State.ACTIVE)
