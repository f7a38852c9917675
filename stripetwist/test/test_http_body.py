"""How far a request's body reaches."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.http_body import Body

CHUNKS = b"5\r\nhello\r\n1;a=b\r\n!\r\n00a \r\n0123456789\r\n0\r\nX: y\r\n\r\n"


def taken(body: Body, data: bytes, size: int = 0) -> bytes:
    """What is the body's of these bytes, fed in pieces."""
    size = size or len(data) or 1
    return b"".join(body.take(data[at : at + size]) for at in range(0, len(data), size))


class BodyTests(SynchronousTestCase):
    """Where it ends, however its bytes are cut."""

    def test_length(self) -> None:
        """So many bytes, and no more."""
        for size in range(1, 9):
            body = Body.of([b"5"], [])
            self.assertEqual(taken(body, b"helloGET", size), b"hello")
            self.assertTrue(body.is_over)

    def test_none(self) -> None:
        """Where nothing is announced nothing follows."""
        for lengths in ([], [b"0"], [b"00"]):
            self.assertEqual(taken(Body.of(lengths, []), b"GET"), b"")

    def test_chunks(self) -> None:
        """Up to the empty line behind the last."""
        for size in range(1, len(CHUNKS) + 1):
            body = Body.of([], [b"Chunked"])
            self.assertEqual(taken(body, CHUNKS + b"GET /", size), CHUNKS)
            self.assertTrue(body.is_over)
        self.assertEqual(taken(Body(None), b"0\r\n\r\nx"), b"0\r\n\r\n")

    def test_malformed_chunks(self) -> None:
        """They end it: the target is left to complain."""
        for line in (b"", b"-1", b"0x5", b"5 5", b"\v5", b"g", b"f" * 16):
            body = Body(None)
            self.assertEqual(taken(body, line + b"\r\nhello"), line + b"\r\n")
            self.assertTrue(body.is_over)
        for data, passed in (
            (b"5\nhello\r\n0\r\n\r\n", b"5\n"),
            (b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\n"),
            (b"5\r\nhelloxx0\r\n\r\n", b"5\r\nhelloxx0\r\n"),
            (b"0\r\nA: b\nGET", b"0\r\nA: b\n"),
            (b"0\r\n\nGET", b"0\r\n\n"),
        ):
            for size in (1, 4, 99):
                body = Body(None)
                self.assertEqual(taken(body, data, size), passed)
                self.assertTrue(body.is_over)
        body = Body(None)
        taken(body, b"1" * 10_000, 1000)
        self.assertTrue(body.is_over)

    def test_contradictions(self) -> None:
        """Nobody may guess."""
        for lengths, codings in (
            ([b"5", b"6"], []),
            ([b"5", b"5"], []),
            ([], [b"\vchunked"]),
            ([b"5"], [b"chunked"]),
            ([], [b"gzip"]),
            ([], [b"gzip", b"chunked"]),
            ([], [b"chunked", b"chunked"]),
            ([b"+5"], []),
            ([b"5x"], []),
            ([b""], []),
        ):
            self.assertRaises(ValueError, Body.of, lengths, codings)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=60), st.integers(1, 20))
    def test_any_bytes(self, data: bytes, size: int) -> None:
        """However they are cut, it is the same beginning of them that is taken."""
        whole = taken(Body(None), data)
        self.assertEqual(taken(Body(None), data, size), whole)
        self.assertTrue(data.startswith(whole))
