"""No subflow at all: for a while, and for too long."""

import socket
import threading
import time
from collections.abc import Callable

import pytest
from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive
from support.relay import Relay
from support.transfers import through_relay, transfer, wait_six
from support.workshop import Workshop

MIB = 1 << 20
OUTAGE = 10


def test_ten_seconds_without_any(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Running transfers go on where they were, and finish whole."""
    pair, middle = through_relay(workshop, relay)
    with transfer(pair, 4) as state:
        middle.refuse()
        assert middle.cut_all() >= 6
        time.sleep(OUTAGE)
        assert middle.alive == []
        middle.accept()
        wait_six(pair, middle, 5)
    assert state.down.longest_gap > OUTAGE - 1


def test_an_open_waits_out_an_outage(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """A connect that is asked for meanwhile is answered when subflows are back."""
    pair, middle = through_relay(workshop, relay)
    middle.refuse()
    middle.cut_all()
    with Exchange() as target, socks.dial(pair.client.proxy) as sock:
        socks.greet(sock)
        sock.sendall(socks.request("127.0.0.1", target.port))
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        middle.accept()
        sock.settimeout(10)
        assert socks.read_reply(sock) == socks.SUCCEEDED
    for process in pair:
        process.wait_streams(0)


def test_too_long_resets_both_ends(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Past C{--session-timeout} both ends see a reset, never a clean end."""
    server = workshop.server("--allow", "localhost")
    middle = relay(server.port)
    client = workshop.client(server, "--session-timeout", "5", through=middle.port)
    client.wait_subflows(6)
    with Exchange() as target:
        busy = socks.connect(client.proxy, target.port)
        idle = socks.connect(client.proxy, target.port)
        ask_exchange(busy, up=1, down=2, rate=5 * MIB)
        ask_exchange(idle, up=3)
        receive(busy, 2, MIB)
        target.wait_asked(3)
        middle.refuse()
        middle.cut_all()
        start = time.monotonic()
        ends = _ends_of(busy, idle)
        assert ends == ["reset", "reset"]
        assert 4 < time.monotonic() - start < 10
        assert target.wait_end(1, 10) == "reset"
        assert target.wait_end(3, 10) == "reset"
        assert time.monotonic() - start < 12
        middle.accept()
        client.wait_subflows(6)
        with socks.connect(client.proxy, target.port) as again:
            ask_exchange(again, down=5, size=MIB)
            assert receive(again, 5).size == MIB
        busy.close()
        idle.close()
    client.wait_streams(0)
    server.wait_streams(0)


def _ends_of(*sockets: socket.socket) -> list[str]:
    ends: list[str] = []
    threads = [threading.Thread(target=lambda s=s: ends.append(how_it_ends(s))) for s in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return ends
