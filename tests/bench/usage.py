"""What processes use, with all that they have started, as the kernel counts it."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children[int(stat[1])].append(int(entry))
    found = [pid]
    for one in found:
        found += children[one]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of these and their descendants, those that have ended included."""
    stats = [_stat(one) for pid in pids for one in family(pid)]
    return sum(sum(map(int, stat[11:15])) for stat in stats) / _TICKS


def memory(pids: Iterable[int]) -> int:
    """Bytes of these and their descendants; what they share is counted once."""
    return sum(_proportional(one) for pid in pids for one in family(pid))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
