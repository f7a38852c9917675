"""L{stripetwist.net.client}: the client side as one service, against a whole server."""

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred

from stripetwist import client_tap
from stripetwist.core.address import Address
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.core.way import Via, Way
from stripetwist.net import client as client_module
from stripetwist.net import sockets
from stripetwist.net.client import Client
from stripetwist.net.files import StartupError
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.guests import Guests, Sources
from stripetwist.net.server import Server
from stripetwist.net.socks import SocksFactory
from stripetwist.net.tls import ServerCreator
from stripetwist.net.udp_forward import UdpForward
from stripetwist.test.link_case import PORT, LinkTestCase, Script, Scripts, certificate
from stripetwist.test.process_case import Beginner, ProcessTestCase
from stripetwist.test.socks_case import ScriptedUsers
from stripetwist.testing import pattern

SOCKS = 1080
REQUEST = b"\x05\x01\x00" + b"\x05\x01\x00\x01\xcb\x00\x71\x09\x00\x50"
ANSWER = b"\x05\x00" + b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


class ClientTestCase(LinkTestCase):
    """A server, a client with a proxy port, and a target at port 80."""

    def setUp(self) -> None:
        super().setUp()
        self.server = Server(
            self.network,
            self.ground(),
            self.keys,
            Policy(("all",)),
            ServerCreator(certificate()),
        )
        self.server.listen(Address("192.0.2.1", PORT))
        self.server.startService()
        self.target = Scripts()
        self.network.listenTCP(80, self.target)
        self.stopped = False

    def start(self, ways: Sequence[Way] = (), wants_bbr: bool = False) -> list[str]:
        """Start a client and let it connect; what is logged meanwhile."""
        ground = self.ground()
        self.client = Client(self.network, ground, [self.link], ways)
        self.client.wants_bbr = wants_bbr
        self.front = SocksFactory(self.client.opener, self.network, ground.limits)
        self.client.listen(Address("127.0.0.1", SOCKS), self.front)
        self.client.startService()
        return self.logged(lambda: self.network.run(0.5))

    def program(self, first: bytes = REQUEST) -> Script:
        """A local program that uses the proxy."""
        scripts = Scripts(lambda wire: wire.write(first))
        self.network.connectTCP("127.0.0.1", SOCKS, scripts)
        self.network.run(0.4)
        return scripts.made[0]

    def stop_client(self) -> None:
        """Stop it; that takes no time."""
        stopping = self.client.stopService()
        self.network.run(0.3)
        self.successResultOf(stopping)
        self.stopped = True

    def tearDown(self) -> None:
        """Nothing is left of either."""
        if not self.stopped:
            self.stop_client()
        stopping = self.server.stopService()
        self.network.run(0.3)
        self.successResultOf(stopping)
        self.assertEqual(list(self.network.ports), [80])
        super().tearDown()


