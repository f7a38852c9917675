"""One key's agents that come by the hundred."""

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import socks, wire
from support.agents import ABLE, attic, key_for, wait_agents
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.ports import free_port
from support.timing import in_time, measures_times
from support.waiting import wait_equal, wait_until
from support.workshop import Workshop

pytestmark = pytest.mark.demanding

MIB = 1 << 20
A_SECOND, SECONDS = 100, 3
MOST_OF_A_KEY = 256


def register(port: int, link: wire.Link, instance: bytes) -> bool:
    """An agent that comes and is gone without a word; whether it was let in."""
    said = b"\x01\x05flood"
    more = wire.tlv(wire.INSTANCE, instance) + wire.tlv(wire.AGENT_SAYS, said)
    with wire.Peer(port, 5) as peer:
        peer.join_in(link, wire.AGENT, more)
        peer.send(wire.frame(wire.PING))
        return any(kind == wire.PONG for kind, _ in peer.frames())


@measures_times
@pytest.mark.parametrize("who", ["one agent", "many agents"])
def test_a_flood_of_registrations(workshop: Workshop, who: str) -> None:
    """
    A hundred a second by one key: another key's agent goes on, and opens streams at once.

    One that comes back each time replaces itself; of many, a key may have so many, which the
    log says once.
    """
    proxy = free_port()
    server = workshop.server("--socks", str(proxy), "--exit", "attic")
    attic(workshop, key_for(workshop, server, "attic"))
    wait_agents(server, ABLE)
    link = wire.Link.parse(server.agent_link)
    count, opening, floods = A_SECOND * SECONDS, [], []
    with Exchange() as target, ThreadPoolExecutor(8) as pool:
        sock = socks.connect(proxy, target.port)
        ask_exchange(sock, down=1, rate=2 * MIB)
        flow = pool.submit(receive, sock, 1, 2 * MIB * SECONDS)
        began = time.monotonic()
        for number in range(count):
            instance = bytes(16) if who == "one agent" else random.randbytes(16)
            floods.append(pool.submit(register, server.port, link, instance))
            turn = began + number / A_SECOND
            wait_until(lambda turn=turn: time.monotonic() >= turn, 5, "the turn", every=0.002)
            if number % 20 == 0:
                at = time.monotonic()
                socks.connect(proxy, target.port).close()
                opening.append(time.monotonic() - at)
        let_in = Counter(flood.result(20) for flood in floods)
        took = time.monotonic() - began
        moved = flow.result(20)
        sock.close()
    assert moved.size == 2 * MIB * SECONDS
    in_time(took < 2 * SECONDS, "it was no flood")
    in_time(moved.longest_gap < 1, moved)
    in_time(max(opening) < 1, opening)
    assert ABLE in server.agents()
    # All but the one of the agent that was there before.
    left = 1 if who == "one agent" else MOST_OF_A_KEY
    wait_equal(lambda: len(server.snapshot()["sessions"]) - 1, left, 5, "the sessions")
    most = count if who == "one agent" else MOST_OF_A_KEY
    assert let_in == Counter({True: most, False: count - most})
    assert server.log.count("a key may have 256 sessions here") == (most < count)
