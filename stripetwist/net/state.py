"""What a role keeps between runs, where, and the way to its control socket."""

import errno
import hashlib
import os
import pwd
import resource
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from stripetwist.net.files import (
    Complaint,
    StartupError,
    failure,
    read_private,
    refusal,
    shown,
    take_lock,
    write_private,
)

ROLES = ("client", "server", "agent")
# The longest path that a Unix socket can be bound to, its last NUL not counted.
MAX_SOCKET_PATH = 107
SYSTEM_STATE = Path("/var/lib/stripetwist")

_LOCK = "lock"
_SOCKET = "control.sock"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def forbid_core_dumps() -> None:
    """Keep secrets in memory from being written to a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def state_base(environ: Mapping[str, str]) -> Path:
    """
    Where state is kept unless C{--state} says otherwise.

    @raise StartupError: nothing tells where this user's files are.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    # The XDG rules have relative paths ignored.
    xdg = environ.get("XDG_STATE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg, "stripetwist")
    return Path(_home(environ), ".local", "state", "stripetwist")


def _home(environ: Mapping[str, str]) -> str:
    """The user's home, also where no shell has set it."""
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return home
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise StartupError("no home directory is known here; name a place with --state") from None


def make_folder(path: Path) -> None:
    """
    Make a folder, and those above it that are missing, for this user only.

    @raise StartupError: the system would not.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):
                folder.mkdir(0o700)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise StartupError(
            f"the state folder cannot be made ({error.strerror}): {shown(path)}; "
            "choose another with --state"
        ) from None


def folder_complaint(status: os.stat_result, uid: int, forbidden: int) -> Complaint | None:
    """What keeps a folder from being safe to keep secrets in."""
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder", "choose another with --state"
    if status.st_mode & forbidden:
        return "can be written to by other users", "run chmod 700 on it"
    if uid not in (0, status.st_uid) and status.st_uid != 0:
        return "belongs to another user", "choose another with --state"
    return None


class StateDirectory:
    """
    What one role keeps between runs, in a folder of its own.

    Used by one process at a time: from C{open} to C{close} it holds the folder's lock.

    @ivar base: the folder of all roles.
    @ivar path: this role's folder in it.
    """

    def __init__(self, base: Path | None, role: str, environ: Mapping[str, str]) -> None:
        """
        @param base: what C{--state} says, if anything.
        @param role: one of L{ROLES}.
        @param environ: the environment.
        """
        # A daemon changes its working directory.
        self.base = (state_base(environ) if base is None else base).absolute()
        self.path = self.base / role
        self._role = role
        self._environ = environ
        self._lock: int | None = None

    def open(self) -> None:
        """
        Make the folder if need be, check it, and lock it.

        @raise StartupError: it cannot be used, or another process uses it.
        """
        make_folder(self.path)
        self._check(self.base, stat.S_IWOTH)
        self._check(self.path, _OTHERS_WRITE)
        self._lock = take_lock(self.path / _LOCK)
        if self._lock is None:
            raise StartupError(
                f"another {self._role} uses this state folder: {shown(self.path)}; "
                "give this one a folder of its own with --state"
            )

    def _check(self, path: Path, forbidden: int) -> None:
        """Refuse a folder in which others could replace what we keep."""
        try:
            complaint = folder_complaint(path.stat(), os.geteuid(), forbidden)
        except OSError as error:
            raise failure("state folder", "opened", path, error) from None
        if complaint:
            raise refusal("state folder", path, complaint)

    def close(self) -> None:
        """Leave the folder to others; the second time nothing happens."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has(self, name: str) -> bool:
        """Whether something of that name was kept."""
        return os.path.lexists(self.path / name)

    def read_private(self, name: str) -> bytes:
        """See L{read_private}."""
        return read_private(self.path / name, "state file")

    def write_private(self, name: str, data: bytes) -> None:
        """See L{write_private}."""
        write_private(self.path / name, data)

    def control_places(self) -> list[Path]:
        """Where this role's control socket may be, best place first."""
        digest = hashlib.sha256(os.path.realpath(self.path).encode("utf-8", "surrogateescape"))
        runtime = runtime_folder(self._environ)
        places = [self.path / _SOCKET]
        if runtime is not None:
            places.insert(0, runtime / f"{self._role}-{digest.hexdigest()[:12]}.sock")
        return [place for place in places if len(os.fsencode(place)) <= MAX_SOCKET_PATH]

    def control_path(self) -> Path:
        """
        Where to listen for C{stripetwist status} and its like; the folder is there after.

        The same before and after a fork, and not the same for two state folders.

        @raise StartupError: every place has too long a path for a socket.
        """
        for place in self.control_places():
            if place.parent == self.path:
                return place
            with suppress(OSError):
                place.parent.mkdir(0o700, exist_ok=True)
                if not folder_complaint(place.parent.stat(), os.geteuid(), _OTHERS_WRITE):
                    return place
        raise StartupError(
            f"the state folder's path is too long for a socket in it: {shown(self.path)}; "
            "choose a shorter one with --state, or set XDG_RUNTIME_DIR"
        )


def runtime_folder(environ: Mapping[str, str]) -> Path | None:
    """Our part of the user's runtime directory; C{None} if there is none, or not this user's."""
    value = environ.get("XDG_RUNTIME_DIR", "")
    if not value.startswith("/"):
        return None
    try:
        status = os.stat(value)
    except (OSError, ValueError):
        return None
    # After sudo it is often still the one of the user before.
    if status.st_uid != os.geteuid() or folder_complaint(status, os.geteuid(), _OTHERS_WRITE):
        return None
    return Path(value, "stripetwist")


def find_control_sockets(
    environ: Mapping[str, str],
    base: Path | None = None,
    system: Path = SYSTEM_STATE,
    roles: Sequence[str] = ROLES,
) -> list[Path]:
    """
    The control sockets of every instance that may be running, dead ones included.

    @param base: what C{--state} says: then only of instances that keep their state there.
    @param system: where the state of system services is.
    @param roles: what they run.
    """
    found: dict[Path, None] = {}
    for place in _socket_candidates(environ, base, system, roles):
        if _is_my_socket(place):
            found[place] = None
    return list(found)


def _socket_candidates(
    environ: Mapping[str, str], base: Path | None, system: Path, roles: Sequence[str]
) -> Iterator[Path]:
    """Every path at which an instance would listen."""
    if base is None:
        runtime = runtime_folder(environ)
        if runtime is not None:
            yield from sorted(one for role in roles for one in runtime.glob(f"{role}-*.sock"))
        with suppress(StartupError):
            yield from _socket_candidates(environ, state_base(environ), system, roles)
        yield from _socket_candidates(environ, system, system, roles)
        return
    for role in roles:
        yield from StateDirectory(base, role, environ).control_places()


def _is_my_socket(path: Path) -> bool:
    """Whether it is a socket that this user, or root, may have made."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISSOCK(status.st_mode) and os.geteuid() in (0, status.st_uid)
