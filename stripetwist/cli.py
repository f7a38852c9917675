"""The command C{stripetwist}: runs the twistd commands, and talks to what runs."""

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from twisted.application import app
from twisted.application.service import IServiceCollection
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import UnixApplicationRunner

from stripetwist import __version__, foreground
from stripetwist.command_line import Parser, add_state
from stripetwist.core.errors import StripetwistError, printable
from stripetwist.core.link import UNKNOWN_HOST
from stripetwist.draining import drain
from stripetwist.net.asking import ControlError, NobodyThereError, ask
from stripetwist.net.files import StartupError, shown
from stripetwist.net.keyfile import Key, parse_expiry
from stripetwist.net.keystore import KeyStore
from stripetwist.net.links import (
    NOBODY,
    OWN_LINKS,
    forget_link,
    holder_of,
    link_of,
    own_link,
    write_link,
    write_own_links,
)
from stripetwist.net.state import StateDirectory, find_control_sockets
from stripetwist.net.users import add_user
from stripetwist.options import open_closed_streams
from stripetwist.report import render
from stripetwist.sources import nearest, show, variable_of

# How long a snapshot may take.
_PATIENCE = 10.0

_HELP = """\
Usage: stripetwist COMMAND [...]

  client ...              run stripe-client in the foreground; client --help lists its options
  server ...              run stripe-server in the foreground; server --help lists its options
  agent ...               run stripe-agent in the foreground; agent --help lists its options
  status [--json]         show every client, server and agent of this user that runs here
  drain NAME              have an agent of the server finish its streams, and go
  demo [--seconds N]      see striping work, on this machine alone: one connection against 16
  bench ...               measure it on the way to your server; bench --help lists its options
  key add NAME [--agent] [--expires DATE]
                          make a key and its link, for one more client or agent of the server
  key show NAME           print a key's link, which is a password
  key revoke NAME         forget a key; its sessions end within seconds
  key list                show the keys, without their secrets
  passwd FILE USER        give a user of the proxy port a password
  --help, --version       print this help, or the version

status, drain and key take --state DIR, key also --keys FILE, as the server does.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Do what the command line asks for.

    @return: the exit code: 0 done, 1 refused, 3 streams were cut at the end.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    open_closed_streams()
    try:
        code = _outcome(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read the output has enough; Python would complain once more at its end.
        _say_no_more()
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        _say_no_more()
        return _refused(f"the output cannot be written: {error.strerror}")


def _outcome(words: list[str]) -> int:
    """The exit code; why it is no good one has been said."""
    try:
        return _do(words)
    except StripetwistError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        return _refused("interrupted")
    except SystemExit as error:
        return _refused(error.code) if isinstance(error.code, str) else error.code or 0


def _say_no_more() -> None:
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _refused(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


def _do(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(_HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"stripetwist {__version__}")
        return 0
    return _find(words[0], _VERBS, "stripetwist")(words[1:])


def _find(word: str, verbs: "_Verbs", before: str) -> "_Verb":
    """What a verb does."""
    if word not in verbs:
        near = nearest(word, verbs)
        hint = f"did you mean {near}?" if near else "stripetwist --help lists what there is"
        raise StartupError(f"{before} knows no command {show(word)}; {hint}")
    return verbs[word]


# ---- client, server, agent


def run_in_foreground(role: str, words: list[str]) -> int:
    """Run a twistd command in the foreground, without a pid file."""
    codes: list[int] = []

    def run_app(config: Any) -> None:
        runner = UnixApplicationRunner(config)
        runner.run()
        # A service that had to cut streams at its end says so.
        services = IServiceCollection(runner.application)
        codes.extend(getattr(service, "exit_code", 0) for service in services)

    # Twisted turns the output into log events; what comes after is for the terminal again.
    before = sys.argv, sys.stdout, sys.stderr
    sys.argv = ["stripetwist", "-n", "--pidfile=", role, *words]
    try:
        app.run(run_app, twistd.ServerOptions)  # type: ignore[attr-defined]
    finally:
        sys.argv, sys.stdout, sys.stderr = before
    return max(codes, default=0)


# ---- demo, bench


# Imported when needed: they bring both ends along, for which status and key need not wait.


def _demo(words: list[str]) -> int:
    from stripetwist import demo

    return _measure(demo.begin, words)


def _bench(words: list[str]) -> int:
    from stripetwist import bench

    return _measure(bench.begin, words)


def _measure(begin: "_Beginning", words: list[str]) -> int:
    """Do what needs a reactor for as long as it takes."""
    work = begin(words, os.environ, sys.stdout)
    from twisted.internet import reactor  # noqa: TID251 - a command's privilege

    foreground.run(reactor, lambda: work(reactor))
    return 0


# ---- status


def _status(words: list[str]) -> int:
    parser = Parser(prog="stripetwist status", description="Show what runs here.")
    parser.add_argument("--json", action="store_true", help="print the snapshots as a JSON list")
    add_state(parser)
    options = parser.parse_args(words)
    snapshots, problems = _snapshots(find_control_sockets(os.environ, options.state))
    if options.json:
        print(json.dumps(snapshots, indent=2))
    else:
        now = time.time()  # noqa: TID251 - what "started" in a snapshot is told by
        print("\n".join(render(one, now) for one in snapshots), end="")
    for sentence in problems:
        print(sentence, file=sys.stderr)
    if not snapshots and not problems:
        raise StartupError("no stripetwist of this user runs here, as far as its sockets tell")
    return 0 if snapshots else 1


def _snapshots(sockets: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """What the running processes say of themselves, and why some do not."""
    found, problems = [], []
    for path in sockets:
        try:
            snapshot = ask(path, {"command": "status"}, _PATIENCE)
        except NobodyThereError:
            continue
        except ControlError as error:
            problems.append(str(error))
            continue
        if isinstance(snapshot, dict):
            found.append(snapshot)
        else:
            problems.append(f"the answer makes no sense: {shown(path)}; is it of another version?")
    return found, problems


# ---- key


def _key(words: list[str]) -> int:
    if words[:1] in ([], ["--help"], ["-h"]):
        print("Usage: stripetwist key add|show|revoke|list [...]; each has its own --help")
        return 0 if words else 1
    return _find(words[0], _KEY_VERBS, "stripetwist key")(words[1:])


class _Keys:
    """
    The keys of a server, as C{--state} and C{--keys} name them.

    @ivar folder: the server's state.
    @ivar store: its keys.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder = StateDirectory(options.state, "server", os.environ).path
        path = options.keys or self.folder / "keys.toml"
        if not os.path.lexists(path):
            raise StartupError(
                f"there is no key file at {shown(path)}; start stripe-server once, which makes "
                "it, or name it with --keys or its folder with --state"
            )
        self.store = KeyStore(path)

    def find(self, name: str) -> Key:
        """The key of that name."""
        listed = self.store.keys()
        keys = {key.id: key for key in listed}
        if name not in keys:
            near = nearest(name, keys)
            hint = f"did you mean {near}?" if near else "stripetwist key list shows them"
            raise StartupError(f"there is no key {show(name)}; {hint}")
        return keys[name]


