"""A receiver that keeps what it is given."""

from stripetwist.core.errors import Code
from stripetwist.core.target import Target


class Collector:
    """What came out of an association, and why it was lost."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Target | None]] = []
        self.lost: list[Code | None] = []

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver.datagram_came<stripetwist.net.association.Receiver.datagram_came>}."""
        self.datagrams.append((payload, peer))

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver<stripetwist.net.association.Receiver>}."""
        self.lost.append(code)
