"""Files that nobody else may read or replace; every way to open one is safe to try."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from stripetwist.core.errors import StripetwistError, printable

MAX_FILE = 1024 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# Why a file must not be used, and what to do about it.
Complaint = tuple[str, str]
Check = Callable[[os.stat_result], Complaint | None]


class StartupError(StripetwistError):
    """A process cannot start, or cannot use a file: one sentence for whoever runs it."""


def shown(path: Path) -> str:
    """A path as it may stand in a sentence."""
    return printable(str(path), 200)


def refusal(what: str, path: Path, complaint: Complaint) -> StartupError:
    """The sentence about a file or folder: what is wrong, which one, what to do."""
    problem, remedy = complaint
    return StartupError(f"the {what} {problem}: {shown(path)}; {remedy}")


def failure(what: str, doing: str, path: Path, error: OSError) -> StartupError:
    """The sentence about what the system refused."""
    reason = error.strerror or "unknown error"
    return StartupError(f"the {what} cannot be {doing} ({reason}): {shown(path)}")


def private_complaint(status: os.stat_result, uid: int) -> Complaint | None:
    """
    What keeps a file from being a secret of this user.

    Files of root are trusted; root may use those of others.
    """
    if uid not in (0, status.st_uid) and status.st_uid != 0:
        return "belongs to another user", "use a file of your own"
    if status.st_mode & _OTHERS:
        return "is open to other users", "run chmod 600 on it, and replace it if they had access"
    return None


def _only_mine(status: os.stat_result) -> Complaint | None:
    return private_complaint(status, os.geteuid())


def read_file(
    path: Path,
    what: str,
    limit: int = MAX_FILE,
    check: Check | None = None,
    follow: bool = True,
) -> bytes:
    """
    The content of a regular file.

    Whatever else stands there is refused without waiting for it, and all checks are made
    on the open file, so that nobody can change it in between.

    @param what: how sentences call it: "key file".
    @param check: what else to ask of the file's owner and mode.
    @param follow: whether a symbolic link will do.
    @raise StartupError: it is missing, not a file, too large or not as C{check} wants it.
    """
    # Without O_NONBLOCK the open of a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        raise _unopened(path, what, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise refusal(what, path, ("is no regular file", "name a file"))
        complaint = check(status) if check else None
        if complaint:
            raise refusal(what, path, complaint)
        return _read(fd, path, what, limit)
    finally:
        os.close(fd)


def _unopened(path: Path, what: str, error: OSError | ValueError) -> StartupError:
    """Why a file did not open."""
    if isinstance(error, FileNotFoundError):
        return StartupError(f"the {what} does not exist; check its name: {shown(path)}")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return refusal(what, path, ("is a symbolic link", "name the file itself"))
    if isinstance(error, ValueError):
        return StartupError(f"the {what} has an impossible name: {shown(path)}")
    return failure(what, "opened", path, error)


def _read(fd: int, path: Path, what: str, limit: int) -> bytes:
    """All of an open file, up to the limit."""
    pieces = []
    left = limit + 1
    try:
        while left and (piece := os.read(fd, left)):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise failure(what, "read", path, error) from None
    if not left:
        raise refusal(what, path, (f"is larger than {limit // 1024} KiB", "name another"))
    return b"".join(pieces)


def read_private(path: Path, what: str = "file") -> bytes:
    """
    The content of a file that only this user can read.

    @raise StartupError: it is missing, a link, no file, too large, another user's, or open
        to others.
    """
    return read_file(path, what, check=_only_mine, follow=False)


def write_private(path: Path, data: bytes) -> None:
    """
    Put a file in place, all of it or nothing, readable by this user only.

    What stood there before, even a link, is replaced and not written through.

    @raise StartupError: the system would not.
    """
    fresh = path.with_name(f".{path.name}.{token_hex(8)}.new")
    try:
        _write_new(fresh, data)
        os.replace(fresh, path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise failure("file", "written", path, error) from None


def _write_new(path: Path, data: bytes) -> None:
    """A file that did not exist, on the disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        # The umask can take bits away, even ours.
        os.fchmod(fd, 0o600)
        file.write(data)
        file.flush()
        os.fsync(fd)


def _flush_folder(path: Path) -> None:
    """Make a rename last through a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def take_lock(path: Path) -> int | None:
    """
    Lock a file, which is made for it, until the descriptor is closed.

    The lock outlives a fork: a process that becomes a daemon keeps it.

    @return: the descriptor; C{None} if somebody else has the lock.
    @raise StartupError: the system knows no locks there.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise failure("lock", "made", path, error) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        raise failure("lock", "taken", path, error) from None
    return fd


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """What changes whenever the file does; C{None} while there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
