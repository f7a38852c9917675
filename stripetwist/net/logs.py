"""How much is logged."""

import re
from collections.abc import Callable
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
)

# What Twisted tells of each port, by the names of classes.
_OF_PORTS = re.compile(r"\S.* starting on \S|\(\w+ Port .+ Closed\)\Z")


def _without_ports(event: LogEvent) -> Any:
    """Leave out that a port was opened or closed: what users are to know of it, we say."""
    told = event.get("log_namespace") == "log_legacy" and event.get("log_text", "")
    return PredicateResult.no if told and _OF_PORTS.match(told) else PredicateResult.maybe


def limit_level(beginner: Any, level: str) -> None:
    """
    Let nothing below a level through, once logging begins.

    What Twisted says of ports at C{info} counts as C{debug}.

    twistd makes its observer later, from options of its own, and passes on whatever it is
    given; so each observer is wrapped at the moment when it begins.

    @param beginner: C{twisted.logger.globalLogBeginner}.
    """
    predicates: list[Any] = [LogLevelFilterPredicate(LogLevel.levelWithName(level))]
    if level != LogLevel.debug.name:
        predicates.append(_without_ports)
    begin: Callable[..., None] = beginner.beginLoggingTo

    def begin_limited(observers: list[Any], *args: Any, **kwargs: Any) -> None:
        begin([FilteringLogObserver(one, predicates) for one in observers], *args, **kwargs)

    beginner.beginLoggingTo = begin_limited
