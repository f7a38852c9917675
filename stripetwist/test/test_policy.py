"""L{stripetwist.core.policy}: what C{--allow} and C{--deny} mean."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.policy import Policy, Rule, parse_rule
from stripetwist.core.target import Kind

TCP, UDP, RESOLVE = Kind.TCP, Kind.UDP, Kind.RESOLVE

PUBLIC = "93.184.216.34 2606:4700::1111 ::ffff:93.184.216.34"
PRIVATE = "10.1.2.3 172.16.0.1 192.168.1.5 fc00::1 fd12::1 ::ffff:10.1.2.3"
LOOPBACK = "127.0.0.1 127.1.2.3 ::1 ::ffff:127.0.0.1"
SPECIAL = (
    "0.0.0.0 :: 169.254.1.1 169.254.169.254 fe80::1 fd00:ec2::254 100.100.100.200 192.0.0.192"
    " 168.63.129.16 224.0.0.1 255.255.255.255 ff02::1 ::ffff:169.254.169.254"
)
TUNNELLED = (
    "::127.0.0.1 64:ff9b::a9fe:a9fe 2002:7f00:1:: 64:ff9b::808:808 2606:4700::5efe:7f00:1"
    " 2001:0:4136:e378:8000:63bf:3fff:fdd2 ::ffff:0:127.0.0.1 64:ff9b:1::a00:1"
)
OTHER = "100.64.0.1 198.18.0.1 192.0.2.1 240.0.0.1 2001:db8::1 fec0::1 3fff::1 5f00::1"


def answers(policy: Policy, text: str, port: int = 80, kind: Kind = TCP) -> str | None:
    """What the policy says to an address as text."""
    return policy.refusal_of_address(ip_address(text), port, kind)


class ItemTests(SynchronousTestCase):
    """The grammar of one item."""

    def assert_rule(self, text: str, **fields: object) -> None:
        """The text is parsed into a rule of those fields and no others."""
        rule = parse_rule(text)
        for name in ("word", "network", "name", "port", "kind"):
            default = "" if name in ("word", "name") else None
            found = getattr(rule, name)
            if name == "network" and found is not None:
                found = str(found)
            self.assertEqual(found, fields.get(name, default), f"{name} of {text}")

    def test_words(self) -> None:
        """The four words, in any case, with blanks around."""
        for word in ("internet", "lan", "localhost", "all"):
            self.assert_rule(word, word=word)
            self.assert_rule(f" {word.upper()} ", word=word)

    def test_port_and_kind(self) -> None:
        """Every form takes a port, a kind, or both."""
        self.assert_rule("localhost:51820/udp", word="localhost", port=51820, kind=UDP)
        self.assert_rule("lan/TCP", word="lan", kind=TCP)
        self.assert_rule("10.0.0.0/8:53/udp", network="10.0.0.0/8", port=53, kind=UDP)
        self.assert_rule("10.0.0.0/8/udp", network="10.0.0.0/8", kind=UDP)
        self.assert_rule("*.example.com:443", name="*.example.com", port=443)
        self.assert_rule("Git.Example.COM.:22/tcp", name="git.example.com", port=22, kind=TCP)

    def test_addresses_and_networks(self) -> None:
        """An address is a network of one; IPv6 with a port stands in brackets."""
        self.assert_rule("192.168.1.5", network="192.168.1.5/32")
        self.assert_rule("fd00::/8", network="fd00::/8")
        self.assert_rule("[fd00::/8]:22", network="fd00::/8", port=22)
        self.assert_rule("[::1]", network="::1/128")
        self.assert_rule("[2001:db8::1]:443/tcp", network="2001:db8::1/128", port=443, kind=TCP)
        self.assert_rule("fd00::1:22", network="fd00::1:22/128")

    def test_mapped_network_becomes_ipv4(self) -> None:
        """Otherwise it would never meet an address, and a C{--deny} would be open."""
        self.assert_rule("::ffff:10.0.0.0/104", network="10.0.0.0/8")
        self.assert_rule("[::ffff:10.0.0.7]:80", network="10.0.0.7/32", port=80)

    def test_malformed_items_are_named(self) -> None:
        """One sentence that begins with the item and says what to write."""
        items = (
            "",
            " ",
            "*",
            "*.",
            "*.10.0.0.1",
            "a b",
            "exa*mple.com",
            "http://example.com",
            "example.com:",
            "example.com:http",
            "example.com:0",
            "example.com:65536",
            "example.com:\u0665",
            "example.com:" + "9" * 5000,
            "10.0.0.0/33",
            "10.0.0",
            "2130706433",
            "0x7f.1",
            "fd00::/129",
            "fe80::1%eth0",
            "[::1",
            "[::1]22",
            "[fd00::]/8",
            "lan:/tcp",
            "lan/sctp",
            "\u24db\u24de\u24d2\u24d0\u24db",
        )
        for item in items:
            with self.assertRaises(ValueError, msg=item) as caught:
                parse_rule(item)
            sentence = str(caught.exception)
            self.assertTrue(sentence.startswith('the item "'), sentence)
            self.assertIn("write ", sentence)
            self.assertTrue(sentence.isascii())
            self.assertLess(len(sentence), 256)

    def test_other_protocols_are_refused(self) -> None:
        """What is wrong is the end, and not the port or the network before it."""
        for item in ("lan/sctp", "10.0.0.1:80/sctp", "10.0.0.0/8/sctp", "example.com:80/t"):
            error = self.assertRaises(ValueError, parse_rule, item)
            self.assertIn("ends in neither /tcp nor /udp", str(error))
        for item in ("10.0.0.1:80/24", "http://localhost"):
            error = self.assertRaises(ValueError, parse_rule, item)
            self.assertNotIn("neither", str(error))

    def test_host_bits_are_refused(self) -> None:
        """Both readings of a careless network are offered."""
        error = self.assertRaises(ValueError, parse_rule, "10.0.0.1/8")
        self.assertIn("write 10.0.0.0/8 or 10.0.0.1", str(error))

    def test_misspelled_words_are_not_taken_for_hosts(self) -> None:
        """A deny that nobody can meet would be worse than an error; a dot says otherwise."""
        for item, word in (("intranet", "internet"), ("locahost", "localhost"), ("lans", "lan")):
            error = self.assertRaises(ValueError, parse_rule, item)
            self.assertIn(f"did you mean {word}?", str(error))
        self.assert_rule("intranet.", name="intranet")
        self.assert_rule("nas", name="nas")

    def test_names_of_the_machine_are_written_localhost(self) -> None:
        """A name never opens loopback, so such a rule would have no effect."""
        error = self.assertRaises(ValueError, parse_rule, "*.localhost")
        self.assertIn("write localhost", str(error))

    def test_allowing_nothing_is_refused(self) -> None:
        """What can have no effect as C{--allow} is an error there, and fine as C{--deny}."""
        for item in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "0.0.0.0", "::", "0.0.0.0/8"):
            self.assertRaises(ValueError, Policy, [item])
            Policy(deny=[item])

    @given(st.text(max_size=30))
    @settings(max_examples=200, deadline=None)
    def test_any_text_is_a_rule_or_a_value_error(self, text: str) -> None:
        """Nothing else is ever raised."""
        try:
            rule = parse_rule(text)
        except ValueError as error:
            self.assertTrue(str(error).isascii())
        else:
            self.assertIsInstance(rule, Rule)


class WordTests(SynchronousTestCase):
    """What each word opens."""

    def assert_open(self, policy: Policy, *texts: str) -> None:
        """All those addresses may be reached at port 80."""
        for text in " ".join(texts).split():
            self.assertIsNone(answers(policy, text), text)

    def assert_closed(self, policy: Policy, *texts: str) -> None:
        """None of those addresses may be reached at port 80."""
        for text in " ".join(texts).split():
            self.assertIsNotNone(answers(policy, text), text)

    def test_default_is_internet(self) -> None:
        """Public unicast, in no disguise, and nothing else (R24, R25, C37)."""
        self.assert_open(Policy(), PUBLIC)
        self.assert_closed(Policy(), PRIVATE, LOOPBACK, SPECIAL, TUNNELLED, OTHER)

    def test_lan(self) -> None:
        """RFC 1918 and unique local addresses; a cloud's among them stay closed."""
        self.assert_open(Policy(["lan"]), PRIVATE)
        self.assert_closed(Policy(["lan"]), PUBLIC, LOOPBACK, SPECIAL, TUNNELLED, OTHER)

    def test_localhost(self) -> None:
        """Loopback only."""
        self.assert_open(Policy(["localhost"]), LOOPBACK)
        self.assert_closed(Policy(["localhost"]), PUBLIC, PRIVATE, SPECIAL, TUNNELLED, OTHER)

    def test_all(self) -> None:
        """Every unicast address that stands for itself and guards no credentials."""
        self.assert_open(Policy(["all"]), PUBLIC, PRIVATE, LOOPBACK, OTHER)
        self.assert_closed(Policy(["all"]), SPECIAL, TUNNELLED)

    def test_nothing(self) -> None:
        """An empty list allows nothing."""
        self.assert_closed(Policy([]), PUBLIC, PRIVATE, LOOPBACK, SPECIAL, TUNNELLED, OTHER)
        self.assertIsNotNone(Policy([]).refusal_of_name("example.com", 80, TCP))

    def test_items_add_up(self) -> None:
        """Each item opens its own; the list is all there is."""
        policy = Policy(["internet", "localhost:51820/udp"])
        self.assert_open(policy, PUBLIC)
        self.assert_closed(policy, LOOPBACK)
        self.assertIsNone(answers(policy, "127.0.0.1", 51820, UDP))
        self.assertIsNotNone(answers(policy, "127.0.0.1", 51820, TCP))
        self.assertIsNotNone(answers(policy, "127.0.0.1", 51821, UDP))

    def test_mail_takes_a_word_of_its_own(self) -> None:
        """C{internet} leaves port 25 out (R28); whoever writes the port, or more, means it."""
        mail = "port 25 sends mail; allow it there with --allow internet:25"
        self.assertEqual(answers(Policy(), "93.184.216.34", 25), mail)
        self.assertEqual(Policy().refusal_of_name("example.com", 25, TCP), mail)
        for item in ("internet:25", "all", "93.184.216.0/24"):
            self.assertIsNone(answers(Policy([item]), "93.184.216.34", 25), item)
        self.assertIsNone(answers(Policy(["lan"]), "10.0.0.1", 25))

    def test_lookup_alone_has_no_port(self) -> None:
        """For a lookup, what counts is the address."""
        policy = Policy(["internet", "lan:22/tcp"])
        self.assertIsNone(answers(policy, "93.184.216.34", 25, RESOLVE))
        self.assertIsNone(answers(policy, "10.0.0.1", 80, RESOLVE))
        self.assertIsNotNone(answers(policy, "127.0.0.1", 80, RESOLVE))


