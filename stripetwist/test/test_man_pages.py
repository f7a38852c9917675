"""The man pages say what the code does."""

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields
from io import StringIO
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from stripetwist import __version__, cli
from stripetwist.agent_settings import AgentSettings
from stripetwist.client_settings import ClientSettings
from stripetwist.core import agents, chunks, frames, hello, reorder
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.errors import MAX_SENTENCE, Code
from stripetwist.core.frames import HEADER, HEADER_SIZE, FrameParser
from stripetwist.core.handshake import (
    EXPORTER_LABEL,
    AcceptorHandshake,
    DialerHandshake,
    Established,
    Intent,
    Membership,
)
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.path import MAX_LABEL, PLAIN, PathInfo
from stripetwist.core.socks5 import reply_code
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.core.way import LEAST_RATE, PathRole
from stripetwist.net.checksum import table_driven
from stripetwist.net.tls import ALPN, SNI_SUFFIX
from stripetwist.server_settings import ServerSettings
from stripetwist.settings import CommonSettings
from stripetwist.sources import Option, Reader, options_of
from stripetwist.test.documents import Item, Page, document, options_in

ROLES: dict[str, type[CommonSettings]] = {
    "stripe-client": ClientSettings,
    "stripe-server": ServerSettings,
    "stripe-agent": AgentSettings,
}
COMMANDS = ("stripe-agent.1", "stripe-client.1", "stripe-server.1", "stripetwist.1")
PAGES = (*COMMANDS, "stripetwist-wire.7")
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "SIGNALS", "EXIT STATUS"]
SECTIONS += ["EXAMPLES", "SEE ALSO"]


def page(name: str) -> Page:
    """A page of ours, by its file's name."""
    return Page(document(f"man/{name}"))


class EveryPageTests(SynchronousTestCase):
    """What all pages have in common."""

    def test_it_is_of_this_version(self) -> None:
        """The heading names the version of the code."""
        for name in PAGES:
            self.assertIn(f'"stripetwist {__version__}"', page(name).source.split(".SH")[0])

    def test_it_renders_without_a_warning(self) -> None:
        """C{man} finds no fault with the markup."""
        man = shutil.which("man")
        if man is None or shutil.which("groff") is None:
            raise SkipTest("man and groff are not installed")
        for name in PAGES:
            file = Path(self.mktemp()).with_suffix(name[-2:])
            file.write_text(page(name).source, "utf-8")
            command = [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(file)]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, b""), name)

    def test_every_command_has_the_options_it_shows(self) -> None:
        """Each line that starts a role can be read by that role."""
        for name in COMMANDS:
            read = [readable(command) for command in page(name).commands()]
            self.assertGreater(sum(read), 1, name)


def readable(command: str) -> bool:
    """Whether a line starts a role; its options are then read, which raises if it cannot be."""
    for role, kind in ROLES.items():
        words = options_in(command, role)
        if words is not None and not words[0].endswith("pidfile="):
            Reader(role, kind, {}).from_flags(words)
            return True
    return False


class OptionTests(SynchronousTestCase):
    """The lists of options, against the table that the command line is read by."""

    def each(self) -> Iterable[tuple[Item, Option]]:
        """What a page says of an option, and what the code does."""
        for role, kind in ROLES.items():
            yield from zip(page(f"{role}.1").options(), options_of(kind).values(), strict=False)

    def test_each_is_there_in_order(self) -> None:
        """None is missing and none too many."""
        for role, kind in ROLES.items():
            names = [item.name for item in page(f"{role}.1").options()]
            self.assertEqual(names, [*options_of(kind), "help", "version"])

    def test_its_value_has_the_same_name(self) -> None:
        """As C{--help} shows it."""
        for item, one in self.each():
            self.assertEqual(item.metavar, one.metavar, one.name)

    def test_its_default_is_shown(self) -> None:
        """In digits where the code has some, else in words."""
        for item, one in self.each():
            if one.default_text:
                self.assertIn(f"Default {one.default_text}.", item.body, one.name)
            elif not one.is_flag:
                self.assertRegex(item.body, "Default|There is no default", one.name)

    def test_it_says_whether_it_may_be_repeated(self) -> None:
        """And no other says so."""
        for item, one in self.each():
            says = "May be given several times." in item.body
            self.assertEqual(says, one.repeatable, one.name)

    def test_the_sections_are_there_in_order(self) -> None:
        """Those that readers look for; others may stand between."""
        for role in ROLES:
            found = [name for name in page(f"{role}.1").sections if name in SECTIONS]
            self.assertEqual(found, SECTIONS)


