"""The documents that go with the code, and the little of their markup that tests must read."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SkipTest

import stripetwist

_ROOT = Path(stripetwist.__file__).parents[1]
_ESCAPES = {"\\-": "-", "\\e": "\\", "\\c": "", "\\|": "", "\\&": ""}
_FONT = re.compile(r"\\f[A-Z]")
_ALTERNATING = {"BI", "BR", "IB", "IR", "RB", "RI"}
_TABLE = re.compile(r'^\.\\" table: (\S+)\n\.TS\n(.*?)\n\.TE$', re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"T\{\n(.*?)\nT\}", re.DOTALL)
_EXAMPLE = re.compile(r'^\.\\" example: (\S+)\n\.EX\n(.*?)\n\.EE$', re.MULTILINE | re.DOTALL)
_HEX = re.compile(r" *((?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*)(?: {2,}.*)?\Z")


def document(name: str) -> str:
    """
    The text of a document of the source tree; of a man page, also of an installed one.

    @raise SkipTest: it did not come along.
    """
    places = [_ROOT / name]
    if name.startswith("man/"):
        file = name.removeprefix("man/")
        places.append(Path(sys.prefix, "share", "man", f"man{file[-1]}", file))
    for place in places:
        if place.is_file():
            return place.read_text("utf-8")
    raise SkipTest(f"{name} is not here")


def plain(text: str) -> str:
    """Roff without its escapes."""
    text = _FONT.sub("", text)
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text


@dataclass(frozen=True)
class Item:
    """
    An entry of a page's list of options.

    @ivar name: without its dashes.
    @ivar metavar: what its value is called; empty for a flag.
    @ivar body: what is said of it, on one line.
    """

    name: str
    metavar: str
    body: str


class Page:
    """
    A man page.

    @ivar source: its text.
    @ivar sections: the lines of each section, without markup, by its heading.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.sections: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in source.splitlines():
            if line.startswith(".SH "):
                lines = self.sections.setdefault(plain(line[4:]).strip('"'), [])
            else:
                lines.append(line)

    def text(self, section: str) -> str:
        """A section as one line of words."""
        return " ".join(filter(None, map(_words, self.sections[section])))

    def options(self) -> list[Item]:
        """The entries of the section OPTIONS, in order."""
        found = []
        for head, body in self.entries("OPTIONS"):
            name, _, metavar = head.partition(" ")
            found.append(Item(name.removeprefix("--"), metavar, body))
        return found

    def entries(self, section: str) -> list[tuple[str, str]]:
        """What a section tells of, in order, and what it says of each, on one line."""
        found = []
        for entry in "\n".join(["", *self.sections[section]]).split("\n.TP\n")[1:]:
            head, _, body = entry.partition("\n")
            words = " ".join(filter(None, map(_words, body.splitlines())))
            found.append((_words(head), words))
        return found

    def table(self, name: str) -> list[list[str]]:
        """The cells of a table, without its heading."""
        body = next(body for found, body in _TABLE.findall(self.source) if found == name)
        body = _BLOCK.sub(lambda block: block[1].replace("\n", " "), body)
        rows = body.split("\n_\n")[1].splitlines()
        return [plain(row).split("|") for row in rows]

    def example(self, name: str) -> bytes:
        """The bytes of an example; comments stand two spaces behind them."""
        body = next(body for found, body in _EXAMPLE.findall(self.source) if found == name)
        matches = [_HEX.match(line) for line in body.splitlines()]
        assert all(matches), f"the example {name} has a line of something else"
        return bytes.fromhex("".join(match[1] for match in matches if match))

    def commands(self) -> list[str]:
        """What follows a shell's prompt, or would, in all examples."""
        source = plain(self.source).replace("\\\n", "")
        return [line.removeprefix("$ ") for line in source.splitlines()]


def _words(line: str) -> str:
    """A line as a reader sees it, macros of fonts taken away."""
    macro, _, rest = line[1:].partition(" ")
    if not line.startswith("."):
        return plain(line)
    if macro in ("B", "I"):
        return plain(rest).replace('"', "")
    if macro in _ALTERNATING:
        lexer = shlex.shlex(rest, posix=True)
        lexer.whitespace_split, lexer.escape, lexer.quotes, lexer.commenters = True, "", '"', ""
        return plain("".join(lexer))
    return ""


def options_in(command: str, role: str) -> list[str] | None:
    """The words behind a role in a command line; C{None} where it does not start that role."""
    words = command.split()
    for name in (role, f"stripetwist {role.removeprefix('stripe-')}"):
        if f"{name} -" in command and words[0].endswith(("twistd", "stripetwist")):
            return shlex.split(command.partition(f"{name} ")[2])
    return None
