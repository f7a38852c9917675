"""Tests for L{stripetwist.net.advertise}."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.advertise import interface_of, local_address, source_address


def routes(ipv4: str | None, ipv6: str | None) -> dict[int, str | None]:
    """By which addresses a machine would go out."""
    return {socket.AF_INET: ipv4, socket.AF_INET6: ipv6}


class LocalAddressTests(SynchronousTestCase):
    """The address that goes into links."""

    def guessed(self, ipv4: str | None, ipv6: str | None) -> str | None:
        """The guess on a machine with those ways out."""
        table = routes(ipv4, ipv6)

        def source(family: int, away: str) -> str:
            address = table[family]
            if address is None:
                raise OSError("network unreachable")
            return address

        return local_address(source)

    def test_ipv4_first(self) -> None:
        """A global IPv4 address is what most can dial."""
        self.assertEqual(self.guessed("198.41.0.4", "2001:500:2::c"), "198.41.0.4")

    def test_ipv6_behind_nat(self) -> None:
        """Where IPv4 is private the IPv6 address will do."""
        for ipv4 in ("192.168.1.2", "100.64.0.1", "169.254.1.1", None):
            self.assertEqual(self.guessed(ipv4, "2001:500:2::c"), "2001:500:2::c")

    def test_no_global_address(self) -> None:
        """Behind NAT, or with nothing at all, only the user knows."""
        for ipv6 in ("fe80::1", "fd00::1", "::1", "fe80::1%nowhere", None):
            self.assertIsNone(self.guessed("10.0.0.1", ipv6))

    def test_the_kernel_is_asked(self) -> None:
        """The way to ourselves is from ourselves."""
        self.assertEqual(source_address(socket.AF_INET, "127.0.0.1"), "127.0.0.1")

    def test_here(self) -> None:
        """Whatever this machine is, asking it raises nothing."""
        address = local_address()
        self.assertTrue(address is None or interface_of(address) != "")


class InterfaceTests(SynchronousTestCase):
    """Which card an address is of."""

    def test_loopback(self) -> None:
        """The address that every machine has is on a card that it has."""
        names = {name for _, name in socket.if_nameindex()}
        self.assertIn(interface_of("127.0.0.1"), names | {None})
        self.assertIn(interface_of("::1"), names | {None})

    def test_nobodys(self) -> None:
        """An address that is not ours, or none, is on no card."""
        for address in ("192.0.2.99", "2001:db8::99", "vps.example"):
            self.assertIsNone(interface_of(address))