def _key_parser(verb: str, about: str, has_name: bool = True) -> Parser:
    parser = Parser(prog=f"stripetwist key {verb}", description=about)
    if has_name:
        parser.add_argument("name", metavar="NAME", help="what the key is called")
    add_state(parser)
    given = os.environ.get(variable_of("keys"))
    parser.add_argument(
        "--keys",
        metavar="FILE",
        type=Path,
        default=Path(given) if given else None,
        help="the key file, as the server's",
    )
    return parser


def _key_add(words: list[str]) -> int:
    parser = _key_parser("add", "Make a key, and a file with its link, which is a password.")
    parser.add_argument("--agent", action="store_true", help="for an agent of that name")
    parser.add_argument("--expires", metavar="DATE", help="from when on it is good for nothing")
    options = parser.parse_args(words)
    if options.name in OWN_LINKS:
        raise StartupError(f"{options.name}.link is the server's own; choose another name")
    expires = _expiry(options.expires)
    keys = _Keys(options)
    # Asked first: a key without a link would be of no use.
    like = own_link(keys.folder)
    key = keys.store.add(options.name, "agent" if options.agent else "client", expires)
    link = link_of(key, like)
    print(write_link(keys.folder, key.id, link))
    if link.host == UNKNOWN_HOST:
        print(
            "the link says HOST where the server's address belongs; write it there in your "
            "copy of the link, or start the server with --advertise and see stripetwist key show",
            file=sys.stderr,
        )
    return 0


