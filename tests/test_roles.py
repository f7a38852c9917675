"""
What paths carry by their roles and rates, over emulated links in network namespaces.

Server and client are processes; all that a link has carried is counted by its emulator.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from bench.flows import dial
from bench.links import Lab, Line
from bench.peers import PROXY_PORT, SERVER_PORT
from support.ends import start_ends
from support.places import within
from support.timing import in_time, measures_times
from support.waiting import wait_until

pytestmark = [pytest.mark.demanding, measures_times]

TARGET_PORT = 7000
MEGABIT = 125_000
STEP = 0.01
NARROW, WIDE = Line(10, 10), Line(40, 15)


class Flow:
    """
    Bytes that are written at one end at some rate, as far as they go, and read at the other.

    @ivar rate: bytes per second.
    @ivar sent: how many were written.
    @ivar arrived: how many of them have been read.
    """

    def __init__(self, writer: socket.socket, reader: socket.socket) -> None:
        self.rate = 0
        self.sent = self.arrived = 0
        self._writer, self._reader = writer, reader
        for call in (self._write, self._read):
            threading.Thread(target=call, daemon=True).start()

    def _write(self) -> None:
        due, last = 0.0, time.monotonic()
        while True:
            time.sleep(STEP)
            now = time.monotonic()
            # What a busy machine kept us from writing is not made up for in one burst.
            due, last = min(due + (now - last) * self.rate, self.rate / 20), now
            try:
                sent = self._writer.send(bytes(int(due))) if due >= 1 else 0
            except OSError:
                return
            due -= sent
            self.sent += sent

    def _read(self) -> None:
        block = bytearray(1 << 16)
        try:
            while size := self._reader.recv_into(block):
                self.arrived += size
        except OSError:
            pass

    def over(self, seconds: float, least: float = 0.0) -> int:
        """How many arrive within so many seconds; that part of the rate is to be there."""
        before = self.arrived
        time.sleep(seconds)
        arrived = self.arrived - before
        in_time(arrived >= least * seconds * self.rate, f"{arrived} bytes in {seconds} s")
        return arrived

    def keeps_up(self, seconds: float, lag: float) -> None:
        """After so many seconds, no more seconds' worth of what was written is on its way."""
        before = self.sent
        time.sleep(seconds)
        in_time(self.sent - before > 0.5 * seconds * self.rate, "this machine could not write")
        late = (self.sent - self.arrived) / self.rate
        in_time(late < lag, f"{late:.2f} s behind")


class Field:
    """
    A client and a server with links between them.

    @ivar lab: the links.
    """

    def __init__(self, lab: Lab, folder: Path, stack: ExitStack, paths: tuple[str, ...]) -> None:
        self.lab = lab
        self._stack = stack
        options = ["--subflows", "4"]
        for number, path in enumerate(paths):
            options += ["--path", f"tcp://{lab.far_address(number)}:{SERVER_PORT}{path}"]
        start_ends(lab, folder, *options)
        with within(lab.far):
            listener = socket.create_server((lab.far_address(), TARGET_PORT))
        self._listener = stack.enter_context(listener)

    def _dial(self) -> socket.socket | None:
        with within(self.lab.near), suppress(OSError):
            return dial((self.lab.far_address(), TARGET_PORT), ("127.0.0.1", PROXY_PORT))
        return None

    def flow(self, download: bool = True) -> Flow:
        """A stream through the proxy, to be written to at the far end, or at the near one."""
        near = wait_until(self._dial, 20, "a stream")
        far, _ = self._listener.accept()
        for sock in (near, far):
            sock.settimeout(None)
            self._stack.callback(sock.close)
        time.sleep(2)
        return Flow(far, near) if download else Flow(near, far)

    def carried(self, number: int, direction: str = "down") -> int:
        """Bytes of TCP payload that a link has delivered so far."""
        return self.lab.links[number].count()[direction]["payload"]

    def hole(self, number: int, is_one: bool) -> None:
        """Have a link swallow everything, or no more."""
        self.lab.links[number].set("blackhole", float(is_one))


@contextmanager
def field(emulator: Path, folder: Path, lines: tuple[Line, ...], *paths: str) -> Iterator[Field]:
    """Both, with that much behind the addresses of each path."""
    with ExitStack() as stack:
        lab = Lab(emulator, lines, "cubic", 1)
        stack.callback(lab.close)
        bound = tuple(f",bind={lab.near_address(i)}{path}" for i, path in enumerate(paths))
        yield Field(lab, folder, stack, bound)


