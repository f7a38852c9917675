"""UDP ASSOCIATE at the proxy port: one client, its connection and its socket."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.socks5_udp import unwrap, wrap
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.net.socks_udp import UdpDoor
from stripetwist.test.associations import Far
from stripetwist.test.socks_case import GREETING, LIMITS, LOCAL, FrontCase, Wire

REQUEST = b"\x05\x03\x00\x01" + bytes(6)
GRANTED = b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90"
TARGET = Target.of("93.184.216.34", 53)
CLIENT = ("127.0.0.1", 5353)


class HeaderTests(SynchronousTestCase):
    """L{stripetwist.core.socks5_udp}."""

    def test_there_and_back(self) -> None:
        """Each kind of address, with and without payload."""
        for host in ("93.184.216.34", "::1", "dns.example"):
            for payload in (b"", b"a", bytes(65_000)):
                target = Target.of(host, 53)
                self.assertEqual((target, payload), unwrap(wrap(payload, target)))

    def test_dropped(self) -> None:
        """Reserved bits, fragments, unknown addresses, port 0, and all that is cut short."""
        good = wrap(b"", TARGET)
        bad = [b"\x00\x01" + good[2:], b"\x01" + good[1:], b"\x00\x00\x01" + good[3:]]
        bad += [b"\x00\x00\x00\x05" + good[4:], good[:-2] + b"\0\0", b"\0\0\0\x03\xff" + good]
        bad += [good[:length] for length in range(len(good))]
        self.assertEqual([None] * len(bad), [unwrap(one) for one in bad])


class Socket:
    """A bound UDP socket."""

    def __init__(self, relay: Any, host: str) -> None:
        self.relay, self.host = relay, host
        self.said: list[tuple[bytes, Any]] = []
        self.closed = False

    def getHost(self) -> IPv4Address:
        """Where it is bound."""
        return IPv4Address("UDP", self.host, 8080)

    def write(self, data: bytes, address: Any) -> None:
        """Send."""
        self.said.append((data, address))

    def stopListening(self) -> None:
        """Close."""
        self.closed = True


class Near(Wire):
    """A client's connection, which knows where it came in."""

    def getHost(self) -> IPv4Address:
        """See ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 1080)


class AssociateTests(FrontCase):
    """A proxy port whose associations the test makes."""

    def setUp(self) -> None:
        """With UDP."""
        super().setUp()
        self.sockets: list[Socket] = []
        self.far = Far()
        self.asked: list[OpenRequest] = []
        self.making: Deferred[Any] = Deferred()
        self.opener.associate = self.associate  # type: ignore[method-assign]
        self.door = UdpDoor(None, LIMITS, self.bind)
        self.front = self.build(udp=self.door)

    def bind(self, reactor: Any, relay: Any, host: str, port: int) -> Socket:
        """A pretended socket."""
        self.sockets.append(Socket(relay, host))
        return self.sockets[-1]

    def associate(self, request: OpenRequest) -> Deferred[Any]:
        """As an opener."""
        self.asked.append(request)
        self.making = Deferred()
        return self.making

    def granted(self, request: bytes = REQUEST) -> Near:
        """A client that has its socket."""
        near = Near(LOCAL)
        near.connect(self.front).send(GREETING + request)
        self.making.callback(self.far)
        near.turn()
        return near

    def test_granted(self) -> None:
        """A socket at the connection's own address; told only once the far end is bound."""
        near = Near(LOCAL)
        near.connect(self.front).send(GREETING + REQUEST)
        self.assertEqual(b"\x05\x00", near.said)
        self.making.callback(self.far)
        near.turn()
        self.assertEqual(GRANTED, near.said)
        self.assertEqual([OpenRequest(ANYWHERE, Kind.UDP)], self.asked)
        self.assertEqual("127.0.0.1", self.sockets[0].host)

    def test_there_and_back(self) -> None:
        """With the true sender of each answer."""
        self.granted()
        relay, other = self.sockets[0].relay, Target.of("2606:2800:220:1::1", 53)
        for payload in (b"", bytes(65_497)):
            relay.datagramReceived(wrap(payload, TARGET), CLIENT)
        self.assertEqual([(b"", TARGET), (bytes(65_497), TARGET)], self.far.sent)
        self.far.says(b"yes", other)
        self.assertEqual([(wrap(b"yes", other), CLIENT)], self.sockets[0].said)
        self.far.says(bytes(65_507), other)
        self.assertEqual(1, self.door.dropped)

    def test_nobody_waits_for_it(self) -> None:
        """At the end of the process: datagrams were never promised.  It is cut like others."""
        wire = self.granted()
        self.assertEqual((self.guests.active, self.guests.is_idle), (1, True))
        talking = self.client()
        self.assertFalse(self.guests.is_idle)
        ended = self.guests.close_all()
        self.assertEqual((wire.turn().end, talking.turn().end), ("aborted", "aborted"))
        self.successResultOf(ended)

    def test_strangers(self) -> None:
        """Another machine, and another port than the first, are not heard."""
        self.granted(b"\x05\x03\x00\x01\x0a\x00\x00\x07\x00\x00")
        relay = self.sockets[0].relay
        for address in (("10.0.0.7", 5353), CLIENT, ("127.0.0.1", 5354)):
            relay.datagramReceived(wrap(b"a", TARGET), address)
        self.assertEqual((1, 2), (len(self.far.sent), self.door.dropped))

    def test_nonsense_does_not_pin(self) -> None:
        """What is malformed is dropped, and says nothing of the client's port."""
        self.granted()
        relay = self.sockets[0].relay
        relay.datagramReceived(b"nonsense", ("127.0.0.1", 1))
        relay.datagramReceived(wrap(b"a", TARGET), CLIENT)
        self.assertEqual((1, 1), (len(self.far.sent), self.door.dropped))

    def test_port_is_named(self) -> None:
        """Only that port is heard, and it may be answered at once."""
        for start in (b"\x01" + bytes(4), b"\x03\x01a", b"\x04" + bytes(16)):
            self.far, self.door.dropped = Far(), 0
            self.granted(b"\x05\x03\x00" + start + b"\x14\xe9")
            relay = self.sockets[-1].relay
            relay.datagramReceived(wrap(b"a", TARGET), ("127.0.0.1", 1))
            relay.datagramReceived(wrap(b"a", TARGET), CLIENT)
            self.assertEqual((1, 1), (len(self.far.sent), self.door.dropped))

    def test_dies_with_its_connection(self) -> None:
        """However that ends; until then, what comes there is thrown away."""
        for end in (Wire.fin, Wire.rst):
            near = self.granted()
            near.send(b"x" * 100_000)
            self.assertEqual((b"", 0), (near.end.encode(), near.unread))
            end(near)
            self.assertTrue(near.end and self.sockets[-1].closed)
        self.assertEqual(2, self.far.closed)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_lost(self) -> None:
        """With the association, idle or not, the connection ends too."""
        near = self.granted()
        self.far.ends()
        near.turn()
        self.assertEqual(("closed", True), (near.end, self.sockets[0].closed))

    def test_too_many(self) -> None:
        """The next one is refused, until one has gone; all programs here have one address."""
        nears = [self.granted() for _ in range(LIMITS.max_associations)]
        self.assertEqual(b"\x05\x01", self.client(GREETING + REQUEST).said[2:4])
        nears[0].rst()
        self.granted()

    def test_too_many_elsewhere(self) -> None:
        """Another machine has fewer."""
        for _ in range(LIMITS.max_associations_per_source):
            self.door.enter("192.0.2.1")
        with self.assertRaises(OpenRefused):
            self.door.enter("192.0.2.1")

    def test_refused(self) -> None:
        """The reason is told, even where connections are said to be there before they are."""
        self.front = self.build(udp=self.door, optimistic=True)
        near = Near(LOCAL)
        near.connect(self.front).send(GREETING + REQUEST)
        self.making.errback(OpenRefused(Code.NOT_ALLOWED, "no"))
        near.turn()
        self.assertEqual(b"\x05\x02", near.said[2:4])
        self.assertEqual([], self.sockets)

    def test_gone_early(self) -> None:
        """Who leaves before the answer leaves nothing behind."""
        near = Near(LOCAL)
        near.connect(self.front).send(GREETING + REQUEST)
        self.making.addErrback(lambda _: None)
        near.rst()
        self.assertTrue(self.making.called)
        self.assertEqual(0, self.door._of_source.total())

    def test_off(self) -> None:
        """A port that others can reach offers none: not supported."""
        self.front = self.build()
        self.assertEqual(b"\x05\x07", self.client(GREETING + REQUEST).said[2:4])
