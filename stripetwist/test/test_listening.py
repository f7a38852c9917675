"""L{stripetwist.net.listening}: from an address to an open port."""

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.address import Address
from stripetwist.net import listening
from stripetwist.net.files import StartupError
from stripetwist.net.listening import listen, server_endpoint
from stripetwist.test.network import Network


class ListenTests(SynchronousTestCase):
    """Ports that open, and those that do not."""

    def setUp(self) -> None:
        self.network = Network()

    def listen(self, address: Address) -> Any:
        """Listen there."""
        return listen(self.network, address, Factory(), "--listen")

    def refused(self, address: Address) -> str:
        """Why it cannot be listened at: one sentence that names the option."""
        error = self.assertRaises(StartupError, self.listen, address)
        text = str(error)
        self.assertTrue(text.isprintable() and text.startswith("--listen "), text)
        return text

    def test_everywhere(self) -> None:
        """A bare port is one socket for IPv4 and IPv6, where the system can."""
        for dual, interface in ((True, "::"), (False, "")):
            self.patch(socket, "has_dualstack_ipv6", lambda dual=dual: dual)
            port = self.listen(Address(port=8443))
            self.assertEqual((port.number, port.interface), (8443, interface))
            port.stopListening()

    def test_somewhere(self) -> None:
        """A host is listened at as it is; port 0 is any that is free."""
        port = self.listen(Address("127.0.0.1", 0))
        self.assertEqual(port.interface, "127.0.0.1")
        self.assertGreater(port.getHost().port, 0)

    def test_taken(self) -> None:
        """A port in use is named (62)."""
        self.listen(Address("127.0.0.1", 8443))
        text = self.refused(Address("127.0.0.1", 8443))
        self.assertIn("127.0.0.1:8443 cannot be listened at: another program", text[:80])

    def test_other_reasons(self) -> None:
        """So is one that is not for us, and an address of somebody else."""
        for number, words in (
            (errno.EACCES, "for root only"),
            (errno.EADDRNOTAVAIL, "no interface of this machine"),
            (errno.EMFILE, "Too many"),
        ):
            error = CannotListenError("", 80, OSError(number, "Too many\nthings"))

            def fail(*args: object, error: CannotListenError = error, **kwargs: object) -> None:
                raise error

            self.patch(self.network, "listenTCP", fail)
            self.assertIn(words, self.refused(Address(port=80)))

    def test_endpoint_strings(self) -> None:
        """Twisted's own strings work; what it cannot make sense of is a sentence."""
        self.assertIsNotNone(server_endpoint(self.network, Address(raw="tcp:8443"), "--listen"))
        for raw in ("nonsense:1", "tcp:notanumber", "tcp:", "unix"):
            text = self.refused(Address(raw=raw))
            self.assertIn("is no endpoint that Twisted knows", text)

    def test_not_at_once(self) -> None:
        """An endpoint that takes its time is none for us: a start must know."""

        class Slow:
            """An endpoint."""

            def listen(self, factory: object) -> "Deferred[Any]":
                return Deferred()

        self.patch(listening, "serverFromString", lambda *_: Slow())
        self.assertIn("not be ready before the start", self.refused(Address(port=80)))
