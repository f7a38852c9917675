"""Tests for L{stripetwist.core.link}."""

import traceback

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.link import MAX_LINK, Link, decode32, encode32

SECRET = b"marked-secret-marked-secret-mark"
SECRET_TEXT = encode32(SECRET)
PIN = bytes(range(32))
OTHER_PIN = bytes(range(32, 64))
PIN_TEXT = encode32(PIN)
GOOD = f"stripetwist://laptop:{SECRET_TEXT}@vps.example:8443/{PIN_TEXT}"

quick = settings(max_examples=100, deadline=None)
hosts = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,8}){0,3}", fullmatch=True),
)
links = st.builds(
    Link,
    key_id=st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    secret=st.binary(min_size=32, max_size=32),
    host=hosts,
    port=st.integers(1, 65535),
    pins=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=2).map(tuple),
)


class Base64Tests(SynchronousTestCase):
    """32 bytes as text."""

    @quick
    @given(st.binary(min_size=32, max_size=32))
    def test_comes_back(self, raw: bytes) -> None:
        """Whatever was encoded is decoded, from 43 characters without padding."""
        text = encode32(raw)
        self.assertEqual(len(text), 43)
        self.assertEqual(decode32(text), raw)

    def test_other_spellings_are_refused(self) -> None:
        """Padding, other alphabets, other lengths and stray last bits stand for nothing."""
        for text in ("", PIN_TEXT + "=", PIN_TEXT[:-1], PIN_TEXT + "A", "A" * 42 + "B"):
            self.assertIsNone(decode32(text), text)
        self.assertIsNone(decode32("+" * 43))
        self.assertIsNone(decode32(PIN_TEXT[:-1] + "\n"))


