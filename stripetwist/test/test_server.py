"""L{stripetwist.net.server}: the server side as one service."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, fail

from stripetwist.core.address import Address
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.certificates import CertificateFiles
from stripetwist.net.dialer import Dialer
from stripetwist.net.files import StartupError
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.keyfile import Key
from stripetwist.net.server import Server
from stripetwist.net.socks import SocksFactory
from stripetwist.net.speed import NAME
from stripetwist.net.tls import ServerCreator
from stripetwist.test.link_case import PORT, Exit, LinkTestCase, Script, Scripts, certificate
from stripetwist.testing import pattern


class ServerTestCase(LinkTestCase):
    """A server in a network, with targets."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.make()
        self.server.listen(Address("192.0.2.1", PORT))
        self.server.startService()
        self.running = True

    def make(self) -> Server:
        """One that is not running yet."""
        self.creator = ServerCreator(certificate())
        return Server(self.network, self.ground(), self.keys, Policy(("all",)), self.creator)

    def opened(self, target: str, port: int, dialer: Dialer) -> "Deferred[Any]":
        """Have the server reach a target."""
        assert dialer.driver is not None
        opening = dialer.driver.open(OpenRequest(Target.of(target, port)))
        self.network.run(0.3)
        return opening

    def up(self, link: Any = None) -> Dialer:
        """A client with a session."""
        dialer = self.dial(link)
        self.network.run(0.4)
        assert dialer.driver is not None
        return dialer

    def stop_server(self) -> None:
        """Stop it; it takes no time."""
        stopping = self.server.stopService()
        self.network.run(0.2)
        self.successResultOf(stopping)
        self.running = False

    def tearDown(self) -> None:
        """Nothing is left."""
        for dialer in list(self.dialers):
            self.stop(dialer)
        if self.running:
            self.stop_server()
        self.assertEqual(self.network.ports.keys() - {80}, set())
        super().tearDown()


class ReachTests(ServerTestCase):
    """What it reaches for its guests."""

    def test_reached(self) -> None:
        """A target is dialed, and its bytes come through."""
        self.network.listenTCP(80, Scripts(lambda wire: wire.write(b"banner")))
        stream = self.successResultOf(self.opened("203.0.113.9", 80, self.up()))
        got: list[bytes] = []
        stream.protocol.dataReceived = got.append
        stream.resumeProducing()
        self.network.run(0.2)
        self.assertEqual(got, [b"banner"])
        self.assertFalse(self.server.is_idle())
        counters: Any = self.server.snapshot()["counters"]
        self.assertEqual((counters["reached"], counters["opening"]), (1, 0))
        stream.abortConnection()
        self.network.run(0.2)
        self.assertTrue(self.server.is_idle())

    def test_speed(self) -> None:
        """The source inside the server is reached whatever the policies allow."""
        self.keys.insert(Key("narrow", bytes(32), "client", allow=("10.0.0.0/8",)))
        dialer = self.up(replace(self.link, key_id="narrow", secret=bytes(32)))
        stream = self.successResultOf(self.opened(NAME, 19, dialer))
        got: list[bytes] = []
        stream.protocol.dataReceived = got.append
        stream.resumeProducing()
        self.network.run(0.05)
        self.assertGreater(sum(map(len, got)), 65_536)
        stream.abortConnection()
        self.network.run(0.2)
        self.assertTrue(self.server.is_idle())
        self.refusal(self.opened(NAME, 80, dialer), Code.REFUSED_BY_TARGET)

    def test_never_itself(self) -> None:
        """Its own port is no target, not even while it is being closed (T-X2-6)."""
        dialer = self.up()
        sentence = self.refusal(self.opened("192.0.2.1", PORT, dialer), Code.NOT_ALLOWED)
        self.assertIn("192.0.2.1:8443", sentence)
        opener = self.server.exit
        stopping = self.server.stopService()
        request = OpenRequest(Target.of("192.0.2.1", PORT))
        self.refusal(opener.open(request), Code.NOT_ALLOWED)
        self.network.run(0.2)
        self.successResultOf(stopping)
        self.running = False

    def test_narrower_key(self) -> None:
        """A key may be for less than the server allows."""
        self.keys.insert(Key("narrow", bytes(32), "client", allow=("10.0.0.0/8",)))
        dialer = self.up(replace(self.link, key_id="narrow", secret=bytes(32)))
        self.network.listenTCP(80, Scripts())
        self.successResultOf(self.opened("10.1.2.3", 80, dialer)).abortConnection()
        sentence = self.refusal(self.opened("203.0.113.9", 80, dialer), Code.NOT_ALLOWED)
        self.assertIn("key", sentence)

    def test_key_that_is_gone(self) -> None:
        """Between a revocation, or the end of a key's time, and that of its session: nothing."""
        past = datetime.now(UTC) - timedelta(days=1)
        for gone in (None, Key("narrow", bytes(32), "client", expires=past)):
            self.keys.insert(Key("narrow", bytes(32), "client", allow=("10.0.0.0/8",)))
            dialer = self.up(replace(self.link, key_id="narrow", secret=bytes(32)))
            self.keys.revoke("narrow")
            if gone is not None:
                self.keys.insert(gone)
            for host in ("10.1.2.3", "203.0.113.9"):
                sentence = self.refusal(self.opened(host, 80, dialer), Code.NOT_ALLOWED)
                self.assertIn("this key was revoked or has expired", sentence)
            self.stop(dialer)

    def test_dial_is_given_up_with_its_session(self) -> None:
        """A target that is slow to answer is not waited for once nobody wants it."""
        self.network.silent.add(80)
        dialer = self.up()
        opening = self.opened("203.0.113.9", 80, dialer)
        self.assertNoResult(opening)
        self.stop(dialer)
        self.network.run(0.2)
        self.refusal(opening, Code.GENERAL)
        self.assertEqual(self.network.dials[-1].state, "stopped")
        self.assertEqual(self.server.exit.opening, 0)


