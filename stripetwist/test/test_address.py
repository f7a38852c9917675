"""Where a port is opened, as users write it."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.address import LOOPBACK_HOST, Address, is_loopback


class AddressTests(SynchronousTestCase):
    """Texts become places, or a complaint."""

    def assert_refused(self, text: str, words: str) -> None:
        """The text is no address, and the complaint has those words."""
        error = self.assertRaises(ValueError, Address.parse, text)
        self.assertIn(words, str(error))

    def test_a_bare_port_means_what_the_option_says(self) -> None:
        """It is every address for one option and loopback for another."""
        self.assertEqual(Address.parse("8443"), Address("", 8443))
        self.assertEqual(Address.parse("1080", LOOPBACK_HOST), Address("127.0.0.1", 1080))

    def test_a_colon_means_every_address(self) -> None:
        """Whatever a bare port means."""
        self.assertEqual(Address.parse(":1080", LOOPBACK_HOST), Address("", 1080))

    def test_hosts_are_kept(self) -> None:
        """Names, IPv4, IPv6 in brackets, with a zone too."""
        self.assertEqual(Address.parse("192.168.1.1:0"), Address("192.168.1.1", 0))
        self.assertEqual(Address.parse("[::1]:80"), Address("::1", 80))
        self.assertEqual(Address.parse("[fe80::1%eth0]:80"), Address("fe80::1%eth0", 80))
        self.assertEqual(Address.parse("Vps.Example:80"), Address("vps.example", 80))

    def test_localhost_is_not_looked_up(self) -> None:
        """No resolver gets to say where it is."""
        self.assertEqual(Address.parse("LocalHost:80"), Address("127.0.0.1", 80))

    def test_endpoint_strings_are_kept(self) -> None:
        """Those of Twisted by their first word, others by their many fields."""
        for text in ("unix:/run/x", "systemd:domain=INET:index=0", "tcp:80", "onion:80:x=1"):
            self.assertEqual(Address.parse(text), Address(raw=text))

    def test_what_is_missing_is_said(self) -> None:
        """A port, brackets, a range."""
        for text in ("0.0.0.0", "[::]", "example.org", "", "x:", "1080 ", "-1"):
            self.assert_refused(text, "it has no port")
        for text in ("::1", "::", "::1:1080", "fe80::1:80"):
            self.assert_refused(text, "in brackets")
        for text in ("0", "65536", "99999", "127.0.0.1:65536", "localhost:http"):
            self.assert_refused(text, "from 1 to 65535")
        for text in ("0:80", "127.1:80", "*:80", "a b:80"):
            self.assert_refused(text, "write :PORT for every address")
        self.assert_refused("[x]:80", "no IPv6 address in the brackets")
        self.assert_refused("[fe80::1%a:interface=x]:80", "no IPv6 address in the brackets")

    def test_only_loopback_and_unix_sockets_are_local(self) -> None:
        """Whatever cannot be told from the text alone counts as open to others."""
        local = "127.0.0.1:1 127.9.9.9:1 [::1]:1 [::ffff:127.0.0.1]:1 localhost:1 unix:/x"
        local += r" tcp:1:interface=127.0.0.1 tcp6:1:interface=\:\:1 tcp:1:interface=localhost"
        for text in local.split():
            self.assertTrue(Address.parse(text).is_local, text)
        public = ":1 1 0.0.0.0:1 [::]:1 192.168.0.1:1 vps.example:1 systemd:domain=INET:index=0"
        public += r" tcp:1 tcp:1:127.0.0.1 tcp:1:interface= tcp:1:interface=0.0.0.0"
        public += r" haproxy:tcp:1:interface=127.0.0.1 tcp:1:interface=127.0.0.1:interface=\:\:"
        for text in public.split():
            self.assertFalse(Address.parse(text).is_local, text)

    def test_endpoints_listen_where_the_address_says(self) -> None:
        """Every address is one IPv6 socket that serves both; colons are escaped."""
        self.assertEqual(Address.parse(":80").endpoint(), "tcp6:80")
        self.assertEqual(Address.parse(":80").endpoint(dual=False), "tcp:80")
        self.assertEqual(Address.parse("10.0.0.1:80").endpoint(), "tcp:80:interface=10.0.0.1")
        self.assertEqual(Address.parse("[::1]:80").endpoint(), r"tcp6:80:interface=\:\:1")

    def test_a_unix_socket_is_for_this_user(self) -> None:
        """Unless its mode is given."""
        self.assertEqual(Address.parse("unix:/x").endpoint(), "unix:/x:mode=600")
        self.assertEqual(Address.parse("unix:/x:mode=660").endpoint(), "unix:/x:mode=660")

    @settings(max_examples=100, deadline=None)
    @given(st.text(alphabet="a0129:.[]%\\=/ -*f", max_size=24))
    def test_any_text_is_an_address_or_a_complaint(self, text: str) -> None:
        """Nothing else is raised, and an address says itself what it was read from."""
        try:
            address = Address.parse(text)
        except ValueError:
            return
        self.assertEqual(Address.parse(str(address)), address)
        self.assertTrue(address.endpoint())

    def test_a_name_is_never_loopback(self) -> None:
        """Only literal addresses are, and the one name that everybody knows."""
        self.assertFalse(is_loopback("127.0.0.1.example.org"))
        self.assertFalse(is_loopback(""))
        self.assertTrue(is_loopback("LOCALHOST"))
