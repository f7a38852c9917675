"""The server's way out: by the exit that is asked for, and who may ask for it."""

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime, ITransport

from stripetwist.core.agents import ANY, SERVER, owner_of
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.pool import Roster, Selector
from stripetwist.core.target import OpenRequest
from stripetwist.net.association import Association
from stripetwist.net.keyfile import Key
from stripetwist.net.opener import Opener
from stripetwist.net.pool import Pool

T = TypeVar("T")

# So many names fit into a sentence.
_MOST_NAMES = 8


class Router:
    """
    Reaches targets from the server itself, or through the agents that a request names.

    @ivar fallback: reaches what the server's own ports are asked for while no agent can;
        C{None} for nothing.  A peer that names an exit gets that or a refusal.
    """

    def __init__(
        self,
        direct: Opener,
        roster: Roster,
        key_of: Callable[[str], Key | None],
        clock: IReactorTime,
        limits: Limits,
    ) -> None:
        """
        @param direct: reaches targets from here.
        @param key_of: the key of that id, if it is good.
        """
        self.fallback: Opener | None = None
        self._direct = direct
        self._roster = roster
        self._key_of = key_of
        self._clock = clock
        self._limits = limits

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        return self._by(request, lambda way: way.open(request))

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self._by(request, lambda way: way.associate(request))

    def _by(self, request: OpenRequest, ask: Callable[[Opener], Deferred[T]]) -> Deferred[T]:
        """Ask the way out that a request means."""
        try:
            return ask(self._way(request))
        except OpenRefused as refusal:
            return fail(refusal)

    def _way(self, request: OpenRequest) -> Opener:
        """
        The way out that a request means.

        @raise OpenRefused: there is none, or not for that key.
        """
        try:
            selector = Selector.parse(request.exit or SERVER)
        except ValueError as error:
            raise request.refused(Code.NO_WORKER, str(error)) from None
        owner = owner_of(request.target.host)
        if owner and owner != SERVER:
            # It is that machine and no other, whoever else the exit asked for might be.
            if not self._may_be(owner, selector):
                why = f"it is the machine of the agent {owner}, not of exit {selector}"
                raise request.refused(Code.NO_WORKER, why)
            selector = Selector(owner)
        may_ask = self._rights_of(request.key_id)
        if may_ask is None:
            why = "this key was revoked or has expired"
            raise request.refused(Code.NOT_ALLOWED, why)
        if not may_ask(selector.text):
            why = f"this key may not use the exit {selector}; list it in the key's exits there"
            raise request.refused(Code.NOT_ALLOWED, why)
        if selector.is_server:
            return self._direct
        fallback = None if request.key_id or owner else self.fallback
        if fallback is None and not any(map(selector.fits, self._roster.living())):
            why = f"no agent is there for exit {selector}{self._others(may_ask)}"
            raise request.refused(Code.NO_WORKER, why)
        return Pool(self._roster, selector, fallback, self._clock, self._limits)

    def _may_be(self, owner: str, selector: Selector) -> bool:
        """Whether an exit that was asked for, if any was, can be that agent."""
        named = [one for one in self._roster.living() if one.name == owner]
        return selector.is_server or selector.text in (ANY, owner) or any(map(selector.fits, named))

    def _rights_of(self, key_id: str) -> Callable[[str], bool] | None:
        """Which exits that key may use; all for a local user, who has no key."""
        if not key_id:
            return lambda _: True
        key = self._key_of(key_id)
        return None if key is None else key.allows_exit

    def _others(self, may_ask: Callable[[str], bool]) -> str:
        """Which agents there are, as far as the asker may know."""
        names = [one.name for one in self._roster.living() if may_ask(one.name)]
        if not names:
            return ""
        more = ", ..." if len(names) > _MOST_NAMES else ""
        return f"; there is {', '.join(names[:_MOST_NAMES])}{more}"
