"""L{stripetwist.core.zones}: where an address lies, whatever it is wrapped in."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.zones import Zone, carried, is_local_name, is_loopback_name, plain, zone_of

SAMPLES = {
    Zone.INTERNET: "1.1.1.1 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0"
    " 126.255.255.255 128.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0"
    " 198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2a00:1450::1 2001:4860::8888"
    " ::ffff:8.8.8.8",
    Zone.LAN: "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 fc00::1 fdff::1"
    " ::ffff:192.168.1.1",
    Zone.LOCALHOST: "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1",
    Zone.SHARED: "100.64.0.1 100.127.255.255 100.100.100.100",
    Zone.RESERVED: "192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1"
    " 203.0.113.1 240.0.0.1 255.255.255.254 100::1 2001:2::1 2001:db8::1 3fff::1 5f00::1"
    " fec0::1 4000::1 e000::1",
    Zone.TUNNEL: "::127.0.0.1 ::8.8.8.8 ::2 ::ffff:0:127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::808:808"
    " 64:ff9b:1::1 2002:7f00:1:: 2002:808:808::1 2001:0:4136:e378:8000:63bf:3fff:fdd2"
    " 2606:4700::5efe:7f00:1 2606:4700::200:5efe:10.0.0.1 fd00:1::5efe:127.0.0.1",
    Zone.MULTICAST: "224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1",
    Zone.LINK_LOCAL: "169.254.0.1 169.254.170.2 fe80::1 febf::1 fe80::5efe:127.0.0.1",
    Zone.METADATA: "169.254.169.254 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254"
    " fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 ::ffff:169.254.169.254 ::ffff:100.100.100.200",
    Zone.NOWHERE: "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0",
}

v4 = st.ip_addresses(v=4)
v6 = st.ip_addresses(v=6)


class ZoneTests(SynchronousTestCase):
    """The table, by sample and by law."""

    def test_samples_lie_where_they_should(self) -> None:
        """The first and last addresses of the ranges that matter, and their neighbours."""
        for zone, texts in SAMPLES.items():
            for text in texts.split():
                self.assertIs(zone_of(ip_address(text)), zone, text)

    @given(v4)
    @settings(max_examples=100, deadline=None)
    def test_mapped_is_the_address_itself(self, address: IPv4Address) -> None:
        """A socket would use the IPv4 address, so its zone counts."""
        mapped = IPv6Address(f"::ffff:{address}")
        self.assertEqual(plain(mapped), address)
        self.assertIs(zone_of(mapped), zone_of(address))

    @given(v4)
    @settings(max_examples=100, deadline=None)
    def test_every_wrapping_is_seen_through(self, address: IPv4Address) -> None:
        """Compatible, translated, NAT64, 6to4, Teredo and ISATAP forms say what they carry."""
        low = f"{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"
        turned = int(address) ^ 0xFFFFFFFF
        teredo = f"2001:0:4136:e378:8000:63bf:{turned >> 16:x}:{turned & 0xFFFF:x}"
        forms = [f"::ffff:0:{low}", f"64:ff9b::{low}", f"64:ff9b:1::{low}", f"2002:{low}::7"]
        forms += [f"2606:4700::5efe:{low}", f"2606:4700::200:5efe:{low}", teredo]
        if int(address) > 1:
            forms.append(f"::{low}")
        for form in forms:
            self.assertIs(zone_of(IPv6Address(form)), Zone.TUNNEL, form)
            self.assertIn(address, carried(IPv6Address(form)), form)

    @given(st.one_of(v4, v6))
    @settings(max_examples=200, deadline=None)
    def test_nothing_special_is_public(self, address: IPv4Address | IPv6Address) -> None:
        """Whatever the standard library knows to be special is not public for us either."""
        address = plain(address)
        if zone_of(address) is Zone.INTERNET:
            special = (
                address.is_private,
                address.is_loopback,
                address.is_link_local,
                address.is_multicast,
                address.is_unspecified,
                address.is_reserved,
            )
            self.assertFalse(any(special), address)

    def test_only_tunnels_carry(self) -> None:
        """An ordinary address carries nothing."""
        for text in ("8.8.8.8", "2606:4700::1111", "::1", "::", "fd00::1"):
            self.assertEqual(list(carried(ip_address(text))), [], text)


class NameTests(SynchronousTestCase):
    """Names that need no lookup to be judged."""

    def test_loopback_names(self) -> None:
        """C{localhost} and all below it, and nothing that only ends alike."""
        for name in ("localhost", "x.localhost", "a.b.localhost"):
            self.assertTrue(is_loopback_name(name), name)
        for name in ("mylocalhost", "localhost.example", "local"):
            self.assertFalse(is_loopback_name(name), name)

    def test_local_names(self) -> None:
        """C{*.local} and C{*.internal} mean something else in each network."""
        for name in ("printer.local", "metadata.google.internal", "internal"):
            self.assertTrue(is_local_name(name), name)
        for name in ("local.example", "notinternal", "example.com"):
            self.assertFalse(is_local_name(name), name)
