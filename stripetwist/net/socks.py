"""The proxy port: SOCKS and HTTP clients in front of an opener."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import ip_address
from typing import Any, cast
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from stripetwist.core.config import Limits
from stripetwist.core.dialogues import AnyDialogue, dialogue_for, unserved
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.socks5 import (
    Associate,
    Connect,
    Dialogue,
    Event,
    Login,
    NotSocks,
    Refuse,
    Say,
    bound_reply,
)
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target, refusal_line
from stripetwist.core.zones import plain
from stripetwist.net import relay
from stripetwist.net.association import Association
from stripetwist.net.guests import Guests
from stripetwist.net.opener import Opener
from stripetwist.net.refusals import Refusals
from stripetwist.net.relay import Parked
from stripetwist.net.sockets import is_broken
from stripetwist.net.socks_udp import UdpDoor, UdpRelay

Couple = Callable[..., object]

# How long a refused client may go on talking, so that our close is no reset.
LINGER = 1.0


class Checker(Interface):
    """Says whether a login is right."""

    def check(self, user: bytes, password: bytes) -> Deferred[bool]:
        """Fires with the verdict; cancelled when the client has gone."""


class _Stage(Enum):
    TALKING = auto()
    OPENING = auto()
    COUPLED = auto()
    RELAYING = auto()
    LEAVING = auto()
    GONE = auto()


_KEEPING = frozenset({_Stage.TALKING, _Stage.OPENING})


@implementer(IHalfCloseableProtocol)
class SocksProtocol(Protocol):
    """
    One client of the proxy port, until its target has answered.

    Then its transport is coupled with the target's and this object only stands for the
    connection in the factory.  Until then it reads on, so that a client that leaves is
    noticed, but keeps no more than a dialogue's bound.  It waits for one thing at a time
    (a login check, then the open) under one timer.
    """

    _log = Logger()

    def __init__(self, front: "SocksFactory") -> None:
        self._front = front
        self._dialogue: AnyDialogue = Dialogue()
        self._is_silent = True
        self._stage = _Stage.TALKING
        self._eof = False
        self._paused = False
        self._pending: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._source: str | None = None
        self._relay: UdpRelay | None = None

    # ---- what Twisted tells us

    def connectionMade(self) -> None:
        """The time for the whole request starts now, whatever comes."""
        # TCP and Unix transports have more than their interface says, bufferSize for one.
        self._near = cast(Any, self.transport)
        self._usual_size = self._near.bufferSize
        self._front.guests.came(self)
        self._arm(self._front.limits.socks_timeout, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Feed the dialogue; whoever is on the way out is not listened to."""
        if self._is_silent:
            self._is_silent = False
            front = self._front
            self._dialogue = dialogue_for(data[0], front.users is not None, front.udp is not None)
        if self._stage in _KEEPING:
            self._dialogue.received(data)
            self._advance()

    def readConnectionLost(self) -> None:
        """The client has said all; it may still want the answer."""
        if is_broken(self._near):
            self._near.abortConnection()
            return
        self._eof = True
        if self._stage in (_Stage.LEAVING, _Stage.RELAYING):
            self._near.loseConnection()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """Our half is closed; what the client still says is thrown away."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits any more: no timer, no check, no dial may stay behind."""
        self._stage = _Stage.GONE
        self._disarm()
        self._front.guests.went(self)
        self._give_up()
        self._end_relay()

    # ---- the dialogue

    def _advance(self) -> None:
        while (event := self._dialogue.next_event()) is not None:
            self._handle(event)
        if self._stage is _Stage.TALKING and self._eof and self._dialogue.is_listening:
            self._drop()
        elif self._stage in _KEEPING:
            self._bound_reading()

    def _handle(self, event: Event) -> None:
        match event:
            case Say(data):
                self._near.write(data)
            case Login(user, password):
                self._check(user, password)
            case Connect(target):
                self._open(target)
            case Associate(port):
                self._associate(port)
            case Refuse():
                self._refuse(event)
            case NotSocks(first):
                self._front.wrong_protocol += 1
                self._log.info("not served: {why}", why=unserved(first))
                self._drop()

    def _bound_reading(self) -> None:
        room = self._dialogue.room
        if room == 0:
            self._paused = True
            self._near.pauseProducing()
            return
        # One read takes what still fits, not more.
        self._near.bufferSize = min(room, self._usual_size)
        self._read_on()

    def _read_on(self) -> None:
        if self._paused:
            self._paused = False
            self._near.resumeProducing()

    def _too_slow(self) -> None:
        self._timer = None
        self._front.timed_out += 1
        self._log.debug("no whole request within {limit} s", limit=self._front.limits.socks_timeout)
        self._drop()

    # ---- the login

    def _check(self, user: bytes, password: bytes) -> None:
        users = cast(Checker, self._front.users)
        # Kept before anything is added: what fires at once goes on to the open.
        self._pending = verdict = maybeDeferred(users.check, user, password)
        verdict.addErrback(self._no_verdict)
        verdict.addCallback(self._checked)
        verdict.addErrback(self._broke)

    def _no_verdict(self, failure: Failure) -> bool:
        if self._stage is _Stage.TALKING:
            self._log_own_error("a login could not be checked", failure)
        return False

    def _checked(self, right: bool) -> None:
        if self._stage is _Stage.TALKING:
            self._handle(self._dialogue.login_checked(right is True))
            self._advance()

    # ---- the open

    def _open(self, target: Target) -> None:
        front = self._front
        self._stage = _Stage.OPENING
        self._arm(front.limits.reply_timeout, self._no_answer)
        self._log.debug("open {target}", target=str(target))
        # A page's answer begins with the target's own words: there nothing can be said ahead.
        at_once = front.optimistic and bool(self._dialogue.success)
        if at_once:
            self._near.write(self._dialogue.success)
        request = OpenRequest(target, exit=front.exit, at_once=at_once)
        self._pending = dial = maybeDeferred(front.opener.open, request)
        dial.addCallbacks(self._opened, self._failed)
        dial.addErrback(self._broke)

    def _opened(self, far: Any) -> None:
        if self._stage is not _Stage.OPENING:
            far.abortConnection()
            return
        self._front.opened += 1
        if not self._front.optimistic:
            self._near.write(self._dialogue.success)
        try:
            self._hand_over(far)
        except Exception:
            far.abortConnection()
            raise

    def _failed(self, failure: Failure) -> None:
        if self._stage is not _Stage.OPENING:
            return
        error = failure.value
        if isinstance(error, OpenRefused):
            self._refuse_open(error.code, printable(error.sentence))
        else:
            self._log_own_error("an open failed", failure)
            self._refuse_open(Code.GENERAL, "an error of our own, see the line before")

    def _no_answer(self) -> None:
        self._timer = None
        limit = self._front.limits.reply_timeout
        self._refuse_open(Code.TIMEOUT, f"no answer within {limit:g} s; see stripetwist status")
        self._give_up()

    def _refuse_open(self, code: Code, sentence: str) -> None:
        refusal = Refuse(self._dialogue.refusal(code, sentence), code, sentence)
        optimistic = self._front.optimistic and self._source is None
        if not (optimistic and self._dialogue.success):
            self._refuse(refusal)
            return
        # It was told otherwise: a reset is the only honest word left.
        self._note(refusal)
        self.abort()

    def _hand_over(self, far: Any) -> None:
        front, near = self._front, self._near
        self._stage = _Stage.COUPLED
        self._disarm()
        early = self._dialogue.take_early()
        near.bufferSize = self._usual_size
        near.protocol = parked = Parked()
        parked.makeConnection(near)
        coupling = front.couple(
            near,
            far,
            early=early,
            early_eof=self._eof,
            sieves=(self._dialogue.keep, self._dialogue.mend),
            clock=front.clock,
            limits=front.limits,
        )
        front.guests.coupled(self, coupling)

    # ---- datagrams

    def _associate(self, port: int) -> None:
        front, source = self._front, self._near.getPeer().host
        self._stage = _Stage.OPENING
        self._arm(front.limits.reply_timeout, self._no_answer)
        try:
            cast(UdpDoor, front.udp).enter(source)
        except OpenRefused as refusal:
            code, sentence = refusal.code, refusal.sentence
            self._refuse(Refuse(self._dialogue.refusal(code, sentence), code, sentence))
            return
        self._source = source
        request = OpenRequest(ANYWHERE, Kind.UDP, exit=front.exit)
        self._pending = making = maybeDeferred(front.opener.associate, request)
        making.addCallback(self._associated, port)
        making.addErrback(self._failed)
        making.addErrback(self._broke)

    def _associated(self, association: Association, port: int) -> None:
        if self._stage is not _Stage.OPENING:
            association.close()
            return
        door = cast(UdpDoor, self._front.udp)
        try:
            self._relay = UdpRelay(door, self._near, port, association, self._drop)
        except OpenRefused:
            association.close()
            raise
        self._stage = _Stage.RELAYING
        self._disarm()
        self._front.opened += 1
        self._front.guests.excuse(self)
        self._near.write(bound_reply(self._relay.bound))
        # Whatever else comes is thrown away; it is the connection's end that counts.
        self._dialogue.take_early()
        self._near.bufferSize = self._usual_size
        self._read_on()
        if self._eof:
            self._drop()

    def _end_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
        source, self._source = self._source, None
        if source is not None:
            cast(UdpDoor, self._front.udp).leave(source)

    # ---- ways out

    def _refuse(self, refusal: Refuse) -> None:
        self._note(refusal)
        self._near.write(refusal.data)
        self._leave()

    def _note(self, refusal: Refuse) -> None:
        self._front.refused[refusal.code] += 1
        # Who guesses passwords is to be found out.
        source = self._source_name() if refusal.code is Code.AUTH else ""
        is_login = source and self._stage is _Stage.TALKING
        if is_login and not self._front.logins.is_news(f"from {source}", refusal.sentence):
            return
        self._log.info("{line}", line=refusal_line(refusal.sentence, source and f" {source}"))

    def _source_name(self) -> str:
        """The client's address; nothing at a Unix socket."""
        host = getattr(self._near.getPeer(), "host", "")
        return str(plain(ip_address(host))) if host else ""

    def _leave(self) -> None:
        """Close so that the last reply arrives: what is still coming must not cause a reset."""
        if self._eof:
            self._drop()
            return
        self._stage = _Stage.LEAVING
        self._arm(LINGER, self._drop)
        self._near.bufferSize = self._usual_size
        self._near.loseWriteConnection()
        self._read_on()

    def _drop(self) -> None:
        """Close without another word; by force if the client does not take what was said."""
        self._stage = _Stage.LEAVING
        self._arm(self._front.limits.close_timeout, self.abort)
        self._give_up()
        self._near.loseConnection()

    def abort(self) -> None:
        """Close now; if coupled, it is for the relay to pass that on."""
        self._stage = _Stage.LEAVING
        self._disarm()
        self._give_up()
        self._near.abortConnection()

    def _give_up(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.cancel()

    def _log_own_error(self, what: str, failure: Failure) -> None:
        self._log.warn(
            "{what}: {kind}: {text}",
            what=what,
            kind=type(failure.value).__name__,
            text=printable(failure.getErrorMessage()),
        )
        self._log.debug("{what}: {trace}", what=what, trace=failure.getTraceback())

    def _broke(self, failure: Failure) -> None:
        self._log.failure("the proxy port failed at a connection", failure)
        self.abort()
        self._front.guests.went(self)

    # ---- the timer

    def _arm(self, delay: float, what: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._front.clock.callLater(delay, what)

    def _disarm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


@dataclass(eq=False, repr=False)
class SocksFactory(Factory):
    """
    A proxy port's settings and its counters.

    @ivar opener: reaches the targets.
    @ivar guests: the connections, and who may come.
    @ivar users: asked for every login; C{None} lets everybody in.
    @ivar optimistic: say connected before it is.
    @ivar exit: which exit to ask the opener for.
    @ivar udp: opens UDP sockets for clients; C{None} where they get none.
    @ivar logins: those that were wrong.
    @ivar couple: L{stripetwist.net.relay.couple}, or what stands for it in a test.
    @ivar opened: targets that answered.
    @ivar refused: replies of failure, by reason.
    @ivar wrong_protocol: connections that began with something else than a proxy's language.
    @ivar timed_out: connections without a whole request in time.
    """

    noisy = False

    opener: Opener
    clock: IReactorTime
    limits: Limits
    guests: Guests = field(default_factory=Guests)
    users: Checker | None = None
    optimistic: bool = False
    exit: str = ""
    udp: UdpDoor | None = None
    couple: Couple = field(default_factory=lambda: cast(Any, relay).couple)
    logins: Refusals = field(init=False)
    opened: int = field(default=0, init=False)
    refused: Counter[Code] = field(default_factory=Counter, init=False)
    wrong_protocol: int = field(default=0, init=False)
    timed_out: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.logins = Refusals(self.clock)

    def buildProtocol(self, addr: IAddress | None) -> SocksProtocol | None:
        """A protocol for a client; C{None}, which closes it, for one that may not be here."""
        return SocksProtocol(self) if self.guests.may_come(addr) else None
