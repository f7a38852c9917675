"""What stands before the ends of a relay that carries one request, and its answer."""

from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


class Keep(Interface):
    """Knows what is for the other side."""

    def take(self, data: bytes) -> bytes:
        """That, of these bytes and of those held back before."""

    def rest(self) -> bytes:
        """What is still held back when no more will come."""


# What is for the other side, of the near one's and of the far one's; C{None} if everything is.
Sieves = tuple[Keep | None, Keep | None]
NOTHING_SIFTED: Sieves = (None, None)


@implementer(IHalfCloseableProtocol)
class Sieve(Protocol):
    """
    Passes on what is for the other side, and all events; drops the rest.

    What a client sends behind its request may be meant for another target, and hold a
    password of the proxy's.
    """

    def __init__(self, inner: Any, keep: Keep) -> None:
        """
        @param inner: whose transport it is, and remains.
        """
        self._inner = inner
        self._keep = keep

    def dataReceived(self, data: bytes) -> None:
        """Pass on the part that is for the other side."""
        self._pass(self._keep.take(data))

    def _pass(self, data: bytes) -> None:
        if data:
            self._inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""
        self._pass(self._keep.rest())
        self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""
        self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{Protocol.connectionLost}."""
        self._inner.connectionLost(reason)


def sift(transport: Any, keep: Keep | None) -> None:
    """
    Put a sieve before what a transport is coupled with.

    @param keep: what is for the other side; C{None} if everything is.
    """
    # A socket of Twisted's that is lost has no protocol any more.
    inner = getattr(transport, "protocol", None)
    if keep is not None and inner is not None:
        transport.protocol = sieve = Sieve(inner, keep)
        sieve.makeConnection(transport)
