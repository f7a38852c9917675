"""What stands before a coupled client that may send its target one request and no more."""

from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


class Keep(Interface):
    """Knows what belongs to the request."""

    def take(self, data: bytes) -> bytes:
        """The part of these bytes that does."""


@implementer(IHalfCloseableProtocol)
class Sieve(Protocol):
    """
    Passes on what belongs to a request, and all events; drops the rest.

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
        """Pass on the part that is for the target."""
        if kept := self._keep.take(data):
            self._inner.dataReceived(kept)

    def readConnectionLost(self) -> None:
        """See L{IHalfCloseableProtocol}."""
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

    @param keep: what belongs to the request; C{None} if everything does.
    """
    # A socket of Twisted's that is lost has no protocol any more.
    inner = getattr(transport, "protocol", None)
    if keep is not None and inner is not None:
        transport.protocol = sieve = Sieve(inner, keep)
        sieve.makeConnection(transport)
