"""An HTTP proxy of the test's own, that does to a connection what none should."""

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from support.flows import reset
from support.ports import LOOPBACK, listener

ANSWER = b"HTTP/1.1 200 OK\r\n\r\n"
WITHIN = 6000

Tamper = Callable[[int, bytes], bytes | None]


def honest(at: int, data: bytes) -> bytes | None:
    """Leave it as it is."""
    return data


class Crooked:
    """
    An HTTP proxy that tampers with what it carries to its client, its own answer included.

    @ivar port: where it listens.
    @ivar tampers: makes what each new connection suffers.
    @ivar uploads: what was carried to the server, by connection.
    @ivar deeds: how often a connection was reset or changed.
    """

    def __init__(self, seed: int = 1) -> None:
        self._listener = listener()
        self.port: int = self._listener.getsockname()[1]
        self.tampers: Callable[[], Tamper] = lambda: honest
        self.uploads: list[bytearray] = []
        self.deeds = 0
        self._random = random.Random(seed)
        self._socks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._socks):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    @property
    def path(self) -> str:
        """The path that leads through it."""
        return f"http://{LOOPBACK}:{self.port}"

    def resetting(self) -> Tamper:
        """Reset after a random byte."""
        last = self._place()

        def tamper(at: int, data: bytes) -> bytes | None:
            return data[: last - at] if at < last else None

        return tamper

    def flipping(self) -> Tamper:
        """Flip one bit of a random byte."""
        where = self._place()

        def tamper(at: int, data: bytes) -> bytes | None:
            if not at <= where < at + len(data):
                return data
            self.deeds += 1
            changed = bytearray(data)
            changed[where - at] ^= 0x40
            return bytes(changed)

        return tamper

    def _place(self) -> int:
        """A random place: in its own answer as often as behind it."""
        return self._random.randrange(self._random.choice((len(ANSWER), WITHIN)))

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._socks.append(near)
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := near.recv(1)):
                    return
                head += byte
            port = int(head.split()[1].rpartition(b":")[2])
            far = socket.create_connection((LOOPBACK, port))
            self._socks.append(far)
            upload = bytearray()
            self.uploads.append(upload)
            threading.Thread(target=_carry, args=(near, far, upload), daemon=True).start()
            self._bring(far, near, self.tampers())

    def _bring(self, far: socket.socket, near: socket.socket, tamper: Tamper) -> None:
        at, data = 0, ANSWER
        while data:
            out = tamper(at, data)
            if out is not None:
                near.sendall(out)
            if out is None or len(out) < len(data):
                self.deeds += 1
                break
            at += len(data)
            data = far.recv(65536)
        for sock in (near, far):
            sock.shutdown(socket.SHUT_RD)
            reset(sock)


def _carry(near: socket.socket, far: socket.socket, upload: bytearray) -> None:
    with suppress(OSError):
        while data := near.recv(65536):
            upload += data
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
