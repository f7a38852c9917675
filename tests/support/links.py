"""One forwarded connection of the fault relay, and how fast bytes may go."""

import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from support.flows import reset

ROOM = 256 * 1024
BURST = 0.05


class Budget:
    """
    Bytes that may go now, each way; a token bucket.

    @ivar rate: bytes per second each way; 0 for no bound.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._left = {"up": 0.0, "down": 0.0}
        self._refilled = time.monotonic()

    def room(self, way: str) -> int:
        """How many bytes may go that way now."""
        return int(self._left[way]) if self.rate else ROOM

    def spend(self, way: str, size: int) -> None:
        """That many went."""
        self._left[way] -= size

    def refill(self) -> None:
        """Add what the time since the last refill allows."""
        now = time.monotonic()
        new, self._refilled = (now - self._refilled) * self.rate, now
        for way, left in self._left.items():
            self._left[way] = min(left + new, self.rate * BURST)


@dataclass
class Pipe:
    """
    One direction of a link.

    @ivar way: C{"up"} to the server or C{"down"} from it.
    @ivar carried: the bytes that went out.
    @ivar swallowed: the bytes that came in and were thrown away.
    @ivar corrupted: how many bytes were changed.
    """

    way: str
    near: socket.socket
    far: socket.socket
    held: bytearray = field(default_factory=bytearray)
    carried: int = 0
    swallowed: int = 0
    corrupted: int = 0
    ended: bool = False
    end_sent: bool = False

    def read(self, swallow: bool, corrupt: bool) -> None:
        """Take what has come, and keep it unless it is to vanish."""
        try:
            data = bytearray(self.near.recv(ROOM))
        except BlockingIOError:
            return
        if not data:
            self.ended = True
            return
        if swallow:
            self.swallowed += len(data)
            return
        if corrupt:
            data[-1] ^= 0x40
            self.corrupted += 1
        self.held += data

    def write(self, most: int) -> int:
        """Send at most that much of what is held."""
        try:
            sent = self.far.send(memoryview(self.held)[:most])
        except BlockingIOError:
            return 0
        del self.held[:sent]
        self.carried += sent
        return sent

    def pass_end(self) -> None:
        """Once all is sent, tell of the end too."""
        if self.ended and not self.held and not self.end_sent:
            self.end_sent = True
            self.far.shutdown(socket.SHUT_WR)


class Link:
    """
    One forwarded connection.

    @ivar number: in order of arrival, from 0.
    @ivar up: from the client to the server.
    @ivar down: from the server to the client.
    @ivar alive: whether both its sockets are open.
    @ivar stalled: nothing is read or written.
    @ivar swallowing: what comes is thrown away.
    @ivar sliced: bytes go out one at a time.
    @ivar corrupting: the next bytes each way are changed.
    """

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self.up = Pipe("up", client, server)
        self.down = Pipe("down", server, client)
        self.alive = True
        self.stalled = self.swallowing = self.sliced = self.corrupting = False

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        """Both directions."""
        return self.up, self.down

    @property
    def carried(self) -> int:
        """Bytes forwarded, both ways."""
        return self.up.carried + self.down.carried

    def wishes(self, budget: Budget) -> list[tuple[socket.socket, int]]:
        """Each socket with the events that it waits for."""
        wishes = []
        for out, into in ((self.up, self.down), (self.down, self.up)):
            events = selectors.EVENT_READ if self._may_read(out) else 0
            events |= selectors.EVENT_WRITE if self._may_write(into, budget) else 0
            wishes.append((out.near, events))
        return wishes

    def move(self, budget: Budget) -> None:
        """
        Forward what can go now.

        @raise OSError: one of the ends has failed.
        """
        for pipe in self.pipes:
            if self._may_read(pipe):
                pipe.read(self.swallowing, self.corrupting and not pipe.corrupted)
            if self._may_write(pipe, budget):
                most = 1 if self.sliced else min(len(pipe.held), budget.room(pipe.way))
                budget.spend(pipe.way, pipe.write(most))
            if not self.stalled:
                pipe.pass_end()

    @property
    def finished(self) -> bool:
        """Whether both ends have closed, each in its time."""
        return self.up.end_sent and self.down.end_sent

    def close(self) -> None:
        """Close both sockets."""
        self.alive = False
        for pipe in self.pipes:
            pipe.near.close()

    def reset(self) -> None:
        """Reset both ends."""
        self.alive = False
        for pipe in self.pipes:
            with suppress(OSError):
                reset(pipe.near)

    def _may_read(self, pipe: Pipe) -> bool:
        return not pipe.ended and not self.stalled and len(pipe.held) < ROOM

    def _may_write(self, pipe: Pipe, budget: Budget) -> bool:
        return bool(pipe.held) and not self.stalled and budget.room(pipe.way) > 0
