"""L{stripetwist.core.reorder}: bytes that came before their turn."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.reorder import ReorderBuffer
from stripetwist.testing import pattern

EXAMPLES = settings(max_examples=100, deadline=None)
WINDOW = 65536


class ReorderBufferTests(SynchronousTestCase):
    """Any order in, stream order out, once."""

    def setUp(self) -> None:
        """An empty buffer."""
        self.buffer = ReorderBuffer()

    def put(self, offset: int, data: bytes, window: int = WINDOW) -> bytes:
        """Insert a chunk; what leaves."""
        return b"".join(self.buffer.insert(offset, [data], len(data), window))

    def assert_broken(self, code: Code, offset: int, data: bytes) -> None:
        """This chunk is against the rules."""
        error = self.assertRaises(ProtocolError, self.put, offset, data)
        self.assertIs(error.code, code)

    @EXAMPLES
    @given(
        st.lists(st.integers(1, 300), min_size=1, max_size=30),
        st.randoms(use_true_random=False),
        st.integers(1, 3),
    )
    def test_any_order_any_copies(self, sizes: list[int], random: object, copies: int) -> None:
        """Chunks in any order, some twice, give the stream once (fault rows 55, 56)."""
        whole = pattern(sum(sizes))
        chunks = []
        at = 0
        for size in sizes:
            chunks.append((at, whole[at : at + size]))
            at += size
        chunks *= copies
        random.shuffle(chunks)  # type: ignore[attr-defined]
        buffer = self.buffer = ReorderBuffer()
        buffer.end_at(len(whole))
        out = b""
        for offset, data in chunks:
            out += self.put(offset, data)
            self.assertEqual(out, whole[: len(out)])
            self.assertEqual(len(out), buffer.next_offset)
            self.assertLessEqual(buffer.held, buffer.highest - buffer.next_offset)
        self.assertEqual(out, whole)
        self.assertTrue(buffer.is_complete)
        self.assertEqual(buffer.held, 0)

    def test_pieces_leave_as_they_came(self) -> None:
        """Nothing is copied together on the way."""
        self.assertEqual(self.buffer.insert(3, [b"d", b"ef"], 3, WINDOW), [])
        self.assertEqual(
            self.buffer.insert(0, [b"ab", b"c"], 3, WINDOW), [b"ab", b"c", b"d", b"ef"]
        )

    def test_a_late_copy_is_dropped(self) -> None:
        """What has left, or waits, is not wanted again."""
        self.put(0, b"abc")
        self.put(6, b"ghi")
        self.assertEqual(self.put(0, b"abc"), b"")
        self.assertEqual(self.put(6, b"ghi"), b"")
        self.assertEqual((self.buffer.next_offset, self.buffer.held), (3, 3))

    def test_other_boundaries_are_an_error(self) -> None:
        """A chunk is never cut anew, so an overlap is a lie (C17, C18)."""
        self.put(0, b"abc")
        self.assert_broken(Code.STREAM_STATE, 2, b"cd")
        self.put(6, b"ghi")
        self.assert_broken(Code.STREAM_STATE, 6, b"gh")

    def test_overlaps_among_the_waiting_are_found(self) -> None:
        """More bytes than there is room for do not hide behind a gap."""
        self.put(1, b"bcdef")
        self.assert_broken(Code.STREAM_STATE, 2, b"cdefg")
        self.setUp()
        self.put(5, b"fghij")
        self.assert_broken(Code.STREAM_STATE, 0, b"abcdefg")

    def test_bytes_beyond_the_end_are_an_error(self) -> None:
        """The end, once said, holds (C09, C12)."""
        self.buffer.end_at(5)
        self.assert_broken(Code.FINAL_SIZE, 5, b"f")
        self.assert_broken(Code.FINAL_SIZE, 2**63, b"f")
        self.assertEqual(self.put(0, b"abcde"), b"abcde")
        self.assertTrue(self.buffer.is_complete)

    def test_the_end_cannot_move(self) -> None:
        """The same end again is fine, another is not (C10, C11)."""
        self.buffer.end_at(5)
        self.buffer.end_at(5)
        for final in (4, 6):
            self.assertIs(
                self.assertRaises(ProtocolError, self.buffer.end_at, final).code, Code.FINAL_SIZE
            )

    def test_the_end_cannot_come_before_bytes(self) -> None:
        """Bytes that came are within the stream (C11)."""
        self.put(5, b"fg")
        self.assertRaises(ProtocolError, self.buffer.end_at, 6)
        self.buffer.end_at(7)

    def test_an_empty_end_is_never_stored(self) -> None:
        """An end without bytes takes no room, however often it comes (C20, C21)."""
        self.buffer.end_at(3)
        for _ in range(3):
            self.assertEqual(self.put(3, b""), b"")
        self.assertEqual(len(self.buffer._waiting), 0)
        self.assertFalse(self.buffer.is_complete)
        self.put(0, b"abc")
        self.assertTrue(self.buffer.is_complete)

    def test_an_empty_stream_is_complete_at_once(self) -> None:
        """Nothing but an end."""
        self.buffer.end_at(0)
        self.put(0, b"")
        self.assertTrue(self.buffer.is_complete)

    def test_a_flood_of_tiny_chunks_is_bounded(self) -> None:
        """Every second byte as a chunk: a stream's own nonsense (C19)."""
        for i in range(64 + WINDOW // 1024):
            self.put(1 + 2 * i, b"x")
        self.assert_broken(Code.LIMIT, WINDOW - 1, b"x")

    def test_a_long_run_leaves_in_time(self) -> None:
        """Ten thousand chunks behind one gap leave together."""
        for i in range(1, 10000):
            self.put(i, b"x", 2**24)
        self.assertEqual(len(self.put(0, b"x", 2**24)), 10000)

    def test_discarding_drops_what_waits(self) -> None:
        """Nobody will read it."""
        self.put(5, b"abc")
        self.buffer.discard()
        self.assertEqual((self.buffer.held, len(self.buffer._waiting)), (0, 0))
