"""Congestion windows: how they are opened, as the kernel sees them."""

from collections.abc import Mapping
from typing import Protocol

from stripetwist.core import events
from stripetwist.core.session import Session


class Windowed(Protocol):
    """What there is to know of a connection's window."""

    @property
    def retransmitted(self) -> int:
        """How many packets its kernel has had to send again."""

    def smooth(self) -> None:
        """Spread what is sent over the round trip."""


class Windows:
    """The subflows of a session: whether filler gets lost there, and what is to be spread."""

    def __init__(self, session: Session, connections: Mapping[int, Windowed]) -> None:
        self._session = session
        self._connections = connections
        self._lost_before: dict[int, int] = {}
        self._has_much = False

    def happened(self, event: events.SubflowCold | events.SubflowWarm) -> None:
        """One is to get filler; or gets none any more: a whole window may leave at once now."""
        subflow_id = event.subflow_id
        connection = self._connections.get(subflow_id)
        if connection is None:
            return
        if isinstance(event, events.SubflowCold):
            self._lost_before[subflow_id] = connection.retransmitted
        else:
            self.forget(subflow_id)
            # All of them at once overflow a short queue.
            connection.smooth()

    def much_to_send(self) -> None:
        """
        There is more to send than windows hold: have the kernel spread it.

        From now on, since the kernel knows no way back.
        What leaves in lumps makes a queue where there is room, which cubic takes for the end
        of it (HyStart: Ha and Rhee, Computer Networks 55, 2011), and windows stop growing too
        early.  But what is short is not to wait for that.
        """
        if not self._has_much:
            self._has_much = True
            for connection in self._connections.values():
                connection.smooth()

    def joined(self, connection: Windowed) -> None:
        """One more connection."""
        if self._has_much:
            connection.smooth()

    def look(self, subflow_id: int, now: float) -> None:
        """Bytes have come on it, and so perhaps the news that others were lost."""
        before = self._lost_before.get(subflow_id)
        if before is None:
            return
        lost = self._connections[subflow_id].retransmitted
        if lost > before:
            self._lost_before[subflow_id] = lost
            self._session.lost_packets(subflow_id, now)

    def forget(self, subflow_id: int) -> None:
        """It gets no more."""
        self._lost_before.pop(subflow_id, None)
