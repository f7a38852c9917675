"""The HTTP proxy's dialogue as bytes in and events out."""

import base64
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code
from stripetwist.core.http_proxy import HttpDialogue, answer, status_of
from stripetwist.core.socks5 import MAX_HELD, Connect, Event, Login, NotSocks, Refuse
from stripetwist.core.target import Target

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
LOGIN = b"Proxy-Authorization: Basic " + base64.b64encode(b"joe:se:cret")


def fed(dialogue: HttpDialogue, pieces: Iterable[bytes]) -> list[Event]:
    """The events of these pieces."""
    found = []
    for piece in pieces:
        dialogue.received(piece)
        while (event := dialogue.next_event()) is not None:
            found.append(event)
    return found


def request(first: str, *fields: str, end: bytes = b"") -> bytes:
    """A request with that first line."""
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1") + end


class HttpCase(SynchronousTestCase):
    """Asks, and looks at what follows."""

    def asked(self, head: bytes, login: bool = False) -> HttpDialogue:
        """A dialogue that has had it all."""
        self.dialogue = HttpDialogue(login)
        self.events = fed(self.dialogue, [head])
        return self.dialogue

    def target(self, head: bytes) -> str:
        """The target that is asked for."""
        self.asked(head)
        (event,) = self.events
        assert isinstance(event, Connect), event
        return str(event.target)

    def refused(self, head: bytes, login: bool = False) -> str:
        """The first line and the last of what is answered."""
        self.asked(head, login)
        (event,) = self.events
        assert isinstance(event, Refuse), event
        self.assertFalse(self.dialogue.is_listening)
        lines = event.data.decode("ascii").split("\r\n")
        self.assertEqual(lines[-1], event.sentence + "\n")
        return f"{lines[0].removeprefix('HTTP/1.1 ')}: {event.sentence}"

    def rewritten(self, head: bytes) -> list[str]:
        """The lines that the target gets."""
        self.target(head)
        return self.dialogue.take_early().decode("latin-1").split("\r\n")


