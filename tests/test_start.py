"""A start that cannot be: one sentence, exit code 1, nothing left running."""

import os
import re
import signal
from pathlib import Path

import pytest
from support import socks
from support.ports import LOOPBACK, free_port, listener
from support.programs import run
from support.targets import Echo
from support.workshop import BIN, Server, Workshop

ESSENTIAL = 80
STYLES = ["foreground", "daemon", "console"]


def attempt(folder: Path, style: str, role: str, *options: str, **environment: str) -> str:
    """
    Try a start that must fail.

    @return: the one sentence that it said.
    """
    pidfile = folder / "twistd.pid"
    command = {
        "foreground": [BIN / "twistd", "-n", "--pidfile=", f"stripe-{role}"],
        "daemon": [BIN / "twistd", f"--pidfile={pidfile}", f"stripe-{role}"],
        "console": [BIN / "stripetwist", role],
    }[style]
    try:
        done = run([*command, *options], folder, timeout=30, **environment)
    finally:
        left = pidfile.exists()
        if left:
            os.kill(int(pidfile.read_text()), signal.SIGKILL)
    said = (done.stdout + done.stderr).decode()
    assert not left, "it went on in the background"
    assert done.returncode == 1, (done.returncode, said)
    lines = [line for line in said.splitlines() if line.strip()]
    assert len(lines) == 1, said
    assert not re.search(r"Traceback|Usage:|SystemExit|\(<class", said), said
    return lines[0]


def says(sentence: str, pattern: str) -> None:
    """The essential stands in its first characters."""
    assert re.search(pattern, sentence[:ESSENTIAL]), sentence


