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

_NO_NAMES = "names cannot be looked up now; write an address of this machine"
_NO_NAME = "that name has no address here; write an address of this machine"
_OF_PORTS: dict[int | None, str] = {
    errno.EADDRINUSE: "another program has that port; stop it, or choose another port",
    errno.EACCES: "that port is for root only; choose one above 1023",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
}
_TOO_LONG = "the path is too long; choose a shorter one"
_OF_FILES: dict[int | None, str] = {
    errno.ENOENT: "there is no such folder; make it, or choose another path",
    errno.EACCES: "this user may not write there; choose another path",
    errno.ENOTDIR: "part of the path is a file, no folder; choose another path",
    errno.ENAMETOOLONG: _TOO_LONG,
    # Python looks at what fits into a socket's address before it asks the system.
    None: _TOO_LONG,
    errno.EADDRINUSE: "something is there already; choose another path, or remove it if no "
    "program uses it",
}


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
    why = "it would not be ready before the start"
    if outcome:
        why = _why_not(outcome[0].value, address.raw.startswith("unix:"))
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
        why = _why_not(error, is_file=False)
    raise StartupError(f"{option} {address} cannot be listened at: {why}")


def _why_not(error: BaseException, is_file: bool) -> str:
    """
    Why it cannot be listened there, and what to do.

    @param is_file: whether it is a Unix socket.
    """
    cause = getattr(error, "socketError", error)
    if isinstance(cause, socket.gaierror):
        return _NO_NAMES if cause.errno == socket.EAI_AGAIN else _NO_NAME
    if is_file and not isinstance(cause, OSError):
        # Twisted's words for it speak of a lock.
        return "another program listens there; stop it, or choose another path"
    why = (_OF_FILES if is_file else _OF_PORTS).get(getattr(cause, "errno", None))
    return why or printable(getattr(cause, "strerror", None) or str(cause), 120)
