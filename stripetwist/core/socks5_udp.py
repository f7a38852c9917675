"""The header of SOCKS5 datagrams (RFC 1928, section 7)."""

from stripetwist.core.errors import OpenRefused
from stripetwist.core.target import Target

_PLAIN = bytes(3)  # reserved, and no fragment
_MOST = 4 + 1 + 255 + 2


def unwrap(datagram: bytes) -> tuple[Target, bytes] | None:
    """
    Where a client's datagram is to go, and what it holds.

    @return: C{None} for a fragment, or what is malformed: both are dropped.
    """
    if not datagram.startswith(_PLAIN):
        return None
    try:
        found = Target.decode(datagram[:_MOST], len(_PLAIN))
    except OpenRefused:
        return None
    return None if found is None else (found[0], datagram[found[1] :])


def wrap(payload: bytes, sender: Target) -> bytes:
    """An answer, as the client is to get it."""
    return _PLAIN + sender.encode() + payload
