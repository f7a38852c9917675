"""The server side within a client's process."""

from collections.abc import Sequence
from typing import Any

from stripetwist.core.address import Address
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.net.certificates import check_pair, make_certificate
from stripetwist.net.ground import Ground
from stripetwist.net.keystore import KeyStore
from stripetwist.net.server import Server
from stripetwist.net.tls import ServerCreator

_LOOPBACK = "127.0.0.1"


def own_server(reactor: Any, ground: Ground, reaches: Sequence[str]) -> tuple[Server, Link]:
    """
    The server side in this process: the same services, with keys that live in memory only.

    @param reaches: its policy.
    """
    keys = KeyStore(None)
    certificate = check_pair(*make_certificate())
    server = Server(reactor, ground, keys, Policy(reaches), ServerCreator(certificate))
    port: Any = server.listen(Address(_LOOPBACK, 0), "--server loopback:")
    key = next(key for key in keys.keys() if key.role == "client")  # noqa: SIM118
    return server, Link(key.id, key.secret, _LOOPBACK, port.getHost().port, (certificate.pin,))
