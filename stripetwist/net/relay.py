"""Two transports coupled into one connection: bytes, back-pressure, half-close and reset."""

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPullProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Parked(Protocol):
    """
    Holds a connected transport still until someone couples it.

    Nothing is read meanwhile.  Should it be lost all the same, that is remembered.
    """

    lost: Failure | None = None

    def connectionMade(self) -> None:
        """Stop reading: the bytes belong to whoever comes."""
        self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """Cannot come while paused; told again to the next reader if it does."""

    def writeConnectionLost(self) -> None:
        """We have not closed it."""

    def connectionLost(self, reason: Failure) -> None:
        """Keep the reason for C{couple}."""
        self.lost = reason
