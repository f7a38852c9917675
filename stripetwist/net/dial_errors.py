"""Why a dial came to nothing, in sentences."""

import os

from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure

from stripetwist.core.errors import Code, ProxyRefused, printable
from stripetwist.core.hello import Rejected, Role

TURNED_AWAY = "something on the way turns connections away"


def tells_nothing(error: BaseException | None) -> bool:
    """Whether all that Twisted knows is that the socket was closed; it says so with a traceback."""
    return isinstance(error, ConnectError) and any(isinstance(one, Failure) for one in error.args)


def connect_sentence(reason: Failure, where: str, what: str = "the server") -> str:
    """
    Why a connect failed, and what to do.

    @param where: the server, and what leads to it; or what is first on the way there.
    @param what: what should listen there.
    """
    error = reason.value
    if isinstance(error, ConnectBindError):
        return f"{where} cannot be dialed from an address that this machine lacks; check bind="
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refuses connections: start {what} there, or check the port"
    if isinstance(error, TimeoutError | TCPTimedOutError):
        return f"{where} does not answer: check the address, and its firewall"
    if isinstance(error, ConnectError) and error.osError is not None:
        return f"{where} cannot be reached: {os.strerror(error.osError).lower()}"
    if tells_nothing(error):
        return f"{where} cannot be reached: {TURNED_AWAY}"
    return f"{where} cannot be reached: {printable(reason.getErrorMessage())}"


def proxy_sentence(reason: Failure, label: str) -> str:
    """
    Why a proxy was not reached, or does not lead to the server.

    @param label: the path on which it stands.
    """
    error = reason.value
    if isinstance(error, ProxyRefused):
        return f"path {label}: {error.sentence}"
    return connect_sentence(reason, f"path {label}: the proxy", "it")


def card_sentence(error: OSError, where: str, card: str) -> str:
    """Why a network card cannot be dialed from."""
    why = os.strerror(error.errno or 0).lower()
    return f"{where} cannot be dialed from {printable(card)}: {why}; check nic="


def rejection_sentence(error: Rejected, where: str) -> str:
    """Why the server does not let us in; nothing where that mends itself."""
    why = error.reason
    sentences = {
        Code.UNKNOWN_SESSION: "",
        Code.AUTH: f"{where} does not accept the key of this link: it was revoked or has "
        "expired, or the link is another server's; get a new link",
        Code.BUSY: f"{where} wants fewer connections: {why}",
        Code.VERSION: f"{where} cannot be talked to: {why}",
    }
    return sentences.get(error.code, f"{where} let us not in: {why}")


def role_sentence(role: Role, where: str) -> str:
    """Why a server lets us not in that knows our key, but not as what we are."""
    if role is Role.AGENT:
        return f"{where} takes this link from clients only; give --server an agent's link"
    return f"{where} takes this link from agents only; give --server a client's link"