class CommandTests(SynchronousTestCase):
    """The page of the command that has all the others, against its help."""

    def test_each_is_there_in_order(self) -> None:
        """With what follows it, in the same words."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        cli.main(["--help"])
        shown = re.findall(r"^  (\S.*?)(?:  .*)?$", output.getvalue(), re.MULTILINE)
        entries = page("stripetwist.1").entries("COMMANDS")
        self.assertEqual([head for head, _ in entries], shown)

    def test_the_pages_name_each_other(self) -> None:
        """Whoever reads one finds the others of commands."""
        for name in COMMANDS:
            others = page(name).text("SEE ALSO")
            for other in COMMANDS:
                shown = f"{other.removesuffix('.1')}(1)" in others
                self.assertEqual(shown, other != name, (name, other))


def numbers_of(module: ModuleType) -> dict[str, int]:
    """The public numbers of a module by name."""
    found = {name: value for name, value in vars(module).items() if name.isupper()}
    return {n: v for n, v in found.items() if isinstance(v, int) and not n.startswith("_")}


class WireCase(SynchronousTestCase):
    """A test of the page about the wire."""

    def setUp(self) -> None:
        """Read it once."""
        self.page = page("stripetwist-wire.7")

    def named(self, table: str) -> dict[str, int]:
        """A table whose rows begin with a number and a name."""
        rows = self.page.table(table)
        found = {row[1]: int(row[0], 0) for row in rows}
        self.assertEqual(len(found), len(rows))
        return found

    def layout(self, table: str) -> tuple[list[int], int]:
        """The sizes of a header's fields and their sum; that each begins where it says."""
        *rows, last = self.page.table(table)
        sizes = [int(row[1]) for row in rows]
        starts = [sum(sizes[:number]) for number in range(len(rows) + 1)]
        self.assertEqual([int(row[0]) for row in (*rows, last)], starts)
        return sizes, starts[-1]


class HelloTests(WireCase):
    """The section about the hello."""

    def test_header(self) -> None:
        """As long as the code's; the magic is the code's too."""
        sizes, size = self.layout("hello-header")
        empty = hello.pack(hello.HELLO, [], 0)
        self.assertEqual((size, sizes), (len(empty), [4, 1, 1, 1, 1, 4]))
        shown = self.page.table("hello-header")[0][2]
        self.assertIn(hello.MAGIC.hex(" "), shown)
        self.assertIn(hello.MAGIC.decode("ascii"), shown)

    def test_every_number_is_named(self) -> None:
        """Kinds, flags and fields are all that the code has, with its numbers."""
        tables = ("hello-kinds", "hello-flags", "hello-fields")
        named = {name: value for table in tables for name, value in self.named(table).items()}
        others = {"VERSION", "MAX_BODY", "MAC_SIZE", "NEW", "JOIN"}
        known = numbers_of(hello)
        self.assertEqual(named, {name: known[name] for name in known.keys() - others})
        self.assertIn(f"length of the body, 1 to {hello.MAX_BODY}", self.page.source)
        self.assertIn(f"lacks its last {hello.MAC_SIZE} bytes", self.page.text("HELLO"))

    def test_modes_and_roles(self) -> None:
        """Their numbers stand where the fields are described."""
        values = {row[1]: row[4] for row in self.page.table("hello-fields")}
        self.assertIn(f"{hello.NEW} NEW", values["MODE"])
        self.assertIn(f"{hello.JOIN} JOIN", values["MODE"])
        for role in Role:
            self.assertIn(f"{int(role)} {role.name}", values["ROLE"])

    def test_what_must_be_understood(self) -> None:
        """Fields of the high bit that are listed are taken, another is not."""
        for number in self.named("hello-fields").values():
            hello.fields(struct.pack(">HH", number, 32) + bytes(32))
        unknown = struct.pack(">HH", 0x8007, 0)
        self.assertNotIn(0x8007, self.named("hello-fields").values())
        self.assertRaises(Rejected, hello.fields, unknown)

    def test_limits(self) -> None:
        """The numbers that are sent, what each means, and what holds without it."""
        rows = self.page.table("hello-limits")
        sent = [number for number, _ in struct.iter_unpack(">BI", hello.pack_limits(Limits()))]
        self.assertEqual([int(row[0]) for row in rows], sent)
        for number, name, absent, _ in rows:
            what = name.replace(" ", "_")
            given = hello.parse_limits(struct.pack(">BI", int(number), 77))
            self.assertEqual(getattr(given, what), 77)
            self.assertEqual(getattr(hello.parse_limits(b""), what), int(absent))

    def test_agents(self) -> None:
        """The records of an agent are all that the code has, with its numbers and bounds."""
        rows = {row[1]: row for row in self.page.table("agent-records")}
        others = {"MAX_NAME", "MAX_LABELS", "MAX_CAPACITY", "MAX_WEIGHT", "INSTANCE_SIZE"}
        known = numbers_of(agents)
        self.assertEqual(
            self.named("agent-records"), {name: known[name] for name in known.keys() - others}
        )
        self.assertEqual(rows["NAME"][2], f"1-{agents.MAX_NAME}")
        self.assertEqual(rows["LABEL"][2], f"3-{2 * agents.MAX_NAME + 1}")
        self.assertIn(f"at most {agents.MAX_LABELS},", rows["LABEL"][3])
        self.assertIn(f"1 to {agents.MAX_WEIGHT};", rows["WEIGHT"][3])
        for word in agents.RESERVED_NAMES:
            self.assertIn(f'"{word}"', rows["NAME"][3])

    def test_path(self) -> None:
        """The value of PATH is laid out as the code does it, with its numbers and bounds."""
        sizes, size = self.layout("hello-path")
        self.assertEqual((size, sizes), (len(PLAIN.pack()), [2, 1, 8]))
        rows = [row[2] for row in self.page.table("hello-path")]
        for role in PathRole:
            self.assertIn(f"{PathInfo(role=role).pack()[2]} {role.name}", rows[1])
        self.assertIn(f"at least {LEAST_RATE // 8};", rows[2])
        self.assertIn(f"at most {MAX_LABEL} ", rows[3])
        fields = {row[1]: row[3] for row in self.page.table("hello-fields")}
        self.assertEqual(fields["PATH"], f"{size}-{size + MAX_LABEL}")

    def test_names_of_tls(self) -> None:
        """The labels that both ends must agree on."""
        text = self.page.text("CONNECTIONS")
        for label in (ALPN.decode(), EXPORTER_LABEL.decode(), f"LABEL{SNI_SUFFIX}"):
            self.assertIn(label, text)


