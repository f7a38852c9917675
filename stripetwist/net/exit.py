"""The way out: targets dialed from where this process stands."""

from collections import Counter
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTCP, IReactorTime, ITransport

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import IS_REFUSED, Kind, OpenRequest, shown
from stripetwist.core.zones import Address, plain
from stripetwist.net.association import Association
from stripetwist.net.guard import Guard
from stripetwist.net.race import Race, interleaved
from stripetwist.net.udp_exit import UdpExit


class Resolves(Protocol):
    """What an exit needs of a L{stripetwist.net.resolver.Resolver}."""

    def resolve(self, name: str, asker: str = "") -> Deferred[list[Address]]:
        """The addresses of a name; fails with L{OpenRefused}."""


class DirectExit:
    """
    Reaches the targets that the other side asks for.

    Refuses bad names before any lookup and denied addresses after it, and
    dials the very address that was checked.  Its outcome is the stream's answer.

    @ivar guard: says what may be dialed; its policy may be replaced.
    @ivar udp: its associations.
    @ivar opening: requests under way, lookups included.
    @ivar opened: requests that ended with a connection.
    @ivar denied: requests that a policy forbade, ours or the system's.
    @ivar failed: requests that ended otherwise, the cancelled ones not counted.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        resolver: Resolves,
        guard: Guard,
        limits: Limits,
    ) -> None:
        self.guard = guard
        self._reactor = reactor
        self._clock = clock
        self._resolver = resolver
        self._limits = limits
        self.udp = UdpExit(reactor, clock, self._allowed_addresses, limits)
        self._opening_by_key: Counter[str] = Counter()
        self.opening = self.opened = self.denied = self.failed = 0

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """
        Connect to a target; see L{stripetwist.net.opener.Opener}.

        @return: fails with L{OpenRefused}.
        """
        refusal = self._turned_away(request)
        if refusal is not None:
            self.failed += 1
            return fail(refusal)
        return Deferred.fromCoroutine(self._open(request))

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """
        Bind a UDP socket; see L{Associator<stripetwist.net.association.Associator>}.

        @return: fails with L{OpenRefused}.
        """
        return Deferred.fromCoroutine(self._associate(request))

    async def _associate(self, request: OpenRequest) -> Association:
        try:
            return await self.udp.associate(request, await self._binds(request))
        except OpenRefused as refusal:
            self._note(refusal)
            raise

    async def _binds(self, request: OpenRequest) -> list[Address]:
        """The addresses of where the far end is to be bound."""
        if request.bind is None:
            return []
        why = self.guard.refusal_of_bind(request)
        if why is not None:
            raise request.refused(Code.NOT_ALLOWED, why)
        host = request.bind.host
        if isinstance(host, str):
            return await self._resolver.resolve(host, request.key_id)
        return [plain(host)]

    def _turned_away(self, request: OpenRequest) -> OpenRefused | None:
        """What speaks against even beginning; each key has a share of its own."""
        if request.kind is not Kind.TCP:
            return request.refused(Code.BAD_KIND, "this exit opens TCP connections only")
        others = self._opening_by_key[request.key_id]
        if others >= self._limits.max_opening:
            why = f"{others} others are being dialed there already; try again"
            return request.refused(Code.OVERLOAD, why)
        return None

    async def _open(self, request: OpenRequest) -> ITransport:
        self._count(request, 1)
        try:
            addresses = interleaved(await self._allowed_addresses(request))
            transport = await Race(
                self._reactor, self._clock, self._limits, request.target, addresses
            ).run()
        except OpenRefused as refusal:
            self._note(refusal)
            raise
        finally:
            self._count(request, -1)
        self.opened += 1
        return transport

    def _note(self, refusal: OpenRefused) -> None:
        if refusal.code is Code.NOT_ALLOWED:
            self.denied += 1
        else:
            self.failed += 1

    def _count(self, request: OpenRequest, change: int) -> None:
        self.opening += change
        self._opening_by_key[request.key_id] += change
        if not self._opening_by_key[request.key_id]:
            del self._opening_by_key[request.key_id]

    def counters(self) -> dict[str, object]:
        """For a snapshot."""
        return {
            "opening": self.opening,
            "reached": self.opened,
            "denied": self.denied,
            "failed": self.failed,
            **self.udp.snapshot(),
        }

    async def _allowed_addresses(self, request: OpenRequest) -> list[Address]:
        """The addresses of the target, less those that may not be dialed."""
        host = request.target.host
        if not isinstance(host, str):
            why = self.guard.refusal_of_address(plain(host), request)
            if why is not None:
                raise request.refused(Code.NOT_ALLOWED, why)
            return [plain(host)]
        why = self.guard.refusal_of_name(host, request)
        if why is not None:
            raise request.refused(Code.NOT_ALLOWED, why)
        addresses = await self._resolver.resolve(host, request.key_id)
        answers = {each: self.guard.refusal_of_address(each, request) for each in addresses}
        allowed = [each for each, why in answers.items() if why is None]
        if not allowed:
            address, why = next(iter(answers.items()))
            where = f"{shown(request.target)} ({address})"
            raise OpenRefused(Code.NOT_ALLOWED, f"{where}{IS_REFUSED}{why}")
        return allowed
