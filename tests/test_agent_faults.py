"""Servers that die under their agents, and agents that get in each other's way."""

import shutil
import statistics
import time

from support import socks
from support.agents import ABLE, attic, key_for, wait_agents
from support.ports import free_port
from support.targets import Echo
from support.workshop import Server, Workshop

RESTARTS = 10
NAMES = ("ant", "bee", "ox")


def until_all_serve(server: Server, proxy: int, port: int) -> float:
    """Seconds until every agent has carried a stream."""
    began = time.monotonic()
    wait_agents(server, *((name, "able") for name in NAMES))
    for _ in NAMES:
        with socks.connect(proxy, port) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
    took = time.monotonic() - began
    opened = [one["streams"]["opened"] for one in server.snapshot()["agents"]]
    assert opened == [1, 1, 1]
    return took


def test_a_server_that_dies_again_and_again(workshop: Workshop, echo: Echo) -> None:
    """Agents that were there first serve soon after it listens, and after each of its deaths."""
    proxy = free_port()
    server = workshop.server("--socks", str(proxy))
    server.kill()
    link, words = server.agent_link, ("--allow", "localhost", "--subflows", "2")
    agents = [workshop.agent(link, "--name", name, *words) for name in NAMES]
    for agent in agents:
        agent.wait_line("refuses connections: start the server there")
    times = []
    for _ in range(RESTARTS):
        server = workshop.restart(server)
        times.append(until_all_serve(server, proxy, echo.port))
        for agent in agents:
            agent.wait_streams(0)
        server.kill()
    assert statistics.median(times) < 3 and max(times) < 5, times
    assert all(agent.running for agent in agents)


def test_a_name_that_is_taken(workshop: Workshop) -> None:
    """
    Whose key allows only that name waits for it, and disturbs nobody.

    It has the name once the first is gone.
    """
    server = workshop.server()
    first = attic(workshop, server.agent_link)
    wait_agents(server, ABLE)
    second = attic(workshop, key_for(workshop, server, "attic"))
    server.wait_line("waits until this one goes; its key attic allows no other name")
    assert server.agents() == [ABLE, ("attic", "waiting")]
    first.terminate()
    wait_agents(server, ABLE)
    (row,) = server.snapshot()["agents"]
    assert row["key"] == "attic" and second.running


def test_a_copied_machine(workshop: Workshop, echo: Echo) -> None:
    """Two agents that have one state, copied: both get streams, and the log says what to do."""
    proxy = free_port()
    server = workshop.server("--socks", str(proxy))
    first = attic(workshop, server.agent_link)
    wait_agents(server, ABLE)
    copy = workshop.folder / "copy"
    shutil.copytree(first.state, copy)
    second = attic(workshop, server.agent_link, state=copy)
    server.wait_line("attic: another agent has a copy of its state folder; say --state there")
    wait_agents(server, ABLE, ("attic-2", "able"))
    second.kill()
    wait_agents(server, ("attic", "away"), ("attic-2", "able"))
    with socks.connect(proxy, echo.port) as sock:
        sock.sendall(b"hello")
        assert socks.read_exactly(sock, 5) == b"hello"
    again = attic(workshop, server.agent_link, state=copy)
    wait_agents(server, ABLE, ("attic-2", "able"))
    assert first.running and again.running
