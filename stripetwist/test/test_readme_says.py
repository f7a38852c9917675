"""The README says what the code does."""

import re
import shlex
from dataclasses import fields
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path
from pkgutil import iter_modules

from twisted.trial.unittest import SynchronousTestCase

import stripetwist
from stripetwist import demo, server_tap
from stripetwist.agent_settings import AgentSettings
from stripetwist.bars import Row, bars
from stripetwist.bench import BenchSettings
from stripetwist.client_settings import ClientSettings
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.core.target import Kind
from stripetwist.net.state import StateDirectory
from stripetwist.report import render
from stripetwist.server_settings import ServerSettings
from stripetwist.settings import CommonSettings
from stripetwist.sources import Reader, options_of
from stripetwist.test.documents import document, options_in
from stripetwist.values import Advertised

ROLES: dict[str, type[CommonSettings]] = {
    "stripe-client": ClientSettings,
    "stripe-server": ServerSettings,
    "stripe-agent": AgentSettings,
}
VERBS: dict[str, type] = {**ROLES, "bench": BenchSettings}
UNITS = {"KiB": KIB, "MiB": MIB, "s": 1, "": 1}
METHODS = ["Room.may_go_on", "SendBuffer.may_cut", "Session.poll"]
METHODS += ["RelayEnd.dataReceived", "ReceiveWindow.take"]
FOLDERS = {"``stripetwist/core/``": ".core", "``stripetwist/net/``": ".net", "``stripetwist/``": ""}

_EIGHTHS = re.compile("[▏▎▍▌▋▊▉]")
_LIMIT = re.compile(r"^([a-z_]+) {2,}([0-9.]+)(?: (\S+))? {2,}\S", re.MULTILINE)


