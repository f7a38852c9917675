"""The options of the twistd commands, as twistd wants to meet them."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from twisted.python import usage
from twisted.scripts import twistd

from stripetwist import __version__
from stripetwist.agent_settings import AgentSettings
from stripetwist.client_settings import ClientSettings
from stripetwist.net.files import StartupError
from stripetwist.server_settings import ServerSettings
from stripetwist.settings import CommonSettings
from stripetwist.sources import Option, Reader, by_name, options_of, variable_of
from stripetwist.udp_values import socktopus_sides

S = TypeVar("S", bound=CommonSettings)

_COMMANDS: dict[str, type[CommonSettings]] = {
    "stripe-client": ClientSettings,
    "stripe-server": ServerSettings,
    "stripe-agent": AgentSettings,
}
_FOOTER = (
    "Every option is also a key of the --config file and an environment variable: --max-memory "
    "is max-memory there and STRIPETWIST_MAX_MEMORY here.  An option outranks the variable, and "
    "the variable the file.  Names cannot be abbreviated.  twistd's own options, such as -n, "
    "stand before {role}."
)
_RUN = "twistd -n --pidfile="


class RoleOptions(usage.Options, Generic[S]):
    """
    The options of one command.

    A wrong one ends the process with one sentence and exit code 1, by C{SystemExit}: a
    C{UsageError} would have twistd print all of its own help first.

    @cvar role: the command.
    @cvar kind: the class of its settings.
    @cvar about: what it is, in a sentence.
    @cvar examples: what it can do, each with the words to say it.
    @ivar settings: what was read, once C{parseOptions} has.
    """

    role: ClassVar[str]
    about: ClassVar[str]
    examples: ClassVar[Sequence[tuple[str, str]]]
    kind: type[S]
    settings: S
    optFlags: ClassVar[list[list[Any]]]
    optParameters: ClassVar[list[list[Any]]]
    compData: ClassVar[usage.Completions]

    def __init_subclass__(cls, **more: Any) -> None:
        """Tell Twisted of the options too, for the completion in shells."""
        super().__init_subclass__(**more)
        if "kind" not in vars(cls):
            # Twisted gathers from all classes; what inherits must not say it again.
            return
        table = options_of(cls.kind).values()
        cls.optFlags = [[one.name, None, one.doc] for one in table if one.is_flag]
        cls.optParameters = [
            [one.name, None, one.default, one.doc, one.read] for one in table if not one.is_flag
        ]
        files = {one.name: usage.CompleteFiles() for one in table if one.metavar == "FILE"}
        folders = {one.name: usage.CompleteDirs() for one in table if one.metavar == "DIR"}
        cls.compData = usage.Completions(
            multiUse=[one.name for one in table if one.repeatable], optActions=files | folders
        )

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        super().__init__()
        self._environ = environ

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the words that follow the command's name."""
        open_closed_streams()
        words = sys.argv[1:] if options is None else list(options)
        if words[-2:-1] == ["--_shell-completion"]:
            super().parseOptions(words)
        if "--help" in words:
            self.opt_help()
        if "--version" in words:
            self.opt_version()
        try:
            self._read(words)
        except StartupError as error:
            raise SystemExit(str(error)) from None

    def _read(self, words: Sequence[str]) -> None:
        """Set the settings, and what they are as C{self[NAME]}."""
        reader = Reader(self.role, self.kind, _elsewhere(self.kind), self._of_twistd)
        settings = reader.read(words, self._variables())
        complaint = settings.complaint()
        if complaint:
            raise StartupError(complaint)
        self.settings = settings
        self.update(by_name(settings))

    def _variables(self) -> Mapping[str, str]:
        """The environment, as options are read from it."""
        return self._environ

    def _of_twistd(self, word: str) -> str:
        """What to say of an option that is twistd's, not ours."""
        name = word[2:] if word.startswith("--") else word[1:2]
        if name not in twistd.ServerOptions().synonyms:  # type: ignore[attr-defined]
            return ""
        own = "" if word in ("-n", "--nodaemon", "--pidfile") else f" {word}"
        return f"{word} belongs before {self.role}: {_RUN}{own} {self.role} ..."

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"stripetwist {__version__}\n")
        sys.exit(0)

    def __str__(self) -> str:
        return help_text(self)

    def getUsage(self, width: int | None = None) -> str:
        """The help; twistd asks for it when it complains of something of its own."""
        return help_text(self)


