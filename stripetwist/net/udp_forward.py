"""A forwarded UDP port: its datagrams lead to one target, and the answers back."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.association import Association, Associator, share_of
from stripetwist.net.guests import Guests

# Programs that use one port at a time; a resolver is one for each question.
MOST_PROGRAMS = 256

_FULL = (
    "{most} programs, or ports of theirs, send to the UDP port that leads to {target}; each new "
    "one takes the place of the longest idle, so give some of them another --udp port"
)

Source = tuple[str, int]


class _Flow:
    """
    The datagrams of one program, over an association that is made again whenever it is lost.

    @ivar used_at: when the program, or its target, sent something last.
    """

    def __init__(self, front: "UdpForward", source: Source) -> None:
        self._front = front
        self._source = source
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._association: Association | None = None
        self._making: Deferred[Any] | None = None
        self._again: IDelayedCall | None = None
        self._delay = front.limits.association_again
        self._closed = False
        self._answered = self._conversing = False
        self.used_at = front.clock.seconds()
        self._make()

    # ---- the association

    def _make(self) -> None:
        self._again = None
        self._making = making = maybeDeferred(self._front.opener.associate, self._front.request)
        making.addCallbacks(self._made, self._not_made)

    def _made(self, association: Association) -> None:
        self._making = None
        if self._closed:
            association.close()
            return
        self._front.opened += 1
        self._front.told = ""
        self._delay = self._front.limits.association_again
        self._association = association
        association.receiver = self
        self._forget_old()
        while self._waiting and self._association is not None:
            association.send(self._take_oldest(), None)

    def _not_made(self, failure: Failure) -> None:
        self._making = None
        if not self._closed:
            self._front.not_made(failure)
            self._make_again(self._most_delay(failure))

    def _most_delay(self, failure: Failure) -> float:
        """What is forbidden will be so in a moment, too."""
        error, limits = failure.value, self._front.limits
        if isinstance(error, OpenRefused) and error.code is Code.NOT_ALLOWED:
            return limits.association_again_refused
        return limits.association_again_most

    def _make_again(self, most: float) -> None:
        self._delay = min(self._delay, most)
        self._again = self._front.clock.callLater(self._delay, self._make)
        self._delay *= 2

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver<stripetwist.net.association.Receiver>}."""
        self._association = None
        if not self._closed:
            self._make_again(self._front.limits.association_again_most)

    # ---- datagrams

    def send(self, payload: bytes) -> None:
        """The program has sent one; while there is no way the newest wait."""
        self.used_at = self._front.clock.seconds()
        self._conversing = self._answered
        if self._association is not None:
            self._association.send(payload, None)
        else:
            self._keep(payload)

    def _keep(self, payload: bytes) -> None:
        """Have it wait, in the place of the oldest if there are too many."""
        limits = self._front.limits
        self._forget_old()
        while self._waiting and (
            len(self._waiting) >= limits.datagrams
            or self._waiting_bytes + len(payload) > limits.datagram_bytes
        ):
            self._drop_oldest()
        self._waiting.append((self._front.clock.seconds(), payload))
        self._waiting_bytes += len(payload)

    def _forget_old(self) -> None:
        """Drop what its program has long given up."""
        since = self._front.clock.seconds() - self._front.limits.datagram_wait
        while self._waiting and self._waiting[0][0] < since:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._take_oldest()
        self._front.dropped += 1

    def _take_oldest(self) -> bytes:
        payload = self._waiting.popleft()[1]
        self._waiting_bytes -= len(payload)
        return payload

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver<stripetwist.net.association.Receiver>}."""
        self.used_at = self._front.clock.seconds()
        self._answered = True
        self._front.answer(payload, self._source)

    @property
    def is_idle(self) -> bool:
        """Whether nothing came or went for long; of one question and its answer, not so long."""
        limits = self._front.limits
        brief = self._answered and not self._conversing
        most = limits.association_brief if brief else limits.association_idle
        return self._front.clock.seconds() - self.used_at >= most

    def close(self) -> None:
        """End it."""
        self._closed = True
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._making is not None:
            self._making.cancel()
        if self._association is not None:
            self._association.receiver = None
            self._association.close()


@dataclass(eq=False, repr=False)
class UdpForward(DatagramProtocol):
    """
    A forwarded UDP port.

    Each program that sends there has an association of its own, so that answers find their
    way; it ends when it is idle, but for that of the program that came last, or when one more
    program needs its place.  With one fixed program there is one association from the start,
    and it stays.

    @ivar opener: makes the associations.
    @ivar request: what it is asked for.
    @ivar program: the one program's address; C{None} for whoever sends.
    @ivar guests: who may come.
    @ivar opened: how many associations were made.
    @ivar dropped: datagrams of strangers, what waited too long, and what the system did not
        take.
    @ivar told: the last refusal in the log, so that none stands there twice in a row.
    """

    noisy = False

    log = Logger()

    opener: Associator
    request: OpenRequest
    clock: IReactorTime
    limits: Limits
    program: Source | None = None
    guests: Guests = field(default_factory=Guests)
    opened: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    told: str = field(default="", init=False)
    _flows: dict[Source, _Flow] = field(default_factory=dict, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _was_full: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    def start(self) -> None:
        """Make the one program's association, whoever sends first."""
        if self.program is not None:
            self._flows[self.program] = _Flow(self, self.program)
        else:
            self._look_later()

    def stop(self) -> None:
        """End them all."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for flow in self._flows.values():
            flow.close()
        self._flows.clear()

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """A program has sent one."""
        source = (addr[0], addr[1])
        flow = self._flows.get(source) or self._welcome(source)
        if flow is None:
            self.dropped += 1
        else:
            flow.send(data)

    def _welcome(self, source: Source) -> _Flow | None:
        """A program that was not there before, if it may come."""
        if self._stopped or self.program is not None:
            return None
        if not self.guests.may_come(IPv4Address("UDP", *source)):
            return None
        self._make_room(source[0])
        flow = self._flows[source] = _Flow(self, source)
        return flow

    def _make_room(self, host: str) -> None:
        """End what was idle for longest if there are as many as may be, in all or from there."""
        crowd = [source for source in self._flows if source[0] == host]
        most = min(MOST_PROGRAMS, share_of(host, self.limits))
        if len(crowd) < most:
            crowd, most = list(self._flows), MOST_PROGRAMS
        if len(crowd) < most:
            return
        if not self._was_full:
            self._was_full = True
            self.log.warn(_FULL, most=most, target=self.request.target)
        longest = min(crowd, key=lambda source: self._flows[source].used_at)
        self._flows.pop(longest).close()

    def answer(self, payload: bytes, source: Source) -> None:
        """Something has come back for a program."""
        try:
            cast(Any, self.transport).write(payload, source)
        except (OSError, MessageLengthError):
            self.dropped += 1

    def not_made(self, failure: Failure) -> None:
        """There is no association; it will be tried again."""
        error = failure.value
        if not isinstance(error, OpenRefused):
            self.log.failure("a forwarded UDP port failed", failure)
        elif error.sentence != self.told:
            self.told = error.sentence
            self.log.info("not yet: {sentence}", sentence=printable(error.sentence))

    def _look_later(self) -> None:
        self._timer = self.clock.callLater(self.limits.association_brief / 2, self._look)

    def _look(self) -> None:
        """End what is idle; a tunnel's far end may want to speak first, however late."""
        for source in list(self._flows)[:-1]:
            if self._flows[source].is_idle:
                self._flows.pop(source).close()
        self._look_later()
