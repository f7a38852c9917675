"""
A line that holds each connection to a rate, as a process: C{-m support.narrow PORT RATE DELAY}.

Leads to that port of this machine, and prints the port where it begins.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet import reactor

from stripetwist.net.clock import MonotonicClock
from stripetwist.net.narrow import Line, NarrowRelay
from support.ports import LOOPBACK


@contextmanager
def narrow(port: int, rate: float, delay: float) -> Iterator[int]:
    """
    Such a line, for a while; where it begins.

    @param rate: bytes a second, each way.
    @param delay: seconds, each way.
    """
    command = [sys.executable, "-m", __name__, str(port), str(rate), str(delay)]
    folder = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def main() -> None:
    """Relay until killed."""
    port, rate, delay = (float(word) for word in sys.argv[1:])
    relay = NarrowRelay(reactor, MonotonicClock(reactor), Line(rate, delay), LOOPBACK, int(port))
    listening = reactor.listenTCP(0, relay, interface=LOOPBACK)
    print(listening.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
