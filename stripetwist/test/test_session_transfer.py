"""Sessions carry streams: shares, rates, windows, halves."""

from dataclasses import replace
from zlib import crc32

from stripetwist.core import events, frames
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.frames import HEADER_SIZE, FrameParser
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.traits import Traits
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair, pattern

WEB = OpenRequest(Target.of("example.test", 80))


class TransferTests(EngineCase):
    """Bytes get there, over all subflows, in proportion."""

    def test_both_directions(self) -> None:
        """What is written at either end comes out at the other, and both see the end."""
        pair = self.pair(3)
        stream_id = self.opened(pair)
        there = self.send(pair.a, stream_id, 1_000_000, 1)
        back = self.send(pair.b, stream_id, 900_000, 2)
        self.wait(pair, pair.a, stream_id)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), there)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), back)
        self.assert_at_rest(pair)
        for end in (pair.a, pair.b):
            self.assertEqual(end.streams[stream_id].outcome, "finished")

    def test_either_end_opens(self) -> None:
        """The dialer's ids are odd, the acceptor's even."""
        pair = self.pair()
        self.assertEqual([pair.a.open(), pair.a.open()], [1, 3])
        self.assertEqual([pair.b.open(), pair.b.open()], [2, 4])
        pair.run(1)
        for stream_id in (1, 2, 3, 4):
            pair.a.write(stream_id, b"there")
            pair.b.write(stream_id, b"back")
        pair.run(1)
        for stream_id in (1, 2, 3, 4):
            self.assertEqual(bytes(pair.b.streams[stream_id].got), b"there")
            self.assertEqual(bytes(pair.a.streams[stream_id].got), b"back")

    def test_data_follows_its_open_at_once(self) -> None:
        """Within the first window, without waiting for the answer."""
        pair = self.pair(1, delay=0.5)
        stream_id = pair.a.open()
        pair.a.write(stream_id, pattern(20 * KIB))
        pair.run(0.6)
        self.assertEqual(len(pair.b.streams[stream_id].got), 8 * KIB)
        pair.run(1.2)
        self.assertEqual(len(pair.b.streams[stream_id].got), 20 * KIB)

    def test_data_that_overtakes_its_open_waits_for_it(self) -> None:
        """On another subflow, quicker than the first (C07, fault row 54)."""
        pair = Pair(LIMITS)
        slow = pair.add(delay=0.2)
        stream_id = pair.a.open()
        pair.add(delay=0.01)
        data = self.send(pair.a, stream_id, 5000)
        pair.run(0.1)
        self.assertNotIn(stream_id, pair.b.streams)
        self.assertEqual(pair.b.session._streams.table[stream_id].reorder.next_offset, 5000)
        pair.run(0.3)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)
        self.assertIn(slow, pair.subflows)

    def test_equal_subflows_carry_equal_shares(self) -> None:
        """Each of K carries 1/K, within 5 %; together they are K times as fast."""
        for count in (2, 4, 8):
            pair = self.pair(count, rate=5e6, delay=0.02)
            seconds = self.upload(pair, 10_000_000)
            shares = [there.carried for there, _ in pair.subflows.values()]
            self.assertLess(max(shares) / min(shares), 1.1)
            self.assertLess(abs(max(shares) * count / sum(shares) - 1), 0.05)
            ideal = 10e6 / (5e6 * count) + 0.02
            self.assertLess(seconds, ideal * 1.2, count)

    def test_unequal_subflows_carry_as_they_can(self) -> None:
        """Rates 10 to 1 carry 10 to 1, and at least 93 % of the sum."""
        pair = Pair(LIMITS)
        fast, slow = pair.add(10e6, 0.02), pair.add(1e6, 0.02)
        seconds = self.upload(pair, 15_000_000)
        ratio = pair.subflows[fast][0].carried / pair.subflows[slow][0].carried
        self.assertTrue(9 < ratio < 11, ratio)
        self.assertGreater(15e6 / seconds / 11e6, 0.93)

    def test_unequal_delays(self) -> None:
        """10 ms and 300 ms together: hardly less than the sum, once it is known what they carry."""
        pair = Pair(LIMITS)
        pair.add(10e6, 0.005)
        pair.add(10e6, 0.15)
        self.upload(pair, 20_000_000)
        seconds = self.upload(pair, 20_000_000)
        self.assertLess(seconds, 20e6 / 20e6 + 0.3)

    def test_a_very_slow_subflow_costs_the_others_little(self) -> None:
        """64 kbit/s beside 100 Mbit/s: 90 % of the fast ones, no gap of a second (row 16)."""
        pair = Pair(LIMITS)
        pair.add(6e6, 0.02)
        pair.add(6e6, 0.02)
        pair.add(8e3, 0.02)
        seconds = self.upload(pair, 12_000_000)
        self.assertGreater(12e6 / seconds / 12e6, 0.9)
        self.assertLess(pair.b.longest_gap, 1.0)

    def test_half_a_second_more_on_one_subflow(self) -> None:
        """Nothing breaks, and what waits behind it is within the window (row 17)."""
        pair = Pair(LIMITS)
        pair.add(6e6, 0.01)
        pair.add(6e6, 0.51)
        self.upload(pair, 12_000_000)
        self.assertEqual(len(pair.subflows), 2)
        self.assertEqual(self.dead(pair.a), [])

    def test_byte_by_byte(self) -> None:
        """A connection that delivers single bytes delivers all the same (row 22)."""
        pair = self.pair(2, rate=1e6)
        for there, back in pair.subflows.values():
            there.slice = back.slice = 1
        self.upload(pair, 20_000)

    def test_checksums_where_no_tls_guards(self) -> None:
        """Frames with trailers carry the same bytes."""
        pair = Pair(LIMITS)
        for _ in range(2):
            pair.add(checksum=lambda value, data: crc32(data, value))
        self.upload(pair, 1_000_000)

    def test_many_tiny_writes(self) -> None:
        """Those that gather behind the first few leave as these arrive, without a nudge."""
        pair = self.pair(2)
        scribe = Scribe(pair.a)
        stream_id = self.opened(pair)
        for at in range(0, 3000, 10):
            pair.a.write(stream_id, pattern(10, 0, at))
        pair.run(0.2)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), pattern(3000))
        self.assertLess(scribe.count(frames.DATA), 20)

    def test_packets_are_full(self) -> None:
        """Whatever stands before a stream's bytes, and of however many streams they are."""
        pair = Pair(replace(LIMITS, min_window=64 * KIB))
        session, now = pair.a.session, pair.heap.now
        session.subflow_up(50, now, 0.05, Traits(segment=1448))
        for size in (3_000, 50_000):
            session.write(session.open(WEB), bytes(size))
        for _ in range(5):
            size = len(b"".join(session.poll(50, now)))
            self.assertEqual((size + 22) % 1448, 0)
            session.drained(50)

    def test_no_crumbs(self) -> None:
        """What is left of a batch by a few bytes is left: each frame has a header."""
        pair = Pair(replace(LIMITS, min_window=64 * KIB))
        session, now = pair.a.session, pair.heap.now
        session.subflow_up(50, now, 0.05)
        first, second = (session.open(WEB) for _ in range(2))
        session.poll(50, now)
        session.drained(50)
        for left in (20, 21, 80):
            session.write(first, bytes(LIMITS.batch_first - HEADER_SIZE - left))
            session.write(second, bytes(5))
            found = FrameParser().feed(b"".join(session.poll(50, now)))
            session.drained(50)
            self.assertEqual([frame[3] for frame in found], [first])
            session.poll(50, now)
            session.drained(50)

    def test_many_streams_share(self) -> None:
        """Streams take turns: alike, they end nearly together."""
        pair = self.pair(2, rate=1e6)
        ids = [self.opened(pair) for _ in range(10)]
        data = {i: self.send(pair.a, i, 600_000, i) for i in ids}
        pair.run_while(lambda: not any(pair.b.streams[i].saw_end for i in ids))
        self.assertGreater(min(len(pair.b.streams[i].got) for i in ids), 400_000)
        for i in ids:
            self.wait(pair, pair.b, i)
            self.assertEqual(bytes(pair.b.streams[i].got), data[i])

    def test_nothing_is_sent_twice_without_need(self) -> None:
        """On healthy subflows there are no copies, and few bytes beside the payload."""
        pair = self.pair(4)
        scribe = Scribe(pair.a)
        self.upload(pair, 5_000_000)
        self.assertEqual(scribe.copied, 0)
        snapshot = pair.a.session.snapshot(pair.heap.now)["subflows"]
        assert isinstance(snapshot, list)
        self.assertEqual(sum(one["tx"]["first"] for one in snapshot), 5_000_000)
        self.assertLess(sum(one["tx"]["overhead"] for one in snapshot), 50_000)

    def test_acknowledgements_do_not_answer_each_other(self) -> None:
        """Once all has arrived the wire is silent until the next PING."""
        pair = self.pair(2)
        scribes = [Scribe(pair.a), Scribe(pair.b)]
        stream_id = self.opened(pair)
        pair.a.write(stream_id, b"x")
        pair.run(1)
        before = [len(scribe.sent) for scribe in scribes]
        pair.run(3)
        self.assertEqual([len(scribe.sent) for scribe in scribes], before)


