"""
Numbered datagrams, and what became of them.

C{python -m bench.datagrams HOST PORT} receives: it prints C{ready}, and when a datagram says
that it is the last one, what has come so far.
"""

import json
import socket
import statistics
import struct
import sys
import time
from typing import Any

from bench.flows import Address

# Number, or LAST, when it was sent by the clock that all processes here share, and its size.
_HEAD = struct.Struct(">qdH")
LAST = -1
_BUFFER = 8 << 20


def packed(number: int, size: int) -> bytes:
    """One of them, sent now: its number again and again, so that none passes for another."""
    head = _HEAD.pack(number, time.monotonic(), size)
    left = size - len(head)
    return head + (head[:8] * (left // 8 + 1))[:left]


def send(to: Address, rate: float, size: int, seconds: float) -> int:
    """
    Send them evenly, and that these were all; how many there were.

    @param rate: datagrams per second.
    @param size: bytes of each.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        start, count = time.monotonic(), round(rate * seconds)
        for number in range(count):
            wait = start + number / rate - time.monotonic()
            # A sleep this short costs more than it lasts: several leave together then.
            if wait > 1e-3:
                time.sleep(wait)
            sock.sendto(packed(number, size), to)
        for _ in range(30):
            time.sleep(0.1)
            sock.sendto(packed(LAST, size), to)
    return count


class Arrivals:
    """
    What came, as far as it matters.

    @ivar delays: in the order in which they came.
    @ivar altered: how many were not as they were sent.
    """

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.altered = 0
        self._seen: set[int] = set()
        self._highest = -1
        self._last_at = 0.0
        self.doubles = self.overtaken = 0
        self.longest_gap = 0.0

    def came(self, datagram: bytes) -> bool:
        """One has come; whether more are to come."""
        now = time.monotonic()
        number, sent, size = _HEAD.unpack_from(datagram)
        if number == LAST:
            return False
        left = size - _HEAD.size
        if datagram[_HEAD.size :] != (datagram[:8] * (left // 8 + 1))[:left]:
            self.altered += 1
        if number in self._seen:
            self.doubles += 1
            return True
        self._seen.add(number)
        self.overtaken += number < self._highest
        self._highest = max(self._highest, number)
        if self._last_at:
            self.longest_gap = max(self.longest_gap, now - self._last_at)
        self._last_at = now
        self.delays.append(now - sent)
        return True

    def summary(self) -> dict[str, Any]:
        """Counts, and times in seconds."""
        delays = sorted(self.delays) or [0.0]
        return {
            "came": len(self.delays),
            "altered": self.altered,
            "doubles": self.doubles,
            "overtaken": self.overtaken,
            "gap": self.longest_gap,
            "median": statistics.median(delays),
            "late": delays[len(delays) * 99 // 100],
            "latest": delays[-1],
        }


def main() -> None:
    """Receive, until the last."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((sys.argv[1], int(sys.argv[2])))
        print("ready", flush=True)
        arrivals = Arrivals()
        while arrivals.came(sock.recv(65536)):
            pass
    print(json.dumps(arrivals.summary()), flush=True)


if __name__ == "__main__":
    main()
