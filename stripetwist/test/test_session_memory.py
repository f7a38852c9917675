"""Credit and memory: who stops stops alone, and nothing is over-promised."""

from dataclasses import replace

from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.events import StreamOpened
from stripetwist.test.engine_case import EngineCase
from stripetwist.testing import End, Pair, pattern

SMALL = Limits(max_memory=32 * MIB)


class IdleTests(EngineCase):
    """Windows that were large once, and whose streams have gone idle."""

    def test_the_next_stream_is_fast_all_the_same(self) -> None:
        """After eight that have carried much and stay open, the ninth has a window that does."""
        pair = Pair(SMALL)
        pair.add_many(4, 3e6, 0.05)
        for _ in range(8):
            stream_id = self.opened(pair)
            self.send(pair.a, stream_id, 6_000_000)
            self.wait(pair, pair.b, stream_id)
        pair.run(60)
        seconds = self.upload(pair, 6_000_000)
        self.assertLess(seconds, 4)


class ConsumerTests(EngineCase):
    """A consumer that stops blocks itself and nobody else."""

    def test_a_stopped_consumer_blocks_only_its_stream(self) -> None:
        """The others run at full rate, and the stopped one holds no more than its window."""
        pair = self.pair(3, rate=4e6)
        stuck, free = self.opened(pair), self.opened(pair)
        pair.b.stop_reading(stuck)
        pair.a.write(stuck, pattern(30_000_000, 1))
        pair.run(3)
        window = pair.b.session._streams.table[stuck].window
        self.assertEqual(window.consumed, 0)
        self.assertEqual(pair.b.session._streams.table[stuck].ready, window.limit)
        before = pair.heap.now
        data = self.send(pair.a, free, 12_000_000, 2)
        self.wait(pair, pair.b, free)
        self.assertLess(pair.heap.now - before, 1.25)
        self.assertEqual(bytes(pair.b.streams[free].got), data)
        self.assertEqual(bytes(pair.b.streams[stuck].got), b"")
        pair.b.resume_reading(stuck)
        pair.run_while(lambda: len(pair.b.streams[stuck].got) < 30_000_000)
        self.assertEqual(bytes(pair.b.streams[stuck].got), pattern(30_000_000, 1))

    def test_a_stopped_consumer_holds_nothing_at_the_sender(self) -> None:
        """A writer that heeds the session stops at the credit, and goes on with it."""
        pair = self.pair(3)
        stuck = self.opened(pair)
        pair.b.stop_reading(stuck)
        while (room := pair.a.session.room_left(stuck)) > 0:
            pair.a.write(stuck, bytes(min(room, 64 * KIB)))
            pair.run(0.2)
        pair.run(5)
        self.assertEqual(pair.a.budget.stored, 0)
        self.assertFalse(pair.a.streams[stuck].may_write)
        pair.b.resume_reading(stuck)
        pair.run(1)
        self.assertTrue(pair.a.streams[stuck].may_write)

    def test_a_stopped_consumers_window_does_not_grow(self) -> None:
        """What nobody takes is no reason for more."""
        pair = Pair(replace(SMALL, first_window=64 * KIB))
        pair.add()
        stream_id = self.opened(pair)
        pair.b.stop_reading(stream_id)
        pair.a.write(stream_id, bytes(4_000_000))
        pair.run(10)
        self.assertLessEqual(pair.b.session._streams.table[stream_id].window.size, 128 * KIB)

    def test_windows_grow_where_frames_are_long(self) -> None:
        """A frame as long as the window, taken at once, is no sign of a slow consumer."""
        pair = Pair(replace(SMALL, max_memory=256 * MIB, first_window=8 * KIB))
        pair.add_many(2, 60e6, 0.01)
        size = 3_000_000
        for _ in range(2):
            stream_id = self.opened(pair)
            pair.a.write(stream_id, bytes(size))
            pair.run(0.3)
            self.assertEqual(len(pair.b.streams[stream_id].got), size)

    def test_a_slow_consumer_gets_what_it_takes(self) -> None:
        """On and off, everything arrives in order."""
        pair = self.pair(2)
        stream_id = self.opened(pair)
        data = self.send(pair.a, stream_id, 4_000_000)
        for _ in range(40):
            pair.b.stop_reading(stream_id)
            pair.run(0.03)
            pair.b.resume_reading(stream_id)
            pair.run(0.005)
        self.wait(pair, pair.b, stream_id)
        self.assertEqual(bytes(pair.b.streams[stream_id].got), data)

    def test_both_write_and_neither_reads(self) -> None:
        """Each stream stops at its window, in both directions; others go on."""
        pair = self.pair(2)
        stuck, free = self.opened(pair), self.opened(pair)
        for end in (pair.a, pair.b):
            end.stop_reading(stuck)
            end.write(stuck, pattern(5_000_000))
        pair.run(5)
        data = self.send(pair.a, free, 1_000_000)
        self.wait(pair, pair.b, free)
        self.assertEqual(bytes(pair.b.streams[free].got), data)
        for end in (pair.a, pair.b):
            end.resume_reading(stuck)
            end.end(stuck)
        for end in (pair.a, pair.b):
            self.wait(pair, end, stuck)
        pair.b.end(free)
        self.assert_at_rest(pair)