class WindowTests(EngineCase):
    """The window grows to what the path needs."""

    def growth(self, rtt: float, first_window: int, rate: float = 12.5e6) -> float:
        """The share of the link's rate that one stream has after eight round trips."""
        pair = Pair(Limits(max_memory=256 * MIB, first_window=first_window))
        pair.add(rate, rtt / 2)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, bytes(int(rate * rtt * 11) + 3_000_000))
        pair.run(8 * rtt)
        before = len(pair.b.streams[stream_id].got)
        # Long enough for many frames.
        seconds = max(2 * rtt, 0.1)
        pair.run(seconds)
        return (len(pair.b.streams[stream_id].got) - before) / (rate * seconds)

    def test_full_rate_within_eight_round_trips(self) -> None:
        """For 1 to 500 ms, also from a small first window."""
        for rtt in (0.001, 0.01, 0.1, 0.3, 0.5):
            for first_window in (128 * KIB, 4 * MIB):
                self.assertGreater(self.growth(rtt, first_window), 0.9, (rtt, first_window))

    def test_the_first_window_is_enough_for_a_warm_path(self) -> None:
        """4 MiB need no growth at 100 Mbit/s and 100 ms."""
        pair = Pair(Limits(max_memory=256 * MIB))
        pair.add(12.5e6, 0.05)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, bytes(5 * MIB))
        pair.run_while(lambda: len(pair.b.streams[stream_id].got) < 5 * MIB)
        self.assertEqual(pair.b.session._streams.table[stream_id].window.size, 4 * MIB)

    def test_never_beyond_its_most(self) -> None:
        """16 MiB, whatever the path could take."""
        pair = Pair(Limits(max_memory=256 * MIB))
        pair.add(100e6, 0.5)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, bytes(50 * MIB))
        pair.run(6)
        self.assertEqual(pair.b.session._streams.table[stream_id].window.size, 16 * MIB)


