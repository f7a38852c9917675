"""
The simplest tunnel of UDP over several TCP connections, to compare with.

It does what socktopus does: buffers of 5 KiB, so that a connection whose last datagram has not
left is a busy one; the first connection if that is free, else another that is, the last free one
first; if none is, the datagram is dropped.  One that ends is dialed again after a second.

C{python -m bench.tunnel near UDP_PORT BIND=HOST:PORT...} and
C{python -m bench.tunnel far TCP_PORT HOST:UDP_PORT}.
"""

import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable

from bench.flows import Address

_HEAD = struct.Struct(">H")
_BUFFER = 5 * 1024
_AGAIN = 1.0
_PATIENCE = 5.0


class Wire:
    """One TCP connection that carries datagrams."""

    def __init__(self, sock: socket.socket, came: Callable[[bytes], None]) -> None:
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._came = came
        self._in = self._out = b""
        self.dead = False

    def is_free(self) -> bool:
        """Whether all that was given to it has left."""
        self._flush()
        return not self.dead and not self._out

    def send(self, datagram: bytes) -> None:
        """Carry one."""
        self._out = _HEAD.pack(len(datagram)) + datagram
        self._flush()

    def _flush(self) -> None:
        try:
            if self._out and not self.dead:
                self._out = self._out[self.sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.dead = True

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.dead |= not data
        self._in += data
        while len(self._in) >= _HEAD.size:
            end = _HEAD.size + _HEAD.unpack_from(self._in)[0]
            if len(self._in) < end:
                break
            self._came(self._in[_HEAD.size : end])
            self._in = self._in[end:]


class Tunnel:
    """One end: a UDP port, and the connections there are."""

    def __init__(self, udp: socket.socket, target: Address | None) -> None:
        self._udp = udp
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._wires: list[Wire] = []
        self._selector.register(udp, selectors.EVENT_READ, self._from_udp)

    def add(self, sock: socket.socket) -> Wire:
        """One more connection."""
        wire = Wire(sock, self._to_udp)
        self._wires.append(wire)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(wire))
        return wire

    def listen(self, listener: socket.socket) -> None:
        """Take connections."""
        self._selector.register(
            listener, selectors.EVENT_READ, lambda: self.add(listener.accept()[0])
        )

    def step(self, timeout: float) -> None:
        """Do what there is to be done."""
        for key, _ in self._selector.select(timeout):
            key.data()

    def _read(self, wire: Wire) -> None:
        wire.read()
        if wire.dead:
            self._selector.unregister(wire.sock)
            self._wires.remove(wire)
            wire.sock.close()

    def _from_udp(self) -> None:
        datagram, source = self._udp.recvfrom(65536)
        # What comes back goes to whom it was that spoke last, where there is no target.
        self._target = source
        for wire in self._wires:
            if wire.is_free():
                wire.send(datagram)
                if wire is not self._wires[0]:
                    self._wires.remove(wire)
                    self._wires.insert(1, wire)
                return

    def _to_udp(self, datagram: bytes) -> None:
        if self._target:
            self._udp.sendto(datagram, self._target)


def _buffers(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return sock


def _dial(bind: str, to: str) -> socket.socket | None:
    host, port = to.split(":")
    sock = _buffers(socket.socket())
    sock.settimeout(_PATIENCE)
    try:
        sock.bind((bind, 0))
        sock.connect((host, int(port)))
    except OSError:
        sock.close()
        return None
    return sock


def near(port: int, ways: list[str]) -> None:
    """The end that dials."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", port))
    tunnel = Tunnel(udp, None)
    wires: dict[str, Wire | None] = dict.fromkeys(ways)
    look_at = 0.0
    while True:
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _AGAIN
            for way, wire in wires.items():
                if wire is None or wire.dead:
                    sock = _dial(*way.split("="))
                    wires[way] = tunnel.add(sock) if sock else None
        tunnel.step(_AGAIN)


def far(port: int, target: str) -> None:
    """The end that is dialed."""
    host, udp_port = target.split(":")
    tunnel = Tunnel(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (host, int(udp_port)))
    listener = _buffers(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen()
    tunnel.listen(listener)
    while True:
        tunnel.step(_AGAIN)


if __name__ == "__main__":
    if sys.argv[1] == "near":
        near(int(sys.argv[2]), sys.argv[3:])
    else:
        far(int(sys.argv[2]), sys.argv[3])
