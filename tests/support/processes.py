"""A stripetwist process as its user has it: started, watched, asked and ended."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.ports import listening
from support.waiting import wait_equal, wait_until

KIB = 1024
NOISE = re.compile(r"Traceback \(most recent call last\)|Unhandled|was never retrieved")


class Process:
    """
    One running process with its log and its control socket.

    @ivar lines: all that it has written, both streams, so far.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, runtime: Path, environment: dict[str, str]
    ) -> None:
        self.lines: list[str] = []
        self.snapshots: list[str] = []
        self._runtime = runtime
        self._changed = threading.Condition()
        self._ended = False
        self._popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    # its log

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return "\n".join(self.lines)

    def wait_line(self, pattern: str, timeout: float = 20.0, since: int = 0) -> re.Match[str]:
        """
        The first line that matches, once it has come.

        @param since: how many lines to pass over: C{len(process.lines)} before the deed.
        """
        found: list[re.Match[str]] = []

        def look() -> bool:
            nonlocal since
            for line in self.lines[since:]:
                since += 1
                match = re.search(pattern, line)
                if match:
                    found.append(match)
                    return True
            return self._ended

        with self._changed:
            self._changed.wait_for(look, timeout)
        assert found, f"no line like {pattern!r} within {timeout:g} s in:\n{self.log[-4000:]}"
        return found[0]

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for raw in self._popen.stdout:
            with self._changed:
                self.lines.append(raw.decode(errors="backslashreplace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # its life

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def wait_listening(self, port: int, timeout: float = 20.0) -> None:
        """Until it listens on that port."""

        def question() -> bool:
            assert self.running, f"it ended with {self._popen.returncode}:\n{self.log[-4000:]}"
            return port in listening(self.pid)

        wait_until(question, timeout, f"a listener on port {port} of:\n{self.log[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = 40.0) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        code = self._popen.wait(timeout)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, 5)
        return code

    def kill(self) -> None:
        """End it without its knowing."""
        self._popen.kill()
        self.wait()

    def terminate(self) -> int:
        """
        End it as a user does: TERM, and once more if streams keep it.

        @return: its exit code.
        """
        for patience in (3.0, 10.0):
            if self.running:
                self.signal(signal.SIGTERM)
            try:
                return self.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self.kill()
        raise AssertionError(f"two TERM did not end it:\n{self.log[-4000:]}")

    # what the system says of it

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        assert match, f"no {field} of process {self.pid}"
        return int(match[1]) * KIB

    @property
    def rss(self) -> int:
        """Bytes of memory that it has now."""
        return self._status("VmRSS")

    @property
    def peak_rss(self) -> int:
        """Bytes of memory that it had at most."""
        return self._status("VmHWM")

    @property
    def fds(self) -> int:
        """File descriptors that it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # what it says of itself

    def ask(self, **request: object) -> dict[str, Any]:
        """One question to the control socket, and its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            wait_until(lambda: self._answers(sock), 10, "an answer at the control socket")
            sock.sendall(json.dumps(request).encode() + b"\n")
            text = b""
            while not text.endswith(b"\n"):
                part = sock.recv(65536)
                if not part:
                    break
                text += part
        answer: dict[str, Any] = json.loads(text)
        return answer

    def snapshot(self) -> dict[str, Any]:
        """What it knows of itself; kept, to be searched for secrets at the end."""
        answer = self.ask(command="status")
        self.snapshots.append(json.dumps(answer))
        assert answer["ok"] is True, answer
        snapshot: dict[str, Any] = answer["result"]
        return snapshot

    def control_socket(self) -> Path:
        """Its control socket, in a runtime folder that it shares with nobody."""

        return wait_until(self._sockets, 10, "a control socket")[0]

    def _answers(self, sock: socket.socket) -> bool:
        """Connect to it; a socket is there for a moment before anybody listens."""
        try:
            sock.connect(str(self.control_socket()))
        except ConnectionRefusedError:
            return False
        return True

    def _sockets(self) -> list[Path]:
        return [p for p in self._runtime.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]

    def subflows(self) -> list[dict[str, Any]]:
        """The subflows of all sessions."""
        return [one for session in self.snapshot()["sessions"] for one in session["subflows"]]

    def wait_subflows(self, count: int, timeout: float = 20.0) -> None:
        """Until there are exactly that many, all of them active."""

        def states() -> list[str]:
            return [subflow["state"] for subflow in self.subflows()]

        wait_equal(states, ["active"] * count, timeout, f"{count} subflows")

    def streams(self) -> int:
        """How many streams are open in all sessions."""
        return sum(session["streams"]["open"] for session in self.snapshot()["sessions"])

    def wait_streams(self, count: int, timeout: float = 10.0) -> None:
        """Until exactly so many streams are open."""
        wait_equal(self.streams, count, timeout, "the number of open streams")

    def noise(self) -> list[str]:
        """Lines that no user should ever see."""
        return [line for line in self.lines if NOISE.search(line)]
