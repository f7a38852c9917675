"""Three workers under load: shares by weight, and one killed and one ended meanwhile."""

import signal
import socket
import threading
import time
from collections import Counter

import pytest
from support import socks
from support.agents import wait_agents
from support.crowd import crowd
from support.exchange import Exchange, ask_exchange
from support.flows import Flow, receive, send
from support.ports import free_port
from support.waiting import wait_equal, wait_until
from support.workshop import Agent, Server, Workshop

pytestmark = pytest.mark.demanding

KIB, MIB = 1 << 10, 1 << 20
WEIGHTS = {"ant": 1, "bee": 1, "ox": 8}
TRANSFERS = 300
SIZE, UP = 1 * MIB, 64 * KIB
# Bytes per second of each: so the transfers still run when the faults come.
RATE = 128 * KIB


def start_pool(workshop: Workshop, proxy: int) -> tuple[Server, dict[str, Agent]]:
    """A server with a port of its own, and a worker of each weight, all able."""
    server = workshop.server("--socks", str(proxy))
    fixed = ("--allow=localhost", "--subflows=4", "--session-timeout=2")
    workers = {
        name: workshop.agent(server.agent_link, f"--name={name}", f"--weight={weight}", *fixed)
        for name, weight in WEIGHTS.items()
    }
    wait_agents(server, *((name, "able") for name in WEIGHTS))
    return server, workers


def leaving(server: Server, name: str) -> int:
    """How many streams are open at one that drains; 0 where it does not."""
    rows = [one for one in server.snapshot()["agents"] if one["name"] == name]
    return sum(one["active"] for one in rows if one["state"] == "draining")


def open_at(server: Server) -> dict[str, int]:
    """How many streams are open at each."""
    return {one["name"]: one["active"] for one in server.snapshot()["agents"]}


class Load:
    """
    Transfers in both directions, each verified and remembered by how it ended.

    @ivar flows: by number, the download.
    @ivar all_open: passed by each once it is open, and by the test.
    """

    def __init__(self, proxy: int, target: Exchange) -> None:
        self._proxy, self._target = proxy, target
        self.flows: dict[int, Flow] = {}
        self.all_open = threading.Barrier(TRANSFERS + 1)
        self._threads = [
            threading.Thread(target=self._one, args=(number,), daemon=True)
            for number in range(1, TRANSFERS + 1)
        ]

    def start(self) -> None:
        """Open them, and wait until all are."""
        for thread in self._threads:
            thread.start()
        self.all_open.wait(60)

    def wait(self) -> None:
        """Until all have ended, in whatever way."""
        for thread in self._threads:
            thread.join(60)
        assert len(self.flows) == TRANSFERS, "a transfer hangs, or had a wrong byte"

    def _one(self, number: int) -> None:
        sock = socks.connect(self._proxy, self._target.port)
        with sock:
            ask_exchange(sock, up=number, down=TRANSFERS + number, size=SIZE, rate=RATE)
            self.all_open.wait(60)
            if send(sock, number, UP) == UP:
                sock.shutdown(socket.SHUT_WR)
            self.flows[number] = receive(sock, TRANSFERS + number)


def test_shares_and_faults(workshop: Workshop) -> None:
    """
    Streams are spread as the weights say; who is killed takes only its own along.

    Who is ended finishes what it has, and every stream that is asked for meanwhile is opened.
    """
    proxy = free_port()
    server, workers = start_pool(workshop, proxy)
    with Exchange() as target:
        load = Load(proxy, target)
        load.start()
        spread = open_at(server)
        share = TRANSFERS / sum(WEIGHTS.values())
        for name, weight in WEIGHTS.items():
            assert abs(spread[name] - weight * share) <= 0.15 * weight * share, spread
        workers["bee"].signal(signal.SIGTERM)
        wait_until(lambda: leaving(server, "bee"), 10, "one that is ended under load")
        workers["ant"].kill()
        began = time.monotonic()
        crowd(lambda _: socks.connect(proxy, target.port).close(), range(40), 30)
        took = time.monotonic() - began
        load.wait()
        assert workers["bee"].wait(30) == -signal.SIGTERM
        ends = Counter(flow.end for flow in load.flows.values())
        assert ends == {"reset": spread["ant"], "whole": TRANSFERS - spread["ant"]}
        for number, flow in load.flows.items():
            assert target.wait_end(number) == flow.end
            if flow.end == "whole":
                assert (flow.size, target.received[number]) == (SIZE, UP)
    assert took < 10
    wait_agents(server, ("ox", "able"))
    for process in (server, workers["ox"]):
        wait_equal(process.streams, 0, 10, "the streams")
