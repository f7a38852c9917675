"""L{stripetwist.net.udp_port}: what is read."""

from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.udp_port import UdpPort, bind_udp


class Full:
    """A socket to which one datagram has come."""

    def __init__(self, payload: bytes) -> None:
        self._queue = [payload]

    def recvfrom(self, most: int) -> tuple[bytes, tuple[str, int]]:
        """Cut what is longer, as the system does."""
        if not self._queue:
            raise BlockingIOError
        return self._queue.pop()[:most], ("::1", 53)


class Heard(DatagramProtocol):
    """How long those were that came."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """One came."""
        self.lengths.append(len(data))


class UdpPortTests(SynchronousTestCase):
    """A bound socket."""

    def test_longest(self) -> None:
        """What IPv6 carries and we do not comes whole, to be dropped rather than cut."""
        self.patch(UdpPort, "startListening", lambda port: None)
        heard = Heard()
        port = bind_udp(None, heard, "::1", 0)
        port.socket = Full(bytes(65_527))
        port.doRead()
        self.assertEqual([65_527], heard.lengths)
