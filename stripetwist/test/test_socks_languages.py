"""The proxy port with clients that speak SOCKS4 or HTTP."""

from typing import Any

from stripetwist.core.errors import Code
from stripetwist.core.http_answer import Answer
from stripetwist.core.http_body import Body
from stripetwist.core.http_proxy import CONNECTED
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.sieve import Sieve, sift
from stripetwist.test.socks_case import LIMITS, TARGET, FrontCase, ways

SOCKS4 = b"\x04\x01\x01\xbb\x5d\xb8\xd8\x22joe\0"
TUNNEL = b"CONNECT 93.184.216.34:443 HTTP/1.1\r\n\r\n"
LOGIN = b"Proxy-Authorization: Basic am9lOnNlY3JldA==\r\n\r\n"
PAGE = b"POST http://example.com/a HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
GRANTED, REJECTED = (bytes([0, number]) + bytes(6) for number in (90, 91))


class Inner:
    """What a sieve stands before."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *what: self.told.append((name, *what))


class LanguageTests(FrontCase):
    """What they are told, and what their targets get."""

    def test_granted(self) -> None:
        """However the request is cut; what follows it is the target's."""
        for request, said in ((SOCKS4, GRANTED), (TUNNEL, CONNECTED)):
            for pieces in ways(request, b"early"):
                wire = self.client(*pieces)
                self.assertEqual(wire.said, b"")
                self.opener.accept()
                self.assertEqual(wire.turn().said, said)
                self.assertEqual(
                    self.couplings[-1].early, b"early" * (len(pieces[-1]) > len(request))
                )
                self.couplings[-1].ended.callback(None)
            self.assertEqual(self.opener.requests[-1], OpenRequest(TARGET))
        self.assert_nothing_left()

    def test_refused(self) -> None:
        """By the code that fits, and in HTTP with the sentence."""
        wire = self.client(SOCKS4)
        self.opener.refuse(Code.REFUSED_BY_TARGET, "no way")
        self.assert_closed_with(wire.turn(), REJECTED)
        wire = self.client(TUNNEL)
        self.opener.refuse(Code.NOT_ALLOWED, "no way")
        self.assertTrue(wire.turn().said.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assert_closed_with(wire, wire.said[: wire.said.index(b"no way")] + b"no way\n")
        wire = self.client(TUNNEL)
        self.later(wire, LIMITS.reply_timeout)
        self.assertTrue(wire.said.startswith(b"HTTP/1.1 504 "))
        self.later(wire, LIMITS.close_timeout)
        self.assertEqual(self.texts()[:2], ["refused: no way"] * 2)

    def test_logins(self) -> None:
        """In HTTP with the right one, in SOCKS4 never; nothing is opened otherwise."""
        self.front = self.build(users=self.users)
        self.assert_closed_with(self.client(SOCKS4), REJECTED)
        for request in (TUNNEL, TUNNEL[:-2] + LOGIN.replace(b"am9", b"am5")):
            wire = self.client(request)
            self.assertTrue(wire.said.startswith(b"HTTP/1.1 407 "))
            self.assert_closed_with(wire, wire.said)
        self.assertEqual((self.opener.requests, self.front.refused[Code.AUTH]), ([], 3))
        wire = self.client(TUNNEL[:-2] + LOGIN)
        self.assertEqual(self.users.asked[-1], (b"joe", b"secret"))
        self.opener.accept()
        self.assertEqual(wire.turn().said, CONNECTED)

    def test_page(self) -> None:
        """The target gets the request and no more; the client its answer alone."""
        wire = self.client(PAGE + b"he")
        self.assertEqual(self.opener.requests[-1].target, Target.of("example.com", 80))
        self.opener.accept()
        self.assertEqual(wire.turn().said, b"")
        self.assertEqual(
            self.couplings[-1].early,
            b"POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n"
            b"Connection: close\r\n\r\nhe",
        )
        keep, mend = self.couplings[-1].sieves
        self.assertIsInstance(mend, Answer)
        assert keep is not None
        inner = Inner()
        sieve = Sieve(inner, keep)
        for data in (b"ll", b"oGET http://other/ HTTP/1.1\r\n", b"more"):
            sieve.dataReceived(data)
        sieve.readConnectionLost()
        sieve.writeConnectionLost()
        sieve.connectionLost("why")  # type: ignore[arg-type]
        self.assertEqual(
            inner.told,
            [
                ("dataReceived", b"ll"),
                ("dataReceived", b"o"),
                ("readConnectionLost",),
                ("writeConnectionLost",),
                ("connectionLost", "why"),
            ],
        )

    def test_a_lost_connection_has_no_sieve(self) -> None:
        """There is nothing to stand before."""
        lost = object()
        sift(lost, Body(5))
        self.assertFalse(hasattr(lost, "protocol"))

    def test_optimistic(self) -> None:
        """A tunnel is there at once; a page's refusal can still be told."""
        self.front = self.build(optimistic=True)
        wire = self.client(TUNNEL)
        self.assertEqual(wire.said, CONNECTED)
        self.opener.refuse(Code.REFUSED_BY_TARGET)
        self.assertEqual(wire.turn().end, "aborted")
        wire = self.client(PAGE)
        self.opener.refuse(Code.REFUSED_BY_TARGET)
        self.assertTrue(wire.turn().said.startswith(b"HTTP/1.1 502 "))