class HalfCloseTests(EngineCase):
    """Each half ends by itself."""

    def test_an_end_leaves_the_other_half_open(self) -> None:
        """A request, its end, then a long answer."""
        pair = self.pair()
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 100)
        self.wait(pair, pair.b, stream_id)
        pair.run(60)
        answer = self.send(pair.b, stream_id, 300_000)
        self.wait(pair, pair.a, stream_id)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), answer)
        self.assert_at_rest(pair)

    def test_an_end_without_bytes(self) -> None:
        """An empty stream ends at both ends."""
        pair = self.pair()
        stream_id = self.opened(pair)
        pair.a.end(stream_id)
        pair.b.end(stream_id)
        self.assert_at_rest(pair)
        self.assertEqual(pair.a.streams[stream_id].outcome, "finished")
        self.assertEqual(pair.b.streams[stream_id].outcome, "finished")

    def test_an_ended_half_holds_no_promise(self) -> None:
        """Once the size is known, what was granted beyond it is given back."""
        pair = self.pair()
        stream_id = self.opened(pair)
        self.send(pair.a, stream_id, 1000)
        pair.run(1)
        self.assertEqual(pair.b.budget.promised, 0)
        self.assertEqual(pair.b.streams[stream_id].outcome, "open")

    def test_nobody_reads_any_more(self) -> None:
        """STOP: the sender's bytes are dropped, the reader's own half goes on."""
        pair = self.pair(1, rate=1e6)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, pattern(3_000_000))
        pair.run(0.1)
        pair.b.session.stop_reading(stream_id)
        pair.b.turn()
        answer = self.send(pair.b, stream_id, 10_000)
        pair.run(1)
        self.assertEqual(bytes(pair.a.streams[stream_id].got), answer)
        self.assertEqual(pair.a.budget.stored, 0)
        self.assertLess(pair.subflows[1][0].carried, 1_000_000)
        self.assertTrue(pair.a.session.write(stream_id, b"nobody hears this"))
        self.assert_at_rest(pair)

    def test_stop_tells_those_who_wait_for_room(self) -> None:
        """A writer that was held back learns that it need not wait."""
        pair = self.pair(1, rate=1e5)
        stream_id = self.opened(pair)
        pair.a.write(stream_id, bytes(3_000_000))
        self.assertFalse(pair.a.streams[stream_id].may_write)
        pair.b.session.stop_reading(stream_id)
        pair.b.turn()
        pair.run(2)
        self.assertTrue(pair.a.streams[stream_id].may_write)


