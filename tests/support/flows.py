"""Payload moved over a socket, verified and timed."""

import socket
import time
from dataclasses import dataclass
from typing import Protocol

from support.payload import Checker, Source

PIECE = 256 * 1024


@dataclass
class Flow:
    """
    How a transfer went.

    @ivar size: verified bytes.
    @ivar end: C{"whole"} if a clean end followed, C{"reset"}, or C{"open"}.
    @ivar longest_gap: seconds between two arrivals, the most.
    """

    size: int = 0
    end: str = "open"
    seconds: float = 0.0
    longest_gap: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size / self.seconds if self.seconds else 0.0


class Takes(Protocol):
    """What payload can be sent to."""

    def sendall(self, data: bytes, /) -> None: ...


def send(sock: Takes, stream_id: int, size: int, rate: float = 0.0) -> int:
    """
    Send a stream's payload.

    @param size: bytes; 0 for as long as the other side listens.
    @param rate: bytes per second; 0 for as fast as it goes.
    @return: the bytes sent, all of them or as many as went before a reset.
    """
    source = Source(stream_id)
    piece = min(PIECE, max(4096, int(rate / 50))) if rate else PIECE
    start = time.monotonic()
    while not size or source.offset < size:
        left = size - source.offset if size else piece
        sent = source.offset
        try:
            sock.sendall(source.read(min(piece, left)))
        except ConnectionError:
            return sent
        if rate:
            ahead = source.offset / rate - (time.monotonic() - start)
            if ahead > 0:
                time.sleep(ahead)
    return source.offset


def receive(sock: socket.socket, stream_id: int, size: int = 0) -> Flow:
    """
    Receive and verify a stream's payload.

    @param size: stop after that many bytes, leaving the end unread; 0 reads to the end.
    """
    checker, flow = Checker(stream_id), Flow()
    start = last = time.monotonic()
    while not size or checker.offset < size:
        want = min(PIECE, size - checker.offset) if size else PIECE
        try:
            data = sock.recv(want)
        except ConnectionError:
            flow.end = "reset"
            break
        now = time.monotonic()
        flow.longest_gap, last = max(flow.longest_gap, now - last), now
        if not data:
            flow.end = "whole"
            break
        checker.feed(data)
        flow.size = checker.offset
    flow.seconds = last - start
    return flow


def how_it_ends(sock: socket.socket) -> str:
    """Read to the end: C{"whole"} or C{"reset"}."""
    try:
        while sock.recv(PIECE):
            pass
    except ConnectionError:
        return "reset"
    return "whole"


def reset(sock: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()
