"""
Targets on loopback, each a listener with a thread per connection.

They are plain blocking sockets, so that what they see owes nothing to an event loop.
"""

import socket
import threading
import time
from contextlib import suppress
from typing import Self

from support.flows import PIECE, reset, send
from support.ports import LOOPBACK, free_port, listener


class Target:
    """
    A listener on loopback; a subclass says what a connection gets.

    @ivar port: where it listens.
    @ivar accepted: how many connections came.
    @ivar errors: what went wrong in a connection's thread, beyond its being reset.
    """

    backlog = 1024

    def __init__(self) -> None:
        self._listener = listener(backlog=self.backlog)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut what is open; a failure in a thread is raised here."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        if self.errors:
            raise self.errors[0]

    def serve(self, sock: socket.socket) -> None:
        """One connection, from accept to close; runs in its own thread."""
        raise NotImplementedError

    def wait_accepted(self, count: int, timeout: float = 30.0) -> None:
        """Until so many connections have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.accepted >= count, timeout), (
                f"{self.accepted} of {count} connections came"
            )

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def _start(self, work, *args) -> None:  # type: ignore[no-untyped-def]
        threading.Thread(target=work, args=args, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._open.add(sock)
                self.accepted += 1
                self._changed.notify_all()
            self._start(self._run, sock)

    def _run(self, sock: socket.socket) -> None:
        try:
            self.serve(sock)
        except ConnectionError:
            pass
        except Exception as error:  # noqa: BLE001 - told to the test when it closes us
            self.errors.append(error)
        finally:
            with self._changed:
                self._open.discard(sock)
                self._changed.notify_all()
            sock.close()


class Echo(Target):
    """Sends back what it gets, and the end after it."""

    def serve(self, sock: socket.socket) -> None:
        while data := sock.recv(PIECE):
            sock.sendall(data)


class AnswerAfterEnd(Target):
    """Reads to the end, then answers at length: what half-close is for."""

    def __init__(self, stream_id: int, size: int) -> None:
        self._stream_id, self._size = stream_id, size
        self.requests: list[bytes] = []
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        request = b""
        while data := sock.recv(PIECE):
            request += data
        self.requests.append(request)
        send(sock, self._stream_id, self._size)


class Hold(Target):
    """Accepts, and then neither reads nor writes until told to let go."""

    def __init__(self) -> None:
        self._let_go = threading.Event()
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        self._let_go.wait()

    def let_go(self) -> None:
        """Close what is held."""
        self._let_go.set()

    def close(self) -> None:
        self.let_go()
        super().close()


class Reset(Target):
    """Sends some payload, then resets the connection."""

    def __init__(self, stream_id: int, size: int) -> None:
        self._stream_id, self._size = stream_id, size
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        send(sock, self._stream_id, self._size)
        sock.recv(1)
        reset(sock)


class Banner(Target):
    """Speaks first, as mail and login servers do, then echoes."""

    def __init__(self, banner: bytes) -> None:
        self._banner = banner
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        sock.sendall(self._banner)
        while data := sock.recv(PIECE):
            sock.sendall(data)


class Trickle(Target):
    """Sends a text a byte at a time."""

    def __init__(self, text: bytes, pause: float = 0.02) -> None:
        self._text, self._pause = text, pause
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        for value in self._text:
            sock.sendall(bytes([value]))
            time.sleep(self._pause)


class Silent:
    """
    A port that answers no SYN: its accept queue is kept full.

    @ivar port: where nothing happens until L{answer}.
    """

    def __init__(self) -> None:
        self._listener = listener(backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers = []
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((LOOPBACK, self.port))
            self._fillers.append(filler)
        self._prove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prove(self) -> None:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            try:
                probe.connect((LOOPBACK, self.port))
            except TimeoutError:
                return
        raise AssertionError("the silent port answered")

    def answer(self) -> None:
        """From now on accept, and send the word C{late} to each."""
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.sendall(b"late")
            sock.close()

    def close(self) -> None:
        """Free the port."""
        for filler in self._fillers:
            filler.close()
        self._listener.close()


class Refusing:
    """A port that is taken and not listened on, so that every connection is refused."""

    def __init__(self) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind((LOOPBACK, free_port()))
        self.port: int = self._sock.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the port."""
        self._sock.close()