@pytest.fixture(params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    """Each way to start a role."""
    way: str = request.param
    return way


@pytest.fixture(scope="module")
def running(shared_workshop: Workshop) -> Server:
    """A server that runs meanwhile."""
    return shared_workshop.server()


def address(port: int = 0) -> str:
    """A loopback address with that or any port."""
    return f"{LOOPBACK}:{port or free_port()}"


class TestServer:
    def test_a_taken_port(self, style: str, tmp_path: Path) -> None:
        """The port is named, with what to do."""
        with listener() as taken:
            port = taken.getsockname()[1]
            options = ["--listen", address(port), "--state", str(tmp_path / "state")]
            says(attempt(tmp_path, style, "server", *options), str(port))

    def test_a_taken_state(self, style: str, tmp_path: Path, running: Server) -> None:
        """A second process on the same state is refused, and the first runs on."""
        options = ["--listen", address(), "--state", str(running.state)]
        says(attempt(tmp_path, style, "server", *options), "(?i)in use|another|already")
        assert running.running

    def test_a_second_start_while_it_runs(
        self, style: str, tmp_path: Path, running: Server
    ) -> None:
        """The same command twice."""
        options = ["--listen", address(running.port), "--state", str(running.state)]
        says(attempt(tmp_path, style, "server", *options), "(?i)in use|another|already|taken")

    def test_keys_that_others_can_read(self, style: str, tmp_path: Path) -> None:
        """A world-readable key file is named, with the remedy."""
        keys = self.made_state(tmp_path) / "server" / "keys.toml"
        keys.chmod(0o644)
        options = ["--listen", address(), "--state", str(tmp_path / "state")]
        sentence = attempt(tmp_path, style, "server", *options)
        says(sentence, "key file")
        assert "keys.toml" in sentence and "chmod" in sentence

    def made_state(self, folder: Path) -> Path:
        """The state of a server that has run once."""
        workshop = Workshop(folder)
        state = folder / "state"
        state.mkdir(mode=0o700)
        workshop.server(state=state)
        workshop.close()
        return state

    @pytest.mark.parametrize("content", ["no toml [", '[keys.x]\nsecret = "short"\n'])
    def test_broken_keys(self, tmp_path: Path, content: str) -> None:
        """A key file that makes no sense is named."""
        keys = self.made_state(tmp_path) / "server" / "keys.toml"
        keys.write_text(content)
        options = ["--listen", address(), "--state", str(tmp_path / "state")]
        sentence = attempt(tmp_path, "foreground", "server", *options)
        says(sentence, "key file")
        assert "keys.toml" in sentence

    def test_a_second_start_after_an_end(self, workshop: Workshop) -> None:
        """The identity is kept: same link, and the log does not speak of new keys."""
        server = workshop.server()
        link = server.link
        assert "made now" in server.log
        server.terminate()
        again = workshop.restart(server)
        assert again.link == link
        again.wait_line("listens")
        assert "made now" not in again.log

    def test_the_first_start_says_what_is_next(self, workshop: Workshop) -> None:
        """Where it listens, what it reaches, where the link is."""
        server = workshop.server()
        for pattern in (rf"listens .*{server.port}", "reaches .*public", "state ", "address "):
            server.wait_line(rf"\b{pattern}")
        server.wait_line(r"scp .*client\.link")
        server.wait_line(r"twistd -n --pidfile= stripe-client --server client\.link")
        server.terminate()
        assert "starting on" not in server.log and "Closed)" not in server.log


BAD_OPTIONS = {
    "unknown": (["--sokcs", "1080"], "sokcs.*(did you mean|unknown)|unknown.*sokcs"),
    "abbreviated": (["--sub", "4"], "--sub"),
    "no-number": (["--subflows", "many"], "--subflows"),
    "too-many": (["--subflows", "100000"], "--subflows"),
    "no-port": (["--socks", "127.0.0.1:99999"], "--socks"),
    "open-proxy": (["--socks", ":1080"], "--socks"),
    "no-such-file": (["--users", "nowhere"], "users file"),
    "no-such-config": (["--config", "nowhere.toml"], "configuration file"),
    "misplaced": (["-n"], "-n"),
    "stray": (["stray"], "stray"),
    "value-missing": (["--socks"], "--socks"),
}


class TestClient:
    @pytest.mark.parametrize("case", BAD_OPTIONS)
    def test_a_bad_option(self, style: str, tmp_path: Path, case: str) -> None:
        """The option is named."""
        options, pattern = BAD_OPTIONS[case]
        base = ["--server", "loopback:", "--state", str(tmp_path / "state")]
        says(attempt(tmp_path, style, "client", *base, *options), pattern)

    def test_no_server(self, style: str, tmp_path: Path) -> None:
        """Without a link it says how to give one."""
        says(attempt(tmp_path, style, "client"), "server")

    @pytest.mark.parametrize("size", [20, 50, 75, -1])
    def test_a_cut_link(self, tmp_path: Path, running: Server, size: int) -> None:
        """However it is cut, in a file or on the line, the sentence shows none of it."""
        cut = running.link[:size]
        file = tmp_path / "cut.link"
        file.touch(0o600)
        file.write_text(cut)
        secret = running.link.split(":")[2].split("@")[0]
        for value in (str(file), cut):
            sentence = attempt(tmp_path, "foreground", "client", "--server", value)
            says(sentence, "(?i)link")
            assert secret[:8] not in sentence

    def test_a_cut_link_in_every_style(self, style: str, tmp_path: Path, running: Server) -> None:
        """One sentence, with and without C{-n}."""
        says(attempt(tmp_path, style, "client", "--server", running.link[:60]), "(?i)link")

    def test_a_link_that_says_host(self, tmp_path: Path, running: Server) -> None:
        """A link whose address was never filled in says what to write there."""
        link = re.sub(r"@[^:]+:", "@HOST:", running.link)
        says(attempt(tmp_path, "foreground", "client", "--server", link), "HOST")

    def test_a_missing_link_file(self, style: str, tmp_path: Path) -> None:
        """The file is named."""
        sentence = attempt(tmp_path, style, "client", "--server", "client.link")
        says(sentence, r"client\.link")

    def test_a_taken_port(self, style: str, tmp_path: Path) -> None:
        """The port is named."""
        with listener() as taken:
            port = taken.getsockname()[1]
            options = ["--server", "loopback:", "--state", str(tmp_path / "state")]
            sentence = attempt(tmp_path, style, "client", *options, "--socks", address(port))
            says(sentence, str(port))

    def test_an_unknown_variable(self, tmp_path: Path) -> None:
        """A mistyped variable is named, not passed over."""
        options = ["--server", "loopback:", "--state", str(tmp_path / "state")]
        sentence = attempt(tmp_path, "foreground", "client", *options, STRIPETWIST_SUBFLOW="3")
        says(sentence, "STRIPETWIST_SUBFLOW")

    def test_a_server_that_is_not_there(self, workshop: Workshop, running: Server) -> None:
        """No reason not to start: it dials on, and says what it waits for."""
        port = free_port()
        client = workshop.client(str(workshop.link_file(running.link, through=port)))
        client.wait_line(rf"127\.0\.0\.1:{port} refuses")
        assert client.running


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_an_idle_end_is_at_once(self, workshop: Workshop, number: signal.Signals) -> None:
        """Nothing to wait for: both ends leave within seconds, and say nothing odd."""
        pair = workshop.pair()
        for process in reversed(pair):
            process.signal(number)
            assert process.wait(5) in (0, 143, -number)

    def test_a_daemon_runs_and_ends(self, tmp_path: Path, echo: Echo) -> None:
        """Without C{-n} it goes to the background, serves, and ends by its pid file."""
        pidfile, proxy = tmp_path / "pid", free_port()
        command = [BIN / "twistd", f"--pidfile={pidfile}", "stripe-client", "--server", "loopback:"]
        state = ["--state", str(tmp_path / "state")]
        runtime = tmp_path / "run"
        runtime.mkdir(mode=0o700)
        more = ["--socks", f"{LOOPBACK}:{proxy}", *state]
        done = run([*command, *more], tmp_path, timeout=30, XDG_RUNTIME_DIR=str(runtime))
        assert done.returncode == 0, done.stderr
        pid = int(pidfile.read_text())
        try:
            with socks.connect(proxy, echo.port) as sock:
                sock.sendall(b"hello")
                assert socks.read_exactly(sock, 5) == b"hello"
        finally:
            os.kill(pid, signal.SIGTERM)
        assert "Traceback" not in (tmp_path / "twistd.log").read_text()
