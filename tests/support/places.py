"""Network namespaces for tests, and sockets in them."""

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.places import Place

from support.programs import program

CLONE_NEWNET = 0x40000000


def need_namespaces() -> None:
    """Skip the test where none can be made."""
    program("ip", "iproute2")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces need root, and a container that lets it make them")


@contextmanager
def within(place: Place) -> Iterator[None]:
    """Sockets that this thread makes meanwhile are of that place, and stay so."""
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{place.pid}/ns/net") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    assert ctypes.CDLL(None).setns(namespace, CLONE_NEWNET) == 0
