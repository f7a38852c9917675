"""Work that has an end, on a reactor that runs for it alone."""

import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

_CLOSING = 1.0


def run(reactor: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """
    Run the reactor until the work is done; what that raises is raised here.

    INT and TERM cancel it; the process goes on once it has put its things away, or at once
    when they come again.

    @raise KeyboardInterrupt: it was cancelled.
    """
    working: list[Deferred[None]] = []
    outcome: list[Any] = []

    async def all_of_it() -> None:
        # What it raises before there is anything to wait for counts, too.
        await work()

    def begin() -> None:
        working.append(Deferred.fromCoroutine(all_of_it()))
        working[0].addBoth(ended)

    def ended(result: object) -> None:
        outcome.append(result)
        with suppress(ReactorNotRunning):
            reactor.stop()

    def stopping() -> Deferred[None] | None:
        if outcome or not working:
            return None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        working[0].cancel()
        return working[0]

    reactor.addSystemEventTrigger("before", "shutdown", stopping)
    reactor.callWhenRunning(begin)
    reactor.run()
    failure = outcome[0] if outcome else Failure(CancelledError())
    if isinstance(failure, Failure):
        if failure.check(CancelledError):
            raise KeyboardInterrupt
        failure.raiseException()


async def put_away(services: IService, clock: IReactorTime) -> None:
    """Stop services, but wait for nobody who takes long over it."""
    closing: Deferred[Any] = maybeDeferred(services.stopService)
    closing.addTimeout(_CLOSING, clock).addErrback(lambda failure: None)
    await closing
