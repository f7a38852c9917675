"""L{stripetwist.core.hello}: the messages before the frames."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import hello
from stripetwist.core.config import MIB, Limits, PeerLimits
from stripetwist.core.errors import Code
from stripetwist.core.hello import Message, Reader, Rejected

NONCE = bytes(range(32))
ANY = (hello.HELLO, hello.HELLO_ACK, hello.CONFIRM, hello.REJECT)


def message(*fields: tuple[int, bytes], kind: int = hello.HELLO) -> bytes:
    """A message with those fields."""
    return hello.pack(kind, list(fields), 0)


def read(data: bytes, *kinds: int) -> Message | None:
    """What a reader makes of bytes."""
    reader = Reader()
    reader.feed(data)
    return reader.take(*(kinds or ANY))


class HelloTestCase(SynchronousTestCase):
    """Messages that are refused."""

    def assert_rejected(self, words: str, call: Callable[..., object], *args: object) -> Rejected:
        """The call raises C{Rejected}, with a printable reason that has the words."""
        error: Rejected = self.assertRaises(Rejected, call, *args)
        self.assertIn(words, error.reason)
        self.assertTrue(error.reason.isascii() and error.reason.isprintable())
        return error


class ReaderTests(HelloTestCase):
    """Bytes as they come."""

    def test_golden(self) -> None:
        """The bytes of a message are these."""
        data = hello.pack(hello.HELLO, [(hello.MODE, b"\x01"), (hello.PATH, b"xyz")], 3)
        self.assertEqual(
            data.hex(), "5354575001010103" + "0000000c" + "8001000101" + "000a000378797a"
        )
        self.assertEqual(
            hello.pack_reject(Code.BUSY, "full", 3).hex(),
            "5354575001010403" + "0000000a" + "000d0006" + "0022" + "66756c6c",
        )

    def test_whole(self) -> None:
        """Kind, flags, fields and the very bytes; what follows stays."""
        data = hello.pack(hello.CONFIRM, [(hello.NONCE, NONCE)], 2)
        reader = Reader()
        reader.feed(data + b"frames")
        found = reader.take(hello.CONFIRM)
        self.assertEqual(found, Message(hello.CONFIRM, 2, {hello.NONCE: NONCE}, data))
        self.assertEqual(reader.rest, b"frames")

    def test_byte_by_byte(self) -> None:
        """It is there with its last byte, not before."""
        data = message((hello.NONCE, NONCE))
        reader = Reader()
        for at in range(len(data) - 1):
            reader.feed(data[at : at + 1])
            self.assertIsNone(reader.take(hello.HELLO))
        reader.feed(data[-1:])
        self.assertIsNotNone(reader.take(hello.HELLO))
        self.assertEqual(reader.rest, b"")

    def test_unsealed(self) -> None:
        """The proof covers all but itself."""
        unsealed = hello.pack(hello.CONFIRM, [], 0, spare=hello.MAC_SIZE)
        found = read(hello.with_mac(unsealed, NONCE))
        assert found is not None
        self.assertEqual((found.unsealed, found.need(hello.MAC, 32)), (unsealed, NONCE))

    def test_another_language(self) -> None:
        """What cannot become a hello any more is refused at its first wrong byte (B04, B05)."""
        for data in (b"GET / HTTP/1.1\r\n", b"SSH-2.0-x", b"S T", b"\xff", b"STWQ", b"\0"):
            self.assert_rejected("no stripetwist hello", read, data)
        for data in (b"", b"S", b"STW", b"STWP"):
            self.assertIsNone(read(data))

    def test_length(self) -> None:
        """Of 1 to 4,096 bytes, known from the header alone (B10, B11, B12)."""
        for length in (0, 4097, 2**32 - 1):
            header = hello.MAGIC + bytes([1, 1, 1, 0]) + length.to_bytes(4, "big")
            self.assert_rejected(f"{length} bytes", read, header)
        longest = message((0x0123, bytes(4092)))
        self.assertEqual(len(longest), 12 + 4096)
        self.assertIsNotNone(read(longest))

    def test_kind(self) -> None:
        """Only what is due is taken, known from the header alone."""
        header = message((hello.NONCE, NONCE), kind=hello.CONFIRM)[:12]
        self.assert_rejected("kind 3 out of turn", read, header, hello.HELLO)
        self.assertIsNone(read(header, hello.HELLO, hello.CONFIRM))

    def test_version(self) -> None:
        """The highest common one; else both numbers are told to the other end, too (B13)."""
        for highest, lowest in ((1, 0), (255, 1), (1, 1), (7, 0)):
            data = hello.MAGIC + bytes([highest, lowest]) + message((hello.NONCE, NONCE))[6:]
            self.assertIsNotNone(read(data))
        for highest, lowest in ((0, 0), (2, 2), (255, 255), (255, 2), (0, 1)):
            data = hello.MAGIC + bytes([highest, lowest]) + message((hello.NONCE, NONCE))[6:]
            error = self.assert_rejected(f"{lowest} to {highest}", read, data)
            self.assertIs(error.code, Code.VERSION)
            answer = read(error.reply)
            assert answer is not None
            self.assertEqual(answer.kind, hello.REJECT)
            self.assertEqual(answer.fields[hello.ERROR][:2], bytes([0, Code.VERSION]))

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.binary(max_size=80))
    def test_anything(self, data: bytes, body: bytes) -> None:
        """Whatever comes is a message, not yet one, or rejected."""
        head = hello.MAGIC + bytes([1, 1, 1, 0]) + len(body).to_bytes(4, "big")
        for attempt in (data, hello.MAGIC + data, head + body, head + body + data):
            reader = Reader()
            reader.feed(attempt)
            try:
                found = reader.take(*ANY)
            except Rejected as error:
                self.assertTrue(error.reason.isprintable())
            else:
                self.assertTrue(found is None or attempt.startswith(found.raw))


class FieldTests(HelloTestCase):
    """The fields of a body."""

    def test_unknown(self) -> None:
        """One that must be understood ends it, another does not."""
        self.assertIsNotNone(read(message((0x0077, b"later"))))
        for field in (0x8007, 0x8FFF, 0xFFFF):
            data = message((field, b"later"))
            self.assert_rejected(f"{field:#06x} unknown here", read, data)

    def test_cut_off(self) -> None:
        """A body that ends within a field, or its head, is none."""
        body = message((hello.NONCE, NONCE))[12:]
        for size in range(1, len(body)):
            data = hello.MAGIC + bytes([1, 1, 1, 0]) + size.to_bytes(4, "big") + body[:size]
            self.assert_rejected("cut off", read, data)

    def test_twice(self) -> None:
        """No field stands twice."""
        data = message((hello.MODE, b"\x01"), (hello.MODE, b"\x02"))
        self.assert_rejected("twice", read, data)

    def test_proof_comes_last(self) -> None:
        """The proof is the last field and has its size, or there is none (B16)."""
        for fields in (
            [(hello.MAC, NONCE), (hello.PATH, b"")],
            [(hello.MAC, b"")],
            [(hello.MAC, NONCE[:31])],
            [(hello.MAC, NONCE + b"\0")],
        ):
            data = message(*fields)
            self.assert_rejected("not its last field", read, data)

    def test_need(self) -> None:
        """A field that is needed has to be there, with its size."""
        found = read(message((hello.NONCE, NONCE)))
        assert found is not None
        self.assertEqual(found.need(hello.NONCE, 32), NONCE)
        self.assert_rejected("0x8002", found.need, hello.NONCE, 31)
        self.assert_rejected("0x8003", found.need, hello.SESSION, 16)

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.integers(0, 0x7FFF) | st.sampled_from([hello.MODE, hello.NONCE, hello.ROLE]),
            st.binary(max_size=40),
            min_size=1,
            max_size=20,
        )
    )
    def test_round_trip(self, fields: dict[int, bytes]) -> None:
        """What is packed is read."""
        found = read(message(*fields.items()))
        assert found is not None
        self.assertEqual(found.fields, fields)


class LimitTests(HelloTestCase):
    """What each side has to keep to."""

    def test_round_trip(self) -> None:
        """The other side reads what was packed; a part of a second counts as one."""
        packed = hello.pack_limits(Limits(session_timeout=0.2))
        self.assertEqual(packed.hex(), "0100002000" + "0300004000" + "0600000001" + "0700040000")
        self.assertEqual(hello.parse_limits(packed), PeerLimits(8192, 16384, 1.0, 262144))

    def test_long_frames(self) -> None:
        """Said only by those who take longer ones than anybody does."""
        for memory, longest in ((32, 0), (64, 131_072), (128, 262_144)):
            packed = hello.pack_limits(Limits(max_memory=memory * MIB))
            self.assertEqual(hello.parse_limits(packed).longest, longest)

    def test_absent_and_unknown(self) -> None:
        """What is not said allows nothing; what is not known is ignored."""
        self.assertEqual(hello.parse_limits(b""), PeerLimits(0, 0, 60.0))
        self.assertEqual(hello.parse_limits(b"\xee\0\0\0\x01"), PeerLimits(0, 0, 60.0))

    def test_cut_off(self) -> None:
        """Half a limit is none."""
        self.assert_rejected("cut off", hello.parse_limits, b"\x01\0\0\0")


class RejectedTests(SynchronousTestCase):
    """The error."""

    def test_it_has_a_reply(self) -> None:
        """Code, reason and reply."""
        error = Rejected(Code.AUTH, "not accepted", b"reply")
        self.assertEqual(
            (error.code, error.reason, error.reply), (Code.AUTH, "not accepted", b"reply")
        )
