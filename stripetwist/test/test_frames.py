"""L{stripetwist.core.frames}: what the bytes of a subflow mean."""

import tracemalloc
import zlib
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import frames
from stripetwist.core.errors import Code, FramingError, OpenRefused
from stripetwist.core.frames import HEADER, HEADER_SIZE, Frame, FrameParser
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target

EXAMPLES = settings(max_examples=50, deadline=None)
REQUEST = OpenRequest(Target.of("example.com", 443), exit="attic")
ANYTHING = OpenRequest(ANYWHERE, Kind.UDP, bind=Target.of("127.0.0.1", 51820), copies=2)

# name, the frame as it is built, the bytes, and what is parsed of them.
GOLDEN: list[tuple[str, bytes, str, tuple[int, int, int, int, int, bytes]]] = [
    (
        "DATA with FIN",
        frames.pack_with(b"hello", frames.DATA, frames.FIN, 0, 3, 65536),
        "00 01 0000 00000005 00000003 0000000000010000 68656c6c6f",
        (0x00, 1, 0, 3, 65536, b"hello"),
    ),
    (
        "DATA again",
        frames.pack_with(b"hi", frames.DATA, frames.COPY, 0, 2**31, 2**40),
        "00 02 0000 00000002 80000000 0000010000000000 6869",
        (0x00, 2, 0, 2**31, 2**40, b"hi"),
    ),
    (
        "ACK",
        frames.pack(frames.ACK, aux=390, offset=1_000_000),
        "01 00 0186 00000000 00000000 00000000000f4240",
        (0x01, 0, 390, 0, 1_000_000, b""),
    ),
    (
        "CREDIT of two streams",
        frames.pack_credit([(1, 65536), (2, 2**33)]),
        "02 00 0002 00000018 00000000 0000000000000000"
        "00000001 0000000000010000 00000002 0000000200000000",
        (0x02, 0, 2, 0, 0, bytes.fromhex("00000001000000000001000000000002 0000000200000000")),
    ),
    (
        "OPEN by name, with an exit",
        frames.pack_open(5, 4_194_304, REQUEST),
        "03 00 0001 0000001a 00000005 0000000000400000"
        "01 000f 03 0b 6578616d706c652e636f6d 01bb 02 0005 6174746963",
        (
            0x03,
            0,
            1,
            5,
            4_194_304,
            bytes.fromhex("01000f030b6578616d706c652e636f6d01bb0200056174746963"),
        ),
    ),
    (
        "OPEN of an IPv4 address, UDP",
        frames.pack_open(2, 0, OpenRequest(Target.of("192.0.2.1", 53), Kind.UDP)),
        "03 00 0002 0000000a 00000002 0000000000000000 01 0007 01 c0000201 0035",
        (0x03, 0, 2, 2, 0, bytes.fromhex("01000701c00002010035")),
    ),
    (
        "OPEN of no address, bound, on two paths",
        frames.pack_open(1, 0, ANYTHING),
        "03 00 0002 0000000e 00000001 0000000000000000 05 0007 01 7f000001 ca6c 06 0001 02",
        (0x03, 0, 2, 1, 0, bytes.fromhex("050007017f000001ca6c06000102")),
    ),
    (
        "OPEN of an IPv6 address, resolve",
        frames.pack_open(7, 1, OpenRequest(Target.of("2001:db8::1", 80), Kind.RESOLVE)),
        "03 00 0003 00000016 00000007 0000000000000001"
        "01 0013 04 20010db8000000000000000000000001 0050",
        (0x03, 0, 3, 7, 1, bytes.fromhex("0100130420010db80000000000000000000000010050")),
    ),
    (
        "ACCEPT",
        frames.pack(frames.ACCEPT, stream=5, offset=4_194_304),
        "04 00 0000 00000000 00000005 0000000000400000",
        (0x04, 0, 0, 5, 4_194_304, b""),
    ),
    (
        "REFUSE",
        frames.pack_with(frames.pack_text("no\n"), frames.REFUSE, 0, Code.NOT_ALLOWED, 5),
        "05 00 0002 00000004 00000005 0000000000000000 6e6f5c6e",
        (0x05, 0, 2, 5, 0, b"no\\n"),
    ),
    (
        "RESET",
        frames.pack(frames.RESET, 0, Code.PEER_RESET, 5, 1234),
        "06 00 0029 00000000 00000005 00000000000004d2",
        (0x06, 0, 41, 5, 1234, b""),
    ),
    (
        "STOP",
        frames.pack(frames.STOP, 0, Code.CANCELLED, 5),
        "07 00 0028 00000000 00000005 0000000000000000",
        (0x07, 0, 40, 5, 0, b""),
    ),
    (
        "PING",
        frames.pack(frames.PING, offset=2**40 + 1),
        "09 00 0000 00000000 00000000 0000010000000001",
        (0x09, 0, 0, 0, 2**40 + 1, b""),
    ),
    (
        "PONG",
        frames.pack(frames.PONG, aux=65535, offset=2**40 + 1),
        "0a 00 ffff 00000000 00000000 0000010000000001",
        (0x0A, 0, 65535, 0, 2**40 + 1, b""),
    ),
    (
        "DGRAM",
        b"".join(frames.pack_datagram(9, 77, b"", b"ping", False)),
        "0b 00 0000 00000004 00000009 000000000000004d 70696e67",
        (0x0B, 0, 0, 9, 77, b"ping"),
    ),
    (
        "DGRAM of no bytes that names its peer, on its second path",
        b"".join(frames.pack_datagram(9, 78, Target.of("127.0.0.1", 53).encode(), b"", True)),
        "0b 06 0000 00000007 00000009 000000000000004e 017f0000010035",
        (0x0B, 6, 0, 9, 78, b"\x01\x7f\0\0\x01\0\x35"),
    ),
    (
        "SUBFLOW_FINAL",
        frames.pack_final(6, 99),
        "0c 00 0000 00000004 00000000 0000000000000063 00000006",
        (0x0C, 0, 0, 0, 99, b"\0\0\0\x06"),
    ),
    (
        "SUBFLOW_DRAIN",
        frames.pack(frames.SUBFLOW_DRAIN, aux=Code.GOING_AWAY),
        "0d 00 000f 00000000 00000000 0000000000000000",
        (0x0D, 0, 15, 0, 0, b""),
    ),
    (
        "GOAWAY",
        frames.pack_with(b"bye", frames.GOAWAY, 0, Code.GOING_AWAY),
        "0e 00 000f 00000003 00000000 0000000000000000 627965",
        (0x0E, 0, 15, 0, 0, b"bye"),
    ),
    (
        "CLOSE",
        frames.pack_with(b"bye", frames.CLOSE, 0, Code.PROTOCOL),
        "0f 00 0014 00000003 00000000 0000000000000000 627965",
        (0x0F, 0, 20, 0, 0, b"bye"),
    ),
    (
        "PAD",
        frames.pack_with(bytes(3), frames.PAD),
        "80 00 0000 00000003 00000000 0000000000000000 000000",
        (0x80, 0, 0, 0, 0, bytes(3)),
    ),
    (
        "a skippable type of the future, every flag set",
        frames.pack_with(b"?", 0xFF, 0xFF, 0xFFFF, 2**32 - 1, 2**64 - 1),
        "ff ff ffff 00000001 ffffffff ffffffffffffffff 3f",
        (0xFF, 0xFF, 0xFFFF, 2**32 - 1, 2**64 - 1, b"?"),
    ),
]


