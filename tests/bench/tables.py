"""The tables: which links, which peers, what is done to them and which numbers come out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.flows import BIN
from bench.links import Line
from bench.stage import LOOK, Result, Stage

KIB, MIB = 1 << 10, 1 << 20
HOLE = 10.0
AFTER = 2.0
AT_ONCE = 64
WATCH = 240.0
DAY = 86400.0
NEVER = float("inf")
# How late the first byte may come.
LATE = 2.0
# What a datagram of WireGuard's takes.
SIZE = 1400


@dataclass(frozen=True)
class Case:
    """
    One situation that all peers of a table are put in.

    @ivar hole: the first link is a black hole for ten seconds in the middle.
    """

    name: str
    lines: tuple[Line, ...] = ()
    direction: str = "up"
    hole: bool = False


Measure = Callable[[Stage, Case], Iterator[Result]]
"""What is measured on a stage; a result may add to the case's name with C{part}."""


@dataclass(frozen=True)
class Table:
    """
    What one command measures.

    @ivar columns: of the printed table: a result's field, its heading.
    @ivar compared: the field for which a ratio to another peer is printed.
    @ivar against: that peer, unless the user names another.
    """

    about: str
    cases: tuple[Case, ...]
    peers: tuple[str, ...]
    measure: Measure
    columns: tuple[tuple[str, str], ...]
    compared: str
    against: str = "direct"


# ---- measuring


def megabits(counts: list[int], start: float, end: float) -> float:
    """Mbit/s between two moments."""
    part = counts[round(start / BIN) : round(end / BIN)]
    return sum(part) * 8e-6 / max(BIN, len(part) * BIN)


def since_first(
    counts: list[int], carried: list[list[int]], seconds: float
) -> tuple[list[int], list[list[int]]]:
    """The counts of so many seconds since the first byte came, and what links carried then."""
    first = next((at for at, count in enumerate(counts) if count), 0)
    look = round(first * BIN / LOOK)
    looks = [link[look : look + round(seconds / LOOK)] for link in carried]
    return counts[first : first + round(seconds / BIN)], looks


def longest_gap(counts: list[int]) -> float:
    """Seconds in a row without a byte."""
    longest = gap = 0
    for count in counts:
        gap = 0 if count else gap + 1
        longest = max(longest, gap)
    return longest * BIN


def tenths(counts: list[int]) -> list[int]:
    """The same counts by tenths of a second, for plots."""
    return [sum(counts[at : at + 10]) for at in range(0, len(counts), 10)]


def measure_bulk(stage: Stage, case: Case) -> Iterator[Result]:
    """Goodput since the first byte came, whoever holds the clock: slow start counts."""
    seconds = stage.settings.seconds
    result = stage.bulk(case.direction, seconds + LATE)
    counts, carried = since_first(result["counts"], result["carried"], seconds)
    goodput = megabits(counts, 0, seconds)
    yield {
        "goodput": goodput,
        "later": megabits(counts, seconds / 2, seconds),
        "share": 100 * goodput / sum(line.rate for line in case.lines),
        "series": tenths(counts),
        "carried": carried,
    }


def measure_paths(stage: Stage, case: Case) -> Iterator[Result]:
    """Goodput over two links, before, in and after a hole if there is one."""
    if not case.hole:
        yield from measure_bulk(stage, case)
        return
    start = stage.settings.seconds
    end = start + HOLE
    whole = end + AFTER + start
    result = stage.bulk(case.direction, whole, (start, end))
    counts = result["counts"]
    yield {
        "goodput": megabits(counts, 0, start),
        "gap": longest_gap(counts[round(start / BIN) :]),
        "inside": megabits(counts, start, end),
        "after": megabits(counts, end + AFTER, whole),
        "series": tenths(counts),
        "carried": result["carried"],
    }


def measure_short(stage: Stage, case: Case) -> Iterator[Result]:
    """A byte, a page and a file, each after five idle seconds."""
    load = stage.load("short", mptcp=stage.running.mptcp, sizes=[1, 256 * KIB, 5 * MIB], idle=5.0)
    load.go()
    for one in load.result()["times"]:
        size = one["size"]
        part = "1 B" if size == 1 else f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"
        yield {"part": part, "answer": 1e3 * one["answer"], "whole": 1e3 * one["whole"]}


def measure_overhead(stage: Stage, case: Case) -> Iterator[Result]:
    """TCP payload on the links for a transfer that would fill them for so long."""
    size = round(stage.settings.seconds * sum(line.rate for line in case.lines) * 1e6 / 8)
    load = stage.load("short", mptcp=stage.running.mptcp, sizes=[size], idle=0.0)
    before = stage.counters()
    load.go()
    took = load.result()["times"][0]["answer"]
    pairs = list(zip(before, stage.counters(), strict=True))
    sent, back = (
        sum(new[way]["payload"] - old[way]["payload"] for old, new in pairs)
        for way in ("up", "down")
    )
    yield {"payload": sent / size, "back": back / size, "goodput": size * 8e-6 / took}