class UseTests(ClientTestCase):
    """Programs that use it."""

    def test_whole_way(self) -> None:
        """From a program through the proxy, six floors and TLS to a target, and back."""
        self.start()
        program = self.program()
        self.assertEqual(program.got, ANSWER)
        there, back = pattern(300_000), pattern(300_000, 1)
        target = self.target.made[0]
        for wire, data in ((program.transport, there), (target.transport, back)):
            wire.write(data)  # type: ignore[union-attr]
        self.network.run(2)
        self.assertEqual((target.got, program.got[len(ANSWER) :]), (there, back))
        self.assertEqual(self.front.guests.active, 1)
        self.assertFalse(self.client.is_idle())
        for wire in (program.transport, target.transport):
            wire.loseConnection()  # type: ignore[union-attr]
        self.network.run(0.5)
        self.assertTrue(program.lost and target.lost)
        self.assertTrue(self.client.is_idle() and self.server.is_idle())

    def test_refused(self) -> None:
        """What the server refuses is refused to the program, by the code that fits."""
        self.start()
        listening = self.network.ports.pop(80)
        program = self.program()
        self.assertEqual(program.got[:4], b"\x05\x00\x05\x05")
        self.network.ports[80] = listening

    def test_who_waits_for_all_of_it(self) -> None:
        """The session comes with all its subflows, or with those that are up in time."""
        self.start()
        driver = self.successResultOf(Deferred.fromCoroutine(self.client.up(10)))
        self.assertEqual(len(driver.connections), self.client.dialer.strength.wanted)
        next(iter(driver.connections.values())).abort()
        self.network.run(0)
        waiting = Deferred.fromCoroutine(self.client.up(0.01))
        self.network.run(0.1)
        self.assertIs(self.successResultOf(waiting), driver)

    def test_who_waits_in_vain(self) -> None:
        """The first dial that fails tells why."""
        listening = self.network.ports.pop(PORT)
        self.start()
        waiting = Deferred.fromCoroutine(self.client.up(10))
        self.network.run(0.2)
        self.assertIn("refuses", str(self.failureResultOf(waiting, StartupError).value))
        self.network.ports[PORT] = listening

    def test_all_paths_are_down(self) -> None:
        """A refusal says so, and of the first path why; one that tells nothing is waited for."""
        listening = self.network.ports.pop(PORT)
        self.network.silent.add(PORT + 1)
        relay = Way("192.0.2.9", PORT + 1, via=Via.RELAY)
        self.start([Way(bind="10.0.0.2"), relay])
        opening = self.client.opener.open(OpenRequest(Target.of("203.0.113.9", 80)))
        self.assertIn("192.0.2.1:8443 by direct,bind=10.0.0.2 refuses", self.client.complaint())
        self.network.run(self.limits.session_wait, 0.05)
        down = "no path of 2 leads to the server 192.0.2.1:8443; the first: "
        first = "192.0.2.1:8443 by direct,bind=10.0.0.2 refuses connections: start the server there"
        sentence = self.refusal(opening, Code.NET_UNREACHABLE)
        for text in (sentence, self.client.complaint(), str(self.client.snapshot()["last_error"])):
            self.assertEqual(text, f"{down}{first}, or check the port")
        opening = self.client.opener.open(OpenRequest(Target.of("203.0.113.9", 80)))
        self.stop_client()
        self.assertIn("shutting down", self.refusal(opening, Code.NET_UNREACHABLE))
        self.network.ports[PORT] = listening

    def test_all_paths_lead_to_a_refusal(self) -> None:
        """They do lead there: what the server says is said as it is, and logged once."""
        self.network.ports[443] = self.network.ports[PORT]
        self.link = replace(self.link, secret=bytes(32))
        lines = self.start([Way(), Way("192.0.2.9", 443, via=Via.RELAY)])
        opening = self.client.opener.open(OpenRequest(Target.of("203.0.113.9", 80)))
        self.network.run(self.limits.session_wait, 0.05)
        sentence = self.refusal(opening, Code.NET_UNREACHABLE)
        self.assertTrue(sentence.startswith("192.0.2.1:8443 does not accept the key"), sentence)
        self.assertEqual((self.client.complaint(), lines.count(sentence)), (sentence, 1))
        del self.network.ports[443]

    def test_before_the_session(self) -> None:
        """A program that is early waits for the session."""
        listening = self.network.ports.pop(PORT)
        self.start()
        program = self.program()
        self.assertEqual(program.got, b"\x05\x00")
        self.network.ports[PORT] = listening
        self.network.run(3)
        self.assertEqual(program.got, ANSWER)

    def test_early_and_half_closed(self) -> None:
        """A program that says all at once and ends has it delivered, and is answered (D13)."""
        self.start()

        def say(wire: Any) -> None:
            wire.write(REQUEST + b"abc")
            wire.loseWriteConnection()

        self.network.connectTCP("127.0.0.1", SOCKS, Scripts(say))
        self.network.run(0.5)
        self.assertEqual(self.target.made[0].got, b"abc")
        self.assertTrue(self.target.made[0].lost)


