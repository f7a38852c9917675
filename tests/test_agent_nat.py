"""An agent behind NAT, whose address changes or whose way through is forgotten."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from bench.places import Place
from support import socks
from support.agents import ABLE, wait_agents
from support.exchange import Exchange, ask_exchange
from support.flows import Flow, receive
from support.places import need_namespaces, within
from support.ports import free_port
from support.programs import program
from support.timing import in_time, measures_times
from support.waiting import wait_until
from support.workshop import Agent, Server, Workshop

SERVER = "203.0.113.2"
SOON, AT_LAST = 5, 25
TALK = 20_000
ESTABLISHED = "01"

_MASQUERADE = """\
nft add table ip nat
nft 'add chain ip nat after { type nat hook postrouting priority 100; }'
nft add rule ip nat after oifname street masquerade
nft add table ip fault
nft 'add chain ip fault through { type filter hook forward priority 0; }'
echo 1 >/proc/sys/net/ipv4/ip_forward
"""


class Town(NamedTuple):
    """A house, its router, and the world that sees only the router."""

    house: Place
    router: Place
    world: Place


@pytest.fixture
def town() -> Iterator[Town]:
    """The house is 192.168.7.0/24 and 192.168.8.0/24, the router 203.0.113.1."""
    need_namespaces()
    program("nft", "nftables")
    with ExitStack() as stack:
        places = []
        for _ in Town._fields:
            places.append(Place("cubic"))
            stack.callback(places[-1].close)
        town = Town(*places)
        _lay(town.router, "indoors", town.house, "wall")
        _lay(town.router, "street", town.world, "street")
        town.router.shell(
            "ip address add 192.168.7.1/24 dev indoors\n"
            "ip address add 192.168.8.1/24 dev indoors\n"
            "ip address add 203.0.113.1/24 dev street\n" + _MASQUERADE
        )
        town.world.shell(f"ip address add {SERVER}/24 dev street")
        move_in(town.house, 7)
        yield town


def _lay(place: Place, name: str, other: Place, there: str) -> None:
    """A cable between two places."""
    place.shell(f"ip link add {name} type veth peer name {there} netns {other.pid}")
    place.shell(f"ip link set {name} up")
    other.shell(f"ip link set {there} up")


def move_in(house: Place, network: int) -> None:
    """Have an address of that network there, and no other."""
    house.shell(
        f"ip address flush dev wall\n"
        f"ip address add 192.168.{network}.2/24 dev wall\n"
        f"ip route replace default via 192.168.{network}.1"
    )


class Life(NamedTuple):
    """An agent in the house, its server in the world, and that one's proxy port."""

    server: Server
    agent: Agent
    proxy: int
    town: Town

    def dial(self, target: Exchange) -> socket.socket:
        """A connection through the agent."""
        with within(self.town.world):
            return socks.connect(self.proxy, target.port)

    def peers(self) -> set[str]:
        """Where the server's connections come from, as it sees it."""
        return _ends(self.server.pid, 1, self.server.port)

    def ports(self) -> set[int]:
        """The ports that the agent dials from."""
        ends = _ends(self.agent.pid, 2, self.server.port)
        return {int(end.rsplit(":", 1)[1], 16) for end in ends}


def _ends(pid: int, column: int, port: int) -> set[str]:
    """The other ends of established connections that have the port in that column."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {
        row[3 - column]
        for row in rows
        if row[3] == ESTABLISHED and row[column].endswith(f":{port:04X}")
    }


def live(workshop: Workshop, town: Town, *options: str) -> Life:
    """A server in the world, and an agent in the house that it knows."""
    proxy = free_port()
    words = ("--socks", str(proxy), "--exit", "attic", *options)
    server = workshop.server(*words, place=town.world, host=SERVER)
    words = ("--name", "attic", "--allow", "localhost", "--subflows", "2", *options)
    agent = workshop.agent(server.agent_link, *words, place=town.house)
    wait_agents(server, ABLE)
    agent.wait_subflows(2)
    return Life(server, agent, proxy, town)


@pytest.fixture
def target(town: Town) -> Iterator[Exchange]:
    """What the agent reaches: in the house, on the agent's own machine."""
    with within(town.house):
        made = Exchange()
    with made:
        yield made


