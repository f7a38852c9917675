"""The addresses of one target, dialed side by side until one answers."""

import errno
import os
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import zip_longest

from twisted.internet.defer import Deferred
from twisted.internet.error import NotConnectingError, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IReactorTCP,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.target import Target, shown
from stripetwist.core.zones import Address
from stripetwist.net.dial_errors import TURNED_AWAY, tells_nothing
from stripetwist.net.relay import Parked

# Of one target; a name with a hundred silent addresses must not take a hundred descriptors.
MOST_AT_ONCE = 16

_OUT_OF_FILES = "was not dialed: the exit is out of file descriptors; raise its limit (ulimit -n)"
_OUT_OF_MEMORY = "was not dialed: the exit's system is out of memory for connections"
_BLOCKED = "is blocked by the exit's own system, perhaps its firewall"
_NO_NETWORK = "cannot be reached: the exit has no route to that network"
_NO_HOST = "cannot be reached: no answer from that host's network"
_RESET = "broke the connection off before it was made"

# By number: Twisted has classes for three of them, and calls a lack of descriptors a bind error.
_BY_ERRNO: dict[int, tuple[Code, str]] = {
    errno.ECONNREFUSED: (
        Code.REFUSED_BY_TARGET,
        "refused the connection: nothing listens there",
    ),
    errno.ECONNRESET: (Code.REFUSED_BY_TARGET, _RESET),
    errno.ECONNABORTED: (Code.REFUSED_BY_TARGET, _RESET),
    errno.EHOSTUNREACH: (Code.HOST_UNREACHABLE, _NO_HOST),
    errno.EHOSTDOWN: (Code.HOST_UNREACHABLE, _NO_HOST),
    errno.ETIMEDOUT: (Code.TIMEOUT, "did not answer"),
    errno.ENETUNREACH: (Code.NET_UNREACHABLE, _NO_NETWORK),
    errno.ENETDOWN: (Code.NET_UNREACHABLE, _NO_NETWORK),
    errno.EACCES: (Code.NOT_ALLOWED, _BLOCKED),
    errno.EPERM: (Code.NOT_ALLOWED, _BLOCKED),
    errno.EAFNOSUPPORT: (
        Code.BAD_ADDRESS,
        "cannot be reached: the exit's system lacks that kind of address",
    ),
    errno.EMFILE: (Code.GENERAL, _OUT_OF_FILES),
    errno.ENFILE: (Code.GENERAL, _OUT_OF_FILES),
    errno.ENOBUFS: (Code.GENERAL, _OUT_OF_MEMORY),
    errno.ENOMEM: (Code.GENERAL, _OUT_OF_MEMORY),
    errno.EADDRNOTAVAIL: (
        Code.GENERAL,
        "was not dialed: the exit has no free port or no own address for it",
    ),
}

# Which one to report when addresses failed differently: who came closest to the target.
_TELLING = (
    Code.REFUSED_BY_TARGET,
    Code.HOST_UNREACHABLE,
    Code.TIMEOUT,
    Code.NOT_ALLOWED,
    Code.GENERAL,
    Code.NET_UNREACHABLE,
    Code.BAD_ADDRESS,
)


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The same addresses, one of each family in turn (RFC 8305, section 4)."""
    first = [each for each in addresses if each.version == addresses[0].version]
    second = [each for each in addresses if each.version != addresses[0].version]
    turns = zip_longest(first, second)
    return [each for turn in turns for each in turn if each is not None]


class _Attempt(ClientFactory):
    """
    One address that is being dialed.

    @ivar race: who waits for it; C{None} once it no longer matters.
    """

    noisy = False

    def __init__(self, race: "Race", address: Address) -> None:
        self.race: Race | None = race
        self.address = address
        self.connector: IConnector | None = None

    def buildProtocol(self, addr: IAddress | None) -> "Parked | None":
        """Connected; C{None} drops a connection that came after all was over."""
        return None if self.race is None else _Arrival(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Not connected."""
        if self.race is not None:
            self.race.failed(self, reason.value)

    def stop(self) -> None:
        """Give the address up, whatever has become of it."""
        self.race = None
        if self.connector is not None:
            with suppress(NotConnectingError):
                self.connector.stopConnecting()


