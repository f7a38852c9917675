"""L{stripetwist.net.udp_exit}: what leaves, what comes back, and what does neither."""

import errno
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.net.association import Association
from stripetwist.net.exit import DirectExit
from stripetwist.net.guard import Guard
from stripetwist.net.udp_association import (
    FAILED_FOR,
    KNOWN_FOR,
    MOST_LOOKUPS,
    MOST_TOLD,
    SILENT_FOR,
)
from stripetwist.test.collector import Collector
from stripetwist.test.test_exit import Names

LIMITS = Limits()
PUBLIC = Target.of("93.184.216.34", 53)
OTHER = Target.of("93.184.216.35", 53)
PLACE = Target.of("127.0.0.1", 23461)
ASK = OpenRequest(ANYWHERE, Kind.UDP, key_id="joe")


class Socket:
    """A bound socket: what it has sent, and whether it is closed."""

    def __init__(self, protocol: Any, host: str, port: int) -> None:
        self.protocol, self.host, self.port = protocol, host, port
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.error: Exception | None = None
        self.closed = False

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        """Send, or fail as told; there is no way to 2620::."""
        if address[0].startswith("2620:"):
            raise OSError(errno.ENETUNREACH, "")
        if self.error is not None:
            raise self.error
        self.sent.append((data, address))

    def stopListening(self) -> None:
        """Close."""
        self.closed = True


class UdpExitTestCase(SynchronousTestCase):
    """An exit whose sockets are pretended."""

    def setUp(self) -> None:
        """The policy is the default one; one key may bind one place."""
        self.clock, self.names = Clock(), Names()
        self.sockets: list[Socket] = []
        self.taken = False
        self.exit = self.make(Policy())

    def make(self, policy: Policy, limits: Limits | None = None) -> DirectExit:
        """An exit with that policy."""
        guard = Guard(
            policy,
            [("", 8443)],
            is_local=lambda address: False,
            may_bind=lambda key_id, place: (key_id, place) == ("joe", PLACE),
        )
        reactor: Any = None
        made = DirectExit(reactor, self.clock, self.names, guard, limits or Limits())
        made.udp._bind = self.bind
        return made

    def bind(self, reactor: Any, protocol: Any, host: str, port: int) -> Socket:
        """A pretended socket, or a port that is taken."""
        if self.taken:
            raise CannotListenError(host, port, OSError(errno.EADDRINUSE, "in use"))
        self.sockets.append(Socket(protocol, host, port))
        return self.sockets[-1]

    def associate(self, request: OpenRequest = ASK) -> Association:
        """An association that is made at once."""
        made = self.successResultOf(self.exit.associate(request))
        made.receiver = self.heard = Collector()
        return made

    def pending(self) -> list[Deferred[Any]]:
        """Lookups that are not answered yet."""
        answers: list[Deferred[Any]] = []

        def resolve(name: str, asker: str = "") -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        self.names.resolve = resolve  # type: ignore[method-assign]
        return answers

    def refusal(self, request: OpenRequest) -> OpenRefused:
        """Why there is none."""
        error = self.failureResultOf(self.exit.associate(request), OpenRefused).value
        assert isinstance(error, OpenRefused)
        return error