class NetworkTests(SynchronousTestCase):
    """What addresses and networks open."""

    def test_a_network_opens_what_it_holds(self) -> None:
        """Loopback too, if that is what was written."""
        policy = Policy(["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"])
        for text in ("10.9.9.9", "127.0.0.1", "fd12::1", "::ffff:10.0.0.1"):
            self.assertIsNone(answers(policy, text), text)
        for text in ("11.0.0.1", "192.168.0.1", "::1", "fc00::1"):
            self.assertIsNotNone(answers(policy, text), text)

    def test_metadata_is_no_part_of_a_wide_network(self) -> None:
        """Link-local and metadata addresses take the address itself."""
        wide = Policy(["0.0.0.0/0", "::/0", "all", "100.64.0.0/10", "168.63.0.0/16"])
        guarded = (
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fe80::1",
        )
        for text in guarded:
            self.assertIsNotNone(answers(wide, text), text)
            self.assertIsNone(answers(Policy([text]), text), text)
        self.assertIsNone(answers(wide, "100.100.100.100"))

    def test_nowhere_is_never_open(self) -> None:
        """The unspecified address would be this machine."""
        for text in ("0.0.0.0", "0.0.0.1", "::", "::ffff:0.0.0.0"):
            self.assertEqual(
                answers(Policy(["0.0.0.0/0", "::/0"]), text), "no address of any machine"
            )

    def test_tunnels_take_a_network_and_what_they_carry_is_judged(self) -> None:
        """NAT64 may be opened; neither loopback nor a private address gets through with it."""
        policy = Policy(["internet", "64:ff9b::/96"])
        self.assertIsNone(answers(policy, "64:ff9b::808:808"))
        inner = answers(policy, "64:ff9b::7f00:1") or ""
        self.assertIn("it carries 127.0.0.1", inner)
        self.assertIn("--allow localhost", inner)
        self.assertIsNotNone(answers(policy, "64:ff9b::a9fe:a9fe"))
        self.assertIsNotNone(answers(policy, "64:ff9b::a00:1"))
        self.assertIsNone(answers(Policy(["lan", "64:ff9b::/96"]), "64:ff9b::a00:1"))
        self.assertIsNotNone(answers(policy, "2002:808:808::1"))

    def test_deny_goes_first(self) -> None:
        """And meets an address in every form."""
        policy = Policy(["all", "64:ff9b::/96"], ["10.0.0.0/8", "93.184.216.34:443", "lan/udp"])
        denied = "denied there by --deny 10.0.0.0/8"
        for text in ("10.1.1.1", "::ffff:10.1.1.1", "64:ff9b::a01:101"):
            self.assertEqual(answers(policy, text), denied, text)
        self.assertIsNone(answers(policy, "192.168.1.1"))
        self.assertIsNotNone(answers(policy, "192.168.1.1", 80, UDP))
        self.assertIsNotNone(answers(policy, "93.184.216.34", 443))
        self.assertIsNone(answers(policy, "93.184.216.34", 80))

    def test_deny_words(self) -> None:
        """A word denies all of its zone, mail included; C{all} denies everything."""
        self.assertIsNotNone(answers(Policy(["all"], ["internet"]), "93.184.216.34", 25))
        self.assertIsNotNone(answers(Policy(["169.254.1.1"], ["all"]), "169.254.1.1"))


