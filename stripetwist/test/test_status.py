"""L{stripetwist.net.status}: the status port, request by request."""

import json
from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.address import Address
from stripetwist.net import status
from stripetwist.net.status import MAX_CONNECTIONS, MAX_REQUEST, PATIENCE, StatusFactory
from stripetwist.test.network import Network


class Wire(StringTransportWithDisconnection):
    """A connection whose other end is the test."""

    aborted = False

    def loseConnection(self) -> None:
        """Nothing more comes in."""
        self.disconnecting = True
        super().loseConnection()

    def abortConnection(self) -> None:
        """It is gone at once."""
        self.aborted = True
        self.loseConnection()


class FakeUsers:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.cancelled = 0

    def check(self, user: bytes, password: bytes) -> "Deferred[bool]":
        """See L{stripetwist.net.users.Users.check}."""
        self.asked.append((user, password))
        self.verdict: Deferred[bool] = Deferred(self._cancel)
        return self.verdict

    def _cancel(self, waiting: object) -> None:
        self.cancelled += 1


class StatusTestCase(SynchronousTestCase):
    """A status port and its connections."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.complaint = ""
        self.seen: Any = {"version": 1, "name": "\u00e9"}
        self.factory = self.made(None)

    def made(self, users: Any) -> StatusFactory:
        """A port for those users."""
        return StatusFactory(self.clock, lambda: self.seen, lambda: self.complaint, users)

    def dial(self, factory: StatusFactory | None = None) -> Wire:
        """A connection."""
        protocol = (factory or self.factory).buildProtocol(None)
        assert protocol is not None
        wire = Wire()
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def ask(self, text: str, factory: StatusFactory | None = None) -> tuple[str, list[str], str]:
        """The status line, the headers and the body that answer a request."""
        wire = self.dial(factory)
        wire.protocol.dataReceived(text.encode())
        return self.answer(wire)

    def answer(self, wire: Wire) -> tuple[str, list[str], str]:
        """What came; the connection has ended."""
        self.assertFalse(wire.connected)
        head, _, body = wire.value().decode().partition("\r\n\r\n")
        first, *headers = head.split("\r\n")
        return first, headers, body

    def get(self, path: str, host: str = "127.0.0.1:8888", method: str = "GET") -> Any:
        """The answer to a plain request."""
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")

    def tearDown(self) -> None:
        """No timer is left."""
        self.factory.guests.close_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PageTests(StatusTestCase):
    """What is answered."""

    def test_status(self) -> None:
        """The snapshot as JSON, which nobody keeps; no word of what answers."""
        first, headers, body = self.get("/status.json?x=1")
        self.assertEqual((first, json.loads(body)), ("HTTP/1.1 200 OK", self.seen))
        self.assertIn("Content-Type: application/json", headers)
        self.assertIn("Cache-Control: no-store", headers)
        self.assertIn("Connection: close", headers)
        self.assertNotIn("server", " ".join(headers).lower())
        self.assertNotIn("twisted", " ".join(headers).lower())

    def test_head(self) -> None:
        """The same without a body."""
        first, headers, body = self.get("/status.json", method="HEAD")
        self.assertEqual((first, body), ("HTTP/1.1 200 OK", ""))
        self.assertIn(f"Content-Length: {len(json.dumps(self.seen)) + 1}", headers)

    def test_health(self) -> None:
        """Fine, or why not."""
        self.assertEqual(self.get("/healthz")[::2], ("HTTP/1.1 200 OK", "ok\n"))
        self.complaint = "no connection to the server"
        first, _, body = self.get("/healthz")
        self.assertEqual(first.split()[1], "503")
        self.assertEqual(body, "no connection to the server\n")

    def test_anything_else(self) -> None:
        """Is not there, or not to be done."""
        for path in ("/", "/status", "/healthz/", "//status.json", "/../status.json", "*"):
            self.assertEqual(self.get(path)[0].split()[1], "404", path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
            first, headers, _ = self.get("/status.json", method=method)
            self.assertEqual(first.split()[1], "405")
            self.assertIn("Allow: GET, HEAD", headers)

    def test_names_of_others(self) -> None:
        """A name that somebody gave to this machine is not answered, for browsers' sake."""
        for host in ("127.0.0.1", "localhost:80", "[::1]:8888", "192.0.2.1:1"):
            self.assertEqual(self.get("/healthz", host)[0].split()[1], "200", host)
        for host in ("evil.example", "127.0.0.1.evil.example:8888", "", "[", "localhost."):
            self.assertEqual(self.get("/healthz", host)[0].split()[1], "403", host)
        self.assertEqual(self.ask("GET /healthz HTTP/1.0\r\n\r\n")[2], "ok\n")

    def test_own_mistake(self) -> None:
        """Is told without its details, which are in the log."""
        self.seen = float("nan")
        first, _, body = self.get("/status.json")
        self.assertEqual(first.split()[1], "500")
        self.assertEqual(body, "that failed here; the log of the running process says why\n")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class UserTests(StatusTestCase):
    """Who may ask."""

    def setUp(self) -> None:
        super().setUp()
        self.users = FakeUsers()
        self.factory = self.made(self.users)

    def login(self, text: str = "ann:se:cret") -> Wire:
        """A connection with a request of that user's."""
        wire = self.dial()
        word = b64encode(text.encode()).decode()
        lines = f"GET /healthz HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic {word}\r\n\r\n"
        wire.protocol.dataReceived(lines.encode())
        return wire

    def test_right(self) -> None:
        """By whatever name of the machine."""
        wire = self.login()
        self.assertEqual((self.users.asked, wire.value()), ([(b"ann", b"se:cret")], b""))
        self.users.verdict.callback(True)
        self.assertEqual(self.answer(wire)[2], "ok\n")

    def test_wrong(self) -> None:
        """Wrong, missing or malformed: all the same, and even for what is not there."""
        wire = self.login()
        self.users.verdict.callback(False)
        for first, headers, _ in (
            self.answer(wire),
            self.get("/nothing"),
            self.answer(self.login("ann")),
            self.ask("POST /healthz HTTP/1.1\r\nAuthorization: Basic \xff\r\n\r\n"),
        ):
            self.assertEqual(first.split()[1], "401")
            self.assertIn("realm", "".join(one for one in headers if "WWW-Auth" in one))
        self.assertEqual(len(self.users.asked), 1)

    def test_gone_meanwhile(self) -> None:
        """Nobody is waited for who is not there."""
        wire = self.login()
        wire.loseConnection()
        self.assertEqual(self.users.cancelled, 1)

    def test_checked_for_too_long(self) -> None:
        """The time of a connection is over all the same."""
        wire = self.login()
        self.clock.advance(PATIENCE)
        self.assertTrue(wire.aborted)
        self.assertEqual(self.users.cancelled, 1)