class BudgetTests(EngineCase):
    """All that is promised and stored stays within the process's share."""

    def check(self, end: End, most_stored: int) -> None:
        """The budget says what a recount says, and is within its bounds."""
        table = end.session._streams.table.values()
        promised = sum(s.window.booked for s in table)
        self.assertEqual(end.budget.promised, promised)
        self.assertEqual(end.budget.stored, sum(s.send.stored for s in table))
        self.assertLessEqual(end.budget.promised, end.limits.max_memory * 3 // 4)
        self.assertLessEqual(end.budget.stored, most_stored)

    def test_five_hundred_stopped_consumers(self) -> None:
        """32 MiB: promised at most 24, stored at most 8 and one write; all of it given back."""
        pair = Pair(SMALL)
        pair.add_many(4)
        one_write = 64 * KIB
        ids = []
        for number in range(500):
            stream_id = pair.a.open()
            pair.run(0.02)
            pair.b.stop_reading(stream_id)
            ids.append(stream_id)
            # As the driver does: nobody reads his local socket while the store is full.
            for other in (ids[-1], ids[number // 2]):
                if pair.a.streams[other].may_write and not pair.a.session.is_short:
                    pair.a.write(other, pattern(one_write, other))
            self.check(pair.a, 8 * MIB + one_write)
            self.check(pair.b, 8 * MIB + one_write)
        while not pair.a.session.is_short:
            pair.a.write(ids[7], pattern(one_write))
        pair.run(5)
        self.assertTrue(all(pair.a.streams[i].outcome == "open" for i in ids))
        self.check(pair.a, 8 * MIB + one_write)
        self.check(pair.b, 0)
        held = sum(s.ready + s.reorder.held for s in pair.b.session._streams.table.values())
        self.assertGreater(held, 2 * MIB)
        self.assertLessEqual(held, pair.b.budget.promised)
        for stream_id in ids:
            pair.a.end(stream_id)
            pair.b.resume_reading(stream_id)
            pair.b.end(stream_id)
        self.assert_at_rest(pair)
        for stream_id in ids:
            carried = pair.a.streams[stream_id]
            self.assertEqual(pair.b.streams[stream_id].got, carried.wrote)

    def test_streams_beyond_the_budget_are_refused(self) -> None:
        """With OVERLOAD, by whichever end has no memory left; never broken later."""
        pair = Pair(Limits(max_memory=64 * MIB), replace(SMALL, max_memory=MIB))
        pair.add()
        for _ in range(200):
            pair.a.open()
        pair.run(2)
        accepted = [i for i, c in pair.a.streams.items() if c.outcome == "open"]
        self.assertEqual(len(accepted) + pair.a.session._streams.counters["refused"], 200)
        self.assertTrue(60 < len(accepted) <= 96, len(accepted))
        self.check(pair.b, 0)
        opened = [e for e in pair.b.log if isinstance(e, StreamOpened)]
        self.assertEqual(len(opened), len(accepted))
        error = self.assertRaises(OpenRefused, pair.b.open)
        self.assertIs(error.code, Code.OVERLOAD)
        for stream_id in accepted:
            pair.a.reset(stream_id)
        pair.run(1)
        self.assertEqual(pair.b.budget.promised, 0)
        pair.a.open()
        pair.run(1)

    def test_a_full_store_holds_writers_and_lets_them_go(self) -> None:
        """Everybody who was told to wait is told when there is room, without being asked."""
        pair = Pair(replace(SMALL, max_memory=2 * MIB))
        pair.add(1e6)
        ids = [self.opened(pair) for _ in range(4)]
        for stream_id in ids:
            pair.a.write(stream_id, pattern(200_000, stream_id))
        self.assertTrue(pair.a.session.is_short)
        self.assertEqual({pair.a.streams[i].may_write for i in ids[2:]}, {False})
        pair.run(2)
        self.assertEqual({pair.a.streams[i].may_write for i in ids}, {True})
        self.check(pair.a, 0)

    def test_who_has_nothing_unsent_is_told_as_well(self) -> None:
        """Only the store held it back, and only others' acknowledgements free that."""
        pair = Pair(replace(SMALL, max_memory=2 * MIB))
        pair.add(1e6)
        large, small = self.opened(pair), self.opened(pair)
        pair.a.write(large, pattern(700_000))
        pair.a.write(small, b"x")
        pair.run(0.05)
        self.assertEqual(pair.a.session._streams.table[small].send.unsent, 0)
        self.assertFalse(pair.a.streams[small].may_write)
        pair.run(2)
        self.assertTrue(pair.a.streams[small].may_write)

    def test_a_stop_makes_room_for_others(self) -> None:
        """What the peer does not want any more is not stored."""
        pair = Pair(replace(SMALL, max_memory=2 * MIB))
        pair.add(1e6)
        large, small = self.opened(pair), self.opened(pair)
        pair.b.stop_reading(large)
        pair.a.write(large, pattern(700_000))
        pair.a.write(small, b"x")
        pair.run(3)
        self.assertFalse(pair.a.streams[small].may_write)
        pair.b.session.stop_reading(large)
        pair.b.turn()
        pair.run(0.2)
        self.assertTrue(pair.a.streams[small].may_write)

    def test_another_sessions_bytes_fill_the_same_store(self) -> None:
        """Who waits for these has to be told by whoever knows both sessions."""
        pair = Pair(replace(SMALL, max_memory=2 * MIB))
        pair.add(1e6)
        stream_id = self.opened(pair)
        pair.a.budget.stored += MIB
        pair.a.write(stream_id, b"x")
        self.assertFalse(pair.a.streams[stream_id].may_write)
        pair.run(1)
        self.assertFalse(pair.a.streams[stream_id].may_write)
        pair.a.budget.stored -= MIB
        pair.a.session.room_again()
        pair.a.turn()
        self.assertTrue(pair.a.streams[stream_id].may_write)

    def test_resets_give_everything_back(self) -> None:
        """At once, at both ends, whatever was under way."""
        pair = self.pair(2, rate=1e6)
        ids = [self.opened(pair) for _ in range(20)]
        for stream_id in ids:
            pair.b.stop_reading(stream_id)
            pair.a.write(stream_id, pattern(100_000))
            pair.b.write(stream_id, pattern(100_000))
        pair.run(0.2)
        for stream_id in ids:
            pair.a.reset(stream_id)
        self.assertEqual((pair.a.budget.promised, pair.a.budget.stored), (0, 0))
        pair.run(1)
        self.assertEqual((pair.b.budget.promised, pair.b.budget.stored), (0, 0))
        self.assert_at_rest(pair)

    def test_streams_come_and_go_by_the_thousand(self) -> None:
        """Numbers, memory and tables are as before (row 57)."""
        pair = self.pair(2)
        for _ in range(25):
            ids = [pair.a.open() for _ in range(100)]
            pair.run(0.05)
            for stream_id in ids:
                pair.a.write(stream_id, b"hello")
                pair.a.end(stream_id)
                pair.b.end(stream_id)
            pair.run(0.1)
        self.assert_at_rest(pair)
        self.assertEqual({c.outcome for c in pair.b.streams.values()}, {"finished"})
        self.assertEqual({bytes(c.got) for c in pair.b.streams.values()}, {b"hello"})