class NameTests(SynchronousTestCase):
    """What names open, and what is refused before any lookup."""

    def assert_names(self, policy: Policy, names: Iterable[str], are_open: bool) -> None:
        """Those names may (or may not) be looked up."""
        for name in names:
            is_open = policy.refusal_of_name(name, 443, TCP) is None
            self.assertEqual(is_open, are_open, name)

    def test_local_names_need_lan(self) -> None:
        """C{metadata.google.internal} is not even looked up by default."""
        local = ("printer.local", "metadata.google.internal")
        self.assert_names(Policy(), local, False)
        self.assert_names(Policy(["lan"]), local, True)
        self.assert_names(Policy(["all"]), local, True)
        self.assert_names(Policy(["internet", "*.local"]), local[:1], True)
        self.assert_names(Policy(["internet", "*.local"]), local[1:], False)
        said = Policy().refusal_of_name("printer.local", 80, TCP) or ""
        self.assertIn("--allow lan", said)

    def test_loopback_names_are_judged_as_addresses(self) -> None:
        """They pass, because they are never looked up."""
        self.assert_names(Policy(), ("localhost", "x.localhost"), True)

    def test_star_is_below(self) -> None:
        """C{*.example.com} means all below, not itself, nor what ends alike."""
        policy = Policy(["*.example.com"])
        self.assert_names(policy, ("a.example.com", "a.b.example.com"), True)
        self.assert_names(policy, ("example.com", "badexample.com", "a.example.com.evil"), False)
        self.assert_names(Policy(["example.com"]), ("example.com",), True)
        self.assert_names(Policy(["example.com"]), ("a.example.com",), False)

    def test_unlisted_name_is_not_looked_up_where_only_names_are_listed(self) -> None:
        """Nobody learns what the exit's name servers say."""
        said = Policy(["*.example.com"]).refusal_of_name("other.test", 443, TCP)
        self.assertEqual(
            said, "none of the names that are listed; allow it there with --allow other.test"
        )

    def test_a_name_opens_what_it_resolves_to(self) -> None:
        """Public, private and shared addresses, but never what only the machine should reach."""
        policy = Policy(["*.example.com:443"])
        name = "git.example.com"

        def said(text: str, port: int = 443, name: str | None = name) -> str | None:
            return policy.refusal_of_address(ip_address(text), port, TCP, name)

        for text in ["93.184.216.34", "10.0.0.1", "fd12::1", "100.64.0.1"]:
            self.assertIsNone(said(text), text)
            self.assertIsNotNone(said(text, 80), text)
            self.assertIsNotNone(said(text, name="other.test"), text)
            self.assertIsNotNone(said(text, name=None), text)
        for text in f"{LOOPBACK} {SPECIAL} {TUNNELLED} 198.18.0.1".split():
            self.assertIsNotNone(said(text), text)

    def test_denied_names(self) -> None:
        """Refused before the lookup, and once more after it."""
        policy = Policy(["internet"], ["*.ads.test", "bad.test:443"])
        self.assert_names(policy, ("x.ads.test", "bad.test"), False)
        self.assert_names(policy, ("ads.test", "good.test"), True)
        self.assertIsNone(policy.refusal_of_name("bad.test", 80, TCP))
        address = IPv4Address("93.184.216.34")
        self.assertIsNotNone(policy.refusal_of_address(address, 80, TCP, "x.ads.test"))