class Agent:
    """A client's session as a worker: streams are opened towards it."""

    name, capacity, weight, active, is_able = "attic", 0, 1, 0, True
    stuck_since = inf

    def __init__(self, server: Server) -> None:
        (member,) = server.acceptor.door.sessions.values()
        self.labels: dict[str, str] = {}
        self.open = member.driver.open

    def has_room_for(self, key_id: str) -> bool:
        """See L{stripetwist.core.pool.Worker.has_room_for}."""
        return True


class WaysInTests(ServerTestCase):
    """Its own ports, and what others reach through agents."""

    def setUp(self) -> None:
        self.agents: list[Agent] = []
        self.patch(Server, "_workers", lambda _: self.agents)
        super().setUp()

    def worker(self) -> Exit:
        """Somebody dials in and becomes an agent; what it reaches."""
        driver = self.up().driver
        assert driver is not None
        driver.serve(self.exit, "")
        self.agents.append(Agent(self.server))
        return self.exit

    def listen(self, front: Any) -> None:
        """Open a port for local programs."""
        self.server.listen_locally(Address("127.0.0.1", 1080), front)

    def forward(self, exit_name: str) -> ForwardFactory:
        """A forwarded port."""
        target = Target.of("203.0.113.9", 80)
        front = ForwardFactory(
            self.server.witness, target, self.network, self.limits, exit=exit_name
        )
        self.listen(front)
        return front

    def program(self, first: bytes) -> Script:
        """A local program that uses the port."""
        scripts = Scripts(lambda wire: wire.write(first))
        self.network.connectTCP("127.0.0.1", 1080, scripts)
        self.network.run(0.5)
        return scripts.made[0]

    def test_forwarded_to_an_agent(self) -> None:
        """Bytes go both ways; it ends with both ends."""
        far = self.worker()
        front = self.forward("attic")
        there, back = pattern(200_000), pattern(200_000, 1)
        program = self.program(b"")
        (target,) = far.targets
        program.transport.write(there)  # type: ignore[union-attr]
        target.arrive(back)
        self.network.run(0.5)
        while target.drain():
            self.network.run(0.1)
        self.network.run(1)
        self.assertEqual((target.sent, program.got), (there, back))
        self.assertEqual((front.opened, self.server.is_idle()), (1, False))
        program.transport.loseConnection()  # type: ignore[union-attr]
        target.arrive_end()
        self.network.run(0.5)
        self.assertTrue(program.lost)
        self.assertTrue(self.server.is_idle())

    def test_from_a_client_through_an_agent(self) -> None:
        """Two streams, coupled here; what the agent refuses is refused in its words."""
        far = self.worker()
        desk = self.up()
        assert desk.driver is not None
        request = OpenRequest(Target.of("printer.lan", 80), exit="attic")
        opening = desk.driver.open(request)
        self.network.run(0.3)
        stream = self.successResultOf(opening)
        stream.write(b"hello")
        self.network.run(0.3)
        self.assertEqual(far.targets[0].drain(), b"hello")
        far.refusal = OpenRefused(Code.DNS_FAIL, "printer.lan is not known in the attic")
        opening = desk.driver.open(request)
        self.network.run(0.3)
        sentence = self.refusal(opening, Code.DNS_FAIL)
        self.assertEqual(sentence, "printer.lan is not known in the attic")

    def test_an_agent_that_does_not_answer(self) -> None:
        """The log tells once, and once when it answers again; others are asked meanwhile."""
        self.worker()
        waiting: Deferred[Any] = Deferred()
        self.patch(self.exit, "open", lambda _: waiting)
        self.network.listenTCP(80, Scripts(lambda wire: wire.write(b"banner")))
        self.server.router.fallback = self.server.direct
        self.forward("attic")
        program = self.program(b"")
        lines = self.logged(lambda: self.network.run(11.5, 0.1))
        self.assertEqual(program.got, b"banner")
        self.assertIn("agent attic does not answer and gets no streams until it does", lines)
        waiting.errback(OpenRefused(Code.TIMEOUT, "no answer"))
        self.assertIn("agent attic answers again", self.logged(lambda: self.network.run(0.2)))

    def test_fallback(self) -> None:
        """What no agent takes is reached from here, if that is wanted."""
        self.network.listenTCP(80, Scripts(lambda wire: wire.write(b"banner")))
        front = self.forward("any")
        self.assertTrue(self.program(b"").lost)
        self.assertEqual(dict(front.refused), {Code.NO_WORKER: 1})
        self.server.router.fallback = self.server.direct
        self.assertEqual(self.program(b"").got, b"banner")
        counters: Any = self.server.snapshot()["counters"]
        self.assertEqual((counters["forward_opened"], counters["reached"]), (1, 1))
        self.assertEqual(counters["forward_refused"], {"no_worker": 1})

    def test_own_ports_are_no_targets(self) -> None:
        """Not those either."""
        front = SocksFactory(self.server.witness, self.network, self.limits)
        self.server.listen_locally(Address("192.0.2.1", 1080), front)
        self.refusal(self.opened("192.0.2.1", 1080, self.up()), Code.NOT_ALLOWED)

    def test_leave(self) -> None:
        """Its ports are closed; connections go on."""
        self.worker()
        self.forward("attic")
        program = self.program(b"")
        self.server.leave()
        self.network.run(0.2)
        self.assertNotIn(1080, self.network.ports)
        self.assertFalse(program.lost or self.server.is_idle())


