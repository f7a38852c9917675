"""L{stripetwist.bench} and L{stripetwist.demo}: what they can be told, and what they say."""

from pathlib import Path
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist import bench, demo
from stripetwist.bars import Row
from stripetwist.bench import BenchSettings, Contender
from stripetwist.core.link import Link
from stripetwist.demo import DemoSettings
from stripetwist.net.files import StartupError
from stripetwist.options import verb_settings

LINK = Link("desk", bytes(32), "vps.example", 8443, (bytes(32),))


class BenchSettingsTests(SynchronousTestCase):
    """The options of C{stripetwist bench}."""

    def read(self, *words: str, **environ: str) -> BenchSettings:
        """What the words say."""
        return verb_settings("bench", BenchSettings, bench.ABOUT, words, environ)

    def refusal(self, *words: str, **environ: str) -> str:
        """Why they cannot be."""
        return str(self.assertRaises(StartupError, self.read, *words, **environ))

    def test_defaults(self) -> None:
        """The server may be in a variable; those of other commands are left to them."""
        settings = self.read(STRIPETWIST_SERVER=LINK.format(), STRIPETWIST_SOCKS="1081")
        self.assertEqual(settings.link(), LINK)
        self.assertEqual((settings.seconds, settings.up, settings.subflows), (10.0, False, None))

    def test_a_link_in_a_file(self) -> None:
        """As for the client."""
        file = Path(self.mktemp())
        file.touch(0o600)
        file.write_text(LINK.format())
        self.assertEqual(self.read("--server", str(file)).link(), LINK)

    def test_its_own_options_are_no_variables(self) -> None:
        """A client that meets them would wonder."""
        found = self.read(STRIPETWIST_SECONDS="nonsense", STRIPETWIST_SERVER=LINK.format())
        self.assertEqual((found.seconds, found.server), (10.0, LINK))

    def test_refusals(self) -> None:
        """One sentence each, and no secret in any."""
        self.assertIn("$STRIPETWIST_SERVER", self.refusal())
        self.assertIn("stripetwist demo", self.refusal("--server", "loopback:"))
        link = ("--server", LINK.format())
        self.assertIn("one at a time", self.refusal(*link, "--up", "--down"))
        self.assertIn("give 2 or more", self.refusal(*link, "--subflows", "1"))
        self.assertIn("option of stripe-client", self.refusal(*link, "--socks", "1080"))
        mangled = self.refusal("--server", LINK.format()[:-3] + "!")
        self.assertNotIn(LINK.format()[20:40], mangled)


class BenchTests(SynchronousTestCase):
    """What C{stripetwist bench} says."""

    def test_faster_or_not(self) -> None:
        """A tenth more is no more than chance."""
        many = "6 striped connections"
        said = bench.conclusion(many, 1e6, 5.52e6)
        self.assertEqual(said, "6 striped connections are 5.5 times as fast as one TLS connection.")
        for striped in (0.5e6, 1.09e6):
            said = bench.conclusion(many, 1e6, striped)
            self.assertIn("no faster: your line does not limit one connection", said)
        self.assertRaises(StartupError, bench.conclusion, many, 0.0, 1e6)

    def test_what_sends_by_what(self) -> None:
        """For downloads the other end decides."""
        up = bench.introduction(True, "vps.example:8443", 0.048, "bbr")
        self.assertEqual(up[0], "Uploads to vps.example:8443, round trip 48.0 ms.")
        self.assertEqual(up[1], "Congestion control here: bbr.")
        down = bench.introduction(False, "vps.example:8443", 0.048, "")
        self.assertIn("unknown; for downloads the one of the server counts", down[1])

    def test_turns_count_as_one(self) -> None:
        """Bytes and seconds of both, without the time between them."""
        clock, nobody = Clock(), cast(Any, None)
        contender = Contender(nobody, 6)
        self.assertEqual(contender.row.rate, 0.0)
        for rate in (100, 300):
            meter = contender.meter(clock)
            clock.advance(2)
            meter.add(2 * rate)
            clock.advance(5)
        self.assertEqual(contender.row, Row("6 striped connections", 800, 200.0))

    def test_who_waits_is_not_shown(self) -> None:
        """A rate of nothing would say that it is slow."""
        client: Any = None
        one, many = bench.Contender(client, 1), bench.Contender(client, 6)
        shown = []
        for contender in (one, many):
            contender.meter(Clock())
            shown.append([row.name for row in bench.begun([one, many])])
        self.assertEqual(
            shown, [["one TLS connection"], ["one TLS connection", "6 striped connections"]]
        )


class DemoTests(SynchronousTestCase):
    """What C{stripetwist demo} takes and says."""

    def test_settings(self) -> None:
        """A time that is long enough to see something."""
        read = verb_settings("demo", DemoSettings, demo.ABOUT, ["--seconds", "4"], {})
        self.assertEqual(read.seconds, 4.0)
        short = ["--seconds", "2"]
        error = self.assertRaises(
            StartupError, verb_settings, "demo", DemoSettings, demo.ABOUT, short, {}
        )
        self.assertIn("give 3", str(error))

    def test_nothing_to_compare_with(self) -> None:
        """There is no ratio then."""
        self.assertRaises(StartupError, demo.conclusion, 0.0, 1e6)