class TunnelTests(HttpCase):
    """C{CONNECT}."""

    def test_asked(self) -> None:
        """However it is cut; what follows is for the target."""
        for at in range(len(CONNECT)):
            dialogue = HttpDialogue()
            found = fed(dialogue, [CONNECT[:at], CONNECT[at:] + b"\r\nearly"])
            self.assertEqual(found, [Connect(Target.of("example.com", 443))])
            self.assertEqual((dialogue.keep, dialogue.is_listening), (None, False))
            self.assertTrue(dialogue.success.startswith(b"HTTP/1.1 200 "))
            self.assertEqual(dialogue.take_early(), b"\r\nearly")

    def test_hosts(self) -> None:
        """Names, addresses, IPv6 in brackets."""
        for where, target in (
            ("[2001:db8::1]:22", "[2001:db8::1]:22"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("A.Example.:8080", "a.example:8080"),
        ):
            self.assertEqual(self.target(request(f"CONNECT {where} HTTP/1.0")), target)

    def test_no_target(self) -> None:
        """400, in a sentence."""
        for where in ("a", "a:", "a:0", "a:65536", "a:b", ":443", "a b:1", "::1:443", "[a]:1"):
            head = request(f"CONNECT {where} HTTP/1.1")
            if " " in where:
                self.asked(head)
                self.assertIsInstance(self.events[0], NotSocks)
            else:
                self.assertIn("400 Bad Request: ", self.refused(head))


class PageTests(HttpCase):
    """Requests for an address."""

    def test_rewritten(self) -> None:
        """For the target, without what is for the proxy."""
        lines = self.rewritten(
            request(
                "GET HTTP://u:p@Example.com:8080/a?b=c HTTP/1.1",
                "Host: elsewhere",
                "Proxy-Connection: keep-alive",
                "Connection: X-Mine, Content-Length",
                "X-Mine: 1",
                "X-Theirs:  2",
                "Content-Length: 2",
                LOGIN.decode(),
                end=b"hiGET http://other/ HTTP/1.1\r\n",
            )
        )
        self.assertEqual(lines[0], "GET /a?b=c HTTP/1.1")
        self.assertEqual(
            lines[1:4], ["Host: Example.com:8080", "X-Theirs:  2", "Content-Length: 2"]
        )
        self.assertEqual(lines[4:], ["Connection: close", "", "hi"])
        self.assertEqual(self.events, [Connect(Target.of("example.com", 8080))])
        self.assertEqual(self.dialogue.success, b"")
        self.assertTrue(self.dialogue.keep is not None and self.dialogue.keep.is_over)

    def test_paths(self) -> None:
        """One there is always, and no fragment."""
        for where, path in (("http://a", "/"), ("http://a?q", "/?q"), ("http://a/b#c", "/b")):
            self.assertEqual(self.rewritten(request(f"HEAD {where} HTTP/1.0"))[0],
                             f"HEAD {path} HTTP/1.0")  # fmt: skip
        for where, path in (("http://a", "*"), ("http://a/", "/"), ("http://a?q", "/?q")):
            self.assertEqual(self.rewritten(request(f"OPTIONS {where} HTTP/1.1"))[0],
                             f"OPTIONS {path} HTTP/1.1")  # fmt: skip
        self.assertEqual(self.target(request("GET http://[::1]:/ HTTP/1.1")), "[::1]:80")

    def test_refused(self) -> None:
        """K07 and others: pages of the proxy, https, malformed heads, bodies without an end."""
        get = "GET http://a/ HTTP/1.1"
        for head, says in (
            (request("GET / HTTP/1.1"), "a page of the proxy"),
            (request("POST / HTTP/1.1", end=b"\x05\x01\x00"), "a page of the proxy"),
            (request("OPTIONS * HTTP/1.1"), "a page of the proxy"),
            (request("GET https://a/ HTTP/1.1"), "by CONNECT"),
            (request("GET http://a:x/ HTTP/1.1"), "the port"),
            (request("GET http://a_b..c/ HTTP/1.1"), "is no host name"),
            (request(get, "no field"), "malformed"),
            (request(get, "A: b", " folded"), "malformed"),
            (request(get, "A : b"), "malformed"),
            (request(get, "A: \0"), "malformed"),
            (request(get, "A: b\nC: d"), "malformed"),
            (request(get, "Content-Length: 1", "Content-Length: 2"), "contradicts itself"),
            (request(get, "Content-Length: 5, 5"), "contradicts itself"),
            (request(get, "Transfer-Encoding: \v\fchunked"), "contradicts itself"),
            (request(f"{get[:-1]}0", "Transfer-Encoding: chunked"), "contradicts itself"),
            (request(get, "Content-Length: 1", "Transfer-Encoding: chunked"), "contradicts"),
        ):
            found = self.refused(head)
            self.assertTrue(found.startswith("400 Bad Request: "), found)
            self.assertIn(says, found)

    def test_other_versions(self) -> None:
        """Are told which is spoken here, whatever they ask for."""
        for first in ("GET http://a/ HTTP/2", "CONNECT a:1 HTTP/2.0", "PRI * HTTP/2.0"):
            found = self.refused(request(first))
            self.assertTrue(found.startswith("505 HTTP Version Not Supported: "), found)
            self.assertIn("HTTP/1.1", found)

    def test_too_long(self) -> None:
        """64 KiB are the most."""
        dialogue = HttpDialogue()
        dialogue.received(b"GET http://a/ HTTP/1.1\r\nA: ")
        self.assertIsNone(dialogue.next_event())
        dialogue.received(b"x" * dialogue.room)
        event = dialogue.next_event()
        assert isinstance(event, Refuse)
        self.assertEqual((event.data[9:12], event.code), (b"431", Code.LIMIT))
        self.assertEqual(dialogue.room, MAX_HELD)


class LoginTests(HttpCase):
    """C{Proxy-Authorization}."""

    def test_right(self) -> None:
        """Then the request is made, and the target does not see it."""
        head = request("GET http://a/ HTTP/1.1", LOGIN.decode())
        dialogue = self.asked(head, login=True)
        self.assertEqual(self.events, [Login(b"joe", b"se:cret")])
        self.assertFalse(dialogue.is_listening)
        self.assertEqual(dialogue.login_checked(True), Connect(Target.of("a", 80)))
        self.assertNotIn(b"Basic", dialogue.take_early())
        self.asked(head.replace(b"Basic ", b"basic   "), login=True)
        self.assertEqual(self.events, [Login(b"joe", b"se:cret")])

    def test_wrong(self) -> None:
        """It is asked for again."""
        dialogue = self.asked(CONNECT[:-2] + LOGIN + b"\r\n\r\n", login=True)
        event = dialogue.login_checked(False)
        assert isinstance(event, Refuse)
        self.assertIn(b'\r\nProxy-Authenticate: Basic realm="stripetwist"\r\n', event.data)
        self.assertEqual((event.code, event.data[9:12]), (Code.AUTH, b"407"))

    def test_missing(self) -> None:
        """None, of another kind, or malformed."""
        for field in ("A: b", "Proxy-Authorization: Digest x", "Proxy-Authorization: Basic =",
                      "Proxy-Authorization: Basic am9l", "Proxy-Authorization: Basic"):  # fmt: skip
            found = self.refused(request("GET http://a/ HTTP/1.1", field), login=True)
            self.assertIn("407 Proxy Authentication Required: this proxy asks", found)

    def test_needless(self) -> None:
        """Where nobody asks it is not looked at."""
        self.target(request("GET http://a/ HTTP/1.1", "Proxy-Authorization: Basic ="))


class AnswerTests(HttpCase):
    """What a client is told."""

    def test_codes(self) -> None:
        """Each reason has a status of failure, those of the table their own."""
        for code in Code:
            self.assertGreaterEqual(status_of(code), 400)
        told = {2: 403, 3: 502, 4: 502, 5: 502, 6: 504, 7: 501, 8: 400, 10: 502, 11: 504, 13: 503}
        for number, status in told.items():
            self.assertEqual(status_of(Code(number)), status)

    def test_sentence(self) -> None:
        """It is the body, safe to be shown."""
        said = answer(status_of(Code.REFUSED_BY_TARGET), "no\r\n\x1b")
        head, _, body = said.partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertEqual(body, b"no\\r\\n\\x1b\n")
        self.assertEqual(HttpDialogue().refusal(Code.REFUSED_BY_TARGET, "no\r\n\x1b"), said)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([CONNECT[:9], b"GET http://a", b"/ HTTP/1.1", b"\r\n", b"a: b",
                                     b"\xff", b":", b" "]), max_size=9))  # fmt: skip
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """However they are cut, the same follows."""
        whole = b"G" + b"".join(pieces)
        self.assertEqual(
            fed(HttpDialogue(), [whole]),
            fed(HttpDialogue(), [whole[at : at + 1] for at in range(len(whole))]),
        )
