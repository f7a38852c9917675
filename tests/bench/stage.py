"""One measurement's lab, target and peer, and the loads that are put on them."""

import json
import select
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import flows, usage
from bench.flows import BIN
from bench.links import Counters, Lab, Line
from bench.peers import UDP_PORT, Peer, Running, find
from bench.places import BenchError, end

TARGET_PORT = 7000
SETTLE = 2.0
LOOK = 0.1
_PATIENCE = 30.0

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """
    What the user has chosen.

    @ivar emulator: the compiled link emulator.
    """

    emulator: Path
    congestion: str = "cubic"
    seconds: float = 8.0
    streams: int = 10_000
    rest: float = 330.0
    prewarm: str = "auto"


class Load:
    """A running near end of a measurement."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def go(self) -> None:
        """Begin, as soon as it can."""
        self.result()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """The next thing that it says."""
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline() or '{"error": "it broke"}')
        if "error" in said:
            raise BenchError(f"the load came to nothing: {said['error']}")
        return said

    def close(self) -> None:
        """End it, with what it holds."""
        end(self._process)


class Stage:
    """
    A peer in a lab of its own, ready to be measured, after a short rest.

    @ivar running: the peer.
    """

    def __init__(
        self, settings: Settings, lines: tuple[Line, ...], peer: Peer, seed: int = 0
    ) -> None:
        self.settings = settings
        self.peer = peer
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stw-")))
            self.lab = Lab(settings.emulator, lines, settings.congestion, seed)
            stack.callback(self.lab.close)
            chosen = replace(peer, prewarm=settings.prewarm)
            self.running: Running = peer.start(chosen, self.lab, self._folder)
            if self.running.udp:
                time.sleep(SETTLE)
            elif peer.name != "iperf3":
                self._start_target()
                self._probe()
            self._stack = stack.pop_all()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_target(self) -> None:
        words = [self.lab.far_address(), str(TARGET_PORT)]
        words += ["mptcp"] if self.running.mptcp else []
        self._target = self.lab.far.python("bench.target", *words)
        assert self._target.stdout is not None
        if not self._target.stdout.readline():
            raise BenchError("the target did not start; its error stands above")

    def _probe(self) -> None:
        probe = self.load("probe", mptcp=self.running.mptcp, patience=_PATIENCE)
        try:
            probe.result()
        except BenchError as error:
            logs = [path.read_text()[-500:] for path in self._folder.glob("*.log")]
            raise BenchError("\n".join([str(error), *logs])) from None
        probe.close()
        time.sleep(SETTLE)

    def load(self, name: str, **words: object) -> Load:
        """Start a load at the near end."""
        whole = {"load": name, "target": (self.lab.far_address(), TARGET_PORT), **words}
        whole["proxy"] = self.running.proxy
        return Load(self.lab.near.python("bench.loads", json.dumps(whole)))

    def bulk(
        self, direction: str, seconds: float, hole: tuple[float, float] | None = None
    ) -> Result:
        """
        One stream, or as many as the peer makes of it, as much as goes.

        @param hole: from when to when the first link is a black hole.
        @return: C{start} and C{counts}, bytes at the receiver in hundredths of a second;
            C{carried}, TCP payload that each link delivered in each C{LOOK}.
        """
        if self.peer.name == "iperf3":
            return self._iperf(direction, seconds)
        streams = int(self.peer.subflows) if self.peer.name == "plain" else 1
        words = {"direction": direction, "seconds": seconds, "streams": streams}
        load = self.load("bulk", mptcp=self.running.mptcp, **words)
        load.go()
        start = time.monotonic()
        looks = []
        for number in range(round(seconds / LOOK) + 1):
            time.sleep(max(0.0, start + number * LOOK - time.monotonic()))
            if hole and self.lab.links:
                inside = hole[0] <= number * LOOK < hole[1]
                self.lab.links[0].set("blackhole", float(inside))
            looks.append([link.count()[direction]["payload"] for link in self.lab.links])
        result = load.result()
        load.close()
        if direction == "up":
            told = [json.loads(line)["counts"] for line in self._told(streams)]
            result = {**result, "counts": flows.sums(told)}
        pairs = zip(looks, looks[1:], strict=False)
        steps = [[b - a for a, b in zip(old, new, strict=True)] for old, new in pairs]
        return {**result, "carried": [list(link) for link in zip(*steps, strict=True)]}

    def _told(self, streams: int) -> list[str]:
        """What the target has counted of each."""
        told = self._target.stdout
        assert told is not None
        if not select.select([told], [], [], _PATIENCE)[0]:
            raise BenchError("the target was asked for nothing: the peer lost the connection")
        return [told.readline() for _ in range(streams)]

    def _iperf(self, direction: str, seconds: float) -> Result:
        """iperf3's own transfer; what it has counted in tenths of a second, at the receiver."""
        server = self.lab.far.start([find("iperf3"), "-s", "-1", "-J", "-i", str(LOOK)])
        time.sleep(0.5)
        command = [find("iperf3"), "-c", self.lab.far_address(), "-J", "-i", str(LOOK)]
        command += ["-t", str(max(1, round(seconds))), "-P", self.peer.subflows]
        client = self.lab.near.start([*command, "-R"] if direction == "down" else command)
        near, far = client.communicate()[0], server.communicate()[0]
        report = json.loads(near if direction == "down" else far)
        if "error" in report:
            raise BenchError(f"iperf3 says: {report['error']}")
        counts = [0] * round(seconds / BIN)
        for interval in report["intervals"]:
            at = round(interval["sum"]["start"] / BIN)
            if at < len(counts):
                counts[at] += interval["sum"]["bytes"]
        return {"counts": counts, "carried": []}

    def datagrams(self, rate: float, size: int, faults: dict[int, tuple[float, float]]) -> Result:
        """
        Numbered datagrams, at a rate, for as long as was chosen.

        @param faults: from when to when a link is a black hole; none is at the end.
        """
        seconds, host = self.settings.seconds, self.lab.far_address()
        sink = self.lab.far.python("bench.datagrams", host, str(UDP_PORT))
        assert sink.stdout is not None
        sink.stdout.readline()
        to = self.running.udp or (host, UDP_PORT)
        load = self.load("datagrams", to=to, rate=rate, size=size, seconds=seconds)
        load.go()
        start = time.monotonic()
        moments = sorted(
            (at, link, dark)
            for link, span in faults.items()
            for at, dark in zip(span, (1.0, 0.0), strict=True)
            if link < len(self.lab.links)
        )
        for at, link, dark in moments:
            time.sleep(max(0.0, start + min(at, seconds) - time.monotonic()))
            self.lab.links[link].set("blackhole", dark)
        sent = load.result()["sent"]
        load.close()
        if not select.select([sink.stdout], [], [], _PATIENCE)[0]:
            raise BenchError("the last datagram has not come: the peer carries nothing")
        seen = json.loads(sink.stdout.readline())
        end(sink)
        return {"sent": sent, **seen}

    def counters(self) -> list[Counters]:
        """Of each link."""
        return [link.count() for link in self.lab.links]

    def cpu(self) -> dict[str, float]:
        """Seconds that each process of the peer has used."""
        return {k: usage.cpu_seconds([p.pid]) for k, p in self.running.processes.items()}

    def memory(self) -> dict[str, int]:
        """Bytes that each process of the peer has."""
        return {k: usage.memory([p.pid]) for k, p in self.running.processes.items()}
