"""A bound UDP socket on the reactor."""

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.udp import Port
from twisted.logger import Logger

# The most that a datagram can hold (RFC 768), its IP header left out.
MAX_PAYLOAD = 65_507
# More than any datagram has, those of IPv6 included: what is too long for us must not be cut.
_LONGEST = 65_536
# So many datagrams are read before others have their turn.
_READS = 64


class UdpPort(Port):
    """
    A UDP socket that others on the reactor are not kept waiting by.

    Twisted's own counts bytes, of which a flood of empty datagrams has none.
    """

    _log = Logger()

    def doRead(self) -> None:
        """Take what is there, up to a number; what ICMP says of earlier ones ends nothing."""
        for _ in range(_READS):
            try:
                data, address = self.socket.recvfrom(self.maxPacketSize)
            except BlockingIOError:
                return
            except OSError:
                continue
            try:
                self.protocol.datagramReceived(data, address)
            except Exception:  # noqa: BLE001 - one datagram must not close the port
                self._log.failure("a datagram could not be taken")


Bind = Callable[[Any, DatagramProtocol, str, int], Any]


def bind_udp(reactor: Any, protocol: DatagramProtocol, host: str, port: int) -> Any:
    """
    Bind a UDP socket.

    @param host: a literal address.
    @return: its transport.
    @raise twisted.internet.error.CannotListenError: it is taken, or not ours.
    """
    bound = UdpPort(port, protocol, host, _LONGEST, reactor)
    bound.startListening()
    return bound
