"""Real programs whose datagrams are carried."""

import asyncio
import time

from support import quic
from support.associate import Associate
from support.datagrams import free_udp_port
from support.names import ADDRESS, LONG, name_server
from support.ports import LOOPBACK, free_port
from support.programs import program, succeed
from support.waiting import wait_until
from support.workshop import Workshop


def test_dig(workshop: Workshop) -> None:
    """dig asks a name server at a forwarded port: short, long, and what is not there."""
    dig = program("dig", "bind9-dnsutils")
    at, there = free_port(), free_udp_port()
    with name_server(LOOPBACK, there):
        server = workshop.server("--allow", f"localhost:{there}/udp")
        client = workshop.client(server, f"--udp={at}={LOOPBACK}:{there}")
        client.wait_subflows(6)

        def asked(*words: str) -> str:
            line = [dig, f"@{LOOPBACK}", "-p", str(at), "+ignore", "+tries=1", "+time=5", *words]
            return succeed(line, workshop.folder).decode()

        assert asked("+short", "www.example.test") == f"{ADDRESS}\n"
        text = asked("+short", "+bufsize=4096", "long.example.test", "TXT")
        assert text.count("x") == LONG
        assert "status: NXDOMAIN" in asked("none.example.test")
        counters = server.snapshot()["counters"]
        assert (counters["udp_sent"], counters["udp_received"]) == (3, 3)
        wait_until(lambda: client.snapshot()["counters"]["udp_forward_opened"], 5, "a count")


def test_http3(workshop: Workshop) -> None:
    """aioquic gets a body over UDP ASSOCIATE, from a server whose certificate it verifies."""
    there, size = free_udp_port(), 2_000_000
    with quic.http3_server(there, workshop.folder):
        server = workshop.server("--allow", f"localhost:{there}/udp")
        client = workshop.client(server)
        client.wait_subflows(6)
        with Associate(client.proxy) as program:
            asking = quic.request(program, there, workshop.folder, size)
            began = time.monotonic()
            answer = asyncio.run(asyncio.wait_for(asking, 30))
            print(f"{size / 1e6 / (time.monotonic() - began):.1f} MB/s over HTTP/3")
        assert answer == quic.body(size)
        counters = server.snapshot()["counters"]
        assert min(counters["udp_sent"], counters["udp_received"]) > 10
