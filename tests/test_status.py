"""The status port of each role, and agents that are drained, with real programs."""

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support import socks
from support.flows import receive
from support.ports import LOOPBACK, free_port
from support.programs import program, run
from support.targets import AnswerAfterEnd, Echo, Target
from support.waiting import wait_equal, wait_still, wait_until
from support.workshop import BIN, Agent, Server, Workshop

MIB = 1 << 20
PASSWORD = "correct-horse-battery"


class Answer(NamedTuple):
    """What curl got."""

    code: int
    headers: str
    body: str


@pytest.fixture
def curl(tmp_path: Path) -> Callable[..., Answer]:
    """Asks a port on loopback for a path."""

    def ask(port: int, path: str, *options: str) -> Answer:
        words = ["--silent", "--show-error", "--max-time", "20", "--include", "--noproxy", "*"]
        url = f"http://{LOOPBACK}:{port}{path}"
        done = run([program("curl", "curl"), *words, *options, url], tmp_path)
        assert done.returncode == 0, done.stderr
        head, _, body = done.stdout.decode().partition("\r\n\r\n")
        return Answer(int(head.split()[1]), head, body)

    return ask


def attic(workshop: Workshop, server: Server, *options: str) -> Agent:
    """An agent called attic, with two connections, that may reach its own machine."""
    fixed = ("--name", "attic", "--allow", "localhost", "--subflows", "2")
    return workshop.agent(server.agent_link, *fixed, *options)


def wait_agents(server: Server, *wanted: tuple[str, str], timeout: float = 10.0) -> None:
    """Until the server has exactly these."""
    wait_equal(lambda: sorted(server.agents()), sorted(wanted), timeout, "the agents")


