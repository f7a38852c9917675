"""The control socket: one JSON object per line, each way, for the user's own commands."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.errors import StripetwistError, printable
from stripetwist.net.asking import COMMAND, MAX_LINE, ControlError, Request, answers
from stripetwist.net.files import StartupError, shown
from stripetwist.net.guests import Guests

MAX_CONNECTIONS = 16
# For a request to arrive, and for a reply to be taken.
IDLE = 30.0

Command = Callable[[Request], object]

_log = Logger()


@implementer(IHalfCloseableProtocol, IPushProducer)
class ControlProtocol(Protocol):
    """
    One connection to the control socket.

    Does one request at a time and takes the next when the reply has left, so that it holds
    a line and a reply at most.
    """

    def __init__(self, factory: "ControlFactory") -> None:
        self._owner = factory
        self._buffer = bytearray()
        self._pending: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._full = False
        self._ended = False
        self._lost = False
        self._advancing = False

    def connectionMade(self) -> None:
        """A request is due from now on."""
        # A Unix transport has more than its interface says.
        self._wire = cast(Any, self.transport)
        self._owner.guests.came(self)
        self._wire.registerProducer(self, True)
        self._arm()

    def dataReceived(self, data: bytes) -> None:
        """Keep it until it makes a line."""
        self._buffer += data
        self._advance()

    def _advance(self) -> None:
        """Do every request that is whole, unless a reply is still due or under way."""
        if self._advancing:
            return
        self._advancing = True
        while self._pending is None and not self._full and self._do_next():
            pass
        self._advancing = False
        if self._ended and self._pending is None and not self._full:
            self._wire.unregisterProducer()
            self._wire.loseConnection()
        elif len(self._buffer) > MAX_LINE:
            self._wire.pauseProducing()
        elif not self._ended:
            self._wire.resumeProducing()

    def _do_next(self) -> bool:
        """Do the next request; C{False} if there is none, or the answer takes its time."""
        line, newline, rest = bytes(self._buffer).partition(b"\n")
        if len(line) > MAX_LINE:
            self._buffer.clear()
            self._ended = True
            self._reply(_refusal(f"a request has at most {MAX_LINE // 1024} KiB"))
            return False
        if not newline:
            return False
        self._buffer[:] = rest
        if line.strip():
            self._do(line)
        return True

    def _do(self, line: bytes) -> None:
        self._disarm()
        self._pending = self._owner.perform(line)
        self._pending.addCallback(self._answered)

    def _answered(self, reply: dict[str, object]) -> None:
        self._pending = None
        if self._lost:
            return
        self._reply(reply)
        self._advance()

    def _reply(self, reply: dict[str, object]) -> None:
        self._arm()
        self._wire.write(_line(reply))

    def _arm(self) -> None:
        self._disarm()
        self._timer = self._owner.clock.callLater(IDLE, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        self._wire.abortConnection()

    def pauseProducing(self) -> None:
        """The peer takes its replies slowly; no further request is done meanwhile."""
        self._full = True

    def resumeProducing(self) -> None:
        """The replies have left."""
        self._full = False
        self._advance()

    def stopProducing(self) -> None:
        """The connection goes down; C{connectionLost} follows."""

    def readConnectionLost(self) -> None:
        """The peer has nothing more to ask, but may wait for its answer."""
        self._ended = True
        self._advance()

    def writeConnectionLost(self) -> None:
        """Nobody reads the replies any more."""
        self._wire.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop what nobody waits for."""
        self._lost = True
        self._disarm()
        self._owner.guests.went(self)
        if self._pending is not None:
            self._pending.cancel()

    def abort(self) -> None:
        """End the connection now."""
        self._wire.abortConnection()


