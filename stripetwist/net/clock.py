"""Time that never jumps."""

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class MonotonicClock:
    """
    The reactor's timers, with seconds that neither NTP nor a user can move.

    C{reactor.seconds} is the wall clock; its C{callLater} is driven by the same, so a jump
    of the wall can make a timer late or early but never our arithmetic wrong.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()  # noqa: TID251 - the one place that may

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """See L{IReactorTime.callLater}; the delay is in seconds."""
        return self._reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """See L{IReactorTime.getDelayedCalls}."""
        return list(self._reactor.getDelayedCalls())
