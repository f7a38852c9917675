"""
Servers and clients made for a test, and looked at once more when it is over.

At the end no log may hold a traceback, and no log and no snapshot a secret.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.places import Place

from support.ports import LOOPBACK, free_port
from support.processes import Process
from support.programs import plain_environment, run

BIN = Path(sys.executable).parent
# A user of a proxy port, and a password that has to be quoted in a URL.
LOGIN = ("alice", "correct horse/staple")
CENSUS = Path(__file__).with_name("census.py")
STYLES = {
    "twistd": lambda role: [str(BIN / "twistd"), "-n", "--pidfile=", f"stripe-{role}"],
    "console": lambda role: [str(BIN / "stripetwist"), role],
    "few files": lambda role: [
        "sh",
        "-c",
        'ulimit -n 200; exec "$@"',
        "sh",
        *STYLES["twistd"](role),
    ],
    "census": lambda role: [sys.executable, str(CENSUS), f"stripe-{role}"],
}


class Server(Process):
    """
    A running server.

    @ivar port: where peers dial in.
    @ivar state: its state folder, as given to C{--state}.
    """

    port: int
    state: Path
    options: tuple[str, ...]

    @property
    def link_file(self) -> Path:
        """The file with the link that clients get."""
        return self.state / "server" / "client.link"

    @property
    def link(self) -> str:
        """That link."""
        return self.link_file.read_text().strip()

    @property
    def agent_link(self) -> str:
        """The link that agents get."""
        return self.link_file.with_name("agent.link").read_text().strip()

    def agents(self) -> list[tuple[str, str]]:
        """The agents there are: name and state."""
        return [(one["name"], one["state"]) for one in self.snapshot()["agents"]]


class Client(Process):
    """
    A running client.

    @ivar proxy: its proxy port.
    """

    proxy: int


class Agent(Process):
    """
    A running agent.

    @ivar state: its state folder, as given to C{--state}.
    """

    state: Path
    options: tuple[str, ...]


class Pair(NamedTuple):
    """A server and a client of it."""

    server: Server
    client: Client


class Workshop:
    """
    Where a test's processes are made and kept.

    @ivar folder: files of the test; also the home of what it starts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []
        self._runtimes: list[Path] = []
        self._secrets: set[str] = set()
        self._made = 0

    def server(
        self,
        *options: str,
        port: int = 0,
        state: Path | None = None,
        style: str = "twistd",
        place: Place | None = None,
        host: str = LOOPBACK,
    ) -> Server:
        """
        Start a server and wait until it listens.

        @param place: where it runs, if not here.
        @param host: its address there.
        """
        port = port or free_port()
        state = state or self._new_folder("server-state")
        address = f"{host}:{port}"
        fixed = ("--listen", address, "--advertise", address, "--state", str(state))
        command = _inside(place, STYLES[style]("server") + [*fixed, *options])
        server = self._start(Server, command)
        server.port, server.state, server.options = port, state, options
        server.wait_line(rf"\blistens\b.*\b{port}\b")
        server.wait_listening(port)
        self._learn_secrets(state)
        return server

    def restart(self, server: Server) -> Server:
        """Start a server that has ended once more: same port, same state."""
        return self.server(*server.options, port=server.port, state=server.state)

    def client(
        self,
        server: "Server | str",
        *options: str,
        through: int = 0,
        subflows: int | str = 6,
        style: str = "twistd",
        **environment: str,
    ) -> Client:
        """
        Start a client and wait until its proxy port listens.

        @param server: a server, whose link is put into a file of the client's, or a
            value for C{--server}.
        @param through: the port of a relay to dial instead of the server's own.
        """
        if isinstance(server, Server):
            server = str(self.link_file(server.link, through))
        proxy = free_port()
        fixed = ["--server", server, "--socks", f"{LOOPBACK}:{proxy}"]
        fixed += ["--state", str(self._new_folder("client-state"))]
        fixed += ["--subflows", str(subflows)]
        command = STYLES[style]("client") + [*fixed, *options]
        client = self._start(Client, command, **environment)
        client.proxy = proxy
        client.wait_listening(proxy)
        return client

    def agent(
        self,
        link: str,
        *options: str,
        state: Path | None = None,
        style: str = "twistd",
        place: Place | None = None,
    ) -> Agent:
        """Start an agent with that link, here or in another place; it need not find a server."""
        state = state or self._new_folder("agent-state")
        fixed = ("--server", str(self.link_file(link)), "--state", str(state))
        command = _inside(place, STYLES[style]("agent") + [*fixed, *options])
        agent = self._start(Agent, command)
        agent.state, agent.options = state, options
        return agent

    def loopback(self, *options: str, **more: str) -> Client:
        """Start a client with its server side inside."""
        return self.client("loopback:", *options, **more)

    def pair(self, *options: str, allow: str = "localhost", subflows: int = 6) -> Pair:
        """
        A server that may reach loopback, and a client with all its subflows up.

        @param options: for both of them.
        """
        server = self.server("--allow", allow, *options)
        client = self.client(server, *options, subflows=subflows)
        client.wait_subflows(subflows)
        return Pair(server, client)

    def link_file(self, link: str, through: int = 0) -> Path:
        """A file with a link, edited to lead to another port where one is given."""
        self.secret(link.split("//")[1].split("@")[0].split(":")[1])
        if through:
            link = re.sub(r"@[^/]*/", f"@{LOOPBACK}:{through}/", link)
        file = self._new_folder("link") / "client.link"
        file.touch(0o600)
        file.write_text(link + "\n")
        return file

    def command(
        self, *words: str, stdin: bytes = b"", timeout: float = 60.0, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run C{stripetwist} with these words to its end."""
        line = [BIN / "stripetwist", *words]
        return run(line, self.folder, stdin, timeout, **environment)

    def users(self, user: str, password: str) -> Path:
        """A file with a user, for C{--users}."""
        file = self.folder / "users"
        line = f"{self.secret(password)}\n".encode()
        done = self.command("passwd", str(file), user, stdin=line)
        assert done.returncode == 0, done.stderr
        assert file.stat().st_mode & 0o077 == 0
        return file

    def secret(self, text: str) -> str:
        """Mark a text that no log and no snapshot may ever hold; returned as given."""
        self._secrets.add(text)
        return text

    def close(self) -> None:
        """End all processes, and say what is wrong with what they left behind."""
        wrong = []
        for process in reversed(self._processes):
            try:
                if process.running:
                    process.terminate()
            except AssertionError as error:
                wrong.append(str(error))
        for process in self._processes:
            wrong += self._faults(process)
        for runtime in self._runtimes:
            shutil.rmtree(runtime, ignore_errors=True)
        self._processes.clear()
        assert not wrong, "\n".join(wrong)

    def _faults(self, process: Process) -> list[str]:
        faults = []
        if process.noise():
            faults.append(f"a log with a traceback:\n{process.log[-6000:]}")
        for text in (process.log, *process.snapshots):
            faults += [
                f"a secret stands in a log or snapshot: ...{text[max(0, at - 80) : at]}[here]"
                for at in (text.find(secret) for secret in self._secrets)
                if at >= 0
            ]
        return faults

    def _start(self, kind: type, command: list[str], **environment: str):  # type: ignore[no-untyped-def]
        runtime = Path(tempfile.mkdtemp(prefix="stw-"))
        self._runtimes.append(runtime)
        more = {"PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(runtime), **environment}
        whole = plain_environment(self.folder, **more)
        process = kind(command, self.folder, runtime, whole)
        self._processes.append(process)
        return process

    def _new_folder(self, name: str) -> Path:
        self._made += 1
        folder = self.folder / f"{name}-{self._made}"
        folder.mkdir(mode=0o700)
        return folder

    def _learn_secrets(self, state: Path) -> None:
        for file in state.rglob("keys.toml"):
            for secret in re.findall(r'secret2?\s*=\s*"([^"]+)"', file.read_text()):
                self.secret(secret)


def _inside(place: Place | None, command: list[str]) -> list[str]:
    return command if place is None else place.inside(command)


def hang_up(process: Process) -> None:
    """Have it read its files again."""
    process.signal(signal.SIGHUP)
