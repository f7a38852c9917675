"""The target that moves verified payload, and how a client asks it to."""

import socket
import threading

from support.flows import Flow, receive, send
from support.targets import Target


class Exchange(Target):
    """
    Moves verified payload; the client's first line says what (see L{ask_exchange}).

    @ivar asked: ids of the clients' streams whose request has come.
    @ivar received: by id of the client's stream, the verified bytes.
    @ivar sent: by id of the target's stream, the bytes that the kernel took.
    @ivar ends: by either id, C{"whole"} or C{"reset"}.
    """

    def __init__(self) -> None:
        self.asked: set[int] = set()
        self.received: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.ends: dict[int, str] = {}
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        up, down, size, rate = (int(word) for word in _line(sock).split())
        with self._changed:
            self.asked.add(up)
            self._changed.notify_all()
        sender = threading.Thread(target=self._send, args=(sock, down, size, rate))
        if down:
            self.sent[down] = 0
            sender.start()
        flow = Flow()
        try:
            flow = receive(sock, up)
            self.received[up] = flow.size
        finally:
            if down:
                sender.join()
            self._ended(up, down, flow.end if self._all_sent(down, size) else "reset")

    def wait_asked(self, stream_id: int, timeout: float = 30.0) -> None:
        """Until the request has come that names that stream of the client's."""
        with self._changed:
            assert self._changed.wait_for(lambda: stream_id in self.asked, timeout), (
                f"no request for stream {stream_id} came"
            )

    def wait_end(self, stream_id: int, timeout: float = 60.0) -> str:
        """How the exchange of that stream ended, once it has."""
        with self._changed:
            assert self._changed.wait_for(lambda: stream_id in self.ends, timeout), (
                f"stream {stream_id} has not ended"
            )
        return self.ends[stream_id]

    def _send(self, sock: socket.socket, down: int, size: int, rate: int) -> None:
        send(_Counting(sock, self.sent, down), down, size, rate)
        if self._all_sent(down, size):
            sock.shutdown(socket.SHUT_WR)

    def _all_sent(self, down: int, size: int) -> bool:
        return not down or 0 < size == self.sent[down]

    def _ended(self, up: int, down: int, how: str) -> None:
        with self._changed:
            self.ends[up] = self.ends[down] = how
            self._changed.notify_all()


def ask_exchange(
    sock: socket.socket, up: int = 0, down: int = 0, size: int = 0, rate: int = 0
) -> None:
    """
    Tell an L{Exchange} what to do.

    @param up: id of the stream that will be sent to it; 0 if only an end follows.
    @param down: id of the stream that it shall send; 0 for none.
    @param size: that one's bytes; 0 for no end.
    @param rate: that one's bytes per second; 0 for as fast as it goes.
    """
    sock.sendall(f"{up} {down} {size} {rate}\n".encode())


class _Counting:
    """A socket's sendall that keeps count of what the kernel took."""

    def __init__(self, sock: socket.socket, counts: dict[int, int], key: int) -> None:
        self._sock, self._counts, self._key = sock, counts, key

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            sent = self._sock.send(view)
            self._counts[self._key] += sent
            view = view[sent:]


def _line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("no request came")
        line += byte
    return line


class EndFirst(Exchange):
    """Ends its own direction at once, and goes on receiving what the client sends."""

    def serve(self, sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        super().serve(sock)