class TestPages:
    def test_every_role(self, workshop: Workshop, curl: Callable[..., Answer]) -> None:
        """Each shows the snapshot of the control socket, and is well."""
        ports = [free_port() for _ in range(3)]
        places = [f"--status={port}" for port in ports]
        server = workshop.server("--allow", "localhost", places[0])
        client = workshop.client(server, places[1], subflows=2)
        agent = attic(workshop, server, places[2])
        client.wait_subflows(2)
        wait_agents(server, ("attic", "able"))
        for process, port in zip((server, client), ports, strict=False):
            process.wait_line(rf"  status +{LOOPBACK}:{port} +/status\.json")
        for process, port in zip((server, client, agent), ports, strict=True):
            answer = curl(port, "/status.json")
            process.snapshots.append(answer.body)
            snapshot = json.loads(answer.body)
            assert (answer.code, snapshot["version"]) == (200, 1)
            assert snapshot["pid"] == process.pid
            assert snapshot.keys() == process.snapshot().keys()
            assert "server:" not in answer.headers.lower()
            assert curl(port, "/healthz")[::2] == (200, "ok\n")
            assert curl(port, "/").code == 404
            assert curl(port, "/healthz", "--data", "x").code == 405
            assert curl(port, "/healthz", "--head").body == ""

    def test_ill(self, workshop: Workshop, curl: Callable[..., Answer]) -> None:
        """Without a session a client and an agent say what is the matter, until there is one."""
        server = workshop.server("--allow", "localhost")
        ports = [free_port() for _ in range(2)]
        server.terminate()
        client = workshop.client(server, f"--status={ports[0]}", subflows=2)
        agent = attic(workshop, server, f"--status={ports[1]}")
        for process, port in zip((client, agent), ports, strict=True):
            process.wait_line("refuses connections")
            code, _, why = curl(port, "/healthz")
            assert code == 503 and "refuses connections" in why and why.count("\n") == 1
        workshop.restart(server)
        for port in ports:
            wait_until(lambda port=port: curl(port, "/healthz").code == 200, 10, "health")

    def test_about_to_leave(
        self, workshop: Workshop, curl: Callable[..., Answer], echo: Echo
    ) -> None:
        """While streams finish nothing new is taken, and both ends say so."""
        ports = [free_port() for _ in range(2)]
        server = workshop.server("--allow", "localhost", f"--status={ports[0]}")
        client = workshop.client(server, f"--status={ports[1]}", subflows=2)
        with socks.connect(client.proxy, echo.port) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
            server.signal(signal.SIGTERM)
            for port in ports:
                wait_until(lambda port=port: curl(port, "/healthz").code == 503, 5, "the news")
                assert "shutting down" in curl(port, "/healthz").body
        server.wait()

    def test_large_slow_or_wrong(self, workshop: Workshop, curl: Callable[..., Answer]) -> None:
        """What is too large or no HTTP is refused, and no trace of it is in the log."""
        port = free_port()
        server = workshop.server(f"--status={port}")
        assert curl(port, "/healthz", "--header", "X: " + "y" * 9000).code == 413
        assert curl(port, "/healthz", "--header", "Host: evil.example").code == 403
        for nonsense in (b"\x16\x03\x01\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"\x05\x01\x00\r\n"):
            with socket.create_connection((LOOPBACK, port), 10) as sock:
                sock.sendall(nonsense)
                assert sock.recv(100).startswith(b"HTTP/1.1 400 ")
        assert curl(port, "/healthz").code == 200
        assert "Traceback" not in server.log and "evil" not in server.log


class TestAgent:
    def test_shown(self, workshop: Workshop) -> None:
        """Its name and its servers: how it is connected, or why not."""
        servers = [workshop.server() for _ in range(2)]
        more = str(workshop.link_file(servers[1].agent_link))
        agent = attic(workshop, servers[0], "--server", more)
        for server in servers:
            wait_agents(server, ("attic", "able"))
        servers[1].terminate()
        agent.wait_line("refuses connections")
        runtime = str(agent.control_socket().parent.parent)
        shown = workshop.command("status", XDG_RUNTIME_DIR=runtime).stdout.decode()
        assert shown.startswith(f"agent attic  pid {agent.pid}"), shown
        up, down = (f"{LOOPBACK}:{server.port}" for server in servers)
        assert re.search(rf"^  {up} +connected +[0-9]+ s +[0-9.]+ ms +0 +0 B +0 B$", shown, re.M), (
            shown
        )
        assert re.search(rf"^  {down} +away .*refuses connections", shown, re.M), shown


class TestUsers:
    def test_password(self, workshop: Workshop, curl: Callable[..., Answer]) -> None:
        """Wrong, missing and right, beyond loopback."""
        users, port = workshop.users("ann", PASSWORD), free_port()
        server = workshop.server(f"--status=:{port}", f"--status-users={users}")
        for options in ((), ("--user", "ann:wrong"), ("--user", f"bob:{PASSWORD}")):
            answer = curl(port, "/status.json", *options)
            assert answer.code == 401 and "Basic" in answer.headers
            assert "pid" not in answer.body
        answer = curl(port, "/status.json", "--user", f"ann:{PASSWORD}")
        assert json.loads(answer.body)["pid"] == server.pid

    @pytest.mark.parametrize("role", ["server", "client", "agent"])
    def test_beyond_loopback_without_users(self, workshop: Workshop, role: str) -> None:
        """One sentence and exit code 1."""
        link = f"stripetwist://agent-1:{'A' * 43}@{LOOPBACK}:{free_port()}/{'A' * 43}"
        more = {"server": [], "client": ["--server", "loopback:"]}
        words = more.get(role, ["--server", str(workshop.link_file(link)), "--allow", "lan"])
        where = ["--state", str(workshop.folder / "state"), "--status", ":8888"]
        done = workshop.command(role, *words, *where)
        said = done.stderr.decode()
        assert (done.returncode, said.count("\n")) == (1, 1), said
        assert said.startswith("--status :8888 is open to other machines; say who may see it")


class EndFirst(Target):
    """Ends what it has to say at once, and reads only when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.got = 0
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """See L{Target}."""
        sock.shutdown(socket.SHUT_WR)
        self.go.wait(30)
        while data := sock.recv(65536):
            self.got += len(data)


class TestDrain:
    def drain(self, server: Server, name: str) -> subprocess.CompletedProcess[bytes]:
        """What C{stripetwist drain} says, beside that server."""
        runtime = str(server.control_socket().parent.parent)
        return run([BIN / "stripetwist", "drain", name], server.state, XDG_RUNTIME_DIR=runtime)

    def test_a_running_transfer(self, workshop: Workshop) -> None:
        """It comes whole; what is new goes elsewhere, or is refused where nobody else is."""
        proxy, size = free_port(), 40 * MIB
        server = workshop.server(f"--socks={proxy}")
        agent = attic(workshop, server)
        wait_agents(server, ("attic", "able"))
        with AnswerAfterEnd(9, size) as target, Echo() as echo:
            with socks.connect(proxy, target.port) as sock:
                sock.shutdown(socket.SHUT_WR)
                server.wait_streams(1)
                done = self.drain(server, "attic")
                assert done.returncode == 0, done.stderr
                assert b"attic gets no more streams, and is let go once the one" in done.stdout
                assert server.agents() == [("attic", "draining")]
                code, refused = socks.ask(proxy, LOOPBACK, echo.port)
                refused.close()
                assert code == socks.NET_UNREACHABLE
                barn = ("--name", "barn", "--allow", "localhost", "--subflows", "2")
                workshop.agent(server.agent_link, *barn)
                wait_agents(server, ("attic", "draining"), ("barn", "able"))
                with socks.connect(proxy, echo.port) as other:
                    other.sendall(b"hello")
                    assert socks.read_exactly(other, 5) == b"hello"
                # More than can be under way: it was not over before this.
                flow = receive(sock, 9)
            assert (flow.size, flow.end) == (size, "whole")
        wait_agents(server, ("barn", "able"))
        agent.wait_line("has drained this agent, which dials again in 10 minutes")
        assert agent.running and agent.snapshot()["sessions"] == []

    def test_what_the_target_has_not_read(self, workshop: Workshop) -> None:
        """It is waited for, though nothing is left of the stream at the server."""
        proxy = free_port()
        server = workshop.server(f"--socks={proxy}")
        attic(workshop, server)
        wait_agents(server, ("attic", "able"))
        with EndFirst() as target, socks.connect(proxy, target.port) as sock:
            sock.sendall(bytes(6 * MIB))
            sock.shutdown(socket.SHUT_WR)
            server.wait_streams(0)
            assert self.drain(server, "attic").returncode == 0
            wait_still(server.agents, 1, 5, "the agents")
            assert server.agents() == [("attic", "draining")]
            target.go.set()
            wait_agents(server)
            wait_equal(lambda: target.got, 6 * MIB, 5, "what the target got")

    def test_idle_and_unknown(self, workshop: Workshop) -> None:
        """An idle one goes at once, and is able again when it is started anew."""
        server = workshop.server()
        done = self.drain(server, "attic")
        assert done.returncode == 1
        assert done.stderr == b'there is no agent "attic" here; there is none at all\n'
        agent = attic(workshop, server)
        wait_agents(server, ("attic", "able"))
        done = self.drain(server, "cellar")
        assert done.stderr == b'there is no agent "cellar" here; there is attic\n'
        assert self.drain(server, "attic").stdout.endswith(b"has none, and is let go\n")
        wait_agents(server)
        agent.terminate()
        fixed = ("--name", "attic", "--allow", "localhost", "--subflows", "2")
        workshop.agent(server.agent_link, *fixed, state=agent.state)
        wait_agents(server, ("attic", "able"))
