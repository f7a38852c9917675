"""A program in a network namespace from which nothing but the proxy port leads anywhere."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.links import Lab, Line
from bench.peers import PROXY_PORT
from bench.places import Place
from support import names
from support.ends import start_ends
from support.programs import program, run
from support.waiting import wait_until

NAME_SERVER, PORT = "10.99.0.53", 5353
RESOLVE = Path(names.__file__).with_name("resolve.py")
CONFIGURATION = f"""
route {{
    from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {PROXY_PORT}
    proxyprotocol: socks_v5
    protocol: tcp udp
    command: connect udpassociate
    method: none
}}
"""


@pytest.fixture
def near(emulator: Path, tmp_path: Path) -> Iterator[Place]:
    """Where a client runs; behind its server there is a name server."""
    lab = Lab(emulator, (Line(100, 1),), "cubic", 1)
    try:
        lab.far.shell(f"ip address add {NAME_SERVER}/32 dev lo")
        ready = lab.far.start(names.command(NAME_SERVER, PORT)).stdout
        assert ready is not None
        assert ready.readline() == "ready\n"
        log = start_ends(lab, tmp_path)
        wait_until(lambda: "  try " in log.read_text(), 20, "the client")
        yield lab.near
    finally:
        lab.close()


def test_socksify(near: Place, tmp_path: Path) -> None:
    """twisted.names finds a name server by dante's socksify, and none without it."""
    socksify = program("socksify", "dante-client")
    (tmp_path / "dante.conf").write_text(CONFIGURATION)
    asking = [sys.executable, str(RESOLVE), NAME_SERVER, str(PORT)]
    asking += ["www.example.test"] * 5
    done = run(near.inside(asking), tmp_path)
    assert (done.returncode, done.stdout) == (1, b""), done
    began = time.monotonic()
    socks = {"SOCKS_CONF": str(tmp_path / "dante.conf")}
    done = run(near.inside([socksify, *asking]), tmp_path, **socks)
    print(f"{time.monotonic() - began:.2f} s; {done.stderr.decode()[-4000:]}")
    assert done.stdout.decode().split() == [names.ADDRESS] * 5
