"""L{stripetwist.net.outpost} and its tap: the agent side, against a whole server."""

import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from stripetwist import agent_tap
from stripetwist.core.address import Address
from stripetwist.core.agents import Agent, owner_of
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.way import Via, Way
from stripetwist.net.asking import ControlError
from stripetwist.net.outpost import Outpost
from stripetwist.net.server import Server
from stripetwist.net.tls import ServerCreator
from stripetwist.test.link_case import PORT, LinkTestCase, Scripts, certificate
from stripetwist.test.process_case import Beginner, ProcessTestCase


class OutpostTestCase(LinkTestCase):
    """A server, and an agent that may reach its own machine and one network."""

    def setUp(self) -> None:
        super().setUp()
        creator = ServerCreator(certificate())
        self.server = Server(self.network, self.ground(), self.keys, Policy(("all",)), creator)
        self.server.listen(Address("192.0.2.1", PORT))
        self.server.startService()
        self.target = Scripts()
        self.network.listenTCP(80, self.target)
        policy = Policy(("localhost", "10.0.0.0/8"))
        agent, link = Agent("attic"), self.agent_link("attic")
        self.outpost = Outpost(self.network, self.ground(), agent, [link], policy)
        self.stopped = False

    def start(self) -> list[str]:
        """Let it connect; what is logged meanwhile."""
        self.outpost.startService()
        return self.logged(lambda: self.network.run(0.8))

    def opened(self, host: str) -> "Deferred[Any]":
        """Have the server open a stream towards it."""
        (worker,) = self.server.acceptor.registry.workers()
        opening = worker.open(OpenRequest(Target.of(host, 80)))
        self.network.run(0.3)
        return opening

    def servers(self) -> list[dict[str, Any]]:
        """What is shown of each server."""
        found: Any = self.outpost.snapshot()["servers"]
        return list(found)

    def stop_outpost(self) -> None:
        """Stop it; that takes no time."""
        stopping = self.outpost.stopService()
        self.network.run(0.3)
        self.successResultOf(stopping)
        self.stopped = True

    def tearDown(self) -> None:
        """Nothing is left of either."""
        if not self.stopped:
            self.stop_outpost()
        stopping = self.server.stopService()
        self.network.run(0.3)
        self.successResultOf(stopping)
        super().tearDown()


