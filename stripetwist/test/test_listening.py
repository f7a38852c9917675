"""L{stripetwist.net.listening}: from an address to an open port, or to a sentence."""

import errno
import os
import socket
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.address import Address
from stripetwist.net import listening
from stripetwist.net.files import StartupError
from stripetwist.net.listening import listen
from stripetwist.test.network import Network, Port


class ListenTests(SynchronousTestCase):
    """Ports of a network."""

    def setUp(self) -> None:
        self.network = Network()
        self.factory: Factory[Any] = Factory()

    def listen(self, text: str) -> Port:
        """The port that listens at an address."""
        port = listen(self.network, Address.parse(text), self.factory, "--listen")
        return cast(Port, port)

    def refused(self, text: str) -> str:
        """Why it cannot be."""
        sentence = str(self.assertRaises(StartupError, self.listen, text))
        self.assertTrue(sentence.isprintable() and sentence.isascii())
        return sentence

    def fail_with(self, error: Exception, method: str = "listenTCP") -> None:
        """Have the system refuse."""

        def refuse(*_: object, **__: object) -> None:
            raise error

        setattr(self.network, method, refuse)

    def test_an_interface(self) -> None:
        """The port is open there once it is returned."""
        for text, interface in (("127.0.0.1:81", "127.0.0.1"), ("[::1]:82", "::1")):
            port = self.listen(text)
            self.assertEqual(port.interface, interface)
            self.assertIs(self.network.ports[port.number], port)
            self.assertIs(port.factory, self.factory)

    def test_every_address(self) -> None:
        """By one socket for IPv4 and IPv6, where the system has such."""
        for has, interface in ((True, "::"), (False, "")):
            self.patch(socket, "has_dualstack_ipv6", lambda has=has: has)
            self.assertEqual(self.listen(":83").interface, interface)
            self.network.ports.clear()

    def test_an_endpoint_string(self) -> None:
        """Is taken as it is."""
        self.assertEqual(self.listen("tcp:84:interface=127.0.0.2").interface, "127.0.0.2")

    def test_taken(self) -> None:
        """Another program has the port."""
        self.listen("127.0.0.1:81")
        self.assertEqual(
            self.refused("127.0.0.1:81"),
            "--listen 127.0.0.1:81 cannot be listened at: another program has that port; "
            "stop it, or choose another port",
        )

    def test_what_else_the_system_says(self) -> None:
        """Each has its advice; what nobody expects is quoted."""
        for number, words in (
            (errno.EACCES, "root only; choose one above 1023"),
            (errno.EADDRNOTAVAIL, "no interface of this machine has that address"),
            (errno.ENOBUFS, "no room\\n"),
        ):
            self.fail_with(CannotListenError("192.0.2.1", 80, OSError(number, "no room\n")))
            self.assertIn(words, self.refused("192.0.2.1:80"))
        self.fail_with(OSError(errno.EADDRINUSE, "in use"))
        self.assertIn("another program has that port", self.refused("192.0.2.1:80"))

    def test_a_host_that_nobody_knows(self) -> None:
        """No number stands in the sentence."""
        why = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.fail_with(CannotListenError("nohost.test", 81, why))
        self.assertEqual(
            self.refused("nohost.test:81"),
            "--listen nohost.test:81 cannot be listened at: that name has no address here; "
            "write an address of this machine",
        )
        why = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        self.fail_with(CannotListenError("nohost.test", 81, why))
        self.assertEqual(
            self.refused("nohost.test:81"),
            "--listen nohost.test:81 cannot be listened at: names cannot be looked up now; "
            "write an address of this machine",
        )

    def test_a_unix_socket(self) -> None:
        """It is a file, and so is its lock, which comes first."""
        for number, words in (
            (errno.ENOENT, "there is no such folder; make it, or choose another path"),
            (errno.EACCES, "this user may not write there; choose another path"),
            (errno.ENOTDIR, "part of the path is a file, no folder; choose another path"),
            (errno.ENAMETOOLONG, "the path is too long; choose a shorter one"),
            (
                errno.EADDRINUSE,
                "something is there already; choose another path, or remove it if no program "
                "uses it",
            ),
            (errno.EROFS, "Read-only file system"),
        ):
            lock = OSError(number, os.strerror(number), "29375", None, "/x/y.lock")
            for error in (lock, CannotListenError(None, "/x/y", lock)):
                self.fail_with(error, "listenUNIX")
                expected = f"--listen unix:/x/y cannot be listened at: {words}"
                self.assertEqual(self.refused("unix:/x/y"), expected)
        self.fail_with(CannotListenError(None, "/x/y", OSError("AF_UNIX path")), "listenUNIX")
        self.assertIn("the path is too long; choose a shorter one", self.refused("unix:/x/y"))
        self.fail_with(CannotListenError(None, "/x/y", "Cannot acquire lock"), "listenUNIX")
        self.assertIn("at: another program listens there; stop", self.refused("unix:/x/y"))

    def test_not_at_once(self) -> None:
        """An endpoint that is open only later would be too late to refuse."""

        class Late:
            """Such an endpoint."""

            def listen(self, factory: object) -> "Deferred[Any]":
                """Not yet."""
                return Deferred()

        self.patch(listening, "serverFromString", lambda *_: Late())
        self.assertIn("would not be ready before the start", self.refused("late:1:x=2"))

    def test_nonsense(self) -> None:
        """Strings that no endpoint understands name the option."""
        self.assertIn("--listen tcp:x is no endpoint", self.refused("tcp:x"))
