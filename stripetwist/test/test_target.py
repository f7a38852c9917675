"""L{stripetwist.core.target}: hosts and ports, as text and as bytes."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import (
    Host,
    OpenRequest,
    Target,
    in_brackets,
    parse_host,
    parse_port,
    refusal_line,
)

LABEL = st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True)
# a last label with a letter that no number has
NAME = st.builds(
    lambda labels, last: ".".join([*labels, last]),
    st.lists(LABEL, max_size=5),
    st.from_regex(r"[g-z][a-z0-9-]{0,20}", fullmatch=True),
)
HOST: st.SearchStrategy[Host] = st.one_of(NAME, st.ip_addresses())
PORT = st.integers(1, 65535)


class PortTests(SynchronousTestCase):
    """Ports as text."""

    def test_numbers(self) -> None:
        """From 1 to 65535, in ASCII digits and nothing else."""
        for text, port in (("1", 1), ("00080", 80), ("65535", 65535)):
            self.assertEqual(parse_port(text), port)
        for text in ("", "0", "65536", "000080", "-1", "+1", "1_0", " 1", "1\n", "0x1", "\u0661"):
            self.assertEqual(parse_port(text), 0, repr(text))

    def test_brackets(self) -> None:
        """Round what has colons of its own."""
        found = [in_brackets(host) for host in ("a.example", "192.0.2.1", "::1")]
        self.assertEqual(found, ["a.example", "192.0.2.1", "[::1]"])


class HostTests(SynchronousTestCase):
    """Which texts are hosts, and which."""

    def assert_refused(self, *texts: str) -> None:
        """Each is refused with the general code, in a sentence that is safe to print."""
        for text in texts:
            error = self.assertRaises(OpenRefused, parse_host, text)
            self.assertIs(error.code, Code.GENERAL, repr(text))
            self.assertTrue(error.sentence.isascii() and error.sentence.isprintable(), repr(text))

    def test_addresses_are_addresses(self) -> None:
        """A name that is an address counts as that (R17, R18, R20)."""
        self.assertEqual(parse_host("127.0.0.1"), IPv4Address("127.0.0.1"))
        self.assertEqual(parse_host("::1"), IPv6Address("::1"))
        self.assertEqual(parse_host("::FFFF:1.2.3.4"), IPv6Address("::ffff:1.2.3.4"))

    def test_names_pass(self) -> None:
        """Short, long, underscored, A-labels and odd hyphens (R04, R06, R12, R15, R16)."""
        longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
        self.assertEqual(len(longest), 253)
        for name in ("a", "xn--bcher-kva.example", "_sip._tcp.example", "-bad.example", longest):
            self.assertEqual(parse_host(name), name)

    def test_one_trailing_dot_is_removed(self) -> None:
        """And the case folded (R13)."""
        self.assertEqual(parse_host("Example.COM."), "example.com")

    def test_empty_and_dotted(self) -> None:
        """Empty names and labels (R05, R14)."""
        self.assert_refused("", ".", "..", ".example", "a..b", "a..", "example..")

    def test_too_long(self) -> None:
        """Names over 253 characters and labels over 63 (R07, R08)."""
        long = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 62])
        self.assert_refused(long, long + "d", "a" * 64 + ".example", "a" * 64)

    def test_characters_that_a_resolver_may_misread(self) -> None:
        """NUL, line ends, blanks, URL marks (R09, R10)."""
        self.assert_refused("127.0.0.1\0.ok.example", "a\r\nb", "a\tb", "a b", "a/b", "a@b", "a%b")
        self.assert_refused("[::1]", "a[b", "example.com\n", "127.0.0.1\n", "::1\n", "1.2.3.4 ")

    def test_other_scripts(self) -> None:
        """UTF-8, full-width digits and circled letters, which fold to loopback (R11)."""
        self.assert_refused("b\u00fccher.example", "\uff11\uff12\uff17.0.0.1", "\u24dbocalhost")
        self.assert_refused("\u0661.0.0.1", "example\u3002com", "\u212aelvin.example")

    def test_numbers_that_getaddrinfo_takes_for_addresses(self) -> None:
        """Short, decimal, hexadecimal and octal forms (R19)."""
        self.assert_refused("127.1", "2130706433", "0x7f.1", "017700000001", "0", "0x7f000001")
        self.assert_refused("0177.0.0.1", "127.0.0.01", "1.2.3.4.5", "a.0x", "127.0.0.1.", "0X7F")

    def test_malformed_ipv6(self) -> None:
        """Brackets, scopes and leftovers (R20)."""
        self.assert_refused("fe80::1%lo", "::1%", "1::2::3", "::g", "12345::", ":", "::1/128")

    @given(HOST)
    @settings(max_examples=100, deadline=None)
    def test_what_it_returns_it_takes(self, host: Host) -> None:
        """A host survives being written and read again, in capitals too."""
        self.assertEqual(parse_host(str(host)), host)
        self.assertEqual(parse_host(str(host).upper()), host)

    @given(st.text(max_size=300))
    @settings(max_examples=200, deadline=None)
    def test_any_text_is_a_host_or_refused(self, text: str) -> None:
        """What passes as a name is harmless ASCII; nothing else is raised."""
        try:
            host = parse_host(text)
        except OpenRefused as error:
            self.assertTrue(error.sentence.isascii() and error.sentence.isprintable())
        else:
            if isinstance(host, str):
                self.assertRegex(host, r"\A[a-z0-9_.-]{1,253}\Z")


class TargetTests(SynchronousTestCase):
    """The pair, and its SOCKS5 form."""

    def test_ports_out_of_range(self) -> None:
        """Port 0 and beyond the last one (R27, C36)."""
        for port in (0, -1, 65536, 70_000):
            error = self.assertRaises(OpenRefused, Target.of, "example.com", port)
            self.assertIs(error.code, Code.GENERAL)

    def test_as_text(self) -> None:
        """IPv6 stands in brackets."""
        self.assertEqual(str(Target.of("example.com", 80)), "example.com:80")
        self.assertEqual(str(Target.of("10.0.0.1", 80)), "10.0.0.1:80")
        self.assertEqual(str(Target.of("::1", 80)), "[::1]:80")

    def test_golden_bytes(self) -> None:
        """The three forms of RFC 1928, section 5."""
        self.assertEqual(Target.of("10.0.0.1", 80).encode(), bytes.fromhex("010a0000010050"))
        self.assertEqual(Target.of("a.b", 443).encode(), b"\x03\x03a.b\x01\xbb")
        ipv6 = bytes([4]) + bytes(15) + b"\x01\x00\x16"
        self.assertEqual(Target.of("::1", 22).encode(), ipv6)

    @given(HOST, PORT, st.binary(max_size=20), st.binary(max_size=20))
    @settings(max_examples=100, deadline=None)
    def test_round_trip(self, host: Host, port: int, before: bytes, after: bytes) -> None:
        """Anywhere in a message, and with anything after it."""
        target = Target(host, port)
        data = target.encode()
        found = Target.decode(before + data + after, len(before))
        self.assertEqual(found, (target, len(before) + len(data)))

    @given(HOST, PORT)
    @settings(max_examples=50, deadline=None)
    def test_every_beginning_wants_more(self, host: Host, port: int) -> None:
        """No cut makes another target, or an error."""
        data = Target(host, port).encode()
        for size in range(len(data)):
            self.assertIsNone(Target.decode(data[:size]), size)

    def test_unknown_form(self) -> None:
        """Told from the first byte on (R30)."""
        for form in (0, 2, 5, 255):
            error = self.assertRaises(OpenRefused, Target.decode, bytes([form]))
            self.assertIs(error.code, Code.BAD_ADDRESS)

    def test_bad_contents(self) -> None:
        """Port 0 in every form; empty, long, NUL, CRLF and non-ASCII names (C36)."""
        port = b"\x00\x50"
        names = (b"", b"a" * 254, b"a" * 255, b"127.0.0.1\0.ok", b"a\r\nb", b"b\xc3\xbc", b"\xff")
        bad = [bytes([3, len(name)]) + name + port for name in names]
        bad += [b"\x01\x0a\0\0\x01\0\0", b"\x03\x01a\0\0", b"\x04" + bytes(18)]
        for data in bad:
            error = self.assertRaises(OpenRefused, Target.decode, data)
            self.assertIs(error.code, Code.GENERAL, data)

    @given(st.binary(max_size=300))
    @settings(max_examples=200, deadline=None)
    def test_any_bytes_decode_or_are_refused(self, data: bytes) -> None:
        """What is decoded encodes to an equal target; nothing else is raised."""
        try:
            found = Target.decode(data)
        except OpenRefused as error:
            self.assertTrue(error.sentence.isascii() and error.sentence.isprintable())
        else:
            if found is not None:
                target, end = found
                self.assertLessEqual(end, len(data))
                self.assertEqual(Target.decode(target.encode()), (target, len(target.encode())))

    def test_requests_are_values(self) -> None:
        """Equal requests are equal, and none is a key by accident of identity."""
        one, other = (OpenRequest(Target.of("a.b", 1), exit="x") for _ in range(2))
        self.assertEqual(one, other)
        self.assertEqual(len({one, other}), 1)

    def test_refusals_for_the_log(self) -> None:
        """They say once that they are one, and whatever a peer says stands behind our words."""
        for sentence, line in (
            ("a.b:80 refused the connection", "refused: a.b:80 refused the connection"),
            ("a.b:80 is refused: lan", "refused: a.b:80: lan"),
            ("ready is refused: is refused: x", "refused: ready: is refused: x"),
        ):
            self.assertEqual(refusal_line(sentence), line)
        self.assertEqual(refusal_line("a.b:80 is refused: lan", " ::1"), "refused ::1: a.b:80: lan")