class LookTests(ServerTestCase):
    """What it notices while it runs."""

    def test_revoked_key(self) -> None:
        """Its sessions are closed within 5 s (50)."""
        key = self.keys.add("desk")
        dialer = self.up(replace(self.link, key_id="desk", secret=key.secret))
        other = self.up()
        self.keys.revoke("desk")
        self.network.run(2.5)
        self.assertIsNone(dialer.driver)
        self.assertTrue(other.is_alive())
        self.assertIn("does not accept the key", dialer.last_error)

    def test_expired_key(self) -> None:
        """And so are those of a key whose time has come."""
        soon = datetime.now(UTC) + timedelta(milliseconds=400)
        self.keys.insert(Key("short", bytes(32), "client", expires=soon))
        dialer = self.up(replace(self.link, key_id="short", secret=bytes(32)))
        self.patch(self.keys, "lookup", lambda *_: None)
        self.network.run(2.5)
        self.assertIsNone(dialer.driver)

    def test_look_that_fails(self) -> None:
        """A look that fails is logged and not the last."""
        looks: list[int] = []

        def broken(now: datetime) -> set[str]:
            looks.append(1)
            raise OSError("of this test")

        self.patch(self.keys, "reload_if_changed", broken)
        self.network.run(4.5, 0.1)
        self.assertEqual(len(looks), 2)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_new_certificate(self) -> None:
        """A certificate that changed is used from the next connection on."""
        changed = iter([False, True])

        class Files:
            """The user's files."""

            current = certificate(1)

            def reload_if_changed(self) -> bool:
                return next(changed)

        files: Any = Files()
        self.server.certificates = files
        self.up()
        lines = self.logged(lambda: (self.server.look(), self.server.look())[0])  # type: ignore[func-returns-value]
        self.assertEqual(lines, ["the TLS certificate was read again"])
        self.server.certificates = None
        late = self.dial()
        self.network.run(0.4)
        self.assertIn("not the server of this link", late.last_error)

    def test_broken_certificate(self) -> None:
        """One that cannot be used is a sentence in the log, and changes nothing."""

        class Files(CertificateFiles):
            """Files that were overwritten by something else."""

            def __init__(self) -> None:
                """Without any."""

            def reload_if_changed(self) -> bool:
                raise StartupError("the TLS certificate is wrong")

        self.server.certificates = Files()
        self.assertEqual(self.logged(self.server.look), ["the TLS certificate is wrong"])
        self.up()

    def test_reload(self) -> None:
        """It tells of what was read, and only of that."""
        self.assertEqual(self.server.reload(), ["keys"])
        self.keys.is_current = False
        self.assertEqual(self.server.reload(), [])


