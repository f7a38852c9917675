"""L{stripetwist.net.sockets}: what the kernel is asked of a socket, on real ones."""

import errno
import socket
import sys
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net import sockets
from stripetwist.testing_transports import BoundedTransport


class SocketsTests(SynchronousTestCase):
    """A TCP connection over loopback."""

    if not sys.platform.startswith("linux"):
        skip = "only Linux has these options"

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.near = socket.create_connection(listener.getsockname())
            self.far, _ = listener.accept()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.transport: Any = SimpleNamespace(socket=self.near)

    def option(self, name: str) -> int:
        """The value of one of TCP's."""
        return self.near.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

    def test_prepared(self) -> None:
        """No delays, keepalive, a sign of death after 20 s, little held unsent."""
        sockets.prepare(self.near)
        self.assertEqual(self.option("TCP_NODELAY"), 1)
        self.assertEqual(self.option("TCP_USER_TIMEOUT"), 20_000)
        self.assertEqual(self.option("TCP_NOTSENT_LOWAT"), 4096)

    def test_pace(self) -> None:
        """Another congestion control than the system's, where it may be had."""
        self.assertTrue(sockets.may_pace("reno"))
        self.assertFalse(sockets.may_pace("no-such"))
        sockets.prepare(self.near, "reno")
        self.assertEqual(sockets.congestion_control(self.transport), "reno")
        sockets.prepare(self.near, "no-such")
        self.assertEqual(sockets.congestion_control(self.transport), "reno")

    def test_hold_unsent(self) -> None:
        """How much the kernel takes ahead is what it is told."""
        sockets.hold_unsent(self.transport, 32 * 1024)
        self.assertEqual(self.option("TCP_NOTSENT_LOWAT"), 32 * 1024)

    def test_where_from(self) -> None:
        """The source address of a way, as the kernel would choose it; nothing without one."""
        self.assertEqual(sockets.source_towards("127.0.0.1"), "127.0.0.1")
        self.assertEqual(sockets.source_towards("127.0.0.1", "lo"), "127.0.0.1")
        self.assertIsNone(sockets.source_towards("127.0.0.1", "no-such-card"))

    def test_where_from_is_not_known(self) -> None:
        """Other errors say nothing of ways: no descriptors left, a card that may not be chosen."""
        for number, source in (
            (errno.EMFILE, ""),
            (errno.EPERM, ""),
            (errno.ENETUNREACH, None),
            (errno.EHOSTUNREACH, None),
            (errno.EADDRNOTAVAIL, None),
        ):
            self.patch(sockets, "use_card", Mock(side_effect=OSError(number, "no")))
            self.assertEqual(sockets.source_towards("127.0.0.1", "lo"), source)

    def test_no_such_card(self) -> None:
        """A card that is not there is an error; none at all is no matter."""
        sockets.use_card(self.near, "")
        self.assertRaises(OSError, sockets.use_card, self.near, "no-such-card")

    def test_what_has_arrived(self) -> None:
        """Acknowledged bytes here are received bytes there."""
        before = sockets.kernel_view(self.transport)
        assert before is not None
        self.near.sendall(bytes(1000))
        self.far.recv(1000, socket.MSG_WAITALL)
        after = sockets.kernel_view(self.transport)
        there = sockets.kernel_view(SimpleNamespace(socket=self.far))
        assert after is not None
        assert there is not None
        self.assertEqual(after.acked - before.acked, 1000)
        self.assertEqual(there.received, 1000)
        self.assertFalse(after.waiting)
        self.assertLess(max(after.acked_ago, there.received_ago), 60)
        self.assertTrue(0 < after.patience < 60)
        self.assertTrue(0 < after.least <= 2 * after.rtt < 60)

    def test_what_waits(self) -> None:
        """Bytes that the other end has no room for are still to be acknowledged."""
        self.near.setblocking(False)
        try:
            while True:
                self.near.send(bytes(65_536))
        except BlockingIOError:
            view = sockets.kernel_view(self.transport)
        assert view is not None
        self.assertTrue(view.waiting)

    def older(self, known: int) -> SimpleNamespace:
        """The transport on a kernel that has so many bytes to say."""

        def getsockopt(*words: int) -> bytes:
            said: Any = self.near.getsockopt(*words)
            return bytes(said[:known])

        return SimpleNamespace(
            socket=SimpleNamespace(family=self.near.family, getsockopt=getsockopt)
        )

    def test_an_older_kernel(self) -> None:
        """It says less, and what it says counts; where that is too little nothing is known."""
        self.assertIsNone(sockets.kernel_view(self.older(147)))
        view = sockets.kernel_view(self.older(148))
        assert view is not None
        self.assertGreater(view.patience, 0)
        self.assertEqual((view.least, view.rate), (0, 0))

    def test_how_fast_it_is(self) -> None:
        """Known where the window held bytes back, not where there were no more."""
        self.near.sendall(bytes(1000))
        self.far.recv(1000, socket.MSG_WAITALL)
        view = sockets.kernel_view(self.transport)
        assert view is not None
        self.assertEqual(view.rate, 0)
        rest = 30_000_000
        sender = Thread(target=self.near.sendall, args=(bytes(rest),))
        sender.start()
        self.far.settimeout(5)
        rates = []
        while rest:
            rest -= len(self.far.recv(1_000_000))
            view = sockets.kernel_view(self.transport)
            assert view is not None
            rates.append(view.rate)
        sender.join()
        self.assertGreater(max(rates), 1e6)

    def test_how_much_a_packet_carries(self) -> None:
        """As much as TCP says."""
        self.assertEqual(sockets.segment_size(self.transport), self.option("TCP_MAXSEG"))
        self.assertGreater(sockets.segment_size(self.transport), 500)

    def test_where_there_is_no_tcp(self) -> None:
        """Nothing is known, and nothing is asked for."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        sockets.prepare(near)
        for transport in (SimpleNamespace(socket=near), BoundedTransport()):
            sockets.hold_unsent(transport, 4096)
            self.assertIsNone(sockets.kernel_view(transport))
            self.assertEqual(sockets.congestion_control(transport), "")
            self.assertEqual(sockets.segment_size(transport), 0)

    def test_a_closed_one(self) -> None:
        """No error."""
        self.near.close()
        sockets.hold_unsent(self.transport, 4096)
        self.assertIsNone(sockets.kernel_view(self.transport))
        self.assertEqual(sockets.segment_size(self.transport), 0)
