"""C{twistd stripe-client}: a proxy port whose streams are striped to a server."""

import os
from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService
from twisted.logger import globalLogBeginner

from stripetwist.core.address import Address
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.net.certificates import check_pair, make_certificate
from stripetwist.net.client import Client
from stripetwist.net.files import StartupError
from stripetwist.net.ground import Ground
from stripetwist.net.instance import AUTO, Instance, ground_for
from stripetwist.net.keystore import KeyStore
from stripetwist.net.logs import limit_level
from stripetwist.net.server import Server
from stripetwist.net.state import StateDirectory
from stripetwist.net.tls import ServerCreator
from stripetwist.net.userfile import UsersError
from stripetwist.options import ClientOptions
from stripetwist.settings import ClientSettings
from stripetwist.ways_in import WaysIn, open_status, status_lines

_LOOPBACK = "127.0.0.1"


class Options(ClientOptions):
    """See L{ClientOptions}."""


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    A dialer toward each server, a proxy port that uses their sessions, and a control socket.

    @raise SystemExit: it cannot start; one sentence says why.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: TID251 - a tap's privilege
    try:
        return _make(options.settings, reactor)
    except (StartupError, UsersError) as error:
        raise SystemExit(str(error)) from None


def _make(settings: ClientSettings, reactor: Any) -> IService:
    limit_level(globalLogBeginner, settings.log_level)
    links = settings.links()
    state = StateDirectory(settings.state, "client", os.environ)
    state.open()
    ground = ground_for(reactor, settings.limits(), settings.congestion)
    own: Server | None = None
    if not links:
        # It reaches what this machine does, unless others may use the proxy port.
        reaches = ("internet", "lan", "localhost") if settings.socks.is_local else ("internet",)
        own, own_link = own_server(reactor, ground, reaches)
        links = [own_link]
        own.witness.targets = settings.log_targets
    client = Client(reactor, ground, links, settings.paths)
    client.wants_bbr = settings.congestion == AUTO
    client.opener.targets = settings.log_targets
    instance = Instance(reactor, ground, state, "client", client.snapshot)
    ways_in = WaysIn(reactor, ground, settings, client.opener, instance.connections)
    ways_in.open(client.listen)
    ways_in.open_udp(client.forward_udp)
    watched = open_status(reactor, ground, settings, instance, client.complaint)
    client.lines += status_lines(settings, watched)

    if own is not None:
        for port in (*watched, *client.ports):
            own.note_own(port)
        own.setServiceParent(instance)
    client.setServiceParent(instance)
    instance.serve_control({"reload": lambda _: ways_in.reload()})
    instance.watch_signals(client.leave, client.is_idle, ways_in.reload)
    return instance


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
