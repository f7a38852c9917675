"""A gibibyte each way over six subflows, byte for byte."""

import socket
import threading

import pytest
from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive, send
from support.processes import Process
from support.workshop import Pair

pytestmark = pytest.mark.demanding

GIB = 1 << 30
MIB = 1 << 20


def payload_sent(process: Process) -> list[int]:
    """How much payload each subflow has carried away from that process."""
    return [subflow["tx"]["first"] for subflow in process.subflows()]


def all_six_carried(process: Process, size: int) -> None:
    """Each of six subflows carried a real share, and together they carried all."""
    shares = payload_sent(process)
    assert len(shares) == 6, shares
    assert sum(shares) >= size
    # How evenly is the speed of this moment; that each carries is what striping means.
    assert min(shares) > 1 << 20, shares


def test_a_gibibyte_up(pair: Pair) -> None:
    """The target verifies each byte; the client's six subflows all carried."""
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, up=1)
        assert send(sock, 1, GIB) == GIB
        sock.shutdown(socket.SHUT_WR)
        assert how_it_ends(sock) == "whole"
        assert target.wait_end(1) == "whole"
        assert target.received[1] == GIB
    all_six_carried(pair.client, GIB)


def test_a_gibibyte_down(pair: Pair) -> None:
    """This end verifies each byte; the server's six subflows all carried."""
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, down=2, size=GIB)
        flow = receive(sock, 2)
        assert (flow.size, flow.end) == (GIB, "whole")
    all_six_carried(pair.server, GIB)


def test_both_ways_at_once(pair: Pair) -> None:
    """Full load in one direction keeps nothing from the other: no deadlock."""
    size = 100 * MIB
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, up=1, down=2, size=size)
        sender = threading.Thread(target=send, args=(sock, 1, size))
        sender.start()
        assert receive(sock, 2, size).size == size
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert how_it_ends(sock) == "whole"
        assert target.wait_end(1) == "whole"
        assert target.received[1] == size


def test_both_ends_count_the_same(pair: Pair) -> None:
    """What one snapshot says was sent first, the other says was received first."""
    size = 20 * MIB
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, down=2, size=size)
        assert receive(sock, 2).size == size
    received = sum(subflow["rx"]["first"] for subflow in pair.client.subflows())
    assert received == sum(payload_sent(pair.server)) == size
