"""
The near end of a measurement: C{python -m bench.loads JSON}.

Prints C{"ready"} when it could begin, waits for a line, does its work and prints its result;
all of it as JSON.  If there is none, C{error} says why.  What it holds, it holds until its
input ends.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bench import datagrams, flows
from bench.crowd import Crowd, raise_descriptors
from bench.flows import Address

Result = dict[str, Any]


def _wait_for_go() -> None:
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()


def probe(target: Address, proxy: Address | None, mptcp: bool, patience: float) -> Result:
    """Try until a byte has come back from the target, at most so long."""
    end = time.monotonic() + patience
    while True:
        try:
            with flows.dial(target, proxy, mptcp) as sock:
                sock.settimeout(patience)
                sock.sendall(b"echo\nx")
                flows.read_exactly(sock, 1)
                return {}
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def bulk(
    target: Address,
    proxy: Address | None,
    mptcp: bool,
    direction: str,
    seconds: float,
    streams: int = 1,
) -> Result:
    """As much as goes; counted here on the way down, by the target on the way up."""
    socks = [flows.dial(target, proxy, mptcp) for _ in range(streams)]
    _wait_for_go()
    start = time.monotonic()
    end = start + seconds
    for sock in socks:
        sock.sendall(f"{direction} {start!r} {end!r}\n".encode())
    with ThreadPoolExecutor(streams) as threads:
        if direction == "up":
            list(threads.map(partial(flows.send_until, end=end), socks))
            return {"start": start}
        counts = list(threads.map(partial(flows.receive_until, start=start, end=end), socks))
    for sock in socks:
        flows.abort(sock)
    return {"start": start, "counts": flows.sums(counts)}


def short(
    target: Address, proxy: Address | None, mptcp: bool, sizes: list[int], idle: float
) -> Result:
    """
    Transfers of these sizes, each over a new connection and after an idle time.

    The time from the first byte after the CONNECT to the target's answer, and the time of
    both together.
    """
    _wait_for_go()
    times = []
    for size in sizes:
        data = f"take {size}\n".encode() + bytes(size)
        time.sleep(idle)
        begun = time.monotonic()
        with flows.dial(target, proxy, mptcp) as sock:
            connected = time.monotonic()
            sock.settimeout(120)
            sock.sendall(data)
            flows.read_exactly(sock, 1)
            answered = time.monotonic()
        times.append({"size": size, "answer": answered - connected, "whole": answered - begun})
    return {"times": times}


def rate(target: Address, proxy: Address | None, at_once: int, seconds: float) -> Result:
    """New connections, one byte there and back on each."""
    raise_descriptors()
    crowd = Crowd(target, proxy)
    _wait_for_go()
    took = crowd.run(at_once, seconds=seconds)
    return {"done": crowd.done, "failed": crowd.failed, "why": crowd.why, "seconds": took}


def hold(target: Address, proxy: Address | None, at_once: int, count: int) -> Result:
    """So many connections, kept open."""
    raise_descriptors()
    crowd = Crowd(target, proxy, keep=True)
    _wait_for_go()
    took = crowd.run(at_once, count=count)
    _held.append(crowd)
    return {"done": crowd.done, "failed": crowd.failed, "why": crowd.why, "seconds": took}


def udp(
    target: Address, proxy: Address | None, to: Address, rate: float, size: int, seconds: float
) -> Result:
    """Numbered datagrams, counted by who gets them."""
    _wait_for_go()
    return {"sent": datagrams.send(to, rate, size, seconds)}


_held: list[Crowd] = []
LOADS = {
    "probe": probe,
    "bulk": bulk,
    "short": short,
    "rate": rate,
    "hold": hold,
    "datagrams": udp,
}


def main() -> None:
    """Do what the command line says."""
    words = json.loads(sys.argv[1])
    for name in ("target", "proxy", "to"):
        if words.get(name):
            words[name] = tuple(words[name])
    try:
        result = LOADS[words.pop("load")](**words)
    except OSError as error:
        result = {"error": str(error)}
    print(json.dumps(result), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
