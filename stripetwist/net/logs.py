"""How much is logged."""

from collections.abc import Callable
from typing import Any

from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate


def limit_level(beginner: Any, level: str) -> None:
    """
    Let nothing below a level through, once logging begins.

    twistd makes its observer later, from options of its own, and passes on whatever it is
    given; so each observer is wrapped at the moment when it begins.

    @param beginner: C{twisted.logger.globalLogBeginner}.
    """
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    begin: Callable[..., None] = beginner.beginLoggingTo

    def begin_limited(observers: list[Any], *args: Any, **kwargs: Any) -> None:
        begin([FilteringLogObserver(one, [predicate]) for one in observers], *args, **kwargs)

    beginner.beginLoggingTo = begin_limited
