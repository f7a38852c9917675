"""From an address as users write it to something that can listen."""

import errno
import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from stripetwist.core.address import Address
from stripetwist.core.errors import printable
from stripetwist.net.files import StartupError
from stripetwist.net.udp_port import bind_udp


def server_endpoint(reactor: Any, address: Address, option: str) -> IStreamServerEndpoint:
    """
    What listens at an address.

    @param option: which option said so, for the sentence.
    @raise StartupError: Twisted can make nothing of an endpoint string.
    """
    text = address.endpoint(dual=socket.has_dualstack_ipv6())
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    # Each kind of endpoint has its own way to fail at fields that it does not expect.
    except Exception as error:  # noqa: BLE001
        raise StartupError(
            f"{option} {printable(text, 80)} is no endpoint that Twisted knows: "
            f"{printable(str(error), 120)}"
        ) from None
    return endpoint


def listen(
    reactor: Any, address: Address, factory: IProtocolFactory, option: str
) -> IListeningPort:
    """
    Listen there now.

    @return: the open port.
    @raise StartupError: it is taken, or not for us.
    """
    outcome: list[Any] = []
    endpoint = server_endpoint(reactor, address, option)
    endpoint.listen(factory).addBoth(outcome.append)
    if outcome and not isinstance(outcome[0], Failure):
        port: IListeningPort = outcome[0]
        return port
    why = _why_not(outcome[0].value) if outcome else "it would not be ready before the start"
    raise StartupError(f"{option} {address} cannot be listened at: {why}")


def listen_udp(reactor: Any, address: Address, protocol: DatagramProtocol, option: str) -> Any:
    """
    Take datagrams there from now on; an empty host means every address.

    @return: the open port.
    @raise StartupError: it is taken, or not for us.
    """
    host = address.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")
    try:
        return bind_udp(reactor, protocol, host, address.port)
    except CannotListenError as error:
        why = _why_not(error)
    raise StartupError(f"{option} {address} cannot be listened at: {why}")


def _why_not(error: BaseException) -> str:
    cause = getattr(error, "socketError", error)
    number = getattr(cause, "errno", None)
    if number == errno.EADDRINUSE:
        return "another program has that port; stop it, or choose another port"
    if number == errno.EACCES:
        return "that port is for root only; choose one above 1023"
    if number == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address"
    return printable(str(cause), 120)
