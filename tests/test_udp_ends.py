"""Forwarded UDP ports whose ends start, speak, move and die as they please."""

import socket
import threading
import time
from collections.abc import Callable

import pytest
from support.datagrams import answered, free_udp_port, udp_echo, udp_socket
from support.ports import LOOPBACK, free_port
from support.relay import Relay
from support.timing import in_time, measures_times
from support.waiting import wait_until
from support.workshop import Server, Workshop, hang_up

SOON = 10.0
_SIX = socket.AF_INET6, socket.SOCK_DGRAM


class Sides:
    """Two programs, and the two places between them."""

    def __init__(self) -> None:
        self.listen, self.bind = free_port(), free_udp_port()
        self.near, self.far = udp_socket(), udp_socket()
        self.near_port, self.far_port = (one.getsockname()[1] for one in (self.near, self.far))

    @property
    def local(self) -> str:
        """The near side."""
        return f"{LOOPBACK}:{self.listen}:{LOOPBACK}:{self.near_port}"

    @property
    def remote(self) -> str:
        """The far side."""
        return f"{LOOPBACK}:{self.bind}:{LOOPBACK}:{self.far_port}"

    def speaks(self, near: bool) -> bool:
        """Whether what one program sends reaches the other, from where it is to come."""
        here, there = (self.near, self.far) if near else (self.far, self.near)
        here.sendto(b"hello", (LOOPBACK, self.listen if near else self.bind))
        try:
            wanted = (b"hello", (LOOPBACK, self.bind if near else self.listen))
            return there.recvfrom(100) == wanted
        except TimeoutError:
            return False

    def speak(self, near_first: bool) -> None:
        """Until each side has been heard by the other."""
        for near in (near_first, not near_first):
            wait_until(lambda near=near: self.speaks(near), SOON, f"near {near} to be heard")


def let_bind(server: Server, *places: str) -> None:
    """Write into the key's table what it may bind."""
    keys = server.state / "server" / "keys.toml"
    listed = ", ".join(f'"{place}"' for place in places)
    client = 'role = "client"'
    keys.write_text(keys.read_text().replace(client, f"{client}\nudp_bind = [{listed}]"))
    if server.running:
        hang_up(server)


@pytest.mark.parametrize("near_first", [True, False])
@pytest.mark.parametrize("client_first", [True, False])
def test_two_sides(workshop: Workshop, near_first: bool, client_first: bool) -> None:
    """Either process is started first, and either side speaks first."""
    sides = Sides()
    server = workshop.server("--allow", f"localhost:{sides.far_port}/udp")
    let_bind(server, f"{LOOPBACK}:{sides.bind}")
    if client_first:
        server.terminate()
    client = workshop.client(server, f"--udp={sides.local}={sides.remote}", subflows=2)
    if client_first:
        time.sleep(1)
        workshop.restart(server)
    client.wait_subflows(2)
    sides.speak(near_first)


def test_not_bound(workshop: Workshop) -> None:
    """The log says what to list, and once that is done it works by itself."""
    sides = Sides()
    server = workshop.server("--allow", f"localhost:{sides.far_port}/udp")
    client = workshop.client(server, f"--udp={sides.local}={sides.remote}", subflows=2)
    place = f"{LOOPBACK}:{sides.bind}"
    client.wait_line(f'not yet: .*{place} is not bound; list it in the key.s udp_bind .*"{place}"')
    let_bind(server, place)
    sides.speak(near_first=False)


def test_environment(workshop: Workshop) -> None:
    """As socktopus reads it."""
    sides = Sides()
    server = workshop.server("--allow", f"localhost:{sides.far_port}/udp")
    let_bind(server, f"{LOOPBACK}:{sides.bind}")
    workshop.client(server, subflows=2, UDPLOC=sides.local, UDPREM=sides.remote)
    sides.speak(near_first=False)


@pytest.mark.parametrize("graceful", [True, False])
def test_server_restarted(workshop: Workshop, graceful: bool) -> None:
    """A fixed forward works again by itself, either way, whoever speaks first."""
    sides = Sides()
    server = workshop.server("--allow", f"localhost:{sides.far_port}/udp")
    let_bind(server, f"{LOOPBACK}:{sides.bind}")
    workshop.client(server, f"--udp={sides.local}={sides.remote}", subflows=2)
    sides.speak(near_first=True)
    server.terminate() if graceful else server.kill()
    workshop.restart(server)
    began = time.monotonic()
    sides.speak(near_first=False)
    print(f"{time.monotonic() - began:.2f} s after the start the far side is heard")


