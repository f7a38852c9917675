"""A dialer and an acceptor in one simulated network, with real TLS between them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.agents import Agent
from stripetwist.core.config import MIB, Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.link import Link
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.way import Way
from stripetwist.core.zones import Address
from stripetwist.net import sockets
from stripetwist.net.acceptor import Acceptor
from stripetwist.net.certificates import ServerCertificate, check_pair, make_certificate
from stripetwist.net.checksum import table_driven
from stripetwist.net.dialer import Dialer
from stripetwist.net.ground import Ground, Store
from stripetwist.net.keyfile import ANY, Key
from stripetwist.net.keystore import KeyStore
from stripetwist.net.relay import Parked
from stripetwist.net.tls import ServerCreator, TLSFactory
from stripetwist.test.network import Network
from stripetwist.testing_transports import BoundedTransport

PORT = 8443
WEB = OpenRequest(Target.of("example.test", 80))


@cache
def _certificate(number: int) -> ServerCertificate:
    return check_pair(*make_certificate())


def certificate(number: int = 0) -> ServerCertificate:
    """A certificate that all tests use: making one takes its time."""
    return _certificate(number)


class Exit:
    """An opener that reaches everything, or refuses it."""

    def __init__(self) -> None:
        self.targets: list[BoundedTransport] = []
        self.refusal: OpenRefused | None = None

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """No datagrams are asked for here."""
        raise NotImplementedError

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        if self.refusal is not None:
            raise self.refusal
        self.targets.append(BoundedTransport().connect(Parked()))
        return succeed(self.targets[-1])


class Names:
    """A resolver by table; a name without an entry waits for ever."""

    def __init__(self) -> None:
        self.table: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.cancelled = 0

    def resolve(self, name: str, asker: str = "") -> Deferred[list[Address]]:
        """See L{stripetwist.net.resolver.Resolver.resolve}."""
        self.asked.append(name)
        if name in self.table:
            return succeed([ip_address(one) for one in self.table[name]])
        return Deferred(self._cancel)

    def _cancel(self, waiting: object) -> None:
        self.cancelled += 1


Act = Callable[[Any], None]


def nothing(wire: Any) -> None:
    """What a server does that does nothing."""


class Script(Protocol):
    """
    A server of another kind: does one thing when a connection comes, another when bytes do.

    @ivar got: the bytes that came.
    """

    def __init__(self, first: Act, then: Act) -> None:
        self._first, self._then = first, then
        self.got = b""
        self.lost = False

    def connectionMade(self) -> None:
        """Do the one."""
        self._first(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Do the other."""
        self.got += data
        self._then(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.lost = True


class Scripts(Factory[Script]):
    """Makes those, and remembers them."""

    noisy = False

    def __init__(self, first: Act = nothing, then: Act = nothing) -> None:
        self._acts = first, then
        self.made: list[Script] = []

    def buildProtocol(self, addr: object) -> Script:
        """One more."""
        self.made.append(Script(*self._acts))
        return self.made[-1]


class LinkTestCase(SynchronousTestCase):
    """
    A network with a server's acceptor in it, and a client's dialer.

    After each test both are stopped, and nothing of either may be left.
    """

    limits = Limits(max_memory=16 * MIB, subflows=3, grow_most=3, prewarm=0)

    def setUp(self) -> None:
        self.network = Network()
        # Wherever the tests run, even where there is no network.
        self.patch(sockets, "source_towards", lambda address, card="": "10.0.0.1")
        self.names = Names()
        self.exit = Exit()
        self.keys = KeyStore(None)
        self.dialers: list[Dialer] = []
        self.acceptors: list[Acceptor] = []
        key = next(key for key in self.keys.keys() if key.role == "client")  # noqa: SIM118
        self.link = Link(key.id, key.secret, "192.0.2.1", PORT, (certificate().pin,))

    def ground(self, limits: Limits | None = None) -> Ground:
        """What the sessions of one process stand on."""
        limits = limits or self.limits
        return Ground(self.network, limits, Store(limits), os.urandom, table_driven)

    def serve(self, limits: Limits | None = None, plain: bool = False, number: int = 0) -> Acceptor:
        """A server that listens; with another number it has another certificate."""
        acceptor = Acceptor(self.ground(limits), self.keys, self.exit)
        factory: Any = acceptor
        if not plain:
            factory = TLSFactory(ServerCreator(certificate(number)), acceptor, self.network)
        self.network.listenTCP(PORT, factory)
        self.acceptors.append(acceptor)
        return acceptor

    def dial(
        self,
        link: Link | None = None,
        ways: Sequence[Way] = (Way(),),
        agent: Agent | None = None,
        **limits: Any,
    ) -> Dialer:
        """A client that dials, or an agent."""
        ground = self.ground(replace(self.limits, **limits))
        dialer = Dialer(self.network, ground, self.names, link or self.link, ways, agent)
        self.dialers.append(dialer)
        dialer.startService()
        return dialer

    def agent_link(self, *names: str) -> Link:
        """An agent's link; of a key for those names, or for any."""
        key = Key("guest", b"a" * 32, "agent", names or ANY)
        self.keys.insert(key)
        return replace(self.link, key_id=key.id, secret=key.secret)

    def script(self, first: Act = nothing, then: Act = nothing, number: int = 0) -> Scripts:
        """A server with TLS that follows a script."""
        scripts = Scripts(first, then)
        creator = ServerCreator(certificate(number))
        self.network.listenTCP(PORT, TLSFactory(creator, scripts, self.network))
        return scripts

    def plain_link(self) -> Link:
        """A link to a server without TLS."""
        return replace(self.link, host="127.0.0.1", pins=(), plain=True)

    def connected(self, **limits: Any) -> tuple[Dialer, Acceptor]:
        """Both, with all subflows up."""
        acceptor, dialer = self.serve(), self.dial(**limits)
        self.network.run(0.5)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), len(dialer.places))
        return dialer, acceptor

    def restart(self, acceptor: Acceptor, **kind: Any) -> Acceptor:
        """The server dies without a word, and another one starts in its place."""
        for cable in self.network.living:
            cable.cut()
        self.acceptors.remove(acceptor)
        self.successResultOf(acceptor.stop())
        del self.network.ports[PORT]
        return self.serve(**kind)

    def logged(self, call: Callable[[], object]) -> list[str]:
        """What is logged meanwhile."""
        with capturedLogs() as logs:
            call()
        return [str(formatEvent(event)) for event in logs]

    def refusal(self, waiting: "Deferred[Any]", code: Code) -> str:
        """Why it was refused: one sentence."""
        error = self.failureResultOf(waiting, OpenRefused).value
        assert isinstance(error, OpenRefused)
        self.assertIs(error.code, code)
        self.assert_sentence(error.sentence)
        return error.sentence

    def assert_sentence(self, text: str) -> None:
        """It can be read by people, and has no secret."""
        self.assertTrue(text and text.isascii() and text.isprintable(), text)
        self.assertNotIn("Traceback", text)
        self.assertNotIn(self.link.format().split(":")[2].split("@")[0], text)

    def stop(self, dialer: Dialer) -> None:
        """Stop a client; it takes no time worth speaking of."""
        stopping = dialer.stopService()
        self.network.run(0.2)
        self.successResultOf(stopping)
        self.dialers.remove(dialer)

    def tearDown(self) -> None:
        """Nothing is left of anybody."""
        waiting = [one.stopService() for one in self.dialers]
        waiting += [one.stop() for one in self.acceptors]
        self.network.run(0.2 + 6 * self.network.delay)
        if any(not one.called for one in waiting):
            # The other end may be one that does not answer.
            self.network.run(self.limits.close_timeout + 0.2)
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual([cable for cable in self.network.living if not cable.silent], [])
