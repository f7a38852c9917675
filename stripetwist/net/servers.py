"""Several servers: what is new goes to the most preferred one that is up."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import OpenRequest
from stripetwist.net.association import Association
from stripetwist.net.dialer import Dialer
from stripetwist.net.opener import Opener, SessionOpener
from stripetwist.net.roaming import RoamingAssociation


class Servers(SessionOpener):
    """
    Chooses, for each new stream, among servers in their order.

    A stream stays where it was opened; an association is lost once its server is no longer
    able to take streams and another is, to be made again there.  All servers are
    dialed from the start, so that another one takes over at once; a session that nothing uses
    comes to rest.
    """

    log = Logger()

    def __init__(self, dialers: Sequence[Dialer]) -> None:
        """
        @param dialers: one for each server, the most preferred first.
        """
        super().__init__(self.when_up)
        self._dialers = dialers
        self._last: Dialer | None = None

    def when_up(self) -> Deferred[Opener]:
        """
        The opener of the first server that takes streams, now or once one does.

        Fails with L{OpenRefused} when all have been waited for in vain.
        """
        able = next((dialer for dialer in self._dialers if dialer.is_able), None)
        if able is not None:
            self._note(able)
            return able.when_up()
        waiting = [dialer.when_up() for dialer in self._dialers]
        if len(waiting) == 1:
            return waiting[0]
        first = DeferredList(waiting, fireOnOneCallback=True, consumeErrors=True)
        return first.addCallback(_first_of, waiting)

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self.when_up().addCallback(self._associate, request)

    def _associate(self, opener: Opener, request: OpenRequest) -> Deferred[Association]:
        making = opener.associate(request)
        if len(self._dialers) > 1:
            making.addCallback(self._roaming, opener)
        return making

    def _roaming(self, far: Association, opener: Opener) -> Association:
        def is_gone() -> bool:
            able = [dialer.driver for dialer in self._dialers if dialer.is_able]
            return bool(able) and opener not in able

        first = self._dialers[0]
        return RoamingAssociation(far, is_gone, first.clock, first.limits.agent_look)

    def _note(self, dialer: Dialer) -> None:
        """Say so if new streams go elsewhere than before."""
        if self._last not in (None, dialer):
            self.log.info("new streams go to {address} now", address=dialer.link.address)
        self._last = dialer


def _first_of(found: Any, waiting: Sequence[Deferred[Opener]]) -> Any:
    """The one that has come, without those that need not come any more; or why none has."""
    for one in waiting:
        one.cancel()
    if isinstance(found, tuple):
        return found[0]
    failures: list[Failure] = [failure for _, failure in found]
    if failures[0].check(CancelledError):
        return failures[0]
    raise OpenRefused(
        Code.NET_UNREACHABLE, "; ".join(failure.getErrorMessage() for failure in failures)
    )
