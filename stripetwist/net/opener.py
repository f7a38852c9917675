"""The seam between doors and ways out, and the way through a session."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from stripetwist.core.target import ANYWHERE, Kind, OpenRequest
from stripetwist.net.association import Association, Associator

T = TypeVar("T")

# Associations whose last refusal is known, so that it is not logged again.
MOST_TOLD = 64
# Seconds after which it is logged again even so: whoever looks for the reason may look by now.
TELL_AGAIN = 600.0


class Opener(Associator, Protocol):
    """Reaches what a front, a forward or a peer asks for."""

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """
        Reach a target.

        @return: fires, only after the target has answered, with a transport whose protocol
            is a L{stripetwist.net.relay.Parked}: paused, to be given to
            L{stripetwist.net.relay.couple}.  Fails with
            L{stripetwist.core.errors.OpenRefused}.  Cancelling it cancels the dial.
        """


class SessionOpener:
    """
    Asks the peer at the other end of a session.

    @param when_up: gives the session's own opener, now or as soon as there is a session;
        fails with L{stripetwist.core.errors.OpenRefused} if that takes too long.
    """

    def __init__(self, when_up: Callable[[], Deferred[Opener]]) -> None:
        self._when_up = when_up

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        return self._when_up().addCallback(lambda driver: driver.open(request))

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self._when_up().addCallback(lambda driver: driver.associate(request))


class Witness:
    """
    Logs what is reached through another opener; changes nothing.

    A UDP port asks for its association until it has it: a refusal of one that is like the last
    is logged every ten minutes only.

    @ivar targets: whether hosts and ports are for everyday logs, or for debugging only.
    """

    log = Logger()

    def __init__(self, opener: Opener, clock: IReactorTime) -> None:
        self._opener = opener
        self._clock = clock
        self._refused: dict[OpenRequest, tuple[str, float]] = {}
        self.targets = False

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        return self._told(self._opener.open(request), request)

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self._told(self._opener.associate(request), request)

    def _told(self, opening: Deferred[T], request: OpenRequest) -> Deferred[T]:
        level = LogLevel.info if self.targets else LogLevel.debug
        who, target = request.key_id or "local", _shown(request)
        # What is given before the answer is no sign that there will be one.
        came = "asks for" if request.at_once else "reached"

        def reached(way: T) -> T:
            self._refused.pop(request, None)
            self.log.emit(level, "{who}: {came} {target}", who=who, came=came, target=target)
            return way

        def not_reached(failure: Failure) -> Failure:
            # Nobody waits for a target that was given up.
            why = failure.getErrorMessage()
            if not failure.check(CancelledError) and self._is_news(request, why):
                self.log.emit(level, "{who}: {why}", who=who, why=why, target=target)
            return failure

        return opening.addCallbacks(reached, not_reached)

    def _is_news(self, request: OpenRequest, why: str) -> bool:
        """Whether a refusal is another one than was logged of late, if it comes again."""
        if request.kind is not Kind.UDP or request.target == ANYWHERE:
            return True
        now = self._clock.seconds()
        last, told = self._refused.pop(request, ("", now))
        is_news = why != last or now - told >= TELL_AGAIN
        self._refused[request] = (why, now if is_news else told)
        if len(self._refused) > MOST_TOLD:
            del self._refused[next(iter(self._refused))]
        return is_news


def _shown(request: OpenRequest) -> str:
    """What a request asks for, in a word."""
    return "UDP" if request.target == ANYWHERE else str(request.target)