class SayTests(ClientTestCase):
    """What its user reads."""

    def test_connected(self) -> None:
        """Where to, over how many, how far; where the proxy is, and how to try it."""
        lines = [line for line in self.start() if line.startswith("  ")]
        self.assertEqual(len(lines), 3)
        self.assertTrue(
            re.fullmatch(r"  connected   192\.0\.2\.1:8443, 3 subflows, [12]\d ms", lines[0]),
            lines[0],
        )
        self.assertEqual(lines[1], "  proxy       127.0.0.1:1080   SOCKS5, SOCKS4, HTTP")
        self.assertIn("curl -x socks5h://127.0.0.1:1080 https://", lines[2])

    def test_paths(self) -> None:
        """Those that the user has chosen, and whether the direct one is among them."""
        relay = Way("192.0.2.9", via=Via.RELAY)
        lines = " ".join(self.start([Way(bind="10.0.0.2"), relay]))
        self.assertIn("  path        direct,bind=10.0.0.2, 2 of 2 subflows", lines)
        self.assertIn("  path        tcp://192.0.2.9, 1 of 1 subflow", lines)
        self.assertNotIn("is not used", lines)
        self.stop_client()
        self.tearDown()
        self.setUp()
        self.assertIn("direct is not used; --path direct adds it", " ".join(self.start([relay])))

    def test_one(self) -> None:
        """A single one is no plural."""
        self.limits = replace(self.limits, subflows=1, grow_most=1)
        (line,) = [line for line in self.start() if "connected" in line]
        self.assertIn(":8443, 1 subflow, ", line)

    def test_bbr(self) -> None:
        """Where it was wanted and cannot be had, that is said."""
        for wanted, name, says in (
            (True, "cubic", "cubic (bbr cannot be had here)"),
            (True, "bbr", "bbr"),
            (False, "cubic", "cubic"),
        ):
            self.patch(sockets, "congestion_control", lambda _, name=name: name)
            lines = self.start(wants_bbr=wanted)
            found = [line for line in lines if line.endswith(f" ms, {says}")]
            self.assertEqual(len(found), 1, lines)
            self.stop_client()
            self.tearDown()
            self.setUp()

    def test_some_are_missing(self) -> None:
        """After two seconds it says what there is."""
        self.network.callLater(0.03, self.network.silent.add, PORT)
        lines = self.start()
        self.assertNotIn("connected", " ".join(lines))
        lines = self.logged(lambda: self.network.run(2))
        self.assertIn("2 subflows", " ".join(lines))

    def test_once_per_outage(self) -> None:
        """A subflow that comes and goes is nothing to tell; a return after an outage is."""
        self.start()
        self.network.run(1.5)
        self.network.living[0].cut()
        lines = self.logged(lambda: self.network.run(1))
        self.assertNotIn("connected", " ".join(lines))
        for cable in self.network.living:
            cable.cut()
        lines = self.logged(lambda: self.network.run(1))
        self.assertEqual(len([one for one in lines if "connected" in one]), 1)
        self.assertNotIn("proxy", " ".join(lines))

    def test_what_is_another_after_an_outage(self) -> None:
        """Of paths and ports what was said before is not said again."""
        relay = Way("192.0.2.9", 99, via=Via.RELAY)
        self.network.silent.add(99)
        self.start([Way(), relay])
        self.network.run(2.5)
        self.network.silent.remove(99)
        self.network.listenTCP(99, self.network.ports[PORT].factory)
        for cable in self.network.living:
            cable.cut()
        lines = self.logged(lambda: self.network.run(3))
        shown = [line for line in lines if line.startswith("  ")]
        self.assertIn("connected   192.0.2.1:8443", shown.pop(0))
        self.assertEqual(shown, ["  path        tcp://192.0.2.9:99, 1 of 1 subflow"])
        del self.network.ports[99]

    def test_stopped_before_it_is_told(self) -> None:
        """Nothing is told of a session that was ended meanwhile, and no timer is left."""
        self.server.acceptor.limits = self.limits.__class__(max_subflows=2)
        self.start()
        self.assertEqual(
            self.logged(self.stop_client), ["client-1: session over: the client was stopped"]
        )

    def test_snapshot(self) -> None:
        """Everything at a glance, without secrets."""
        self.start()
        self.assertEqual(self.client.complaint(), "")
        self.program()
        self.program(b"SSH-2.0-client\r\n")
        snapshot: Any = self.client.snapshot()
        self.assertEqual((snapshot["server"], snapshot["last_error"]), ("192.0.2.1:8443", ""))
        self.assertEqual(len(snapshot["sessions"]), 1)
        counters = snapshot["counters"]
        self.assertEqual((counters["socks_active"], counters["socks_opened"]), (1, 1))
        self.assertEqual(counters["socks_wrong_protocol"], 1)
        self.assertNotIn(repr(self.link.secret)[2:-1], repr(snapshot))

    def test_without_a_front(self) -> None:
        """A client without a proxy port can be shown, too."""
        client = Client(self.network, self.ground(), [self.link])
        self.assertEqual(client.complaint(), "no connection to the server 192.0.2.1:8443 yet")
        self.assertEqual(client.snapshot()["counters"], {})
        self.assertTrue(client.is_idle())
        self.successResultOf(client.stopService())
        self.start()

    def opened(self, host: str, sources: Sequence[str] = (), users: Any = None) -> list[str]:
        """What is said of a proxy port there."""
        client = Client(self.network, self.ground(), [self.link])
        who = Sources(map(ip_network, sources), self.network)
        front = SocksFactory(client.opener, self.network, self.limits, Guests(9, who), users)
        client.listen(Address(host, SOCKS), front)
        error = self.assertRaises(StartupError, client.listen, Address(host, SOCKS), front)
        self.assertIn("--socks", str(error)[:10])
        self.successResultOf(client.stopService())
        return client.lines

    def test_everywhere(self) -> None:
        """A proxy port on every address is tried at this machine's own."""
        proxy, command = self.opened("")
        self.assertEqual(proxy, "  proxy       :1080   SOCKS5, SOCKS4, HTTP")
        self.assertIn("curl -x socks5h://127.0.0.1:1080 https://", command)
        self.start()

    def test_a_unix_socket(self) -> None:
        """It is told of too, by its path; there is nothing to try."""
        port = SimpleNamespace(getHost=lambda: UNIXAddress(b"/run/x"), stopListening=lambda: None)
        self.network.listenUNIX = lambda *_, **__: port  # type: ignore[attr-defined]
        client = Client(self.network, self.ground(), [self.link])
        front = SocksFactory(client.opener, self.network, self.limits)
        client.listen(Address(raw="unix:/run/x"), front)
        self.assertEqual(client.lines, ["  proxy       unix:/run/x   SOCKS5, SOCKS4, HTTP"])
        self.successResultOf(client.stopService())
        self.start()

    def test_where_it_leaves(self) -> None:
        """Each port says at which exit, where that is not the server."""
        client = Client(self.network, self.ground(), [self.link])
        to, network, limits = Target.of("10.0.0.1", 53), self.network, self.limits
        proxy = SocksFactory(client.opener, network, limits, exit="attic")
        client.listen(Address("127.0.0.1", SOCKS), proxy)
        for port, name in ((2222, "any"), (2223, "")):
            front = ForwardFactory(client.opener, to, network, limits, exit=name)
            client.listen(Address("127.0.0.1", port), front)
        request = OpenRequest(to, Kind.UDP, "attic")
        self.patch(client_module, "listen_udp", lambda *_: network.ports[2222])
        front_udp = UdpForward(client.opener, request, network, limits)
        client.forward_udp(Address("127.0.0.1", 2222), front_udp)
        lines = [" ".join(line.split()) for line in client.lines if "try " not in line]
        self.assertEqual(
            lines,
            [
                "proxy 127.0.0.1:1080 SOCKS5, SOCKS4, HTTP; leaves at exit attic",
                "forward 127.0.0.1:2222 leads to 10.0.0.1:53; leaves at any agent",
                "forward 127.0.0.1:2223 leads to 10.0.0.1:53",
                "udp 127.0.0.1:2222 leads to 10.0.0.1:53; leaves at exit attic",
            ],
        )
        self.successResultOf(client.stopService())
        self.start()

    def test_what_can_be_tried(self) -> None:
        """Only what works: with a name where one is asked for, from where one may come."""
        self.assertIn(":1080 -U NAME https://", self.opened("", users=ScriptedUsers())[1])
        self.assertEqual(len(self.opened("", ["192.168.0.0/16"])), 1)
        self.assertEqual(len(self.opened("", ["192.168.0.0/16", "127.0.0.0/8"])), 2)
        lines = self.opened("192.168.0.2", ["192.168.0.0/16"])
        self.assertIn("curl -x socks5h://192.168.0.2:1080 https://", lines[1])
        self.start()


