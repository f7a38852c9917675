"""L{stripetwist.core.subflow}: what a connection owes, how fast it is, whether it lives."""

from collections.abc import Iterable
from math import ceil

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import frames
from stripetwist.core.bucket import NEVER
from stripetwist.core.config import MIB, Limits
from stripetwist.core.frames import HEADER_SIZE, TICK, FrameParser
from stripetwist.core.liveness import State
from stripetwist.core.progress import KernelView
from stripetwist.core.subflow import Subflow
from stripetwist.core.traits import Traits

LIMITS = Limits(prewarm=0)


def kinds(buffers: Iterable[bytes]) -> list[int]:
    """Types of the frames in a batch."""
    return [frame[0] for frame in FrameParser().feed(b"".join(buffers))]


def on_wire(size: int) -> int:
    """How many bytes TLS makes of so many: 22 more for each 16 KiB."""
    return size + 22 * ceil(size / 16_384)


class SubflowTests(SynchronousTestCase):
    """One connection: what it owes, how fast it is, whether it lives."""

    def setUp(self) -> None:
        """A subflow with a round trip of 40 ms, at 100 s."""
        self.subflow = Subflow(1, LIMITS, 100.0, 0.04)
        self.now = 100.0

    def hear(self, data: bytes, now: float) -> None:
        """Bytes come, and are parsed."""
        found = self.subflow.parser.feed(data)
        calls = any(frame[0] not in frames.QUIET for frame in found)
        self.subflow.heard(now, calls or self.subflow.parser.inside_frame)

    # ---- acknowledgements

    def test_data_is_acknowledged_after_a_quarter_round_trip(self) -> None:
        """At most 25 ms, at least 5."""
        self.hear(frames.pack_with(b"x", frames.DATA, stream=1), 100.0)
        self.assertAlmostEqual(self.subflow.owed_at(), 100.01)
        self.assertGreater(self.subflow.owes_from, 100.009)
        self.assertLessEqual(self.subflow.owes_from, 100.011)
        (ack,) = FrameParser().feed(b"".join(self.subflow.take_owed(100.011)))
        self.assertEqual((ack[0], ack[4]), (frames.ACK, HEADER_SIZE + 1))
        self.assertAlmostEqual(ack[2] * TICK, 0.011, places=3)
        self.assertEqual(self.subflow.owed_at(), NEVER)
        for rtt, delay in ((1.0, 0.025), (0.001, 0.005)):
            subflow = self.subflow = Subflow(1, LIMITS, 100.0, rtt)
            self.hear(frames.pack(frames.STOP, stream=1), 100.0)
            self.assertAlmostEqual(subflow.owed_at(), 100.0 + delay)

    def test_one_acknowledgement_for_all_that_came(self) -> None:
        """However much it is: one for each frame takes a ninth of the processor's time."""
        data = frames.pack_with(bytes(65000), frames.DATA, stream=1)
        for at in range(100):
            self.hear(data, 100.0 + at * 1e-4)
            self.assertAlmostEqual(self.subflow.owed_at(), 100.01)
        (ack,) = FrameParser().feed(b"".join(self.subflow.take_owed(100.01)))
        self.assertEqual(ack[4], 100 * len(data))

    def test_part_of_a_frame_is_acknowledged(self) -> None:
        """Progress shows on a slow link, too."""
        self.hear(frames.pack_with(bytes(60000), frames.DATA, stream=1)[:5000], 100.0)
        (ack,) = FrameParser().feed(b"".join(self.subflow.take_owed(101.0)))
        self.assertEqual(ack[4], 5000)

    def test_an_acknowledgement_calls_for_none(self) -> None:
        """Nor do PING and PONG: else both ends would answer for ever."""
        self.hear(frames.pack(frames.ACK) + frames.pack(frames.PONG, aux=1), 100.0)
        self.assertGreater(self.subflow.owes_from, 200.0)
        self.assertEqual(self.subflow.owed_at(), NEVER)
        self.subflow.take_owed(100.0)
        self.assertEqual(self.subflow.ledger.in_flight, 0)

    def test_an_acknowledgement_that_cannot_leave_is_no_deadline(self) -> None:
        """What has not drained has to drain first."""
        self.hear(frames.pack_with(b"x", frames.DATA, stream=1), 100.0)
        self.subflow.since_drain = 16 * 1024
        self.assertEqual(self.subflow.owed_at(), NEVER)
        self.assertFalse(self.subflow.has_room_for_control)

    def test_a_ping_flood_owes_one_pong(self) -> None:
        """The latest is answered (C29)."""
        for stamp in range(1000):
            self.subflow.ping_came(stamp, 100.0)
        (pong,) = FrameParser().feed(b"".join(self.subflow.take_owed(100.001)))
        self.assertEqual((pong[0], pong[4], pong[2]), (frames.PONG, 999, 15))
        self.assertEqual(self.subflow.take_owed(100.1), [])

    # ---- measuring

    def test_an_acknowledgement_is_a_sample(self) -> None:
        """Less the time that the peer kept it."""
        self.subflow.wrote(100, None, 100.0)
        self.subflow.acked(100, 0.02, 100.08)
        self.assertAlmostEqual(self.subflow.rtt.smoothed or 0, 0.04 + 0.02 / 8)

    def test_news_on_another_subflow_is_no_sample(self) -> None:
        """It says that bytes arrived, not how long this subflow takes."""
        self.subflow.wrote(100, None, 100.0)
        self.subflow.acked(100, None, 109.0)
        self.assertEqual(self.subflow.rtt.smoothed, 0.04)
        self.assertEqual(self.subflow.ledger.in_flight, 0)

    def test_a_pong_is_a_sample(self) -> None:
        """One with an impossible stamp is not (C30)."""
        self.subflow.ping(100.0)
        (ping,) = FrameParser().feed(b"".join(self.subflow.take_owed(100.0)))
        self.subflow.pong_came(ping[4], 0.01, 100.09)
        self.assertAlmostEqual(self.subflow.rtt.smoothed or 0, 0.04 + 0.04 / 8, places=4)
        before = self.subflow.rtt.smoothed
        for stamp in (0, 2**64 - 1, int(101 / TICK)):
            self.subflow.pong_came(stamp, 0.0, 100.09)
        self.assertEqual(self.subflow.rtt.smoothed, before)

    def test_frames_are_large_where_it_is_fast(self) -> None:
        """
        16 KiB under 2 MB/s, 64 KiB above, header included; a batch where slow or not known.

        And up to 256 KiB where that takes less than 5 ms.
        """
        self.assertEqual(self.subflow.pace.frame_payload, 10_220)
        for rate, batch, payload in (
            (6e6, 65_536, 65_516),
            (26e6, 65_536, 65_516),
            (27e6, 131_072, 131_052),
            (52e6, 131_072, 131_052),
            (53e6, 262_144, 262_124),
            (500e6, 262_144, 262_124),
            (1.9e6, 65_536, 16_364),
            (400e3, 16_384, 16_364),
            (200e3, 8192, 8172),
            (9e3, 4096, 4076),
            (6e6, 65_536, 65_516),
        ):
            self.carry(rate)
            pace = self.subflow.pace
            self.assertEqual((pace.batch, pace.frame_payload), (batch, payload))

    def test_little_memory_has_no_long_batches(self) -> None:
        """A 512th of it, but no less than anybody's."""
        for memory, batch in ((32, 65_536), (64, 131_072), (128, 262_144), (1024, 262_144)):
            self.subflow = Subflow(1, Limits(max_memory=memory * MIB), self.now, 0.04)
            self.carry(500e6)
            self.assertEqual(self.subflow.pace.batch, batch)

    def test_batches_fill_segments(self) -> None:
        """With what TLS adds to each 16 KiB, to the last byte; at least three."""
        for segment, rate, segments in (
            (1448, 9e3, 3),
            (1448, 200e3, 5),
            (1428, 400e3, 11),
            (1448, 1.9e6, 45),
            (1448, 500e6, 181),
            (2048, 9e3, 3),
        ):
            self.subflow = Subflow(1, LIMITS, self.now, 0.04, Traits(segment=segment))
            self.carry(rate)
            full = self.subflow.pace.full_batch
            self.assertEqual(on_wire(full), segments * segment)
            self.assertLessEqual(self.subflow.pace.frame_payload, full - HEADER_SIZE)

    def test_no_segments_to_fill(self) -> None:
        """They are unknown, or so long that it is no matter, or there is no TLS."""
        for segment, checksum in (
            (0, None),
            (2_049, None),
            (65_483, None),
            (1448, lambda value, data: 0),
        ):
            self.subflow = Subflow(1, LIMITS, self.now, 0.04, Traits(checksum, segment=segment))
            self.assertEqual(self.subflow.pace.full_batch, LIMITS.batch_first)
            self.carry(200e3)
            self.assertEqual(self.subflow.pace.full_batch, 8192)
            self.assertEqual(self.subflow.pace.beyond_segment(1000), 0)

    def carry(self, rate: float) -> None:
        """Keep it busy for a while at so many bytes a second."""
        for _ in range(20):
            self.subflow.wrote(int(rate / 10), None, self.now)
            self.now += 0.1
            self.subflow.acked(self.subflow.ledger.written - 1, 0.0, self.now)

    def test_a_trickle_says_nothing_of_the_rate(self) -> None:
        """Where little was sent it went as fast as it came."""
        self.carry(6e6)
        self.carry(5e3)
        self.assertGreater(self.subflow.pace.rate, 4e3)
        before = self.subflow.pace.batch
        for _ in range(10):
            self.subflow.wrote(100, None, self.now)
            self.now += 0.5
            self.subflow.acked(self.subflow.ledger.written, 0.0, self.now)
        self.assertEqual(self.subflow.pace.batch, before)

    # ---- what the kernel says

    def test_bytes_that_move_keep_it_alive(self) -> None:
        """Acknowledged by TCP, although no record is whole: not dead, but overdue."""
        self.subflow.wrote(16_384, None, 100.0)
        self.subflow.suspect(100.5)
        stalled = self.subflow.life.dead_at(True)
        for now, acked in ((101.0, 3000), (101.9, 6000), (102.8, 9000)):
            self.assertTrue(self.subflow.life.kernel_says(KernelView(acked, 0.2), now))
            self.assertAlmostEqual(self.subflow.life.dead_at(True), now - 0.2 + 1.0)
            self.assertIs(self.subflow.life.state, State.SUSPECT)
        self.assertGreater(self.subflow.life.dead_at(True), stalled)
        self.assertFalse(self.subflow.life.kernel_says(KernelView(9000, 1.1), 103.7))
        self.assertAlmostEqual(self.subflow.life.dead_at(True), 103.6)

    def test_borne_with(self) -> None:
        """Trusted again, until the kernel sees no progress for a stall's time."""
        self.subflow.wrote(16_384, None, 100.0)
        self.subflow.suspect(100.5)
        self.subflow.life.kernel_says(KernelView(3000, 0.0), 100.7)
        self.subflow.life.bear()
        self.assertIs(self.subflow.life.state, State.ACTIVE)
        self.assertAlmostEqual(
            self.subflow.life.stalled_at(), 100.7 + self.subflow.life.stall_after
        )

    def test_patience_follows_the_kernels(self) -> None:
        """It knows the round trip of segments where we know none, or only that of records."""
        before = self.subflow.life.stall_after
        self.subflow.life.kernel_says(KernelView(patience=0.9), 100.0)
        self.assertAlmostEqual(self.subflow.life.stall_after, 0.925)
        self.assertGreater(self.subflow.life.stall_after, before)
        self.subflow.life.kernel_says(KernelView(patience=9.0), 100.0)
        self.assertEqual(self.subflow.life.stall_after, 3.0)

    def test_what_comes_in_pieces_is_a_sign_of_life(self) -> None:
        """A PING is not answered yet, but bytes have come since: it is not missed."""
        self.subflow.ping(105.0)
        self.subflow.ping(110.0)
        self.assertEqual(self.subflow.life.pings_missed, 1)
        self.subflow.life.kernel_says(KernelView(received=700, received_ago=0.5), 115.0)
        self.assertEqual(self.subflow.life.pings_missed, 0)
        self.assertAlmostEqual(self.subflow.life.ping_at(True), 119.5)
        self.subflow.life.kernel_says(KernelView(received=700, received_ago=5.5), 120.0)
        self.assertAlmostEqual(self.subflow.life.ping_at(True), 119.5)

    # ---- liveness

    def test_patience_follows_the_round_trip(self) -> None:
        """max(0.12 s, srtt + 4 rttvar + 25 ms), at most 3 s; 1 s where nothing is known."""
        self.assertAlmostEqual(self.subflow.life.stall_after, 0.145)
        for rtt, patience in ((0.001, 0.12), (0.1, 0.325), (9.0, 3.0), (None, 1.0)):
            subflow = Subflow(1, LIMITS, 100.0, rtt)
            self.assertAlmostEqual(subflow.life.stall_after, patience)

    def test_stalls_when_nothing_in_flight_progresses(self) -> None:
        """Counted from the last progress, or from when something went out."""
        self.assertEqual(self.subflow.life.stalled_at(), NEVER)
        self.subflow.wrote(100, None, 105.0)
        self.subflow.wrote(100, None, 105.1)
        self.assertAlmostEqual(self.subflow.life.stalled_at(), 105.145)
        self.assertAlmostEqual(self.subflow.life.dead_at(True), 106.0)
        self.assertAlmostEqual(self.subflow.life.dead_at(False), 125.0)
        self.subflow.acked(1, 0.0, 105.12)
        self.assertGreater(self.subflow.life.stalled_at(), 105.26)
        self.subflow.acked(200, 0.0, 105.2)
        self.assertEqual(self.subflow.life.stalled_at(), NEVER)
        self.assertEqual(self.subflow.life.dead_at(True), NEVER)

    def test_our_acknowledgements_are_not_waited_for(self) -> None:
        """What is quiet may take its time."""
        self.hear(frames.pack_with(b"x", frames.DATA, stream=1), 100.0)
        self.subflow.take_owed(101.0)
        self.assertEqual(self.subflow.life.stalled_at(), NEVER)

    def test_a_suspect_is_asked_and_recovers_with_progress(self) -> None:
        """Any byte more that was parsed proves it."""
        self.subflow.wrote(100, None, 100.0)
        self.subflow.suspect(100.2)
        self.assertIs(self.subflow.life.state, State.SUSPECT)
        self.assertEqual(self.subflow.latency, NEVER)
        self.assertEqual(kinds(self.subflow.take_owed(100.2)), [frames.PING])
        self.subflow.acked(0, 0.0, 100.3)
        self.assertIs(self.subflow.life.state, State.SUSPECT)
        self.subflow.acked(50, 0.0, 100.3)
        self.assertIs(self.subflow.life.state, State.ACTIVE)

    def test_a_draining_suspect_goes_on_draining(self) -> None:
        """Recovery does not take back what the peer asked for."""
        self.subflow.life.drain()
        self.assertIs(self.subflow.life.state, State.DRAINING)
        self.subflow.wrote(100, None, 100.0)
        self.subflow.suspect(100.2)
        self.subflow.life.drain()
        self.assertIs(self.subflow.life.state, State.SUSPECT)
        self.subflow.acked(50, 0.0, 100.3)
        self.assertIs(self.subflow.life.state, State.DRAINING)

    def test_silence_is_pinged(self) -> None:
        """5 s in use, 20 s idle, since it was last heard; soon if not even that PING arrives."""
        self.assertEqual(self.subflow.life.ping_at(True), 105.0)
        self.assertEqual(self.subflow.life.ping_at(False), 120.0)
        self.hear(frames.pack(frames.ACK), 103.0)
        self.assertEqual(self.subflow.life.ping_at(True), 108.0)
        self.subflow.ping(108.0)
        self.assertEqual(self.subflow.life.ping_at(True), 109.0)
        self.assertEqual(self.subflow.life.pings_missed, 0)
        self.subflow.ping(109.0)
        self.assertEqual(self.subflow.life.pings_missed, 1)
        self.hear(frames.pack(frames.PONG), 110.0)
        self.assertEqual(self.subflow.life.pings_missed, 0)

    def test_a_ping_that_arrives_may_wait_for_its_answer(self) -> None:
        """The peer's kernel has it, the peer is busy or stopped: another connection helps not."""
        self.subflow.ping(105.0)
        self.assertEqual(self.subflow.life.ping_at(True), 106.0)
        self.subflow.life.kernel_says(KernelView(acked=100, acked_ago=0.9), 106.0)
        self.assertEqual(self.subflow.life.ping_at(True), 110.0)

    def test_silence_is_not_asked_soon_for_ever(self) -> None:
        """After two there will be a substitute."""
        for second in (105, 106, 107):
            self.assertEqual(self.subflow.life.ping_at(True), second)
            self.subflow.ping(float(second))
        self.assertEqual(self.subflow.life.ping_at(True), 112.0)

    def asked_when_passed_over(self, now: float) -> bool:
        """Whether a PING leaves at that moment, when its round trip seemed too long."""
        self.subflow.passed_over(now)
        return kinds(self.subflow.take_owed(now)) == [frames.PING]

    def test_a_round_trip_by_chance(self) -> None:
        """Passed over for it, it is measured anew: twice within seconds, then each 20 s."""
        for second in (101.0, 102.0, 122.0, 142.0):
            self.assertFalse(self.asked_when_passed_over(second - 0.01))
            # The peer's bytes come all the time.
            self.subflow.heard(second - 0.001, False)
            self.assertTrue(self.asked_when_passed_over(second))
            self.assertFalse(self.asked_when_passed_over(second))
            self.subflow.heard(second, False)
            self.assertFalse(self.asked_when_passed_over(second), "it may answer yet")
            self.subflow.pong_came(int(second / frames.TICK), 0.0, second)
        self.assertEqual(self.subflow.life.pings_missed, 0)

    def test_no_answer_but_bytes(self) -> None:
        """A peer that answers no PING gets no more of them for that."""
        self.assertTrue(self.asked_when_passed_over(101.0))
        for tenth in range(1, 10):
            self.subflow.heard(101.0 + tenth / 10, False)
            self.assertFalse(self.asked_when_passed_over(101.0 + tenth / 10))
        self.assertTrue(self.asked_when_passed_over(102.0))

    def test_who_carries_something_needs_no_ping(self) -> None:
        """Nor one that was asked and says nothing: another question is that of its silence."""
        self.subflow.wrote(100, None, 101.0)
        self.assertFalse(self.asked_when_passed_over(102.0))
        self.subflow.acked(100, 0.0, 102.0)
        self.assertFalse(self.asked_when_passed_over(102.5), "that was a sample")
        self.assertTrue(self.asked_when_passed_over(103.0))
        self.assertFalse(self.asked_when_passed_over(120.0))
        self.assertEqual(self.subflow.life.pings_missed, 0)

    def test_who_is_to_carry_nothing_new_needs_none(self) -> None:
        """However short its round trip, it would get nothing."""
        self.subflow.life.drain()
        self.assertFalse(self.asked_when_passed_over(102.0))

    def test_a_ping_that_cannot_leave_is_missed(self) -> None:
        """A connection that takes nothing more must not live for ever."""
        for second in range(105, 130, 5):
            self.subflow.ping(float(second))
        self.assertEqual(self.subflow.life.pings_missed, 4)

    def test_lateness_of_ours_is_excused(self) -> None:
        """The time we slept does not count, and once there is time for an answer to be read."""
        self.subflow.wrote(100, None, 100.0)
        self.subflow.excuse(0.9, 101.0)
        self.assertAlmostEqual(self.subflow.life.dead_at(True), 101.9)
        self.subflow.excuse(5.0, 106.0)
        self.assertAlmostEqual(self.subflow.life.dead_at(True), 106.9)
        self.subflow.acked(1, 0.0, 106.0)
        self.subflow.excuse(5.0, 106.01)
        self.assertLessEqual(self.subflow.life.dead_at(True), 107.01)

    def test_the_dead_are_not_excused_for_ever(self) -> None:
        """A process that is always late still gives them up."""
        self.subflow.wrote(100, None, 100.0)
        now = 100.0
        while self.subflow.life.dead_at(True) > now and now < 200:
            now = self.subflow.life.dead_at(True) + 0.3
            self.subflow.excuse(0.3, now)
        self.assertLess(now, 110)
