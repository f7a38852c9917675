"""L{stripetwist.core.stream}: two halves, and the numbers of streams."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow
from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.stream import Stream, StreamNumbers

LIMITS = Limits(max_memory=32 * MIB)


class StreamTests(SynchronousTestCase):
    """What one stream takes, gives, and holds."""

    def setUp(self) -> None:
        """A stream of ours with a window of 8 KiB."""
        self.budget = MemoryBudget(LIMITS)
        self.stream = Stream(1, True, 8 * KIB, ReceiveWindow(8 * KIB, self.budget, LIMITS))

    def receive(self, offset: int, data: bytes, fin: bool = False) -> int:
        """A chunk comes."""
        return self.stream.received(offset, [data] if data else [], len(data), fin)

    def assert_broken(self, code: Code, offset: int, data: bytes, fin: bool = False) -> None:
        """This chunk is against the rules."""
        error = self.assertRaises(ProtocolError, self.receive, offset, data, fin)
        self.assertIs(error.code, code)

    def test_new_bytes_are_counted(self) -> None:
        """First arrivals are new, copies are not."""
        self.assertEqual(self.receive(3, b"def"), 3)
        self.assertEqual(self.receive(3, b"def"), 0)
        self.assertEqual(self.receive(0, b"abc"), 3)
        self.assertEqual(self.stream.ready, 6)
        self.assertEqual(self.stream.take(100), (b"abcdef", False))

    def test_bytes_to_the_limit_and_not_beyond(self) -> None:
        """The window's last byte is fine, the next is not (C13, C14, C16)."""
        self.receive(8 * KIB - 1, b"x")
        self.assert_broken(Code.FLOW_CONTROL, 8 * KIB, b"x")
        for offset in (2**62, 2**63, 2**64 - 1):
            self.assert_broken(Code.FLOW_CONTROL, offset, b"xy")

    def test_bytes_beyond_the_end_are_about_the_end(self) -> None:
        """Once the size is known, it is the size that is broken (C12)."""
        self.receive(0, b"abc", True)
        self.assert_broken(Code.FINAL_SIZE, 3, b"d")

    def test_empty_data_without_an_end_is_nonsense(self) -> None:
        """No honest peer sends it (C20)."""
        self.assert_broken(Code.STREAM_STATE, 0, b"")
        self.receive(0, b"", True)

    def test_the_end_is_seen_once_all_bytes_were_taken(self) -> None:
        """With the last bytes, or alone."""
        self.receive(3, b"", True)
        self.assertFalse(self.stream.is_readable)
        self.receive(0, b"abc")
        self.assertEqual(self.stream.take(100), (b"abc", True))
        self.assertFalse(self.stream.is_readable)
        self.setUp()
        self.receive(0, b"abc")
        self.assertEqual(self.stream.take(100), (b"abc", False))
        self.receive(3, b"", True)
        self.assertTrue(self.stream.is_readable)
        self.assertEqual(self.stream.take(100), (b"", True))
        self.assertTrue(self.stream.reading_ended)

    def test_takes_at_most_so_much_but_a_piece(self) -> None:
        """A piece is never cut; several are joined up to the limit."""
        for i in range(4):
            self.receive(i * 2048, bytes(2048))
        self.assertEqual(len(self.stream.take(1)[0]), 2048)
        self.assertEqual(len(self.stream.take(5000)[0]), 4096)
        self.assertEqual(len(self.stream.take(5000)[0]), 2048)

    def test_tiny_chunks_cost_little_more_than_their_bytes(self) -> None:
        """A flood of two-byte chunks in order, with a consumer that takes nothing."""
        for i in range(4096):
            self.receive(2 * i, i.to_bytes(2, "big"))
        self.assertLessEqual(len(self.stream._ready), 8)
        data = b""
        while self.stream.is_readable:
            data += self.stream.take(100)[0]
        self.assertEqual(data, b"".join(i.to_bytes(2, "big") for i in range(4096)))

    def test_finished_when_both_halves_are(self) -> None:
        """Each half ends by itself."""
        self.receive(0, b"", True)
        self.stream.take(1)
        self.assertFalse(self.stream.is_finished)
        self.stream.send.end()
        chunk = self.stream.send.cut(1, 10)
        self.assertFalse(self.stream.is_finished)
        self.stream.send.arrived(chunk)
        self.assertTrue(self.stream.is_finished)

    def test_nobody_reads_any_more(self) -> None:
        """What is held is dropped, the promise is given back, the reading half is over."""
        self.receive(0, b"abc")
        self.receive(5, b"fgh")
        self.stream.stop_reading()
        self.assertEqual(self.budget.promised, 0)
        self.assertEqual((self.stream.ready, self.stream.reorder.held), (0, 0))
        self.assertFalse(self.stream.is_readable)
        self.assertTrue(self.stream.reading_ended)


class StreamNumbersTests(SynchronousTestCase):
    """Which of the peer's ids are new."""

    def test_ids_count_up_by_two(self) -> None:
        """Each is new until it is used."""
        numbers = StreamNumbers(1, 10)
        for stream_id in (1, 3, 5):
            self.assertTrue(numbers.is_new(stream_id))
            numbers.use(stream_id)
            self.assertFalse(numbers.is_new(stream_id))

    def test_an_id_jumped_over_stays_new(self) -> None:
        """First frames may overtake each other on different subflows."""
        numbers = StreamNumbers(2, 10)
        numbers.use(8)
        for stream_id in (4, 2, 6):
            self.assertTrue(numbers.is_new(stream_id))
            numbers.use(stream_id)
            self.assertFalse(numbers.is_new(stream_id))
        self.assertFalse(numbers.is_new(8))
        self.assertEqual(len(numbers._gaps), 0)

    def test_parity(self) -> None:
        """Odd are the dialer's, even the acceptor's, zero nobody's."""
        odd, even = StreamNumbers(1, 10), StreamNumbers(2, 10)
        self.assertEqual([odd.has_parity(i) for i in range(4)], [False, True, False, True])
        self.assertEqual([even.has_parity(i) for i in range(4)], [False, False, True, False])

    def test_a_huge_jump_costs_nothing(self) -> None:
        """Further than an honest peer has streams is an error, before memory is used (C34)."""
        numbers = StreamNumbers(1, 10)
        error = self.assertRaises(ProtocolError, numbers.use, 2**32 - 1)
        self.assertIs(error.code, Code.LIMIT)
        self.assertEqual(len(numbers._gaps), 0)
        numbers.use(21)
        self.assertEqual(len(numbers._gaps), 10)
        self.assertRaises(ProtocolError, numbers.use, 25)
        numbers.use(23)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 60), max_size=60), st.sampled_from([1, 2]))
    def test_agrees_with_a_set(self, order: list[int], parity: int) -> None:
        """Whatever the order: new is what was never used."""
        numbers = StreamNumbers(parity, 1000)
        used: set[int] = set()
        for place in order:
            stream_id = parity + 2 * place
            self.assertEqual(numbers.is_new(stream_id), stream_id not in used)
            if stream_id not in used:
                numbers.use(stream_id)
                used.add(stream_id)
            self.assertEqual(numbers.highest, max(used))
