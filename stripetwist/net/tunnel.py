"""A connection to a proxy, until it leads to the server."""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from stripetwist.core.errors import ProxyRefused

_BROKE_OFF = "it closes the connection instead of answering; check that {kind} proxy listens there"
# So does ssh -D where the server refuses.
_NO_END = (
    "it begins to answer, then closes the connection; check that the server is up and within "
    "its reach"
)
_SILENT = (
    "it takes connections but has not answered within {time:g} s; check that it is {kind} proxy, "
    "and that the server is within its reach"
)


class Dialogue(Shape):
    """
    What is to be said to a proxy, and what follows from its answers.

    @ivar kind: what kind of proxy it is for, with the article.
    @ivar first: what to say first.
    @ivar rest: what came behind the dialogue; C{None} before its end.
    """

    kind: str
    first: bytes
    rest: bytes | None

    def feed(self, data: bytes) -> bytes:
        """What to say to that; raises L{ProxyRefused}."""


class TunnelFactory(WrappingFactory):
    """
    Has one connection lead through a proxy before the protocol of another factory gets it.

    To be made when the dial begins: the proxy's answer has what time the connect leaves.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        dialogue: Dialogue,
        clock: IReactorTime,
        time: float,
        failed: Callable[[Failure], None],
    ) -> None:
        """
        @param time: how long all of it may take, the connect included.
        @param failed: told once if the connection, while it was up, came to nothing.
        """
        super().__init__(wrapped)
        self.dialogue = dialogue
        self.clock = clock
        self.time = time
        self.until = clock.seconds() + time
        self.failed = failed

    def buildProtocol(self, addr: IAddress | None) -> "Tunnel":  # type: ignore[override]
        """The dialogue's."""
        return Tunnel(self)


class Tunnel(Protocol):
    """
    The dialogue with a proxy on a connection; at its end it is replaced by another protocol.

    A proxy that refuses, breaks off or takes too long is told of once, after the
    connection is gone.
    """

    # Twisted's own type lacks what TCP transports can do.
    transport: Any

    def __init__(self, factory: TunnelFactory) -> None:
        self._factory = factory
        self._refusal: ProxyRefused | None = None
        self._heard = False
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Say the first words."""
        clock = self._factory.clock
        left = max(0.0, self._factory.until - clock.seconds())
        self._timer = clock.callLater(left, self._too_late)
        self.transport.write(self._factory.dialogue.first)

    def dataReceived(self, data: bytes) -> None:
        """The proxy answers."""
        if self._refusal is not None:
            return
        self._heard = True
        dialogue = self._factory.dialogue
        try:
            answer = dialogue.feed(data)
        except ProxyRefused as refusal:
            self._give_up(refusal)
            return
        if answer:
            self.transport.write(answer)
        if dialogue.rest is not None:
            self._hand_over(dialogue.rest)

    def _hand_over(self, rest: bytes) -> None:
        """The connection leads to the server: whoever was to have it gets it."""
        self._cancel_timer()
        transport = self.transport
        inner: Any = self._factory.wrappedFactory.buildProtocol(transport.getPeer())
        transport.protocol = inner
        inner.makeConnection(transport)
        if rest:
            inner.dataReceived(rest)

    def _too_late(self) -> None:
        self._timer = None
        self._give_up(self._refused(_SILENT))

    def _refused(self, words: str) -> ProxyRefused:
        factory = self._factory
        sentence = words.format(time=factory.time, kind=factory.dialogue.kind)
        return ProxyRefused(sentence, lasting=False)

    def _give_up(self, refusal: ProxyRefused) -> None:
        self._refusal = refusal
        self._cancel_timer()
        self.transport.abortConnection()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It leads nowhere: say why."""
        self._cancel_timer()
        words = _NO_END if self._heard else _BROKE_OFF
        self._factory.failed(Failure(self._refusal or self._refused(words)))