def crc(value: int, data: bytes) -> int:
    """A stand-in for CRC32C, which is the network side's to provide."""
    return zlib.crc32(data, value)


def flat(frame: Frame) -> tuple[int, int, int, int, int, bytes]:
    """A parsed frame with its payload in one piece."""
    kind, flags, aux, stream, offset, pieces, length = frame
    payload = b"".join(pieces)
    assert len(payload) == length
    return kind, flags, aux, stream, offset, payload


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def built(frame: tuple[int, int, int, int, int, bytes]) -> bytes:
    """The bytes of a frame."""
    kind, flags, aux, stream, offset, payload = frame
    return HEADER.pack(kind, flags, aux, len(payload), stream, offset) + payload


PLACES = st.lists(st.integers(0, 2**20), max_size=12)
SHORT = st.binary(max_size=80)


def header_of(kinds: st.SearchStrategy[int], payload: st.SearchStrategy[bytes]) -> "FRAMES":
    """Frames of these types."""
    return st.tuples(
        kinds,
        st.integers(0, 255),
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        payload,
    )


FRAMES = st.SearchStrategy[tuple[int, int, int, int, int, bytes]]
_EMPTY = [frames.RESET, frames.STOP, frames.PONG, frames.SUBFLOW_DRAIN]
ANY_FRAME: FRAMES = st.one_of(
    header_of(st.sampled_from([*(k for k in frames.NAMES if k not in _EMPTY), 0x81, 0xFF]), SHORT),
    header_of(st.sampled_from(_EMPTY), st.just(b"")),
    header_of(st.just(frames.DATA), st.binary(min_size=2000, max_size=9000)),
)


