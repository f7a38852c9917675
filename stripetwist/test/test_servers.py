"""L{stripetwist.net.servers}: a client with two servers, which come and go."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, succeed

from stripetwist.core.address import Address
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code
from stripetwist.core.policy import Policy
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.net.client import Client
from stripetwist.net.server import Server
from stripetwist.net.tls import ServerCreator
from stripetwist.test.associations import Far
from stripetwist.test.collector import Collector
from stripetwist.test.link_case import PORT, LinkTestCase, Scripts, certificate

TWO = PORT + 1
WEB = OpenRequest(Target.of("203.0.113.9", 80))
DNS = OpenRequest(Target.of("203.0.113.9", 53), Kind.UDP)


class ServersTests(LinkTestCase):
    """Where new streams go."""

    limits = replace(LinkTestCase.limits, subflows=2, grow_most=2)

    def setUp(self) -> None:
        super().setUp()
        self.servers = {port: self.serve_at(port) for port in (PORT, TWO)}
        self.network.listenTCP(80, Scripts())
        links = [self.link, replace(self.link, port=TWO)]
        self.client = Client(self.network, self.ground(), links)

    def serve_at(self, port: int) -> Server:
        """A server there."""
        creator = ServerCreator(certificate())
        server = Server(self.network, self.ground(), self.keys, Policy(("all",)), creator)
        server.listen(Address("192.0.2.1", port))
        server.startService()
        return server

    def start(self) -> list[str]:
        """Let the client connect; what is logged meanwhile."""
        self.client.startService()
        return self.logged(lambda: self.network.run(0.5))

    def end(self, server: Any) -> None:
        """Stop it; that takes no time."""
        stopping = server.stopService()
        self.network.run(0.3)
        self.successResultOf(stopping)

    def opened(self) -> list[str]:
        """Have a stream to a target; what is logged of servers meanwhile."""
        lines = self.logged(self._open)
        return [line for line in lines if "reached" not in line]

    def _open(self) -> None:
        opening = self.client.opener.open(WEB)
        self.network.run(0.3)
        self.successResultOf(opening)

    def carried(self) -> list[int]:
        """How many streams each session carries."""
        sessions: Any = self.client.snapshot()["sessions"]
        return [one["streams"]["open"] for one in sessions]

    def tearDown(self) -> None:
        """Nothing is left of any."""
        for one in (self.client, *self.servers.values()):
            self.end(one)
        super().tearDown()

    def test_preferred(self) -> None:
        """Both are up, and the user reads so; the first has the streams."""
        lines = self.start()
        for what in (f":{PORT}, 2 subflows", f":{TWO}, 2 subflows"):
            self.assertEqual(sum(f"  connected   192.0.2.1{what}" in one for one in lines), 1)
        for _ in range(3):
            self.opened()
        self.assertEqual(self.carried(), [3, 0])
        self.assertFalse(self.client.is_idle())
        self.assertEqual(self.client.snapshot()["server"], "192.0.2.1:8443, 192.0.2.1:8444")

    def test_lost_and_back(self) -> None:
        """The other takes over at once; new streams return, and old ones stay."""
        self.start()
        self.opened()
        self.end(self.servers[PORT])
        self.assertEqual(self.opened(), ["new streams go to 192.0.2.1:8444 now"])
        self.assertEqual(self.carried(), [1])
        self.assertEqual(self.client.complaint(), "")
        self.assertIn("192.0.2.1:8443 refuses", str(self.client.snapshot()["last_error"]))
        self.servers[PORT] = self.serve_at(PORT)
        self.network.run(3)
        self.assertEqual(self.opened(), ["new streams go to 192.0.2.1:8443 now"])
        self.assertEqual(self.carried(), [1, 1])

    def test_one_that_leaves(self) -> None:
        """A server that is shutting down keeps its streams and gets no more."""
        self.start()
        self.opened()
        self.servers[PORT].acceptor.leave()
        self.network.run(0.1)
        self.opened()
        self.assertEqual(self.carried(), [1, 1])
        self.assertEqual(self.client.complaint(), "")
        self.end(self.servers[TWO])
        first, other = self.client.complaint().split("; ")
        self.assertEqual(first, "the server 192.0.2.1:8443 takes nothing new: it is shutting down")
        self.assertIn("192.0.2.1:8444 refuses connections", other)
        self.servers[TWO] = self.serve_at(TWO)

    def test_one_that_is_silent(self) -> None:
        """It need not be given up: the other takes over once all its connections are in doubt."""
        self.start()
        cables = [one for one in self.network.living if one.ends[0].getPeer().port == PORT]
        for cable in cables:
            cable.silent = True
        self.client.opener.open(WEB).addErrback(lambda failure: None)
        self.network.run(1.5)
        self.assertEqual(self.opened(), ["new streams go to 192.0.2.1:8444 now"])
        for cable in cables:
            cable.cut()

    association: Any

    def associated(self) -> Collector:
        """Have an association to a target; what becomes of it."""
        for server in self.servers.values():
            server.witness.associate = lambda request: succeed(Far())  # type: ignore[method-assign]
        making = self.client.opener.associate(DNS)
        self.network.run(0.3)
        association, found = self.successResultOf(making), Collector()
        association.receiver, self.association = found, association
        return found

    def test_datagrams_leave_one_that_leaves(self) -> None:
        """Nothing of them is lost that would be kept: their association is made anew."""
        self.start()
        first = self.associated()
        self.servers[PORT].acceptor.leave()
        self.network.run(4, 0.05)
        self.assertEqual([None], first.lost)
        second = self.associated()
        self.network.run(4, 0.05)
        self.assertEqual([], second.lost)

    def test_datagrams_stay_where_no_other_is(self) -> None:
        """A server that leaves is better than none."""
        self.start()
        self.end(self.servers[TWO])
        found = self.associated()
        self.servers[PORT].acceptor.leave()
        self.network.run(4, 0.05)
        self.assertEqual([], found.lost)
        self.servers[TWO] = self.serve_at(TWO)

    def test_datagrams_leave_one_that_is_silent(self) -> None:
        """Long before it is given up."""
        self.start()
        found = self.associated()
        away = self.network.ports.pop(PORT)
        cables = [one for one in self.network.living if one.ends[0].getPeer().port == PORT]
        for cable in cables:
            cable.silent = True
        for _ in range(40):
            self.association.send(b"any", None)
            self.network.run(0.2, 0.05)
            if found.lost:
                break
        self.network.ports[PORT] = away
        self.assertEqual([None], found.lost)
        for cable in cables:
            cable.cut()

    def test_none_yet(self) -> None:
        """Who is early gets the first that comes; the wait for the other ends with it."""
        away = {port: self.network.ports.pop(port) for port in (PORT, TWO)}
        self.start()
        opening = self.client.opener.open(WEB)
        given_up = self.client.opener.open(WEB)
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.network.run(0.3)
        self.assertNoResult(opening)
        self.network.ports[TWO] = away[TWO]
        self.network.run(3)
        self.successResultOf(opening)
        self.assertEqual(self.carried(), [1])
        self.network.ports[PORT] = away[PORT]

    def test_none_at_all(self) -> None:
        """It is told what became of each."""
        away = {port: self.network.ports.pop(port) for port in (PORT, TWO)}
        self.start()
        opening = self.client.opener.open(WEB)
        self.network.run(Limits().session_wait, 0.05)
        sentence = self.refusal(opening, Code.NET_UNREACHABLE)
        for port in away:
            self.assertIn(f"192.0.2.1:{port} refuses connections", sentence)
            self.assertIn(f"192.0.2.1:{port} refuses", self.client.complaint())
        self.network.ports.update(away)