def measure_loopback(stage: Stage, case: Case) -> Iterator[Result]:
    """Speed without a link, and processor time."""
    before = stage.cpu()
    result = stage.bulk(case.direction, stage.settings.seconds)
    used = {role: seconds - before[role] for role, seconds in stage.cpu().items()}
    size = sum(result["counts"])
    per_gigabyte = {f"{role}_cpu": 1e9 * cpu / max(1, size) for role, cpu in used.items()}
    yield {
        "speed": size / 1e6 / stage.settings.seconds,
        "cpu": sum(per_gigabyte.values()),
        "series": tenths(result["counts"]),
        **per_gigabyte,
    }


def measure_connections(stage: Stage, case: Case) -> Iterator[Result]:
    """New connections, 64 at a time, a byte there and back on each."""
    load = stage.load("rate", at_once=AT_ONCE, seconds=stage.settings.seconds)
    before = stage.cpu()
    load.go()
    result = load.result()
    done = max(1, result["done"])
    each = {f"{role}_cpu": 1e3 * (s - before[role]) / done for role, s in stage.cpu().items()}
    yield {
        "rate": result["done"] / result["seconds"],
        "failed": result["failed"],
        "cpu": sum(each.values()),
        **each,
    }


def measure_idle(stage: Stage, case: Case) -> Iterator[Result]:
    """Memory of idle streams, and a busy one before, beside and after them."""
    count, seconds = stage.settings.streams, stage.settings.seconds
    goodput = {"before": megabits(stage.bulk("up", seconds)["counts"], 0, seconds)}
    memory = stage.memory()
    load = stage.load("hold", at_once=AT_ONCE, count=count)
    load.go()
    held = load.result()
    time.sleep(1)
    each = {
        f"{role}_memory": (bytes_ - memory[role]) / KIB / max(1, held["done"])
        for role, bytes_ in stage.memory().items()
    }
    goodput["beside"] = megabits(stage.bulk("up", seconds)["counts"], 0, seconds)
    load.close()
    time.sleep(3)
    goodput["after"] = megabits(stage.bulk("up", seconds)["counts"], 0, seconds)
    yield {"held": held["done"], "failed": held["failed"], **each, **goodput}


def measure_datagrams(stage: Stage, case: Case) -> Iterator[Result]:
    """50 Mbit/s and 50 a second; the first link goes dark for good, the second for a second."""
    seconds = stage.settings.seconds
    faults = {0: (seconds / 4, NEVER), 1: (seconds / 2, seconds / 2 + 1)}
    for part, rate in (("50 Mbit/s", 50e6 / 8 / SIZE), ("50 a second", 50.0)):
        for link in stage.lab.links:
            link.set("blackhole", 0.0)
        time.sleep(2)
        seen = stage.datagrams(rate, SIZE, faults)
        yield {
            "part": part,
            "delivered": 100 * seen["came"] / seen["sent"],
            "doubles": 100 * seen["doubles"] / seen["sent"],
            "overtaken": 100 * seen["overtaken"] / seen["sent"],
            **{key: 1e3 * seen[key] for key in ("median", "late", "latest", "gap")},
        }


def measure_rest(stage: Stage, case: Case) -> Iterator[Result]:
    """Bytes on the links of a peer that nobody uses, scaled to a day."""
    time.sleep(stage.settings.rest)
    before = stage.counters()
    time.sleep(WATCH)
    pairs = list(zip(before, stage.counters(), strict=True))
    size = sum(new[way]["bytes"] - old[way]["bytes"] for old, new in pairs for way in new)
    yield {"daily": size * DAY / WATCH / 1e6}


# ---- the tables

P1 = Line(100, 50)
P2 = Line(100, 50, 0.1)
P3 = Line(100, 50, 1)
P4 = Line(500, 20, 0.01)
P5 = Line(20, 100, 2)
S1, S2 = Line(0.128, 100), Line(0.4, 50)
SMALL = Line(20, 10)
FAST, SLOW = Line(50, 10), Line(20, 40)
NEAR, FAR = Line(100, 5), Line(10, 150)
MIDDLE = Line(30, 20)
THREE = (Line(50, 10), MIDDLE, Line(20, 40))


def _both_ways(**links: Line | tuple[Line, ...]) -> tuple[Case, ...]:
    cases = [(n, link if isinstance(link, tuple) else (link,)) for n, link in links.items()]
    return tuple(Case(f"{n} {way}", lines, way) for n, lines in cases for way in ("up", "down"))


_PROXIES = ("direct", "ssh", "microsocks", "pproxy", "stripetwist")
_GOODPUT = (
    ("goodput", "Mbit/s"),
    ("later", "in the 2nd half"),
    ("share", "% of link"),
)

