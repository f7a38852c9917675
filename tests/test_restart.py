"""A server that dies without a word and comes back with its state."""

import threading
import time
from collections.abc import Callable

from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import how_it_ends, receive, send
from support.relay import Relay
from support.transfers import through_relay
from support.waiting import wait_until
from support.workshop import Workshop

MIB = 1 << 20


def test_killed_and_restarted(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Old streams are reset; a new one works within two seconds of the first accept."""
    pair, middle = through_relay(workshop, relay)
    with Exchange() as target, Exchange() as after:
        old = socks.connect(pair.client.proxy, target.port)
        ask_exchange(old, up=1, down=2, rate=MIB)
        receive(old, 2, MIB // 4)
        pair.server.kill()
        assert target.wait_end(1) == "reset"
        wait_until(lambda: middle.misses, 10, "the client to dial in vain")
        before = len(middle.connects)
        ended: list[float] = []
        watcher = threading.Thread(
            target=lambda: how_it_ends(old) == "reset" and ended.append(time.monotonic())
        )
        watcher.start()
        workshop.restart(pair.server)
        first = wait_until(lambda: middle.connects[before:], 10, "the first accept")[0]
        with socks.connect(pair.client.proxy, after.port) as new:
            works = time.monotonic() - first
            ask_exchange(new, down=3, size=MIB)
            assert receive(new, 3).size == MIB
        watcher.join(10)
        old.close()
    pair.client.wait_streams(0)
    assert works < 2
    assert ended and ended[0] - first < 2
    assert pair.client.running


def test_stopped_and_started(workshop: Workshop) -> None:
    """A server ended by TERM and started again serves the same client on."""
    pair = workshop.pair()
    link = pair.server.link
    pair.server.terminate()
    server = workshop.restart(pair.server)
    assert server.link == link
    with Exchange() as target, socks.connect(pair.client.proxy, target.port) as sock:
        ask_exchange(sock, down=3, size=MIB)
        assert receive(sock, 3).size == MIB


def test_a_client_killed(workshop: Workshop) -> None:
    """The server ends the session of a client that is gone; the target sees a reset."""
    server = workshop.server("--allow", "localhost")
    client = workshop.client(server, "--session-timeout", "2")
    client.wait_subflows(6)
    with Exchange() as target:
        sock = socks.connect(client.proxy, target.port)
        ask_exchange(sock, up=1)
        target.wait_asked(1)
        client.kill()
        assert target.wait_end(1, 10) == "reset"
        sock.close()
    wait_until(lambda: server.snapshot()["sessions"] == [], 10, "the session to go")


def test_what_the_killed_leave_does_not_look_whole(workshop: Workshop) -> None:
    """Where nothing was left unread either: a reset at the local program, and at the target."""
    server = workshop.server("--allow", "localhost")
    clients = [workshop.client(server) for _ in range(2)]
    for client in clients:
        client.wait_subflows(6)
    with Exchange() as target:
        downloading = socks.connect(clients[0].proxy, target.port)
        ask_exchange(downloading, down=2, rate=MIB)
        receive(downloading, 2, MIB // 4)
        clients[0].kill()
        assert how_it_ends(downloading) == "reset"
        downloading.close()
        uploading = socks.connect(clients[1].proxy, target.port)
        ask_exchange(uploading, up=3)
        send(uploading, 3, MIB)
        target.wait_asked(3)
        server.kill()
        assert target.wait_end(3, 10) == "reset"
        uploading.close()
