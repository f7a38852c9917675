"""
Send datagrams through a proxy port, so many a second, until the input ends.

A process: C{python flood.py PROXY TARGET RATE}; at the end it prints how many it sent.
"""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.associate import Associate, wrap
from support.ports import LOOPBACK


def main(proxy: str, target: str, rate: str) -> None:
    """Do it."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with Associate(int(proxy)) as program:
        data = wrap(bytes(50), LOOPBACK, int(target))
        began, sent = time.monotonic(), 0
        while not over.is_set():
            due = int((time.monotonic() - began) * int(rate))
            for _ in range(due - sent):
                program.socket.sendto(data, program.relay)
            sent = max(sent, due)
            time.sleep(0.001)
    print(sent)


if __name__ == "__main__":
    main(*sys.argv[1:])