class AnywhereTests(UdpExitTestCase):
    """Each datagram names its own target."""

    def test_there_and_back(self) -> None:
        """One socket for a family; the true sender of an answer is told."""
        made = self.associate()
        made.send(b"", PUBLIC)
        made.send(b"two", OTHER)
        (socket,) = self.sockets
        self.assertEqual(
            [(b"", ("93.184.216.34", 53)), (b"two", ("93.184.216.35", 53))], socket.sent
        )
        socket.protocol.datagramReceived(b"yes", ("93.184.216.35", 53))
        self.assertEqual([(b"yes", OTHER)], self.heard.datagrams)

    def test_families(self) -> None:
        """IPv6 has a socket of its own."""
        made = self.associate()
        made.send(b"4", PUBLIC)
        made.send(b"6", Target.of("2606:2800:220:1::1", 53))
        self.assertEqual(["0.0.0.0", "::"], [one.host for one in self.sockets])

    def test_unasked(self) -> None:
        """What comes from another port or host than was sent to is dropped."""
        made = self.associate()
        made.send(b"a", PUBLIC)
        for address in (("93.184.216.34", 54), ("93.184.216.35", 53)):
            self.sockets[0].protocol.datagramReceived(b"no", address)
        self.assertEqual([], self.heard.datagrams)
        self.assertEqual(2, self.exit.udp.dropped)

    def test_denied(self) -> None:
        """A target that is not allowed is dropped silently, and counted."""
        made = self.associate()
        self.names.table["inside.example"] = ["10.0.0.1"]
        for target in ("127.0.0.1", "192.168.1.1", "inside.example"):
            made.send(b"a", Target.of(target, 53))
            made.send(b"b", Target.of(target, 53))
        self.assertEqual([], self.sockets)
        self.assertEqual(6, self.exit.udp.denied)
        self.assertEqual(["inside.example"], self.names.asked)

    def test_denials_are_told(self) -> None:
        """Each reason once for an association, and no target unless for debugging."""
        made = self.associate()
        with capturedLogs() as logs:
            for target in ("127.0.0.1", "192.168.1.1", "192.168.1.2", "192.168.1.2"):
                made.send(b"a", Target.of(target, 53))
            self.associate().send(b"a", Target.of("192.168.1.1", 53))
        told = [str(formatEvent(log)) for log in logs if log["log_level"] is LogLevel.info]
        self.assertEqual(
            ["the exit's own machine", "a private address", "a private address"],
            [line.split(": ")[2].split(";")[0] for line in told],
        )
        self.assertTrue(all(line.startswith("joe: datagrams are refused: ") for line in told))
        self.assertNotIn("192.168", "".join(told))
        self.assertIn("joe: 192.168.1.2:53 is refused: ", "".join(map(str, map(formatEvent, logs))))

    def test_reasons_without_end(self) -> None:
        """Fill no log."""
        self.exit = self.make(Policy(["internet:443"]))
        made = self.associate()
        with capturedLogs() as logs:
            for port in range(1000, 1030):
                made.send(b"a", Target.of("93.184.216.34", port))
        told = [log for log in logs if log["log_level"] is LogLevel.info]
        self.assertEqual((MOST_TOLD, 30), (len(told), self.exit.udp.denied))

    def test_only_tcp_is_allowed(self) -> None:
        """A rule for TCP lets no datagram pass."""
        self.exit = self.make(Policy(["internet/tcp"]))
        self.associate().send(b"a", PUBLIC)
        self.assertEqual(1, self.exit.udp.denied)

    def test_own_port(self) -> None:
        """A port of ours is no target, whatever is allowed."""
        self.exit = self.make(Policy(["all"]))
        self.exit.guard._is_local = lambda address: True
        self.associate().send(b"a", Target.of("127.0.0.1", 8443))
        self.assertEqual(1, self.exit.udp.denied)

    def test_name(self) -> None:
        """A name is looked up once, and again when the answer is old; what is sent waits."""
        made, target, answers = self.associate(), Target.of("dns.example", 53), self.pending()
        for _ in range(3):
            made.send(b"a", target)
        answers[0].callback([ip_address("93.184.216.34")])
        made.send(b"b", target)
        self.assertEqual(4, len(self.sockets[0].sent))
        self.clock.advance(KNOWN_FOR)
        made.send(b"c", target)
        self.assertEqual(2, len(answers))

    def test_other_address(self) -> None:
        """Where there is no way to one address of a name it goes to the next."""
        self.names.table["dns.example"] = ["2620:0:860::1", "93.184.216.34"]
        made, target = self.associate(), Target.of("dns.example", 53)
        made.send(b"a", target)
        made.send(b"b", target)
        self.assertEqual([[], [b"a", b"b"]], [[p for p, _ in one.sent] for one in self.sockets])
        self.sockets[1].protocol.datagramReceived(b"yes", ("93.184.216.34", 53))
        self.assertEqual([(b"yes", PUBLIC)], self.heard.datagrams)
        self.sockets[1].error = OSError(errno.ENETUNREACH, "")
        made.send(b"c", target)
        self.assertEqual(1, self.exit.udp.dropped)

    def test_name_that_is_not_there(self) -> None:
        """It is not asked for again with each datagram, but soon."""
        made, target, answers = self.associate(), Target.of("dns.example", 53), self.pending()
        made.send(b"a", target)
        answers[0].errback(OpenRefused(Code.DNS_FAIL, "no such name"))
        made.send(b"b", target)
        self.assertEqual((1, 2), (len(answers), self.exit.udp.dropped))
        self.clock.advance(FAILED_FOR)
        made.send(b"c", target)
        self.assertEqual(2, len(answers))

    def test_slow_name(self) -> None:
        """What is too old once the name is known is dropped, as it is anywhere else."""
        made, target, answers = self.associate(), Target.of("dns.example", 53), self.pending()
        made.send(b"old", target)
        self.clock.advance(LIMITS.datagram_age)
        made.send(b"new", target)
        answers[0].callback([ip_address("93.184.216.34")])
        self.assertEqual([b"new"], [payload for payload, _ in self.sockets[0].sent])
        self.assertEqual(1, self.exit.udp.dropped)

    def test_many_that_wait(self) -> None:
        """A key's newest 256 KiB wait, over all its associations; others have their own."""
        made, answers = [self.associate() for _ in range(2)], self.pending()
        made.append(self.associate(replace(ASK, key_id="ann")))
        for number in range(6):
            made[number % 2].send(bytes([number]) * 60_000, Target.of("dns.example", 53))
        made[2].send(b"ann", Target.of("dns.example", 53))
        self.assertEqual(2, self.exit.udp.dropped)
        for answer in answers:
            answer.callback([ip_address("93.184.216.34")])
        sent = [payload[:1] for one in self.sockets for payload, _ in one.sent]
        self.assertEqual([b"\2", b"\4", b"\3", b"\5", b"a"], sent)
        self.assertEqual({}, self.exit.udp._waiting)

    def test_many_empty_ones(self) -> None:
        """They are not free."""
        made, answers = self.associate(), self.pending()
        for _ in range(3000):
            made.send(b"", Target.of("dns.example", 53))
        made.close()
        answers[0].callback([ip_address("93.184.216.34")])
        self.assertGreater(self.exit.udp.dropped, 900)
        self.assertEqual({}, self.exit.udp._waiting)

    def test_many_names(self) -> None:
        """So many lookups at a time and no more; those of a closed one are given up."""
        made = self.associate()
        for number in range(MOST_LOOKUPS + 5):
            made.send(b"a", Target.of(f"n{number}.example", 53))
        self.assertEqual(MOST_LOOKUPS, len(self.names.asked))
        self.assertEqual(5, self.exit.udp.dropped)
        made.close()
        self.assertEqual(MOST_LOOKUPS, len(self.names.cancelled))

    def test_does_not_leave(self) -> None:
        """Too large, no room, no way: a counted drop, and the next one leaves."""
        made = self.associate()
        made.send(b"a", PUBLIC)
        for number in (errno.EMSGSIZE, errno.ENOBUFS, errno.ENETUNREACH):
            self.sockets[0].error = OSError(number, "")
            made.send(b"b", PUBLIC)
        made.send(bytes(65_508), PUBLIC)
        self.sockets[0].error = None
        made.send(bytes(65_507), PUBLIC)
        self.assertEqual(4, self.exit.udp.dropped)
        self.assertEqual(2, len(self.sockets[0].sent))

    def test_idle(self) -> None:
        """It ends when nothing came or went for a while."""
        made = self.associate()
        self.clock.advance(100)
        made.send(b"a", PUBLIC)
        self.clock.advance(100)
        self.assertEqual([], self.heard.lost)
        self.clock.advance(20)
        self.assertEqual([None], self.heard.lost)
        self.assertTrue(self.sockets[0].closed)
        self.assertEqual(0, self.exit.udp.active)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_too_many(self) -> None:
        """Each key has a share; a closed one makes room, however often it is closed."""
        self.exit = self.make(Policy(), replace(Limits(), max_associations=1))
        made = self.associate()
        refusal = self.refusal(ASK)
        self.assertEqual(Code.OVERLOAD, refusal.code)
        self.assertIn("1 UDP associations of this key are there already", refusal.sentence)
        self.exit.udp.asker = "server"
        self.assertIn("1 UDP associations of this server are", self.refusal(ASK).sentence)
        self.associate(replace(ASK, key_id="ann"))
        made.close()
        made.close()
        self.associate()


