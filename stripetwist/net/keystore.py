"""Who may dial in, as what, and how far: the keys of a server, and links from files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from secrets import token_bytes

from twisted.logger import Logger

from stripetwist.core.errors import printable
from stripetwist.core.link import SECRET_SIZE, Link
from stripetwist.net.files import (
    Complaint,
    StartupError,
    file_stamp,
    read_file,
    read_private,
    shown,
    take_lock,
    write_private,
)
from stripetwist.net.keyfile import (
    ANY,
    ROLES,
    Key,
    dump_keys,
    key_complaint,
    nearest_key,
    read_keys,
)

MAX_LINK_FILE = 64 * 1024

_log = Logger()


class KeyStore:
    """
    The keys of a server: a file that may change while we run, or only memory.

    The file as it was last good is what counts; a broken one changes nothing.

    @ivar is_current: whether the file could be used when it was last read.
    """

    def __init__(
        self,
        path: Path | None,
        create: bool = False,
        entropy: Callable[[int], bytes] = token_bytes,
    ) -> None:
        """
        @param path: the file; C{None} for a store that ends with this process.
        @param create: make a missing file, with a first key for clients and one for agents.
        @raise StartupError: the file cannot be used; the sentence says where it is wrong.
        """
        self._path = path
        self._entropy = entropy
        self._stamp: tuple[int, ...] | None = None
        self.is_current = True
        if path is None:
            self._keys = self._first_keys()
        elif create and not os.path.lexists(path):
            self._keys = self._first_keys()
            self._write(path, self._keys)
        else:
            self._keys = self._read(path)
        # What was good at the last look, to tell what ended since.
        self._seen = dict(self._keys)

    def lookup(self, key_id: str, now: datetime) -> Key | None:
        """The key of that id, unless its time is over."""
        key = self._keys.get(key_id)
        return None if key is None or key.is_expired(now) else key

    def is_good(self, key: Key, now: datetime) -> bool:
        """Whether what began with this key may go on: same secret, same role, in time."""
        today = self.lookup(key.id, now)
        return today is not None and (today.secret, today.role) == (key.secret, key.role)

    def keys(self) -> list[Key]:
        """All of them, expired ones too, in order of id."""
        return [self._keys[key_id] for key_id in sorted(self._keys)]

    def add(
        self, name: str, role: str = "client", expires: datetime | None = None, note: str = ""
    ) -> Key:
        """
        Make a key; an agent's is good for the agent name C{name} only.

        @raise StartupError: the name is taken or impossible, or the file cannot be changed.
        """
        names = (name,) if role == "agent" else ANY
        key = Key(name, self._entropy(SECRET_SIZE), role, names, expires=expires, note=note)
        self.insert(key)
        return key

    def insert(self, key: Key) -> None:
        """
        Keep a key that was made elsewhere.

        @raise StartupError: as L{add}.
        """
        complaint = key_complaint(key)
        if complaint:
            raise StartupError(complaint)
        with self._changing() as keys:
            if key.id in keys:
                raise StartupError(f'there is a key "{key.id}" already; revoke it or add another')
            keys[key.id] = key

    def revoke(self, name: str) -> None:
        """
        Forget a key; its sessions end at the next L{reload_if_changed}.

        @raise StartupError: there is none of that name, or the file cannot be changed.
        """
        with self._changing() as keys:
            if name not in keys:
                near = nearest_key(name, keys)
                hint = f", did you mean {near}?" if near else ""
                raise StartupError(f'there is no key "{printable(name, 40)}"{hint}')
            del keys[name]

    def complain_again(self) -> None:
        """Have the next look say once more what is wrong with the file, if it is."""
        if not self.is_current:
            self._stamp = ()

    def reload_if_changed(self, now: datetime) -> set[str]:
        """
        Look at the file again if it is another one; to be called every few seconds.

        A broken file is reported once, in the log, and changes nothing; L{complain_again}
        has it reported once more.

        @return: the ids that were good at the last call and are not now, or have another
            secret or role.
        """
        if self._path is not None and file_stamp(self._path) != self._stamp:
            try:
                self._keys = self._read(self._path)
                self.is_current = True
            except StartupError as error:
                self.is_current = False
                _log.error("keys stay as they were: {sentence}", sentence=str(error))
        good = {key_id: key for key_id, key in self._keys.items() if not key.is_expired(now)}
        ended = {key_id for key_id, key in self._seen.items() if not self.is_good(key, now)}
        self._seen = good
        return ended

    def _first_keys(self) -> dict[str, Key]:
        """What a server starts with: one key for each role, for any agent name."""
        keys = (
            Key(f"{role}-1", self._entropy(SECRET_SIZE), role, note="made at the first start")
            for role in ROLES
        )
        return {key.id: key for key in keys}

    def _read(self, path: Path) -> dict[str, Key]:
        """The keys in the file."""
        # Taken first: a change between the two is then seen the next time.
        self._stamp = file_stamp(path)
        data = read_private(path, "key file")
        try:
            return read_keys(data)
        except ValueError as error:
            problem = str(error)
        raise StartupError(f"the key file is wrong, {problem}; correct it: {shown(path)}")

    def _write(self, path: Path, keys: dict[str, Key]) -> None:
        """Make these the keys of the file."""
        write_private(path, dump_keys(keys.values()).encode("utf-8"))

    def _take(self, keys: dict[str, Key]) -> None:
        """Make these ours; one that is new can end before the next look, and must be told."""
        self._keys = keys
        self._seen = {**keys, **self._seen}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys as they are now, to be changed; written if nothing was raised."""
        if self._path is None:
            keys = dict(self._keys)
            yield keys
            self._take(keys)
            return
        lock = take_lock(self._path.with_name(f".{self._path.name}.lock"))
        if lock is None:
            raise StartupError("the keys are being changed by somebody else; try again")
        try:
            keys = self._read(self._path)
            yield keys
            self._write(self._path, keys)
            self._take(keys)
        finally:
            os.close(lock)


def read_link(path: Path) -> Link:
    """
    The link in a file that holds one.

    @raise StartupError: the file is missing, no file, empty, or what it holds is no link.
    """

    def warn(status: os.stat_result) -> Complaint | None:
        if status.st_mode & 0o077:
            _log.warn(
                "the link file {path} is open to other users; run chmod 600 on it",
                path=shown(path),
            )
        return None

    data = read_file(path, "link file", MAX_LINK_FILE, warn)
    problem = "the link file is empty; copy it again from the server"
    if data.strip():
        try:
            return Link.parse(data.decode("utf-8-sig", "replace"))
        except ValueError as error:
            problem = str(error)
    raise StartupError(f"{problem} (link file {shown(path)})")
