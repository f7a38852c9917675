"""The way out through agents: one is chosen, and another if that one does not reach it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.pool import Roster, Selector, Worker
from stripetwist.core.target import OpenRequest, shown
from stripetwist.net.association import Association
from stripetwist.net.opener import Opener
from stripetwist.net.roaming import RoamingAssociation

# A target that nobody reaches is not for every one of hundreds to dial.
_MOST_TRIES = 8


@dataclass(frozen=True, slots=True)
class _Wish:
    """
    What is wanted of a way out.

    @ivar ask: asks one for it.
    @ivar drop: puts away what came too late.
    """

    ask: Callable[[Any, OpenRequest], Deferred[Any]]
    drop: Callable[[Any], None]


_STREAM = _Wish(lambda way, request: way.open(request), lambda far: far.abortConnection())
_DATAGRAMS = _Wish(lambda way, request: way.associate(request), lambda far: far.close())


class _Ask:
    """
    One worker that is asked for a target.

    A worker that is no longer able, or is counted out, is left as soon as there is somebody
    else to ask; what it may answer yet shows that it lives, and is not used.

    @ivar answer: the target's connection, an association, or why there is none.
    """

    def __init__(
        self, pool: "Pool", wish: _Wish, request: OpenRequest, tried: Sequence[Worker]
    ) -> None:
        """
        @param tried: those that have been asked; the last is the one to ask.
        """
        self._pool = pool
        self._wish = wish
        self._worker = worker = tried[-1]
        self._request = request
        self._tried = tried
        self._since = pool.clock.seconds()
        self._left = False
        self.answer: Deferred[Any] = Deferred(lambda _: self._opening.cancel())
        self._timer = pool.clock.callLater(pool.limits.agent_look, self._look)
        self._opening: Deferred[Any] = maybeDeferred(wish.ask, worker, request)
        # What is refused at once is refused on this side.
        self._asked = not self._opening.called
        self._opening.addBoth(self._answered)

    def _is_its_own(self, result: Any) -> bool:
        """Whether it is the worker's answer: not our own refusal, nor the end of its session."""
        if not isinstance(result, Failure):
            return True
        ended = result.check(CancelledError) or not self._worker.is_able
        return self._asked and not ended

    def _look(self) -> None:
        pool = self._pool
        if self._is_hopeless() and pool.has_more(self._tried, self._request.key_id):
            self._left = True
            left = self._since + pool.limits.open_total - pool.clock.seconds()
            self._timer = pool.clock.callLater(max(0.0, left), self._give_up)
            why = f"the agent {self._worker.name} does not answer; try again"
            sentence = f"{shown(self._request.target)} is not reached: {why}"
            self.answer.errback(OpenRefused(Code.TIMEOUT, sentence))
        else:
            self._timer = pool.clock.callLater(pool.limits.agent_look, self._look)

    def _is_hopeless(self) -> bool:
        roster, now = self._pool.roster, self._pool.clock.seconds()
        return not self._worker.is_able or roster.unanswered(self._worker, self._since, now)

    def _give_up(self) -> None:
        """It has not answered, and will not: nothing is kept for it any more."""
        self._opening.cancel()

    def _answered(self, result: Any) -> None:
        if self._timer.active():
            self._timer.cancel()
        failed = isinstance(result, Failure)
        if self._is_its_own(result):
            self._pool.roster.answered(self._worker, self._pool.clock.seconds())
        if not self._left:
            (self.answer.errback if failed else self.answer.callback)(result)
        elif not failed:
            self._wish.drop(result)


