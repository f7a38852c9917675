"""L{stripetwist.core.chunks}: a stream's outgoing bytes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.chunks import Chunk, SendBuffer
from stripetwist.core.errors import UsageViolation

EXAMPLES = settings(max_examples=100, deadline=None)
FAR = 2**40


class SendBufferTests(SynchronousTestCase):
    """Unsent bytes, and chunks until they have arrived."""

    def setUp(self) -> None:
        """An empty buffer."""
        self.buffer = SendBuffer(7)

    def cut_all(self, size: int = 65516, limit: int = FAR) -> list[Chunk]:
        """Every chunk that can be cut now."""
        chunks = []
        while self.buffer.may_cut(limit):
            chunks.append(self.buffer.cut(size, limit))
        return chunks

    @EXAMPLES
    @given(
        st.lists(st.binary(max_size=5000), max_size=20),
        st.integers(1, 4000),
        st.lists(st.integers(0, 40000), max_size=5),
    )
    def test_chunks_are_the_written_bytes(
        self, writes: list[bytes], size: int, limits: list[int]
    ) -> None:
        """However it was written and cut, the chunks follow each other and are the bytes."""
        buffer = self.buffer = SendBuffer(7)
        for data in writes:
            buffer.write(data)
        whole = b"".join(writes)
        self.assertEqual((buffer.unsent, buffer.stored), (len(whole), len(whole)))
        buffer.end()
        found: list[tuple[Chunk, bytes]] = []
        for limit in [*sorted(limits), FAR]:
            for chunk in self.cut_all(size, limit):
                self.assertEqual(chunk.offset, sum(len(data) for _, data in found))
                self.assertLessEqual(chunk.offset + len(chunk.data), limit)
                self.assertLessEqual(len(chunk.data), size)
                found.append((chunk, chunk.data))
            for chunk, _ in found:
                buffer.arrived(chunk)
        while buffer.may_cut(FAR):
            chunk = buffer.cut(size, FAR)
            found.append((chunk, chunk.data))
            buffer.arrived(chunk)
        self.assertEqual(b"".join(data for _, data in found), whole)
        self.assertEqual([c.fin for c, _ in found], [False] * (len(found) - 1) + [True])
        self.assertEqual((buffer.unsent, buffer.stored), (0, 0))
        self.assertTrue(buffer.is_finished)

    def test_an_end_after_the_last_chunk_is_an_empty_chunk(self) -> None:
        """The end needs no credit, and is a chunk like any other."""
        self.buffer.write(b"abc")
        (chunk,) = self.cut_all(limit=3)
        self.assertFalse(chunk.fin)
        self.assertFalse(self.buffer.has_more)
        self.buffer.end()
        self.assertTrue(self.buffer.has_more)
        (end,) = self.cut_all(limit=3)
        self.assertEqual((end.data, end.offset, end.fin), (b"", 3, True))
        self.buffer.arrived(chunk)
        self.assertFalse(self.buffer.is_finished)
        self.buffer.arrived(end)
        self.assertTrue(self.buffer.is_finished)
        self.assertEqual(self.cut_all(), [])

    def test_an_end_does_not_overtake_bytes_without_credit(self) -> None:
        """Bytes that wait for credit keep the end waiting."""
        self.buffer.write(b"abcdef")
        self.buffer.end()
        (chunk,) = self.cut_all(limit=3)
        self.assertEqual((chunk.data, chunk.fin), (b"abc", False))
        self.assertFalse(self.buffer.may_cut(3))
        (chunk,) = self.cut_all(limit=6)
        self.assertEqual((chunk.data, chunk.fin), (b"def", True))

    def test_writing_after_the_end_is_our_mistake(self) -> None:
        """Nothing can follow the end."""
        self.buffer.end()
        self.assertRaises(UsageViolation, self.buffer.write, b"x")

    def test_an_acknowledgement_counts_once(self) -> None:
        """Arriving on two subflows frees the bytes once."""
        self.buffer.write(b"abc")
        (chunk,) = self.cut_all()
        self.assertEqual(self.buffer.arrived(chunk), 3)
        self.assertEqual(self.buffer.arrived(chunk), 0)
        self.assertEqual(chunk.data, b"")

    def test_discarding_frees_everything(self) -> None:
        """After a reset nothing is held, nothing more can be cut, late news frees nothing."""
        self.buffer.write(bytes(5000))
        chunk = self.buffer.cut(2000, FAR)
        self.assertEqual(self.buffer.discard(), 5000)
        self.assertTrue(chunk.done)
        self.assertEqual((self.buffer.unsent, self.buffer.stored), (0, 0))
        self.assertFalse(self.buffer.may_cut(FAR))
        self.assertEqual(self.buffer.arrived(chunk), 0)
        self.assertEqual(self.buffer.discard(), 0)
        self.assertEqual(self.buffer.offset, 2000)

    def test_tiny_writes_are_held_as_few_pieces(self) -> None:
        """A target that sends by the byte must not make us hold an object for each."""
        for i in range(10000):
            self.buffer.write(bytes([i % 251]))
        self.assertLess(len(self.buffer._queue), 10)
        (chunk,) = self.cut_all()
        self.assertEqual(chunk.data, bytes(i % 251 for i in range(10000)))

    def test_small_chunks_gather_when_many_are_on_their_way(self) -> None:
        """The receiver bounds small chunks, so we send few at a time; the rest gathers."""
        chunks = []
        for _ in range(100):
            self.buffer.write(b"0123456789")
            chunks += self.cut_all()
        self.assertEqual(len(chunks), 16)
        self.assertEqual(self.buffer.unsent, 840)
        self.buffer.arrived(chunks[1])
        self.assertFalse(self.buffer.may_cut(FAR), "the first is still missing")
        self.buffer.arrived(chunks[0])
        (chunk,) = self.cut_all()
        self.assertEqual(len(chunk.data), 840)

    def test_large_chunks_never_wait(self) -> None:
        """What fills a good part of a frame may always leave."""
        self.buffer.write(bytes(2048 * 500))
        self.assertEqual(len(self.cut_all(2048)), 500)

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from([1, 50, 700, 2047, 2048, 5000]), st.integers(0, 3)),
            min_size=30,
            max_size=200,
        ),
        st.data(),
    )
    def test_a_window_never_holds_too_many_chunks(
        self, writes: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        """Between the first missing byte and any later one lie few chunks (reorder.py)."""
        buffer = self.buffer = SendBuffer(7)
        missing: list[Chunk] = []
        for size, acks in writes:
            buffer.write(bytes(size))
            missing += self.cut_all()
            for _ in range(min(acks, len(missing))):
                buffer.arrived(missing.pop(data.draw(st.integers(0, len(missing) - 1))))
            if missing:
                lowest = missing[0]
                span = buffer.offset - lowest.offset
                self.assertLessEqual(buffer._cuts - lowest.number, 64 + span // 1024)
