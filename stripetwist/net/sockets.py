"""What the kernel is asked of a socket."""

import errno
import socket
import struct
import sys
from typing import Any

from stripetwist.core.progress import KernelView

# Linux, all of them; elsewhere the kernel's ways are taken as they are.
_TCP_NOTSENT_LOWAT = 25
_TCP_USER_TIMEOUT = 18
_TCP_CONGESTION = 13
_TCP_INFO = 11
_SO_BINDTODEVICE = 25
_SO_MAX_PACING_RATE = 47
_BEYOND = (1 << 40).to_bytes(8, sys.byteorder)
_TCP = (socket.AF_INET, socket.AF_INET6)
# Paces by itself, and keeps its window while it is idle.
BBR = "bbr"
# Any port would do.
_DISCARD = 9
# What the kernel says where it has no way to send by, or no such card.
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENODEV)

# struct tcp_info of <linux/tcp.h>, whose fields never move: delivery_rate_app_limited (a bit),
# unacked, last_data_recv, last_ack_recv, rtt, rttvar, bytes_acked, bytes_received,
# notsent_bytes, min_rtt, delivery_rate.
_TOTAL_RETRANS = 100
_INFO = struct.Struct("=7xB16xI24xII8xII44xQQ8xII8xQ")
_INFO_LEAST = 148
_RATE_LIMITED = 1 if sys.byteorder == "little" else 0x80

_LOWAT = 4 * 1024
_USER_TIMEOUT_MS = 20_000


def prepare(sock: socket.socket, pace: str = "") -> None:
    """
    Set a subflow's socket up: late binding of bytes, no delays of its own, a sign of death.

    Every option is a wish: one that is refused is forgone.

    @param pace: the congestion control; empty for the system's.
    """
    if sock.family not in _TCP:
        return
    _wish(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _wish(sock, socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _LOWAT)
    _wish(sock, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    _wish(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if pace:
        _wish(sock, socket.IPPROTO_TCP, _TCP_CONGESTION, pace.encode())


def use_card(sock: socket.socket, card: str) -> None:
    """
    Send from this network card whatever the routes say.

    @raise OSError: there is no such card, or the kernel does not let us choose.
    """
    if card:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, card.encode() + b"\0")


def source_towards(address: str, card: str = "") -> str | None:
    """
    The address that the kernel would send from to get there by now; C{None} for no way there.

    Sends nothing: a datagram socket is only told whom it would talk to.  Empty where it cannot
    be asked, as a process that has no file descriptors left.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            use_card(sock, card)
            sock.connect((address, _DISCARD))
            return str(sock.getsockname()[0])
    except OSError as error:
        return None if error.errno in _NO_WAY else ""


def _tcp_socket(transport: Any) -> socket.socket | None:
    """The socket of a transport, if it is one of TCP's."""
    handle: socket.socket | None = getattr(transport, "socket", None)
    return handle if handle is not None and handle.family in _TCP else None


def hold_unsent(transport: Any, size: int) -> None:
    """
    Have the kernel ask for more when less than so many bytes are unsent (TCP_NOTSENT_LOWAT).

    It says "full" above that, so that what we bind to a subflow leaves soon.
    """
    if (handle := _tcp_socket(transport)) is not None:
        _wish(handle, socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)


def smooth(transport: Any) -> None:
    """
    Have the kernel pace a connection, whatever its congestion control (SO_MAX_PACING_RATE).

    A bound beyond any rate sets none; the pace is then what the window allows per round trip.
    """
    if (handle := _tcp_socket(transport)) is not None:
        _wish(handle, socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _BEYOND)


def _wish(sock: socket.socket, level: int, option: int, value: int | bytes) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return


def may_pace(pace: str) -> bool:
    """Whether this process may choose that congestion control."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, pace.encode())
        except OSError:
            return False
    return True


def congestion_control(transport: Any) -> str:
    """The name of the algorithm that paces a connection; empty where unknown."""
    handle = getattr(transport, "socket", None)
    if handle is None:
        return ""
    try:
        raw: bytes = handle.getsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, 16)
    except OSError:
        return ""
    return raw.split(b"\0")[0].decode("ascii", "replace")


def kernel_view(transport: Any) -> KernelView | None:
    """What the kernel knows of a connection; C{None} where it does not say."""
    if (handle := _tcp_socket(transport)) is None:
        return None
    try:
        raw: bytes = handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO.size)
        # Older kernels know less; what they have always known is all that counts there.
        fields = _INFO.unpack(raw.ljust(_INFO.size, b"\0") if len(raw) >= _INFO_LEAST else raw)
    except (OSError, struct.error):
        return None
    limited, unacked, data_ago, ack_ago, rtt, rttvar, *counts = fields
    acked, received, unsent, least, rate = counts
    return KernelView(
        acked=acked,
        acked_ago=ack_ago / 1e3,
        received=received,
        received_ago=data_ago / 1e3,
        waiting=bool(unacked or unsent),
        patience=(rtt + 4 * rttvar) / 1e6,
        rtt=rtt / 1e6,
        least=least / 1e6,
        rate=0 if limited & _RATE_LIMITED else rate,
    )


def segment_size(transport: Any) -> int:
    """How many bytes a full TCP segment carries there (TCP_MAXSEG); 0 where unknown."""
    if (handle := _tcp_socket(transport)) is None:
        return 0
    try:
        return handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    except OSError:
        return 0


def retransmitted(transport: Any) -> int:
    """How many packets had to be sent again; none where the kernel does not say."""
    if (handle := _tcp_socket(transport)) is None:
        return 0
    try:
        raw: bytes = handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TOTAL_RETRANS + 4)
    except OSError:
        return 0
    return int.from_bytes(raw[_TOTAL_RETRANS:], sys.byteorder)


def break_at_exit(transport: Any, breaks: bool) -> None:
    """
    Whether the kernel is to reset a connection, should this process die with it open.

    Otherwise a process that is killed ends its connections as if all had been said.
    """
    if (handle := _tcp_socket(transport)) is not None:
        _wish(handle, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", breaks, 0))


def is_broken(transport: Any) -> bool:
    """
    Whether what looks like the end of a socket's input is really a reset.

    Epoll may report an error and nothing else, and Twisted takes that for a clean end.
    """
    handle = getattr(transport, "socket", None)
    return handle is not None and handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
