"""The command C{stripetwist}: runs the twistd commands, and talks to what runs."""

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

from twisted.application import app
from twisted.application.service import IServiceCollection
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import UnixApplicationRunner

from stripetwist import __version__, foreground
from stripetwist.command_line import Parser, Verbs, add_state, ask_each, find
from stripetwist.core.errors import StripetwistError
from stripetwist.draining import drain
from stripetwist.keys import key
from stripetwist.net.files import StartupError
from stripetwist.net.state import find_control_sockets
from stripetwist.net.userfile import add_user
from stripetwist.options import open_closed_streams
from stripetwist.report import render

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
    return find(words[0], _VERBS, "stripetwist")(words[1:])


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
    sockets = find_control_sockets(os.environ, options.state)
    snapshots, problems = ask_each(sockets, {"command": "status"})
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
_VERBS: Verbs = {
    "client": partial(run_in_foreground, "stripe-client"),
    "server": partial(run_in_foreground, "stripe-server"),
    "agent": partial(run_in_foreground, "stripe-agent"),
    "demo": _demo,
    "bench": _bench,
    "status": _status,
    "drain": drain,
    "key": key,
    "passwd": _passwd,
}
