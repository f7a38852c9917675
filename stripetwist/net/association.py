"""Carried UDP flows: the seam between what takes datagrams in and what lets them out."""

from ipaddress import ip_address
from typing import Protocol

from twisted.internet.defer import Deferred

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.zones import plain


class Receiver(Protocol):
    """Who gets what comes out of an association."""

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """
        One datagram.

        @param peer: who sent it; C{None} for the association's one target.
        """

    def association_lost(self, code: Code | None) -> None:
        """
        Nothing more comes or goes; told once, and not after C{close}.

        @param code: why; C{None} if the other side has closed it in order.
        """


class Association(Protocol):
    """
    One carried UDP flow.

    @ivar receiver: who gets what comes; while there is nobody it is dropped.
    """

    receiver: Receiver | None

    def send(self, payload: bytes, peer: Target | None) -> None:
        """
        Have a datagram carried, or dropped; never blocks, and keeps no promise.

        @param peer: where it is to go; C{None} for the association's one target.
        """

    def close(self) -> None:
        """End it."""


class Associator(Protocol):
    """Makes associations for a front, a forward or a peer."""

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """
        Make one.

        @return: fires once the far end is bound.  Fails with
            L{stripetwist.core.errors.OpenRefused}.  Cancelling it cancels the question.
        """


def share_of(host: str, limits: Limits) -> int:
    """How many associations one address may have; all programs of this machine are one."""
    if plain(ip_address(host)).is_loopback:
        return limits.max_associations
    return limits.max_associations_per_source


class _Passage:
    """Passes what comes out of one association on into another, and its end."""

    def __init__(self, other: Association) -> None:
        self._other = other

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver.datagram_came}."""
        self._other.send(payload, peer)

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver.association_lost}."""
        self._other.receiver = None
        self._other.close()


def couple_associations(a: Association, b: Association) -> None:
    """Have what comes out of each go into the other, until either is over; then both are."""
    a.receiver, b.receiver = _Passage(b), _Passage(a)
