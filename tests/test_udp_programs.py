"""Real programs whose datagrams are carried."""

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
