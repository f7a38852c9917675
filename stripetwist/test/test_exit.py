"""L{stripetwist.net.exit}: names, policy, lookup, policy again, and then the dial."""

import errno
from dataclasses import replace
from ipaddress import ip_address

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.core.zones import Address
from stripetwist.net.exit import DirectExit
from stripetwist.net.guard import Guard
from stripetwist.net.relay import Parked
from stripetwist.test.test_race import ANSWERS, Network, Wire

PUBLIC = "93.184.216.34"
# One of this machine's own.
OWN = "93.184.216.35"


class Names:
    """A resolver by table; a name without an entry waits for ever."""

    def __init__(self) -> None:
        self.table: dict[str, list[str] | OpenRefused] = {}
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def resolve(self, name: str, asker: str = "") -> Deferred[list[Address]]:
        """See L{stripetwist.net.resolver.Resolver.resolve}."""
        self.asked.append(name)
        answer = self.table.get(name)
        if answer is None:
            return Deferred(lambda _: self.cancelled.append(name))
        if isinstance(answer, OpenRefused):
            return fail(answer)
        return succeed([ip_address(text) for text in answer])


class ExitTestCase(SynchronousTestCase):
    """An exit with a pretended network and name server."""

    def setUp(self) -> None:
        """Everything is silent; the policy is the default one."""
        self.clock = Clock()
        self.network = Network(self.clock)
        self.names = Names()
        self.exit = self.make(Policy())

    def make(self, policy: Policy, limits: Limits | None = None) -> DirectExit:
        """An exit with that policy."""
        own = [("127.0.0.1", 1080), ("", 8443)]
        guard = Guard(policy, own, is_local=lambda address: str(address) == OWN)
        return DirectExit(self.network, self.clock, self.names, guard, limits or Limits())

    def open(self, host: str, port: int = 80, key_id: str = "") -> Deferred[ITransport]:
        """Ask for a TCP connection."""
        request = OpenRequest(Target.of(host, port), key_id=key_id)
        return self.exit.open(request)

    def refused(self, opening: Deferred[ITransport]) -> OpenRefused:
        """Why it was refused."""
        error = self.failureResultOf(opening, OpenRefused).value
        assert isinstance(error, OpenRefused)
        self.assertTrue(error.sentence.isascii() and error.sentence.isprintable())
        self.assertLess(len(error.sentence), 256)
        return error

    def assert_refused(self, host: str, port: int = 80, code: Code = Code.NOT_ALLOWED) -> str:
        """The target is refused at once, with that code and without any dial."""
        error = self.refused(self.open(host, port))
        self.assertIs(error.code, code, f"{host}: {error.sentence}")
        self.assertEqual(self.network.dials, [], host)
        return error.sentence

    def tearDown(self) -> None:
        """No request is under way, and nothing of one is left."""
        self.assertEqual(self.exit.opening, 0)
        self.assertEqual(self.network.pending(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OpenTests(ExitTestCase):
    """Targets that are reached."""

    def test_literal_addresses(self) -> None:
        """Without any lookup; an IPv4-mapped one is dialed as what it is (R01, R02, R18)."""
        for host, dialed in (
            (PUBLIC, PUBLIC),
            ("2606:4700::1111", "2606:4700::1111"),
            (f"::ffff:{PUBLIC}", PUBLIC),
        ):
            self.network.addresses[dialed] = ANSWERS
            opening = self.open(host)
            self.assertNoResult(opening)
            self.clock.advance(0)
            wire = self.successResultOf(opening)
            assert isinstance(wire, Wire)
            self.assertIsInstance(wire.protocol, Parked)
            self.assertEqual(wire.producerState, "paused")
            self.assertEqual(self.network.dials[-1].host, dialed)
        self.assertEqual(self.names.asked, [])
        self.assertEqual(self.exit.opened, 3)

    def test_names_are_resolved_here(self) -> None:
        """Once; what is dialed is the very address that was judged (R03, R13, R23)."""
        self.names.table["example.com"] = [PUBLIC]
        self.network.addresses[PUBLIC] = ANSWERS
        opening = self.open("Example.com.")
        self.names.table["example.com"] = ["127.0.0.1"]
        self.clock.advance(0)
        self.successResultOf(opening)
        self.assertEqual(self.names.asked, ["example.com"])
        self.assertEqual(self.network.dialed(), [PUBLIC])

    def test_denied_addresses_of_a_name_are_left_out(self) -> None:
        """The others are dialed, and only they (R22)."""
        self.names.table["mixed.test"] = ["10.0.0.1", PUBLIC, "::1", "::ffff:127.0.0.1"]
        self.network.addresses[PUBLIC] = errno.ECONNREFUSED
        opening = self.open("mixed.test")
        self.clock.advance(0)
        error = self.refused(opening)
        self.assertIs(error.code, Code.REFUSED_BY_TARGET)
        self.assertEqual(self.network.dialed(), [PUBLIC])

    def test_families_take_turns(self) -> None:
        """The next one after 300 ms."""
        self.names.table["both.test"] = ["2606:4700::1", "2606:4700::2", PUBLIC]
        self.network.addresses[PUBLIC] = ANSWERS
        opening = self.open("both.test")
        self.clock.pump([0.3, 0])
        self.successResultOf(opening)
        self.assertEqual(self.network.dialed(), ["2606:4700::1", PUBLIC])

    def test_localhost_if_allowed(self) -> None:
        """A loopback name is judged by its addresses."""
        self.exit = self.make(Policy(["localhost"]))
        self.names.table["localhost"] = ["127.0.0.1", "::1"]
        self.network.addresses["127.0.0.1"] = ANSWERS
        opening = self.open("localhost", 22)
        self.clock.advance(0)
        self.successResultOf(opening)


class RefusalTests(ExitTestCase):
    """Targets that are not even dialed."""

    def test_addresses(self) -> None:
        """R24, R25 and C37: every range, every disguise."""
        hosts = (
            "0.0.0.0 127.0.0.1 127.9.9.9 169.254.169.254 224.0.0.1 255.255.255.255 10.0.0.1"
            " 172.16.0.1 192.168.1.5 100.100.100.200 192.0.0.192 :: ::1 ::ffff:127.0.0.1"
            " ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::a00:1 2002:7f00:1::"
            " 2001:0:4136:e378:8000:63bf:3fff:fdd2 2606:4700::5efe:127.0.0.1 fe80::1 fc00::1"
            " fd00:ec2::254 fec0::1 ff02::1"
        )
        for host in hosts.split():
            self.assert_refused(host)
        self.assertEqual(self.exit.denied, len(hosts.split()))
        self.assertEqual(self.exit.failed, 0)

    def test_names_of_denied_addresses(self) -> None:
        """A public name for a private address (R21, R22)."""
        self.names.table = {"rebind.test": ["192.168.1.5", "::1"], "localhost": ["127.0.0.1"]}
        self.assertEqual(
            self.assert_refused("rebind.test"),
            "rebind.test:80 (192.168.1.5) is refused:"
            " a private address; allow it there with --allow lan",
        )
        self.assert_refused("LOCALHOST.")

    def test_sentence(self) -> None:
        """What was refused, why, and what would allow it."""
        self.assertEqual(
            self.assert_refused("192.168.1.5"),
            "192.168.1.5:80 is refused: a private address; allow it there with --allow lan",
        )

    def test_local_names_are_not_looked_up(self) -> None:
        """Nor is anything else that the policy forbids by name."""
        self.assert_refused("metadata.google.internal")
        self.assert_refused("printer.local")
        self.assertEqual(self.names.asked, [])

    def test_mail(self) -> None:
        """R28, and no lookup for it."""
        self.assertIn("internet:25", self.assert_refused("example.com", 25))
        self.assertIn("internet:25", self.assert_refused(PUBLIC, 25))
        self.assertEqual(self.names.asked, [])

    def test_own_ports(self) -> None:
        """Our own listeners, at whatever address (R26)."""
        self.exit = self.make(Policy(["all"]))
        self.names.table["me.test"] = [OWN]
        for host, port in (("127.0.0.1", 1080), (OWN, 8443), ("me.test", 8443)):
            self.assertIn("stripetwist itself", self.assert_refused(host, port))

    def test_names_of_any_length_leave_room_for_the_reason(self) -> None:
        """A name of 253 characters is cut in the sentence."""
        name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
        self.names.table[name] = ["127.0.0.1"]
        self.assertIn("--allow localhost", self.assert_refused(name))

    def test_other_kinds(self) -> None:
        """UDP and lookups are not done here."""
        for kind in (Kind.UDP, Kind.RESOLVE):
            opening = self.exit.open(OpenRequest(Target.of(PUBLIC, 53), kind))
            self.assertIs(self.refused(opening).code, Code.BAD_KIND)
        self.assertEqual(self.exit.failed, 2)

    def test_lookup_failures_pass_through(self) -> None:
        """With their own code and sentence."""
        for code in (Code.DNS_FAIL, Code.DNS_TIMEOUT, Code.OVERLOAD):
            self.names.table["a.test"] = OpenRefused(code, "a.test is gone")
            self.assertEqual(self.assert_refused("a.test", code=code), "a.test is gone")


class LoadTests(ExitTestCase):
    """Many requests at once."""

    def test_silent_targets_delay_nobody(self) -> None:
        """300 black holes, and one that answers (R39)."""
        holes = [self.open(f"93.1.{number // 250}.{number % 250}") for number in range(300)]
        self.assertEqual(len(self.network.pending()), 300)
        self.network.addresses[PUBLIC] = ANSWERS
        good = self.open(PUBLIC)
        self.clock.advance(0)
        self.successResultOf(good)
        self.clock.advance(10)
        for each in holes:
            self.assertIs(self.refused(each).code, Code.TIMEOUT)

    def test_each_key_has_its_share(self) -> None:
        """One that dials black holes leaves the others theirs; what ended counts no more."""
        self.exit = self.make(Policy(), replace(Limits(), max_opening=3))
        holes = [self.open(f"93.1.1.{number}", key_id="greedy") for number in range(1, 4)]
        error = self.refused(self.open(PUBLIC, key_id="greedy"))
        self.assertIs(error.code, Code.OVERLOAD)
        other = self.open(PUBLIC, key_id="other")
        self.network.dials[-1].answer()
        self.successResultOf(other)
        for each in holes:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        again = self.open(PUBLIC, key_id="greedy")
        self.network.dials[-1].answer()
        self.successResultOf(again)
        self.assertEqual(self.exit._opening_by_key, {})

    def test_out_of_descriptors(self) -> None:
        """Code 1 at once, and the next one is served again (fault 40)."""
        self.network.addresses[PUBLIC] = errno.EMFILE
        opening = self.open(PUBLIC)
        self.clock.advance(0)
        self.assertIs(self.refused(opening).code, Code.GENERAL)
        self.network.addresses[PUBLIC] = ANSWERS
        opening = self.open(PUBLIC)
        self.clock.advance(0)
        self.successResultOf(opening)
        self.assertEqual((self.exit.failed, self.exit.opened), (1, 1))


class CancelTests(ExitTestCase):
    """A requester who is gone (R37)."""

    def test_during_the_lookup(self) -> None:
        """The lookup is cancelled."""
        opening = self.open("slow.test")
        self.assertEqual(self.exit.opening, 1)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(self.names.cancelled, ["slow.test"])

    def test_during_the_dial(self) -> None:
        """Every dial is."""
        self.names.table["a.test"] = [PUBLIC, "2606:4700::1"]
        opening = self.open("a.test")
        self.clock.advance(0.3)
        self.assertEqual(len(self.network.pending()), 2)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(self.network.pending(), [])
        self.assertEqual((self.exit.failed, self.exit.denied, self.exit.opened), (0, 0, 0))
