"""The users of a proxy port, and the slow check of their passwords."""

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from stripetwist.net.userfile import Secret, UsersError, parse_users, read_private

MAX_CHECKS = 2
REMEMBER = 600.0
# The mark of no file.
_NEVER = (0,)

DeferToThread = Callable[..., Deferred[bool]]


class Threads:
    """
    A few threads of our own, for work that would hold up the reactor.

    They start with the first work and end with the reactor, or with C{stop}.  Given to
    L{Users} to be called like C{deferToThread}.

    @param reactor: has C{callFromThread} and C{addSystemEventTrigger}.
    """

    def __init__(self, reactor: Any, count: int = MAX_CHECKS) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, count, "stripetwist-login")
        self._trigger: object = None

    def __call__(self, work: Callable[..., Any], *args: object) -> Deferred[Any]:
        """Do it in a thread; the Deferred fires on the reactor's."""
        if not self._pool.started:
            self._pool.start()
            self._trigger = self._reactor.addSystemEventTrigger(
                "during", "shutdown", self._pool.stop
            )
        return deferToThreadPool(self._reactor, self._pool, work, *args)

    def stop(self) -> None:
        """End the threads, once what they do is done."""
        if self._pool.started:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._pool.stop()


class _Check:
    """One password being checked, and all who wait for the verdict."""

    def __init__(self, key: bytes, secret: Secret, password: bytes) -> None:
        self.key = key
        self.secret = secret
        self.password = password
        self.waiters: dict[Deferred[bool], None] = {}

    def tell(self, verdict: bool) -> None:
        """Answer everybody, also those who come or go meanwhile."""
        while self.waiters:
            waiter = next(iter(self.waiters))
            del self.waiters[waiter]
            waiter.callback(verdict)


class Users:
    """
    Who may use a proxy port.

    A check costs the same for a user who is not there.  At most L{MAX_CHECKS} run at a
    time, the same login twice only once; a right one is known for ten minutes by a hash
    whose key nobody else has.  The file is read again when it has changed; one that
    cannot be used then changes nothing.

    @ivar is_current: whether the file could be used at the last look.
    @param path: the file, which must be readable for its owner only.
    @param defer: calls a function in a thread, as C{deferToThread} does: L{Threads}.
    @raise UsersError: the file cannot be used or names nobody.
    """

    _log = Logger()

    def __init__(
        self, path: str | os.PathLike[str], clock: IReactorTime, defer: DeferToThread
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._defer = defer
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, float] = {}
        self._checks: dict[bytes, _Check] = {}
        self._queue: deque[_Check] = deque()
        self._running = 0
        self._seen: tuple[int, ...] = ()
        self.is_current = True
        self._load()
        if not self._users:
            raise UsersError(
                f"the users file {path} names nobody: stripetwist passwd {path} NAME adds a user"
            )

    def __len__(self) -> int:
        return len(self._users)

    def check(self, user: bytes, password: bytes) -> Deferred[bool]:
        """
        Whether this user has this password.

        @return: fires with the verdict; cancelling it forgets the question.
        """
        self.refresh()
        key = self._digest(user, password)
        if self._known.get(key, 0.0) > self._clock.seconds():
            return succeed(True)
        check = self._checks.get(key)
        if check is None:
            secret = self._users.get(user, self._nobody)
            check = self._checks[key] = _Check(key, secret, password)
            self._queue.append(check)
        waiter: Deferred[bool] = Deferred(lambda left: self._forget(check, left))
        check.waiters[waiter] = None
        self._start()
        return waiter

    def complain_again(self) -> None:
        """Have the next look say once more what is wrong with the file, if it is."""
        if not self.is_current:
            self._seen = _NEVER

    def refresh(self) -> None:
        """Read the file again if it has changed; never fails."""
        try:
            if _mark(os.stat(self._path)) != self._seen:
                self._load()
                self.is_current = True
                count = f"{len(self)} user{'' if len(self) == 1 else 's'}"
                self._log.info("read the users file again: {count}", count=count)
        except OSError as error:
            self.is_current = False
            # Perhaps only between two steps of an editor; what was read holds all the same.
            if self._seen != ():
                self._seen = ()
                why = f"{self._path}: {os.strerror(error.errno or 0).lower()}"
                self._log.error("kept the users as they were: {reason}", reason=why)
        except UsersError as error:
            self.is_current = False
            self._log.error("kept the users as they were: {reason}", reason=str(error))

    def _load(self) -> None:
        try:
            data, status = read_private(self._path)
            self._seen = _mark(status)
            users = parse_users(data, self._path)
        except UsersError:
            self._remember_bad()
            raise
        self._users = users
        self._nobody = Secret.nobody(next(iter(users.values()), None))
        self._known.clear()
        # Those on their way were asked about the old file; their verdict is not kept.
        self._checks.clear()

    def _remember_bad(self) -> None:
        """Complain about one state of the file once."""
        try:
            self._seen = _mark(os.stat(self._path))
        except OSError:
            self._seen = ()

    def _digest(self, user: bytes, password: bytes) -> bytes:
        text = len(user).to_bytes(4, "big") + user + password
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def _forget(self, check: _Check, waiter: Deferred[bool]) -> None:
        check.waiters.pop(waiter, None)

    def _start(self) -> None:
        while self._queue and self._running < MAX_CHECKS:
            check = self._queue.popleft()
            if not check.waiters:
                self._leave(check)
                continue
            self._running += 1
            done = maybeDeferred(self._defer, check.secret.fits, check.password)
            done.addBoth(self._finished, check)

    def _leave(self, check: _Check) -> bool:
        """Take it off the list; C{False} if the file has changed since it came."""
        if self._checks.get(check.key) is not check:
            return False
        del self._checks[check.key]
        return True

    def _finished(self, result: bool | Failure, check: _Check) -> None:
        self._running -= 1
        is_current = self._leave(check)
        if isinstance(result, Failure):
            self._log.error("a password could not be checked: {why}", why=result.getErrorMessage())
        elif result and is_current:
            self._known[check.key] = self._clock.seconds() + REMEMBER
        check.tell(result is True)
        self._start()


def _mark(status: os.stat_result) -> tuple[int, ...]:
    """What differs between two states of a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode
