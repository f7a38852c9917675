"""Numbered datagrams over three paths of different kind, of which one dies and one stalls."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bench.datagrams import Arrivals, send
from support import proxies
from support.ports import LOOPBACK, free_port
from support.relay import Relay
from support.timing import in_time, measures_times
from support.workshop import Client, Workshop

pytestmark = [pytest.mark.demanding, measures_times]

SECONDS = 6.0
# Of a datagram; 50 of them in a second, and 10 Mbit/s.
SIZE = 1400
RATES = {"50 a second": 50.0, "10 Mbit/s": 10e6 / 8 / SIZE}
BUFFER = 4 << 20


class Sink:
    """
    A UDP port that counts what comes.

    @ivar port: where.
    @ivar arrivals: what has come.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self.arrivals = Arrivals()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.arrivals.came(self._socket.recv(65536)):
            pass

    def wait_last(self) -> None:
        """Until the last one has come."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "the last datagram has not come"


@dataclass
class Ways:
    """
    Three paths: straight, over a SOCKS proxy and over an HTTP proxy.

    @ivar relays: the fault relays before the proxies, by the path that leads through each.
    """

    relays: dict[str, Relay] = field(default_factory=dict)

    def kill(self, path: str) -> None:
        """Every connection of a path is reset, and new ones are refused."""
        self.relays[path].refuse()
        assert self.relays[path].cut_all()

    def stall(self, path: str) -> None:
        """Nothing more comes through a path; its connections stay up."""
        relay = self.relays[path]
        relay.refuse()
        assert relay.alive
        for link in relay.alive:
            relay.stall(link)


@contextmanager
def three_ways(folder: Path) -> Iterator[Ways]:
    """The proxies and the relays before them."""
    with ExitStack() as stack:
        ways = Ways()
        for start in (proxies.microsocks, proxies.tinyproxy):
            proxy = stack.enter_context(start(folder))
            relay = stack.enter_context(Relay(proxy.port))
            ways.relays[f"{proxy.scheme}://{LOOPBACK}:{relay.port},subflows=2"] = relay
        yield ways


def carried(client: Client) -> Counter[str]:
    """Bytes of datagrams that have left on each path, copies included."""
    sums = Counter[str]()
    for flow in client.subflows():
        sums[flow["path"]] += flow["tx"]["first"] + flow["tx"]["copy"]
    return sums


def busiest(client: Client, among: list[str]) -> str:
    """Which of these paths carries the most just now."""
    before = carried(client)
    time.sleep(0.3)
    growth = carried(client) - before
    path = max(among, key=lambda one: growth[one])
    assert growth[path] > 0, f"nothing goes over {among}: {growth}"
    return path


def strike(client: Client, ways: Ways) -> None:
    """Kill the one of the proxies that carries the datagrams, then stall the other, which does."""
    time.sleep(1)
    first = busiest(client, list(ways.relays))
    ways.kill(first)
    time.sleep(1)
    (other,) = [path for path in ways.relays if path != first]
    assert busiest(client, [other]) == other
    ways.stall(other)


def told(name: str, arrivals: Arrivals, count: int) -> Arrivals:
    """Print what became of them."""
    seen = arrivals.summary()
    ms = {key: round(1e3 * seen[key], 1) for key in ("median", "late", "latest", "gap")}
    lost = count - seen["came"]
    print(f"{name}: {lost} of {count} lost, {seen['overtaken']} overtaken, ms: {ms}")
    assert (seen["altered"], seen["doubles"]) == (0, 0)
    return arrivals


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("copies", [1, 2])
def test_one_dies_and_one_stalls(
    workshop: Workshop, tmp_path: Path, rate: str, copies: int
) -> None:
    """The flow is elsewhere within 400 ms; with two copies nothing is lost."""
    sink, at = Sink(), free_port()
    server = workshop.server("--allow", f"localhost:{sink.port}/udp")
    # The straight one is the quickest: without copies it has to wait for the others to fail.
    straight = f"direct,bind=127.0.0.2,subflows=2{',role=backup' if copies == 1 else ''}"
    with three_ways(tmp_path) as ways:
        paths = [word for path in (straight, *ways.relays) for word in ("--path", path)]
        udp = ["--udp", f"{at}={LOOPBACK}:{sink.port}", "--udp-copies", str(copies)]
        client = workshop.client(server, *paths, *udp)
        # One connection is all that a backup path has while it is not needed.
        client.wait_subflows(5 if copies == 1 else 6)
        counts: list[int] = []
        sender = threading.Thread(
            target=lambda: counts.append(send((LOOPBACK, at), RATES[rate], SIZE, SECONDS))
        )
        sender.start()
        strike(client, ways)
        sender.join()
        sink.wait_last()
    arrivals = told(f"{rate}, copies {copies}", sink.arrivals, counts[0])
    in_time(arrivals.longest_gap < 0.4, arrivals.longest_gap)
    lost = counts[0] - len(arrivals.delays)
    if copies == 2:
        in_time(lost == 0, lost)
    else:
        # What was under way when it died, and what came until it was seen to be stalled.
        in_time(lost < 0.5 * RATES[rate], lost)
