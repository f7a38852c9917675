"""The status port: a process seen by HTTP, which changes nothing there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from stripetwist.core.address import Address
from stripetwist.core.config import KIB
from stripetwist.net.guests import Guests
from stripetwist.net.listening import listen
from stripetwist.net.users import Users

MAX_CONNECTIONS = 64
MAX_REQUEST = 8 * KIB
# For a connection, from its first byte to its last.
PATIENCE = 10.0

_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"
_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Page:
    """
    What is answered.

    @ivar more: further headers.
    """

    code: int
    body: str
    kind: str = _TEXT
    more: tuple[tuple[str, str], ...] = ()


class _Request(Request):
    """A request that is whole; whatever it came with is not kept."""

    channel: "_Channel"

    def gotLength(self, length: int | None) -> None:
        """A body is short, or is not read to its end: it needs no file."""
        self.content = BytesIO()

    def process(self) -> None:
        """Have it answered."""
        self.channel.owner.received(self)


class _Channel(HTTPChannel):
    """One connection, for one request; both are limited in size and time as a whole."""

    requestFactory = _Request

    def __init__(self, owner: "StatusFactory") -> None:
        super().__init__()
        self.owner = owner
        self._size = 0

    def connectionMade(self) -> None:
        """The time runs."""
        super().connectionMade()
        # A TCP transport has more than its interface says.
        self._wire = cast(Any, self.transport)
        self.owner.guests.came(self)
        self._deadline = self.owner.clock.callLater(PATIENCE, self.abort)

    def dataReceived(self, data: bytes) -> None:
        """Read it, unless it is too much by now."""
        was_short = self._size <= MAX_REQUEST
        self._size += len(data)
        if self._size <= MAX_REQUEST:
            super().dataReceived(data)
        elif was_short:
            self._wire.write(_TOO_LARGE)
            self.loseConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """It ends with the answer."""
        request.setHeader("Connection", "close")
        return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits for an answer any more."""
        if self._deadline.active():
            self._deadline.cancel()
        self.owner.guests.went(self)
        super().connectionLost(reason)

    def abort(self) -> None:
        """End it now."""
        self._wire.abortConnection()


class StatusFactory(Factory[_Channel]):
    """
    Answers GET and HEAD of C{/status.json} and C{/healthz}.

    Without users it is for this machine, and for names that nobody else can give to it: a
    page from elsewhere cannot have a browser read it.

    @ivar clock: of the time that a connection has.
    @ivar guests: the connections.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        snapshot: Callable[[], object],
        complaint: Callable[[], str],
        users: Users | None = None,
    ) -> None:
        """
        @param snapshot: everything there is to see, JSON-ready.
        @param complaint: why the process cannot do its job, a sentence; empty if it can.
        """
        self.clock = clock
        self._snapshot = snapshot
        self._complaint = complaint
        self._users = users
        self.guests = Guests(MAX_CONNECTIONS)
        self._pages: Mapping[bytes, Callable[[], Page]] = {
            b"/status.json": self._status,
            b"/healthz": self._health,
        }

    def buildProtocol(self, addr: IAddress | None) -> _Channel | None:
        """The next connection, unless there are too many."""
        return _Channel(self) if self.guests.may_come(addr) else None

    # ---- requests

    def received(self, request: Request) -> None:
        """Answer a request, once its user is known."""
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed)
        answering.addCallback(_send, request)
        answering.addErrback(lambda failure: failure.trap(CancelledError))

    async def _answer(self, request: Request) -> Page:
        if not await self._is_let_in(request):
            ask = (("WWW-Authenticate", 'Basic realm="stripetwist", charset="UTF-8"'),)
            return Page(401, "give a user of --status-users, and the password\n", more=ask)
        if self._users is None and not _is_own_host(request.getHeader("Host")):
            return Page(403, "use the address, or localhost, in place of that name\n")
        if request.method not in (b"GET", b"HEAD"):
            return Page(405, "only GET and HEAD are answered\n", more=(("Allow", "GET, HEAD"),))
        page = self._pages.get(request.path)
        return page() if page is not None else Page(404, "there are /status.json and /healthz\n")

    async def _is_let_in(self, request: Request) -> bool:
        if self._users is None:
            return True
        user, password = request.getUser(), request.getPassword()
        return bool(user) and await self._users.check(user, password)

    def _failed(self, failure: Failure) -> Page:
        """What to say of our own mistakes."""
        if failure.check(CancelledError):
            failure.raiseException()
        self.log.failure("a request to the status port failed", failure)
        return Page(500, "that failed here; the log of the running process says why\n")

    # ---- pages

    def _status(self) -> Page:
        return Page(200, json.dumps(self._snapshot(), allow_nan=False) + "\n", _JSON)

    def _health(self) -> Page:
        why = self._complaint()
        return Page(503, f"{why}\n") if why else Page(200, "ok\n")


def _is_own_host(header: str | None) -> bool:
    """Whether a Host header names this machine by an address, or by its own word for itself."""
    if header is None:
        return True
    try:
        host = urlsplit(f"//{header}").hostname or ""
        return host == "localhost" or bool(ip_address(host))
    except ValueError:
        return False


def _send(page: Page, request: Request) -> None:
    body = page.body.encode("utf-8")
    request.setResponseCode(page.code)
    request.setHeader("Content-Type", page.kind)
    request.setHeader("Content-Length", str(len(body)))
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("X-Content-Type-Options", "nosniff")
    for name, value in page.more:
        request.setHeader(name, value)
    request.write(body)
    request.finish()


class StatusPort(Service):
    """
    The port; it listens from the start on, so that one that is taken stops the start.

    @ivar port: where it listens.
    """

    def __init__(self, reactor: Any, address: Address, factory: StatusFactory) -> None:
        """
        @raise stripetwist.net.files.StartupError: the port is taken, or not for us.
        """
        self._factory = factory
        self.port = listen(reactor, address, factory, "--status")

    def stopService(self) -> Deferred[object]:
        """Stop listening and end every connection."""
        super().stopService()
        self._factory.guests.close_all()
        return maybeDeferred(self.port.stopListening)
