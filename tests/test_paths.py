"""Several ways to one server, and what becomes of a transfer when one of them fails."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.ports import LOOPBACK, free_port
from support.processes import Process
from support.relay import Relay
from support.timing import in_time, measures_times
from support.transfers import transfer
from support.waiting import wait_until
from support.workshop import Pair, Workshop

MIB = 1 << 20


def by_path(process: Process) -> Counter[str]:
    """How many subflows there are on each."""
    return Counter(str(one["path"]) for one in process.subflows())


def paths(process: Process) -> dict[str, dict[str, Any]]:
    """What it says of each path."""
    return {str(one["path"]): one for one in process.snapshot()["paths"]}


@measures_times
def test_subflows_are_spread_and_one_way_may_go_dark(
    workshop: Workshop, relay: Callable[[int], Relay]
) -> None:
    """Six on two paths; a path that swallows everything, and refuses, costs no byte."""
    server = workshop.server("--allow", "localhost")
    middle = relay(server.port)
    ways = ["direct,bind=127.0.0.2", f"tcp://{LOOPBACK}:{middle.port}"]
    client = workshop.client(server, "--path", ways[0], "--path", ways[1])
    client.wait_subflows(6)
    client.wait_line(r"path +direct,bind=127.0.0.2, 3 of 3 subflows")
    assert by_path(client) == {ways[0]: 3, ways[1]: 3}
    with transfer(Pair(server, client), 8) as state:
        wait_until(
            lambda: all(one["rx"]["first"] > 0 for one in client.subflows()), 5, "all to carry"
        )
        links = [middle.blackhole(link) for link in middle.alive]
        middle.refuse()
        wait_until(lambda: by_path(client) == {ways[0]: 3}, 5, "the path to be given up")
        wait_until(lambda: bool(paths(client)[ways[1]]["last_error"]), 5, "the reason")
        assert [one["state"] for one in paths(client).values()] == ["up", "down"]
        middle.accept()
        wait_until(lambda: by_path(client)[ways[1]] == 3, 5, "the path to be back")
        client.wait_line(f"path {re.escape(ways[1])} is back")
        assert [one["state"] for one in paths(client).values()] == ["up", "up"]
    assert all(link.up.swallowed + link.down.swallowed > 0 for link in links)
    in_time(state.down.longest_gap < 1.5, state.down)


def test_a_relay_alone(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Only the ways that are listed are dialed, and the client says so."""
    server = workshop.server("--allow", "localhost")
    middle = relay(server.port)
    client = workshop.client(server, "--path", f"tcp://{LOOPBACK}:{middle.port}")
    client.wait_subflows(6)
    client.wait_line("direct is not used; --path direct adds it")
    assert len(middle.alive) == 6
    with Exchange() as target, socks.connect(client.proxy, target.port) as sock:
        ask_exchange(sock, down=2, size=MIB)
        assert receive(sock, 2).size == MIB
    client.wait_streams(0)


def test_an_address_and_a_card_that_are_not_there(workshop: Workshop) -> None:
    """One sentence names the path and what to look at; the other path carries on."""
    server = workshop.server("--allow", "localhost")
    client = workshop.client(
        server,
        *("--path", "direct", "--path", "direct,bind=192.0.2.1", "--path", "direct,nic=nowhere0"),
    )
    client.wait_line(r"cannot be dialed from an address that this machine lacks; check bind=")
    client.wait_line(r"cannot be dialed from nowhere0: no such device; check nic=")
    client.wait_subflows(2)
    assert by_path(client) == {"direct": 2}


def test_a_card(workshop: Workshop) -> None:
    """Dialed from the card that is named."""
    server = workshop.server("--allow", "localhost")
    client = workshop.client(server, "--path", "direct,nic=lo")
    client.wait_subflows(6)
    assert by_path(client) == {"direct,nic=lo": 6}


def test_congestion_control(workshop: Workshop) -> None:
    """Chosen by name at both ends; a name that the kernel lacks is one sentence, exit 1."""
    server = workshop.server("--allow", "localhost", "--congestion", "reno")
    client = workshop.client(server, "--congestion", "reno")
    client.wait_line(r"connected .*, 6 subflows, \d+ ms, reno$")
    result = workshop.command(
        "client", "--server", server.link, "--congestion", "nosuch", "--socks", str(free_port())
    )
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("--congestion nosuch: this kernel does not let us"), line