def test_client_killed(workshop: Workshop) -> None:
    """The next one has the far side's port at once, not when the old session ends."""
    sides = Sides()
    server = workshop.server("--allow", f"localhost:{sides.far_port}/udp")
    let_bind(server, f"{LOOPBACK}:{sides.bind}")
    client = workshop.client(server, f"--udp={sides.local}={sides.remote}", subflows=2)
    sides.speak(near_first=True)
    client.kill()
    workshop.client(server, f"--udp={sides.local}={sides.remote}", subflows=2)
    began = time.monotonic()
    sides.speak(near_first=False)
    print(f"{time.monotonic() - began:.2f} s after the start the far side is heard")


class Numbers:
    """Numbered datagrams that are sent evenly, and those that have arrived."""

    def __init__(self, port: int, there: socket.socket, count: int, every: float) -> None:
        self.arrived: list[int] = []
        self._sender, self._there = udp_socket(), there
        self._to, self._count, self._every = (LOOPBACK, port), count, every
        self._threads = [threading.Thread(target=one) for one in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        for number in range(self._count):
            self._sender.sendto(number.to_bytes(4, "big").ljust(200), self._to)
            time.sleep(self._every)

    def _receive(self) -> None:
        try:
            while True:
                self.arrived.append(int.from_bytes(self._there.recv(1000)[:4], "big"))
        except TimeoutError:
            pass

    def join(self) -> None:
        """Until all are sent, and nothing more comes."""
        for thread in self._threads:
            thread.join()
        self._sender.close()


@pytest.mark.demanding
@measures_times
@pytest.mark.parametrize("deed", ["cut_all", "blackhole", "stall"])
def test_copies(workshop: Workshop, relay: Callable[[int], Relay], deed: str) -> None:
    """Two paths, one of which dies in mid-stream: none is lost, and none comes twice."""
    at = free_port()
    with udp_socket() as there:
        there.settimeout(2)
        to = there.getsockname()[1]
        server = workshop.server("--allow", f"localhost:{to}/udp")
        ways = [relay(server.port), relay(server.port)]
        paths = [f"--path=tcp://{LOOPBACK}:{way.port}" for way in ways]
        words = (f"--udp={at}={LOOPBACK}:{to}", "--udp-copies=2", *paths)
        client = workshop.client(server, *words, subflows=4)
        client.wait_subflows(4)
        numbers = Numbers(at, there, count=600, every=0.005)
        wait_until(lambda: len(numbers.arrived) > 200, SOON, "datagrams")
        if deed == "cut_all":
            ways[0].cut_all()
        else:
            for link in ways[0].alive:
                getattr(ways[0], deed)(link)
        ways[0].refuse()
        numbers.join()
    assert len(set(numbers.arrived)) == len(numbers.arrived)
    # What comes too late to be of use is dropped.
    missing = set(range(600)) - set(numbers.arrived)
    in_time(not missing, missing)


@measures_times
def test_drained(workshop: Workshop) -> None:
    """At TERM the port is closed at once, and keeps nobody waiting."""
    at = free_port()
    with udp_echo() as target, udp_socket() as ann:
        server = workshop.server("--allow", f"localhost:{target}/udp")
        client = workshop.client(server, f"--udp={at}={LOOPBACK}:{target}", subflows=2)
        wait_until(lambda: answered(ann, at, b"ann"), SOON, "an answer")
        began = time.monotonic()
        client.terminate()
        took = time.monotonic() - began
        in_time(took < 2, took)
        wait_until(lambda: not server.snapshot()["counters"]["udp_active"], 2, "its end there")


def test_families(workshop: Workshop) -> None:
    """A port at every address hears programs of both kinds, and each gets its own answers."""
    at = free_port()
    with udp_echo() as target, udp_socket() as ann, socket.socket(*_SIX) as bob:
        bob.settimeout(0.5)
        bob.bind(("::1", 0))
        server = workshop.server("--allow", f"localhost:{target}/udp")
        words = (f"--udp=[::]:{at}={LOOPBACK}:{target}", "--from=127.0.0.1", "--from=::1")
        workshop.client(server, *words, subflows=2)
        for program, host in ((ann, LOOPBACK), (bob, "::1")):
            wait_until(lambda p=program, h=host: answered(p, at, b"x", h), SOON, f"{host}")
