"""
The fault relay: forwards TCP between a client and a server, and breaks it on command.

Every command is carried out in the relay's own thread, returns when it is done, and
fails with L{NoFaultError} if there was nothing to break: no test passes for want of a fault.
"""

import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self, TypeVar

from support.flows import reset
from support.links import Budget, Link
from support.ports import LOOPBACK, listener

T = TypeVar("T")
TICK = 0.005


class NoFaultError(AssertionError):
    """There was nothing that the fault could have been done to."""


class Relay:
    """
    A TCP forwarder that can be told to fail.

    @ivar port: where clients dial.
    @ivar links: every link there ever was.
    @ivar cuts: how many links were cut.
    @ivar connects: when each connection to the server came about, by the monotonic clock.
    @ivar misses: when the server could not be connected to.
    """

    def __init__(self, server: int, seed: int = 1) -> None:
        self._server = server
        self._listener = listener()
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.links: list[Link] = []
        self.cuts = 0
        self.connects: list[float] = []
        self.misses: list[float] = []
        self._random = random.Random(seed)
        self._budget = Budget()
        self._commands: list[tuple[Callable[[], object], Future[object]]] = []
        self._closing = False
        self._wake, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything and stop."""
        if self._thread.is_alive():
            self._do(self._stop)
            self._thread.join()

    @property
    def alive(self) -> list[Link]:
        """The links that are up."""
        return [link for link in self.links if link.alive]

    def cut(self, link: Link | None = None) -> Link:
        """Reset one link at both ends, a random one unless told which."""
        return self._do(lambda: self._cut(link))

    def cut_all(self) -> int:
        """Reset every link; how many there were."""
        return self._do(self._cut_all)

    def refuse(self) -> None:
        """Refuse new connections; those that are up stay."""
        self._do(self._refuse)
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, self.port)) == 0:
                raise NoFaultError("the relay still accepts")

    def accept(self) -> None:
        """Take new connections again."""
        self._do(self._accept_again)

    def stall(self, link: Link | None = None) -> Link:
        """Forward nothing more on a link; it stays up, and pushes back."""
        return self._do(lambda: self._set(link, stalled=True))

    def blackhole(self, link: Link | None = None) -> Link:
        """Take what comes on a link and throw it away; it stays up."""
        return self._do(lambda: self._set(link, swallowing=True))

    def slice(self, link: Link | None = None) -> Link:
        """Forward one byte at a time on a link."""
        return self._do(lambda: self._set(link, sliced=True))

    def resume(self, link: Link) -> None:
        """Forward again as before L{stall} or L{slice}."""
        self._do(lambda: self._set(link, stalled=False, sliced=False))

    def corrupt(self, link: Link | None = None) -> Link:
        """Flip a bit of what comes next, in each direction of a link."""
        return self._do(lambda: self._set(link, corrupting=True))

    def rate(self, bytes_per_second: float) -> None:
        """Bound what all links together carry, each way; 0 for no bound."""
        self._do(lambda: self._set_rate(bytes_per_second))

    def _do(self, work: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._commands.append((work, done))  # type: ignore[arg-type]
        self._waker.send(b"x")
        return done.result(timeout=30)

    # From here on, all runs in the relay's thread.

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(TICK if self._budget.rate else None):
                if key.fileobj is self._wake:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._take()
                elif key.data.alive:
                    self._move(key.data)
            if self._budget.rate:
                self._budget.refill()
                self._watch_all()

    def _obey(self) -> None:
        self._wake.recv(4096)
        while self._commands:
            work, done = self._commands.pop(0)
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001 - raised where the command was given
                done.set_exception(error)

    def _stop(self) -> None:
        self._closing = True
        for link in self.alive:
            self._reset(link)
        self._listener.close()

    def _take(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket()
        try:
            server.connect((LOOPBACK, self._server))
        except OSError:
            self.misses.append(time.monotonic())
            server.close()
            reset(client)
            return
        self.connects.append(time.monotonic())
        link = Link(len(self.links), client, server)
        self.links.append(link)
        self._watch(link)

    def _move(self, link: Link) -> None:
        try:
            link.move(self._budget)
        except OSError:
            self._reset(link)
            return
        if link.finished:
            self._forget(link)
            link.close()
        else:
            self._watch(link)

    def _watch_all(self) -> None:
        for link in self.alive:
            self._watch(link)

    def _watch(self, link: Link) -> None:
        for sock, events in link.wishes(self._budget):
            known = self._selector.get_map().get(sock)
            if known is None and events:
                self._selector.register(sock, events, link)
            elif known is not None and not events:
                self._selector.unregister(sock)
            elif known is not None and known.events != events:
                self._selector.modify(sock, events, link)

    def _forget(self, link: Link) -> None:
        for pipe in link.pipes:
            if pipe.near in self._selector.get_map():
                self._selector.unregister(pipe.near)

    def _reset(self, link: Link) -> None:
        self._forget(link)
        link.reset()

    def _one(self, link: Link | None) -> Link:
        if link is None:
            if not self.alive:
                raise NoFaultError("no link is up")
            return self._random.choice(self.alive)
        if not link.alive:
            raise NoFaultError(f"link {link.number} is down already")
        return link

    def _cut(self, link: Link | None) -> Link:
        link = self._one(link)
        self._reset(link)
        self.cuts += 1
        return link

    def _cut_all(self) -> int:
        links = self.alive
        if not links:
            raise NoFaultError("no link is up")
        for link in links:
            self._cut(link)
        return len(links)

    def _set(self, link: Link | None, **flags: bool) -> Link:
        link = self._one(link)
        for name, value in flags.items():
            setattr(link, name, value)
        self._watch(link)
        return link

    def _refuse(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.shutdown(socket.SHUT_RD)

    def _accept_again(self) -> None:
        self._listener.listen(1024)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _set_rate(self, bytes_per_second: float) -> None:
        self._budget.refill()
        self._budget.rate = bytes_per_second
        self._watch_all()
