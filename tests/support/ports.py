"""Loopback ports that nobody else will be given."""

import os
import socket

LOOPBACK = "127.0.0.1"
LISTEN = "0A"


def free_port() -> int:
    """
    A TCP port that is free on every address, and is not handed out again for a minute.

    A connection to it is made and closed, and rests in TIME_WAIT: the kernel then gives
    the port to no one who asks for any, while a listener that reuses addresses, as
    Twisted's do, gets it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)) as near:
            far, _ = listener.accept()
            far.close()
            near.recv(1)
    return port


def listener(port: int = 0, backlog: int = 1024) -> socket.socket:
    """A listening socket on loopback."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, port or free_port()))
    sock.listen(backlog)
    return sock


def listening(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    own = _sockets_of(pid)
    return {port for inode, port in _listeners(pid) if inode in own}


def _listeners(pid: int) -> list[tuple[str, int]]:
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        found += [(r[9], int(r[1].rsplit(":", 1)[1], 16)) for r in rows if r[3] == LISTEN]
    return found


def _sockets_of(pid: int) -> set[str]:
    inodes = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[len("socket:[") : -1])
    return inodes