class Pool:
    """
    Has one of several agents reach a target.

    A refusal, or a death before the target has answered, is tried on another, each once and
    for C{limits.connect_total} seconds in all; the last refusal is the one that is told.

    @ivar roster: who there is; shared by all pools of a process.
    @ivar clock: of the workers' time to answer.
    @ivar limits: that time, and others.
    """

    def __init__(
        self,
        roster: Roster,
        selector: Selector,
        fallback: Opener | None,
        clock: IReactorTime,
        limits: Limits,
    ) -> None:
        """
        @param selector: which of them are meant.
        @param fallback: reaches targets while none of these takes streams.
        """
        self.roster = roster
        self.clock = clock
        self._selector = selector
        self._fallback = fallback
        self.limits = limits

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """
        Connect to a target; see L{stripetwist.net.opener.Opener}.

        @return: fails with L{OpenRefused}.
        """
        return Deferred.fromCoroutine(self._open(replace(request, exit="")))

    async def _open(self, request: OpenRequest) -> ITransport:
        far: ITransport = (await self._reach(_STREAM, request))[0]
        return far

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return Deferred.fromCoroutine(self._associate(replace(request, exit="")))

    async def _associate(self, request: OpenRequest) -> Association:
        far, worker = await self._reach(_DATAGRAMS, request)
        return far if worker is None else self._roaming(far, worker, request)

    async def _reach(self, wish: _Wish, request: OpenRequest) -> tuple[Any, Worker | None]:
        """What is wanted, and who gave it; nobody where that was the fallback."""
        until = self.clock.seconds() + self.limits.connect_total
        tried: list[Worker] = []
        refusal: OpenRefused | None = None
        while (
            len(tried) < _MOST_TRIES
            and self.clock.seconds() < until
            and (worker := self._next(tried, request.key_id)) is not None
        ):
            tried.append(worker)
            try:
                return await _Ask(self, wish, request, tried).answer, worker
            except OpenRefused as error:
                refusal = error
        if self._falls_back(request.key_id):
            return await wish.ask(self._fallback, request), None
        raise refusal or self._nobody(request)

    def _roaming(self, far: Association, worker: Worker, request: OpenRequest) -> Association:
        def is_gone() -> bool:
            now = self.clock.seconds()
            is_lost = not worker.is_able or self.roster.is_out(worker, now)
            return is_lost and self.has_more([worker], request.key_id)

        return RoamingAssociation(far, is_gone, self.clock, self.limits.agent_look)

    def _next(self, tried: Sequence[Worker], key_id: str) -> Worker | None:
        # Before nobody is asked, somebody is who may not answer.
        at_worst = self._fallback is None and not tried
        now = self.clock.seconds()
        return self.roster.choose(self._selector, now, tried, key_id, at_worst)

    def has_more(self, tried: Sequence[Worker], key_id: str) -> bool:
        """Whether there is somebody to ask beside those."""
        now = self.clock.seconds()
        return self.roster.has(self._selector, now, tried, key_id) or self._falls_back(key_id)

    def _falls_back(self, key_id: str) -> bool:
        """Whether it is for the fallback to reach targets."""
        now = self.clock.seconds()
        is_there = self._fallback is not None
        return is_there and not self.roster.has(self._selector, now, key_id=key_id)

    def _nobody(self, request: OpenRequest) -> OpenRefused:
        """Why nobody was asked."""
        fitting = [one for one in self.roster.living() if self._selector.fits(one)]
        able = [one for one in fitting if one.is_able]
        if request.key_id and any(one.has_room_for("") for one in able):
            why = f"this key has its share of the streams that exit {self._selector} takes"
            return request.refused(Code.OVERLOAD, f"{why}; end some, or try again")
        if able:
            why = f"the agents of exit {self._selector} have as many streams as they take"
            return request.refused(Code.OVERLOAD, f"{why}; try again")
        if fitting:
            states = " or ".join(sorted({one.state for one in fitting}))
            why = f"exit {self._selector} has only agents that are {states} now"
            advice = "wait for one, or ask for another exit"
            return request.refused(Code.NO_WORKER, f"{why}; {advice}")
        why = f"no agent is there for exit {self._selector}"
        return request.refused(Code.NO_WORKER, f"{why}; start stripe-agent, or wait for it")
