"""A thousand streams at once, and ten thousand one after another."""

import socket
import threading

import pytest
from support import socks
from support.crowd import crowd
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive, send
from support.remains import kept, left_over, most_kept
from support.targets import Echo
from support.waiting import wait_equal
from support.workshop import Pair, Workshop

pytestmark = pytest.mark.demanding

KIB, MIB = 1 << 10, 1 << 20
STREAMS = 1000
CYCLES = 10_000
AT_ONCE = 25


def test_a_thousand_streams_at_the_same_moment(pair: Pair) -> None:
    """All are open together, then each moves 256 KiB both ways, verified."""
    size = 256 * KIB
    barrier = threading.Barrier(STREAMS)
    most = [0]

    def one(number: int) -> None:
        try:
            sock = socks.connect(pair.client.proxy, target.port)
            if barrier.wait(120) == 0:
                most[0] = pair.client.streams()
            barrier.wait(120)
        except BaseException:
            barrier.abort()
            raise
        with sock:
            ask_exchange(sock, up=number, down=STREAMS + number, size=size)
            assert send(sock, number, size) == size
            assert receive(sock, STREAMS + number, size).size == size
            sock.shutdown(socket.SHUT_WR)
            assert how_it_ends(sock) == "whole"
            assert target.wait_end(number) == "whole"

    with Exchange() as target:
        crowd(one, range(1, STREAMS + 1), 150)
        assert most[0] == STREAMS
        assert sorted(target.received.values()) == [size] * STREAMS
    for process in pair:
        process.wait_streams(0, 5)


def cycles(pair: Pair, port: int, count: int) -> None:
    """Open, say a byte, hear it, close; a few at a time."""

    def one(_: int) -> None:
        for _ in range(count // AT_ONCE):
            with socks.connect(pair.client.proxy, port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"

    crowd(one, range(AT_ONCE), 120)


def test_ten_thousand_cycles_leave_nothing(workshop: Workshop, echo: Echo) -> None:
    """No stream, timer, descriptor or object more than after the first few hundred."""
    server = workshop.server("--allow", "localhost", style="census")
    client = workshop.client(server, style="census")
    pair = Pair(server, client)
    cycles(pair, echo.port, 500)
    before = [most_kept(process) for process in pair]
    memory = [process.rss for process in pair]
    cycles(pair, echo.port, CYCLES)
    assert echo.accepted == CYCLES + 500
    for process, had, rss in zip(pair, before, memory, strict=True):
        wait_equal(lambda p=process, h=had: left_over(h, kept(p)), {}, 15, "what is left over")
        assert process.rss - rss < 8 * MIB
