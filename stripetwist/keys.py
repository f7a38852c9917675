"""C{stripetwist key}: the keys of a server, and their links."""

import argparse
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from stripetwist.command_line import Parser, Verbs, add_state, find
from stripetwist.core.errors import printable
from stripetwist.core.link import UNKNOWN_HOST
from stripetwist.net.files import StartupError, shown
from stripetwist.net.keyfile import Key, nearest_key, parse_expiry
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
from stripetwist.net.state import StateDirectory
from stripetwist.sources import show, variable_of


def key(words: list[str]) -> int:
    """Do what the next word says."""
    if words[:1] in ([], ["--help"], ["-h"]):
        print("Usage: stripetwist key add|show|revoke|list [...]; each has its own --help")
        return 0 if words else 1
    return find(words[0], _VERBS, "stripetwist key")(words[1:])


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
            near = nearest_key(name, keys)
            hint = f"did you mean {near}?" if near else "stripetwist key list shows them"
            raise StartupError(f"there is no key {show(name)}; {hint}")
        return keys[name]


def _parser(verb: str, about: str, has_name: bool = True) -> Parser:
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


def _add(words: list[str]) -> int:
    parser = _parser("add", "Make a key, and a file with its link, which is a password.")
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


def _show(words: list[str]) -> int:
    options = _parser("show", "Print a key's link, which is a password.").parse_args(words)
    keys = _Keys(options)
    print(link_of(keys.find(options.name), own_link(keys.folder)).format())
    return 0


def _revoke(words: list[str]) -> int:
    options = _parser("revoke", "Forget a key.").parse_args(words)
    keys = _Keys(options)
    keys.find(options.name)
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
        added = "NAME --agent" if name == "agent" else "NAME"
        return f"{name}.link opens nothing now; stripetwist key add {added} makes a link"
    return f"{name}.link is now the link of {holder}"


def _list(words: list[str]) -> int:
    options = _parser("list", "Show the keys.", has_name=False).parse_args(words)
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


_VERBS: Verbs = {
    "add": _add,
    "show": _show,
    "revoke": _revoke,
    "list": _list,
}