class FixedTests(UdpExitTestCase):
    """One target."""

    request = OpenRequest(PUBLIC, Kind.UDP, key_id="joe")

    def test_there_and_back(self) -> None:
        """Neither side names the target; nobody else is heard; it never expires."""
        made = self.associate(self.request)
        made.send(b"a", None)
        made.send(b"b", OTHER)
        self.clock.advance(1000)
        (socket,) = self.sockets
        self.assertEqual([(b"a", ("93.184.216.34", 53))], socket.sent)
        socket.protocol.datagramReceived(b"no", ("93.184.216.35", 53))
        socket.protocol.datagramReceived(b"yes", ("93.184.216.34", 53))
        self.assertEqual([(b"yes", None)], self.heard.datagrams)
        self.assertEqual([], self.heard.lost)

    def test_denied(self) -> None:
        """The same sentence as for a stream."""
        refusal = self.refusal(replace(self.request, target=Target.of("127.0.0.1", 53)))
        self.assertEqual(Code.NOT_ALLOWED, refusal.code)
        self.assertIn("127.0.0.1:53 is refused: ", refusal.sentence)
        self.assertEqual((1, 0), (self.exit.denied, self.exit.udp.active))

    def test_name_that_moves(self) -> None:
        """It is looked up each time that an association is made."""
        request = replace(self.request, target=Target.of("x.example", 53))
        for number in (34, 35):
            self.names.table["x.example"] = [f"93.184.216.{number}"]
            self.associate(request).send(b"a", None)
        hosts = [address[0] for one in self.sockets for _, address in one.sent]
        self.assertEqual(["93.184.216.34", "93.184.216.35"], hosts)

    def test_moves_meanwhile(self) -> None:
        """It is looked up again when something was sent and nothing came for a minute."""
        target = Target.of("x.example", 53)
        self.names.table["x.example"] = ["93.184.216.34"]
        made = self.associate(replace(self.request, target=target))
        made.send(b"a", None)
        self.clock.advance(SILENT_FOR - 1)
        self.names.table["x.example"] = ["93.184.216.35"]
        self.sockets[0].protocol.datagramReceived(b"yes", ("93.184.216.34", 53))
        for after in (1, SILENT_FOR - 1, 1):
            self.clock.advance(after)
            made.send(b"b", None)
        hosts = [address[0] for _, address in self.sockets[0].sent]
        self.assertEqual(["93.184.216.34"] * 3 + ["93.184.216.35"], hosts)
        for host in hosts[2:]:
            self.sockets[0].protocol.datagramReceived(b"yes", (host, 53))
        self.assertEqual(2, len(self.heard.datagrams))
        self.clock.advance(SILENT_FOR)
        made.send(b"c", None)
        self.names.table["x.example"] = OpenRefused(Code.DNS_FAIL, "no such name")
        self.clock.advance(SILENT_FOR)
        made.send(b"d", None)
        self.assertEqual("93.184.216.35", self.sockets[0].sent[-1][1][0])
        self.assertEqual({}, made._asking)  # type: ignore[attr-defined]

    def test_other_address(self) -> None:
        """Where there is no way to one it goes to the next, if that may be sent to from there."""
        self.names.table["x.example"] = ["2620:0:860::1", "93.184.216.34"]
        request = replace(self.request, target=Target.of("x.example", 53))
        self.associate(request).send(b"a", None)
        self.assertEqual([[], [b"a"]], [[p for p, _ in one.sent] for one in self.sockets])
        self.sockets[1].protocol.datagramReceived(b"yes", ("93.184.216.34", 53))
        self.assertEqual([(b"yes", None)], self.heard.datagrams)
        self.associate(replace(request, bind=PLACE)).send(b"b", None)
        self.assertEqual(b"b", self.sockets[2].sent[0][0])

    def test_cannot_be_bound(self) -> None:
        """A socket that cannot be had is a refusal."""
        self.taken = True
        self.assertIn("cannot be bound", self.refusal(self.request).sentence)
        self.assertEqual((1, 0), (self.exit.failed, self.exit.udp.active))

    def test_given_up(self) -> None:
        """Who no longer waits for the lookup keeps nothing."""
        made = self.exit.associate(replace(self.request, target=Target.of("x.example", 1)))
        made.cancel()
        self.failureResultOf(made)
        self.assertEqual(0, self.exit.udp.active)

    def test_bound(self) -> None:
        """Where the key lets it be bound, it is, and hears the target before it has sent."""
        self.associate(replace(self.request, bind=PLACE))
        (socket,) = self.sockets
        self.assertEqual(("127.0.0.1", 23461), (socket.host, socket.port))
        socket.protocol.datagramReceived(b"first", ("93.184.216.34", 53))
        self.assertEqual([(b"first", None)], self.heard.datagrams)

    def test_taken_over(self) -> None:
        """A newer association of the same key gets the place, once the socket there is closed."""
        request = replace(self.request, bind=PLACE)
        older = self.associate(request)
        heard, closing = self.heard, Deferred[None]()
        self.patch(Socket, "stopListening", lambda socket: closing)
        newer = self.exit.associate(request)
        self.assertEqual([None], heard.lost)
        self.assertEqual(1, len(self.sockets))
        closing.callback(None)
        self.successResultOf(newer)
        older.close()
        self.assertEqual((2, 1), (len(self.sockets), self.exit.udp.active))
        self.associate(request)
        self.assertEqual((3, 1), (len(self.sockets), self.exit.udp.active))

    def test_may_not_be_bound(self) -> None:
        """Any other key, or place, is told what to list where."""
        for request in (
            replace(self.request, bind=PLACE, key_id="ann"),
            replace(self.request, bind=PUBLIC),
        ):
            refusal = self.refusal(request)
            self.assertEqual(Code.NOT_ALLOWED, refusal.code)
            self.assertIn("udp_bind", refusal.sentence)

    def test_agents_bind_nothing(self) -> None:
        """Where there are no keys, nobody is told to list it in one."""
        self.exit.guard._may_bind = None
        refusal = self.refusal(replace(self.request, bind=PLACE))
        self.assertEqual(Code.NOT_ALLOWED, refusal.code)
        self.assertIn("agents bind nothing", refusal.sentence)
        self.assertNotIn("udp_bind", refusal.sentence)
