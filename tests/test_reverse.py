"""What agents are for: a network behind NAT, a pool of workers, one that serves many."""

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import socks
from support.agents import ABLE, attic, wait_agents
from support.crowd import crowd
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.ports import LOOPBACK, free_port
from support.programs import program, succeed
from support.ssh import ssh, sshd
from support.targets import Echo
from support.timing import in_time, measures_times
from support.web import Web
from support.workshop import Agent, Client, Server, Workshop

CONTENT = random.Random(5).randbytes(6_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MIB = 1 << 20


class House(NamedTuple):
    """An agent behind, a server that reaches nothing here, and a client at the desk."""

    server: Server
    agent: Agent
    client: Client
    proxy: int


@pytest.fixture
def house(workshop: Workshop) -> House:
    """What is reached on this machine is reached by the agent: only it may."""
    proxy = free_port()
    server = workshop.server("--socks", str(proxy), "--exit", "any")
    agent = attic(workshop, server.agent_link)
    client = workshop.client(server, "--exit", "attic")
    client.wait_subflows(6)
    wait_agents(server, ABLE)
    return House(server, agent, client, proxy)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A page on the agent's own machine."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    with Web(folder) as page:
        yield page


def reached(agent: Agent) -> int:
    """How many targets it has reached."""
    counters: dict[str, int] = agent.snapshot()["counters"]
    return counters["reached"]


def curl(port: int, url: str, folder: Path, *flags: str) -> bytes:
    """What is read there through a proxy port."""
    proxy = f"socks5h://{LOOPBACK}:{port}"
    return succeed([program("curl"), "-sS", "--fail", *flags, "-x", proxy, url], folder)


class TestBehind:
    def test_a_page_from_the_desk(self, house: House, web: Web, tmp_path: Path) -> None:
        """By the agent's name, through a client and through the server's own port."""
        url = f"http://attic.exit:{web.port}/file"
        for port in (house.client.proxy, house.proxy):
            page = curl(port, url, tmp_path)
            assert hashlib.sha256(page).hexdigest() == SHA256
        assert reached(house.agent) == 2

    def test_both_legs_are_striped(self, house: House, web: Web, tmp_path: Path) -> None:
        """The page comes over several connections from the agent, and several to the client."""
        curl(house.client.proxy, f"http://attic.exit:{web.port}/file", tmp_path)
        for process, way in ((house.agent, "tx"), (house.client, "rx")):
            carried = [one[way]["first"] for one in process.subflows()]
            assert sum(carried) >= len(CONTENT)
            assert sum(size > 0 for size in carried) >= 2, carried

    def test_only_what_the_agent_allows(self, house: House) -> None:
        """The client's log has the reason, and nobody is asked instead."""
        code, sock = socks.ask(house.client.proxy, "192.168.7.7", 80)
        sock.close()
        assert code == socks.NOT_ALLOWED
        house.client.wait_line(r"refused: 192\.168\.7\.7:80: a private address")
        assert reached(house.agent) == 0

    def test_ssh_through_a_published_port(self, workshop: Workshop, tmp_path: Path) -> None:
        """A login to the agent's machine, which needs no client; megabytes go in and out."""
        with sshd(tmp_path) as daemon:
            published = free_port()
            forward = ("--forward", f"{published}=localhost:{daemon}", "--exit", "attic")
            server = workshop.server(*forward)
            agent = attic(workshop, server.agent_link)
            wait_agents(server, ABLE)
            login = ssh(tmp_path, published)
            assert succeed([*login, "cat"], tmp_path, CONTENT) == CONTENT
            said = succeed([*login, "sha256sum"], tmp_path, CONTENT)
            assert said.split()[0].decode() == SHA256
            assert reached(agent) == 2


def say_hello(proxy: int, port: int) -> None:
    """A word to an echo and back."""
    with socks.connect(proxy, port) as sock:
        sock.sendall(b"hello")
        assert socks.read_exactly(sock, 5) == b"hello"


@measures_times
def test_elastic_pool(workshop: Workshop, echo: Echo) -> None:
    """Workers serve while there are some; from the moment there is none, the server does."""
    proxy = free_port()
    words = ("--socks", str(proxy), "--allow", "localhost", "--fallback", "direct")
    server = workshop.server(*words)
    names = ("ant", "bee")
    flags = ("--allow", "localhost", "--subflows", "2")
    workers = [workshop.agent(server.agent_link, "--name", name, *flags) for name in names]
    wait_agents(server, *((name, "able") for name in names))
    for _ in range(4):
        say_hello(proxy, echo.port)
    assert [reached(worker) for worker in workers] == [2, 2]
    workers[0].terminate()
    say_hello(proxy, echo.port)
    assert reached(workers[1]) == 3
    workers[1].kill()
    began = time.monotonic()
    say_hello(proxy, echo.port)
    took = time.monotonic() - began
    in_time(took < 2, took)
    wait_agents(server, ("bee", "away"))
    for _ in range(4):
        say_hello(proxy, echo.port)
    back = workshop.agent(server.agent_link, "--name", "bee", *flags, state=workers[1].state)
    wait_agents(server, ("bee", "able"))
    say_hello(proxy, echo.port)
    assert reached(back) == 1
    assert echo.accepted == 11


def test_one_connection_serves_many(workshop: Workshop) -> None:
    """An agent with a single one, and sixty users of the server's port at the same time."""
    login, proxy = ("joe", "sesame 5"), free_port()
    users = workshop.users(*login)
    server = workshop.server("--socks", f"{LOOPBACK}:{proxy}", "--users", str(users))
    words = ("--name", "attic", "--allow", "localhost", "--subflows", "1")
    agent = workshop.agent(server.agent_link, *words)
    wait_agents(server, ABLE)

    def one(number: int) -> None:
        with socks.connect(proxy, target.port, login=login) as sock:
            ask_exchange(sock, down=number, size=MIB)
            assert receive(sock, number).size == MIB

    with Exchange() as target:
        crowd(one, range(1, 61), 60)
        assert len(agent.subflows()) == 1
    assert reached(agent) == 60
    for process in (agent, server):
        process.wait_streams(0)
