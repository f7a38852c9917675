"""Ports that lead to one target, and proxy ports of a server: ways in that need no client."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from support import socks
from support.flows import how_it_ends, receive
from support.ports import LOOPBACK, free_port
from support.programs import program, run
from support.targets import AnswerAfterEnd, Banner, Echo, Refusing, Reset
from support.workshop import Client, Server, Workshop, hang_up

MIB = 1 << 20
NO_AGENT = r"no agent is there for exit attic"


class Desk(NamedTuple):
    """A client with a forwarded port to a target of each kind."""

    server: Server
    client: Client
    echo: int
    banner: int
    resets: int
    long: int
    nobody: int
    forbidden: int


@pytest.fixture(scope="module")
def desk(shared_workshop: Workshop) -> Iterator[Desk]:
    """One client for all tests of this module that leave nothing behind."""
    with (
        Echo() as echo,
        Banner(b"220 ready\r\n") as banner,
        Reset(3, MIB) as resets,
        AnswerAfterEnd(7, 10 * MIB) as long,
        Refusing() as nobody,
    ):
        targets = [one.port for one in (echo, banner, resets, long, nobody)]
        ports = [free_port() for _ in range(6)]
        words = [f"--forward={at}={LOOPBACK}:{to}" for at, to in zip(ports, targets, strict=False)]
        words.append(f"--forward={ports[5]}=192.0.2.1:80")
        server = shared_workshop.server("--allow", "localhost")
        client = shared_workshop.client(server, *words, "--exit", "server")
        client.wait_subflows(6)
        yield Desk(server, client, *ports)


def dial(port: int) -> socket.socket:
    """A connection to a forwarded port."""
    return socket.create_connection((LOOPBACK, port), 30)


def how_dialing_ends(port: int) -> str:
    """As L{how_it_ends}; a reset that is quick comes before the dialer is told of success."""
    try:
        with dial(port) as sock:
            return how_it_ends(sock)
    except ConnectionResetError:
        return "reset"


class TestForward:
    def test_both_ways(self, desk: Desk) -> None:
        """What is said comes back, and the end after it."""
        with dial(desk.echo) as sock:
            sock.sendall(b"hello" * 1000)
            sock.shutdown(socket.SHUT_WR)
            data = socks.read_exactly(sock, 5000)
            assert (data, sock.recv(1)) == (b"hello" * 1000, b"")

    def test_the_target_speaks_first(self, desk: Desk) -> None:
        """A program that waits for a greeting gets it."""
        with dial(desk.banner) as sock:
            assert socks.read_exactly(sock, 11) == b"220 ready\r\n"

    def test_half_close(self, desk: Desk) -> None:
        """A request, its end, and a long answer that comes whole."""
        with dial(desk.long) as sock:
            sock.sendall(b"question")
            sock.shutdown(socket.SHUT_WR)
            flow = receive(sock, 7)
        assert (flow.size, flow.end) == (10 * MIB, "whole")

    def test_a_target_that_resets(self, desk: Desk) -> None:
        """What came before arrives; then a reset."""
        with dial(desk.resets) as sock:
            flow = receive(sock, 3, MIB)
            sock.sendall(b"x")
            assert (flow.size, how_it_ends(sock)) == (MIB, "reset")

    def test_a_target_that_refuses(self, desk: Desk) -> None:
        """A reset, never an end; the log says why, and so for what is not allowed."""
        for port, why in ((desk.nobody, "refused"), (desk.forbidden, ": .*--allow")):
            since = len(desk.client.lines)
            assert how_dialing_ends(port) == "reset"
            desk.client.wait_line(f"refused: .*{why}", since=since)

    def test_the_user_is_told(self, desk: Desk) -> None:
        """Which port leads where, and how often it did."""
        desk.client.wait_line(rf"forward +{LOOPBACK}:{desk.echo} leads to {LOOPBACK}:\d+")
        counters = desk.client.snapshot()["counters"]
        assert counters["forward_opened"] >= 1 and "socks_opened" in counters

    def test_a_program_without_proxies(self, desk: Desk, tmp_path: Path) -> None:
        """C{nc} reads a greeting."""
        nc = program("nc", "netcat-openbsd")
        done = run([nc, "-N", "-w", "5", LOOPBACK, str(desk.banner)], tmp_path)
        assert done.stdout == b"220 ready\r\n"


def test_a_port_that_is_taken(workshop: Workshop) -> None:
    """One sentence and exit code 1."""
    with Echo() as taken:
        words = ("--server", "loopback:", "--forward", f"{taken.port}=localhost:1")
        done = workshop.command("client", *words, "--state", str(workshop.folder / "s"))
    assert done.returncode == 1
    assert f"--forward {LOOPBACK}:{taken.port} cannot be listened at".encode() in done.stderr


def test_an_agent_that_is_not_there(workshop: Workshop, echo: Echo) -> None:
    """A proxy's client gets reply 3 at once, and the log the exit's name."""
    server = workshop.server("--allow", "localhost")
    client = workshop.client(server, "--exit", "attic")
    client.wait_subflows(6)
    code, sock = socks.ask(client.proxy, LOOPBACK, echo.port)
    sock.close()
    assert code == socks.NET_UNREACHABLE
    client.wait_line(NO_AGENT)


def test_a_key_without_that_exit(workshop: Workshop, echo: Echo) -> None:
    """It is refused what it may not ask for, the server itself included."""
    server = workshop.server("--allow", "localhost")
    keys = server.state / "server" / "keys.toml"
    text = keys.read_text()
    keys.write_text(text.replace('role = "client"', 'role = "client"\nexits = ["attic"]'))
    hang_up(server)
    server.wait_line("read again: keys$")
    client = workshop.client(server)
    client.wait_subflows(6)
    code, sock = socks.ask(client.proxy, LOOPBACK, echo.port)
    sock.close()
    assert code == socks.NOT_ALLOWED
    client.wait_line("this key may not use the exit server")


class TestServersOwn:
    def test_proxy_port(self, workshop: Workshop, echo: Echo) -> None:
        """It reaches what the server may, and never the server's own ports."""
        proxy = free_port()
        words = ("--allow", "localhost", "--socks", str(proxy), "--exit", "server")
        server = workshop.server(*words)
        server.wait_line(rf"proxy +{LOOPBACK}:{proxy}, SOCKS5, SOCKS4, HTTP, leaves here")
        with socks.connect(proxy, echo.port) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
            for own in (proxy, server.port):
                code, other = socks.ask(proxy, LOOPBACK, own)
                other.close()
                assert code == socks.NOT_ALLOWED
            server.signal(signal.SIGTERM)
            server.wait_line("waiting up to 30 s")
            sock.sendall(b"still")
            assert socks.read_exactly(sock, 5) == b"still"

    def test_no_agent(self, workshop: Workshop, echo: Echo) -> None:
        """It is refused, or with a fallback reached from here."""
        proxy, port = free_port(), free_port()
        words = (
            "--allow=localhost",
            f"--socks={proxy}",
            f"--forward={port}={LOOPBACK}:{echo.port}",
        )
        server = workshop.server(*words)
        code, sock = socks.ask(proxy, LOOPBACK, echo.port)
        sock.close()
        assert code == socks.NET_UNREACHABLE
        assert how_dialing_ends(port) == "reset"
        server.terminate()
        workshop.server(*words, "--fallback", "direct")
        for sock in (socks.connect(proxy, echo.port), dial(port)):
            with sock:
                sock.sendall(b"hello")
                assert socks.read_exactly(sock, 5) == b"hello"

    def test_ports_with_exits_of_their_own(self, workshop: Workshop, echo: Echo) -> None:
        """As tables in a file."""
        ports = [free_port() for _ in range(4)]
        file = workshop.folder / "server.toml"
        file.write_text(
            f'allow = "localhost"\nexit = "attic"\n'
            f'[[socks]]\nlisten = {ports[0]}\n[[socks]]\nlisten = {ports[1]}\nexit = "server"\n'
            f'[[forward]]\nlisten = {ports[2]}\nto = "{LOOPBACK}:{echo.port}"\n'
            f'[[forward]]\nlisten = {ports[3]}\nto = "{LOOPBACK}:{echo.port}"\nexit = "server"\n'
        )
        server = workshop.server("--config", str(file))
        code, sock = socks.ask(ports[0], LOOPBACK, echo.port)
        sock.close()
        assert code == socks.NET_UNREACHABLE
        assert how_dialing_ends(ports[2]) == "reset"
        for sock in (socks.connect(ports[1], echo.port), dial(ports[3])):
            with sock:
                sock.sendall(b"hello")
                assert socks.read_exactly(sock, 5) == b"hello"
        counters = server.snapshot()["counters"]
        assert (counters["socks_opened"], counters["forward_opened"]) == (1, 1)
        assert counters["socks_refused"] == counters["forward_refused"] == {"no_worker": 1}

    def test_users(self, workshop: Workshop, echo: Echo) -> None:
        """Only those in the file come in."""
        login, proxy = ("joe", "sesame 5"), free_port()
        users = workshop.users(*login)
        words = ("--allow=localhost", "--exit=server", f"--socks=:{proxy}", f"--users={users}")
        workshop.server(*words)
        with socks.connect(proxy, echo.port, login=login) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
        with pytest.raises(socks.ProxyClosedError):
            socks.ask(proxy, LOOPBACK, echo.port)


def test_strangers_keep_no_session_out(workshop: Workshop, echo: Echo) -> None:
    """At a server's own port there are no more of them than leave room for those who have a key."""
    proxy = free_port()
    words = ("--allow", "localhost", "--socks", str(proxy), "--exit", "server")
    server = workshop.server(*words, style="few files")
    with ExitStack() as stack:
        taken = 0
        for _ in range(100):
            try:
                stack.enter_context(socks.connect(proxy, echo.port))
            except (OSError, AssertionError):
                break
            taken += 1
        assert 50 < taken < 80
        client = workshop.client(server)
        client.wait_subflows(6)
        sock = stack.enter_context(socks.connect(client.proxy, echo.port))
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
