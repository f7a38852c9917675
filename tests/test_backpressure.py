"""Consumers that stop: only their own streams wait, and memory stays bounded."""

import socket
from contextlib import ExitStack

import pytest
from support import socks
from support.crowd import crowd
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive, send
from support.processes import Process
from support.targets import Hold
from support.waiting import wait_still
from support.workshop import Pair, Workshop

pytestmark = pytest.mark.demanding

KIB, MIB = 1 << 10, 1 << 20
SMALL = 8 * KIB
STOPPED = 500
MEMORY = 32 * MIB


def test_one_that_stops_holds_up_nobody(pair: Pair) -> None:
    """A hundred others finish while it stands; then it goes on, whole."""
    with Exchange() as target:
        stuck = socks.connect(pair.client.proxy, target.port, buffer=SMALL)
        ask_exchange(stuck, down=1)
        standing = wait_still(lambda: target.sent.get(1, 0), 1, 30, "the stuck stream")
        assert standing > 0

        def other(number: int) -> None:
            with socks.connect(pair.client.proxy, target.port) as sock:
                ask_exchange(sock, down=number, size=4 * MIB)
                assert receive(sock, number).size == 4 * MIB

        crowd(other, range(2, 102), 90)
        assert target.sent[1] == standing
        assert receive(stuck, 1, standing + MIB).size == standing + MIB
        stuck.close()


def test_a_target_that_stops_holds_up_nobody(pair: Pair) -> None:
    """The same for uploads: the stuck one blocks its sender, the others pass."""
    with Hold() as hold, Exchange() as target:
        stuck = socks.connect(pair.client.proxy, hold.port)
        stuck.setblocking(False)
        sent = 0

        def push() -> int:
            nonlocal sent
            try:
                while True:
                    sent += stuck.send(bytes(64 * KIB))
            except BlockingIOError:
                return sent

        standing = wait_still(push, 1, 30, "the stuck stream")

        def other(number: int) -> None:
            with socks.connect(pair.client.proxy, target.port) as sock:
                ask_exchange(sock, up=number)
                assert send(sock, number, 4 * MIB) == 4 * MIB
                sock.shutdown(socket.SHUT_WR)
                assert how_it_ends(sock) == "whole"
                assert target.wait_end(number) == "whole"

        crowd(other, range(1, 26), 60)
        assert push() == standing
        stuck.close()


def allowed(streams: int, subflows: int) -> int:
    """The memory that a process may have."""
    return 45 * MIB + MEMORY + 12 * KIB * streams + 300 * KIB * subflows


def test_five_hundred_that_stop_fit_into_the_memory(workshop: Workshop) -> None:
    """Half of them downloads and half uploads: both ends stay under the formula and serve on."""
    pair = workshop.pair("--max-memory", "32M")
    bound = allowed(STOPPED + 1, 6)
    with ExitStack() as stack:
        target = stack.enter_context(Exchange())
        hold = stack.enter_context(Hold())
        for number in range(1, STOPPED // 2 + 1):
            sock = socks.connect(pair.client.proxy, target.port, buffer=SMALL)
            stack.callback(sock.close)
            ask_exchange(sock, down=number)
        uploads = []
        for _ in range(STOPPED // 2):
            sock = stack.enter_context(socks.connect(pair.client.proxy, hold.port))
            sock.setblocking(False)
            uploads.append(sock)
        pushed = [0]

        def moved() -> tuple[int, int]:
            for sock in uploads:
                pushed[0] += push_some(sock)
            return pushed[0], sum(list(target.sent.values()))

        wait_still(moved, 2, 90, "everything")
        assert pair.client.streams() == STOPPED
        for process in pair:
            below(process, bound)
        with socks.connect(pair.client.proxy, target.port, timeout=20) as sock:
            ask_exchange(sock, down=9999, size=4 * MIB)
            assert receive(sock, 9999).size == 4 * MIB
        for process in pair:
            below(process, bound)
    for process in pair:
        process.wait_streams(0, 15)


def push_some(sock: socket.socket) -> int:
    """Send until the kernel takes no more."""
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(64 * KIB))
    except BlockingIOError:
        return sent


def below(process: Process, bound: int) -> None:
    """It never had more memory than that."""
    assert process.peak_rss <= bound, (
        f"{process.peak_rss / MIB:.0f} MiB, allowed {bound / MIB:.0f}: {process.snapshot()}"
    )