class _Arrival(Parked):
    """A parked connection that reports once that it is there."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt: _Attempt | None = attempt

    def connectionMade(self) -> None:
        """Stand still, then tell."""
        super().connectionMade()
        attempt, self._attempt = self._attempt, None
        if attempt is not None and attempt.race is not None and self.transport is not None:
            attempt.race.arrived(attempt, self.transport)


class Race:
    """
    Dials the addresses of one target, each a little after the last; the first to answer wins.

    The next address is dialed after C{next_address} seconds, or when one has failed.  Ends
    within C{connect_total} seconds, leaving behind no timer and no half-open connection.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        limits: Limits,
        target: Target,
        addresses: Iterable[Address],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._limits = limits
        self._target = target
        self._waiting = deque(addresses)
        self._attempts: set[_Attempt] = set()
        self._failures: list[tuple[int, OpenRefused]] = []
        self._timers: list[IDelayedCall] = []
        self._result: Deferred[ITransport] = Deferred(lambda _: self._end())
        self._over = False

    def run(self) -> Deferred[ITransport]:
        """Start; fires with the first transport that is connected, or with the best reason."""
        self._timers = [self._clock.callLater(self._limits.connect_total, self._too_late)]
        self._advance()
        return self._result

    def arrived(self, attempt: _Attempt, transport: ITransport) -> None:
        """The winner: everyone else goes home."""
        self._attempts.discard(attempt)
        attempt.race = attempt.connector = None
        self._end()
        if ITCPTransport.providedBy(transport):
            # The target may have reset it already; whoever takes the transport will see.
            with suppress(OSError):
                transport.setTcpNoDelay(True)
                transport.setTcpKeepAlive(True)
        self._result.callback(transport)

    def failed(self, attempt: _Attempt, error: BaseException | None) -> None:
        """One address is out; another takes its place at once."""
        self._attempts.discard(attempt)
        attempt.race = attempt.connector = None
        self._note(attempt.address, error)
        self._advance()

    def _advance(self) -> None:
        """Dial the next address, and those after it for as long as they fail at once."""
        for step in self._timers[1:]:
            if step.active():
                step.cancel()
        del self._timers[1:]
        while not self._over and self._waiting and len(self._attempts) < MOST_AT_ONCE:
            if self._dial(self._waiting.popleft()):
                if self._waiting and not self._over:
                    self._timers.append(
                        self._clock.callLater(self._limits.next_address, self._advance)
                    )
                return
        if not self._over and not self._attempts:
            self._lose()

    def _dial(self, address: Address) -> bool:
        """Dial that literal; C{False} if it has failed already."""
        attempt = _Attempt(self, address)
        self._attempts.add(attempt)
        limit = self._limits.connect_timeout
        try:
            connector = self._reactor.connectTCP(
                str(address), self._target.port, attempt, timeout=limit
            )
        except Exception as error:  # noqa: BLE001 - a stream must hear of it, not the reactor
            self._attempts.discard(attempt)
            attempt.race = None
            self._note(address, error)
            return False
        if attempt.race is not None:
            attempt.connector = connector
        return attempt in self._attempts

    def _note(self, address: Address, error: BaseException | None) -> None:
        where = shown(self._target)
        if isinstance(self._target.host, str):
            where = f"{where} ({address})"
        number = getattr(error, "osError", None) or getattr(error, "errno", None)
        if isinstance(error, TimeoutError):
            code, what = Code.TIMEOUT, f"did not answer within {self._limits.connect_timeout:g} s"
        elif number in _BY_ERRNO:
            code, what = _BY_ERRNO[number]
        elif tells_nothing(error):
            code, what = Code.HOST_UNREACHABLE, f"cannot be reached: {TURNED_AWAY}"
        else:
            is_known = isinstance(number, int) and number > 0
            why = os.strerror(number or 0) if is_known else str(error)
            code, what = Code.GENERAL, f"could not be dialed: {printable(why, 100)}"
        self._failures.append((_TELLING.index(code), OpenRefused(code, f"{where} {what}")))

    def _too_late(self) -> None:
        """The time for all addresses together is over."""
        for attempt in self._attempts:
            self._note(attempt.address, OSError(errno.ETIMEDOUT, ""))
        self._lose()

    def _lose(self) -> None:
        self._end()
        self._result.errback(min(self._failures, key=lambda failure: failure[0])[1])

    def _end(self) -> None:
        self._over = True
        self._waiting.clear()
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()
        attempts, self._attempts = self._attempts, set()
        for attempt in attempts:
            attempt.stop()
