"""Signals: a first TERM or INT lets streams finish, a second one does not; HUP reads again."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.config import Limits

_LOOK_EVERY = 0.1


class Drain:
    """
    Ends a process in good order.

    The first TERM or INT calls C{leave} (no new work) and waits until C{is_idle}, for
    C{limits.drain_timeout} seconds at most; the second ends it at once.

    @ivar cut: whether streams were still open when it ended.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        limits: Limits,
        leave: Callable[[], None],
        is_idle: Callable[[], bool],
        reload: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._limits = limits
        self._leave = leave
        self._is_idle = is_idle
        self._reload = reload
        self._end: Callable[[], None] | None = None
        self._ended = False
        self._since = 0.0
        self.cut = False
        self._look = LoopingCall(self._check)
        self._look.clock = clock

    @property
    def is_under_way(self) -> bool:
        """Whether it waits for streams, or has ended."""
        return self._end is not None

    def watch(self) -> None:
        """Watch for signals, HUP from now on: what is asked before the reactor runs waits."""
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._hung_up)
        # Twisted installs its own of the others when the reactor starts; ours have to be later.
        self._reactor.callWhenRunning(self.install)

    def install(self) -> None:
        """Take TERM and INT over from Twisted; to be called once the reactor runs."""
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            signal.signal(number, self._handler(number, previous))

    def _handler(self, number: int, previous: Any) -> Callable[[int, FrameType | None], None]:
        def end() -> None:
            # Twisted's own handler stops the reactor, and twistd's exit status tells of it.
            if callable(previous):
                previous(number, None)
            else:
                self._reactor.stop()

        def handle(_: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(self.asked, end)

        return handle

    def _hung_up(self, _: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reload)

    def asked(self, end: Callable[[], None]) -> None:
        """Somebody wants us to end; C{end} does."""
        if self._end is not None:
            self._finish(cut=not self._is_idle())
            return
        self._end = end
        self._since = self._clock.seconds()
        try:
            self._leave()
        # Whatever becomes of it, the process has to end.
        except Exception:  # noqa: BLE001
            self.log.failure("new work could not be stopped")
        if not self._is_idle():
            self.log.info(
                "waiting up to {seconds:.0f} s for streams to finish; a second signal ends at once",
                seconds=self._limits.drain_timeout,
            )
        self._look.start(_LOOK_EVERY).addErrback(self._broke)

    def _check(self) -> None:
        if self._is_idle():
            self._finish(cut=False)
        elif self._clock.seconds() - self._since >= self._limits.drain_timeout:
            self._finish(cut=True)

    def _broke(self, failure: Failure) -> None:
        self.log.failure("the end could not be waited for", failure)
        self._finish(cut=True)

    def _finish(self, cut: bool) -> None:
        if self._look.running:
            self._look.stop()
        if self._end is not None and not self._ended:
            self._ended = True
            self.cut = cut
            if cut:
                self.log.warn("streams that had not finished are cut")
            self._end()
