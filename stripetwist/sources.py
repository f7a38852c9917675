"""Options, declared once each: read from flags, the environment and a TOML file."""

import inspect
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from stripetwist.core.errors import printable
from stripetwist.core.spelling import nearest
from stripetwist.net.files import Complaint, StartupError, read_file

PREFIX = "STRIPETWIST_"

S = TypeVar("S")

# Long enough for a secret, or a part of a link that has one.
_MAYBE_SECRET = re.compile(r"://|@|[A-Za-z0-9_-]{40}")
_LINK = re.compile(rb"stripetwist(\+plain)?://")
_LOGIN = re.compile(rb"(socks|http)://[^\s\"']*@")
_WORDS = {"1": True, "true": True, "yes": True, "on": True}
_WORDS.update({"0": False, "false": False, "no": False, "off": False})


def boolean(text: str) -> bool:
    """What a flag's variable says."""
    if text.lower() not in _WORDS:
        raise ValueError("write 1 or 0")
    return _WORDS[text.lower()]


@dataclass(frozen=True, slots=True)
class Option:
    """
    One option, under all its names.

    @ivar name: on the command line after C{--}, and in the file.
    @ivar metavar: what its value is called; empty for a flag.
    @ivar read: makes the value of a text, or raises C{ValueError} with what is wrong.
    @ivar default: the value where none is given.
    @ivar doc: one or two sentences for C{--help}.
    @ivar kinds: what it may be in a TOML file.
    @ivar repeatable: whether it may be given several times; the value is then a tuple.
    @ivar secret: whether its text may be a password, and is never shown.
    @ivar table: the keys of a table that may stand for its text in a file, and what goes
        before the value of each there; it may lack those that come after a comma.
    @ivar between: what stands between its values in a variable, as a pattern.
    """

    name: str
    metavar: str
    read: Callable[[str], Any]
    default: Any
    doc: str
    kinds: tuple[type, ...] = (str,)
    repeatable: bool = False
    secret: bool = False
    table: Mapping[str, str] = field(default_factory=dict)
    between: str = r"[\s,]+"

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return variable_of(self.name)

    @property
    def default_text(self) -> str:
        """The default as a user would write it; empty if it is none, or needs words."""
        if self.is_flag or self.default in (None, ()):
            return ""
        values = self.default if self.repeatable else (self.default,)
        return ", ".join(_as_written(value) for value in values)


def _as_written(value: Any) -> str:
    """The text of a default; whole seconds have no fraction."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def variable_of(name: str) -> str:
    """The environment variable of the option of that name."""
    return PREFIX + name.upper().replace("-", "_")


def option(
    name: str, metavar: str, read: Callable[[str], Any], default: Any, doc: str, **more: Any
) -> Any:
    """The field of a settings class that an option fills; see L{Option}."""
    declared = Option(name, metavar, read, default, doc, **more)
    return field(default=default, repr=not declared.secret, metadata={"option": declared})


def flag(name: str, doc: str) -> Any:
    """The field of a settings class that an option without a value fills."""
    return option(name, "", boolean, False, doc, kinds=(bool,))


def same_option(settings: type, name: str, **other: Any) -> Any:
    """The field that an option of another settings class fills; C{other} is what differs."""
    declared = replace(options_of(settings)[name], **other)
    return field(default=declared.default, repr=not declared.secret, metadata={"option": declared})


def options_of(settings: type) -> dict[str, Option]:
    """The options of a settings class by name, its own before the inherited ones."""
    own = inspect.get_annotations(settings)
    ordered = sorted(fields(settings), key=lambda one: one.name not in own)
    return {one.metadata["option"].name: one.metadata["option"] for one in ordered}


def _fields(settings: type) -> dict[str, str]:
    """The field of a settings class that each option fills, by the option's name."""
    return {one.metadata["option"].name: one.name for one in fields(settings)}


def by_name(settings: Any) -> dict[str, Any]:
    """The values that a settings object holds, by option name."""
    return {name: getattr(settings, one) for name, one in _fields(type(settings)).items()}


