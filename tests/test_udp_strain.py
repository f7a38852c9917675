"""Carried datagrams under ICMP errors, floods and amplifiers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import support
from support import socks
from support.associate import Associate
from support.datagrams import free_udp_port, udp_echo, udp_socket
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.ports import LOOPBACK, free_port
from support.waiting import wait_until
from support.workshop import Pair, Workshop

SOON = 10.0
FLOOD = 20_000
MIB = 1 << 20
SIZE, RATE = 20 * MIB, 10 * MIB


def test_icmp(workshop: Workshop) -> None:
    """A target that is not there, and a program that is gone for a while, end nothing."""
    dead, at = free_udp_port(), free_port()
    server = workshop.server("--allow", "localhost")
    client = workshop.client(server, f"--udp={at}={LOOPBACK}:{dead}", subflows=2)
    with udp_echo() as target, udp_socket() as ann, Associate(client.proxy) as bob:
        wait_until(lambda: bob.answered(target, b"bob"), SOON, "an answer")
        for _ in range(20):
            ann.sendto(b"nobody", (LOOPBACK, at))
            bob.send(b"nobody", LOOPBACK, dead)
        wait_until(lambda: server.snapshot()["counters"]["udp_sent"] >= 41, SOON, "them to leave")
        own = bob.socket.getsockname()[1]
        for number in range(20):
            bob.send(b"%d" % number, LOOPBACK, target)
        bob.socket.close()
        time.sleep(0.5)
        bob.socket = udp_socket(own)
        wait_until(lambda: bob.answered(target, b"again"), SOON, "an answer after both")
        with udp_socket(dead) as there:
            ann.sendto(b"alive", (LOOPBACK, at))
            payload, source = there.recvfrom(100)
            there.sendto(payload, source)
        assert ann.recv(100) == b"alive"
    assert server.snapshot()["counters"]["udp_opened"] == 2


@contextmanager
def flood(proxy: int, target: int, counts: list[int]) -> Iterator[None]:
    """Another process sends as fast as it is told to; how many they were is told at the end."""
    line = [sys.executable, str(Path(support.__file__).with_name("flood.py"))]
    line += [str(proxy), str(target), str(FLOOD)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(line, **pipes) as process:
        try:
            yield
            counts.append(int(process.communicate(timeout=SOON)[0]))
        finally:
            process.kill()


def seconds(proxy: int) -> float:
    """How long a stream takes that is sent at a rate."""
    began = time.monotonic()
    with Exchange() as target, socks.connect(proxy, target.port) as sock:
        ask_exchange(sock, down=2, size=SIZE, rate=RATE)
        assert receive(sock, 2).size == SIZE
    return time.monotonic() - began


@pytest.mark.demanding
def test_flood(pair: Pair) -> None:
    """
    20,000 a second leave a stream four fifths of its rate; none leaves twice.

    The best of five counts: other programs on this machine take from both.
    """
    proxy, kept = pair.client.proxy, 0.0
    counts: list[int] = []
    with udp_socket() as target:
        for _ in range(5):
            quiet = seconds(proxy)
            began = time.monotonic()
            before = pair.server.snapshot()["counters"]["udp_sent"]
            with flood(proxy, target.getsockname()[1], counts):
                time.sleep(0.5)
                loud = seconds(proxy)
            took = time.monotonic() - began
            left = pair.server.snapshot()["counters"]["udp_sent"] - before
            print(f"{counts[-1] / took:.0f} a second sent, {left / took:.0f} left", end="; ")
            print(f"a stream took {quiet:.2f} s, beside the flood {loud:.2f} s")
            assert 0 < left <= counts[-1]
            kept = max(kept, quiet / loud)
            if kept >= 0.8:
                return
    raise AssertionError(f"a stream kept {kept:.2f} of its rate")


def test_amplifier(workshop: Workshop) -> None:
    """What answers with far more than it was asked is heard by who asked, and by nobody else."""
    with udp_echo(times=10, size=4000) as target:
        server = workshop.server("--allow", f"localhost:{target}/udp")
        client = workshop.client(server, subflows=2)
        with Associate(client.proxy) as ann, Associate(client.proxy) as bob, udp_socket() as eve:
            ann.send(b"query".ljust(40), LOOPBACK, target)
            got = [ann.socket.recv(65535) for _ in range(10)]
            assert {len(one) for one in got} == {4010}
            counters = server.snapshot()["counters"]
            assert (counters["udp_sent"], counters["udp_received"]) == (1, 10)
            eve.sendto(got[0], ann.relay)
            wait_until(
                lambda: client.snapshot()["counters"]["socks_udp_dropped"] == 1, SOON, "a count"
            )
            assert server.snapshot()["counters"]["udp_sent"] == 1
            for other in (bob.socket, eve, ann.socket):
                other.settimeout(0.2)
                try:
                    raise AssertionError(other.recv(65535))
                except TimeoutError:
                    pass


def test_sizes(workshop: Workshop) -> None:
    """The largest that fits behind the header comes back whole; so does the empty one."""
    with udp_echo() as target:
        server = workshop.server("--allow", f"localhost:{target}/udp")
        client = workshop.client(server, subflows=2)
        with Associate(client.proxy) as program:
            for size in (0, 1, 65_497):
                wait_until(lambda size=size: program.answered(target, bytes(size)), SOON, "it")
