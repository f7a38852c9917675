"""What the kernel is asked of each subflow's socket."""

import socket
from typing import Any

from twisted.internet.interfaces import ITransport

# Linux, all of them; elsewhere the kernel's ways are taken as they are.
_TCP_NOTSENT_LOWAT = 25
_TCP_USER_TIMEOUT = 18
_TCP_CONGESTION = 13

_LOWAT = 32 * 1024
_USER_TIMEOUT_MS = 20_000


def prepare(sock: socket.socket) -> None:
    """
    Set a subflow's socket up: late binding of bytes, no delays of its own, a sign of death.

    With TCP_NOTSENT_LOWAT the kernel says "full" while little is unsent, so that what we
    bind to a subflow leaves soon.  Every option is a wish: one that is refused is forgone.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    _wish(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _wish(sock, socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _LOWAT)
    _wish(sock, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    _wish(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _wish(sock: socket.socket, level: int, option: int, value: int) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return


def congestion_control(transport: ITransport) -> str:
    """The name of the algorithm that paces a connection; empty where unknown."""
    handle = getattr(transport, "socket", None)
    if handle is None:
        return ""
    try:
        raw: bytes = handle.getsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, 16)
    except OSError:
        return ""
    return raw.split(b"\0")[0].decode("ascii", "replace")


def is_broken(transport: Any) -> bool:
    """
    Whether what looks like the end of a socket's input is really a reset.

    Epoll may report an error and nothing else, and Twisted takes that for a clean end.
    """
    handle = getattr(transport, "socket", None)
    return handle is not None and handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
