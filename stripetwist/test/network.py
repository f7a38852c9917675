"""A reactor that is nothing but time and TCP, all of it in memory."""

import errno
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError, TimeoutError, UserError, getConnectError
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IListeningPort,
    IReactorTCP,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.testing_transports import BoundedTransport, Cable


@implementer(IConnector)
class Dial:
    """
    One attempt to connect.

    @ivar source: the address that it comes from; C{None} for any.
    @ivar state: C{connecting}, C{connected}, C{failed} or C{stopped}.
    @ivar cable: the connection, once there is one.
    """

    def __init__(
        self,
        network: "Network",
        host: str,
        port: int,
        factory: Any,
        timeout: float,
        source: tuple[str, int] | None,
    ) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.source = source
        self.at = network.seconds()
        self.state = "connecting"
        self.cable: Cable | None = None
        self._network = network
        self._factory = factory
        self._timer: IDelayedCall = network.callLater(timeout, self.fail, TimeoutError())
        factory.doStart()

    def fail(self, error: Exception) -> None:
        """It comes to nothing."""
        if self.state == "connecting":
            self._leave("failed")
            self._factory.clientConnectionFailed(self, Failure(error))
            self._factory.doStop()

    def answer(self, listener: Any) -> None:
        """The listener takes it, or closes it at once."""
        if self.state != "connecting":
            return
        self._leave("connected")
        network = self._network
        near = BoundedTransport(clock=network, peer=self.getDestination())
        far = BoundedTransport(clock=network)
        self.cable = Cable(network, near, far, network.delay)
        network.cables.append(self.cable)
        protocol = listener.buildProtocol(far.getPeer())
        if protocol is None:
            far.ended, far.connected = "fin", False
            far.on_change()
        else:
            far.connect(protocol)
        near.connect(self._factory.buildProtocol(self.getDestination()))

    def _leave(self, state: str) -> None:
        self.state = state
        if self._timer.active():
            self._timer.cancel()

    def stopConnecting(self) -> None:
        """See L{IConnector.stopConnecting}."""
        self.fail(UserError())
        self.state = "stopped"

    def disconnect(self) -> None:
        """See L{IConnector.disconnect}."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self.cable is not None:
            self.cable.ends[0].loseConnection()

    def connect(self) -> None:
        """See L{IConnector.connect}; nobody of ours does it."""
        raise NotImplementedError

    def getDestination(self) -> Any:
        """See L{IConnector.getDestination}."""
        return IPv4Address("TCP", self.host, self.port)


@implementer(IListeningPort)
@dataclass(eq=False)
class Port:
    """A port that listens in a L{Network}."""

    network: "Network"
    number: int
    factory: Any
    interface: str
    stopped: int = 0

    def startListening(self) -> None:
        """It does."""

    def stopListening(self) -> Any:
        """See L{IListeningPort.stopListening}."""
        self.stopped += 1
        self.network.ports.pop(self.number, None)

    def getHost(self) -> Any:
        """See L{IListeningPort.getHost}."""
        return IPv4Address("TCP", self.interface or "0.0.0.0", self.number)


@implementer(IReactorTCP)
class Network(Clock):
    """
    A reactor that has nothing but time and TCP, all of it in memory.

    @ivar ports: who listens, by number, at whatever address.
    @ivar silent: ports where nothing answers.
    @ivar dials: every connection attempt.
    @ivar cables: every connection there ever was.
    @ivar delay: seconds from one end to the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[int, Port] = {}
        self.silent: set[int] = set()
        self.dials: list[Dial] = []
        self.cables: list[Cable] = []
        self.delay = 0.01
        self._next = 50000

    def listenTCP(
        self, port: int, factory: Factory[Any], backlog: int = 50, interface: str = ""
    ) -> Port:
        """See L{IReactorTCP.listenTCP}."""
        if port in self.ports:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        self._next += 1
        listening = Port(self, port or self._next, factory, interface)
        self.ports[listening.number] = listening
        factory.doStart()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Dial:
        """See L{IReactorTCP.connectTCP}."""
        dial = Dial(self, host, port, factory, timeout, bindAddress)
        self.dials.append(dial)
        if port not in self.silent:
            self.callLater(2 * self.delay, self._meet, dial)
        return dial

    def _meet(self, dial: Dial) -> None:
        listening = self.ports.get(dial.port)
        if listening is None:
            dial.fail(getConnectError((errno.ECONNREFUSED, "Connection refused")))
        else:
            dial.answer(listening.factory)

    def run(self, seconds: float, step: float = 0.005) -> None:
        """Let time pass in small steps."""
        self.advance(0)
        for _ in range(round(seconds / step)):
            self.advance(step)

    @property
    def living(self) -> list[Cable]:
        """The connections that neither end has lost."""
        return [one for one in self.cables if all(end.connected for end in one.ends)]
