"""The way out for datagrams: sockets from where this process stands."""

import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.target import ANYWHERE, OpenRequest, Target
from stripetwist.core.zones import Address, plain
from stripetwist.net.association import Association, Receiver
from stripetwist.net.race import shown
from stripetwist.net.udp_port import MAX_PAYLOAD, Bind, bind_udp
from stripetwist.net.udp_waiting import Waiting

Allowed = Callable[[OpenRequest], Awaitable[list[Address]]]

# Of one association: targets known at a time, how long an answer holds, and a failure; names
# being looked up; after how long a silence its one target is looked up again.
MOST_KNOWN = 1024
KNOWN_FOR = 30.0
FAILED_FOR = 2.0
MOST_LOOKUPS = 16
SILENT_FOR = 60.0

# Another address of the same name may do better.
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_EVERYWHERE = {4: "0.0.0.0", 6: "::"}


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
        others, where = self._of_key[request.key_id], shown(request.target)
        if others >= self.limits.max_associations:
            why = f"{others} UDP associations of this {self.asker} are there already; end one"
            raise OpenRefused(Code.OVERLOAD, f"{where} is refused: {why}")
        if request.bind is not None and request.target == ANYWHERE:
            why = "a far end that is bound to a place needs one target"
            raise OpenRefused(Code.GENERAL, f"{where} is refused: {why}")

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

    def closed(self, association: "ExitAssociation", request: OpenRequest) -> None:
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


class _Socket(DatagramProtocol):
    """The socket of one family."""

    noisy = False

    def __init__(self, association: "ExitAssociation") -> None:
        self._association = association

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """See L{DatagramProtocol}; an IPv6 address has more than two parts."""
        self._association.came(data, plain(ip_address(addr[0].partition("%")[0])), addr[1])


