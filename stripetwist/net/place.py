"""One of the K places of a dialer: a connection, or the wait for the next."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.handshake import DialerHandshake, Established, Intent, parse_late_reject
from stripetwist.core.hello import Rejected
from stripetwist.net import sockets, tls
from stripetwist.net.subflow import SubflowProtocol

if TYPE_CHECKING:
    from stripetwist.net.dialer import Dialer

_NO_BINDING = bytes(32)
_FIRST_CONNECTS = (1.0, 2.0)
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Redial:
    """
    When a place is dialed again, and how long a connect may take.

    @ivar chance: a number from 0 to 1, new each time: dialers must not march in step.
    """

    limits: Limits
    chance: Callable[[], float]

    def after_loss(self) -> float:
        """The pause after a connection that had worked for a while."""
        return self.chance() * _JITTER

    def after_failure(self, failures: int, others_live: bool, outage: float) -> float:
        """The pause after a dial that came to nothing; C{failures} counts them in a row."""
        limits = self.limits
        if others_live and failures * limits.redial_alive < limits.outage_early:
            return limits.redial_alive
        if outage < limits.outage_early:
            most = min(limits.redial_most, limits.redial_first * 2.0 ** min(failures, 30))
            return self.chance() * most
        return limits.redial_late

    def connect_timeout(self, failures: int, others_live: bool) -> float:
        """How long to wait for a connect: the kernel repeats a SYN after 1, 3 and 7 s only."""
        if others_live:
            return self.limits.dial_timeout_alive
        if failures < len(_FIRST_CONNECTS):
            return _FIRST_CONNECTS[failures]
        return self.limits.dial_timeout


class _Dial(ClientFactory[SubflowProtocol]):
    """One attempt to connect."""

    noisy = False

    def __init__(self, place: "Place") -> None:
        self._place = place

    def buildProtocol(self, addr: IAddress | None) -> SubflowProtocol:
        """The place's next connection."""
        return self._place.connected()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There is none."""
        self._place.not_connected(reason)


class Place:
    """
    One of the K places of a dialer: a connection, or the wait for the next.

    Lives as long as the dialer.  Has one connection, one timer or one look-up at a time.

    @ivar subflow: the connection, from its TCP on.
    @ivar address: where it leads.
    @ivar replaces: the subflow that was here last, if the session still lives.
    @ivar deaths: how many connections that worked were lost here.
    """

    def __init__(self, dialer: "Dialer", redial: Redial) -> None:
        self._dialer = dialer
        self._redial = redial
        self.subflow: SubflowProtocol | None = None
        self.address: IPv4Address | IPv6Address | None = None
        self.replaces = 0
        self.deaths = 0
        self._handshake: DialerHandshake | None = None
        self._intent: Intent | None = None
        self._timer: IDelayedCall | None = None
        self._finding: Deferred[IPv4Address | IPv6Address] | None = None
        self._connector: IConnector | None = None
        self._failures = 0
        self._up_since: float | None = None
        self._asked_at = 0.0
        self._sentence = ""
        self._refused = False
        self._stopped = False

    # ---- dialing

    def dial_after(self, delay: float) -> None:
        """Dial in a while."""
        if not self._stopped:
            self._set_timer(delay, self.dial)

    def _set_timer(self, delay: float, call: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self._dialer.clock.callLater(delay, self._timer_fired, call)

    def _timer_fired(self, call: Callable[[], None]) -> None:
        self._timer = None
        call()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def dial(self) -> None:
        """Dial now, if the dialer has a turn for us; else when it has."""
        if self._stopped or not self._dialer.may_dial(self):
            return
        self._sentence = ""
        self._refused = False
        self._finding = self._dialer.find_address()
        self._finding.addCallbacks(self._connect, self._not_found)

    def _not_found(self, failure: Failure) -> None:
        self._finding = None
        if failure.check(CancelledError) and self._stopped:
            self._over()
            return
        value = failure.value
        sentence = value.sentence if isinstance(value, OpenRefused) else str(value)
        self._failed(f"the server {self._dialer.link.address} was not found: {sentence}")

    def _connect(self, address: IPv4Address | IPv6Address) -> None:
        self._finding = None
        dialer = self._dialer
        if self._stopped:
            self._over()
            return
        self.address = address
        factory: Any = _Dial(self)
        if dialer.creator is not None:
            factory = tls.TLSFactory(dialer.creator, factory, dialer.clock)
        timeout = self._redial.connect_timeout(self._failures, dialer.is_alive())
        self._connector = dialer.reactor.connectTCP(
            str(address), dialer.link.port, factory, timeout=timeout
        )
        # The socket exists before its SYN is sent; some options have to be set that early.
        sock = getattr(getattr(self._connector, "transport", None), "socket", None)
        if sock is not None:
            sockets.prepare(sock)

    def not_connected(self, reason: Failure) -> None:
        """The connect failed."""
        self._connector = None
        where = self._dialer.link.address
        if reason.check(ConnectionRefusedError):
            sentence = f"{where} refuses connections: start the server there, or check the port"
        elif reason.check(TimeoutError):
            sentence = f"{where} does not answer: check the address, and its firewall"
        else:
            sentence = f"{where} cannot be reached: {reason.getErrorMessage()}"
        self._failed(sentence)

    # ---- the hello

    def connected(self) -> SubflowProtocol:
        """TCP is up: make its protocol."""
        dialer = self._dialer
        self._connector = None
        self.subflow = SubflowProtocol(self, dialer.clock, dialer.limits)
        self._set_timer(dialer.limits.tls_timeout, self._too_late)
        return self.subflow

    def _too_late(self) -> None:
        self._give_up(f"{self._dialer.link.address} accepts connections but does not answer")

    def _give_up(self, sentence: str, refused: bool = False) -> None:
        self._sentence = sentence
        self._refused |= refused
        if self.subflow is not None:
            self.subflow.abort()

    def secured(self, subflow: SubflowProtocol) -> None:
        """TLS is up: make sure who the server is, before a byte of ours leaves."""
        self._cancel_timer()
        if subflow.is_tls:
            try:
                tls.verify_peer(subflow.transport.getHandle(), self._dialer.link)
            except tls.PeerRejected as error:
                self._give_up(error.sentence, refused=True)
                return
        self._dialer.ready(self)

    def greet(self, intent: Intent) -> None:
        """Say who we are and what this connection is for."""
        subflow, dialer = self.subflow, self._dialer
        if subflow is None:
            return
        plain = not subflow.is_tls
        binding = _NO_BINDING if plain else tls.exporter(subflow.transport.getHandle())
        self._intent = intent
        self._handshake = DialerHandshake(
            intent, binding, dialer.limits, dialer.ground.entropy, plain
        )
        self._asked_at = dialer.clock.seconds()
        self._set_timer(dialer.limits.proof_timeout, self._too_late)
        subflow.send(self._handshake.hello)

    def greeted(self, data: bytes) -> None:
        """The answer comes."""
        if self._handshake is None or self.subflow is None:
            self._give_up(f"{self._dialer.link.address} talks out of turn", refused=True)
            return
        try:
            result = self._handshake.feed(data)
        except Rejected as error:
            self._rejected(error)
            return
        if result is not None:
            self._prove(self.subflow, *result)

    def _prove(self, subflow: SubflowProtocol, confirm: bytes, who: Established) -> None:
        dialer = self._dialer
        self._cancel_timer()
        self._handshake = None
        subflow.send(confirm)
        rtt = dialer.clock.seconds() - self._asked_at
        try:
            driver = dialer.established(self, who, rtt)
        except ProtocolError:
            driver = None
        if driver is None or self._intent is None:
            self._give_up("")
            return
        self._up_since = dialer.clock.seconds()
        self.replaces = self._intent.subflow_id
        subflow.start(driver, self._intent.subflow_id, expects_answer=True)

    def _rejected(self, error: Rejected) -> None:
        where = self._dialer.link.address
        if error.code is Code.UNKNOWN_SESSION:
            self._give_up("")
            self._dialer.unknown_session()
        elif error.code is Code.AUTH:
            self._give_up(
                f"{where} does not accept the key of this link: it was revoked or has expired, "
                "or the link is another server's; get a new link",
                refused=True,
            )
        elif error.code is Code.VERSION:
            self._give_up(f"{where} cannot be talked to: {error.reason}", refused=True)
        else:
            self._give_up(f"{where} let us not in: {error.reason}")

    def is_last_word(self, data: bytes) -> bool:
        """Whether the server answers our proof with a rejection."""
        rejected = parse_late_reject(data)
        if rejected is None:
            return False
        self._up_since = None
        self._rejected(rejected)
        return True

    # ---- afterwards

    def lost(self, subflow: SubflowProtocol, reason: Failure) -> None:
        """The connection is gone: dial again, when it is time."""
        if subflow is not self.subflow:
            return
        was_up, now = self._up_since, self._dialer.clock.seconds()
        in_tls = self._handshake is None and was_up is None
        self.subflow = None
        self._handshake = None
        self._up_since = None
        self._cancel_timer()
        if was_up is None:
            sentence = self._sentence
            if not sentence and in_tls and self._dialer.creator is not None and not self._stopped:
                sentence = tls.tls_sentence(
                    cast(BaseException, reason.value), self._dialer.link.address
                )
            self._failed(sentence)
            return
        self.deaths += 1
        self._dialer.place_changed()
        if self._stopped:
            self._over()
        elif now - was_up >= self._dialer.limits.active_after:
            self._failures = 0
            self.dial_after(self._redial.after_loss())
        else:
            self._pause()

    def _failed(self, sentence: str) -> None:
        self._dialer.done_dialing(self)
        self._dialer.failed(sentence)
        if self._stopped:
            self._over()
        else:
            self._pause()

    def _pause(self) -> None:
        dialer = self._dialer
        if self._refused:
            pause = dialer.limits.redial_refused
        else:
            pause = self._redial.after_failure(self._failures, dialer.is_alive(), dialer.outage())
        self._failures += 1
        self.dial_after(pause)

    # ---- the end

    def stop(self) -> bool:
        """Dial no more; whether something has yet to end, told by C{Dialer.left}."""
        self._stopped = True
        self._cancel_timer()
        if self._finding is not None:
            self._finding.cancel()
            return self._finding is not None
        if self.subflow is not None:
            self.subflow.close()
            return True
        if self._connector is not None:
            self._connector.disconnect()
            return self._connector is not None
        return False

    def _over(self) -> None:
        self._dialer.left(self)

    @property
    def is_up(self) -> bool:
        """Whether it carries frames."""
        return self._up_since is not None
