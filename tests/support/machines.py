"""Machines of a test: network namespaces with a home of their own, joined by cables."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.places import Place

from support.processes import Process
from support.programs import plain_environment
from support.workshop import BIN


class Machine:
    """
    A network namespace, and a mount namespace with sockets in /run that are only its own.

    What was started here is killed when it is closed, daemons too.

    @ivar home: where its commands run, and its user's home.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.home = folder / name
        self.home.mkdir(mode=0o700)
        self._runtime = Path(tempfile.mkdtemp(prefix="stw-"))
        self._place = Place("cubic")
        self._processes: list[Process] = []
        # Its output is the first line, once the mounts are its own.
        script = "mount -t tmpfs tmpfs /run; echo; exec cat"
        keeper = self._place.start(["unshare", "--mount", "sh", "-ec", script])
        assert keeper.stdout is not None and keeper.stdout.readline()
        self._mounts = f"--mount=/proc/{keeper.pid}/ns/mnt"

    def cable(self, card: str, other: "Machine", its: str, address: str) -> None:
        """Join a card to one of another machine, which gets the first address of the network."""
        there, first = other._place.pid, address.rpartition(".")[0] + ".1"
        self._place.shell(
            f"ip link add {card} type veth peer name {its} netns {there}\n"
            f"ip address add {address}/24 dev {card}\nip link set {card} up\n"
        )
        other._place.shell(f"ip address add {first}/24 dev {its}\nip link set {its} up\n")

    def file(self, path: str, text: str) -> None:
        """A file that is there for this machine only."""
        mine = self.home / Path(path).name
        mine.touch(0o600)
        mine.write_text(text)
        self.run(f"mkdir -p {Path(path).parent}; touch {path}; mount --bind {mine} {path}")

    def run(self, script: str, timeout: float = 60.0) -> str:
        """Run shell commands, which must succeed; what they print."""
        done = subprocess.run(
            self._inside(script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment(),
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, script: str) -> Process:
        """Start shell commands that go on until the test is over."""
        process = Process(
            self._inside(f"exec {script}"), self.home, self._runtime, self._environment()
        )
        self._processes.append(process)
        return process

    def _inside(self, script: str) -> list[str]:
        words = ["nsenter", self._mounts, f"--wdns={self.home}", "--", "bash", "-ec", script]
        return self._place.inside(words)

    def _environment(self) -> dict[str, str]:
        path = f"{BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"
        more = {"PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(self._runtime), "PATH": path}
        return plain_environment(self.home, **more)

    def close(self) -> None:
        """End all that runs here."""
        for process in reversed(self._processes):
            if process.running:
                process.terminate()
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._place.close()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _pids(self) -> list[int]:
        """What runs here, but for what holds the place itself."""
        mine, found = os.stat(f"/proc/{self._place.pid}/ns/net").st_ino, []
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and os.stat(f"/proc/{entry}/ns/net").st_ino == mine:
                    found.append(int(entry))
        return [pid for pid in found if pid != self._place.pid]
