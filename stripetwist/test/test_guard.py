"""L{stripetwist.net.guard}: never ourselves, then as the policies allow."""

import errno
import socket
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.policy import Policy
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.zones import Address
from stripetwist.net.guard import Guard, is_local_address

OURS = ("127.0.0.1", "192.168.1.10", "203.0.113.7", "fd00::10", "::1")


def is_ours(address: Address) -> bool:
    """Whether this pretended machine has that address."""
    return str(address) in OURS


def ask(guard: Guard, host: str, port: int, key_id: str = "") -> str | None:
    """What the guard says to a literal address."""
    request = OpenRequest(Target.of(host, port), key_id=key_id)
    return guard.refusal_of_address(ip_address(host), request)


class OwnTests(SynchronousTestCase):
    """Own listeners are not reached, whatever is allowed (R26)."""

    def guard(self, *own: tuple[str, int]) -> Guard:
        """One that allows everything, with those listeners."""
        return Guard(Policy(["all", "64:ff9b::/96"]), own, is_local=is_ours)

    def test_one_address(self) -> None:
        """A listener on loopback is reached there and nowhere else."""
        guard = self.guard(("127.0.0.1", 1080), ("::1", 1080))
        for host in ("127.0.0.1", "::1", "64:ff9b::7f00:1"):
            self.assertIn("stripetwist itself", ask(guard, host, 1080) or "", host)
            self.assertNotIn("stripetwist itself", ask(guard, host, 1081) or "", host)
        for host in ("192.168.1.10", "fd00::10"):
            self.assertIsNone(ask(guard, host, 1080), host)

    def test_every_address(self) -> None:
        """A wildcard listener is at every address of the machine, of both families."""
        for wildcard in ("", "0.0.0.0", "::", "::ffff:0.0.0.0"):
            guard = self.guard((wildcard, 8443))
            for host in OURS:
                self.assertIn("stripetwist itself", ask(guard, host, 8443) or "", host)
            self.assertIsNone(ask(guard, "192.168.1.11", 8443))
            self.assertIsNone(ask(guard, "192.168.1.10", 22))

    def test_a_public_address_of_this_machine(self) -> None:
        """Is this machine, whose other ports a firewall may keep from the world."""
        for allow, reached in (
            (["internet"], False),
            (["internet", "lan"], False),
            (["internet", "*.example.com"], False),
            (["internet", "localhost"], True),
            (["8.8.0.0/16"], True),
            (["all"], True),
        ):
            guard = Guard(Policy(allow), is_local=lambda one: str(one) == "8.8.4.4")
            said = ask(guard, "8.8.4.4", 6379)
            self.assertEqual(said is None, reached, allow)
            self.assertTrue(reached or "localhost" in str(said), said)
            self.assertEqual(ask(guard, "8.8.8.8", 443), None, allow)

    def test_scope_of_a_listener(self) -> None:
        """Is no part of its address."""
        guard = Guard(Policy(["fe80::1"]), [("fe80::1%eth0", 22)])
        self.assertIn("stripetwist itself", ask(guard, "fe80::1", 22) or "")

    def test_listeners_are_asked_for_each_time(self) -> None:
        """Ports that opened since count; Unix sockets can be no targets."""
        guard = self.guard()
        self.assertIsNone(ask(guard, "127.0.0.1", 1080))
        for host in (UNIXAddress(b"/run/x"), IPv4Address("TCP", "127.0.0.1", 1080)):
            port: Any = SimpleNamespace(getHost=lambda host=host: host)
            guard.note_own(port)
        self.assertEqual(guard.own, [("127.0.0.1", 1080)])
        self.assertIsNotNone(ask(guard, "127.0.0.1", 1080))


class KeyTests(SynchronousTestCase):
    """A key may narrow what the exit allows, never widen it."""

    def setUp(self) -> None:
        """An exit to the internet and its network; one key sees a part of it."""
        narrow = Policy(["lan:22", "localhost", "*.example.com"], hint="this key lacks")
        self.guard = Guard(
            Policy(["internet", "lan"]), key_policy=lambda key: narrow if key == "laptop" else None
        )

    def test_both_must_allow(self) -> None:
        """What one of them lacks is refused, in its words."""
        self.assertIsNone(ask(self.guard, "10.0.0.1", 22, "laptop"))
        self.assertIn("this key lacks lan:80", ask(self.guard, "10.0.0.1", 80, "laptop") or "")
        self.assertIn("--allow localhost", ask(self.guard, "127.0.0.1", 22, "laptop") or "")

    def test_other_keys_and_local_users(self) -> None:
        """The exit's own policy is all there is for them."""
        for key in ("phone", ""):
            self.assertIsNone(ask(self.guard, "10.0.0.1", 80, key))

    def test_names(self) -> None:
        """Are asked of both too."""

        def refusal(name: str, key: str) -> str | None:
            return self.guard.refusal_of_name(name, OpenRequest(Target.of(name, 443), key_id=key))

        self.assertIsNone(refusal("a.example.com", "laptop"))
        self.assertIn("this key lacks lan", refusal("printer.local", "laptop") or "")
        self.assertIsNone(refusal("printer.local", "phone"))

    def test_policy_may_be_replaced(self) -> None:
        """As a reload does."""
        self.guard.policy = Policy(["localhost"])
        self.assertIsNone(ask(self.guard, "127.0.0.1", 22, "phone"))
        self.assertIsNotNone(ask(self.guard, "10.0.0.1", 22, "phone"))


class LocalTests(SynchronousTestCase):
    """Which addresses the system takes for its own."""

    def test_loopback(self) -> None:
        """All of it, without asking."""
        for text in ("127.0.0.1", "127.9.9.9", "::1"):
            self.assertTrue(is_local_address(ip_address(text)), text)

    def test_foreign(self) -> None:
        """What no interface has."""
        for text in ("198.51.100.77", "2001:db8:5::77"):
            self.assertFalse(is_local_address(ip_address(text)), text)

    def test_in_doubt_it_is(self) -> None:
        """Without descriptors the question cannot be asked."""

        def fail(*args: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", fail)
        self.assertTrue(is_local_address(ip_address("198.51.100.77")))
