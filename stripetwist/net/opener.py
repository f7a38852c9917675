"""The seam between doors and ways out."""

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport

from stripetwist.core.target import OpenRequest


class Opener(Protocol):
    """Reaches what a front, a forward or a peer asks for."""

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """
        Reach a target.

        @return: fires, only after the target has answered, with a transport whose protocol
            is a L{stripetwist.net.relay.Parked}: paused, to be given to
            L{stripetwist.net.relay.couple}.  Fails with
            L{stripetwist.core.errors.OpenRefused}.  Cancelling it cancels the dial.
        """
