"""What a service meets of a process: a reactor, signals, limits, a log that has not begun."""

import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads, IReactorTCP
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stripetwist.net.state import StateDirectory
from stripetwist.test.network import Network

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class UnixPort:
    """A Unix socket that is none."""

    def stopListening(self) -> None:
        """Nothing to close."""


@implementer(IReactorTCP, IReactorFromThreads)
class Process(Network):
    """
    A network with the rest of a reactor.

    @ivar at_start: what is called once it runs.
    @ivar at_end: what is called at its end.
    @ivar stops: how often it was told to stop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_start: list[Callable[[], None]] = []
        self.at_end: list[Callable[[], object]] = []
        self.unix: list[str] = []
        self.stops = 0

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        """See L{twisted.internet.interfaces.IReactorCore}."""
        self.at_start.append(call)

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        """See L{twisted.internet.interfaces.IReactorCore}."""
        self.at_end.append(call)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See L{IReactorFromThreads}."""
        self.callLater(0, callable, *args, **kwargs)

    def listenUNIX(self, path: str, factory: object, mode: int) -> UnixPort:
        """See L{twisted.internet.interfaces.IReactorUNIX}."""
        self.unix.append(path)
        return UnixPort()

    def stop(self) -> None:
        """See L{twisted.internet.interfaces.IReactorCore}."""
        self.stops += 1

    def start(self) -> None:
        """Run: call who waits for it."""
        for call in self.at_start:
            call()


class ProcessTestCase(SynchronousTestCase):
    """
    Has a process of its own, in so far as tests can.

    @ivar reactor: its reactor.
    @ivar base: a folder for state, with a short name since sockets are in it.
    @ivar resource_limits: which limits of the process were set.
    """

    def setUp(self) -> None:
        self.reactor = Process()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = Path(folder.name)
        self.resource_limits: dict[int, tuple[int, int]] = {}
        self.patch(resource, "setrlimit", self.resource_limits.__setitem__)
        for number in SIGNALS:
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def signalled(self, *numbers: int) -> None:
        """The process gets signals, one after the other."""
        for number in numbers:
            signal.raise_signal(number)
            self.reactor.advance(0)

    def state(self, role: str = "server") -> StateDirectory:
        """A state folder in use."""
        state = StateDirectory(self.base, role, {})
        state.open()
        self.addCleanup(state.close)
        return state


class Beginner:
    """Begins to log, like C{globalLogBeginner}."""

    def __init__(self) -> None:
        self.observers: list[Any] = []

    def beginLoggingTo(self, observers: Iterable[Any], *args: object, **kwargs: object) -> None:
        """Keep the observers."""
        self.observers.extend(observers)
