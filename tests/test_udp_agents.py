"""Datagrams that leave at an agent."""

import signal
import time

from support.agents import ABLE, attic, wait_agents
from support.associate import Associate
from support.datagrams import answered, udp_echo, udp_socket
from support.ports import LOOPBACK, free_port
from support.waiting import wait_until
from support.workshop import Workshop

SOON = 10.0


def test_through_an_agent(workshop: Workshop) -> None:
    """A forward and a proxy port; what may be reached is for the agent to say, not the server."""
    with udp_echo() as target, udp_echo() as denied, udp_socket() as ann:
        at, bad = free_port(), free_port()
        server = workshop.server()
        attic(workshop, server.agent_link, "--allow", f"localhost:{target}/udp", "--deny", "x.test")
        wait_agents(server, ABLE)
        words = (f"--udp={at}={LOOPBACK}:{target}", f"--udp={bad}=x.test:{denied}")
        client = workshop.client(server, *words, "--exit=attic", subflows=2)
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        assert not answered(ann, bad, b"no")
        client.wait_line(rf"not yet: x.test:{denied} is refused: ")
        with Associate(client.proxy) as program:
            wait_until(lambda: program.answered(target, b"bob"), SOON, "an answer")
        wait_until(lambda: server.agents() == [ABLE], SOON, "the agent")
        counters = server.snapshot()["counters"]
        assert counters["udp_opened"] == 0


def test_an_agent_dies(workshop: Workshop) -> None:
    """The forward leaves at another of the pool; a program at the proxy port is told."""
    with udp_echo() as target, udp_socket() as ann:
        at = free_port()
        server = workshop.server()
        words = ("--allow", "localhost", "--subflows", "2")
        agents = {
            name: workshop.agent(server.agent_link, "--name", name, *words)
            for name in ("attic", "barn")
        }
        wait_agents(server, ("attic", "able"), ("barn", "able"))
        client = workshop.client(
            server, f"--udp={at}={LOOPBACK}:{target}", "--exit=any", subflows=2
        )
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        (used,) = [name for name, one in agents.items() if one.snapshot()["counters"]["udp_active"]]
        other = "barn" if used == "attic" else "attic"
        with Associate(client.proxy) as program:
            wait_until(lambda: program.answered(target, b"bob"), SOON, "an answer")
            assert agents[other].snapshot()["counters"]["udp_active"] == 1
            agents[other].kill()
            began = time.monotonic()
            assert program.ended(SOON)
            print(f"{time.monotonic() - began:.2f} s until the program is told")
        agents[used].kill()
        again = workshop.agent(server.agent_link, "--name", "cellar", *words)
        began = time.monotonic()
        wait_until(lambda: answered(ann, at, b"ann"), 20, "an answer by another agent")
        print(f"{time.monotonic() - began:.2f} s until another agent answers")
        assert again.snapshot()["counters"]["udp_active"] == 1


def test_an_agent_comes_back(workshop: Workshop) -> None:
    """Killed and started again, it has the forward's datagrams again within seconds."""
    with udp_echo() as target, udp_socket() as ann:
        at = free_port()
        server = workshop.server()
        agent = attic(workshop, server.agent_link)
        wait_agents(server, ABLE)
        words = (f"--udp={at}={LOOPBACK}:{target}", "--exit=attic")
        workshop.client(server, *words, subflows=2)
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        agent.kill()
        attic(workshop, server.agent_link, state=agent.state)
        began = time.monotonic()
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        print(f"{time.monotonic() - began:.2f} s until the agent answers again")


def test_an_agent_is_drained(workshop: Workshop) -> None:
    """Datagrams keep it no longer than streams would, and leave at the other one."""
    with udp_echo() as target, udp_socket() as ann:
        at = free_port()
        server = workshop.server()
        words = ("--allow", "localhost", "--subflows", "2")
        first = workshop.agent(server.agent_link, "--name", "attic", *words)
        wait_agents(server, ABLE)
        client = workshop.client(
            server, f"--udp={at}={LOOPBACK}:{target}", "--exit=any", subflows=2
        )
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        second = workshop.agent(server.agent_link, "--name", "barn", *words)
        wait_agents(server, ABLE, ("barn", "able"))
        began = time.monotonic()
        assert first.terminate() == -signal.SIGTERM
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        print(f"{time.monotonic() - began:.2f} s until the other answers")
        assert second.snapshot()["counters"]["udp_active"] == 1
        assert client.running
