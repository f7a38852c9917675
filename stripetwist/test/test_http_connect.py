"""The dialing side of HTTP CONNECT as bytes in and bytes out."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import ProxyRefused
from stripetwist.core.http_connect import MAX_HEAD, HttpConnect
from stripetwist.core.target import Target

SERVER = Target.of("vps.example", 23461)
YES = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n"
BEHIND = b"\x16\x03\x03 of the tunnel\r\n\r\n"


def answer(status: str, *headers: str) -> bytes:
    """A whole head."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


class AskTests(SynchronousTestCase):
    """What the proxy is asked."""

    def test_a_name(self) -> None:
        """The proxy looks it up, not we."""
        wanted = b"CONNECT vps.example:23461 HTTP/1.1\r\nHost: vps.example:23461\r\n\r\n"
        self.assertEqual(HttpConnect(SERVER).first, wanted)

    def test_an_ipv6_address(self) -> None:
        """It stands in brackets."""
        first = HttpConnect(Target.of("2001:db8::7", 443)).first
        self.assertTrue(first.startswith(b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\n"))
        self.assertIn(b"\r\nHost: [2001:db8::7]:443\r\n", first)

    def test_a_login(self) -> None:
        """It is said at once; its bytes are taken as they are."""
        first = HttpConnect(SERVER, b"me", b"a:b\xc3\xa9").first
        self.assertIn(b"\r\nProxy-Authorization: Basic bWU6YTpiw6k=\r\n\r\n", first)


class AnswerTests(SynchronousTestCase):
    """What the proxy answers."""

    def feed(self, pieces: Iterable[bytes], dialogue: HttpConnect) -> bytes | None:
        """What is left for the tunnel; what comes behind the end goes there too."""
        behind = None
        for piece in pieces:
            if behind is None:
                self.assertEqual(dialogue.feed(piece), b"")
                behind = dialogue.rest
            else:
                behind += piece
        return behind

    def refused(self, data: bytes, dialogue: HttpConnect | None = None) -> ProxyRefused:
        """The refusal, the same byte by byte as at once."""
        at_once, by_bytes = dialogue or HttpConnect(SERVER), HttpConnect(SERVER)
        by_bytes._has_login = at_once._has_login
        error: ProxyRefused = self.assertRaises(ProxyRefused, at_once.feed, data)
        again = self.assertRaises(ProxyRefused, self.feed, (bytes([one]) for one in data), by_bytes)
        self.assertEqual(error.sentence, again.sentence)
        self.assertTrue(error.sentence.startswith("it "), error.sentence)
        return error

    def test_cut_anywhere(self) -> None:
        """One cut, or a byte at a time."""
        data = YES + BEHIND
        for at in range(len(data) + 1):
            left = self.feed([data[:at], data[at:]], HttpConnect(SERVER))
            self.assertEqual(left, BEHIND)
        self.assertEqual(self.feed((bytes([one]) for one in data), HttpConnect(SERVER)), BEHIND)

    def test_any_200_will_do(self) -> None:
        """With or without words, of either version, whatever the headers claim."""
        for status in ("HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 299 ", "HTTP/1.1 204 a b"):
            dialogue = HttpConnect(SERVER)
            dialogue.feed(status.encode() + b"\r\nContent-Length: 7\r\n\r\nabc")
            self.assertEqual(dialogue.rest, b"abc", status)

    def test_sentences(self) -> None:
        """Each says what to do."""
        cases = {
            "403 Forbidden": "it does not allow CONNECT to port 23461 (403): many allow only "
            "443; start the server with --listen 443",
            "407 Login": "it wants a login: write http://USER:PASSWORD@HOST:PORT",
            "405 No": "it does not know CONNECT (405); check that it is an HTTP proxy",
            "502 Bad": "it does not reach vps.example:23461 (502): check that the server is up "
            "and listens there",
            "302 Found": "it answers CONNECT with 302, which is no tunnel; see its log",
        }
        for status, sentence in cases.items():
            self.assertEqual(self.refused(answer(status)).sentence, sentence)

    def test_443_is_not_allowed_either(self) -> None:
        """Then another port would be no help."""
        dialogue = HttpConnect(Target.of("vps.example", 443))
        error = self.assertRaises(ProxyRefused, dialogue.feed, answer("403 Forbidden"))
        self.assertNotIn("--listen", error.sentence)

    def test_what_lasts(self) -> None:
        """What a proxy does not want it will not want in a second either."""
        for status, lasts in {"403": True, "407": True, "502": False, "503": False}.items():
            self.assertEqual(self.refused(answer(status)).lasting, lasts, status)

    def test_a_wrong_login(self) -> None:
        """It is named as such, and not shown."""
        for status in ("407 joe guessed", "401 guessed"):
            reply = answer(status, "Proxy-Authenticate: BASIC realm=x")
            dialogue = HttpConnect(SERVER, b"joe", b"guessed")
            sentence = self.refused(reply, dialogue).sentence
            self.assertIn("does not accept this user name and password", sentence)
            self.assertNotIn("guessed", sentence)

    def test_another_kind_of_login(self) -> None:
        """Whoever has one gets no advice that is no help."""
        reply = answer("407 Login", "Proxy-Authenticate: Negotiate", "proxy-authenticate:NTLM")
        self.assertIn("such as NTLM", self.refused(reply).sentence)

    def test_nonsense(self) -> None:
        """The first byte that fits no answer ends it."""
        cases = [b"\x05\xff", b"SSH-2.0-x\r\n", b"\r\n", b"HTTP/2 200 OK\r\n\r\n"]
        cases += (b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1  200\r\n\r\n", b"HTTP/1.1 200OK\r\n\r\n")
        cases += (b"HTTP/1.2 200 OK\r\n\r\n", b"HTTP/1.1 099 x\r\n\r\n", b"HTTP/1.1 200\n\r\n\r\n")
        for data in cases:
            self.assertIn("not as an HTTP proxy", self.refused(data).sentence, data)

    def test_no_end(self) -> None:
        """A head of 16 KiB is read, a longer one is not."""
        start = b"HTTP/1.1 200 OK\r\nX: "
        fits = start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
        dialogue = HttpConnect(SERVER)
        dialogue.feed(fits + BEHIND)
        self.assertEqual(dialogue.rest, BEHIND)
        for flood in (start + b"x" * MAX_HEAD, fits[:-4] + b"x\r\n\r\n"):
            error = self.assertRaises(ProxyRefused, HttpConnect(SERVER).feed, flood)
            self.assertIn("16 KiB", error.sentence)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=60), st.booleans())
    def test_whatever_comes(self, data: bytes, is_answer: bool) -> None:
        """A refusal, a tunnel or the wait for more; nothing else, however it is cut."""
        data = b"HTTP/1.1 " * is_answer + data
        outcomes = set()
        for pieces in ([data], [bytes([one]) for one in data]):
            try:
                outcomes.add(self.feed(pieces, HttpConnect(SERVER)))
            except ProxyRefused as error:
                outcomes.add(error.sentence.encode())
        self.assertEqual(len(outcomes), 1)
