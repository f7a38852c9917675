"""The way out for datagrams: sockets from where this process stands."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code
from stripetwist.core.target import ANYWHERE, OpenRequest, Target
from stripetwist.core.zones import Address
from stripetwist.net.association import Association
from stripetwist.net.udp_association import Allowed, ExitAssociation
from stripetwist.net.udp_port import Bind, bind_udp
from stripetwist.net.udp_waiting import Waiting


class UdpExit:
    """
    Makes associations whose datagrams leave from here.

    @ivar active: how many there are.
    @ivar asker: what the sentence calls whoever has too many.
    @ivar opened: how many there have been.
    @ivar sent: datagrams that left.
    @ivar received: datagrams that came from where some had been sent.
    @ivar denied: datagrams that a policy forbade.
    @ivar dropped: datagrams lost here otherwise: unasked, too large, too old, or with no way.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        allowed: Allowed,
        limits: Limits,
        bind: Bind = bind_udp,
    ) -> None:
        """
        @param allowed: the addresses of a target that may be sent to; raises L{OpenRefused}.
        """
        self.clock = clock
        self.allowed = allowed
        self.limits = limits
        self.asker = "key"
        self._reactor = reactor
        self._bind = bind
        self._of_key: Counter[str] = Counter()
        self._waiting: dict[str, Waiting] = {}
        self._bound: dict[tuple[str, Target], ExitAssociation] = {}
        self.opened = self.sent = self.received = self.denied = self.dropped = 0

    @property
    def active(self) -> int:
        """How many associations there are, those being made included."""
        return self._of_key.total()

    async def associate(self, request: OpenRequest, binds: list[Address]) -> Association:
        """
        Make an association.

        @param binds: where its one socket may be bound; none for anywhere.
        @raise OpenRefused: the target is not allowed, or no socket can be had.
        """
        self._turn_away(request)
        self._of_key[request.key_id] += 1
        association = ExitAssociation(self, request)
        try:
            if request.target != ANYWHERE:
                addresses = await self.allowed(request)
                await self._take_over(request)
                association.fix(addresses, binds)
        # Whatever it is, a wait that was cancelled or forgotten too: its place is free again.
        except BaseException:
            association.close()
            raise
        self.opened += 1
        if request.bind is not None:
            self._bound[request.key_id, request.bind] = association
        return association

    async def _take_over(self, request: OpenRequest) -> None:
        """End the key's older association at that place: most likely its client is gone."""
        place = request.bind
        older = None if place is None else self._bound.pop((request.key_id, place), None)
        if older is not None:
            told = "{place} is taken over by a newer UDP association of the same key, {key_id}"
            self.log.info(told, place=str(place), key_id=request.key_id)
            await older.end()

    def _turn_away(self, request: OpenRequest) -> None:
        others = self._of_key[request.key_id]
        if others >= self.limits.max_associations:
            why = f"{others} UDP associations of this {self.asker} are there already; end one"
            raise request.refused(Code.OVERLOAD, why)
        if request.bind is not None and request.target == ANYWHERE:
            why = "a far end that is bound to a place needs one target"
            raise request.refused(Code.GENERAL, why)

    def bind(self, protocol: DatagramProtocol, host: str, port: int) -> Any:
        """A socket for an association."""
        return self._bind(self._reactor, protocol, host, port)

    def wait(self, key_id: str, lookup: Hashable, payload: bytes) -> None:
        """Keep a datagram until its target is known; a key has a share of its own."""
        waiting = self._waiting.setdefault(key_id, Waiting(self.limits))
        self.dropped += waiting.put(lookup, payload, self.clock.seconds())

    def waited(self, key_id: str, lookup: Hashable) -> list[bytes]:
        """What has waited for that lookup and is still worth something."""
        if key_id not in self._waiting:
            return []
        waiting = self._waiting[key_id]
        taken, old = waiting.take(lookup, self.clock.seconds())
        self.dropped += old
        if not waiting.size:
            del self._waiting[key_id]
        return taken

    def closed(self, association: ExitAssociation, request: OpenRequest) -> None:
        """One is gone."""
        place = request.bind and (request.key_id, request.bind)
        if place and self._bound.get(place) is association:
            del self._bound[place]
        self._of_key[request.key_id] -= 1
        if not self._of_key[request.key_id]:
            del self._of_key[request.key_id]

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        return {
            "udp_active": self.active,
            "udp_opened": self.opened,
            "udp_sent": self.sent,
            "udp_received": self.received,
            "udp_denied": self.denied,
            "udp_dropped": self.dropped,
        }