class OutpostTests(OutpostTestCase):
    """What it does for its server."""

    def test_connected(self) -> None:
        """Both ends say so, in a line each; and neither when it is over as it should be."""
        lines = self.start()
        self.assertEqual(sum("connected   192.0.2.1:8443 as attic" in line for line in lines), 1)
        self.assertEqual(sum("attic: agent registered" in line for line in lines), 1)
        sessions: Any = self.outpost.snapshot()["sessions"]
        self.assertEqual([one["role"] for one in sessions], ["agent"])
        agents: Any = self.server.snapshot()["agents"]
        self.assertEqual([(one["name"], one["state"]) for one in agents], [("attic", "able")])
        lines = self.logged(self.stop_outpost)
        self.assertEqual(lines, ["attic: session over: the agent was stopped"])

    def test_paths(self) -> None:
        """They are told, but not again after an outage if they are as they were."""
        (link,), policy = [one.link for one in self.outpost.dialers], Policy(("all",))
        ways = [Way(bind="10.0.0.2")]
        self.outpost = Outpost(self.network, self.ground(), Agent("attic"), [link], policy, ways)
        self.assertIn("  path        direct,bind=10.0.0.2, 3 of 3 subflows", self.start())
        for cable in self.network.living:
            cable.cut()
        lines = [line for line in self.logged(lambda: self.network.run(2)) if line[:2] == "  "]
        self.assertEqual(len(lines), 1)
        self.assertIn("connected", lines[0])

    def test_reached(self) -> None:
        """A target in its own network, and bytes from there."""
        self.start()
        stream = self.successResultOf(self.opened("10.1.2.3"))
        got: list[bytes] = []
        stream.protocol.dataReceived = got.append
        stream.resumeProducing()
        self.target.made[0].transport.write(b"banner")  # type: ignore[union-attr]
        self.network.run(0.2)
        self.assertEqual(got, [b"banner"])
        self.assertFalse(self.outpost.is_idle())
        (row,) = self.servers()
        self.assertGreater(row.pop("rtt"), 0.01)
        self.assertEqual((round(row.pop("age"), 1), row.pop("streams")["open"]), (1.2, 1))
        self.assertEqual(list(row.values()), ["192.0.2.1:8443", "connected", 3, "", 1, 6, 0])
        stream.abortConnection()
        self.network.run(0.2)
        self.assertTrue(self.outpost.is_idle() and self.server.is_idle())
        self.assertEqual(self.outpost.snapshot()["counters"]["reached"], 1)  # type: ignore[index]

    def test_another_name(self) -> None:
        """It says what it is called there, once; a name that is none is nothing new."""
        self.start()
        (worker,) = self.server.acceptor.registry.workers()
        worker.name = "any"
        told = "192.0.2.1:8443 calls this agent attic-2, as attic is another one's name there; "
        lines = self.logged(lambda: self.successResultOf(self.opened("10.1.2.3")))
        worker.name = "attic-2"
        for _ in range(2):
            lines += self.logged(lambda: self.successResultOf(self.opened("10.1.2.3")))
        self.assertEqual(
            [line for line in lines if "calls" in line], [f"{told}say --name here to choose"]
        )

    def test_not_allowed(self) -> None:
        """It decides itself, whatever the server may reach."""
        self.start()
        sentence = self.refusal(self.opened("203.0.113.9"), Code.NOT_ALLOWED)
        self.assertIn("203.0.113.9:80 is refused", sentence)
        self.assertEqual(self.outpost.exit.denied, 1)

    def test_whose_associations(self) -> None:
        """It knows servers and no keys, which is what its sentence says."""
        self.assertEqual(self.outpost.exit.udp.asker, "server")

    def test_its_own_machine(self) -> None:
        """C{NAME.exit} is where it runs, by both addresses, if it may reach that."""
        self.start()
        self.successResultOf(self.opened("attic.exit")).abortConnection()
        self.network.run(0.2)
        self.assertEqual([dial.host for dial in self.network.dials if dial.port == 80],
                         ["127.0.0.1"])  # fmt: skip
        self.outpost.exit.guard.policy = Policy(("10.0.0.0/8",))
        sentence = self.refusal(self.opened("attic.exit"), Code.NOT_ALLOWED)
        self.assertIn("attic.exit:80 (127.0.0.1) is refused: the exit's own machine", sentence)
        sentence = self.refusal(self.opened("localhost"), Code.NOT_ALLOWED)
        self.assertIn("localhost:80 (127.0.0.1) is refused", sentence)
        for host, own in (("a.exit", True), ("exit", False), ("a.b.exit", False), (None, False)):
            self.assertEqual(bool(owner_of(host)), own)

    def test_server_that_comes_later(self) -> None:
        """It is registered within 3 s."""
        listening = self.network.ports.pop(PORT)
        self.assertEqual(self.outpost.complaint(), "no connection to a server yet")
        self.outpost.startService()
        self.network.run(20, 0.05)
        self.assertIn("refuses connections", str(self.outpost.snapshot()["last_error"]))
        self.assertIn("refuses connections", self.outpost.complaint())
        (row,) = self.servers()
        self.assertEqual((row["address"], row["state"]), ("192.0.2.1:8443", "away"))
        self.assertIn("refuses connections", row["last_error"])
        self.network.ports[PORT] = listening
        self.network.run(3, 0.05)
        self.assertEqual(len(self.server.acceptor.registry.workers()), 1)
        self.assertEqual(self.outpost.complaint(), "")

    def test_all_paths_are_down(self) -> None:
        """It says so as a client does; not of a server to which it has a connection."""
        listening = self.network.ports.pop(PORT)
        ways = [Way(), Way("192.0.2.9", 443, via=Via.RELAY)]
        (link,), policy = [one.link for one in self.outpost.dialers], Policy(("all",))
        self.outpost = Outpost(self.network, self.ground(), Agent("attic"), [link], policy, ways)
        self.start()
        why = "192.0.2.1:8443 refuses connections: start the server there, or check the port"
        down = f"no path of 2 leads to the server 192.0.2.1:8443; the first: {why}"
        snapshot = self.outpost.snapshot()
        self.assertEqual((self.outpost.complaint(), snapshot["last_error"]), (down, down))
        self.assertEqual(self.servers()[0]["last_error"], down)
        self.network.ports[PORT] = listening
        self.network.run(3, 0.05)
        for path in self.outpost.dialers[0].paths:
            path.failed("one of its dials came to nothing")
        self.assertNotIn("no path", self.servers()[0]["last_error"])

    def test_leaves(self) -> None:
        """The server asks for no more, and what there is goes on."""
        self.start()
        stream = self.successResultOf(self.opened("10.1.2.3"))
        self.outpost.leave()
        self.network.run(0.2)
        self.assertEqual(self.outpost.complaint(), "the agent is shutting down")
        self.assertFalse(self.outpost.is_idle())
        self.refusal(self.opened("10.1.2.3"), Code.NO_WORKER)
        self.assertIsNone(stream.protocol.lost)
        stream.abortConnection()
        self.network.run(0.2)
        self.assertTrue(self.outpost.is_idle())

    def test_drained(self) -> None:
        """It finishes what it has, stays away for ten minutes, and is able again."""
        self.start()
        stream = self.successResultOf(self.opened("10.1.2.3"))
        self.assertEqual(self.server.drain({"name": "attic"}), {"name": "attic", "streams": 1})
        self.network.run(1)
        self.assertIn("shutting down, or drains this agent", self.outpost.complaint())
        self.assertIsNone(stream.protocol.lost)
        stream.abortConnection()
        lines = self.logged(lambda: self.network.run(1))
        told = "192.0.2.1:8443 has drained this agent, which dials again in 10 minutes; "
        self.assertEqual(sum(told in line for line in lines), 1, lines)
        self.assertIn(told, str(self.outpost.snapshot()["last_error"]))
        self.assertEqual(self.servers()[0]["state"], "drained")
        self.assertEqual((self.outpost.snapshot()["sessions"], self.network.living), ([], []))
        with self.assertRaises(ControlError) as caught:
            self.server.drain({"name": "attic"})
        self.assertEqual(
            str(caught.exception), 'there is no agent "attic" here; there is none at all'
        )
        self.network.run(self.limits.drained_away - 5, 5)
        self.assertEqual(self.server.acceptor.registry.workers(), [])
        self.network.run(5, 0.05)
        (worker,) = self.server.acceptor.registry.workers()
        self.assertTrue(worker.is_able)
        self.assertRaisesRegex(ControlError, "there is attic", self.server.drain, {"name": ["x"]})

    def test_drained_again(self) -> None:
        """Each time it is told of."""
        self.start()
        for _ in range(2):
            self.server.drain({"name": "attic"})
            lines = self.logged(lambda: self.network.run(2))
            self.assertEqual(sum("has drained this agent" in line for line in lines), 1, lines)
            self.network.run(self.limits.drained_away, 5)
            self.network.run(3, 0.05)

    def test_drained_and_stopped(self) -> None:
        """It is not waited for."""
        self.start()
        self.server.drain({"name": "attic"})
        self.network.run(1)
        self.stop_outpost()

    def test_rests(self) -> None:
        """Unused it keeps one connection; the first stream has the others dialed again."""
        self.start()
        self.network.run(self.limits.rest_after + 5, 0.5)
        (dialer,) = self.outpost.dialers
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 1)
        self.successResultOf(self.opened("10.1.2.3")).abortConnection()
        self.network.run(0.3)
        self.assertEqual(len(dialer.driver.connections), 3)

    def test_link_of_a_client(self) -> None:
        """One sentence says what is wrong; nothing claims to be connected."""
        self.outpost = Outpost(
            self.network, self.ground(), Agent("attic"), [self.link], Policy(("lan",))
        )
        lines = [line for line in self.start() if "192.0.2.1:8443" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("takes this link from clients only; give --server an agent's link", lines[0])


class TapTests(ProcessTestCase):
    """What is wired together."""

    def made(self, *words: str) -> Any:
        """The service of a command line."""
        self.patch(agent_tap, "globalLogBeginner", Beginner())
        options = agent_tap.Options({})
        link = self.base / "agent.link"
        if not link.exists():
            text = "stripetwist://a-1:" + "A" * 43 + "@192.0.2.1:8443/" + "A" * 43
            link.write_text(text)
            link.chmod(0o600)
        options.parseOptions(["--server", str(link), "--state", str(self.base), *words])
        service = agent_tap.makeService(options, self.reactor)
        self.addCleanup(lambda: self.successResultOf(service.stopService()))
        return service

    def test_what_it_says_of_itself(self) -> None:
        """Its name is the host's unless it is told; its instance outlives it."""
        self.patch(socket, "gethostname", lambda: "Attic.example.org")
        first = self.made("--allow", "lan")
        self.assertEqual(first.snapshot()["name"], "attic")
        kept = (self.base / "agent" / "instance").read_bytes()
        self.assertEqual(len(kept), 16)
        self.assertEqual((self.base / "agent" / "instance").stat().st_mode & 0o777, 0o600)
        self.successResultOf(first.stopService())
        second = self.made("--allow", "lan", "--name", "barn")
        self.assertEqual((second.snapshot()["role"], second.snapshot()["name"]), ("agent", "barn"))
        self.assertEqual((self.base / "agent" / "instance").read_bytes(), kept)

    def test_status_port(self) -> None:
        """It listens at once, closes at the end, and is never a target."""
        service = self.made("--allow", "localhost", "--status", "8888")
        self.assertEqual(self.reactor.ports[8888].interface, "127.0.0.1")
        (outpost,) = [one for one in service if isinstance(one, Outpost)]
        opening = outpost.exit.open(OpenRequest(Target.of("127.0.0.1", 8888)))
        self.failureResultOf(opening, OpenRefused)
        self.assertEqual(self.reactor.dials, [])
        self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.ports, {})

    def test_status_users(self) -> None:
        """A file that cannot be used stops the start, with one sentence."""
        words = ("--allow", "lan", "--status", ":8888", "--status-users", str(self.base / "x"))
        error = self.assertRaises(SystemExit, self.made, *words)
        self.assertIn("cannot read the users file", str(error.code))
        self.assertIn("make it with stripetwist passwd", str(error.code))

    def test_without_allow(self) -> None:
        """One sentence, and no start."""
        error = self.assertRaises(SystemExit, self.made)
        self.assertIn("--allow is missing", str(error.code))
        self.assertFalse(Path(self.base, "agent").exists())

    def test_one_at_a_time(self) -> None:
        """A second agent wants a state folder of its own."""
        self.made("--allow", "lan")
        error = self.assertRaises(SystemExit, self.made, "--allow", "lan")
        self.assertIn("another agent uses this state folder", str(error.code))