class StopTests(ServerTestCase):
    """How it ends."""

    def test_port_is_taken(self) -> None:
        """Before it starts, with a sentence."""
        error = self.assertRaises(StartupError, self.make().listen, Address("192.0.2.1", PORT))
        self.assertIn("--listen 192.0.2.1:8443", str(error)[:80])

    def test_leave(self) -> None:
        """Leaving refuses what is new and lets streams finish."""
        self.network.listenTCP(80, Scripts())
        dialer = self.up()
        stream = self.successResultOf(self.opened("203.0.113.9", 80, dialer))
        self.assertEqual(self.server.complaint(), "")
        self.server.leave()
        self.assertEqual(self.server.complaint(), "the server is shutting down")
        self.refusal(self.opened("203.0.113.9", 80, dialer), Code.GOING_AWAY)
        self.assertFalse(self.server.is_idle())
        self.assertIsNone(stream.protocol.lost)

    def test_stop(self) -> None:
        """Its ports are closed, its guests are told, and its targets are reset."""
        targets = Scripts()
        self.network.listenTCP(80, targets)
        dialer = self.up()
        self.successResultOf(self.opened("203.0.113.9", 80, dialer))
        self.stop_server()
        self.assertIsNone(dialer.driver)
        self.assertTrue(targets.made[0].lost)
        self.assertEqual(list(self.network.ports), [80])

    def test_port_that_does_not_close(self) -> None:
        """Whatever becomes of a port, the rest is ended."""
        self.up()
        port: Any = self.network.ports[PORT]
        self.patch(port, "stopListening", lambda: fail(ValueError("of this test")))
        self.stop_server()
        del self.network.ports[PORT]
        self.assertEqual(self.server.acceptor.door.sessions, {})
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_front_that_waits_for_a_stream(self) -> None:
        """It may be one that ends with its session only: that is ended meanwhile."""
        self.up()
        waiting: Deferred[None] = Deferred()
        self.patch(self.server.fronts, "stop", lambda: waiting)
        stopping = self.server.stopService()
        self.network.run(0.2)
        self.assertEqual(self.server.acceptor.door.sessions, {})
        self.assertNoResult(stopping)
        waiting.callback(None)
        self.successResultOf(stopping)
        self.running = False

    def test_never_started(self) -> None:
        """A server that was made but not started can be stopped."""
        server = self.make()
        self.successResultOf(server.stopService())
