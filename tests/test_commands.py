"""The console script: keys, users and what runs."""

import json
import os
import re
import subprocess

import pytest
from support import socks
from support.programs import plain_environment
from support.targets import Echo
from support.workshop import BIN, Pair, Server, Workshop


@pytest.fixture(scope="module")
def server(shared_workshop: Workshop) -> Server:
    """A server for the module."""
    return shared_workshop.server("--allow", "localhost")


class TestKeys:
    def test_first_keys_are_listed(self, shared_workshop: Workshop, server: Server) -> None:
        """A client's and an agent's, with their roles, without their secrets."""
        listed = self.key(shared_workshop, server, "list")
        assert re.search(r"\bclient\b", listed) and re.search(r"\bagent\b", listed)
        assert server.link.split(":")[2].split("@")[0] not in listed

    def test_added_shown_revoked(self, shared_workshop: Workshop, server: Server) -> None:
        """A key of its own for somebody, whose link leads to this server."""
        self.key(shared_workshop, server, "add", "phone")
        shown = self.key(shared_workshop, server, "show", "phone")
        link = re.search(r"stripetwist://phone:\S+", shown)
        assert link and link[0].split("@")[1] == server.link.split("@")[1]
        assert "phone" in self.key(shared_workshop, server, "list")
        self.key(shared_workshop, server, "revoke", "phone")
        assert "phone" not in self.key(shared_workshop, server, "list")

    @pytest.mark.parametrize("words", [("show", "nobody"), ("revoke", "nobody"), ("add", "Bad!")])
    def test_what_cannot_be(
        self, shared_workshop: Workshop, server: Server, words: tuple[str, ...]
    ) -> None:
        """One sentence, exit code 1."""
        done = shared_workshop.command("key", *words, "--state", str(server.state))
        said = (done.stdout + done.stderr).decode().strip()
        assert done.returncode == 1 and len(said.splitlines()) == 1
        assert "key" in said and "Traceback" not in said

    def key(self, workshop: Workshop, server: Server, *words: str) -> str:
        """The output of a C{stripetwist key} command that succeeds."""
        done = workshop.command("key", *words, "--state", str(server.state))
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


class TestStatus:
    def test_the_snapshot_has_its_shape(self, shared: Pair, echo: Echo) -> None:
        """Names and units of the one snapshot, at both ends."""
        with socks.connect(shared.client.proxy, echo.port) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
            for process, role in ((shared.server, "server"), (shared.client, "client")):
                snapshot = process.snapshot()
                assert snapshot["version"] == 1 and snapshot["role"] == role
                assert snapshot["pid"] == process.pid
                assert {"promised", "held", "limit"} <= snapshot["memory"].keys()
                session = snapshot["sessions"][0]
                assert session["streams"]["open"] == 1 and len(session["subflows"]) == 6
                for subflow in session["subflows"]:
                    assert subflow["tx"].keys() == {"first", "copy", "pad", "overhead"}
                    assert {"id", "path", "state", "rtt", "rate", "in_flight"} <= subflow.keys()

    def test_status_lists_what_runs(self, shared_workshop: Workshop, shared: Pair) -> None:
        """For people by default, as JSON for programs; exit code 0."""
        runtime = str(shared.server.control_socket().parent.parent)
        done = shared_workshop.command("status", XDG_RUNTIME_DIR=runtime)
        assert done.returncode == 0, done.stderr
        assert "server" in done.stdout.decode()
        done = shared_workshop.command("status", "--json", XDG_RUNTIME_DIR=runtime)
        answer = json.loads(done.stdout)
        snapshots = answer if isinstance(answer, list) else [answer]
        assert [one["pid"] for one in snapshots] == [shared.server.pid]

    def test_nothing_runs(self, workshop: Workshop) -> None:
        """Said in a sentence."""
        empty = workshop.folder / "empty"
        empty.mkdir()
        done = workshop.command("status", XDG_RUNTIME_DIR=str(empty))
        said = (done.stdout + done.stderr).decode().strip()
        assert done.returncode == 1 and len(said.splitlines()) == 1

    def test_the_socket_is_the_owners(self, shared: Pair) -> None:
        """Nobody else may ask."""
        for process in shared:
            assert process.control_socket().stat().st_mode & 0o077 == 0

    def test_nonsense_to_the_socket(self, shared: Pair) -> None:
        """An unknown command is answered, and the next one too."""
        answer = shared.client.ask(command="no-such-thing")
        assert answer["ok"] is False and answer["error"]
        assert shared.client.snapshot()["pid"] == shared.client.pid


class TestPasswd:
    def test_a_user_is_added_and_changed(self, workshop: Workshop) -> None:
        """The file is the owner's, and holds no password."""
        users = workshop.folder / "users"
        for password in ("first", "second"):
            stdin = f"{password}\n{password}\n".encode()
            done = workshop.command("passwd", str(users), "ann", stdin=stdin)
            assert done.returncode == 0, done.stderr
        lines = users.read_text().splitlines()
        assert [line.split(":")[:2] for line in lines] == [["ann", "scrypt"]]
        assert os.stat(users).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [(), ("--help",), ("client", "--help"), ("--version",)])
def test_help_stands_alone(workshop: Workshop, words: tuple[str, ...]) -> None:
    """It explains itself without twistd's own help."""
    done = workshop.command(*words)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0
    assert "stripetwist" in said and "--rundir" not in said and "Traceback" not in said


@pytest.mark.parametrize("words", [("--help",), ("demo", "--help")])
def test_nowhere_to_write(workshop: Workshop, words: tuple[str, ...]) -> None:
    """A full disk is one sentence; where nothing is open to write to, nothing is written."""
    command = [str(BIN / "stripetwist"), *words]
    environment = plain_environment(workshop.folder)
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"the output cannot be written: No space left on device\n"
    closed = ["sh", "-c", 'exec "$0" "$@" >&-', *command]
    done = subprocess.run(closed, env=environment, stderr=subprocess.PIPE)
    assert b"Traceback" not in done.stderr
