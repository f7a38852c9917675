"""Sessions over real proxies, and proxies that fail in every way."""

import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import pytest
from support import proxies, socks
from support.crooked import Crooked
from support.exchange import Exchange, ask_exchange
from support.flows import receive, send
from support.ports import LOOPBACK, listener
from support.proxies import PASSWORD, USER, Proxy
from support.timing import in_time, measures_times
from support.transfers import transfer
from support.waiting import wait_until
from support.workshop import Client, Pair, Workshop

MIB = 1 << 20
LOGIN = f"{USER}:{PASSWORD}"

Start = Callable[[Path], AbstractContextManager[Proxy]]
OPEN: dict[str, Start] = {
    "microsocks": proxies.microsocks,
    "ssh -D": proxies.ssh_proxy,
    "tinyproxy": proxies.tinyproxy,
    "ncat": proxies.ncat,
}
LOCKED: dict[str, Start] = {
    "microsocks": partial(proxies.microsocks, login=True),
    "danted": proxies.danted,
    "tinyproxy": partial(proxies.tinyproxy, login=True),
    "ncat": partial(proxies.ncat, login=True),
}


def by_path(client: Client) -> Counter[str]:
    """How many subflows there are on each."""
    return Counter(str(one["path"]) for one in client.subflows())


def carries(client: Client, size: int = 10 * MIB) -> None:
    """That much each way, one after the other, arrives as it was sent."""
    with Exchange() as target:
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, down=2, size=size)
            assert receive(sock, 2).size == size
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, up=3)
            send(sock, 3, size)
            sock.shutdown(socket.SHUT_WR)
            assert target.wait_end(3) == "whole"
            assert target.received[3] == size
    client.wait_streams(0)


@pytest.mark.parametrize("name", OPEN)
def test_a_session_over_each(workshop: Workshop, tmp_path: Path, name: str) -> None:
    """All subflows come up over it, and what they carry arrives."""
    server = workshop.server("--allow", "localhost")
    with OPEN[name](tmp_path) as proxy:
        client = workshop.client(server, "--path", proxy.path())
        client.wait_subflows(6)
        client.wait_line(rf"path +{proxy.path()}, 6 of 6 subflows")
        client.wait_line("direct is not used; --path direct adds it")
        carries(client)


def test_all_kinds_at_once(workshop: Workshop, tmp_path: Path) -> None:
    """One stream goes over all of them, each with as many subflows as it says."""
    server = workshop.server("--allow", "localhost")
    with proxies.microsocks(tmp_path, host="::1") as one, proxies.tinyproxy(tmp_path) as other:
        assert one.path().startswith("socks://[::1]:")
        paths = {"direct,subflows=1": 1, one.path(): 3, f"{other.path()},subflows=2": 2}
        chosen = [word for path in paths for word in ("--path", path)]
        client = workshop.client(server, *chosen)
        client.wait_subflows(6)
        assert by_path(client) == paths
        carries(client, 40 * MIB)
        carried = Counter[str]()
        for flow in client.subflows():
            carried[flow["path"]] += flow["rx"]["first"]
        assert min(carried.values()) > MIB, carried


def test_an_agent_over_a_proxy(workshop: Workshop, tmp_path: Path) -> None:
    """Agents take the same paths, and say so."""
    server = workshop.server()
    with proxies.microsocks(tmp_path) as proxy:
        agent = workshop.agent(server.agent_link, "--allow", "lan", "--path", proxy.path())
        agent.wait_line(rf"path +{proxy.path()}, 6 of 6 subflows")
        agent.wait_line("direct is not used; --path direct adds it")


@pytest.mark.parametrize("name", LOCKED)
def test_a_login(workshop: Workshop, tmp_path: Path, name: str) -> None:
    """With it a session comes up; without it, or with another one, a sentence says so."""
    server = workshop.server("--allow", "localhost")
    workshop.secret(PASSWORD)
    wrong = workshop.secret("guessed-by-carol")
    with LOCKED[name](tmp_path) as proxy:
        nobody = workshop.client(server, "--path", proxy.path())
        nobody.wait_line(f"path {proxy.path()}: it wants a login: write {proxy.scheme}://USER")
        other = workshop.client(server, "--path", proxy.path(f"{USER}:{wrong}"))
        other.wait_line(f"path {proxy.path()}: it does not accept this user name and password")
        other.snapshot()
        client = workshop.client(server, "--path", proxy.path(LOGIN))
        client.wait_subflows(6)
        carries(client)
        client.snapshot()