class FrameTests(WireCase):
    """The section about frames."""

    def test_header(self) -> None:
        """As the code packs it."""
        sizes, size = self.layout("frame-header")
        self.assertEqual(size, HEADER_SIZE)
        self.assertEqual(sizes, [struct.calcsize(f">{one}") for one in HEADER.format[1:]])

    def test_types(self) -> None:
        """Every type with its number, and no other."""
        known = {name: number for number, name in frames.NAMES.items()}
        self.assertEqual(self.named("frames"), known)

    def test_lengths(self) -> None:
        """A payload may be as long as its row says, and no longer."""
        for number, _, _, most, _ in self.page.table("frames"):
            for length in (int(most), int(most) + 1):
                parser = FrameParser()
                parser.feed(HEADER.pack(int(number, 0), 0, 0, length, 0, 0))
                self.assertEqual(parser.error is None, length == int(most), number)

    def test_flags(self) -> None:
        """Those of the code."""
        flags = self.named("frame-flags")
        known = {"FIN": frames.FIN, "COPY": frames.COPY, "ADDRESSED": frames.ADDRESSED}
        self.assertEqual(flags, known)

    def test_what_calls_for_no_acknowledgement(self) -> None:
        """The frames that are named are those of the code."""
        *most, last = [frames.NAMES[kind] for kind in sorted(frames.QUIET)]
        listed = f"{', '.join(most)} and {last}"
        self.assertIn(f"calls for an acknowledgement but {listed}.", self.page.text("SUBFLOWS"))

    def test_open(self) -> None:
        """Kinds, fields and forms of address, as the code packs them."""
        self.assertEqual(self.named("open-kinds"), {kind.name: kind.value for kind in Kind})
        one = Target.of("a.example", 1)
        fields = frames.pack_open(1, 0, OpenRequest(one, Kind.UDP, "x", "", one, 2))[HEADER_SIZE:]
        found = []
        while fields:
            found.append(fields[0])
            fields = fields[3 + int.from_bytes(fields[1:3], "big") :]
        known = dict(zip(("address", "exit", "bind", "copies"), found, strict=True))
        self.assertEqual(self.named("open-fields"), known)
        hosts = {"IPv4": "192.0.2.1", "name": "a.example", "IPv6": "::1"}
        forms = {name: Target.of(host, 1).encode()[0] for name, host in hosts.items()}
        self.assertEqual(self.named("address-forms"), forms)

    def test_numbers_in_the_text(self) -> None:
        """The tick, the sentences, the bounds of small chunks."""
        text = self.page.text("FRAMES")
        self.assertIn(f"{frames.TICK * 1e6:g} microseconds", text)
        self.assertIn(f"at most {MAX_SENTENCE} characters", text)
        small, spare = vars(chunks)["_SMALL"], vars(chunks)["_SPARE"]
        waiting, each = vars(reorder)["_SPARE_ENTRIES"], vars(reorder)["_BYTES_PER_ENTRY"]
        text = self.page.text("STREAMS")
        self.assertIn(f"under {small} bytes is sent only while fewer than {spare} chunks", text)
        self.assertIn(f"the last {spare} chunks span {small * spare} bytes", text)
        self.assertIn(f"more than {waiting} chunks, and one for each {each} bytes", text)