class ParseTests(SynchronousTestCase):
    """Links as servers write them and users edit them."""

    def refused(self, text: str) -> str:
        """The sentence with which the text is refused; it never shows the secret."""
        try:
            Link.parse(text)
        except ValueError as error:
            shown = "".join(traceback.format_exception(error)) + repr(error)
            self.assertNotIn(SECRET_TEXT[:16], shown)
            self.assertNotIn("\n", str(error))
            return str(error)
        raise self.failureException(f"parsed: {text}")

    def test_reads_every_part(self) -> None:
        """Key, secret, address and pin of a plain example."""
        link = Link.parse(GOOD)
        self.assertEqual(link, Link("laptop", SECRET, "vps.example", 8443, (PIN,)))
        self.assertEqual(link.address, "vps.example:8443")

    def test_two_pins(self) -> None:
        """A comma separates the pins of a server whose key changes."""
        link = Link.parse(f"{GOOD},{encode32(OTHER_PIN)}")
        self.assertEqual(link.pins, (PIN, OTHER_PIN))

    def test_ca(self) -> None:
        """The word ca stands where a pin would."""
        link = Link.parse(f"stripetwist://laptop:{SECRET_TEXT}@vps.example:443/ca")
        self.assertEqual((link.ca, link.pins), (True, ()))

    def test_ipv6_in_brackets(self) -> None:
        """An IPv6 address is kept without its brackets and written with them."""
        link = Link.parse(f"stripetwist://laptop:{SECRET_TEXT}@[2001:DB8::1]:8443/ca")
        self.assertEqual((link.host, link.address), ("2001:db8::1", "[2001:db8::1]:8443"))

    def test_further_segments_are_ignored(self) -> None:
        """What a later version adds behind the pin does no harm."""
        link = Link.parse(f"{GOOD}/name=value/x=1/")
        self.assertEqual(link, Link.parse(GOOD))

    def test_space_around_is_ignored(self) -> None:
        """A file's last line break is no part of the link."""
        self.assertEqual(Link.parse(f"  {GOOD}\r\n"), Link.parse(GOOD))

    def test_names_are_folded(self) -> None:
        """Upper case and a trailing dot say the same host."""
        link = Link.parse(GOOD.replace("vps.example", "VPS.Example."))
        self.assertEqual(link.host, "vps.example")

    def test_plain(self) -> None:
        """A plaintext link has no pin and leads to loopback."""
        for host in ("127.0.0.1", "[::1]"):
            link = Link.parse(f"stripetwist+plain://laptop:{SECRET_TEXT}@{host}:1/x=1")
            self.assertEqual((link.plain, link.ca, link.pins), (True, False, ()))

    def test_plain_beyond_loopback(self) -> None:
        """Without TLS no other machine may be named, nor a name that could mean one."""
        for host in ("192.0.2.1", "localhost", "vps.example"):
            sentence = self.refused(f"stripetwist+plain://laptop:{SECRET_TEXT}@{host}:8443")
            self.assertIn("127.0.0.1", sentence)

    def test_plain_with_a_pin(self) -> None:
        """A plaintext link proves nothing by a pin, so it must not look as if."""
        self.refused(f"stripetwist+plain://laptop:{SECRET_TEXT}@127.0.0.1:1/{PIN_TEXT}")

    def test_host_not_filled_in(self) -> None:
        """The word HOST is explained, wherever the server could not know its address."""
        sentence = self.refused(GOOD.replace("vps.example", "HOST"))
        self.assertIn("HOST", sentence[:80])
        self.assertIn("write", sentence)

    def test_missing_port(self) -> None:
        """An edited address without its port is told apart from a cut link."""
        for host in ("vps.example", "[2001:db8::1]"):
            self.assertIn("no port", self.refused(GOOD.replace("vps.example:8443", host)))

    def test_bad_ports(self) -> None:
        """Only 1 to 65535 in ASCII digits."""
        for port in ("0", "65536", "", "https", "-1", "\u0661", "8443x"):
            self.assertIn("port", self.refused(GOOD.replace("8443", port)))

    def test_bad_hosts(self) -> None:
        """Hosts that no lookup should see, and IPv6 without brackets."""
        for host in ("", "a b", "127.1", "[vps.example]", "[127.0.0.1]", "[]", "a..b", "x%y"):
            self.refused(GOOD.replace("vps.example", host))
        self.assertIn("brackets", self.refused(GOOD.replace("vps.example", "2001:db8::1")))

    def test_every_cut_is_refused(self) -> None:
        """A link cut anywhere is no link."""
        for end in range(len(GOOD)):
            self.refused(GOOD[:end])

    def test_every_missing_character_is_refused(self) -> None:
        """A link that lost one character of its scheme, secret or pin is no link."""
        address = range(GOOD.index("@") + 1, GOOD.rindex("/"))
        key_id = range(len("stripetwist://"), GOOD.index(SECRET_TEXT) - 1)
        for at in range(len(GOOD)):
            if at not in address and at not in key_id:
                self.refused(GOOD[:at] + GOOD[at + 1 :])

    def test_secret_in_the_wrong_place(self) -> None:
        """Mangled links that show the secret as scheme, key id, host or pin keep it out."""
        for text in (
            f"{SECRET_TEXT}://laptop:x@vps.example:8443/ca",
            f"stripetwist://{SECRET_TEXT}:laptop@vps.example:8443/ca",
            f"stripetwist://laptop@{SECRET_TEXT}.x..y:8443/ca",
            f"stripetwist://laptop:@vps.example:{SECRET_TEXT}/ca",
            f"stripetwist://laptop:{SECRET_TEXT}{SECRET_TEXT}@vps.example:8443/ca",
            f"stripetwist://laptop:{SECRET_TEXT}@vps.example:8443/{SECRET_TEXT},{SECRET_TEXT}x",
            f"stripetwist://laptop:{SECRET_TEXT}@vps.example:8443/ca/{SECRET_TEXT}",
            f"stripetwist://laptop:{SECRET_TEXT}@vps.example:8443/ca {SECRET_TEXT}",
        ):
            self.refused(text)

    def test_three_pins(self) -> None:
        """Two pins are enough to change a key."""
        self.refused(f"{GOOD},{PIN_TEXT},{PIN_TEXT}")

    def test_something_else(self) -> None:
        """What is no link is called that, however many words it has; a link with a break is cut."""
        error = self.assertRaises(ValueError, Link.parse, "root:x:0:0::/root:/bin/sh\nbin:x:1:1")
        self.assertIn("this is no link", str(error))
        error = self.assertRaises(ValueError, Link.parse, "stripetwist://client-1: abc")
        self.assertIn("a space or a line break", str(error))

    def test_far_too_long(self) -> None:
        """A link has a bound, however it is filled."""
        self.refused(GOOD + "/x=" + "y" * MAX_LINK)

    @quick
    @given(links)
    def test_comes_back(self, link: Link) -> None:
        """What was formatted parses to the same link."""
        self.assertEqual(Link.parse(link.format()), link)

    @quick
    @given(st.text(max_size=200), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
    def test_anything_parses_or_is_refused(self, noise: str, start: int, end: int) -> None:
        """No text makes anything but a link or a sentence."""
        for text in (noise, GOOD[:start] + noise + GOOD[end:]):
            try:
                link = Link.parse(text)
            except ValueError as error:
                self.assertIs(type(error), ValueError)
            else:
                self.assertEqual(Link.parse(link.format()), link)


class LinkTests(SynchronousTestCase):
    """Links made by a server."""

    def test_never_shows_its_secret(self) -> None:
        """Neither repr nor str of a link has the secret, raw or encoded."""
        shown = repr(Link.parse(GOOD)) + str(Link.parse(GOOD))
        self.assertNotIn("marked-secret", shown)
        self.assertNotIn(SECRET_TEXT[:16], shown)
        self.assertIn("laptop", shown)

    def test_host_may_be_unknown_to_the_server(self) -> None:
        """A server writes the word HOST, which only a parser objects to."""
        link = Link("laptop", SECRET, "HOST", 8443, (PIN,))
        self.assertIn("@HOST:8443/", link.format())

    def test_impossible_links_are_refused(self) -> None:
        """A link that could not be parsed again is not made."""
        for fields in (
            {"key_id": "UPPER"},
            {"key_id": "x" * 33},
            {"secret": SECRET[:-1]},
            {"host": "[::1]"},
            {"host": "a/b"},
            {"port": 0},
            {"pins": ()},
            {"pins": (PIN[:-1],)},
            {"pins": (PIN, PIN, PIN)},
            {"ca": True},
            {"pins": (), "plain": True},
        ):
            good = {"key_id": "a", "secret": SECRET, "host": "h", "port": 1, "pins": (PIN,)}
            error = self.assertRaises(ValueError, Link, **{**good, **fields})
            self.assertNotIn("marked", str(error))
