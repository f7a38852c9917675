"""The README's commands, run as they are written."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installed import ROOT, copy_tree
from support.ports import LOOPBACK
from support.processes import Process
from support.programs import plain_environment, program, run, succeed
from support.readme import README, ReadmeError, block_after
from support.web import Web

MAIN_JOB, TESTS = "runs the main job", "passes the tests"
PORT = 1080


class TestBlocks:
    def test_a_block_is_found_and_dedented(self) -> None:
        """What follows the line, up to the next paragraph."""
        text = "Intro\n\nThis does it::\n\n    one \\\n      more\n\n    two\n\nAfter\n"
        assert block_after("does it", text) == "one \\\n  more\n\ntwo\n"

    def test_a_directive_will_do(self) -> None:
        """A code block instead of two colons."""
        text = "This does it:\n\n.. code-block:: sh\n\n   one\n\nAfter\n"
        assert block_after("does it", text) == "one\n"

    @pytest.mark.parametrize(
        "text", ["nothing", "does it::\n\n  a\n\ndoes it::\n\n  b\n", "does it\n\nbut how\n"]
    )
    def test_what_is_not_clear_fails(self, text: str) -> None:
        """Missing, twice, or without a block: an error and no guess."""
        with pytest.raises(ReadmeError):
            block_after("does it", text)


def test_the_tests_are_what_ci_runs() -> None:
    """CI takes its command out of the README; it makes an environment and runs both suites."""
    block = block_after(TESTS, README.read_text())
    for part in ("-m venv", "[test]", "trial stripetwist", "pytest"):
        assert part in block
    script = (ROOT / ".ci" / "run").read_text()
    assert f'readme.py "{TESTS}"' in script


@pytest.fixture
def main_job(tmp_path: Path) -> Iterator[Process]:
    """The first command, running in a copy of this tree."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    copy = copy_tree(tmp_path / "tree")
    home = tmp_path / "home"
    home.mkdir()
    environment = plain_environment(home, PYTHONUNBUFFERED="1", XDG_RUNTIME_DIR=str(runtime))
    script = "set -e\n" + block_after(MAIN_JOB, README.read_text())
    process = Process(["bash", "-c", script], copy, runtime, environment)
    yield process
    if process.running:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    assert not process.noise()


def test_the_main_job(main_job: Process, tmp_path: Path) -> None:
    """It installs, starts, says what to try, and what it says works."""
    main_job.wait_line(rf"proxy .*{PORT}\b", timeout=300)
    tried = main_job.wait_line(r"(curl -x socks5h://\S+) ")[1]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "file").write_bytes(b"content")
    program("curl")
    with Web(tmp_path / "site") as web:
        url = f"http://{LOOPBACK}:{web.port}/file"
        assert succeed([*shlex.split(tried), "-sS", url], tmp_path) == b"content"


def test_ci_is_a_script_that_runs() -> None:
    """It is executable and bash finds no fault with it."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert run(["bash", "-n", script], ROOT).stderr == b""
