"""L{stripetwist.core.subflows}: who lives, who is asked, what the dead had on them."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import events, frames
from stripetwist.core.chunks import SendBuffer
from stripetwist.core.config import Limits
from stripetwist.core.errors import ProtocolError
from stripetwist.core.outbox import Outbox
from stripetwist.core.subflow import Subflow
from stripetwist.core.subflows import Subflows
from stripetwist.core.warmth import Warmth

LIMITS = Limits(prewarm=0)


class SubflowsTests(SynchronousTestCase):
    """All of them: what the dead had goes to the living."""

    def setUp(self) -> None:
        """Three subflows."""
        self.outbox = Outbox(LIMITS)
        self.subflows = Subflows(self.outbox, LIMITS, Warmth(LIMITS, 100.0, lambda event: None))
        self.three = [Subflow(i, LIMITS, 100.0, 0.01 * i) for i in (1, 2, 3)]
        for subflow in self.three:
            self.subflows.add(subflow)

    def chunk_on(self, subflow: Subflow, now: float = 100.0) -> list[bytes]:
        """Send a chunk there; its batch."""
        buffer = SendBuffer(1)
        buffer.write(b"abc")
        out: list[bytes] = []
        subflow.put_chunk(buffer.cut(10, 10), out, now)
        return out

    def test_an_id_is_used_once(self) -> None:
        """Alive or dead, it never comes again."""
        for subflow_id in (1, 2):
            self.assertRaises(ProtocolError, self.subflows.add, Subflow(1, LIMITS, 101.0))
            if subflow_id == 1:
                self.subflows.remove(1)

    def test_the_stalled_are_suspected_and_then_given_up(self) -> None:
        """Their load is queued at once; dead after 1 s, if the peer is heard on another."""
        self.chunk_on(self.three[0])
        deadline = self.subflows.judged_at(True)
        self.assertAlmostEqual(deadline, 100.12)
        self.assertEqual(self.subflows.judge(deadline, 0.0, True), [])
        self.assertEqual(self.subflows.healthy, {2, 3})
        self.assertTrue(self.outbox.has_data)
        self.assertEqual(self.subflows.judge(101.0, 0.0, True), [])
        self.three[1].heard(101.0, True)
        self.three[1].take_owed(101.0)
        deadline = self.subflows.judged_at(True)
        self.assertAlmostEqual(deadline, 101.0)
        self.assertEqual(
            self.subflows.judge(deadline, 0.0, True), [events.SubflowDead(1, "no progress")]
        )

    def test_the_only_one_has_longer(self) -> None:
        """Where nobody else is healthy, 20 s."""
        for subflow_id in (2, 3):
            self.subflows.remove(subflow_id)
        self.outbox.clear()
        self.chunk_on(self.three[0])
        self.assertEqual(self.subflows.judge(100.5, 0.0, True), [])
        self.assertEqual(self.subflows.judge(119.0, 0.0, True), [])
        self.assertEqual(
            self.subflows.judge(120.0, 0.0, True), [events.SubflowDead(1, "no progress")]
        )

    def test_a_late_judge_kills_nobody(self) -> None:
        """What waits to be read may be the answer (fault row 45)."""
        self.chunk_on(self.three[0])
        self.assertEqual(self.subflows.judge(103.0, 2.88, True), [])
        self.assertEqual(self.subflows.judge(103.1, 0.0, True), [])
        self.three[1].heard(103.2, True)
        self.assertEqual(
            self.subflows.judge(104.0, 0.0, True), [events.SubflowDead(1, "no progress")]
        )

    def test_a_late_judge_waits_for_what_is_to_be_read(self) -> None:
        """Even where the time had been up: an answer may have come while we slept."""
        self.chunk_on(self.three[0])
        self.subflows.judge(100.12, 0.0, True)
        self.three[1].heard(100.2, True)
        self.three[1].take_owed(100.2)
        self.assertEqual(self.subflows.judge(104.0, 3.0, True), [])
        deadline = self.subflows.judged_at(True)
        self.assertAlmostEqual(deadline, 104.12)
        self.assertEqual(
            self.subflows.judge(deadline, 0.0, True), [events.SubflowDead(1, "no progress")]
        )

    def test_six_missed_pings_are_enough(self) -> None:
        """An idle subflow that does not answer is doubted after two, and dead after six."""
        now = 100.0
        found: list[tuple[float, object]] = []
        while len(found) < 2 and now < 300:
            now = self.subflows.judged_at(False)
            for subflow in self.three[1:]:
                subflow.heard(now, False)
            found += [(now, one) for one in self.subflows.judge(now, 0.0, False)]
        doubted, dead = events.SubflowDoubted(1), events.SubflowDead(1, "no answer to pings")
        self.assertEqual(found, [(122.0, doubted), (202.0, dead)])

    def test_the_last_word_strikes_out_what_arrived(self) -> None:
        """Only the rest goes again."""
        self.chunk_on(self.three[0])
        first = self.three[0].ledger.written
        self.chunk_on(self.three[0])
        for subflow in self.three:
            self.subflows.remove(subflow.subflow_id)
        self.assertIsNone(self.outbox.take_again(set()), "it waits for the last word")
        (arrived,) = self.subflows.final(1, first)
        again = self.outbox.take_again(set())
        self.assertIsNotNone(again)
        self.assertIsNot(again, arrived)
        self.assertIsNone(self.outbox.take_again(set()))
        self.assertEqual(self.subflows.final(1, first), [])

    def test_a_lying_last_word(self) -> None:
        """More than was ever sent."""
        self.chunk_on(self.three[0])
        self.subflows.remove(1)
        self.assertRaises(ProtocolError, self.subflows.final, 1, 10_000)

    def test_a_subflow_that_never_got_here(self) -> None:
        """Its last word from us is zero, said once; its id is used up."""
        for _ in range(2):
            self.subflows.final(9, 0)
        sent = [control.data for control in self.outbox.take_control(2**20, set())]
        self.assertEqual(sent, [frames.pack_final(9, 0)])
        self.assertRaises(ProtocolError, self.subflows.add, Subflow(9, LIMITS, 101.0))

    def test_memory_of_the_dead_is_bounded(self) -> None:
        """However many come and go without a last word."""
        for subflow_id in range(10, 6000):
            subflow = Subflow(subflow_id, LIMITS, 100.0)
            self.subflows.add(subflow)
            self.subflows.remove(subflow_id)
        self.assertLessEqual(len(self.subflows._dead), 128)
        self.assertLessEqual(len(self.subflows._ended), 4096)
