"""One association at the exit: its sockets, and where its targets are."""

import errno
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.target import ANYWHERE, IS_REFUSED, OpenRequest, Target
from stripetwist.core.zones import Address, plain
from stripetwist.net.association import Receiver
from stripetwist.net.udp_port import MAX_PAYLOAD

Allowed = Callable[[OpenRequest], Awaitable[list[Address]]]

# Of one association: targets known at a time, how long an answer holds, and a failure; names
# being looked up; after how long a silence its one target is looked up again.
MOST_KNOWN = 1024
KNOWN_FOR = 30.0
FAILED_FOR = 2.0
MOST_LOOKUPS = 16
# Reasons for a refusal that are in the log of one association.
MOST_TOLD = 8
SILENT_FOR = 60.0

# Another address of the same name may do better.
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_EVERYWHERE = {4: "0.0.0.0", 6: "::"}


class Owner(Protocol):
    """The exit, as its associations know it: see L{stripetwist.net.udp_exit.UdpExit}."""

    log: Logger
    clock: IReactorTime
    limits: Limits
    allowed: Allowed
    sent: int
    received: int
    denied: int
    dropped: int

    def bind(self, protocol: DatagramProtocol, host: str, port: int) -> Any:
        """A socket for an association."""

    def wait(self, key_id: str, lookup: Hashable, payload: bytes) -> None:
        """Keep a datagram until its target is known."""

    def waited(self, key_id: str, lookup: Hashable) -> list[bytes]:
        """What has waited for that lookup and is still worth something."""

    def closed(self, association: "ExitAssociation", request: OpenRequest) -> None:
        """One is gone."""


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

    A refusal is for the log of this process: the sender of a datagram hears of none.

    @ivar receiver: who gets what comes.
    """

    def __init__(self, owner: Owner, request: OpenRequest) -> None:
        self.receiver: Receiver | None = None
        self._owner = owner
        self._request = request
        self._fixed: list[Address] = []
        self._silent_since: float | None = None
        self._sockets: dict[int, Any] = {}
        self._known: dict[Target, tuple[float, list[Address] | None]] = {}
        self._asking: dict[Target, Deferred[list[Address]]] = {}
        self._peers: dict[tuple[Address, int], None] = {}
        self._told: set[str] = set()
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
        raise self._request.refused(Code.GENERAL, why)

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
            self._tell(error.sentence)
        else:
            self._learn(peer, [], FAILED_FOR)
            self._owner.dropped += len(waiting)

    def _tell(self, sentence: str) -> None:
        """Each reason once; the target, and what would allow it, are for debugging only."""
        who = self._request.key_id or "local"
        self._owner.log.debug("{who}: {sentence}", who=who, sentence=sentence)
        reason = sentence.partition(IS_REFUSED)[2].partition(";")[0]
        if reason not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(reason)
            self._owner.log.info(
                "{who}: datagrams are refused: {reason}; --log-level debug names their targets",
                who=who,
                reason=printable(reason),
            )

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
