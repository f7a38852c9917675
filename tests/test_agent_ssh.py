"""ssh to an agent's machine over three slow lines, some of them dark for a while."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.links import Lab, Line
from bench.places import end
from support.agents import ABLE, wait_agents
from support.places import within
from support.ports import free_port
from support.programs import plain_environment
from support.ssh import ssh, sshd
from support.waiting import wait_until
from support.workshop import Workshop

PATHS = 3
LINE = Line(10, 10)
DARK = 30.0
# Strictly 27 and 9; less, so that a machine that is busy passes.
THREE, ONE = 24.0, 7.0


@pytest.fixture
def lab(emulator: Path) -> Iterator[Lab]:
    """An agent's place and a server's, with three lines between."""
    made = Lab(emulator, (LINE,) * PATHS, "cubic", 1)
    yield made
    made.close()


class Download:
    """
    What comes out of one ssh that never ends.

    @ivar size: bytes so far.
    """

    def __init__(self, command: list[str], home: Path) -> None:
        self.size = 0
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=plain_environment(home), start_new_session=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            self.size += len(data)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self._reader.join()
        end(self.process)

    def rate(self, seconds: float) -> float:
        """Mbit/s over the next seconds."""
        began, before = time.monotonic(), self.size
        time.sleep(seconds)
        assert self.process.poll() is None, "ssh has ended"
        return (self.size - before) * 8e-6 / (time.monotonic() - began)

    def wait_more(self, timeout: float) -> float:
        """Seconds until something comes."""
        began, before = time.monotonic(), self.size
        wait_until(lambda: self.size > before, timeout, "bytes")
        return time.monotonic() - began


def darken(lab: Lab, *dark: int) -> None:
    """Have these lines swallow everything, and the others carry."""
    for number, link in enumerate(lab.links):
        link.set("blackhole", float(number in dark))


def swallowed(lab: Lab) -> list[int]:
    """Packets that each line has swallowed."""
    return [sum(way["swallowed"] for way in link.count().values()) for link in lab.links]


def test_three_paths(lab: Lab, workshop: Workshop, tmp_path: Path) -> None:
    """One and the same connection has all of them, what is left, and survives having none."""
    published = free_port()
    with ExitStack() as stack:
        with within(lab.near):
            daemon = stack.enter_context(sshd(tmp_path))
        words = ("--forward", f"{published}=localhost:{daemon}", "--exit", "attic")
        server = workshop.server(*words, place=lab.far, host=lab.far_address())
        ways = [f"direct,bind={lab.near_address(number)}" for number in range(PATHS)]
        words = ("--name", "attic", "--allow", "localhost")
        words += tuple(word for way in ways for word in ("--path", way))
        workshop.agent(server.agent_link, *words, place=lab.near)
        wait_agents(server, ABLE)
        command = [*ssh(tmp_path, published), "cat", "/dev/zero"]
        with within(lab.far):
            download = Download(command, tmp_path)
        stack.callback(download.close)
        download.wait_more(20)
        time.sleep(2)
        all_three = download.rate(7)
        darken(lab, 1, 2)
        time.sleep(1)
        alone = download.rate(6)
        darken(lab, 0, 1, 2)
        time.sleep(2)
        assert download.rate(DARK - 2) == 0
        before = swallowed(lab)
        darken(lab)
        back = download.wait_more(20)
        time.sleep(1)
        again = download.rate(7)
    print(f"{all_three:.1f} Mbit/s, one path {alone:.1f}; back after {back:.1f} s, {again:.1f}")
    assert min(before) > 0
    assert all_three >= THREE and again >= THREE
    assert alone >= ONE
