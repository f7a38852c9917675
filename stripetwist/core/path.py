"""What a dialer tells the acceptor of the path that a connection takes, in its hello."""

import struct
from dataclasses import dataclass

from stripetwist.core.errors import Code, printable
from stripetwist.core.hello import Rejected
from stripetwist.core.way import LEAST_RATE, PathRole

MAX_LABEL = 64

# Number, role, bytes per second; the label follows.
_HEAD = struct.Struct(">HBQ")
_ROLES = (PathRole.PRIMARY, PathRole.OVERFLOW, PathRole.BACKUP)


@dataclass(frozen=True, slots=True)
class PathInfo:
    """
    The path of a connection, as both ends have to know it: each decides for what it sends.

    @ivar number: which one of the dialer's.
    @ivar role: when it is used.
    @ivar rate: bytes per second that all its subflows may carry, in each direction; 0 for no
        limit.
    @ivar label: what people call it; empty for nothing.
    """

    number: int = 0
    role: PathRole = PathRole.PRIMARY
    rate: int = 0
    label: str = ""

    def pack(self) -> bytes:
        """The field's value."""
        label = printable(self.label, MAX_LABEL).encode("ascii")
        return _HEAD.pack(self.number, _ROLES.index(self.role), self.rate) + label


# A path of which nothing was said.
PLAIN = PathInfo()


def parse_path(data: bytes) -> PathInfo:
    """
    What a hello says of its path.

    @raise Rejected: that is cut off, or no such role or rate can be.
    """
    if not _HEAD.size <= len(data) <= _HEAD.size + MAX_LABEL:
        raise Rejected(Code.PROTOCOL, "a hello with a path cut off, or too long")
    number, role, rate = _HEAD.unpack_from(data)
    if role >= len(_ROLES) or 0 < rate < LEAST_RATE // 8:
        raise Rejected(Code.PROTOCOL, "a hello with a path of no known role, or too low a rate")
    label = printable(data[_HEAD.size :].decode("latin-1"), MAX_LABEL)
    return PathInfo(number, _ROLES[role], rate, label)
