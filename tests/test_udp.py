"""Forwarded UDP ports between real processes."""

import json
import socket
import subprocess

import pytest
import socks
from support.associate import Associate
from support.datagrams import answered, udp_echo, udp_socket
from support.ports import LOOPBACK, free_port, listening
from support.programs import program
from support.timing import in_time, measures_times
from support.waiting import wait_until
from support.workshop import Workshop


def test_echo(workshop: Workshop) -> None:
    """Each program gets its own answers, of every size; the client was there first."""
    with udp_echo() as target, udp_socket() as ann, udp_socket() as bob:
        at = free_port()
        server = workshop.server("--allow", f"localhost:{target}/udp")
        workshop.client(server, f"--udp={at}={LOOPBACK}:{target}")
        wait_until(lambda: answered(ann, at, b"ann"), 20, "an answer")
        wait_until(lambda: answered(bob, at, b"bob"), 20, "an answer")
        for size in (0, 1, 1400, 9000, 65_507):
            wait_until(lambda size=size: answered(ann, at, bytes(size)), 20, "an answer")


def test_denied(workshop: Workshop) -> None:
    """The log says what is missing."""
    at = free_port()
    server = workshop.server("--allow", "localhost/tcp")
    client = workshop.client(server, f"--udp={at}={LOOPBACK}:9")
    with udp_socket() as ann:
        # The port opens a moment after that of the proxy.
        assert not answered(ann, at, b"a")
        assert not answered(ann, at, b"a")
        client.wait_line(r"not yet: 127\.0\.0\.1:9 is refused: .*UDP port 9")


def test_associate(workshop: Workshop) -> None:
    """PySocks sends datagrams through the proxy port, to an address and to a name."""
    with udp_echo() as target:
        server = workshop.server("--allow", f"localhost:{target}/udp")
        client = workshop.client(server)
        with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.set_proxy(socks.SOCKS5, LOOPBACK, client.proxy, rdns=True)
            program.settimeout(0.5)
            program.bind((LOOPBACK, 0))

            def answered_there(host: str, size: int) -> bool:
                program.sendto(bytes(size), (host, target))
                try:
                    return program.recvfrom(65535) == (bytes(size), (LOOPBACK, target))
                except TimeoutError:
                    return False

            for host, size in ((LOOPBACK, 0), ("localhost", 40), (LOOPBACK, 9000)):
                wait_until(lambda h=host, s=size: answered_there(h, s), 20, "an answer")
            for port in (7, 9, 7):
                program.sendto(b"", (LOOPBACK, port))
            # Those still unread when its connection ends are dropped.
            server.wait_line("client-1: datagrams are refused: .*UDP port 7 ")
        for words in ("(UDP)", "UDP Port", "UdpRelay", "ExitAssociation", "_Socket"):
            assert words not in client.log + server.log


def test_associate_ends(workshop: Workshop) -> None:
    """The port is gone within a second of its connection."""
    server = workshop.server("--allow", "localhost")
    client = workshop.client(server)
    with Associate(client.proxy) as program:
        port = program.relay[1]
        assert not is_free(port)
    wait_until(lambda: is_free(port), 1, "the port to be free")


def is_free(port: int) -> bool:
    """Whether nobody has that UDP port."""
    try:
        udp_socket(port).close()
    except OSError:
        return False
    return True


@pytest.mark.demanding
@measures_times
def test_iperf3(workshop: Workshop) -> None:
    """Its control connection over a stream, its datagrams beside it: little is lost."""
    iperf3 = program("iperf3")
    at, there = free_port(), free_port()
    server = workshop.server("--allow", "localhost")
    place = f"{at}={LOOPBACK}:{there}"
    client = workshop.client(server, f"--forward={place}", f"--udp={place}")
    client.wait_subflows(6)
    serving = subprocess.Popen([iperf3, "-s", "-1", "-p", str(there)], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: there in listening(serving.pid), 10, "iperf3")
        words = [iperf3, "-J", "-u", "-b", "10M", "-t", "2", "-l", "1200", "-c", LOOPBACK]
        said = subprocess.run([*words, "-p", str(at)], capture_output=True, timeout=30).stdout
    finally:
        serving.kill()
        serving.wait()
    found = json.loads(said)["end"]["sum"]
    print(f"{found['lost_packets']} of {found['packets']} lost, {found['jitter_ms']:.2f} ms jitter")
    assert found["packets"] > 1000
    in_time(found["lost_percent"] < 2, found)