def test_backup(emulator: Path, tmp_path: Path) -> None:
    """Nothing but pings, then everything within a second, then nothing but pings again."""
    with field(emulator, tmp_path, (NARROW, WIDE), "", ",role=backup") as made:
        flow = made.flow()
        flow.rate = 5 * MEGABIT
        time.sleep(1)
        before = made.carried(1), made.carried(1, "up")
        flow.over(6, least=0.9)
        waited = made.carried(1) - before[0], made.carried(1, "up") - before[1]
        print("backup path, bytes in 6 s while it waits, down and up:", *waited)
        assert max(waited) < 500
        made.hole(0, True)
        hole = time.monotonic()
        arrived, carried = flow.arrived, made.carried(1)
        wait_until(lambda: made.carried(1) - carried > 10_000, 1, "the backup path to carry")
        wait_until(lambda: flow.arrived - arrived > 100_000, 1, "bytes to arrive")
        print(f"it carries everything {time.monotonic() - hole:.2f} s after the hole began")
        flow.over(3, least=0.9)
        made.hole(0, False)
        back = time.monotonic()
        primary = made.carried(0)
        wait_until(lambda: made.carried(0) - primary > 200_000, 2.5, "the primary path to carry")
        print(f"the primary path carries {time.monotonic() - back:.2f} s after its return")
        time.sleep(1)
        carried = made.carried(1)
        flow.over(3, least=0.9)
        print("backup path, bytes in the 3 s after:", made.carried(1) - carried)
        assert made.carried(1) - carried < 20_000


def test_overflow(emulator: Path, tmp_path: Path) -> None:
    """Of 5 Mbit/s nothing is left over by 10 Mbit/s, of 20 Mbit/s the rest."""
    with field(emulator, tmp_path, (NARROW, WIDE), "", ",role=overflow") as made:
        flow = made.flow()
        flow.rate = 5 * MEGABIT
        time.sleep(1)
        before = made.carried(1)
        flow.over(5, least=0.9)
        idle = made.carried(1) - before
        print("overflow path, bytes in 5 s at 5 Mbit/s:", idle)
        in_time(idle < 0.02 * 5 * 5 * MEGABIT, idle)
        flow.rate = 20 * MEGABIT
        time.sleep(2)
        before, primary = made.carried(1), made.carried(0)
        arrived = flow.over(5, least=0.9)
        shares = [(made.carried(i) - was) / 5 / MEGABIT for i, was in ((0, primary), (1, before))]
        print(f"at 20 Mbit/s: {arrived / 5 / MEGABIT:.1f}; primary {shares[0]:.1f}", end=", ")
        print(f"overflow {shares[1]:.1f} Mbit/s")
        in_time(shares[0] > 8.5, shares)


@pytest.mark.parametrize("download", [True, False])
def test_rate(emulator: Path, tmp_path: Path, download: bool) -> None:
    """Held within a tenth as the link sees it, headers and all, in each direction."""
    with field(emulator, tmp_path, (WIDE,), ",rate=8M") as made:
        flow = made.flow(download)
        flow.rate = 30 * MEGABIT
        time.sleep(1)
        way = "down" if download else "up"
        before = made.lab.links[0].count()[way]["bytes"]
        flow.over(5)
        rate = (made.lab.links[0].count()[way]["bytes"] - before) / 5 / MEGABIT
        print(f"rate=8M, {way}: {rate:.2f} Mbit/s on the link")
        assert rate < 8.8
        in_time(rate > 7.2, rate)


def test_a_card_comes_and_goes(emulator: Path, tmp_path: Path) -> None:
    """One that is not there yet is used soon after it appears; so is one that was away."""
    with ExitStack() as stack:
        lab = Lab(emulator, (NARROW, WIDE), "cubic", 1)
        stack.callback(lab.close)
        away = "ip link set near1 down\nip link set near1 name away1\n"
        back = "ip link set away1 name near1\nip link set near1 up\n"
        lab.near.shell(away)
        made = Field(lab, tmp_path, stack, (f",bind={lab.near_address(0)}", ",nic=near1"))
        flow = made.flow()
        flow.rate = 8 * MEGABIT
        for _ in range(2):
            flow.keeps_up(2, lag=0.3)
            lab.near.shell(back)
            start, most = time.monotonic(), made.carried(1) + 20_000
            while made.carried(1) < most and time.monotonic() < start + 3:
                time.sleep(0.02)
            print(f"the card carries {time.monotonic() - start:.2f} s after it appeared")
            assert made.carried(1) >= most
            flow.keeps_up(2, lag=0.3)
            lab.near.shell(away)
