"""L{stripetwist.net.tunnel}: paths over proxies, from the dial to the session."""

from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from stripetwist.core.target import Target
from stripetwist.core.way import Way
from stripetwist.net.dialer import Dialer
from stripetwist.test.link_case import PORT, LinkTestCase
from stripetwist.test.network import Network

SERVER = Target.of("192.0.2.1", PORT)
SOCKS = {
    b"\x05\x01\x00": b"\x05\x00",
    b"\x05\x01\x00" + SERVER.encode(): b"\x05\x00\x00\x01" + bytes(6),
}
CONNECT = f"CONNECT {SERVER} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n".encode()
HTTP = {CONNECT: b"HTTP/1.1 200 OK\r\n\r\n"}


class Leg(Protocol):
    """One side of a proxy; what comes goes to the other side."""

    transport: Any

    def __init__(self, other: Any = None) -> None:
        self.other = other

    def connectionMade(self) -> None:
        """The way to the server is there."""
        if self.other is not None:
            self.other.joined(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other side goes too."""
        if self.other is not None:
            self.other.transport.loseConnection()


class Proxy(Leg):
    """A proxy by a table: an answer to each thing that is said, and the server after the last."""

    def __init__(self, network: Network, table: dict[bytes, bytes]) -> None:
        super().__init__()
        self._network = network
        self._table = list(table.items())
        self._held = b""

    def connectionMade(self) -> None:
        """It waits to be asked."""

    def dataReceived(self, data: bytes) -> None:
        """Answer the next thing, once it is whole; what does not fit is a failure."""
        if not self._table:
            self.other.transport.write(data)
            return
        self._held += data
        question, answer = self._table[0]
        assert question.startswith(self._held), self._held
        if self._held == question:
            self._held = b""
            self._table.pop(0)
            self._reply = answer
            if self._table:
                self.transport.write(answer)
            else:
                factory = Factory.forProtocol(lambda: Leg(self))
                factory.noisy = False
                factory.clientConnectionFailed = nothing  # type: ignore[attr-defined]
                self._network.connectTCP("192.0.2.1", PORT, factory)

    def joined(self, other: Leg) -> None:
        """The server is there."""
        self.other = other
        self.transport.write(self._reply)


def nothing(*_: object) -> None:
    """It leads nowhere."""


class Plain(Factory[Protocol]):
    """Listens with one kind of protocol."""

    noisy = False

    def __init__(self, make: Any) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> Protocol:
        """One more."""
        made: Protocol = self._make()
        return made


class TunnelTests(LinkTestCase):
    """A server behind proxies, in a network without anything else."""

    def proxy(self, port: int, table: dict[bytes, bytes]) -> None:
        """One listens there."""
        self.network.listenTCP(port, Plain(lambda: Proxy(self.network, table)))

    def answering(self, port: int, words: bytes) -> None:
        """One that has but one thing to say, and goes."""

        class Curt(Protocol):
            transport: Any

            def dataReceived(self, data: bytes) -> None:
                self.transport.write(words)
                self.transport.loseConnection()

        self.network.listenTCP(port, Plain(Curt))

    def up(self, dialer: Dialer) -> int:
        """How many subflows there are."""
        return len(dialer.driver.connections) if dialer.driver is not None else 0

    def told(self, way: str, seconds: float = 0.5) -> str:
        """What the log says of a path that does not work; all of it can be read by people."""
        self.dial(ways=[Way.parse(way)])
        lines = self.logged(lambda: self.network.run(seconds, 0.01))
        for line in lines:
            self.assert_sentence(line)
            self.assertNotIn("secret", line)
        return " ".join(lines)

    def test_all_kinds_at_once(self) -> None:
        """A session over two kinds of proxy and the direct way, and each carries its own."""
        self.serve()
        self.proxy(1080, SOCKS)
        self.proxy(8080, HTTP)
        ways = ["direct", "socks://198.51.100.1", "http://[2001:db8::7]"]
        dialer = self.dial(ways=[Way.parse(way) for way in ways])
        self.network.run(1)
        self.assertEqual(self.up(dialer), 3)
        (session,) = dialer.snapshot()
        subflows: Any = session["subflows"]
        self.assertEqual({one["path"] for one in subflows}, set(ways))
        dialed = {(dial.host, dial.port) for dial in self.network.dials}
        wanted = {("192.0.2.1", PORT), ("198.51.100.1", 1080), ("2001:db8::7", 8080)}
        self.assertEqual(dialed, wanted)

    def test_without_tls(self) -> None:
        """A plain link goes through as well."""
        self.serve(plain=True)
        target = Target.of("127.0.0.1", PORT)
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        self.proxy(8080, {head: b"HTTP/1.0 200\r\n\r\n"})
        dialer = self.dial(self.plain_link(), [Way.parse("http://198.51.100.1")])
        self.network.run(0.5)
        self.assertEqual(self.up(dialer), 3)

    def test_the_kernel_is_not_believed(self) -> None:
        """It knows of the way to the proxy only."""
        self.serve()
        self.proxy(1080, SOCKS)
        dialer = self.dial(ways=[Way.parse("socks://198.51.100.1")])
        self.network.run(0.5)
        assert dialer.driver is not None
        for connection in dialer.driver.connections.values():
            self.assertIsNone(connection.kernel_view())
            self.assertEqual(connection.segment, 0)
            self.assertEqual((connection.window_decays, connection.retransmitted), (True, 0))

    def test_refusals(self) -> None:
        """The path, what the proxy said, and what to do."""
        self.answering(8080, b"HTTP/1.1 403 no\r\n\r\n")
        self.assertIn(
            "path http://198.51.100.1: it does not allow CONNECT to port 8443 (403): "
            "many allow only 443; start the server with --listen 443",
            self.told("http://me:secret@198.51.100.1"),
        )
        # It would say the same again: one dial for each place, and a long rest.
        dials = len(self.network.dials)
        self.network.run(20, 0.1)
        self.assertEqual(len(self.network.dials), dials)

    def test_a_wrong_login(self) -> None:
        """Neither half of it is shown."""
        self.answering(1080, b"\x05\x02\x01\x01")
        told = self.told("socks://me:secret@198.51.100.1")
        self.assertIn("path socks://198.51.100.1: it does not accept this user name", told)

    def test_it_closes(self) -> None:
        """It is dialed again as if there were nothing."""
        self.answering(1080, b"")
        self.assertIn("it closes the connection", self.told("socks://198.51.100.1", 3))
        self.assertGreater(len(self.network.dials), 6)
        self.answering(8080, b"HTTP/1.1 200 OK\r\n")
        self.assertIn("it begins to answer, then closes", self.told("http://198.51.100.1"))

    def test_silence(self) -> None:
        """It has ten seconds, the connect included."""
        self.network.delay = 0.4
        self.network.listenTCP(8080, Plain(Protocol))
        self.assertEqual(self.told("http://198.51.100.1", 9.5), "")
        lines = self.logged(lambda: self.network.run(1, 0.01))
        self.assertIn("has not answered within 10 s; check that it is an HTTP", " ".join(lines))

    def test_silence_beside_the_direct_way(self) -> None:
        """It is waited for by as many as its share, and the others come up meanwhile."""
        self.serve()
        self.network.listenTCP(8080, Plain(Protocol))
        ways = [Way.parse("http://198.51.100.1"), Way()]
        dialer = self.dial(ways=ways, subflows=20, max_handshakes=4)
        self.network.run(2)
        self.assertEqual(self.up(dialer), 10)
        direct = [dial.cable for dial in self.network.dials if dial.port == PORT]
        assert direct[-1] is not None
        direct[-1].cut()
        self.network.run(1)
        self.assertEqual(self.up(dialer), 10)

    def test_nobody_there(self) -> None:
        """The proxy is to be looked after, not the server."""
        told = self.told("http://198.51.100.1:3128")
        self.assertIn("path http://198.51.100.1:3128: the proxy refuses connections: start", told)

    def test_stopped_meanwhile(self) -> None:
        """A dialogue does not hold the end up, and no timer is left of it."""
        self.network.listenTCP(8080, Plain(Protocol))
        dialer = self.dial(ways=[Way.parse("http://198.51.100.1")])
        self.network.run(0.2)
        self.stop(dialer)

    def test_what_comes_at_once(self) -> None:
        """Bytes right behind the proxy's answer are the server's."""
        self.answering(8080, b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n")
        told = self.told("http://198.51.100.1")
        self.assertIn("192.0.2.1:8443 by http://198.51.100.1 does not speak TLS", told)