class OpenTests(EngineCase):
    """Streams are opened, refused, reset."""

    def test_a_refusal_arrives_with_its_reason(self) -> None:
        """The code as it is, the sentence made safe; nothing is left at either end."""
        pair = self.pair()
        pair.b.policy = lambda request: OpenRefused(Code.NOT_ALLOWED, "no\x1b[31m {x} %s")
        stream_id = pair.a.open()
        pair.a.write(stream_id, pattern(100_000))
        pair.run(1)
        (told,) = [e for e in pair.a.log if isinstance(e, events.StreamRefused)]
        self.assertEqual((told.stream_id, told.code), (stream_id, Code.NOT_ALLOWED))
        self.assertTrue(told.sentence.isprintable() and "{x} %s" in told.sentence)
        self.assert_at_rest(pair)

    def test_a_reset_reaches_the_other_end(self) -> None:
        """By either end, in the middle of a transfer, and nothing is delivered after it."""
        for which in ("a", "b"):
            pair = self.pair(2, rate=1e6)
            stream_id = self.opened(pair)
            one, other = (pair.a, pair.b) if which == "a" else (pair.b, pair.a)
            one.write(stream_id, pattern(500_000))
            other.write(stream_id, pattern(500_000))
            pair.run(0.1)
            one.reset(stream_id)
            got = len(one.streams[stream_id].got)
            self.assert_at_rest(pair)
            self.assertEqual(other.streams[stream_id].outcome, "reset")
            self.assertEqual(len(one.streams[stream_id].got), got)

    def test_a_reset_before_the_answer(self) -> None:
        """The acceptor is told; its late answer hurts nobody."""
        pair = self.pair(1, delay=0.1)
        stream_id = pair.a.open()
        pair.a.reset(stream_id)
        self.assert_at_rest(pair)
        self.assertEqual(pair.b.streams[stream_id].outcome, "reset")

    def test_a_reset_that_overtakes_its_open(self) -> None:
        """The stream is never opened at the other end."""
        pair = Pair(LIMITS)
        pair.add(delay=0.2)
        stream_id = pair.a.open()
        pair.add(delay=0.01)
        pair.a.reset(stream_id)
        self.assert_at_rest(pair)
        self.assertNotIn(stream_id, pair.b.streams)

    def test_as_many_streams_as_the_peer_allows(self) -> None:
        """One more is refused at once, by ourselves; and by the peer, should we not."""
        limits = replace(LIMITS, max_streams=3)
        pair = Pair(LIMITS, limits)
        pair.add()
        for _ in range(3):
            pair.a.open()
        error = self.assertRaises(OpenRefused, pair.a.open)
        self.assertIs(error.code, Code.TOO_MANY_STREAMS)
        pair.a.session._streams._peer = replace(pair.a.session._streams._peer, max_streams=9)
        stream_id = pair.a.open()
        pair.run(1)
        self.assertEqual(pair.a.streams[stream_id].outcome, "refused")
        self.assertEqual(pair.a.streams[1].outcome, "open")
        pair.a.reset(1)
        pair.run(1)
        stream_id = pair.a.open()
        pair.run(1)
        self.assertTrue(pair.a.streams[stream_id].accepted)

    def test_no_numbers_are_left(self) -> None:
        """At 2^31 the session takes no more streams; numbers never wrap (C35)."""
        pair = self.pair()
        pair.a.session._streams._next_id = 2**31 - 1
        pair.a.open()
        error = self.assertRaises(OpenRefused, pair.a.open)
        self.assertIs(error.code, Code.GOING_AWAY)

    def test_an_end_that_goes_away_is_asked_for_nothing_more(self) -> None:
        """Running streams go on; new ones are refused at both ends (C47)."""
        pair = self.pair(1, delay=0.1)
        running = self.opened(pair)
        pair.b.session.go_away("back soon")
        pair.b.session.go_away("back soon")
        crossing = pair.a.open()
        pair.b.turn()
        pair.run(0.5)
        self.assertEqual(pair.a.streams[crossing].outcome, "refused")
        error = self.assertRaises(OpenRefused, pair.a.open)
        self.assertIs(error.code, Code.GOING_AWAY)
        self.assertEqual(
            [e for e in pair.a.log if isinstance(e, events.PeerGoesAway)],
            [events.PeerGoesAway("back soon")],
        )
        self.send(pair.a, running, 1000)
        self.wait(pair, pair.b, running)
        self.assertTrue(pair.b.open() > 0, "the one who goes may still ask")

    def test_closing_ends_everything_at_both_ends(self) -> None:
        """Every stream breaks, the last event says why, nothing is accepted afterwards."""
        pair = self.pair(2)
        streams = [self.opened(pair) for _ in range(3)]
        pair.a.write(streams[0], pattern(5_000_000))
        pair.run(0.05)
        pair.b.close(Code.IDLE, "enough")
        pair.run(1)
        for end in (pair.a, pair.b):
            self.assertEqual(end.log[-1], events.SessionClosed(Code.IDLE, "enough"))
            self.assertEqual({end.streams[i].outcome for i in streams}, {"reset"})
            self.assertEqual((end.budget.promised, end.budget.stored), (0, 0))
            self.assertRaises(OpenRefused, end.open)
            self.assertEqual(end.session.next_deadline(), float("inf"))
            self.assertFalse(end.session._outbox.has_control or end.session._outbox.has_data)