class ReadmeTests(SynchronousTestCase):
    """What can be told without running anything."""

    def setUp(self) -> None:
        """Read it."""
        self.text = document("README.rst")

    def section(self, heading: str) -> str:
        """What stands under a heading."""
        start = self.text.index(f"\n{heading}\n--")
        return self.text[start:].split("\n\n\n")[0]

    def block(self, first: str) -> list[str]:
        """The lines of the literal block that begins so, its indentation taken away."""
        lines = self.text[self.text.index(f" {first}") + 1 :].split("\n")
        before = self.text[: self.text.index(f" {first}") + 1]
        indent = len(before) - before.rindex("\n") - 1
        found: list[str] = []
        for line in lines:
            if line.strip() and found and not line.startswith(" " * indent):
                break
            found.append(line[indent:] if found else line)
        return "\n".join(found).rstrip().split("\n")

    def test_the_limits(self) -> None:
        """Each that is listed has the value of the code."""
        rows = _LIMIT.findall(self.section("Limits and times"))
        self.assertGreater(len(rows), 10)
        for name, digits, unit in rows:
            self.assertEqual(float(digits) * UNITS[unit], getattr(Limits(), name), name)
        names = {one.name for one in fields(Limits)}
        self.assertLessEqual({row[0] for row in rows}, names)

    def test_times_in_the_text(self) -> None:
        """Those that are said in words."""
        limits, words = Limits(), " ".join(self.text.split())
        waits = limits.session_timeout * limits.acceptor_grace
        self.assertIn(f"({limits.session_timeout:g} seconds; the server waits {waits:g})", words)
        self.assertIn(f"waits for its streams, {limits.drain_timeout:g} seconds at most", words)
        self.assertIn(f"has {limits.subflows}, and up to {limits.grow_most} where", words)

    def test_every_command_has_the_options_it_shows(self) -> None:
        """Each line that starts a role can be read by that role."""
        found = 0
        for line in map(str.strip, self.text.replace("\\\n", "").splitlines()):
            for role, kind in VERBS.items():
                if line and (words := options_in(line, role)) is not None:
                    Reader(role, kind, {}).from_flags(words)
                    found += 1
        self.assertGreater(found, 4)

    def test_every_option_is_one(self) -> None:
        """Of those in double backquotes, each belongs to some command."""
        known = {f"--{name}" for kind in VERBS.values() for name in options_of(kind)}
        known |= {"--pidfile", "--json"}
        self.assertLessEqual(set(re.findall(r"``(--[a-z-]+)", self.text)), known)

    def test_what_the_server_prints(self) -> None:
        """Line by line, but for the network card."""
        home = {"HOME": str(Path.home())}
        state = StateDirectory(None, "server", home)
        link = Link("nobody", bytes(32), "203.0.113.7", 8443, (bytes(32),))
        lines = vars(server_tap)["_greeting"](ServerSettings(), state, link, True)
        shown = [line.replace(" (from eth0)", "") for line in self.block("stripetwist 0.1 server")]
        self.assertEqual(shown, lines)

    def test_what_the_shell_reads(self) -> None:
        """The line that copies the link holds for any folder, and for an IPv6 address."""
        state = StateDirectory(Path("/srv/my state"), "server", {"HOME": "/nowhere"})
        link = Link("nobody", bytes(32), "2001:db8::7", 8443, (bytes(32),))
        settings = ServerSettings(advertise=Advertised("2001:db8::7", 8443))
        lines = vars(server_tap)["_greeting"](settings, state, link, True)
        self.assertIn("  address     2001:db8::7 port 8443 (--advertise)", lines)
        words = ["scp", "you@[2001:db8::7]:/srv/my state/server/client.link", "."]
        self.assertIn(words, [shlex.split(line) for line in lines])

    def test_what_the_server_does_not_reach(self) -> None:
        """It is said beside what it reaches."""
        state = StateDirectory(None, "server", {"HOME": str(Path.home())})
        link = Link("nobody", bytes(32), "203.0.113.7", 8443, (bytes(32),))
        settings = ServerSettings(allow=("lan", "localhost:80"), deny=("192.168.1.0/24", "lan:22"))
        lines = vars(server_tap)["_greeting"](settings, state, link, True)
        shown = "  reaches     lan, localhost:80; not 192.168.1.0/24, lan:22  (--deny)"
        self.assertIn(shown, lines)

    def test_what_is_said_without_a_key(self) -> None:
        """There is no link worth copying then."""
        state = StateDirectory(None, "server", {"HOME": str(Path.home())})
        link = Link("nobody", bytes(32), "203.0.113.7", 8443, (bytes(32),))
        lines = vars(server_tap)["_greeting"](ServerSettings(), state, link, False, False)
        self.assertIn("stripetwist key add", lines[-1])
        self.assertNotIn("scp", " ".join(lines))

    def test_what_status_prints(self) -> None:
        """The same columns, under the same heads."""
        traffic = {"first": 1, "copy": 2, "pad": 3, "overhead": 4}
        subflow = {"id": 1, "path": "direct", "state": "active", "rtt": 0.001, "in_flight": 0}
        subflow |= {"tx": traffic, "rx": traffic}
        session = {
            "id": "0c5ee34a",
            "key": "client-1",
            "subflows": [subflow],
            "streams": {"open": 0, "opened": 2},
        }
        snapshot = {"role": "client", "pid": 1, "started": 0.0, "sessions": [session]}
        made = render({**snapshot, "memory": {"held": 0, "limit": 256 * MIB}}, 2.0).split("\n")
        shown = self.block("client  pid")
        self.assertEqual(shown[2].split(), made[2].split())
        self.assertEqual(shown[0].split("  ")[2:], made[0].split("  ")[2:])

    def test_what_the_demonstration_prints(self) -> None:
        """Word for word, with bars that fit the numbers as far as these are told."""
        *words, plain, striped, end = self.block("Two downloads side by side")
        self.assertEqual(words, [*demo.introduction(demo.LINE)])
        rates = [float(one) * 1e6 / 8 for one in re.findall(r"([0-9.]+) Mbit/s", plain + striped)]
        self.assertEqual(end, demo.conclusion(*rates))
        names = (demo.PLAIN, demo.STRIPED)
        rows = [Row(*row) for row in zip(names, rates, rates, strict=True)]
        full = demo.LINE.rate * demo.SUBFLOWS
        made = bars(rows, full, len(striped), True)
        for shown, line in zip((plain, striped), made, strict=True):
            self.assertEqual(_EIGHTHS.sub(" ", shown), _EIGHTHS.sub(" ", line))

    def test_what_is_said_of_a_refusal(self) -> None:
        """The sentence that the default policy makes, and that a user adds to."""
        policy = ServerSettings().policy()
        target = Reader("stripe-server", ServerSettings, {}).read(["--allow", "lan"], {}).policy()
        shown = re.search(r"refused: (\S+):80: (.*)", self.text)
        assert shown is not None
        self.assertEqual(refusal(policy, shown[1]), shown[2])
        self.assertIsNone(refusal(target, shown[1]))

    def test_the_places_are_there(self) -> None:
        """The methods that can say stop are found under their names."""
        text = self.section("One byte's way")
        self.assertEqual(re.findall(r"``([A-Z]\w+\.\w+)``", text), METHODS)
        for place in METHODS:
            kind, name = place.split(".")
            self.assertTrue([one for one in classes(kind) if hasattr(one, name)], place)

    def test_the_modules_are_there(self) -> None:
        """Those that the layout lists, where it lists them."""
        folder = None
        for line in self.section("The source").splitlines():
            start = line.partition(":")[0]
            folder = FOLDERS.get(start, folder)
            for group in re.findall(r"^\* ``([a-z0-9_ ]+)``", line):
                for name in group.split():
                    import_module(f"stripetwist{folder}.{name}")


def refusal(policy: Policy, address: str) -> str | None:
    """What a policy says of port 80 of an address."""
    return policy.refusal_of_address(ip_address(address), 80, Kind.TCP)


def classes(name: str) -> list[type]:
    """The classes of that name in the package."""
    found = []
    for part in ("core", "net"):
        package = import_module(f"{stripetwist.__name__}.{part}")
        for module in iter_modules(package.__path__):
            one = vars(import_module(f"{package.__name__}.{module.name}")).get(name)
            if isinstance(one, type):
                found.append(one)
    return found