def forget(life: Life) -> None:
    """The router knows the agent's connections no more, and tells nobody."""
    ports = ", ".join(map(str, life.ports()))
    life.town.router.shell(
        f"nft add rule ip fault through tcp sport '{{ {ports} }}' counter drop\n"
        f"nft add rule ip fault through tcp dport '{{ {ports} }}' counter drop"
    )


def dropped(town: Town) -> list[int]:
    """Packets that were thrown away: on the way out, on the way in."""
    rules = town.router.shell("nft list chain ip fault through")
    return [int(count) for count in re.findall(r"counter packets (\d+)", rules)]


@contextmanager
def talk(life: Life, target: Exchange, seconds: int) -> Iterator[Future[Flow]]:
    """The target talks all the time; what has come of it, when that is over."""
    with life.dial(target) as sock, ThreadPoolExecutor(1) as pool:
        ask_exchange(sock, down=2, size=TALK * seconds, rate=TALK)
        came = pool.submit(receive, sock, 2)
        wait_until(lambda: target.sent.get(2, 0) > TALK, 5, "it to talk")
        yield came


def say(life: Life, target: Exchange) -> None:
    """A new stream carries something."""
    with life.dial(target) as sock:
        ask_exchange(sock, down=4, size=1000)
        assert receive(sock, 4).size == 1000


def wait_others(life: Life, before: set[str], timeout: float) -> float:
    """Seconds until the server has connections, and none of those that it had before."""
    began = time.monotonic()
    wait_until(lambda: len(life.peers() - before) == 2, timeout, "new connections")
    return time.monotonic() - began


def test_another_address(town: Town, workshop: Workshop, target: Exchange) -> None:
    """The house moves to another network: a stream goes on, and a new one is opened at once."""
    life = live(workshop, town)
    before, ports = life.peers(), life.ports()
    with talk(life, target, 8) as came:
        move_in(town.house, 8)
        took = wait_others(life, before, SOON)
        say(life, target)
        flow = came.result(40)
    print(f"new connections after {took:.2f} s, silence of {flow.longest_gap:.2f} s")
    assert "192.168.7.2" not in town.house.shell("ip -4 address")
    assert (flow.end, flow.size) == ("whole", 8 * TALK)
    assert flow.longest_gap < SOON
    wait_until(lambda: not ports & life.ports(), SOON, "the old connections to go")


def test_forgotten_in_use(town: Town, workshop: Workshop, target: Exchange) -> None:
    """All that the agent sends is thrown away, and nobody says so: a stream goes on soon."""
    life = live(workshop, town)
    before = life.peers()
    with talk(life, target, 10) as came:
        forget(life)
        took = wait_others(life, before, SOON)
        say(life, target)
        flow = came.result(40)
    print(f"new connections after {took:.2f} s, silence of {flow.longest_gap:.2f} s")
    assert min(dropped(town)) > 0
    assert (flow.end, flow.size) == ("whole", 10 * TALK)
    assert flow.longest_gap < SOON


def test_a_server_that_ends_in_the_dark(town: Town, workshop: Workshop, target: Exchange) -> None:
    """What the agent has not acknowledged keeps it no longer than a second TERM."""
    life = live(workshop, town, "--prewarm", "off")
    with life.dial(target) as sock:
        ask_exchange(sock, down=2, size=1000)
        assert receive(sock, 2).size == 1000
        forget(life)
    life.server.wait_streams(1)
    for _ in range(2):
        life.server.signal(signal.SIGTERM)
        time.sleep(1)
    began = time.monotonic()
    life.server.wait(20)
    print(f"ended after {time.monotonic() - began:.2f} s")
    assert min(dropped(town)) > 0


@measures_times
def test_forgotten_in_silence(town: Town, workshop: Workshop, target: Exchange) -> None:
    """Nobody uses it: it notices by itself, and the next stream waits for nothing."""
    life = live(workshop, town, "--prewarm", "off")
    say(life, target)
    for process in (life.server, life.agent):
        process.wait_streams(0)
    before = life.peers()
    forget(life)
    took = wait_others(life, before, AT_LAST)
    print(f"new connections after {took:.2f} s")
    assert dropped(town)[0] > 0
    began = time.monotonic()
    say(life, target)
    took = time.monotonic() - began
    in_time(took < 1, took)