class GoldenTests(SynchronousTestCase):
    """Every frame of version 1, byte for byte."""

    def test_frames_are_built_as_specified(self) -> None:
        """Each frame's bytes are those of the specification."""
        for name, made, text, _ in GOLDEN:
            self.assertEqual(made.hex(), bytes.fromhex(text).hex(), name)

    def test_frames_are_read_as_specified(self) -> None:
        """Each frame's bytes mean what the specification says."""
        for name, _, text, expected in GOLDEN:
            parser = FrameParser()
            found = parser.feed(bytes.fromhex(text))
            self.assertEqual([flat(frame) for frame in found], [expected], name)
            self.assertIsNone(parser.error, name)

    def test_every_type_has_its_vector(self) -> None:
        """No frame of version 1 is missing above."""
        self.assertEqual(set(frames.NAMES) - {expected[0] for _, _, _, expected in GOLDEN}, set())

    def test_an_open_means_what_was_asked(self) -> None:
        """The request that was packed is the request that is read."""
        for request in (
            REQUEST,
            OpenRequest(Target.of("192.0.2.1", 53), Kind.UDP),
            OpenRequest(Target.of("2001:db8::1", 80), Kind.RESOLVE),
            ANYTHING,
        ):
            (frame,) = FrameParser().feed(frames.pack_open(1, 9, request))
            kind, _, aux, stream, offset, payload = flat(frame)
            self.assertEqual((kind, stream, offset), (frames.OPEN, 1, 9))
            self.assertEqual(frames.parse_open(aux, payload), request)


class DatagramTests(SynchronousTestCase):
    """What a DGRAM carries."""

    def test_as_it_was_packed(self) -> None:
        """Payload and peer, of any size there is."""
        for peer in (None, Target.of("::1", 53), Target.of("n" * 63 + ".example", 65535)):
            for payload in (b"", b"x", bytes(frames.MAX_DATAGRAM)):
                address = peer.encode() if peer else b""
                made = b"".join(frames.pack_datagram(1, 2**40, address, payload, False))
                (frame,) = FrameParser().feed(made)
                _, flags, _, _, number, carried = flat(frame)
                self.assertEqual(number, 2**40)
                self.assertEqual(frames.parse_datagram(flags, carried), (payload, peer))

    def test_a_cut_address(self) -> None:
        """Is a broken frame."""
        whole = Target.of("a.example", 53).encode()
        for size in range(len(whole)):
            with self.assertRaises(FramingError):
                frames.parse_datagram(frames.ADDRESSED, whole[:size])

    def test_nonsense(self) -> None:
        """A name that is none, a form nobody knows, port 0, or too much."""
        for payload in (b"\x03\x01/\0\x50", b"\x07abcdefgh", b"\x01\x7f\0\0\x01\0\0x"):
            with self.assertRaises(OpenRefused):
                frames.parse_datagram(frames.ADDRESSED, payload)
        with self.assertRaises(OpenRefused):
            frames.parse_datagram(0, bytes(frames.MAX_DATAGRAM + 1))