class EndTests(ClientTestCase):
    """How it ends."""

    def test_leave(self) -> None:
        """The proxy port is closed once, whoever asks; streams go on."""
        self.start()
        program = self.program()
        port: Any = self.network.ports[SOCKS]
        self.client.leave()
        self.client.leave()
        self.assertEqual(port.stopped, 1)
        self.assertEqual(self.client.complaint(), "the client is shutting down")
        program.transport.write(b"still there")  # type: ignore[union-attr]
        self.network.run(0.3)
        self.assertEqual(self.target.made[0].got, b"still there")
        self.stop_client()
        self.assertEqual(port.stopped, 1)
        self.assertTrue(program.lost)

    def test_busy_until_the_last_byte_has_left(self) -> None:
        """A program that takes its bytes slowly is waited for."""
        self.start()
        program = self.program()
        wire: Any = program.transport
        wire.pauseProducing()
        self.target.made[0].transport.write(pattern(400_000))  # type: ignore[union-attr]
        self.target.made[0].transport.loseConnection()  # type: ignore[union-attr]
        wire.loseWriteConnection()
        self.network.run(1)
        self.assertFalse(self.client.is_idle())
        wire.resumeProducing()
        self.network.run(1)
        self.assertEqual(len(program.got), len(ANSWER) + 400_000)
        self.assertTrue(self.client.is_idle())

    def test_stop_in_use(self) -> None:
        """Programs are cut, the server is told, and its target is reset."""
        self.start()
        program, waiting = self.program(), self.program(b"\x05")
        self.stop_client()
        self.assertTrue(program.lost and waiting.lost and self.target.made[0].lost)
        self.assertEqual(self.server.acceptor.door.sessions, {})


class LoopbackTests(ProcessTestCase):
    """The server side in the client's process."""

    def made(self, *words: str) -> Any:
        """A client that is its own server, by its command line."""
        self.patch(client_tap, "globalLogBeginner", Beginner())
        options = client_tap.Options({})
        options.parseOptions(["--server", "loopback:", *words, "--state", str(self.base)])
        service: Any = client_tap.makeService(options, self.reactor)
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        return service

    def test_own_ports(self) -> None:
        """What leads into it is never a target of it: that would go round for ever."""
        service = self.made("--socks", "1080", "--forward", "2222=127.0.0.1:2222")
        (server,) = [one for one in service if isinstance(one, Server)]
        for port in (1080, 2222):
            opening = server.direct.open(OpenRequest(Target.of("127.0.0.1", port)))
            self.failureResultOf(opening, OpenRefused)
        self.assertEqual([], self.reactor.dials)

    def test_targets_are_logged_once(self) -> None:
        """By the client: what its own server reaches is the same."""
        service = self.made("--log-targets")
        (server,) = [one for one in service if isinstance(one, Server)]
        (client,) = [one for one in service if isinstance(one, Client)]
        self.assertEqual((client.opener.targets, server.witness.targets), (True, False))
