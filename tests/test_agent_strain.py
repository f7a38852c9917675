"""Agents under strain: a reader that stops, and thousands of streams one after another."""

import pytest
from support import socks
from support.agents import ABLE, wait_agents
from support.crowd import crowd
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.ports import free_port
from support.processes import Process
from support.remains import kept, left_over, most_kept
from support.targets import Echo
from support.waiting import wait_equal, wait_still
from support.workshop import Workshop

pytestmark = pytest.mark.demanding

KIB, MIB = 1 << 10, 1 << 20
MEMORY = 32 * MIB
OTHERS = 20
CYCLES, AT_ONCE = 10_000, 50


def bound(streams: int, subflows: int) -> int:
    """The memory that a process may have."""
    return 45 * MIB + MEMORY + 12 * KIB * streams + 300 * KIB * subflows


def test_one_that_stops_reading(workshop: Workshop) -> None:
    """Over a single connection of the agent: the others finish, in bounded memory."""
    proxy, limit = free_port(), ("--max-memory", "32M")
    server = workshop.server("--socks", str(proxy), *limit)
    words = ("--name", "attic", "--allow", "localhost", "--subflows", "1", *limit)
    agent = workshop.agent(server.agent_link, *words)
    wait_agents(server, ABLE)
    with Exchange() as target:
        stuck = socks.connect(proxy, target.port, buffer=8 * KIB)
        ask_exchange(stuck, down=1)
        standing = wait_still(lambda: target.sent.get(1, 0), 1, 30, "the stuck stream")
        assert standing > 0

        def other(number: int) -> None:
            with socks.connect(proxy, target.port) as sock:
                ask_exchange(sock, down=number, size=10 * MIB)
                assert receive(sock, number).size == 10 * MIB

        crowd(other, range(2, 2 + OTHERS), 60)
        assert target.sent[1] == standing
        for process in (agent, server):
            assert process.peak_rss <= bound(OTHERS + 1, 1), process.snapshot()
        assert receive(stuck, 1, standing + MIB).size == standing + MIB
        stuck.close()
    for process in (agent, server):
        process.wait_streams(0)


def test_cycles_leave_nothing(workshop: Workshop, echo: Echo) -> None:
    """Neither at the client, nor at the server that relays, nor at the agent."""
    server = workshop.server(style="census")
    words = ("--name", "attic", "--allow", "localhost", "--subflows", "2")
    agent = workshop.agent(server.agent_link, *words, style="census")
    wait_agents(server, ABLE)
    client = workshop.client(server, "--exit", "attic", subflows=2, style="census")
    subflows: dict[Process, int] = {client: 2, server: 4, agent: 2}

    def cycles(count: int) -> None:
        def one(_: int) -> None:
            for _ in range(count // AT_ONCE):
                with socks.connect(client.proxy, echo.port) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"

        crowd(one, range(AT_ONCE), 120)

    cycles(200)
    before = {process: most_kept(process, count) for process, count in subflows.items()}
    cycles(CYCLES)
    assert echo.accepted == CYCLES + 200
    for process, had in before.items():

        def more(process: Process = process, had: dict[str, int] = had) -> dict[str, int]:
            return left_over(had, kept(process, subflows[process]))

        wait_equal(more, {}, 15, "what is left over")
