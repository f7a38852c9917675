"""Bytes over one connection, counted as they come: what both ends of a load share."""

import socket
import time
from collections.abc import Generator

IPPROTO_MPTCP = 262
BIN = 0.01
_BLOCK = 256 * 1024
_ABORT = b"\x01\0\0\0\0\0\0\0"

Address = tuple[str, int]
Talk = Generator[tuple[bytes, int], bytes, None]
"""What to say, and how many bytes to wait for then, until it is over."""


def connection(mptcp: bool = False) -> socket.socket:
    """A socket, not connected yet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP if mptcp else 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask_proxy(target: Address) -> Talk:
    """A SOCKS5 CONNECT, no login."""
    if (yield b"\5\1\0", 2) != b"\5\0":
        raise OSError("the proxy wants a login")
    host = socket.inet_aton(target[0])
    head = yield b"\5\1\0\1" + host + target[1].to_bytes(2, "big"), 5
    if head[1]:
        raise OSError(f"the proxy says {head[1]}")
    yield b"", {1: 5, 3: head[4] + 2, 4: 17}[head[3]]


def dial(target: Address, proxy: Address | None, mptcp: bool = False) -> socket.socket:
    """A connection to the target, through a proxy if there is one."""
    sock = connection(mptcp)
    sock.settimeout(30)
    try:
        sock.connect(proxy or target)
        if proxy:
            _hold(sock, ask_proxy(target))
    except BaseException:
        sock.close()
        raise
    return sock


def _hold(sock: socket.socket, talk: Talk) -> None:
    said, missing = next(talk)
    while missing:
        sock.sendall(said)
        try:
            said, missing = talk.send(read_exactly(sock, missing))
        except StopIteration:
            return


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("the connection ended early")
        data += more
    return data


def send_until(sock: socket.socket, end: float) -> None:
    """Send as much as goes."""
    block = memoryview(bytes(_BLOCK))
    try:
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            sock.send(block)
    except OSError:
        pass


def receive_until(sock: socket.socket, start: float, end: float) -> list[int]:
    """Count what comes: the bytes in each hundredth of a second."""
    counts = [0] * round((end - start) / BIN)
    block = bytearray(_BLOCK)
    try:
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            size = sock.recv_into(block)
            at = int((time.monotonic() - start) / BIN)
            if not size or at >= len(counts):
                break
            counts[max(0, at)] += size
    except OSError:
        pass
    return counts


def sums(counts: list[list[int]]) -> list[int]:
    """What all connections have had, from what each has."""
    return [sum(one) for one in zip(*counts, strict=True)]


def discard(sock: socket.socket, size: int) -> None:
    """Receive so many bytes, whatever they are."""
    block = bytearray(_BLOCK)
    while size > 0:
        got = sock.recv_into(block, min(size, _BLOCK))
        if not got:
            raise OSError("the connection ended early")
        size -= got


def abort(sock: socket.socket) -> None:
    """Close without sending what is left."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    finally:
        sock.close()
