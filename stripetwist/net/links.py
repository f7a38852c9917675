"""The links that a server has written, and more like them for further keys."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from stripetwist.core.link import UNKNOWN_HOST, Link
from stripetwist.net.files import StartupError, read_private, shown, write_private
from stripetwist.net.keyfile import Key

# What the server itself writes at its start, in its state folder.
OWN_LINKS = ("client", "agent")
NOBODY = "nobody"
# Stands for the word HOST while a link is read that no dialer could use yet.
_NOWHERE = "host.invalid"


def link_path(folder: Path, name: str) -> Path:
    """Where the link of that name is kept."""
    return folder / f"{name}.link"


def write_link(folder: Path, name: str, link: Link) -> Path:
    """
    Keep a link, readable for this user only.

    @return: the file.
    @raise StartupError: the system would not.
    """
    path = link_path(folder, name)
    write_private(path, link.format().encode("ascii") + b"\n")
    return path


def write_own_links(folder: Path, keys: Sequence[Key], like: Link) -> None:
    """
    Write the links of the first keys, and anew those of keys that were added.

    Where no key of a kind is left, its link opens nothing, but still says where the server is.

    @param like: where the server is, and how to know it.
    """
    nobody = replace(like, key_id=NOBODY, secret=bytes(32))
    for role in OWN_LINKS:
        first = next((key for key in keys if key.role == role), None)
        if first is not None or link_path(folder, role).exists():
            write_link(folder, role, nobody if first is None else link_of(first, like))
    for key in keys:
        if link_path(folder, key.id).exists():
            write_link(folder, key.id, link_of(key, like))


def own_link(folder: Path) -> Link:
    """
    A link that the server of a state folder has written: it says where and what it is.

    @raise StartupError: there is none yet, or it is broken.
    """
    for name in OWN_LINKS:
        path = link_path(folder, name)
        if os.path.lexists(path):
            return _parse(read_private(path, "link file"), path)
    raise StartupError(
        f"no server has written a link here yet: {shown(folder)}; "
        "start stripe-server once, or name its state folder with --state"
    )


def _parse(data: bytes, path: Path) -> Link:
    """A link that may still say HOST."""
    text = data.decode("utf-8", "replace")
    known = text.replace(f"@{UNKNOWN_HOST}:", f"@{_NOWHERE}:")
    try:
        link = Link.parse(known)
    except ValueError as error:
        problem = str(error)
    else:
        return link if known == text else replace(link, host=UNKNOWN_HOST)
    raise StartupError(f"{problem} (link file {shown(path)})")


def link_of(key: Key, like: Link) -> Link:
    """The link of a key to the server that another link leads to."""
    return replace(like, key_id=key.id, secret=key.secret)


def forget_link(folder: Path, name: str) -> None:
    """Remove the link of a key that is no more."""
    with suppress(OSError):
        link_path(folder, name).unlink()
