"""C{twistd stripe-client}: a proxy port whose streams are striped to a server."""

import os
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.logger import globalLogBeginner

from stripetwist.client_settings import ClientSettings
from stripetwist.net.client import Client
from stripetwist.net.files import StartupError
from stripetwist.net.instance import AUTO, Instance, ground_for
from stripetwist.net.logs import limit_level
from stripetwist.net.state import StateDirectory
from stripetwist.net.userfile import UsersError
from stripetwist.options import ClientOptions
from stripetwist.ways_in import WaysIn, open_status, status_lines

if TYPE_CHECKING:
    from stripetwist.net.server import Server


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
        # A client of another machine's server is smaller without all this.
        from stripetwist.own_server import own_server

        # It reaches what this machine does, unless others may use the proxy port.
        reaches = ("internet", "lan", "localhost") if settings.socks.is_local else ("internet",)
        own, own_link = own_server(reactor, ground, reaches)
        links = [own_link]
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
            own.exit.guard.note_own(port)
        own.setServiceParent(instance)
    client.setServiceParent(instance)
    instance.serve_control({"reload": lambda _: ways_in.reload()})
    instance.watch_signals(client.leave, client.is_idle, ways_in.reload)
    return instance