def _expiry(text: str | None) -> datetime | None:
    """What C{--expires} says."""
    if text is None:
        return None
    moment = parse_expiry(text)
    if moment is None:
        raise StartupError(f"--expires {show(text)}: write a date such as 2030-12-31")
    if moment <= datetime.now(UTC):
        raise StartupError(f"--expires {show(text)}: that is over; write a date to come")
    return moment


def _key_show(words: list[str]) -> int:
    options = _key_parser("show", "Print a key's link, which is a password.").parse_args(words)
    keys = _Keys(options)
    print(link_of(keys.find(options.name), own_link(keys.folder)).format())
    return 0


def _key_revoke(words: list[str]) -> int:
    options = _key_parser("revoke", "Forget a key.").parse_args(words)
    keys = _Keys(options)
    held = [name for name in OWN_LINKS if holder_of(keys.folder, name) == options.name]
    keys.store.revoke(options.name)
    if options.name not in OWN_LINKS:
        forget_link(keys.folder, options.name)
    with suppress(StartupError):
        # Those of a server that has not run yet are not there to be changed.
        write_own_links(keys.folder, keys.store.keys(), own_link(keys.folder))
    print(f"{options.name} is revoked; a running server ends its sessions within seconds")
    for name in held:
        if (holder := holder_of(keys.folder, name)) != options.name:
            print(_now_of(name, holder))
    return 0


def _now_of(name: str, holder: str) -> str:
    """What has become of an own link of the server whose key was revoked."""
    if holder == NOBODY:
        return f"{name}.link opens nothing now; stripetwist key add NAME makes a link"
    return f"{name}.link is now the link of {holder}"


def _key_list(words: list[str]) -> int:
    options = _key_parser("list", "Show the keys.", has_name=False).parse_args(words)
    rows = [("NAME", "ROLE", "EXPIRES", "NOTE")]
    listed = _Keys(options).store.keys()
    for key in listed:
        expires = key.expires.isoformat(" ", "minutes") if key.expires else "never"
        if key.expires and key.expires <= datetime.now(UTC):
            expires += ", over"
        rows.append((key.id, key.role, expires, printable(key.note)))
    for row in rows:
        print("{:<32}  {:<6}  {:<22}  {}".format(*row).rstrip())
    return 0


# ---- passwd


def _passwd(words: list[str]) -> int:
    parser = Parser(
        prog="stripetwist passwd",
        description="Give a user of the proxy port a password, which is asked for.",
    )
    parser.add_argument("file", metavar="FILE", help="the file that --users names")
    parser.add_argument("user", metavar="USER", help="who may come in")
    options = parser.parse_args(words)
    add_user(options.file, options.user, _password())
    return 0


def _password() -> str:
    """A password from the terminal, else a line of the standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("Once more: ")
        except EOFError:
            raise StartupError("no password was given") from None
        if password != again:
            raise StartupError("the two passwords differ; nothing was changed")
        return password
    line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
    if not line:
        raise StartupError("no password came in; write it as a line to the standard input")
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


_Beginning = Callable[
    [Sequence[str], Mapping[str, str], TextIO], Callable[[Any], Coroutine[Any, Any, None]]
]
_Verb = Callable[[list[str]], int]
_Verbs = Mapping[str, _Verb]
_VERBS: _Verbs = {
    "client": partial(run_in_foreground, "stripe-client"),
    "server": partial(run_in_foreground, "stripe-server"),
    "agent": partial(run_in_foreground, "stripe-agent"),
    "demo": _demo,
    "bench": _bench,
    "status": _status,
    "drain": drain,
    "key": _key,
    "passwd": _passwd,
}
_KEY_VERBS: _Verbs = {
    "add": _key_add,
    "show": _key_show,
    "revoke": _key_revoke,
    "list": _key_list,
}
