"""Those who wait for a session, each for so long and no longer."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from stripetwist.net.opener import Opener


class Waiters:
    """Those who wait for a session, each for so long and no longer."""

    def __init__(
        self, clock: IReactorTime, patience: float, refusal: Callable[[], Exception]
    ) -> None:
        """
        @param patience: seconds.
        @param refusal: what those are told who have waited in vain.
        """
        self._clock = clock
        self._patience = patience
        self._refusal = refusal
        self._waiting: list[Deferred[Opener]] = []

    def add(self) -> Deferred[Opener]:
        """One more; who cancels is forgotten."""
        waiter: Deferred[Opener] = Deferred(self._forget)
        self._waiting.append(waiter)
        timer = self._clock.callLater(self._patience, self._give_up, waiter)

        def settled(result: object) -> object:
            if timer.active():
                timer.cancel()
            return result

        waiter.addBoth(settled)
        return waiter

    def _forget(self, waiter: Deferred[Opener]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _give_up(self, waiter: Deferred[Opener]) -> None:
        self._forget(waiter)
        waiter.errback(self._refusal())

    # One that is told may cancel another: take them out one by one.

    def tell(self, opener: Opener) -> None:
        """There is a session."""
        while self._waiting:
            self._waiting.pop(0).callback(opener)

    def dismiss(self) -> None:
        """There will be none."""
        while self._waiting:
            self._give_up(self._waiting[0])
