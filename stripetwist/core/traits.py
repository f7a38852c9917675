"""What a connection is, as both the session and its subflow have to know it."""

from dataclasses import dataclass

from stripetwist.core.frames import Checksum
from stripetwist.core.path import PLAIN, PathInfo


@dataclass(frozen=True, slots=True)
class Traits:
    """
    A connection, as far as it does not change while it is up.

    @ivar checksum: what its frames end in, where no TLS guards them.
    @ivar window_decays: whether its congestion window shrinks while it is idle.
    @ivar segment: bytes that TCP puts into one of its packets; 0 if unknown.
    @ivar path: the path that it takes.
    """

    checksum: Checksum | None = None
    window_decays: bool = False
    segment: int = 0
    path: PathInfo = PLAIN


# One of which nothing is known.
UNKNOWN = Traits()
