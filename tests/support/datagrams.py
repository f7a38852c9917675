"""UDP sockets of programs, and a port that echoes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import randrange

from support.ports import LOOPBACK


def udp_socket(port: int = 0) -> socket.socket:
    """A socket of a program."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOOPBACK, port))
    made.settimeout(0.5)
    return made


def free_udp_port() -> int:
    """A UDP port that was free a moment ago, and that nobody gets who asks for any."""
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    while True:
        with suppress(OSError), udp_socket(randrange(20_000, int(ephemeral[0]))) as made:
            return int(made.getsockname()[1])


@contextmanager
def udp_echo(times: int = 1, size: int = 0) -> Iterator[int]:
    """
    A port that sends back what comes.

    @param times: how often.
    @param size: how long at least each answer is.
    """
    with udp_socket() as echo:
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                try:
                    data, source = echo.recvfrom(65535)
                    for _ in range(times):
                        echo.sendto(data.ljust(size, b"."), source)
                except OSError:
                    continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield int(echo.getsockname()[1])
        finally:
            over.set()
            thread.join()


def answered(program: socket.socket, port: int, payload: bytes, host: str = LOOPBACK) -> bool:
    """Whether a datagram comes back as it went."""
    program.sendto(payload, (host, port))
    try:
        return program.recv(65535) == payload
    except TimeoutError:
        return False
