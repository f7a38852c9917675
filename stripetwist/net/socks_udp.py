"""The UDP sockets of a proxy port: one for each client that asks, beside its connection."""

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.socks5_udp import unwrap, wrap
from stripetwist.core.target import Target
from stripetwist.core.zones import plain
from stripetwist.net.association import Association, share_of
from stripetwist.net.udp_port import MAX_PAYLOAD, Bind, bind_udp


class UdpDoor:
    """
    Opens UDP sockets beside the connections of a proxy port, so many for each source.

    @ivar dropped: datagrams of strangers, fragments, and what was malformed or too large.
    """

    def __init__(self, reactor: Any, limits: Limits, bind: Bind = bind_udp) -> None:
        self._reactor = reactor
        self._limits = limits
        self._bind = bind
        self._of_source: Counter[str] = Counter()
        self.dropped = 0

    def enter(self, source: str) -> None:
        """
        One more association for that source; L{leave} is to follow.

        @raise OpenRefused: it has as many as it may.
        """
        if self._of_source[source] >= share_of(source, self._limits):
            why = f"{source} has {self._of_source[source]} UDP associations already"
            raise OpenRefused(Code.OVERLOAD, f"{why}; close one")
        self._of_source[source] += 1

    def leave(self, source: str) -> None:
        """One less."""
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def open(self, relay: "UdpRelay", host: str) -> Any:
        """
        Bind a socket there.

        @raise OpenRefused: none can be had.
        """
        try:
            return self._bind(self._reactor, relay, host, 0)
        except CannotListenError as error:
            why = printable(str(error.socketError), 80)
            raise OpenRefused(Code.GENERAL, f"no UDP socket can be had here: {why}") from None


class UdpRelay(DatagramProtocol):
    """
    One client's datagrams: in from its address and one port, out by an association.

    Bound where its connection came in, and hears nobody but the machine at the other end of
    that: from the port that the client named, or else the first that something came from.
    """

    noisy = False

    def __init__(
        self,
        door: UdpDoor,
        near: Any,
        port: int,
        association: Association,
        ended: Callable[[], None],
    ) -> None:
        """
        @param near: the client's connection.
        @param port: from which its datagrams will come; 0 if it does not know yet.
        @param ended: called when the association is lost.
        """
        self._door = door
        self._host = near.getPeer().host
        self._port = port
        self._association = association
        self._ended = ended
        self._socket = door.open(self, near.getHost().host)
        association.receiver = self

    @property
    def bound(self) -> Target:
        """Where the client is to send to."""
        place = self._socket.getHost()
        return Target(plain(ip_address(place.host)), place.port)

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """Something has come, from whoever it may be."""
        ours = addr[0] == self._host and self._port in (0, addr[1])
        found = unwrap(data) if ours else None
        if found is None:
            self._door.dropped += 1
            return
        self._port = addr[1]
        target, payload = found
        self._association.send(payload, target)

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver<stripetwist.net.association.Receiver>}."""
        data = b"" if peer is None else wrap(payload, peer)
        if not data or not self._port or len(data) > MAX_PAYLOAD:
            self._door.dropped += 1
            return
        try:
            self._socket.write(data, (self._host, self._port))
        except (OSError, MessageLengthError):
            self._door.dropped += 1

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver<stripetwist.net.association.Receiver>}."""
        self._ended()

    def close(self) -> None:
        """The client's connection is gone."""
        self._association.receiver = None
        self._association.close()
        self._socket.stopListening()
