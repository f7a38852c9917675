"""Faults and transfers together: what the tests of cuts, outages and restarts share."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import Flow, how_it_ends, receive, send
from support.relay import Relay
from support.waiting import wait_until
from support.workshop import Pair, Workshop

MIB = 1 << 20
DOWN_RATE, UP_RATE = 20 * MIB, 2 * MIB


@dataclass
class Transfer:
    """
    How a transfer went, once it is over.

    @ivar down: the download.
    @ivar sent: bytes uploaded.
    """

    down: Flow = field(default_factory=Flow)
    sent: int = 0


@contextmanager
def transfer(pair: Pair, seconds: float) -> Iterator[Transfer]:
    """
    One stream moves payload both ways at a rate.

    Leaving waits until all of it has gone, and the stream with it.
    """
    size, up_size = int(DOWN_RATE * seconds), int(UP_RATE * seconds)
    state, pool = Transfer(), ThreadPoolExecutor(2)
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, up=1, down=2, size=size, rate=DOWN_RATE)
        upload = pool.submit(send, sock, 1, up_size, UP_RATE)
        download = pool.submit(receive, sock, 2, size)
        yield state
        state.down = download.result(seconds + 60)
        state.sent = upload.result(seconds + 60)
        sock.shutdown(socket.SHUT_WR)
        assert how_it_ends(sock) == "whole"
        assert target.wait_end(1) == "whole"
        assert (state.down.size, state.sent, target.received[1]) == (size, up_size, up_size)
    pool.shutdown()
    for process in pair:
        process.wait_streams(0)


def through_relay(workshop: Workshop, relay: Callable[[int], Relay]) -> tuple[Pair, Relay]:
    """A pair with a fault relay between, all six subflows up."""
    server = workshop.server("--allow", "localhost")
    middle = relay(server.port)
    client = workshop.client(server, through=middle.port)
    client.wait_subflows(6)
    server.wait_subflows(6)
    return Pair(server, client), middle


def wait_six(pair: Pair, middle: Relay, timeout: float) -> None:
    """Until six are up again, in the relay's eyes and in both peers'."""
    wait_until(lambda: len(middle.alive) == 6, timeout, "six connections", every=0.05)
    pair.client.wait_subflows(6, timeout)
    pair.server.wait_subflows(6, timeout)