def test_a_port_that_is_not_allowed(workshop: Workshop, tmp_path: Path) -> None:
    """What most proxies in offices do: the sentence says how to get by."""
    server = workshop.server("--allow", "localhost")
    with proxies.tinyproxy(tmp_path, connect_port=443) as proxy:
        client = workshop.client(server, "--path", proxy.path())
        client.wait_line(
            f"path {proxy.path()}: it does not allow CONNECT to port {server.port} "
            r"\(403\): many allow only 443; start the server with --listen 443"
        )


@pytest.mark.parametrize("name", OPEN)
def test_a_server_that_is_away(workshop: Workshop, tmp_path: Path, name: str) -> None:
    """Whatever the proxy makes of that, it is one sentence; and the session comes up later."""
    server = workshop.server("--allow", "localhost")
    link = server.link
    server.terminate()
    with OPEN[name](tmp_path) as proxy:
        client = workshop.client(link, "--path", proxy.path())
        client.wait_line(
            f"path {proxy.path()}: it .*(start the server|check that the server is up)"
        )
        workshop.restart(server)
        client.wait_subflows(6)


def test_one_that_stays_silent(workshop: Workshop) -> None:
    """After ten seconds a sentence; the direct way is not kept waiting."""
    server = workshop.server("--allow", "localhost")
    with listener() as silent:
        path = f"socks://{LOOPBACK}:{silent.getsockname()[1]}"
        began = time.monotonic()
        client = workshop.client(server, "--path", "direct", "--path", path)
        client.wait_subflows(3, 5)
        carries(client, MIB)
        client.wait_line(f"path {path}: it takes connections but has not answered within 10 s")
        assert 9 < time.monotonic() - began < 16


@measures_times
@pytest.mark.parametrize("how", [Crooked.resetting, Crooked.flipping])
def test_one_that_spoils_connections(
    workshop: Workshop, how: Callable[[Crooked], Callable[[int, bytes], bytes | None]]
) -> None:
    """At a random byte, in its answer or behind it: the other path goes on, and all arrives."""
    server = workshop.server("--allow", "localhost")
    with Crooked() as proxy:
        proxy.tampers = lambda: how(proxy)
        client = workshop.client(server, "--path", "direct", "--path", proxy.path)
        wait_until(lambda: by_path(client)["direct"] == 3, 10, "the direct way")
        with transfer(Pair(server, client), 5) as state:
            pass
        assert proxy.deeds >= 3
        in_time(state.down.longest_gap < 1.5, state.down)
        assert by_path(client)["direct"] == 3
        # Each reason once, and again when one of these connections has worked for a while.
        assert 1 <= len(re.findall(r"#warn\] .*\b127", client.log)) <= 8


def test_one_that_replays(workshop: Workshop) -> None:
    """What opened a session, or joined it, opens and joins nothing when it is said again."""
    server = workshop.server("--allow", "localhost")
    with Crooked() as proxy:
        client = workshop.client(server, "--path", proxy.path)
        client.wait_subflows(6)
        before = server.snapshot()["sessions"]
        assert len(proxy.uploads) == 6
        for upload in [bytes(one) for one in proxy.uploads]:
            assert len(upload) > 500
            with socket.create_connection((LOOPBACK, server.port)) as sock:
                sock.settimeout(20)
                sock.sendall(upload)
                with suppress(ConnectionError):
                    while sock.recv(65536):
                        pass
        after = server.snapshot()["sessions"]
        assert [one["id"] for one in after] == [one["id"] for one in before]
        ids = [sorted(flow["id"] for flow in one["subflows"]) for one in (*before, *after)]
        assert ids == [[1, 2, 3, 4, 5, 6]] * 2
        carries(client, MIB)