def help_text(options: RoleOptions[Any]) -> str:
    """What C{--help} prints: examples first, then every option."""
    role = options.role
    lines = [
        f"Usage: {_RUN} {role} [options]",
        f"   or: stripetwist {role.removeprefix('stripe-')} [options]",
        "",
        *_wrapped(options.about, ""),
        "",
        "Examples:",
    ]
    for purpose, words in options.examples:
        command = _wrapped(f"{_RUN} {role} {words}", " " * 6, 78)
        lines += [f"  {purpose}:", " \\\n  ".join(command)]
    lines += ["", "Options:"]
    for one in options_of(options.kind).values():
        lines += _option_help(one)
    lines += ["  --help, --version", "      Print this help, or the version, and exit."]
    return "\n".join([*lines, "", *_wrapped(_FOOTER.format(role=role), ""), ""])


class _Settings(Protocol):
    """What a verb can be told."""

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""


V = TypeVar("V", bound=_Settings)


def verb_settings(
    verb: str, kind: type[V], about: str, words: Sequence[str], environ: Mapping[str, str]
) -> V:
    """
    What a verb of C{stripetwist} was told; C{--help} prints what that can be, and ends.

    @raise StartupError: one sentence on the first thing that is wrong.
    """
    role = f"stripetwist {verb}"
    if "--help" in words or "-h" in words:
        lines = [f"Usage: {role} [options]", "", *_wrapped(about, ""), "", "Options:"]
        for one in options_of(kind).values():
            lines += _option_help(one)
        lines += ["  --help", "      Print this help and exit.", ""]
        sys.stdout.write("\n".join(lines))
        raise SystemExit(0)
    # What only the verb knows is no variable: the roles would wonder at it.
    shared = options_of(ClientSettings)
    own = {variable_of(name) for name in options_of(kind) if name not in shared}
    environ = {name: value for name, value in environ.items() if name not in own}
    settings = Reader(role, kind, _elsewhere(kind)).read(words, environ)
    complaint = settings.complaint()
    if complaint:
        raise StartupError(complaint)
    return settings


def _option_help(one: Option) -> list[str]:
    """The lines of one option."""
    doc = one.doc
    if one.repeatable:
        doc += "  May be given several times."
    if one.default_text:
        doc += f"  Default {one.default_text}."
    return [f"  --{one.name} {one.metavar}".rstrip(), *_wrapped(doc, " " * 6)]


def _wrapped(text: str, indent: str, width: int = 80) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


class ClientOptions(RoleOptions[ClientSettings]):
    """What C{twistd stripe-client} takes."""

    role = "stripe-client"
    kind = ClientSettings
    about = "A local proxy port whose streams are striped over many connections to a server."
    examples = (
        ("use a server, by the link that it wrote", "--server client.link"),
        ("try everything on this machine, without a server", "--server loopback:"),
        (
            "let a home network use the port",
            "--server client.link --socks :1080 --from 192.168.0.0/16",
        ),
    )

    def _variables(self) -> Mapping[str, str]:
        """With socktopus' own variables as the one that means the same."""
        sides = socktopus_sides(self._environ)
        return {variable_of("udp"): sides, **self._environ} if sides else self._environ


class ServerOptions(RoleOptions[ServerSettings]):
    """What C{twistd stripe-server} takes."""

    role = "stripe-server"
    kind = ServerSettings
    about = "The reachable end: accepts striped sessions, reaches the targets they ask for."
    examples = (
        ("accept peers on port 8443; the first start writes client.link", ""),
        ("name the address that links lead to", "--listen 443 --advertise vps.example.org"),
        ("reach one private host, and nothing else", "--allow 192.168.1.5:22"),
    )


class AgentOptions(RoleOptions[AgentSettings]):
    """What C{twistd stripe-agent} takes."""

    role = "stripe-agent"
    kind = AgentSettings
    about = "An exit that dials a server, from behind NAT or as one of many, to be used through it."
    examples = (
        (
            "let clients of a server into this network",
            "--server agent.link --name attic --allow lan --allow localhost",
        ),
        ("be one exit of many", "--server agent.link --allow internet --label site=berlin"),
        (
            "reach one machine, and dial from two network cards",
            "--server agent.link --allow 192.168.1.5:22 "
            "--path direct,nic=wlan0 --path direct,nic=wwan0",
        ),
    )


def open_closed_streams() -> None:
    """
    Give the standard streams that are closed somewhere to go.

    Otherwise what is printed would raise, and a socket could take their number and be
    written to in their place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # In this order each takes the lowest number that is free: its own.
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _elsewhere(kind: type) -> dict[str, str]:
    """The options that a command has not, and the first command that has them."""
    own = options_of(kind)
    return {
        name: command
        for command, other in reversed(_COMMANDS.items())
        for name in options_of(other)
        if name not in own
    }
