"""
What the loads talk to, at the far end: C{python -m bench.target HOST PORT [mptcp]}.

A connection begins with a line:

  - C{echo}: what comes is sent back.
  - C{take SIZE}: so many bytes are received, and answered by one.
  - C{up START END}: received between these moments of the monotonic clock, which all
    processes of a machine share, and counted; the counts go to standard output.
  - C{down START END}: sent until then.
"""

import json
import selectors
import socket
import sys
import threading
from collections.abc import Callable

from bench import flows
from bench.crowd import raise_descriptors

_SPEAKING = threading.Lock()


class Target:
    """Accepts, reads first lines and echoes in one thread; each long transfer has its own."""

    def __init__(self, host: str, port: int, mptcp: bool) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = flows.connection(mptcp)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(4096)
        self._listener.setblocking(False)
        self._watch(self._listener, self._accept)

    def run(self) -> None:
        """For ever."""
        print("ready", flush=True)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _watch(self, sock: socket.socket, call: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, call)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(sock, lambda: self._first(sock, b""))

    def _first(self, sock: socket.socket, begun: bytes) -> None:
        line, end, rest = (begun + self._read(sock)).partition(b"\n")
        if sock.fileno() < 0:
            return
        if not end:
            self._selector.modify(sock, selectors.EVENT_READ, lambda: self._first(sock, line))
        elif line == b"echo":
            self._selector.modify(sock, selectors.EVENT_READ, lambda: self._echo(sock))
            sock.send(rest)
        else:
            self._selector.unregister(sock)
            sock.setblocking(True)
            words = line.decode().split()
            threading.Thread(target=_serve, args=(sock, words, len(rest)), daemon=True).start()

    def _echo(self, sock: socket.socket) -> None:
        if data := self._read(sock):
            sock.send(data)

    def _read(self, sock: socket.socket) -> bytes:
        """What there is; if that is the end, the connection is closed."""
        try:
            data = sock.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            sock.close()
        return data


def _serve(sock: socket.socket, words: list[str], already: int) -> None:
    try:
        if words[0] == "take":
            flows.discard(sock, int(words[1]) - already)
            sock.sendall(b".")
            sock.recv(1)
            sock.close()
            return
        start, end = map(float, words[1:])
        if words[0] == "up":
            counts = flows.receive_until(sock, start, end)
            # Several may be done at once, and a long line leaves in pieces.
            with _SPEAKING:
                print(json.dumps({"start": start, "counts": counts}), flush=True)
        else:
            flows.send_until(sock, end)
    except OSError:
        pass
    flows.abort(sock)


if __name__ == "__main__":
    raise_descriptors()
    Target(sys.argv[1], int(sys.argv[2]), "mptcp" in sys.argv).run()