class ParserTests(SynchronousTestCase):
    """Frames out of bytes, however these are cut."""

    @EXAMPLES
    @given(st.lists(ANY_FRAME, max_size=6), PLACES)
    def test_any_cut_gives_the_same_frames(
        self, sent: list[tuple[int, int, int, int, int, bytes]], places: list[int]
    ) -> None:
        """What was packed is parsed, wherever the bytes are cut."""
        data = b"".join(map(built, sent))
        parser = FrameParser()
        found = [flat(frame) for piece in cut(data, places) for frame in parser.feed(piece)]
        self.assertEqual(found, sent)
        self.assertIsNone(parser.error)
        self.assertEqual(parser.parsed, len(data))

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives every golden frame, each in few pieces."""
        data = b"".join(made for _, made, _, _ in GOLDEN)
        data += frames.pack_with(bytes(5000), frames.DATA, stream=1)
        parser = FrameParser()
        found = [frame for i in range(len(data)) for frame in parser.feed(data[i : i + 1])]
        self.assertEqual([flat(f) for f in found[:-1]], [expected for *_, expected in GOLDEN])
        self.assertTrue(all(len(f[5]) <= 2 + f[6] // 2048 for f in found))

    @EXAMPLES
    @given(st.lists(ANY_FRAME, min_size=1, max_size=4), st.integers(0, 2**20))
    def test_a_truncated_frame_is_not_handed_over(
        self, sent: list[tuple[int, int, int, int, int, bytes]], lack: int
    ) -> None:
        """A frame that is cut short never comes out, but its bytes count as parsed."""
        data = b"".join(map(built, sent))
        last = len(built(sent[-1]))
        data = data[: len(data) - 1 - lack % last]
        parser = FrameParser()
        self.assertEqual([flat(frame) for frame in parser.feed(data)], sent[:-1])
        self.assertEqual(parser.parsed, len(data))

    @EXAMPLES
    @given(
        st.lists(ANY_FRAME, min_size=1, max_size=4),
        st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), max_size=4),
        PLACES,
    )
    def test_mutated_bytes_never_raise(
        self,
        sent: list[tuple[int, int, int, int, int, bytes]],
        flips: list[tuple[int, int]],
        places: list[int],
    ) -> None:
        """Whatever comes, the outcome is frames, an error in C{error}, or more to wait for."""
        data = bytearray(b"".join(map(built, sent)))
        for place, flip in flips:
            data[place % len(data)] ^= flip
        parser = FrameParser()
        for piece in cut(bytes(data), places):
            for kind, _, aux, _, _, pieces, length in parser.feed(piece):
                self.assertEqual(sum(map(len, pieces)), length)
                self.read_payload(kind, aux, b"".join(pieces))
        self.assertLessEqual(parser.parsed, len(data))

    def read_payload(self, kind: int, aux: int, payload: bytes) -> None:
        """Read it as its type says; nothing but the two errors may come of it."""
        try:
            if kind == frames.OPEN:
                frames.parse_open(aux, payload)
            elif kind == frames.CREDIT:
                frames.parse_credit(payload)
            elif kind == frames.ACK:
                frames.parse_acks(payload)
            elif kind == frames.SUBFLOW_FINAL:
                frames.parse_final(payload)
            else:
                self.assertTrue(frames.parse_text(payload).isprintable())
        except (FramingError, OpenRefused):
            pass

    @EXAMPLES
    @given(st.binary(max_size=300), PLACES)
    def test_random_bytes_never_raise(self, data: bytes, places: list[int]) -> None:
        """Noise is frames or an error."""
        parser = FrameParser()
        for piece in cut(data, places):
            for frame in parser.feed(piece):
                self.read_payload(frame[0], frame[2], flat(frame)[5])

    def test_unknown_types_below_0x80_break_the_framing(self) -> None:
        """A type that must be understood and is not ends the parsing (C01)."""
        known = set(frames.NAMES)
        for kind in sorted(set(range(0x80)) - known):
            parser = FrameParser()
            good = frames.pack(frames.PING)
            self.assertEqual(len(parser.feed(good + HEADER.pack(kind, 0, 0, 0, 0, 0) + good)), 1)
            self.assertIsInstance(parser.error, FramingError)
            self.assertEqual(parser.parsed, HEADER_SIZE)
            self.assertEqual(parser.feed(good), [])

    def test_every_type_has_its_longest_payload(self) -> None:
        """One byte more than a type may have is refused at the header (C03, C06)."""
        most = {
            frames.DATA: 262124,
            frames.ACK: 4096,
            frames.CREDIT: 4096,
            frames.OPEN: 4096,
            frames.RESET: 0,
            frames.STOP: 0,
            frames.PONG: 0,
            frames.SUBFLOW_DRAIN: 0,
            frames.DGRAM: 257 + 65507,
            frames.PAD: 65536,
            0x81: 65536,
        }
        for kind in [*frames.NAMES, 0x81]:
            limit = most.get(kind, 1024)
            parser = FrameParser()
            self.assertEqual(parser.feed(HEADER.pack(kind, 0, 0, limit, 0, 0))[1:], [])
            self.assertIsNone(parser.error, kind)
            parser = FrameParser()
            self.assertEqual(parser.feed(HEADER.pack(kind, 0, 0, limit + 1, 0, 0)), [])
            self.assertIsNotNone(parser.error, kind)

    def test_a_huge_length_allocates_nothing(self) -> None:
        """A frame announced too long costs nothing, even if its bytes follow (C03)."""
        parser = FrameParser()
        noise = bytes(16384)
        tracemalloc.start()
        try:
            parser.feed(HEADER.pack(frames.DATA, 0, 0, 2**32 - 1, 1, 0))
            for _ in range(64):
                parser.feed(noise)
            self.assertLess(tracemalloc.get_traced_memory()[1], 32768)
        finally:
            tracemalloc.stop()

    def test_a_partial_frame_holds_little_more_than_its_bytes(self) -> None:
        """A frame that comes byte by byte is not an object for each."""
        parser = FrameParser()
        parser.feed(HEADER.pack(frames.DATA, 0, 0, 65516, 1, 0))
        tracemalloc.start()
        try:
            for i in range(20000):
                parser.feed(bytes([i % 251]))
            self.assertLess(tracemalloc.get_traced_memory()[0], 30000)
        finally:
            tracemalloc.stop()

    def test_quiet_frames_call_for_nothing(self) -> None:
        """Only the beginning of a frame that wants an answer counts as one."""
        for kind, length, calls in (
            (frames.DATA, 100, True),
            (frames.OPEN, 100, True),
            (frames.ACK, 16, False),
            (frames.PING, 8, False),
            (frames.PAD, 8, True),
        ):
            parser = FrameParser()
            parser.feed(HEADER.pack(kind, 0, 0, length, 0, 0) + b"x")
            self.assertEqual(parser.inside_frame, calls, kind)

    def test_frames_taken_back_count_as_never_parsed(self) -> None:
        """A frame whose content is no good is one that never came, with all behind it."""
        good = frames.pack_with(b"hello", frames.DATA, 0, 0, 1)
        parser = FrameParser()
        found = parser.feed(good + good + frames.pack(frames.PING) + good[:-1])
        parser.take_back(found[1:])
        self.assertEqual(parser.parsed, len(good))


class ChecksumTests(SynchronousTestCase):
    """Frames that end in a checksum, where no TLS guards them."""

    def batch(self, sent: Iterable[tuple[int, int, int, int, int, bytes]]) -> list[bytes]:
        """A batch as it is polled: DATA as header and payload, the others whole."""
        buffers: list[bytes] = []
        for frame in sent:
            data = built(frame)
            if frame[0] == frames.DATA and frame[5]:
                buffers += [data[:HEADER_SIZE], data[HEADER_SIZE:]]
            else:
                buffers.append(data)
        return buffers

    @EXAMPLES
    @given(st.lists(ANY_FRAME, max_size=6), PLACES)
    def test_any_cut_gives_the_same_frames(
        self, sent: list[tuple[int, int, int, int, int, bytes]], places: list[int]
    ) -> None:
        """Trailers are put on and taken off, wherever the bytes are cut."""
        data = b"".join(frames.with_trailers(self.batch(sent), crc))
        self.assertEqual(len(data), sum(len(built(f)) + 4 for f in sent))
        parser = FrameParser(crc)
        found = [flat(frame) for piece in cut(data, places) for frame in parser.feed(piece)]
        self.assertEqual(found, sent)
        self.assertEqual(parser.parsed, len(data))

    @EXAMPLES
    @given(
        st.lists(ANY_FRAME, min_size=1, max_size=4),
        st.integers(0, 2**20),
        st.integers(0, 7),
        PLACES,
    )
    def test_a_flipped_bit_ends_the_parsing_before_its_frame(
        self,
        sent: list[tuple[int, int, int, int, int, bytes]],
        place: int,
        bit: int,
        places: list[int],
    ) -> None:
        """Only frames before the damage come out, and only they count as parsed."""
        data = bytearray(b"".join(frames.with_trailers(self.batch(sent), crc)))
        place %= len(data)
        data[place] ^= 1 << bit
        parser = FrameParser(crc)
        found = [flat(f) for piece in cut(bytes(data), places) for f in parser.feed(piece)]
        self.assertEqual(found, sent[: len(found)])
        end = sum(len(built(f)) + 4 for f in found)
        self.assertLessEqual(end, place)
        if parser.error is not None:
            self.assertEqual(parser.parsed, end)

    def test_a_trailer_byte_by_byte(self) -> None:
        """A trailer may come in pieces, with or without a payload before it."""
        sent = [(frames.PING, 0, 0, 0, 7, b""), (frames.DATA, 0, 0, 1, 0, b"xyz")]
        data = b"".join(frames.with_trailers(self.batch(sent), crc))
        parser = FrameParser(crc)
        found = [flat(f) for i in range(len(data)) for f in parser.feed(data[i : i + 1])]
        self.assertEqual(found, sent)


class PayloadTests(SynchronousTestCase):
    """The payloads of the frames that are not data."""

    @EXAMPLES
    @given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)), max_size=341))
    def test_credits_round_trip(self, limits: list[tuple[int, int]]) -> None:
        """As many limits as fit one frame come back."""
        (frame,) = FrameParser().feed(frames.pack_credit(limits))
        self.assertEqual(frame[2], len(limits))
        self.assertEqual(frames.parse_credit(flat(frame)[5]), limits)

    def test_half_records_are_framing_errors(self) -> None:
        """Records and fixed payloads of another size are refused (C05, C06)."""
        for size in (1, 11, 13):
            self.assertRaises(FramingError, frames.parse_credit, bytes(size))
        for size in (1, 15, 17):
            self.assertRaises(FramingError, frames.parse_acks, bytes(size))
        for size in (0, 3, 5):
            self.assertRaises(FramingError, frames.parse_final, bytes(size))

    def test_acks_of_other_subflows(self) -> None:
        """Each record is a subflow, its parsed bytes, a delay."""
        payload = bytes.fromhex("00000002 0000000000000100 000003e8")
        self.assertEqual(frames.parse_acks(payload), [(2, 256, 1000)])

    def test_an_open_with_cut_fields_is_a_framing_error(self) -> None:
        """A field that says it is longer than there is, or an address cut or followed."""
        whole = frames.pack_open(1, 0, REQUEST)[HEADER_SIZE:]
        for size in range(len(whole)):
            if size != 3 + 15:
                self.assertRaises(FramingError, frames.parse_open, 1, whole[:size])
        longer = b"\x01\x00\x08\x01\xc0\x00\x02\x01\x00\x35!"
        self.assertRaises(FramingError, frames.parse_open, 1, longer)

    def test_an_open_with_unknown_fields_is_read(self) -> None:
        """Fields of the future are passed over."""
        whole = frames.pack_open(1, 0, REQUEST)[HEADER_SIZE:]
        self.assertEqual(frames.parse_open(1, b"\xf0\x00\x02ab" + whole + b"\x7f\x00\x00"), REQUEST)

    def test_an_open_of_an_impossible_target_is_refused(self) -> None:
        """Bad names, bad addresses, port 0, unknown kinds: no stream, no broken subflow (C36)."""

        def address(value: bytes) -> bytes:
            return b"\x01" + len(value).to_bytes(2, "big") + value

        for value in (
            b"\x03\x00\x00\x50",
            b"\x03\xfe" + b"a" * 254 + b"\x00\x50",
            b"\x03\x03a\0b\x00\x50",
            b"\x03\x04a\r\nb\x00\x50",
            b"\x03\x02\xc3\xa4\x00\x50",
            b"\x03\x01a\x00\x00",
            b"\x01\x7f\x00\x00\x01\x00\x00",
            b"\x02\x7f\x00\x00\x01\x00\x50",
        ):
            self.assertRaises(OpenRefused, frames.parse_open, 1, address(value))
        error = self.assertRaises(
            OpenRefused, frames.parse_open, 9, address(b"\x01\x7f\x00\x00\x01\x00\x50")
        )
        self.assertIs(error.code, Code.BAD_KIND)

    @EXAMPLES
    @given(st.integers(0, 2**16 - 1), st.binary(max_size=120))
    def test_any_open_is_read_or_refused(self, kind: int, payload: bytes) -> None:
        """Nothing but the two errors comes of noise."""
        try:
            frames.parse_open(kind, payload)
        except (FramingError, OpenRefused) as error:
            self.assertTrue(str(error).isprintable())

    @EXAMPLES
    @given(st.binary(max_size=1024))
    def test_any_text_is_safe_and_short(self, payload: bytes) -> None:
        """A peer's words can be shown whatever they are (C54)."""
        text = frames.parse_text(payload)
        self.assertTrue(text.isascii() and text.isprintable())
        self.assertLessEqual(len(text), 256)

    @EXAMPLES
    @given(st.text(max_size=400))
    def test_our_words_fit_their_frames(self, text: str) -> None:
        """What we say is never too long for REFUSE, GOAWAY and CLOSE."""
        self.assertLessEqual(len(frames.pack_text(text)), 256)

    def test_long_words_end_where_a_word_does(self) -> None:
        """What has to be cut says so, and keeps whole words and whole characters."""
        first = "vps refused it: " + "x" * 230
        for text, shown in (
            (f"{first} all of it", f"{first} all of it"),
            (f"{first} as it were", f"{first} as it..."),
            (f"{first} most of it", f"{first} most..."),
            ("x" * 257, "x" * 253 + "..."),
            ("\u20ac" * 256, "\\u20ac" * 42 + "..."),
        ):
            self.assertEqual(frames.pack_text(text).decode("ascii"), shown)
