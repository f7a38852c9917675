"""A worker that is frozen: alive to the kernel, and silent."""

import signal
import time
from pathlib import Path

from support import socks
from support.agents import wait_agents
from support.crowd import crowd
from support.ports import free_port
from support.targets import Echo
from support.waiting import wait_until
from support.workshop import Agent, Server, Workshop

SILENT, LOOK = 10, 1


def say_hello(proxy: int, port: int) -> float:
    """Seconds until a word has come back from an echo."""
    began = time.monotonic()
    with socks.connect(proxy, port) as sock:
        sock.sendall(b"hello")
        assert socks.read_exactly(sock, 5) == b"hello"
    return time.monotonic() - began


def opened(server: Server, name: str) -> int:
    """How many streams that worker has been given."""
    rows = {one["name"]: one["streams"]["opened"] for one in server.snapshot()["agents"]}
    count: int = rows[name]
    return count


def freeze(agent: Agent) -> None:
    """Stop it, without a word to anybody."""
    agent.signal(signal.SIGSTOP)
    stat = Path(f"/proc/{agent.pid}/stat")
    wait_until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", 5, "it to stop")


def test_a_frozen_worker(workshop: Workshop, echo: Echo) -> None:
    """
    It is counted out after ten seconds, when those who waited for it are served elsewhere.

    From then on nobody waits, and once it goes on it gets streams again.
    """
    proxy = free_port()
    server = workshop.server("--socks", str(proxy))
    words = ("--allow", "localhost", "--subflows", "2")
    ant, _ = (workshop.agent(server.agent_link, "--name", name, *words) for name in ("ant", "bee"))
    wait_agents(server, ("ant", "able"), ("bee", "able"))
    freeze(ant)
    waits: list[float] = []
    crowd(lambda _: waits.append(say_hello(proxy, echo.port)), range(10), 30)
    slow = [wait for wait in waits if wait > 1]
    # Half of them at most: where the other has answered some already, it is asked more.
    assert 0 < len(slow) <= 5 and SILENT <= min(slow) <= max(slow) < SILENT + 2 * LOOK
    server.wait_line("agent ant does not answer and gets no streams until it does")
    later = [say_hello(proxy, echo.port) for _ in range(10)]
    assert max(later) < 1
    ant.signal(signal.SIGCONT)
    server.wait_line("agent ant answers again")
    had = opened(server, "ant")
    wait_until(lambda: say_hello(proxy, echo.port) and opened(server, "ant") > had, 5, "a stream")
    for process in (ant, server):
        process.wait_streams(0)


def test_a_frozen_worker_with_bytes_under_way(workshop: Workshop, echo: Echo) -> None:
    """
    It is counted out for them, so that the next to ask need not wait; then they arrive.

    One whose stream is idle is no less able for that.
    """
    proxy = free_port()
    server = workshop.server("--socks", str(proxy))
    words = ("--allow", "localhost", "--subflows", "2")
    ant = workshop.agent(server.agent_link, "--name", "ant", *words)
    wait_agents(server, ("ant", "able"))
    with socks.connect(proxy, echo.port) as sock:
        bee = workshop.agent(server.agent_link, "--name", "bee", *words)
        wait_agents(server, ("ant", "able"), ("bee", "able"))
        with socks.connect(proxy, echo.port):
            time.sleep(SILENT + LOOK)
            assert {one["state"] for one in server.snapshot()["agents"]} == {"able"}
        freeze(ant)
        sock.sendall(b"hello")
        time.sleep(SILENT + LOOK)
        wait_agents(server, ("ant", "counted out"), ("bee", "able"))
        assert max(say_hello(proxy, echo.port) for _ in range(10)) < 1
        server.wait_line("agent ant does not answer and gets no streams until it does")
        ant.signal(signal.SIGCONT)
        assert socks.read_exactly(sock, 5) == b"hello"
        wait_agents(server, ("ant", "able"), ("bee", "able"))
    assert say_hello(proxy, echo.port) < 1
    server.wait_line("agent ant answers again")
    for process in (ant, bee, server):
        process.wait_streams(0)
