"""One connection of a server, from its accept until it has proved a key."""

from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.errors import printable
from stripetwist.core.handshake import AcceptorHandshake, Established
from stripetwist.core.hello import Rejected
from stripetwist.net import tls
from stripetwist.net.subflow import SubflowProtocol

if TYPE_CHECKING:
    from stripetwist.net.acceptor import Acceptor

_NO_BINDING = bytes(32)


class Arrival:
    """
    One connection from its accept until it has proved itself, or not in time.

    Keeps a message at most, and one timer that bytes do not reset.  Whoever is not let in
    gets one line in the log, which says nothing that is secret; those with a key that is
    refused again and again, or not known, get one together, see L{Refusals}.
    """

    log = Logger()

    def __init__(self, acceptor: "Acceptor", source: str) -> None:
        self._acceptor = acceptor
        self._source = source
        self._handshake: AcceptorHandshake | None = None
        self._answered_at = 0.0
        self._done = False
        self._timer: IDelayedCall | None = None
        self.subflow = SubflowProtocol(self, acceptor.clock, acceptor.limits)
        self._set_timer(acceptor.limits.tls_timeout, "no TLS handshake in time")

    # ---- time

    def _set_timer(self, delay: float, reason: str) -> None:
        self._cancel_timer()
        self._timer = self._acceptor.clock.callLater(delay, self._too_late, reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self, reason: str) -> None:
        self._timer = None
        self._refuse(reason)

    # ---- the hello

    def secured(self, subflow: SubflowProtocol) -> None:
        """TLS is up: wait for the hello."""
        acceptor, binding = self._acceptor, _NO_BINDING
        if subflow.is_tls:
            connection = subflow.transport.getHandle()
            try:
                tls.check_protocol(connection)
            except tls.PeerRejected as error:
                self._refuse(error.sentence)
                return
            binding = tls.exporter(connection)
        self._handshake = AcceptorHandshake(
            acceptor.door, binding, acceptor.limits, acceptor.ground.entropy, not subflow.is_tls
        )
        self._set_timer(acceptor.limits.proof_timeout, "no proof of a key in time")

    def greeted(self, data: bytes) -> None:
        """Bytes of the hello came."""
        handshake = self._handshake
        if self._done or handshake is None:
            return
        try:
            reply, established = handshake.feed(data)
        except Rejected as error:
            self._refuse(error.reason, error.reply)
            return
        if reply:
            self._answered_at = self._acceptor.clock.seconds()
            if handshake.offered is not None:
                self._acceptor.door.expect(handshake.offered, handshake.key_id)
            self.subflow.send(reply)
        if established is not None:
            self._admit(established, handshake)

    def _admit(self, established: Established, handshake: AcceptorHandshake) -> None:
        rtt = self._acceptor.clock.seconds() - self._answered_at
        try:
            driver = self._acceptor.admit(self.subflow, established, rtt)
        except Rejected as error:
            who = f'as "{established.key_id}"'
            self._done = not self._acceptor.refusals.is_news(who, error.reason)
            self._refuse(error.reason, handshake.refusal(error.code, error.reason))
            return
        self._done = True
        self._cancel_timer()
        self._acceptor.proved(self)
        self.subflow.start(driver, established.subflow_id)
        if handshake.rest:
            driver.received(established.subflow_id, [handshake.rest])

    def is_last_word(self, data: bytes) -> bool:
        """Only a dialer gets one."""
        return False

    # ---- the end

    def _refuse(self, reason: str, reply: bytes = b"") -> None:
        """Close the connection."""
        self._cancel_timer()
        self._say(reason)
        if reply:
            self.subflow.send(reply)
            self.subflow.close()
        else:
            self.subflow.abort()

    def _say(self, reason: str) -> None:
        if self._done:
            return
        self._done = True
        key_id = self._handshake.key_id if self._handshake is not None else ""
        # Connections that name no key cost whoever makes them next to nothing.
        if not key_id and not self._acceptor.speechless.is_news(f"from {self._source}", reason):
            return
        self.log.info(
            "{source} not let in{as_whom}: {reason}",
            source=self._source,
            as_whom=f' as "{key_id}"' if key_id else "",
            reason=printable(reason),
        )

    def _say_unknown(self, key_id: str) -> None:
        reason = "no key of that name is valid here; see stripetwist key list"
        who = f'as "{key_id}" from {self._source}'
        if not self._done and self._acceptor.strangers.is_news(who, reason):
            self._say(reason)

    def lost(self, subflow: SubflowProtocol, reason: Failure) -> None:
        """The connection is gone."""
        self._cancel_timer()
        if self._handshake is not None and self._handshake.offered is not None:
            self._acceptor.door.expect_no_more(self._handshake.offered)
        self._acceptor.departed(self)
        if self._handshake is None:
            # The advice of that sentence is for whoever dials.
            self._say(tls.tls_sentence(cast(BaseException, reason.value), "it").split(";")[0])
        elif self._handshake.key_id and not self._acceptor.door.knows(self._handshake.key_id):
            self._say_unknown(self._handshake.key_id)
        else:
            self._say("it left without a proof of its key")
