"""The users file of a proxy port: how it is read, and how a password gets into it."""

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from pathlib import Path

from stripetwist.core.errors import StripetwistError, printable

# One check takes 16 MiB and about 0.2 s of one core.
COST_N, COST_R, COST_P = 2**14, 8, 5
HASH_SIZE, SALT_SIZE = 32, 16
MAX_HASH_MEMORY = 64 * 1024 * 1024
MAX_PARALLEL = 16
MAX_FILE = 1024 * 1024
MAX_FIELD = 255


class UsersError(StripetwistError):
    """The users file cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Secret:
    """
    What is kept of a password: its scrypt hash, and how that was made.

    @ivar n: cost in memory and time, a power of two.
    @ivar r: block size.
    @ivar p: repetitions.
    """

    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def of(cls, password: bytes) -> "Secret":
        """The secret of a new password."""
        blank = cls(COST_N, COST_R, COST_P, secrets.token_bytes(SALT_SIZE), bytes(HASH_SIZE))
        return cls(blank.n, blank.r, blank.p, blank.salt, blank.derive(password))

    @classmethod
    def nobody(cls, like: "Secret | None") -> "Secret":
        """One that no password fits, as costly as another."""
        n, r, p = (like.n, like.r, like.p) if like else (COST_N, COST_R, COST_P)
        return cls(n, r, p, secrets.token_bytes(SALT_SIZE), secrets.token_bytes(HASH_SIZE))

    @classmethod
    def parse(cls, text: str) -> "Secret":
        """
        Read C{scrypt:N:r:p:SALT:HASH}.

        @raise ValueError: malformed, or so costly that it must be a mistake.
        """
        scheme, n, r, p, salt, digest = text.split(":")
        found = cls(int(n), int(r), int(p), _unbase64(salt), _unbase64(digest))
        if scheme != "scrypt" or not found.salt or len(found.hash) < SALT_SIZE:
            raise ValueError("not an scrypt hash")
        if found.n < 2 or found.n & (found.n - 1) or not 0 < found.p <= MAX_PARALLEL:
            raise ValueError("N is no power of two, or p out of range")
        if found.r < 1 or 128 * found.n * found.r > MAX_HASH_MEMORY:
            raise ValueError("N and r out of range")
        return found

    def __str__(self) -> str:
        salt, digest = _base64(self.salt), _base64(self.hash)
        return f"scrypt:{self.n}:{self.r}:{self.p}:{salt}:{digest}"

    def derive(self, password: bytes) -> bytes:
        """The hash of a password, made as this one was; slow on purpose."""
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=self.n,
            r=self.r,
            p=self.p,
            maxmem=2 * MAX_HASH_MEMORY,
            dklen=len(self.hash),
        )

    def fits(self, password: bytes) -> bool:
        """Whether this is the password; slow, to be called in a thread."""
        alike = hmac.compare_digest(self.derive(password), self.hash)
        # HMAC, within scrypt, fills up with NUL: to it a password with one more is the same.
        return alike and not password.endswith(b"\0")


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unbase64(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def read_private(path: Path) -> tuple[bytes, os.stat_result]:
    """
    What a file holds that nobody else may read.

    @raise UsersError: it cannot be read, others may read it, or it is no plain file.
    """
    try:
        # Not blocking, lest a FIFO in its place hold us up for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        remedy = ""
        if isinstance(error, FileNotFoundError):
            remedy = f"; make it with stripetwist passwd {path} USER"
        why = f"cannot read the users file {path}: {error.strerror}{remedy}"
        raise UsersError(why) from None
    try:
        status = os.fstat(handle)
        _refuse_unsafe(path, status)
        with open(handle, "rb", closefd=False) as file:
            return file.read(MAX_FILE), status
    finally:
        os.close(handle)


def _refuse_unsafe(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise UsersError(f"the users file {path} is not a plain file")
    if mode & 0o077:
        raise UsersError(f"others may read the users file {path} (mode {mode:o}): chmod 600 it")
    if os.geteuid() != 0 and status.st_uid not in (0, os.geteuid()):
        raise UsersError(f"the users file {path} belongs to another user (uid {status.st_uid})")
    if status.st_size > MAX_FILE:
        raise UsersError(f"the users file {path} is larger than {MAX_FILE} bytes")


def _is_entry(line: bytes) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(b"#")


def parse_users(data: bytes, path: Path) -> dict[bytes, Secret]:
    """
    The users of a file's text.

    @raise UsersError: a line is malformed; it is named by its number alone.
    """
    users: dict[bytes, Secret] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not _is_entry(line):
            continue
        name, secret = _parse_line(line, f"line {number} of the users file {path}")
        if name in users:
            raise UsersError(f"line {number} of the users file {path} names a user again")
        users[name] = secret
    return users


def _parse_line(line: bytes, where: str) -> tuple[bytes, Secret]:
    name, _, rest = line.strip().partition(b":")
    try:
        if not name:
            raise ValueError("no name")
        return name, Secret.parse(rest.decode("ascii"))
    except ValueError:
        raise UsersError(f"{where} is no user: write it with stripetwist passwd") from None


def add_user(path: str | os.PathLike[str], name: str, password: str) -> None:
    """
    Give a user a password, in a file that is made if it is not there.

    The file is replaced as a whole, so that a reader never sees half of it; what else it
    holds, comments too, stays.

    @raise UsersError: the name, the password or the file cannot be used.
    """
    # What was no text on the command line is taken as the bytes it was.
    user, word = (text.encode("utf-8", "surrogateescape") for text in (name, password))
    if not 0 < len(user) <= MAX_FIELD or not 0 < len(word) <= MAX_FIELD:
        raise UsersError(f"a user name and a password are 1 to {MAX_FIELD} bytes long in SOCKS5")
    if b"\0" in word:
        raise UsersError("a password cannot hold the character NUL")
    if ":" in name or name.startswith("#") or not name.isprintable() or name != name.strip():
        raise UsersError(
            f'"{printable(name, 40)}" cannot be a user name: no colon, no #, '
            "no space around it and no control characters"
        )
    real = Path(os.path.realpath(path))
    data, status = read_private(real) if real.exists() else (b"", None)
    parse_users(data, real)
    line = user + b":" + str(Secret.of(word)).encode("ascii")
    _replace(real, _with_user(data, user, line), status)


def _with_user(data: bytes, user: bytes, line: bytes) -> bytes:
    kept = [
        old
        for old in data.splitlines()
        if not _is_entry(old) or old.strip().partition(b":")[0] != user
    ]
    return b"\n".join([*kept, line, b""])


def _replace(path: Path, data: bytes, old: os.stat_result | None) -> None:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UsersError(f"cannot write into {path.parent}: {error.strerror}") from None
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
            if old is not None and old.st_uid != os.geteuid():
                os.fchown(handle, old.st_uid, old.st_gid)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise UsersError(f"cannot write the users file {path}: {error.strerror}") from None
