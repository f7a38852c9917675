"""How fast bytes come: a meter, and the ends of a connection that feed it."""

from typing import Any

from twisted.internet.interfaces import IPullProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.net.speed import PIECE, TALLY_SIZE


class Meter:
    """
    How much has come, since when and until when.

    @ivar total: bytes.
    @ivar since: when it began to count, in seconds of the clock.
    @ivar until: when it last learned how much it is.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.total = 0
        self.since = self.until = clock.seconds()

    def reached(self, total: int) -> None:
        """So much has come by now, in all."""
        self.total = total
        self.until = self._clock.seconds()

    def add(self, count: int) -> None:
        """So much more has come."""
        self.reached(self.total + count)

    @property
    def rate(self) -> float:
        """Bytes a second, over all of its time."""
        elapsed = self.until - self.since
        return self.total / elapsed if elapsed > 0 else 0.0


class Taker(Protocol):
    """
    Counts what comes, and wants nothing else.

    @ivar meter: where it counts.
    @ivar is_lost: whether the connection is gone.
    """

    transport: Any

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        """Count it."""
        self.meter.add(len(data))

    def look(self) -> None:
        """That nothing comes takes time, too."""
        self.meter.add(0)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """No more will come."""
        self.is_lost = True


@implementer(IPullProducer)
class _Spring:
    """Writes to a transport without end, whenever there is room."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """There is room."""
        self._transport.write(PIECE)

    def stopProducing(self) -> None:
        """Nobody takes it any more."""


class Source(Protocol):
    """Gives whoever connects bytes without end."""

    def connectionMade(self) -> None:
        """Begin."""
        _Spring(self.transport)


class Giver(Protocol):
    """
    Writes to a sink without end, and hears from it how much has come.

    @ivar meter: where it counts.
    @ivar is_lost: whether the connection is gone.
    """

    transport: Any

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._heard = b""
        self.is_lost = False

    def connectionMade(self) -> None:
        """Begin."""
        _Spring(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """The sink tells how much it has; the last word counts."""
        heard = self._heard + data
        rest = len(heard) % TALLY_SIZE
        whole, self._heard = heard[: len(heard) - rest], heard[len(heard) - rest :]
        if whole:
            self.meter.reached(int.from_bytes(whole[-TALLY_SIZE:], "big"))

    def look(self) -> None:
        """Only the sink knows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """No more will come."""
        self.is_lost = True
