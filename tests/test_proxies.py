"""Sessions over real proxies, and proxies that fail in every way."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from support import proxies, socks
from support.exchange import Exchange, ask_exchange
from support.flows import receive, send
from support.proxies import PASSWORD, USER, Proxy
from support.workshop import Client, Workshop

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


def carries(client: Client, size: int = 10 * MIB) -> None:
    """That much each way, one after the other, arrives as it was sent."""
    with Exchange() as target:
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, down=2, size=size)
            assert receive(sock, 2).size == size
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, up=3)
            send(sock, 3, size)
            sock.shutdown(1)
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
        client.wait_line(f"path +{proxy.path()}, 6 of 6 subflows")
        client.wait_line("direct is not used; --path direct adds it")
        carries(client)


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
