"""
One transfer over three paths of different kind, while each in turn is cut, stalled, restored.

To the server itself, over a SOCKS proxy and over an HTTP proxy; before each of these stands a
relay that breaks the way there.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import proxies
from support.ports import LOOPBACK
from support.relay import Relay
from support.timing import in_time, measures_times
from support.transfers import transfer
from support.waiting import wait_until
from support.workshop import Client, Pair, Workshop

AGAIN = 2.0
STALLED = 2.0
SECONDS = 30.0


@contextmanager
def three_kinds(folder: Path, server: int) -> Iterator[dict[str, Relay]]:
    """The relays, by the path that leads through each; every path has two connections."""
    with ExitStack() as stack:
        proxy = stack.enter_context(proxies.microsocks(folder))
        other = stack.enter_context(proxies.tinyproxy(folder))
        places = {"tcp": server, proxy.scheme: proxy.port, other.scheme: other.port}
        relays = {kind: stack.enter_context(Relay(port)) for kind, port in places.items()}
        yield {
            f"{kind}://{LOOPBACK}:{relay.port},subflows=2": relay for kind, relay in relays.items()
        }


def received(client: Client, path: str) -> int:
    """Bytes of streams that came over those connections of a path that are up."""
    return sum(one["rx"]["first"] for one in client.subflows() if one["path"] == path)


def wait_used(client: Client, path: str, timeout: float) -> None:
    """Until bytes come over that path, which is to be within that time."""
    before, start = received(client, path), time.monotonic()
    wait_until(lambda: received(client, path) > before, 10, f"bytes over {path}")
    took = time.monotonic() - start
    in_time(took <= timeout, f"{took:.2f} s until bytes came over {path}")


def refuse_and_stall(relay: Relay) -> None:
    """Nothing more goes through; the connections that are up stay so."""
    relay.refuse()
    links = relay.alive
    assert links
    for link in links:
        relay.stall(link)


def restore(relay: Relay) -> None:
    """Let everything through again."""
    for link in relay.alive:
        relay.resume(link)
    relay.accept()


def strike(client: Client, path: str, relay: Relay) -> None:
    """Cut a path, have it back, stall it, have it back: it is used again at once, each time."""
    wait_used(client, path, AGAIN)
    relay.refuse()
    assert relay.cut_all() == 2
    wait_until(lambda: not received(client, path), AGAIN, f"{path} to be gone")
    time.sleep(1)
    relay.accept()
    wait_used(client, path, AGAIN)
    refuse_and_stall(relay)
    stalled_at, carried = time.monotonic(), sum(link.down.carried for link in relay.links)
    time.sleep(STALLED)
    assert sum(link.down.carried for link in relay.links) == carried
    restore(relay)
    wait_used(client, path, AGAIN)
    print(f"{path}: back {time.monotonic() - stalled_at - STALLED:.2f} s after it was stalled")


@pytest.mark.demanding
@measures_times
def test_each_in_turn(workshop: Workshop, tmp_path: Path) -> None:
    """Every byte arrives as it was sent; a path that comes back is used within two seconds."""
    server = workshop.server("--allow", "localhost")
    with three_kinds(tmp_path, server.port) as relays:
        client = workshop.client(server, *(w for path in relays for w in ("--path", path)))
        client.wait_subflows(6)
        with transfer(Pair(server, client), SECONDS) as state:
            for path, relay in relays.items():
                strike(client, path, relay)
        in_time(state.down.longest_gap < 1, state.down)
        print(f"longest gap {state.down.longest_gap:.3f} s")
