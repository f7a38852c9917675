"""What holds for a stream holds where it goes on from the server to an agent."""

import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from support import socks
from support.agents import ABLE, attic, wait_agents
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive, reset, send
from support.relay import Relay
from support.targets import AnswerAfterEnd, Banner, Refusing, Reset, Target
from support.timing import in_time, measures_times
from support.transfers import transfer
from support.waiting import wait_until
from support.workshop import Agent, Client, Pair, Server, Workshop

MIB = 1 << 20


class Legs(NamedTuple):
    """A client, a server that reaches nothing here, and an agent that does."""

    client: Client
    server: Server
    agent: Agent


@pytest.fixture(scope="module")
def legs(shared_workshop: Workshop) -> Legs:
    """One for all tests of this module that leave nothing behind."""
    server = shared_workshop.server()
    agent = attic(shared_workshop, server.agent_link)
    client = shared_workshop.client(server, "--exit", "attic")
    client.wait_subflows(6)
    wait_agents(server, ABLE)
    return Legs(client, server, agent)


def dial(legs: Legs, target: Target) -> socket.socket:
    """A connection to a target, by way of all of them."""
    return socks.connect(legs.client.proxy, target.port)


class TestEnds:
    @pytest.fixture(autouse=True)
    def nothing_left(self, legs: Legs) -> Iterator[None]:
        """No stream outlives its test, on any of them."""
        yield
        for process in legs:
            process.wait_streams(0)

    def test_the_target_speaks_first(self, legs: Legs) -> None:
        """A greeting comes, and an answer."""
        with Banner(b"220 ready\r\n") as target, dial(legs, target) as sock:
            assert socks.read_exactly(sock, 11) == b"220 ready\r\n"
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"

    def test_half_close(self, legs: Legs) -> None:
        """A request, its end, and a long answer that comes whole."""
        with AnswerAfterEnd(7, 10 * MIB) as target:
            with dial(legs, target) as sock:
                sock.sendall(b"question")
                sock.shutdown(socket.SHUT_WR)
                flow = receive(sock, 7)
            assert (flow.size, flow.end) == (10 * MIB, "whole")
            assert target.requests == [b"question"]

    def test_a_target_that_resets(self, legs: Legs) -> None:
        """What came before arrives; then a reset."""
        with Reset(3, MIB) as target, dial(legs, target) as sock:
            flow = receive(sock, 3, MIB)
            sock.sendall(b"x")
            assert (flow.size, how_it_ends(sock)) == (MIB, "reset")

    def test_a_program_that_resets(self, legs: Legs) -> None:
        """So sees it the target."""
        with Exchange() as target:
            sock = dial(legs, target)
            ask_exchange(sock, up=1)
            assert send(sock, 1, MIB) == MIB
            target.wait_asked(1)
            reset(sock)
            assert target.wait_end(1, 10) == "reset"

    def test_refusals(self, legs: Legs) -> None:
        """The agent's codes and reasons arrive at the program and in the client's log."""
        with Refusing() as nobody:
            for host, port, code, why in (
                ("127.0.0.1", nobody.port, socks.REFUSED, "refused"),
                ("10.1.2.3", 80, socks.NOT_ALLOWED, "a private address"),
                ("nowhere.invalid", 80, socks.HOST_UNREACHABLE, "nowhere.invalid"),
            ):
                since = len(legs.client.lines)
                said, sock = socks.ask(legs.client.proxy, host, port)
                sock.close()
                assert said == code, (host, said)
                legs.client.wait_line(f"refused: .*{why}", since=since)


@measures_times
def test_cut_on_both_legs(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Connections die now here, now there, while payload moves: not a byte is wrong."""
    server = workshop.server()
    behind, desk = relay(server.port), relay(server.port)
    link = server.agent_link.replace(f":{server.port}/", f":{behind.port}/")
    agent = attic(workshop, link)
    client = workshop.client(server, "--exit", "attic", through=desk.port)
    client.wait_subflows(6)
    agent.wait_subflows(2)
    with transfer(Pair(server, client), 4) as state:
        for _ in range(6):
            for middle, count in ((behind, 2), (desk, 6)):
                wait_until(lambda m=middle, c=count: len(m.alive) == c, 5, "them all", every=0.01)
                middle.cut()
        wait_until(lambda: len(behind.alive) == 2, 5, "them all", every=0.01)
        behind.cut_all()
    assert (behind.cuts, desk.cuts) == (8, 6)
    in_time(state.down.longest_gap < 2, state.down)
    agent.wait_streams(0)
