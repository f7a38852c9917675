"""A program that has a proxy port carry its datagrams, byte by byte (RFC 1928, section 7)."""

import socket
from ipaddress import ip_address
from typing import Self

from support.datagrams import udp_socket
from support.ports import LOOPBACK
from support.socks import read_exactly

ASK = b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6)


class Associate:
    """
    One UDP ASSOCIATE: its connection, and the socket that goes with it.

    @ivar relay: where datagrams are to be sent.
    """

    def __init__(self, proxy: int) -> None:
        self.control = socket.create_connection((LOOPBACK, proxy), 20)
        self.control.sendall(ASK)
        said = read_exactly(self.control, 12)
        assert said[:6] == b"\x05\x00\x05\x00\x00\x01", said
        self.relay = (socket.inet_ntoa(said[6:10]), int.from_bytes(said[10:], "big"))
        self.socket = udp_socket()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()
        self.socket.close()

    def send(self, payload: bytes, host: str, port: int) -> None:
        """One datagram."""
        self.socket.sendto(wrap(payload, host, port), self.relay)

    def answered(self, port: int, payload: bytes, host: str = LOOPBACK) -> bool:
        """Whether a datagram comes back as it went, from there."""
        self.send(payload, host, port)
        try:
            return unwrap(self.socket.recv(65535)) == (payload, (host, port))
        except TimeoutError:
            return False

    def ended(self, patience: float) -> bool:
        """Whether the port ends its connection within so many seconds."""
        self.control.settimeout(patience)
        try:
            return not self.control.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def wrap(payload: bytes, host: str, port: int) -> bytes:
    """A datagram with its header."""
    address = ip_address(host)
    form = b"\x01" if address.version == 4 else b"\x04"
    return bytes(3) + form + address.packed + port.to_bytes(2, "big") + payload


def unwrap(data: bytes) -> tuple[bytes, tuple[str, int]]:
    """What it holds, and whom it is from."""
    size = {1: 4, 4: 16}[data[3]]
    host = str(ip_address(data[4 : 4 + size]))
    port = int.from_bytes(data[4 + size : 6 + size], "big")
    return data[6 + size :], (host, port)
