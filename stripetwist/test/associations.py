"""Associations of which the test is the other end."""

from twisted.internet.defer import Deferred

from stripetwist.core.errors import Code
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.association import Association, Receiver
from stripetwist.test.test_driver import Exit


class Far:
    """An association at the exit, of which the test is the other end."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.sent: list[tuple[bytes, Target | None]] = []
        self.closed = 0

    @property
    def payloads(self) -> list[bytes]:
        """Of what it was given to send."""
        return [payload for payload, _ in self.sent]

    def says(self, payload: bytes, peer: Target | None = None) -> None:
        """A datagram comes out of it."""
        assert self.receiver is not None
        self.receiver.datagram_came(payload, peer)

    def ends(self, code: Code | None = None) -> None:
        """It is over."""
        assert self.receiver is not None
        self.receiver.association_lost(code)

    def send(self, payload: bytes, peer: Target | None) -> None:
        """See L{Association.send}."""
        self.sent.append((payload, peer))

    def close(self) -> None:
        """See L{Association.close}."""
        self.closed += 1


class Bound(Exit):
    """An exit that makes associations when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.bindings: list[Deferred[Association]] = []

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate}."""
        self.asked.append(request)
        self.bindings.append(Deferred(self._cancel))
        return self.bindings[-1]