class ExitAssociation:
    """
    One association at the exit; see L{Association}.

    Without a target of its own it has a socket for each family as needed, asks the policy for
    every target, and ends when nothing has come or gone for a while.  With one it has one
    socket, and stays.  What comes from where nothing was sent is dropped.

    @ivar receiver: who gets what comes.
    """

    def __init__(self, owner: UdpExit, request: OpenRequest) -> None:
        self.receiver: Receiver | None = None
        self._owner = owner
        self._request = request
        self._fixed: list[Address] = []
        self._silent_since: float | None = None
        self._sockets: dict[int, Any] = {}
        self._known: dict[Target, tuple[float, list[Address] | None]] = {}
        self._asking: dict[Target, Deferred[list[Address]]] = {}
        self._peers: dict[tuple[Address, int], None] = {}
        self._closed = False
        self._used_at = owner.clock.seconds()
        self._timer: IDelayedCall | None = None
        if request.target == ANYWHERE:
            self._watch(owner.limits.association_idle)

    # ---- one target

    def fix(self, addresses: list[Address], binds: list[Address]) -> None:
        """
        Bind its socket, for a target that was resolved and may be reached.

        @raise OpenRefused: it cannot be bound.
        """
        why = "the exit has no address of that kind to send from"
        for number, address in enumerate(addresses):
            for host in self._hosts(address, binds):
                port = self._request.bind.port if self._request.bind else 0
                try:
                    self._sockets[address.version] = self._owner.bind(_Socket(self), host, port)
                except CannotListenError as error:
                    why = f"{host}:{port} cannot be bound: {printable(str(error.socketError), 60)}"
                    continue
                self._aim_at(addresses[number:])
                return
        where = shown(self._request.target)
        raise OpenRefused(Code.GENERAL, f"{where} is refused: {why}")

    def _aim_at(self, addresses: list[Address]) -> None:
        """Send to these from now on: to the first that there is a way to."""
        self._fixed = [one for one in addresses if self._is_within_reach(one)]
        self._peers = {(self._fixed[0], self._request.target.port): None}

    def _is_within_reach(self, address: Address) -> bool:
        return self._request.bind is None or address.version in self._sockets

    def _look_again(self) -> None:
        """Look up a target of which nothing has come for long: it may have moved."""
        target, now = self._request.target, self._owner.clock.seconds()
        if not isinstance(target.host, str):
            return
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= SILENT_FOR and target not in self._asking:
            self._silent_since = now
            self._asking[target] = answer = Deferred.fromCoroutine(self._allowed(self._request))
            answer.addCallbacks(self._found_again, self._not_found_again)

    def _found_again(self, addresses: list[Address]) -> None:
        del self._asking[self._request.target]
        known = [one for one in addresses if one in self._fixed]
        reached = [one for one in addresses if self._is_within_reach(one)]
        if not self._closed and reached and not known:
            self._aim_at(reached)

    def _not_found_again(self, _failure: Failure) -> None:
        """What was known still has to do."""
        del self._asking[self._request.target]

    def _hosts(self, address: Address, binds: list[Address]) -> list[str]:
        if self._request.bind is None:
            return [_EVERYWHERE[address.version]]
        return [str(one) for one in binds if one.version == address.version]

    # ---- out

    def send(self, payload: bytes, peer: Target | None) -> None:
        """See L{Association.send}."""
        if self._closed:
            return
        self._used_at = self._owner.clock.seconds()
        if self._fixed:
            if peer is None or peer == self._request.target:
                self._look_again()
                self._write(payload, self._fixed, self._request.target.port)
            else:
                self._owner.dropped += 1
        elif peer is None or len(payload) > MAX_PAYLOAD:
            self._owner.dropped += 1
        else:
            self._send_to(payload, peer)

    def _send_to(self, payload: bytes, peer: Target) -> None:
        until, addresses = self._known.get(peer, (0.0, None))
        if self._owner.clock.seconds() >= until:
            self._ask(payload, peer)
        elif addresses is None:
            self._owner.denied += 1
        else:
            self._write(payload, addresses, peer.port)

    def _ask(self, payload: bytes, peer: Target) -> None:
        """Whether a target may be reached, and where it is; what is sent there waits."""
        is_asked = peer in self._asking
        if not is_asked and len(self._asking) >= MOST_LOOKUPS:
            self._owner.dropped += 1
            return
        self._owner.wait(self._request.key_id, (self, peer), payload)
        if is_asked:
            return
        asked = replace(self._request, target=peer, bind=None)
        self._asking[peer] = answer = Deferred.fromCoroutine(self._allowed(asked))
        answer.addCallbacks(partial(self._found, peer), partial(self._not_found, peer))

    async def _allowed(self, asked: OpenRequest) -> list[Address]:
        return await self._owner.allowed(asked)

    def _waited(self, peer: Target) -> list[bytes]:
        """It is no longer asked for; what has waited."""
        self._asking.pop(peer, None)
        return self._owner.waited(self._request.key_id, (self, peer))

    def _found(self, peer: Target, addresses: list[Address]) -> None:
        waiting = self._waited(peer)
        if self._closed:
            return
        self._learn(peer, addresses, KNOWN_FOR)
        for payload in waiting:
            self._write(payload, addresses, peer.port)

    def _not_found(self, peer: Target, failure: Failure) -> None:
        waiting = self._waited(peer)
        error = failure.value
        if isinstance(error, OpenRefused) and error.code is Code.NOT_ALLOWED:
            self._learn(peer, None, KNOWN_FOR)
            self._owner.denied += len(waiting)
        else:
            self._learn(peer, [], FAILED_FOR)
            self._owner.dropped += len(waiting)

    def _learn(self, peer: Target, addresses: list[Address] | None, time: float) -> None:
        """Where a target is, for so long: nowhere, or C{None} if it is denied."""
        self._known.pop(peer, None)
        self._known[peer] = self._owner.clock.seconds() + time, addresses
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _write(self, payload: bytes, addresses: list[Address], port: int) -> None:
        for address in addresses:
            try:
                self._socket(address.version).write(payload, (str(address), port))
            except CannotListenError:
                continue
            except (OSError, MessageLengthError) as error:
                if getattr(error, "errno", None) in _NO_WAY:
                    continue
                # Too large, or no room: as on any network.
                break
            self._owner.sent += 1
            self._expect(address, port)
            return
        self._owner.dropped += 1

    def _expect(self, address: Address, port: int) -> None:
        """Something may come from there."""
        self._peers.pop((address, port), None)
        self._peers[address, port] = None
        if len(self._peers) > MOST_KNOWN:
            del self._peers[next(iter(self._peers))]

    def _socket(self, version: int) -> Any:
        if version not in self._sockets:
            self._sockets[version] = self._owner.bind(_Socket(self), _EVERYWHERE[version], 0)
        return self._sockets[version]

    # ---- in

    def came(self, payload: bytes, address: Address, port: int) -> None:
        """A socket has read a datagram."""
        if self._closed or (address, port) not in self._peers or self.receiver is None:
            self._owner.dropped += 1
            return
        self._used_at = self._owner.clock.seconds()
        self._owner.received += 1
        self._silent_since = None
        peer = None if self._fixed else Target(address, port)
        self.receiver.datagram_came(payload, peer)

    # ---- the end

    def _watch(self, delay: float) -> None:
        self._timer = self._owner.clock.callLater(delay, self._look)

    def _look(self) -> None:
        """End it if it is idle; nothing is set up anew for each datagram."""
        self._timer = None
        left = self._used_at + self._owner.limits.association_idle - self._owner.clock.seconds()
        if left > 0:
            self._watch(left)
            return
        self.end()

    def end(self) -> Deferred[Any]:
        """Close it and tell who listens; fires once its sockets are closed."""
        receiver = self.receiver
        closed = self._close()
        if receiver is not None:
            receiver.association_lost(None)
        return closed

    def close(self) -> None:
        """See L{Association.close}."""
        self._close()

    def _close(self) -> Deferred[Any]:
        if self._closed:
            return succeed(None)
        self._closed = True
        self.receiver = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for answer in list(self._asking.values()):
            answer.cancel()
        self._owner.closed(self, self._request)
        stopping = [maybeDeferred(socket.stopListening) for socket in self._sockets.values()]
        return gatherResults(stopping)
