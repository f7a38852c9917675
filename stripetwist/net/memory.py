"""How much memory this process may count on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_memory(root: Path = Path("/")) -> int:
    """
    Bytes of memory for this process: of the machine, or less where its cgroup has less.

    @param root: where C{proc} and C{sys} are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of our cgroup and of those around it (version 2 only)."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            # Version 2 has one line, of hierarchy 0 and no controllers.
            if line.startswith("0::/"):
                yield from _limits_above(root / "sys/fs/cgroup", line[len("0::/") :])


def _limits_above(mount: Path, group: str) -> Iterator[int]:
    inner = mount / group
    for folder in (inner, *inner.parents):
        with suppress(OSError, ValueError):
            # Where there is no limit it says "max".
            yield int((folder / "memory.max").read_text())
        if folder == mount:
            return
