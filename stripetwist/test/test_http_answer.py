"""What is said of the connection in a target's answer."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.http_answer import MAX_HEAD, Answer

HEAD = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nKeep-Alive: timeout=5\r\nA: b"
TOLD = b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


def told(data: bytes, size: int = 0) -> bytes:
    """What becomes of these bytes, fed in pieces."""
    answer, size = Answer(), size or len(data)
    passed = [answer.take(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(passed) + answer.rest()


class AnswerTests(SynchronousTestCase):
    """What is changed, and what is not."""

    def test_closes(self) -> None:
        """It says so, whatever the target says; the body is left alone."""
        body = b"\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"
        for size in range(1, 99):
            self.assertEqual(told(HEAD + body, size), TOLD + body)
            self.assertEqual(told(GO_ON + HEAD + body, size), GO_ON + TOLD + body)

    def test_unchanged(self) -> None:
        """What is no HTTP, or no whole head."""
        for data in (b"220 smtp\r\n\r\n", b"", b"HTT", b"HTTP/1.1", b"HTTP/1.x y\r\n\r\nz", HEAD,
                     b"HTTP/1.1 200 OK\nA: b\n\nbody", b"\r\n\r\n"):  # fmt: skip
            for size in (0, 1, 5):
                self.assertEqual(told(data, size or 1), data)

    def test_bare_line_feeds(self) -> None:
        """An answer whose head has one passes as it is, and at once: its body may have CRLFs."""
        body = b"line one\r\n\r\nline three"
        for head in (b"HTTP/1.0 200 OK\nA: b\n\n", b"HTTP/1.0 200 OK\r\nA: b\n\n"):
            for size in (1, 5, 99):
                self.assertEqual(told(head + body, size), head + body)
            self.assertEqual(Answer().take(head), head)

    def test_too_long(self) -> None:
        """A head without an end is not held for ever."""
        answer = Answer()
        self.assertEqual(answer.take(HEAD), b"")
        more = bytes(MAX_HEAD)
        self.assertEqual(answer.take(more), HEAD + more)
        self.assertEqual(answer.take(b"\r\n\r\n"), b"\r\n\r\n")
