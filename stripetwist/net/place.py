"""One of the K places of a dialer: a connection, or the wait for the next."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, cast

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.errors import Code, OpenRefused, ProxyRefused
from stripetwist.core.handshake import DialerHandshake, Established, Intent, late_reject
from stripetwist.core.hello import Rejected
from stripetwist.net import sockets, tls
from stripetwist.net.dial_errors import (
    card_sentence,
    rejection_sentence,
    role_sentence,
)
from stripetwist.net.driver import SessionDriver
from stripetwist.net.redial import Redial
from stripetwist.net.subflow import SubflowProtocol
from stripetwist.net.tunnel import TunnelFactory

if TYPE_CHECKING:
    from stripetwist.net.dialer import Dialer
    from stripetwist.net.path import Path

_NO_BINDING = bytes(32)


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

    Has one look-up, one connect or one connection at a time, and one timer at most; after
    C{stop} it tells C{Dialer.left} once it has none of these.

    @ivar path: the way that it dials.
    @ivar subflow: the connection, from its TCP on.
    @ivar address: where it leads.
    @ivar last_id: the subflow that is here, or was here last in this session; the next one that
        comes here replaces it.
    @ivar deaths: how many connections that worked were lost here.
    @ivar is_stopped: whether it dials no more.
    """

    log = Logger()

    def __init__(self, dialer: "Dialer", path: "Path", redial: Redial) -> None:
        self._dialer = dialer
        self.path = path
        self._redial = redial
        self.subflow: SubflowProtocol | None = None
        self.address: IPv4Address | IPv6Address | None = None
        self.last_id = 0
        self.deaths = 0
        self._timer: IDelayedCall | None = None
        self._finding: Deferred[IPv4Address | IPv6Address] | None = None
        self._connector: IConnector | None = None
        self._secured = False
        self._handshake: DialerHandshake | None = None
        self._intent: Intent | None = None
        self._asked_at = 0.0
        self._driver: SessionDriver | None = None
        self._up_since: float | None = None
        self._failures = 0
        self._down_since: float | None = None
        self._sentence: str | None = None
        self._refused = False
        self.is_stopped = False

    # ---- the wait

    def dial_after(self, delay: float) -> None:
        """Dial in a while."""
        if not self.is_stopped:
            self._set_timer(delay, self.dial)

    def dial_now(self) -> None:
        """Dial at once, if it only waits."""
        if self._timer is not None and self.is_waiting:
            self.dial_after(0)

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing of it but the wait for the next dial."""
        return not (self._finding or self._connector or self.subflow)

    @property
    def is_up(self) -> bool:
        """Whether its connection belongs to the session."""
        return self._up_since is not None

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

    # ---- the connect

    def dial(self) -> None:
        """Dial now, if the dialer has a turn for us; else when it has."""
        if self.is_stopped or not self._dialer.may_dial(self):
            return
        self._sentence = None
        self._refused = self._secured = False
        self._finding = finding = self.path.find_address()
        finding.addCallback(self._connect).addErrback(self._not_dialed)

    def _connect(self, address: IPv4Address | IPv6Address) -> None:
        self._finding = None
        dialer, path = self._dialer, self.path
        self.address = address
        factory: Any = _Dial(self)
        if dialer.creator is not None:
            factory = tls.TLSFactory(dialer.creator, factory, dialer.clock)
        if (dialogue := path.dialogue()) is not None:
            time = dialer.limits.dial_timeout
            factory = TunnelFactory(factory, dialogue, dialer.clock, time, self.not_connected)
        timeout = self._redial.connect_timeout(self._failures, dialer.is_alive())
        source = (path.way.bind, 0) if path.way.bind else None
        self._connector = connector = dialer.reactor.connectTCP(
            str(address), path.port, factory, timeout=timeout, bindAddress=source
        )
        # The socket exists before its SYN is sent; some options have to be set that early.
        sock = getattr(getattr(connector, "transport", None), "socket", None)
        if sock is None:
            return
        sockets.prepare(sock, dialer.ground.pace)
        try:
            sockets.use_card(sock, path.way.nic)
        except OSError as error:
            self._sentence = card_sentence(error, path.where, path.way.nic)
            connector.disconnect()

    def _not_dialed(self, failure: Failure) -> None:
        self._finding = None
        why = "for a reason that the log of this program tells"
        if isinstance(failure.value, OpenRefused):
            why = failure.value.sentence.replace("the exit's", "this machine's")
        elif not failure.check(CancelledError):
            self.log.failure("a dial failed", failure)
        self._failed(f"{self.path.first_stop} was not found: {why}")

    def not_connected(self, reason: Failure) -> None:
        """The connect failed, or came no further than to a proxy."""
        self._connector = None
        if isinstance(reason.value, ProxyRefused):
            self._refused = reason.value.lasting
        self._failed(self._sentence or self.path.why_not(reason))

    def connected(self) -> SubflowProtocol:
        """TCP is up, through the proxy if there is one: make its protocol."""
        dialer = self._dialer
        self._connector = None
        by_proxy = self.path.way.is_by_proxy
        self.subflow = SubflowProtocol(self, dialer.clock, dialer.limits, by_proxy)
        self._set_timer(dialer.limits.tls_timeout, self._too_late)
        return self.subflow

    def _too_late(self) -> None:
        where = self.path.where
        self._give_up(f"{where} takes connections but does not answer: is it stripe-server?")

    def _give_up(self, sentence: str, refused: bool = False) -> None:
        """End the connection; C{lost} goes on from there."""
        self._sentence = sentence
        self._refused = refused
        if self.subflow is not None:
            self.subflow.abort()

    # ---- the hello

    def secured(self, subflow: SubflowProtocol) -> None:
        """TLS is up: make sure who the server is, before a byte of ours leaves."""
        self._cancel_timer()
        self._secured = True
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
        assert subflow is not None
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
        if self._handshake is None or self._intent is None or self.subflow is None:
            where = self.path.where
            self._give_up(f"{where} let us not in: it talks before it is asked", refused=True)
            return
        try:
            result = self._handshake.feed(data)
        except Rejected as error:
            self._rejected(error, self._intent)
            return
        if result is not None:
            self._prove(self.subflow, *result)

    def _prove(self, subflow: SubflowProtocol, confirm: bytes, who: Established) -> None:
        dialer = self._dialer
        self._cancel_timer()
        self._handshake = None
        subflow.send(confirm)
        self._up_since = now = dialer.clock.seconds()
        self._driver = dialer.established(self, who, now - self._asked_at)
        if self._driver is None:
            self._up_since = None
            self._give_up("")
            return
        self.last_id = who.subflow_id
        subflow.start(self._driver, who.subflow_id, expects_answer=True)

    def is_last_word(self, data: bytes) -> bool | None:
        """Whether the server answers our proof with a rejection."""
        rejected, may_be = late_reject(data)
        if rejected is None or self._intent is None:
            return None if may_be else False
        self._up_since = None
        if self._intent.join is None and self._driver is not None:
            self._dialer.not_let_in(self._driver, rejected)
        self._rejected(rejected, self._intent)
        if rejected.code is Code.AUTH and self._intent.join is None:
            # It has proved that it knows our key, and so does not mind that but our role.
            self._sentence = role_sentence(self._intent.role, self._dialer.link.address)
        return True

    def _rejected(self, error: Rejected, intent: Intent) -> None:
        # Whoever goes away comes back soon, and a session is opened anew at once; of anything
        # else we would only hear it again.
        if error.code is Code.BUSY and self._dialer.strength.is_enough():
            self._give_up("")
            return
        mends = error.code in (Code.GOING_AWAY, Code.UNKNOWN_SESSION)
        # The path does not matter: the server would say the same on any other.
        sentence = rejection_sentence(error, self._dialer.link.address)
        self._give_up(sentence, refused=not mends)
        if error.code is Code.UNKNOWN_SESSION:
            self._dialer.unknown_session(intent.join)

    # ---- afterwards

    def lost(self, subflow: SubflowProtocol, reason: Failure) -> None:
        """The connection is gone: dial again, when it is time."""
        up_since, now = self._up_since, self._dialer.clock.seconds()
        self.subflow = self._handshake = self._driver = self._up_since = None
        self._cancel_timer()
        if up_since is None:
            # What TLS could not agree on twice it will not in a second either; once, it may
            # have been something on the way that speaks for a server that is not there.
            self._refused |= isinstance(reason.value, SSL.Error) and self._failures > 0
            self._failed(self._why(reason))
            return
        self.deaths += not self.is_stopped
        worked = now - up_since >= self._dialer.limits.active_after
        self._dialer.place_lost(self.path, up_since if worked else None)
        # One that has a substitute leaves the way to that.
        self.is_stopped |= self.path.is_replaced(self)
        if self.is_stopped:
            self._dialer.left(self)
        elif worked:
            self._failures, self._down_since = 0, None
            self.dial_after(self._redial.after_loss())
        else:
            self._pause()

    def _why(self, reason: Failure) -> str:
        """Why a connection was lost before it carried anything; nothing if that is known."""
        if self._sentence is not None:
            return self._sentence
        where = self.path.where
        if self._secured:
            return f"{where} closed the connection instead of letting us in; see its log"
        return tls.tls_sentence(cast(BaseException, reason.value), where)

    def _failed(self, sentence: str) -> None:
        self._dialer.done_dialing(self)
        if self.is_stopped:
            self._dialer.left(self)
            return
        self.path.failed(sentence)
        self._dialer.failed(sentence, self.path)
        self._pause()

    def _pause(self) -> None:
        now = self._dialer.clock.seconds()
        if self._down_since is None:
            self._down_since = now
        if self._refused:
            pause = self._redial.after_refusal()
        else:
            down_for, outage = now - self._down_since, self._dialer.outage()
            pause = self._redial.after_failure(self._failures, down_for, outage)
        self._failures += 1
        self.dial_after(pause)

    # ---- the end

    def leave(self) -> None:
        """Dial no more, and end what there is once all that is on its way has arrived."""
        if self._driver is None or self._up_since is None:
            self.stop()
            return
        self.is_stopped = True
        self._driver.drain(self.last_id)
        self._set_timer(self._dialer.limits.leave_after, self.stop)

    def stop(self) -> None:
        """Dial no more, and end what there is."""
        self.is_stopped = True
        self._cancel_timer()
        if self._finding is not None:
            self._finding.cancel()
        elif self.subflow is not None:
            self.subflow.retire()
        elif self._connector is not None:
            self._connector.disconnect()
        else:
            self._dialer.left(self)
