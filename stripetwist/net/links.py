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
    Write the server's own links, and anew those of keys that were added.

    A role's own link stays the one of its key; with that gone it is one of a key that was made
    at a first start, as the name says, or opens nothing, but still says where the server is.
    It never becomes the link of somebody who was given another file.

    @param like: where the server is, and how to know it.
    """
    nobody = replace(like, key_id=NOBODY, secret=bytes(32))
    for role in OWN_LINKS:
        there = os.path.lexists(link_path(folder, role))
        key = _own_key(folder, role, [key for key in keys if key.role == role])
        if key is not None or there:
            write_link(folder, role, nobody if key is None else link_of(key, like))
    for key in keys:
        if link_path(folder, key.id).exists():
            write_link(folder, key.id, link_of(key, like))


def _own_key(folder: Path, role: str, keys: Sequence[Key]) -> Key | None:
    """Whose link the own one of a role is to be."""
    if not os.path.lexists(link_path(folder, role)):
        return next(iter(keys), None)
    holder = holder_of(folder, role)
    heirs = (key for key in keys if key.id.startswith(role))
    return next((key for key in keys if key.id == holder), next(heirs, None))


def holder_of(folder: Path, name: str) -> str:
    """The key that a link is of; empty where no link can be read."""
    path = link_path(folder, name)
    try:
        return _parse(read_private(path, "link file"), path).key_id
    except StartupError:
        return ""


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