class ControlFactory(Factory):
    """
    What answers at the control socket.

    A command gets the whole request and gives what the reply's C{result} is to be, or a
    Deferred of it; it refuses by raising L{ControlError}.

    @ivar clock: of the time that a request and a reply have.
    @ivar guests: the connections.
    """

    noisy = False

    def __init__(self, commands: Mapping[str, Command], clock: IReactorTime) -> None:
        self._commands = commands
        self.clock = clock
        self.guests = Guests(MAX_CONNECTIONS)

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol | None:
        """The next connection, unless there are too many."""
        return ControlProtocol(self) if self.guests.may_come(addr) else None

    def perform(self, line: bytes) -> Deferred[dict[str, object]]:
        """
        Do what a line asks for.

        @return: fires with the reply, whatever goes wrong.
        """
        try:
            request = _parse(line)
            command = self._find(request)
        except ControlError as error:
            return succeed(_refusal(str(error)))
        name = printable(request["command"], 40)
        doing: Deferred[Any] = maybeDeferred(command, request)
        doing.addTimeout(COMMAND, self.clock)
        doing.addCallback(_success)
        doing.addErrback(_failed, name)
        return doing

    def _find(self, request: Request) -> Command:
        name = request.get("command")
        if not isinstance(name, str):
            raise ControlError('a request says what it wants as "command"')
        if name not in self._commands:
            known = ", ".join(sorted(self._commands))
            raise ControlError(f'unknown command "{printable(name, 40)}"; there are {known}')
        return self._commands[name]


def _parse(line: bytes) -> Request:
    """The request in a line."""
    try:
        request = json.loads(line)
    # Brackets in brackets end in the one, everything else in the other.
    except (ValueError, RecursionError):
        raise ControlError("a request is one line of JSON") from None
    if not isinstance(request, dict):
        raise ControlError("a request is a JSON object")
    return request


def _success(result: object) -> dict[str, object]:
    reply = {"ok": True, "result": result}
    # Whatever cannot be sent is our own mistake, to be found before the reply is.
    _line(reply)
    return reply


def _refusal(sentence: str) -> dict[str, object]:
    return {"ok": False, "error": sentence}


def _failed(failure: Failure, name: str) -> dict[str, object]:
    """The reply to a command that did not go well."""
    if failure.check(StripetwistError):
        return _refusal(str(failure.value))
    if failure.check(DeferredTimeout):
        return _refusal(f"{name} took longer than {COMMAND:g} s and was given up")
    if not failure.check(CancelledError):
        _log.failure("the command {name} failed", failure, name=name)
    return _refusal(f"{name} failed here; the log of the running process says why")


def _line(reply: Mapping[str, object]) -> bytes:
    return json.dumps(reply, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


class ControlService(Service):
    """
    Listens at the control socket for as long as it runs.

    The socket is for this user alone from the moment it is there.
    """

    def __init__(self, reactor: Any, path: Path, factory: ControlFactory) -> None:
        """
        @param reactor: an L{IReactorUNIX}.
        @param path: where the socket will be; the folder is there.
        """
        self._reactor = reactor
        self._path = path
        self._factory = factory
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """
        Listen.

        @raise StartupError: the place is taken, or the system would not.
        """
        _clear(self._path)
        # Nobody may come in between the making of the socket and a chmod.
        umask = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(str(self._path), self._factory, mode=0o600)
        except CannotListenError as error:
            raise StartupError(
                f"the control socket cannot be made ({_why(error)}): {shown(self._path)}"
            ) from None
        finally:
            os.umask(umask)
        super().startService()

    def stopService(self) -> Deferred[object]:
        """Stop listening, remove the socket and end every connection."""
        super().stopService()
        self._factory.guests.close_all()
        port, self._port = self._port, None
        if port is None or not _is_there(self._path):
            return succeed(None)
        return maybeDeferred(port.stopListening)


def _why(error: CannotListenError) -> str:
    """What the system said."""
    return getattr(error.socketError, "strerror", None) or str(error.socketError)


def _is_there(path: Path) -> bool:
    """Whether a socket can be removed; Twisted must find one, and folders in /run come and go."""
    with suppress(OSError):
        path.touch(0o600)
    return os.path.lexists(path)


def _clear(path: Path) -> None:
    """
    Remove what a killed process left behind.

    @raise StartupError: it is no socket, or somebody still answers there.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
        if is_socket and not answers(path):
            path.unlink()
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartupError(
            f"the old control socket cannot be removed ({error.strerror}): {shown(path)}"
        ) from None
    if is_socket:
        raise StartupError(f"another process answers at {shown(path)}; stop it first")
    raise StartupError(
        f"what stands in the control socket's place is no socket: {shown(path)}; remove it"
    )