TABLES = {
    "bulk": Table(
        "goodput of one stream in its first seconds",
        _both_ways(P1=P1, P2=P2, P3=P3, P4=P4, P5=P5),
        ("direct", "iperf3", "ssh", "pproxy", "microsocks", "stripetwist"),
        measure_bulk,
        _GOODPUT,
        "goodput",
    ),
    "limiter": Table(
        "the same where the network holds each connection to 8 Mbit/s",
        _both_ways(limited=replace(P1, limit=8)),
        ("direct", "iperf3", "ssh", "stripetwist"),
        measure_bulk,
        _GOODPUT,
        "goodput",
    ),
    "slow": Table(
        "the same on lines that are slow",
        _both_ways(S1=S1, S2=S2),
        ("direct", "ssh", "stripetwist"),
        measure_bulk,
        _GOODPUT,
        "goodput",
    ),
    "short": Table(
        "ms until the target has answered, each after 5 idle seconds",
        (
            Case("P1", (P1,)),
            Case("P1, queue 1/4", (replace(P1, queue=0.25),)),
            Case("P3", (P3,)),
            Case("50+20", (FAST, SLOW)),
            Case("100+10 far", (NEAR, FAR)),
        ),
        _PROXIES,
        measure_short,
        (("answer", "ms"), ("whole", "ms with CONNECT")),
        "whole",
    ),
    "paths": Table(
        "one stream over two unequal links, and with the first one dark for 10 s",
        (
            Case("two", (FAST, SLOW)),
            Case("two, loss", (FAST, replace(SLOW, loss=0.5))),
            Case("hole", (FAST, SLOW), hole=True),
        ),
        ("direct", "mptcp", "stripetwist"),
        measure_paths,
        (
            *_GOODPUT,
            ("gap", "longest gap, s"),
            ("inside", "Mbit/s in the hole"),
            ("after", "from 2 s after it"),
        ),
        "goodput",
    ),
    "kinds": Table(
        "one stream over three links at once: straight, over a SOCKS and over an HTTP proxy",
        _both_ways(three=THREE),
        ("direct", "stripetwist", "stripetwist by proxies"),
        measure_bulk,
        _GOODPUT,
        "goodput",
        "stripetwist x6",
    ),
    "overhead": Table(
        "bytes of TCP payload on the link for each byte carried",
        (Case("P1", (P1,)), Case("two", (FAST, SLOW))),
        ("direct", "ssh", "stripetwist"),
        measure_overhead,
        (("payload", "sent"), ("back", "back"), ("goodput", "Mbit/s")),
        "payload",
    ),
    "loopback": Table(
        "speed of one stream without a link, and CPU seconds for each GB",
        (Case("up"), Case("down", direction="down")),
        _PROXIES,
        measure_loopback,
        (
            ("speed", "MB/s"),
            ("cpu", "CPU s/GB"),
            ("client_cpu", "client"),
            ("server_cpu", "server"),
        ),
        "cpu",
        "ssh",
    ),
    "connections": Table(
        "new connections, 64 at a time, a byte there and back on each",
        (Case("loopback"),),
        _PROXIES,
        measure_connections,
        (
            ("rate", "per second"),
            ("failed", "failed"),
            ("cpu", "CPU ms each"),
            ("client_cpu", "client"),
            ("server_cpu", "server"),
        ),
        "cpu",
        "ssh",
    ),
    "idle": Table(
        "memory of idle streams, and one busy stream before, beside and after them",
        (Case("loopback"),),
        ("ssh", "microsocks", "stripetwist"),
        measure_idle,
        (
            ("held", "streams"),
            ("client_memory", "KiB each, client"),
            ("server_memory", "server"),
            ("before", "Mbit/s before"),
            ("beside", "beside"),
            ("after", "after"),
        ),
        "beside",
        "ssh",
    ),
    "datagrams": Table(
        "numbered datagrams over three links; one goes dark, and later another for a second",
        (Case("three", (MIDDLE, MIDDLE, MIDDLE)),),
        (
            "direct",
            "tunnel",
            "stripetwist --udp",
            "stripetwist --udp by proxies",
            "stripetwist --udp-copies 2",
        ),
        measure_datagrams,
        (
            ("delivered", "% delivered"),
            ("doubles", "% twice"),
            ("overtaken", "% overtaken"),
            ("median", "ms, median"),
            ("late", "99 %"),
            ("latest", "latest"),
            ("gap", "longest gap"),
        ),
        "delivered",
        "tunnel",
    ),
    "rest": Table(
        "bytes on the link in a day without a stream",
        (Case("P1", (P1,)),),
        ("ssh", "stripetwist", "agent"),
        measure_rest,
        (("daily", "MB a day"),),
        "daily",
        "ssh",
    ),
    "small": Table(
        "a quick look whether all of this works here",
        (Case("small", (SMALL,)),),
        ("direct", "stripetwist"),
        measure_bulk,
        _GOODPUT,
        "goodput",
    ),
}
