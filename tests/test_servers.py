"""A client with two servers that die and return; servers that are reached by IPv6."""

import re
import signal
import time
from pathlib import Path

from support import socks
from support.ports import LOOPBACK, free_port
from support.programs import program, succeed
from support.targets import Echo
from support.timing import in_time, measures_times
from support.waiting import wait_equal, wait_until
from support.workshop import Client, Server, Workshop

SESSIONS = 2


def streams(client: Client) -> dict[str, int]:
    """How many streams are carried by the session to each server."""
    sessions = client.snapshot()["sessions"]
    return {str(one["name"]): int(one["streams"]["open"]) for one in sessions}


def name(server: Server) -> str:
    """What a client calls it."""
    return f"{LOOPBACK}:{server.port}"


def echoes(sock: object, word: bytes) -> bool:
    """Whether a word comes back."""
    sock.sendall(word)  # type: ignore[attr-defined]
    return socks.read_exactly(sock, len(word)) == word  # type: ignore[arg-type]


@measures_times
def test_the_preferred_one_dies_and_returns(workshop: Workshop, echo: Echo) -> None:
    """New streams go to the other at once, and back; those that it has live on there."""
    first, second = (workshop.server("--allow", "localhost") for _ in range(SESSIONS))
    more = ("--server", str(workshop.link_file(second.link)))
    client = workshop.client(first, *more, subflows=3)
    for server in (first, second):
        client.wait_line(rf"connected +{name(server)}, 3 subflows")
    before = socks.connect(client.proxy, echo.port)
    assert echoes(before, b"one")
    assert streams(client) == {name(first): 1, name(second): 0}

    first.kill()
    killed = time.monotonic()
    with socks.connect(client.proxy, echo.port) as during:
        took = time.monotonic() - killed
        assert echoes(during, b"two")
        print(f"a stream over the second server {took * 1000:.0f} ms after the kill")
        in_time(took < 2, took)
        assert f"new streams go to {name(second)} now" in client.log
        before.close()

        first = workshop.restart(first)
        back = time.monotonic()

        def returned() -> bool:
            with socks.connect(client.proxy, echo.port) as after:
                return echoes(after, b"three") and f"streams go to {name(first)} now" in client.log

        wait_until(returned, 10, "new streams at the first server")
        print(f"new streams return {time.monotonic() - back:.2f} s after the restart")
        assert echoes(during, b"four")
        wait_equal(lambda: streams(client)[name(second)], 1, 5, "the stream that stays there")


@measures_times
def test_the_preferred_one_is_frozen(workshop: Workshop, echo: Echo) -> None:
    """It answers nothing and closes nothing: who asks a little later is served by the other."""
    first, second = (workshop.server("--allow", "localhost") for _ in range(SESSIONS))
    client = workshop.client(first, "--server", str(workshop.link_file(second.link)))
    for server in (first, second):
        client.wait_line(rf"connected +{name(server)}, 6 subflows")
    first.signal(signal.SIGSTOP)
    try:
        frozen = time.monotonic()
        with socks.dial(client.proxy) as stuck:
            socks.greet(stuck)
            stuck.sendall(socks.request(LOOPBACK, echo.port))

            def served() -> bool:
                with socks.dial(client.proxy, timeout=0.5) as sock:
                    socks.greet(sock)
                    sock.sendall(socks.request(LOOPBACK, echo.port))
                    try:
                        return socks.read_reply(sock) == socks.SUCCEEDED
                    except TimeoutError:
                        return False

            wait_until(served, 10, "a stream at the second server")
            took = time.monotonic() - frozen
            print(f"streams go to the second server {took:.2f} s after the first froze")
            in_time(took < 4, took)
    finally:
        first.signal(signal.SIGCONT)


def test_status_shows_all(workshop: Workshop) -> None:
    """A session with each, in the order in which they are preferred."""
    servers = [workshop.server() for _ in range(SESSIONS)]
    more = ("--server", str(workshop.link_file(servers[1].link)))
    client = workshop.client(servers[0], *more, subflows=2)
    for server in servers:
        client.wait_line(rf"connected +{name(server)}")
    runtime = str(client.control_socket().parents[1])
    shown = workshop.command("status", XDG_RUNTIME_DIR=runtime).stdout.decode()
    assert re.findall(r"session \S+ client client-1 (\S+)", shown) == list(map(name, servers))


def test_ipv6(workshop: Workshop, echo: Echo, tmp_path: Path) -> None:
    """A server on [::1], a link that says so, and a path that dials from there."""
    port = free_port()
    address = f"[::1]:{port}"
    server = workshop.server("--listen", address, "--allow", "localhost")
    link = str(workshop.link_file(server.link.replace(name(server), address)))
    client = workshop.client(link, "--path", "direct,bind=::1", subflows=2)
    client.wait_line(rf"connected +{re.escape(address)}, 2 subflows")
    client.wait_line("path +direct,bind=::1, 2 of 2 subflows")
    proxy = ["-X", "5", "-x", f"{LOOPBACK}:{client.proxy}"]
    command = [program("nc", "netcat-openbsd"), "-N", *proxy, LOOPBACK, str(echo.port)]
    assert succeed(command, tmp_path, b"hello") == b"hello"