class SentenceTests(SynchronousTestCase):
    """Refusals name the option that would help, and it does."""

    def test_sentences(self) -> None:
        """What a user reads after the target."""
        said = {
            "192.168.1.5": "a private address; allow it there with --allow lan",
            "127.0.0.1": "the exit's own machine; allow it there with --allow localhost",
            "169.254.169.254": "a cloud metadata address;"
            " allow it there with --allow 169.254.169.254",
            "64:ff9b::808:808": "an IPv6 address that carries an IPv4 address;"
            " allow it there with --allow 64:ff9b::/96",
        }
        for text, sentence in said.items():
            self.assertEqual(answers(Policy(), text), sentence)
        self.assertEqual(
            answers(Policy(["lan:22"]), "10.0.0.1", 80),
            "TCP port 80 is not listed; allow it there with --allow lan:80",
        )

    def test_another_place_to_allow_can_be_named(self) -> None:
        """A key's own list is not an option of the command."""
        policy = Policy(["lan"], hint="this key lacks")
        self.assertEqual(
            answers(policy, "127.0.0.1"), "the exit's own machine; this key lacks localhost"
        )

    @given(
        st.one_of(
            st.ip_addresses(),
            st.sampled_from([ip_address(t) for t in f"{SPECIAL} {TUNNELLED} {OTHER}".split()]),
        ),
        st.sampled_from([25, 80]),
        st.sampled_from([[], ["internet"], ["lan:22"], ["*.example.com"], ["internet", "lan:22"]]),
    )
    @settings(max_examples=200, deadline=None)
    def test_following_the_hints_opens_the_address(
        self, address: IPv4Address | IPv6Address, port: int, allow: list[str]
    ) -> None:
        """After at most three, unless the address is none or the list was empty."""
        for _ in range(4):
            said = Policy(allow).refusal_of_address(address, port, TCP)
            found = re.search(r"--allow (\S+)$", said or "")
            if found is None:
                break
            allow = [*allow, found[1]]
        self.assertTrue(said is None or said.endswith("no address of any machine"), said)
