"""C{stripetwist demo} and C{stripetwist bench}: what is measured, how it ends."""

import os
import pty
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from support.processes import Process
from support.programs import plain_environment
from support.timing import in_time, measures_times
from support.waiting import wait_until
from support.workshop import BIN, STYLES, Server, Workshop

LIMIT = 8.0
RATE = re.compile(r"([0-9.]+) Mbit/s")
# As a server that is older than bench would be.
OLD_SERVER = (
    "import sys; from stripetwist.net import server; from stripetwist.cli import main; "
    "server.SpeedOpener = lambda opener, clock, guard: opener; sys.exit(main())"
)


def rates(line: str) -> list[float]:
    """The numbers of Mbit/s in a line."""
    return [float(number) for number in RATE.findall(line)]


def assert_limited(sentence: str) -> None:
    """What the demonstration says at its end is no more than its line lets through."""
    striped, plain = rates(sentence)
    assert 0 < plain < LIMIT * 1.05
    assert plain < striped < 16 * LIMIT * 1.05
    assert "times as much." in sentence


def in_terminal(command: list[str], folder: Path) -> tuple[int, str]:
    """Run a command in a terminal of its own; its exit code, and what it wrote."""
    pid, terminal = pty.fork()
    if not pid:
        os.execve(command[0], command, plain_environment(folder, TERM="xterm"))
    written = b""
    try:
        while part := os.read(terminal, 65536):
            written += part
    except OSError:
        # What Linux says once the other end is closed.
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()


class TestDemo:
    def test_in_a_pipe(self, workshop: Workshop) -> None:
        """Lines of text, the last of them the result; nothing to the other stream."""
        done = workshop.command("demo", "--seconds", "4")
        assert (done.returncode, done.stderr) == (0, b"")
        lines = done.stdout.decode().splitlines()
        assert "\x1b" not in done.stdout.decode()
        assert [line for line in lines if re.match(r"2 s: .*Mbit/s.*Mbit/s$", line)]
        assert_limited(lines[-1])

    def test_in_a_terminal(self, workshop: Workshop) -> None:
        """Bars that are drawn over; then the same."""
        command = [str(BIN / "stripetwist"), "demo", "--seconds", "4"]
        code, written = in_terminal(command, workshop.folder)
        assert code == 0
        assert written.count("\x1b[2A") > 5 and "█" in written
        assert_limited(written.splitlines()[-1])

    @measures_times
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, workshop: Workshop, number: signal.Signals) -> None:
        """In the middle: it ends at once, as the other verbs do."""
        command = [str(BIN / "stripetwist"), "demo"]
        environment = plain_environment(workshop.folder, PYTHONUNBUFFERED="1")
        process = Process(command, workshop.folder, workshop.folder, environment)
        process.wait_line("^2 s: ")
        began = time.monotonic()
        process.signal(number)
        assert process.wait(10) == 1
        took = time.monotonic() - began
        in_time(took < 2, took)
        assert process.lines[-1] == "interrupted"
        assert not process.noise()


@pytest.fixture(scope="module")
def server(shared_workshop: Workshop) -> Server:
    """A server that may reach nothing of this machine."""
    return shared_workshop.server()


class TestBench:
    @pytest.mark.parametrize("words", [("--down",), ("--up",), ("--subflows", "3")])
    def test_measured(
        self, shared_workshop: Workshop, server: Server, words: tuple[str, ...]
    ) -> None:
        """Two numbers, and a sentence that says what they mean."""
        link = str(server.link_file)
        done = shared_workshop.command("bench", "--server", link, "--seconds", "2", *words)
        assert (done.returncode, done.stderr) == (0, b"")
        first, _, *_, one, striped, sentence = done.stdout.decode().splitlines()
        assert first.startswith("Uploads" if "--up" in words else "Downloads")
        assert f"127.0.0.1:{server.port}, round trip" in first
        assert one.startswith("one TLS connection") and rates(one)[0] > 1
        count = 3 if "--subflows" in words else 6
        assert striped.startswith(f"{count} striped connections") and rates(striped)[0] > 1
        assert "no faster" in sentence or "times as fast" in sentence

    def test_the_link_may_be_a_variable(self, shared_workshop: Workshop, server: Server) -> None:
        """As for the client; and the link, a password, is not shown."""
        more = {"STRIPETWIST_SERVER": server.link}
        done = shared_workshop.command("bench", "--seconds", "1", **more)
        assert done.returncode == 0, done.stderr
        assert server.link[15:60] not in done.stdout.decode()

    def test_the_server_knows_what_it_did(self, shared_workshop: Workshop) -> None:
        """Its log names the source and the sink where it names targets."""
        server = shared_workshop.server("--log-targets")
        link = str(server.link_file)
        shared_workshop.command("bench", "--server", link, "--seconds", "1")
        server.wait_line(r"reached speed\.stripetwist\.invalid:19")
        server.wait_streams(0)

    def test_without_a_server(self, workshop: Workshop) -> None:
        """One sentence."""
        done = workshop.command("bench")
        self.assert_refused(done.returncode, done.stderr, "$STRIPETWIST_SERVER")

    def test_a_link_that_is_none(self, workshop: Workshop) -> None:
        """One sentence, without the link."""
        file = workshop.folder / "cut.link"
        file.touch(0o600)
        file.write_text("stripetwist://desk:" + "A" * 30)
        done = workshop.command("bench", "--server", str(file), timeout=5)
        self.assert_refused(done.returncode, done.stderr, "cut or mangled")
        assert b"AAAA" not in done.stderr

    def test_a_server_that_only_takes_one(self, workshop: Workshop) -> None:
        """There is nothing to compare."""
        server = workshop.server("--max-subflows", "1")
        done = workshop.command("bench", "--server", str(server.link_file), "--seconds", "1")
        self.assert_refused(done.returncode, done.stderr, "--max-subflows")

    def test_a_server_that_is_not_there(self, workshop: Workshop) -> None:
        """One sentence, at once."""
        server = workshop.server()
        server.terminate()
        done = workshop.command("bench", "--server", str(server.link_file), timeout=5)
        self.assert_refused(done.returncode, done.stderr, "start the server there")

    def test_an_old_server(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        """It refuses the name; the sentence says what that means."""
        old = [sys.executable, "-c", OLD_SERVER, "server", "--allow", "localhost"]
        monkeypatch.setitem(STYLES, "old", lambda role: old)
        server = workshop.server(style="old")
        done = workshop.command("bench", "--server", str(server.link_file))
        self.assert_refused(done.returncode, done.stderr, "is too old for bench")

    def test_interrupted(self, workshop: Workshop) -> None:
        """The server is told, and keeps no session."""
        server = workshop.server()
        command = [str(BIN / "stripetwist"), "bench", "--server", str(server.link_file)]
        environment = plain_environment(workshop.folder, PYTHONUNBUFFERED="1")
        process = Process(command, workshop.folder, workshop.folder, environment)
        process.wait_line("^2 s: ")
        process.signal(signal.SIGINT)
        assert process.wait(3) == 1
        assert process.lines[-1] == "interrupted" and not process.noise()
        wait_until(lambda: not server.snapshot()["sessions"], 5, "the end of its sessions")

    def assert_refused(self, code: int, said: bytes, words: str) -> None:
        """Exit code 1 and one sentence, with those words in it."""
        assert code == 1 and words in said.decode() and said.count(b"\n") == 1, said
