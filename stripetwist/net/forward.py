"""A forwarded port: every connection to it leads to one target."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import KIB, Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.target import OpenRequest, Target, refusal_line
from stripetwist.net import relay
from stripetwist.net.guests import Guests
from stripetwist.net.opener import Opener
from stripetwist.net.relay import Parked
from stripetwist.net.sockets import is_broken

# What a program may say before its target has answered.
MAX_EARLY = 16 * KIB


@implementer(IHalfCloseableProtocol)
class ForwardProtocol(Protocol):
    """
    One connection of a forwarded port, until its target has answered.

    Then its transport is coupled with the target's and this object only stands for the
    connection among the guests.  Until then it reads on, so that a program that leaves is
    noticed, but keeps no more than L{MAX_EARLY}.  A target that is not reached is a reset.
    """

    _log = Logger()

    def __init__(self, front: "ForwardFactory") -> None:
        self._front = front
        self._early = b""
        self._eof = False
        self._is_opening = True
        self._dial: Deferred[Any] | None = None

    # ---- what Twisted tells us

    def connectionMade(self) -> None:
        """Ask for the target."""
        front = self._front
        self._near = cast(Any, self.transport)
        self._usual_size = self._near.bufferSize
        self._near.bufferSize = min(MAX_EARLY, self._usual_size)
        front.guests.came(self)
        self._timer = front.clock.callLater(front.limits.reply_timeout, self._no_answer)
        request = OpenRequest(front.target, exit=front.exit)
        self._dial = dial = maybeDeferred(front.opener.open, request)
        dial.addCallbacks(self._opened, self._failed)
        dial.addErrback(self._broke)

    def dataReceived(self, data: bytes) -> None:
        """Keep it for the target."""
        self._early += data
        room = MAX_EARLY - len(self._early)
        if room > 0:
            self._near.bufferSize = min(room, self._usual_size)
        else:
            self._near.pauseProducing()

    def readConnectionLost(self) -> None:
        """The program has said all; it may still want an answer."""
        if is_broken(self._near):
            self._near.abortConnection()
        self._eof = True

    def writeConnectionLost(self) -> None:
        """We have not closed it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits any more."""
        self._give_up()
        self._front.guests.went(self)

    # ---- the target

    def _opened(self, far: Any) -> None:
        if not self._is_opening:
            far.abortConnection()
            return
        self._settled()
        self._front.opened += 1
        try:
            self._hand_over(far)
        except Exception:
            far.abortConnection()
            raise

    def _hand_over(self, far: Any) -> None:
        front, near = self._front, self._near
        near.bufferSize = self._usual_size
        near.protocol = parked = Parked()
        parked.makeConnection(near)
        coupling = front.couple(
            near,
            far,
            early=self._early,
            early_eof=self._eof,
            clock=front.clock,
            limits=front.limits,
        )
        self._early = b""
        front.guests.coupled(self, coupling)

    def _failed(self, failure: Failure) -> None:
        if not self._is_opening:
            return
        failure.trap(OpenRefused)
        error = cast(OpenRefused, failure.value)
        self._refuse(error.code, printable(error.sentence))

    def _no_answer(self) -> None:
        limit = self._front.limits.reply_timeout
        self._refuse(Code.TIMEOUT, f"{self._front.target} has not answered within {limit:g} s")

    def _refuse(self, code: Code, sentence: str) -> None:
        self._front.refused[code] += 1
        self._log.info("{line}", line=refusal_line(sentence))
        self.abort()

    def _broke(self, failure: Failure) -> None:
        self._log.failure("a forwarded port failed at a connection", failure)
        self.abort()
        self._front.guests.went(self)

    # ---- the end

    def abort(self) -> None:
        """Close now; if coupled, it is for the relay to pass that on."""
        self._give_up()
        self._near.abortConnection()

    def _give_up(self) -> None:
        if self._is_opening:
            self._settled()
            if self._dial is not None:
                self._dial.cancel()

    def _settled(self) -> None:
        self._is_opening = False
        if self._timer.active():
            self._timer.cancel()


@dataclass(eq=False, repr=False)
class ForwardFactory(Factory):
    """
    A forwarded port's settings and its counters.

    @ivar opener: reaches the target.
    @ivar target: where every connection leads.
    @ivar guests: the connections, and who may come.
    @ivar exit: which exit to ask the opener for.
    @ivar couple: L{stripetwist.net.relay.couple}, or what stands for it in a test.
    @ivar opened: how often the target has answered.
    @ivar refused: resets instead, by reason.
    """

    noisy = False

    opener: Opener
    target: Target
    clock: IReactorTime
    limits: Limits
    guests: Guests = field(default_factory=Guests)
    exit: str = ""
    couple: Callable[..., object] = field(default_factory=lambda: cast(Any, relay).couple)
    opened: int = field(default=0, init=False)
    refused: Counter[Code] = field(default_factory=Counter, init=False)

    def buildProtocol(self, addr: IAddress | None) -> ForwardProtocol | None:
        """A protocol for a program; C{None}, which closes it, for one that may not be here."""
        return ForwardProtocol(self) if self.guests.may_come(addr) else None