def show(text: str) -> str:
    """What a user wrote, as it may stand in a sentence: nothing that could be a secret."""
    if _MAYBE_SECRET.search(text):
        return "(not shown, it may be a secret)"
    return printable(text, 60)


@dataclass(frozen=True, slots=True)
class Given:
    """
    What one source says of one option.

    @ivar where: how a sentence begins that speaks of it; the value follows.
    @ivar texts: the values, more than one only if the option is repeatable.
    """

    where: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader(Generic[S]):
    """
    Reads the settings of one role.

    @ivar role: the command, for sentences.
    @ivar settings: the class to fill.
    @ivar elsewhere: the options that only other commands have, and which do.
    @ivar explain: what to say of a word that is none of our options, if anything.
    """

    role: str
    settings: type[S]
    elsewhere: Mapping[str, str]
    explain: Callable[[str], str] = lambda word: ""

    def read(self, argv: Sequence[str], environ: Mapping[str, str]) -> S:
        """
        The settings: of the flag, else the variable, else the file, else the default.

        @raise StartupError: one sentence on the first thing that is wrong.
        """
        known = options_of(self.settings)
        given = {**self.from_environment(environ), **self.from_flags(argv)}
        if "config" in given:
            path = _value(known["config"], given["config"])
            given = {**self.from_file(path), **given}
        values = {name: _value(known[name], one) for name, one in given.items()}
        return self.settings(**{_fields(self.settings)[name]: values[name] for name in values})

    def from_flags(self, argv: Sequence[str]) -> dict[str, Given]:
        """What the command line says."""
        known = options_of(self.settings)
        found: dict[str, list[str]] = {}
        words = iter(argv)
        for word in words:
            name, equals, text = word.removeprefix("--").partition("=")
            one = known.get(name) if word.startswith("--") else None
            if one is None:
                raise StartupError(self._unknown_word(word, list(known)))
            if one.is_flag:
                text = _no_value(one, equals)
            elif not equals:
                text = _next_value(one, next(words, ""))
            if name in found and not one.repeatable:
                raise StartupError(f"--{name} stands twice; give it once")
            found.setdefault(name, []).append(text)
        return {name: Given(f"--{name} ", tuple(texts)) for name, texts in found.items()}

    def _unknown_word(self, word: str, names: list[str]) -> str:
        """What is wrong with a word on the command line that is no option of ours."""
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f"{show(word)} stands alone; put its option before it, such as --{names[0]}"
        explained = self.explain(name)
        if explained:
            return explained
        if name[2:] in self.elsewhere:
            return f"{name} is an option of {self.elsewhere[name[2:]]}, not of {self.role}"
        return f"unknown option {show(name)}{_hint('--', name.lstrip('-'), [*names, 'help'])}"

    def from_environment(self, environ: Mapping[str, str]) -> dict[str, Given]:
        """What the variables say; those of other commands' options are left to them."""
        known = {one.variable: one for one in options_of(self.settings).values()}
        others = set(map(variable_of, self.elsewhere))
        found = {}
        for variable in sorted(name for name in environ if name.startswith(PREFIX)):
            if variable in others:
                continue
            if variable not in known:
                hint = _hint("", variable, [*known, *others])
                raise StartupError(f"unknown variable {show(variable)}{hint}")
            one, text = known[variable], environ[variable]
            if not text.strip():
                raise StartupError(f"{variable} is empty; unset it or give it a value")
            # No item has what stands between them in it; what has stands in the file.
            texts = re.split(one.between, text.strip(" \t\r\n,")) if one.repeatable else [text]
            found[one.name] = Given(f"{variable}=", tuple(texts))
        return found

    def from_file(self, path: Path) -> dict[str, Given]:
        """What a TOML file says."""
        known = options_of(self.settings)
        found = {}
        for name, value in load_toml(path).items():
            where = f"{show(path.name)}: {show(name)}"
            if name in self.elsewhere:
                owner = self.elsewhere[name]
                raise StartupError(f"{where} is an option of {owner}, not of {self.role}")
            if name == "config":
                raise StartupError(f"{where} cannot stand in a file; say --config FILE")
            if name not in known:
                raise StartupError(f"{where} is unknown{_hint('', name, known)}")
            found[name] = Given(f"{where} = ", _texts(known[name], value, where))
        return found


