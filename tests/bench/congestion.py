"""What namespaces may choose as congestion control: the host decides, so it is asked to."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.places import BenchError

_IPV4 = Path("/proc/sys/net/ipv4")
_AVAILABLE = _IPV4 / "tcp_available_congestion_control"
_ALLOWED = _IPV4 / "tcp_allowed_congestion_control"


@contextmanager
def allowed(name: str) -> Iterator[None]:
    """Have namespaces choose it, and put the host's setting back."""
    if name not in _AVAILABLE.read_text().split() and shutil.which("modprobe"):
        subprocess.run(["modprobe", f"tcp_{name}"], capture_output=True, check=False)
    available = _AVAILABLE.read_text().split()
    if name not in available:
        raise BenchError(f"this kernel has no {name}; take one of {', '.join(available)}")
    before = _ALLOWED.read_text()
    if name in before.split():
        yield
        return
    print(f"{_ALLOWED} is {before.strip()}: adding {name} until the end", file=sys.stderr)
    _ALLOWED.write_text(f"{before.strip()} {name}")
    try:
        yield
    finally:
        _ALLOWED.write_text(before)
