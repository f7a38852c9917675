"""Many connections at once: opened, used for one byte, and closed again or kept."""

import resource
import selectors
import socket
import time

from bench.flows import Address, Talk, abort, ask_proxy, connection

PATIENCE = 30.0
DESCRIPTORS = 65536


def raise_descriptors() -> None:
    """Have enough open files, or as many as the system lets us; what we start has them too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for most in (max(hard, DESCRIPTORS), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return
        except (OSError, ValueError):
            continue


class Crowd:
    """
    Keeps a number of connections at work until time or number is up.

    @ivar done: how many have had their byte back.
    @ivar failed: how many have not, and why the last one.
    @ivar kept: those that stay open, where they are kept.
    """

    def __init__(self, target: Address, proxy: Address | None, keep: bool = False) -> None:
        self._target, self._proxy, self._keep = target, proxy, keep
        self._selector = selectors.DefaultSelector()
        self.done = 0
        self.failed = 0
        self.why = ""
        self.kept: list[socket.socket] = []

    def run(self, at_once: int, seconds: float = 0.0, count: int = 0) -> float:
        """Open until then, or so many; how long it took."""
        start = time.monotonic()
        end = start + seconds if seconds else float("inf")
        left = count or 1 << 60
        moved = start
        while time.monotonic() < end and (left or self._selector.get_map()):
            while left and len(self._selector.get_map()) < at_once:
                self._open()
                left -= 1
            before = self.done + self.failed
            for key, _ in self._selector.select(1.0):
                self._step(key.fileobj, key.data)  # type: ignore[arg-type]
            if self.done + self.failed > before:
                moved = time.monotonic()
            elif time.monotonic() > moved + PATIENCE or self.failed > 1000:
                break
        took = time.monotonic() - start
        for key in list(self._selector.get_map().values()):
            abort(key.fileobj)  # type: ignore[arg-type]
        self._selector.close()
        return took

    def _open(self) -> None:
        sock = connection()
        sock.setblocking(False)
        sock.connect_ex(self._proxy or self._target)
        steps = _Steps(self._talk())
        self._selector.register(sock, selectors.EVENT_WRITE, steps)

    def _talk(self) -> Talk:
        if self._proxy:
            yield from ask_proxy(self._target)
        yield b"echo\nx", 1

    def _step(self, sock: socket.socket, steps: "_Steps") -> None:
        try:
            if steps.advance(sock):
                self._selector.modify(sock, selectors.EVENT_READ, steps)
                return
            self.done += 1
        except OSError as error:
            self.failed += 1
            self.why = str(error)
        self._selector.unregister(sock)
        if self._keep:
            self.kept.append(sock)
        else:
            sock.close()


class _Steps:
    """One connection's talk, as far as it has come."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._missing = 0
        self._got = b""
        self._begun = False

    def advance(self, sock: socket.socket) -> bool:
        """Go on as far as it goes; whether something is still to come."""
        if self._begun:
            data = sock.recv(self._missing - len(self._got))
            if not data:
                raise OSError("the connection ended early")
            self._got += data
            if len(self._got) < self._missing:
                return True
        try:
            said, self._missing = self._talk.send(self._got) if self._begun else next(self._talk)
        except StopIteration:
            return False
        self._begun, self._got = True, b""
        if said:
            sock.send(said)
        return True
