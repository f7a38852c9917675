"""
The benchmark runs, leaves nothing behind, and its links are what they say.

What it measures is of no interest here: no speed of ours is looked at.
"""

import contextlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import usage
from bench.links import Lab, Line
from bench.places import Place
from bench.tables import since_first
from support.places import within
from support.programs import plain_environment, run
from support.waiting import wait_until

BENCH = Path(__file__).with_name("bench")
TOP = BENCH.parents[1]
MBIT = 1e6
TRIES = 5
QUIET = 0.3


# ---- the command


def start(home: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A benchmark under way."""
    environment = plain_environment(home, PYTHONPATH=str(TOP), TMPDIR=str(home))
    return subprocess.Popen([sys.executable, str(BENCH), *words], env=environment)


def namespaces(pids: list[int]) -> set[str]:
    """The network namespaces that processes are in, except our own."""
    found = set()
    for pid in pids:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            continue
    return found - {os.readlink("/proc/self/ns/net")}


def all_pids() -> list[int]:
    """Of all processes."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def test_a_small_table(emulator: Path, tmp_path: Path) -> None:
    """Three peers are measured; the rows are JSON; the namespaces are gone."""
    out = tmp_path / "rows"
    peers = ("--peers", "direct,plain,stripetwist")
    command = ("small", "--runs", "1", "--seconds", "2", *peers, "--out", str(out))
    made: set[str] = set()
    with start(tmp_path, *command) as bench:
        while bench.poll() is None:
            made |= namespaces(usage.family(bench.pid))
            time.sleep(0.1)
    assert bench.returncode == 0
    head, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert head["table"] == "small"
    assert head["congestion"] == "cubic"
    assert [row["peer"] for row in rows] == ["direct", "plain x6", "stripetwist x6"]
    assert all(row["goodput"] > 0 and sum(row["series"]) > 0 for row in rows), rows
    assert len(made) >= 2
    wait_until(lambda: not made & namespaces(all_pids()), 5, "the namespaces to go")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_end_in_the_middle(emulator: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Whatever ends it, its namespaces and all that runs in them go too."""
    with start(tmp_path, "small", "--peers", "direct", "--seconds", "60") as bench:
        wait_until(lambda: len(namespaces(usage.family(bench.pid))) >= 2, 20, "two namespaces")
        made = namespaces(usage.family(bench.pid))
        bench.send_signal(number)
    assert bench.returncode in (-signal.SIGKILL, 128 + number)
    wait_until(lambda: not made & namespaces(all_pids()), 5, "the namespaces to go")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nosuch"], "there is no table nosuch; there are bulk, "),
        (["bulk", "--peers", "nosuch"], "there is no peer nosuch; there are direct, "),
        (["bulk", "--cases", "P9"], "--cases P9: there are P1 up, "),
        (["small", "--subflows", "x"], "--subflows x: give numbers"),
        (["small", "--seconds", "0"], "--runs, --seconds and --streams take"),
        (["small", "--against", "nosuch"], "--against nosuch is not measured; there are direct, "),
        (["small", "--congestion", "nosuch"], "this kernel has no nosuch; take one of "),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")
def test_what_there_is_not(tmp_path: Path, words: list[str], sentence: str) -> None:
    """One sentence says what there is."""
    done = run([sys.executable, BENCH, *words], tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(sentence), line


def test_all_clocks_begin_with_the_first_byte() -> None:
    """Whatever came before it, and whoever counts."""
    counts, links = since_first([0] * 25 + [7] * 100, [list(range(20))], 0.5)
    assert counts == [7] * 50
    assert links == [[2, 3, 4, 5, 6]]
    assert since_first([0] * 9, [[0]], 0.05) == ([0] * 5, [[]])


# ---- the links


def made_in(place: Place, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """A socket of a place, for this process."""
    with within(place):
        made = socket.socket(socket.AF_INET, kind, protocol)
    made.settimeout(5)
    return made


def nearest(right: float, measure: Callable[[], float]) -> float:
    """Of some tries, the one that is nearest to what is right: a busy machine spoils others."""
    return min((measure() for _ in range(TRIES)), key=lambda seen: abs(seen - right))


class Datagrams:
    """A lab with one link, and a way to send datagrams over it."""

    def __init__(self, lab: Lab) -> None:
        self.link = lab.links[0]
        self._near = made_in(lab.near, socket.SOCK_DGRAM)
        self._far = made_in(lab.far, socket.SOCK_DGRAM)
        for sock in (self._near, self._far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        self._far.bind((lab.far_address(), 9))
        self._near.connect((lab.far_address(), 9))

    def send(self, count: int, size: int) -> list[float]:
        """Send so many at once; when each of those that come has come."""
        came = []
        start = time.monotonic()
        for _ in range(count):
            self._near.send(bytes(size))
        self._far.settimeout(QUIET)
        with contextlib.suppress(TimeoutError):
            while self._far.recv(2048):
                came.append(time.monotonic() - start)
        return came

    def span(self, count: int, megabits: float) -> float:
        """From the first to the last of a burst, of what it takes at that rate."""
        came = self.send(count, 1222)
        assert len(came) == count
        return (came[-1] - came[0]) / ((count - 1) * 1250 * 8 / (megabits * MBIT))

    def close(self) -> None:
        """Close the sockets."""
        self._near.close()
        self._far.close()


@pytest.fixture
def labs(emulator: Path) -> Iterator[list[Lab]]:
    """A list of labs to be closed."""
    made: list[Lab] = []
    yield made
    for lab in made:
        lab.close()


def lab_with(emulator: Path, labs: list[Lab], *lines: Line) -> Lab:
    """A lab that the test closes."""
    labs.append(Lab(emulator, lines, "cubic", 1))
    return labs[-1]


def test_rate_delay_queue_and_hole(emulator: Path, labs: list[Lab]) -> None:
    """A burst comes out at the rate, after the delay; what does not fit is dropped."""
    link = Datagrams(lab_with(emulator, labs, Line(10, 40, queue=2)))
    alone = nearest(0.041, lambda: link.send(1, 10)[0])
    assert 0.040 <= alone < 0.055
    assert nearest(1, lambda: link.span(100, 10)) == pytest.approx(1, rel=0.1)
    room = 200000 / 1250
    assert nearest(room, lambda: len(link.send(300, 1222))) == pytest.approx(room, rel=0.05)
    counters = link.link.set("blackhole", 1)["up"]
    assert counters["overflowed"] == TRIES * (1 + 100 + 300) - counters["packets"]
    assert link.send(3, 10) == []
    assert link.link.set("blackhole", 0)["up"]["swallowed"] == 3
    link.link.set("rate", 5 * MBIT, "up")
    assert nearest(1, lambda: link.span(50, 5)) == pytest.approx(1, rel=0.1)
    link.close()


def test_loss(emulator: Path, labs: list[Lab]) -> None:
    """As many are lost as chance has it."""
    link = Datagrams(lab_with(emulator, labs, Line(500, 1, loss=10, queue=100)))
    count = 4000
    came = len(link.send(count, 100))
    assert link.link.count()["up"]["lost"] == count - came
    assert abs(count - came - 0.1 * count) < 4 * math.sqrt(count * 0.1 * 0.9)
    link.close()


def segment(port: int, size: int) -> bytes:
    """What a TCP connection from that port would send to port 9; nobody looks further."""
    return struct.pack("!HHLLBBHHH", port, 9, 1, 1, 5 << 4, 0x10, 1024, 0, 0) + bytes(size)


@pytest.mark.demanding
def test_each_connection_has_its_limit(emulator: Path, labs: list[Lab]) -> None:
    """What two send at once comes at the limit of each, and the payload is counted."""
    lab = lab_with(emulator, labs, Line(50, 500, limit=4))
    ports, count, payload = (1001, 1002), 450, 1460
    near, far = (
        made_in(place, socket.SOCK_RAW, socket.IPPROTO_TCP) for place in (lab.near, lab.far)
    )
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    came: dict[int, list[float]] = {port: [] for port in ports}
    for port in ports * count:
        near.sendto(segment(port, payload), (lab.far_address(), 0))
    far.settimeout(1.5)
    with contextlib.suppress(TimeoutError):
        while packet := far.recv(2048):
            came[int.from_bytes(packet[20:22], "big")].append(time.monotonic())
    counters = lab.links[0].count()["up"]
    arrived = sum(len(times) for times in came.values())
    for times in came.values():
        ideal = (len(times) - 1) * 1500 * 8 / (4 * MBIT)
        assert times[-1] - times[0] == pytest.approx(ideal, rel=0.1)
    assert counters["limited"] == 2 * count - arrived > 0
    assert counters["payload"] == arrived * payload
    for sock in (near, far):
        sock.close()


def test_two_links(emulator: Path, labs: list[Lab]) -> None:
    """What is sent from a near address goes over its link, and so does the answer."""
    lab = lab_with(emulator, labs, Line(10, 1), Line(10, 1))
    with made_in(lab.near, socket.SOCK_DGRAM) as near, made_in(lab.far, socket.SOCK_DGRAM) as far:
        near.bind((lab.near_address(1), 0))
        far.bind((lab.far_address(0), 9))
        near.sendto(b"x", (lab.far_address(0), 9))
        far.sendto(b"y", far.recvfrom(10)[1])
        assert near.recv(10) == b"y"
    counts = [link.count() for link in lab.links]
    assert [(c["up"]["packets"], c["down"]["packets"]) for c in counts] == [(0, 0), (1, 1)]
