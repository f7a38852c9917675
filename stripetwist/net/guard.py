"""What an exit may dial for whom, and the question whether an address is this machine's."""

import errno
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IListeningPort

from stripetwist.core.policy import Policy
from stripetwist.core.target import OpenRequest, Target
from stripetwist.core.zones import Address, Zone, carried, plain, zone_of


def is_local_address(address: Address) -> bool:
    """
    Whether connections to that address end at this machine.

    The system is asked by binding a socket that sends nothing: that is right on every
    platform, for addresses that came since, and for all that an interface holds.
    """
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        # Out of descriptors, say: what cannot be told is held for local.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


class Guard:
    """
    Says what may be dialed for whom: never ourselves, then as two policies allow.

    @ivar policy: the exit's own; may be replaced at any time.
    @ivar own: address and port of each of our listeners, as C{getHost} has them; a wildcard
        address (or an empty one) stands for every address of this machine.
    """

    def __init__(
        self,
        policy: Policy,
        own: Iterable[tuple[str, int]] = (),
        key_policy: Callable[[str], Policy | None] | None = None,
        is_local: Callable[[Address], bool] = is_local_address,
        may_bind: Callable[[str, Target], bool] | None = None,
    ) -> None:
        """
        @param key_policy: by key id, what narrows the exit's policy for that key.
        @param may_bind: whether a key lets a UDP socket be bound there; C{None} where there are
            no keys, as at an agent.
        """
        self.policy = policy
        self.own = list(own)
        self._key_policy = key_policy
        self._is_local = is_local
        self._may_bind = may_bind

    def note_own(self, port: IListeningPort) -> None:
        """A port of this process: never a target."""
        host: Any = port.getHost()
        if hasattr(host, "port"):
            self.own.append((host.host, host.port))

    def refusal_of_name(self, name: str, request: OpenRequest) -> str | None:
        """Why a name is not looked up for that request, C{None} if it may be."""
        port, kind = request.target.port, request.kind
        answers = (each.refusal_of_name(name, port, kind) for each in self._policies(request))
        return next(filter(None, answers), None)

    def refusal_of_address(self, address: Address, request: OpenRequest) -> str | None:
        """Why an address is not dialed for that request, C{None} if it may be."""
        host, port, kind = request.target.host, request.target.port, request.kind
        name = host if isinstance(host, str) else None
        if any(self._is_own(form, port) for form in (address, *carried(address))):
            return "a port of stripetwist itself, which is never reached through it"
        policies = self._policies(request)
        own = zone_of(address) is Zone.INTERNET and self._is_local(address)
        answers = (each.refusal_of_address(address, port, kind, name, own) for each in policies)
        return next(filter(None, answers), None)

    def refusal_of_bind(self, request: OpenRequest) -> str | None:
        """Why a UDP socket is not bound where that request wants it, C{None} if it may be."""
        place = request.bind
        if place is None:
            return None
        if self._may_bind is None:
            return f"{place} is not bound, as agents bind nothing; ask for it without --exit"
        if self._may_bind(request.key_id, place):
            return None
        return f'{place} is not bound; list it in the key\'s udp_bind there, as "{place}"'

    def _policies(self, request: OpenRequest) -> list[Policy]:
        narrowing = None
        if self._key_policy is not None and request.key_id:
            narrowing = self._key_policy(request.key_id)
        return [self.policy] if narrowing is None else [self.policy, narrowing]

    def _is_own(self, address: Address, port: int) -> bool:
        for host, own_port in self.own:
            if own_port != port:
                continue
            listener = plain(ip_address(host.partition("%")[0] or "0.0.0.0"))
            if listener == address or (listener.is_unspecified and self._is_local(address)):
                return True
        return False