UNITS = {"KiB": KIB, "MiB": MIB, "s": 1, "MB/s": 1e6, "kB/s": 1e3, "": 1}


class NumberTests(WireCase):
    """The tables of codes and of limits."""

    def test_codes(self) -> None:
        """All, with their numbers."""
        self.assertEqual(self.named("codes"), {code.name: code.value for code in Code})

    def test_replies(self) -> None:
        """What a SOCKS client is told."""
        for number, _, reply, _ in self.page.table("codes"):
            self.assertEqual(int(reply), reply_code(Code(int(number))), number)

    def test_limits(self) -> None:
        """All, with their values."""
        found = {}
        for name, value, _ in self.page.table("limits"):
            digits, _, unit = value.partition(" ")
            found[name] = float(digits) * UNITS[unit]
        known = {one.name: getattr(Limits(), one.name) for one in fields(Limits)}
        self.assertEqual(found, known)

    def test_bounds_on_a_peer(self) -> None:
        """Those that the text repeats."""
        limits, text = Limits(), self.page.text("ERRORS")
        self.assertIn(f"more than {limits.max_streams} numbers left out", text)
        self.assertIn(f"more than {limits.max_control_items} answers", text)


class _Door:
    """An acceptor's knowledge: one key, for whoever names it."""

    instance = bytes(range(0xC0, 0xD0))

    def key(self, key_id: str) -> bytes:
        """The key of the example."""
        return bytes(range(32))

    def role_is_allowed(self, key_id: str, role: Role) -> bool:
        """Whatever is asked."""
        return True

    def session(self, session_id: bytes, key_id: str) -> Membership | None:
        """There is none."""
        return None


class ExampleTests(WireCase):
    """The example, made once more by the code."""

    def test_hello(self) -> None:
        """Both sides say what is printed, and agree on the secret."""
        binding, limits = b"\x55" * 32, Limits(max_memory=32 * MIB)
        random = iter([b"\xd1" * 32, bytes(range(0xB0, 0xC0)), b"\xa1" * 32])

        def entropy(size: int) -> bytes:
            return next(random)

        intent = Intent("client-1", bytes(range(32)), 1)
        dialer = DialerHandshake(intent, binding, limits, entropy)
        acceptor = AcceptorHandshake(_Door(), binding, limits, entropy)
        self.assertEqual(self.page.example("HELLO"), dialer.hello)
        answer, _ = acceptor.feed(dialer.hello)
        self.assertEqual(self.page.example("HELLO_ACK"), answer)
        result = dialer.feed(answer)
        assert result is not None
        self.assertEqual(self.page.example("CONFIRM"), result[0])
        self.assertEqual(self.page.example("SS"), result[1].session_secret)
        _, established = acceptor.feed(result[0])
        assert isinstance(established, Established)
        self.assertEqual(self.page.example("SS"), established.session_secret)

    def test_frames(self) -> None:
        """Each as the code packs it."""
        request = OpenRequest(Target.of("example.com", 80))
        opening = frames.pack_open(1, 4 * MIB, request)
        data = frames.pack_with(b"hello", frames.DATA, frames.FIN, 0, 1, 0)
        made = {
            "OPEN": opening,
            "ACK": frames.pack(frames.ACK, aux=10, offset=len(opening)),
            "ACCEPT": frames.pack(frames.ACCEPT, stream=1, offset=4 * MIB),
            "DATA": data,
            "DATA+CRC32C": b"".join(frames.with_trailers([data], table_driven())),
            "CREDIT": frames.pack_credit([(1, 5_242_880)]),
            "SUBFLOW_FINAL": frames.pack_final(3, 1_000_000),
        }
        self.assertEqual({name: self.page.example(name) for name in made}, made)
        self.assertIn(f"these {len(opening)} bytes {10 * frames.TICK:g} seconds ago", self.words())

    def words(self) -> str:
        """The section's text."""
        return self.page.text("EXAMPLE")