class BoundTests(StatusTestCase):
    """What nobody can have too much of."""

    def test_too_large(self) -> None:
        """One header, many, a body, a first line: over when there are 8 KiB."""
        post = "POST / HTTP/1.1\r\n"
        for start in (
            "GET /healthz HTTP/1.1\r\nX: ",
            "GET /",
            "GET /healthz HTTP/1.1\r\n",
            f"{post}Content-Length: 99999999\r\n\r\n",
            f"{post}Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
        ):
            wire = self.dial()
            wire.protocol.dataReceived(start.encode())
            for _ in range(2 * MAX_REQUEST // 1024):
                wire.protocol.dataReceived(b"X: 5678" * 146)
            self.assertEqual(self.answer(wire)[0], "HTTP/1.1 413 Content Too Large", start)

    def test_too_slow(self) -> None:
        """A byte now and then does not help."""
        wire = self.dial()
        for byte in b"GET /healthz HTTP/1.1\r\n"[:10]:
            wire.protocol.dataReceived(bytes([byte]))
            self.assertTrue(wire.connected)
            self.clock.advance(PATIENCE / 10)
        self.assertTrue(wire.aborted)

    def test_too_many(self) -> None:
        """Until one of them has ended."""
        wires = [self.dial() for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(self.factory.buildProtocol(None))
        wires[0].loseConnection()
        wires.append(self.dial())
        self.factory.guests.close_all()
        self.assertFalse(any(wire.connected for wire in wires))

    def test_one_request(self) -> None:
        """What follows it is not read."""
        text = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.assertEqual(self.ask(text + text)[2], "ok\n")

    def test_nonsense(self) -> None:
        """Is refused in a few words."""
        for text in ("\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9\r\n\r\n", "\x16\x03\x01\r\n",
                     "GET / HTTP/1.1\r\nno colon\r\n\r\n"):  # fmt: skip
            self.assertEqual(self.ask(text)[::2], ("HTTP/1.1 400 Bad Request", ""), text)


class PortTests(SynchronousTestCase):
    """The service."""

    def test_from_the_start_to_the_end(self) -> None:
        """It listens before it runs, and no longer than that."""
        network = Network()
        factory = StatusFactory(network, dict, str)
        port = status.StatusPort(network, Address("127.0.0.1", 8888), factory)
        self.assertEqual(list(network.ports), [8888])
        port.startService()
        self.successResultOf(port.stopService())
        self.assertEqual(network.ports, {})
