"""The ports for local programs, and for those who watch, that a command was told to open."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IListeningPort

from stripetwist.client_settings import ClientSettings
from stripetwist.core.address import Address
from stripetwist.core.pool import Selector
from stripetwist.core.target import Kind, OpenRequest
from stripetwist.net.forward import ForwardFactory
from stripetwist.net.fronts import Front, shown
from stripetwist.net.ground import Ground
from stripetwist.net.guests import Guests, Sources
from stripetwist.net.instance import Instance
from stripetwist.net.opener import Opener
from stripetwist.net.socks import SocksFactory
from stripetwist.net.socks_udp import UdpDoor
from stripetwist.net.udp_forward import UdpForward
from stripetwist.net.users import Threads, Users
from stripetwist.server_settings import ServerSettings
from stripetwist.settings import CommonSettings


def open_status(
    reactor: Any,
    ground: Ground,
    settings: CommonSettings,
    instance: Instance,
    complaint: Callable[[], str],
) -> list[IListeningPort]:
    """
    Open the status port, if settings name one.

    @param complaint: why the role cannot do its job; empty if it can.
    @return: what listens then.
    @raise stripetwist.net.files.StartupError: the port is taken, or not for us.
    @raise stripetwist.net.userfile.UsersError: the users file cannot be used.
    """
    if settings.status is None:
        return []
    users = None
    if settings.status_users is not None:
        users = Users(settings.status_users, ground.clock, Threads(reactor))
    return [instance.serve_status(settings.status, users, complaint)]


def status_lines(settings: CommonSettings, ports: Iterable[IListeningPort]) -> list[str]:
    """What a start says of the status port."""
    address = settings.status or Address()
    return [f"  status      {shown(address, port)}   /status.json" for port in ports]


class WaysIn:
    """
    Opens the ports that settings name: a proxy port, and forwarded ones.

    @ivar users: who may use the proxy port, if that is limited.
    """

    def __init__(
        self,
        reactor: Any,
        ground: Ground,
        settings: ClientSettings | ServerSettings,
        opener: Opener,
        most: int,
    ) -> None:
        """
        @param opener: reaches the targets.
        @param most: the connections of all ports together.
        @raise stripetwist.net.userfile.UsersError: the users file cannot be used.
        """
        self._reactor = reactor
        self._ground = ground
        self._settings = settings
        self._opener = opener
        self._guests = Guests(most, Sources(settings.sources, ground.clock))
        self.users: Users | None = None
        if settings.users is not None:
            self.users = Users(settings.users, ground.clock, Threads(reactor))

    def open(self, listen: Callable[[Address, Front], None]) -> None:
        """
        Open them.

        @param listen: opens one.
        @raise stripetwist.net.files.StartupError: one is taken, or not for us.
        """
        settings, clock, limits = self._settings, self._ground.clock, self._ground.limits
        # Only a client can say connected before it is.
        optimistic = isinstance(settings, ClientSettings) and settings.optimistic
        for port in settings.proxy_ports:
            front = SocksFactory(
                self._opener,
                clock,
                limits,
                self._guests,
                self.users,
                optimistic=optimistic,
                exit=self._exit_of(port.exit),
                # A UDP relay that other machines can reach is one too many.
                udp=UdpDoor(self._reactor, limits)
                if port.listen.is_local and not port.listen.raw
                else None,
            )
            listen(port.listen, front)
        for one in settings.forwards:
            way_out = self._exit_of(one.exit)
            listen(
                one.listen,
                ForwardFactory(self._opener, one.target, clock, limits, self._guests, way_out),
            )

    def open_udp(self, listen: Callable[[Address, UdpForward], None]) -> None:
        """
        Open those for datagrams, which a client has.

        @param listen: opens one.
        @raise stripetwist.net.files.StartupError: one is taken, or not for us.
        """
        settings = self._settings
        assert isinstance(settings, ClientSettings)
        way_out = self._exit_of(None)
        for one in settings.udp:
            request = OpenRequest(
                one.target, Kind.UDP, way_out, bind=one.bind, copies=settings.udp_copies
            )
            program = None if one.program is None else (str(one.program.host), one.program.port)
            limits = self._ground.limits
            front = UdpForward(
                self._opener, request, self._ground.clock, limits, program, self._guests
            )
            listen(one.listen, front)

    def _exit_of(self, own: Selector | None) -> str:
        """Which exit is asked for at a port: its own, if it has one."""
        selector = own or self._settings.exit
        # Asked for nothing in particular, a server is its own exit.
        return "" if selector.is_server else str(selector)

    def reload(self) -> list[str]:
        """Read the users again if they have changed; what could be read, if anything."""
        if self.users is None:
            return []
        self.users.complain_again()
        self.users.refresh()
        return ["users"] if self.users.is_current else []
