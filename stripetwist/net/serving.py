"""The streams that a peer opens: each target is reached, then coupled with its stream."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import Kind, OpenRequest
from stripetwist.net.association import Association, couple_associations
from stripetwist.net.ground import Ground
from stripetwist.net.opener import Opener
from stripetwist.net.relay import Relay, couple


class Asker(Protocol):
    """
    The session whose peer asks.

    @ivar label: what logs call it.
    """

    label: str

    def accept(self, stream_id: int) -> ITransport:
        """The target has answered: the stream's transport, L{Parked<relay.Parked>}."""

    def accept_association(self, stream_id: int) -> Association:
        """The far end of an association is bound."""

    def refuse(self, stream_id: int, code: Code, sentence: str) -> None:
        """The target will not be reached."""


class Serving:
    """
    Reaches what the peer of a session asks for, on behalf of its key.

    Has at most C{limits.max_opening} targets under way, those counted that are cancelled but
    not yet done; each ends as an answer to the peer.
    """

    log = Logger()

    def __init__(self, asker: Asker, ground: Ground, opener: Opener, key_id: str) -> None:
        self._asker = asker
        self._clock = ground.clock
        self._limits = ground.limits
        self._opener = opener
        self._key_id = key_id
        self._reaching: dict[int, Deferred[Any]] = {}
        self._unwanted: set[int] = set()
        self._relays: set[Relay] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and what was relayed has left this process."""
        return len(self._reaching) == len(self._unwanted) and not self._relays

    def opened(self, stream_id: int, request: OpenRequest) -> None:
        """The peer asks for a target."""
        if len(self._reaching) >= self._limits.max_opening:
            self._asker.refuse(
                stream_id, Code.TOO_MANY_STREAMS, "too many streams are being opened there"
            )
            return
        own = replace(request, key_id=self._key_id)
        reach: Callable[[OpenRequest], Deferred[Any]] = self._opener.open
        reached = self._reached
        if request.kind is Kind.UDP:
            reach, reached = self._opener.associate, self._associated
        self._reaching[stream_id] = reaching = maybeDeferred(reach, own)
        reaching.addCallback(reached, stream_id)
        reaching.addErrback(self._not_reached, stream_id)

    def _associated(self, far: Association, stream_id: int) -> None:
        if self._is_unwanted(stream_id):
            far.close()
        else:
            couple_associations(self._asker.accept_association(stream_id), far)

    def _reached(self, far: Any, stream_id: int) -> None:
        if self._is_unwanted(stream_id):
            far.abortConnection()
            return
        near = self._asker.accept(stream_id)
        relay = couple(near, far, clock=self._clock, limits=self._limits)
        self._relays.add(relay)
        relay.ended.addCallback(lambda _: self._relays.discard(relay))

    def _not_reached(self, failure: Failure, stream_id: int) -> None:
        if not failure.check(OpenRefused, CancelledError):
            self.log.failure("{label}: an open failed", failure, label=self._asker.label)
        if self._is_unwanted(stream_id):
            return
        code, sentence = Code.GENERAL, "it could not be reached, for a reason of the server's"
        if isinstance(failure.value, OpenRefused):
            code, sentence = failure.value.code, failure.value.sentence
        self._asker.refuse(stream_id, code, sentence)

    def _is_unwanted(self, stream_id: int) -> bool:
        """It is done; whether nobody waits for it any more."""
        known = self._reaching.pop(stream_id, None)
        unwanted = stream_id in self._unwanted
        self._unwanted.discard(stream_id)
        return unwanted or known is None

    def lost(self, stream_id: int) -> None:
        """The stream broke: its target is no longer wanted."""
        reaching = self._reaching.get(stream_id)
        if reaching is not None and stream_id not in self._unwanted:
            self._unwanted.add(stream_id)
            reaching.cancel()

    def stop(self) -> None:
        """The session is over: no target is wanted any more."""
        for stream_id in list(self._reaching):
            self.lost(stream_id)
