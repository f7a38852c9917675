"""Network namespaces, and programs that run in them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

TESTS = Path(__file__).resolve().parents[1]

# The link is to be the limit, not a buffer; and no measurement is to learn from the last one.
_SETTINGS = {
    "net/ipv4/tcp_rmem": "4096 131072 67108864",
    "net/ipv4/tcp_wmem": "4096 65536 67108864",
    "net/ipv4/tcp_no_metrics_save": "1",
    "net/ipv4/ip_local_port_range": "10000 65535",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/core/somaxconn": "4096",
}
_CONGESTION = "net/ipv4/tcp_congestion_control"


class BenchError(Exception):
    """What keeps a measurement from being made, as a sentence."""


class Place:
    """
    A network namespace, with a loopback device that is up.

    It has no name: a C{cat} holds it until our end of its input closes, so it is gone when
    this process is, however that ends.  Everything started here is killed then too.

    @ivar pid: of the process that holds it.
    @ivar congestion: the congestion control that it has, as its kernel says.
    """

    def __init__(self, congestion: str) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._keeper.pid
        try:
            self._wait_ready()
            self._set_up(congestion)
        except BaseException:
            self.close()
            raise

    def _wait_ready(self) -> None:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.write(b".")
        if self._keeper.stdout.read(1) != b".":
            raise BenchError("no network namespace could be made; run this as root")

    def _set_up(self, congestion: str) -> None:
        wishes = {**_SETTINGS, _CONGESTION: congestion}
        lines = [f"echo '{value}' >/proc/sys/{name}" for name, value in wishes.items()]
        # What a kernel was built without, IPv6 say, needs no setting.
        self.shell("ip link set lo up\n{ " + "\n".join(lines) + "\n} 2>/dev/null || true")
        self.congestion = self.shell(f"cat /proc/sys/{_CONGESTION}").strip()
        if self.congestion != congestion:
            raise BenchError(
                f"a namespace took {self.congestion} for {congestion}; "
                "choose with --congestion what this kernel has"
            )

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command here, and kills it when this process ends."""
        enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/proc/{self.pid}/ns/net"]
        return [*enter, "--", *command]

    def shell(self, script: str) -> str:
        """Run a few lines of shell here; what they print."""
        done = subprocess.run(
            self.inside(["sh", "-ec", script]), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchError(f"{script.splitlines()[0]}: {done.stderr.strip()}")
        return done.stdout

    def start(
        self, command: Sequence[str], log: IO[str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """
        Start a program here, with pipes to its input and from its output.

        @param log: where its output goes instead; it then has no input either.
        """
        process = subprocess.Popen(
            self.inside(command),
            stdin=subprocess.DEVNULL if log else subprocess.PIPE,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT if log else None,
            text=True,
            cwd=cwd,
            env=_environment(),
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def python(self, module: str, *words: str) -> subprocess.Popen[str]:
        """Start a module of the benchmark here."""
        return self.start([sys.executable, "-m", module, *words])

    def close(self) -> None:
        """End what was started here, last first, and the namespace."""
        for process in reversed(self._started):
            end(process)
        self._started.clear()
        end(self._keeper)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STRIPETWIST_", "XDG_"))}
    path = os.environ.get("PYTHONPATH", "")
    paths = [str(TESTS), str(TESTS.parent), *path.split(os.pathsep)]
    return {**kept, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "LC_ALL": "C.UTF-8"}


def end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """End a process, kindly and then not, and close its pipes."""
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
