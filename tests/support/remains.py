"""What a process that is run with a census keeps at rest."""

import json
import signal

from support.processes import Process


def most_kept(process: Process, subflows: int = 6) -> dict[str, int]:
    """The most of each that it keeps at rest: asking has a descriptor and a timer too."""
    most: dict[str, int] = {}
    for _ in range(5):
        for name, count in kept(process, subflows).items():
            most[name] = max(most.get(name, 0), count)
    return most


def kept(process: Process, subflows: int = 6) -> dict[str, int]:
    """What the process keeps when no stream is open: timers, sockets, objects by class."""
    process.wait_streams(0, 5)
    process.wait_subflows(subflows)
    seen = len(process.lines)
    process.signal(signal.SIGUSR1)
    census = json.loads(process.wait_line(r"^census (.*)", since=seen)[1])
    counts: dict[str, int] = {**census.pop("objects"), **census, "fds": process.fds}
    return counts


def left_over(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What there is more of."""
    more = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in more.items() if count > 0}
