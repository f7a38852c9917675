"""Two places and the emulated links between them."""

import itertools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.places import BenchError, Place

SOURCE = Path(__file__).with_name("link.c")
_SMALLEST_QUEUE = 4 * 1500
_numbers = itertools.count()

Counters = dict[str, dict[str, int]]
"""What a link has carried and dropped, by direction."""


@dataclass(frozen=True)
class Line:
    """
    What a link is like, both ways.

    @ivar rate: Mbit/s.
    @ivar delay: milliseconds, one way.
    @ivar loss: per cent of the packets, at random, behind the bottleneck.
    @ivar queue: bytes that may wait, as a part of rate times round trip.
    @ivar limit: Mbit/s of each TCP connection; 0 for none.
    """

    rate: float
    delay: float
    loss: float = 0.0
    queue: float = 1.0
    limit: float = 0.0

    def settings(self) -> dict[str, float]:
        """As the emulator wants it."""
        return {
            "rate": self.rate * 1e6,
            "delay": self.delay / 1e3,
            "loss": self.loss / 100,
            "queue": self._room(self.rate) * self.queue,
            "limit": self.limit * 1e6,
            "limit_queue": self._room(self.limit),
        }

    def _room(self, rate: float) -> float:
        return max(_SMALLEST_QUEUE, rate * 1e6 / 8 * 2 * self.delay / 1e3)

    def __str__(self) -> str:
        text = f"{self.rate:g} Mbit/s, {self.delay:g} ms one way"
        text += f", {self.loss:g} % loss" if self.loss else ""
        text += f", queue {self.queue:g} BDP" if self.queue != 1 else ""
        return text + (f", each connection {self.limit:g} Mbit/s" if self.limit else "")


def compile_emulator(folder: Path) -> Path:
    """Make the emulator."""
    program = folder / "link"
    command = ["cc", "-O2", "-o", str(program), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchError("there is no cc; apt install gcc libc6-dev") from None
    if done.returncode:
        raise BenchError(f"the emulator was not compiled: {done.stderr.strip()}")
    return program


class Link:
    """A running emulator and its two devices."""

    def __init__(self, emulator: Path, line: Line, seed: int) -> None:
        # Others may measure beside us.
        name = f"s{os.getpid()}x{next(_numbers)}"
        self.devices = (f"{name}u", f"{name}d")
        self._process = subprocess.Popen(
            [str(emulator), str(seed), *self.devices],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answer()
        for name, value in line.settings().items():
            self.set(name, value)

    def set(self, name: str, value: float, direction: str = "both") -> Counters:
        """Change the link for the packets that enter from now on."""
        return self._ask(f"{direction} {name} {value!r}")

    def count(self) -> Counters:
        """What it has carried and dropped so far."""
        return self._ask("count")

    def _ask(self, line: str) -> Counters:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Counters:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the link emulator has ended; does /dev/net/tun exist here?")
        answer: dict[str, Any] = json.loads(line)
        assert answer.pop("understood"), answer
        return answer

    def close(self) -> None:
        """End it; the devices go with it."""
        self._process.communicate()


class Lab:
    """
    A near place and a far one with links between them, or one place that is both.

    Link i has 10.77.i.1 at its near end and 10.77.i.2 at its far end.  What is sent from a
    near address goes over its link, whatever it is sent to, and so does the answer.
    """

    def __init__(self, emulator: Path, lines: tuple[Line, ...], congestion: str, seed: int) -> None:
        self.lines = lines
        self.links: list[Link] = []
        self.near = Place(congestion)
        self.far = self.near
        try:
            if lines:
                self.far = Place(congestion)
            for number, line in enumerate(lines):
                self.links.append(Link(emulator, line, seed * 16 + number))
                self._join(number, self.near, "near", 1)
                self._join(number, self.far, "far", 2)
                self._route(number)
        except BaseException:
            self.close()
            raise

    def near_address(self, number: int = 0) -> str:
        """Where the near end of a link is."""
        return f"10.77.{number}.1" if self.lines else "127.0.0.1"

    def far_address(self, number: int = 0) -> str:
        """Where the far end of a link is."""
        return f"10.77.{number}.2" if self.lines else "127.0.0.1"

    def _join(self, number: int, place: Place, side: str, host: int) -> None:
        device = self.links[number].devices[host - 1]
        _run("ip", "link", "set", device, "netns", str(place.pid))
        place.shell(
            f"ip link set {device} name {side}{number} mtu 1500 txqueuelen 10000 up\n"
            f"ip address add 10.77.{number}.{host}/24 dev {side}{number}\n"
        )

    def _route(self, number: int) -> None:
        """By source at the near end; the far end's answers go by where they go to."""
        self.near.shell(
            f"ip route add default dev near{number} table {100 + number}\n"
            f"ip rule add from {self.near_address(number)} table {100 + number}\n"
        )

    def close(self) -> None:
        """End everything in it."""
        for place in {self.near, self.far}:
            place.close()
        for link in self.links:
            link.close()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