def _hint(dashes: str, name: str, names: Iterable[str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {dashes}{near}?" if near else "; --help lists what there is"


def _no_value(one: Option, equals: str) -> str:
    if equals:
        raise StartupError(f"--{one.name} takes no value; write it alone")
    return "1"


def _next_value(one: Option, text: str) -> str:
    """The word after an option; another option there is a forgotten value."""
    if not text or text.startswith("--"):
        raise StartupError(f"--{one.name} needs a value: --{one.name} {one.metavar}")
    return text


def _texts(one: Option, value: object, where: str) -> tuple[str, ...]:
    """A TOML value as the texts that flags would have."""
    items = value if isinstance(value, list) and one.repeatable else [value]
    items = [_row(one, item, where) if isinstance(item, dict) else item for item in items]
    # To Python, true is a number too.
    if not all(type(item) in one.kinds for item in items):
        wanted = "true or false" if one.is_flag else "a text"
        if int in one.kinds:
            wanted = "a number or a text"
        raise StartupError(
            f"{where} has the wrong type; write {wanted}{', or a list' * one.repeatable}"
        )
    return tuple(str(item) for item in items)


def _row(one: Option, row: dict[str, Any], where: str) -> object:
    """The text that a table stands for; the table itself where there can be none."""
    if not one.table or not all(type(value) in (str, int) for value in row.values()):
        return row
    head = where.rstrip(" =")
    for name in row:
        if name not in one.table:
            raise StartupError(f"{head}: {show(name)} is unknown{_hint('', name, one.table)}")
    for name, mark in one.table.items():
        if name not in row and not mark.startswith(","):
            raise StartupError(f"{head}: {name} is missing; write {name} = VALUE there")
    return "".join(f"{mark}{row[name]}" for name, mark in one.table.items() if name in row)


def _value(one: Option, given: Given) -> Any:
    """What an option's texts stand for."""
    values = []
    for number, text in enumerate(given.texts, 1):
        try:
            if not text.strip():
                raise ValueError(f"it is empty; write {one.metavar}")
            values.append(one.read(text))
        except ValueError as error:
            head = f"{given.where}{'' if one.secret else show(text)}".rstrip(" =")
            if one.secret and len(given.texts) > 1:
                head += f", number {number} of {len(given.texts)}"
            raise StartupError(f"{head}: {error}") from None
    return tuple(values) if one.repeatable else values[0]


def load_toml(path: Path) -> dict[str, Any]:
    """
    The content of a configuration file.

    @raise StartupError: it cannot be read, is no TOML, or shows a link or a proxy's password
        to other users.
    """
    modes: list[int] = []

    def note(status: os.stat_result) -> Complaint | None:
        modes.append(status.st_mode)
        return None

    data = read_file(path, "configuration file", check=note)
    if modes[0] & 0o077 and (kind := _secret_in(data)):
        raise StartupError(
            f"{show(path.name)} holds {kind}, but is open to other users; run chmod 600 on it"
        )
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        problem = _toml_problem(str(error), data)
    raise StartupError(f"{show(path.name)} {problem}; write NAME = VALUE on each line")


def _secret_in(data: bytes) -> str:
    """What there is in a file that nobody else may read; nothing if all may."""
    if _LINK.search(data):
        return "a link, which is a password"
    return "a proxy's password" if _LOGIN.search(data) else ""


def _toml_problem(message: str, data: bytes) -> str:
    """What is wrong with a file, without showing more of it than a name."""
    lines = data.rstrip().splitlines()
    found = re.search(r"at line ([0-9]+)", message)
    if not found and "end of document" not in message:
        return "is no TOML"
    number = int(found[1]) if found else len(lines)
    if message.startswith("Cannot overwrite"):
        name = lines[min(number, len(lines)) - 1].partition(b"=")[0].strip()
        return f"gives {show(name.decode('utf-8', 'replace'))} twice (line {number})"
    return f"is no TOML at line {number}"
