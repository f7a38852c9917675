"""Carried UDP flows that leave at one of several agents, as long as that agent is there."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from stripetwist.core.errors import Code
from stripetwist.core.target import Target
from stripetwist.net.association import Association, Receiver

# So many looks in a row find the agent gone: a connection that is dialed anew takes less.
MOST_MISSED = 3


class RoamingAssociation:
    """
    An association that is lost once its agent is gone and another could make one.

    A stream waits for its agent, for its bytes cannot go elsewhere; datagrams can.

    @ivar receiver: who gets what comes.
    """

    def __init__(
        self, far: Association, is_gone: Callable[[], bool], clock: IReactorTime, every: float
    ) -> None:
        """
        @param is_gone: whether the agent is, and another is there.
        @param every: seconds from look to look.
        """
        self.receiver: Receiver | None = None
        self._far = far
        self._is_gone = is_gone
        self._clock = clock
        self._every = every
        self._missed = 0
        far.receiver = self
        self._timer: IDelayedCall = clock.callLater(every, self._look)

    def _look(self) -> None:
        self._missed = self._missed + 1 if self._is_gone() else 0
        if self._missed < MOST_MISSED:
            self._timer = self._clock.callLater(self._every, self._look)
            return
        self._far.receiver = None
        self._far.close()
        self.association_lost(None)

    def send(self, payload: bytes, peer: Target | None) -> None:
        """See L{Association.send}."""
        self._far.send(payload, peer)

    def close(self) -> None:
        """See L{Association.close}."""
        self.receiver = self._far.receiver = None
        self._stop()
        self._far.close()

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver.datagram_came}."""
        if self.receiver is not None:
            self.receiver.datagram_came(payload, peer)

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver.association_lost}."""
        self._stop()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.association_lost(code)

    def _stop(self) -> None:
        if self._timer.active():
            self._timer.cancel()
