"""C{stripetwist bench}: one connection against several, on the way to a server."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, TextIO

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from stripetwist.bars import Row, Screen, times
from stripetwist.client_settings import ClientSettings
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.link import Link
from stripetwist.core.target import OpenRequest
from stripetwist.foreground import put_away
from stripetwist.net.client import Client, way_of
from stripetwist.net.files import StartupError
from stripetwist.net.instance import ground_for
from stripetwist.net.keystore import read_link
from stripetwist.net.meter import Giver, Meter, Taker
from stripetwist.net.speed import SINK, SOURCE
from stripetwist.options import verb_settings
from stripetwist.settings import CommonSettings
from stripetwist.sources import flag, option, same_option
from stripetwist.values import LOOPBACK, Server, seconds

ABOUT = (
    "Measures how fast data comes from your server (or gets there, with --up): over one TLS "
    "connection, and striped over several.  They take turns, one, several, one, several, since "
    "at the same time each would take from the other; every turn lasts a quarter of the time and "
    "is a transfer of its own, whose slow start counts.  The server sends and takes the data "
    "itself, where it lets speed.stripetwist.invalid be reached.  One TLS connection is a session "
    "of ours with a single subflow that sends no filler, not plain TCP; a server's own filler "
    "opens its window too."
)

ONE = "one TLS connection"

_TURNS = 2
_EVERY = 0.1
# What is on its way when a turn ends is not to be in the way of the next.
_PAUSE = 0.3
# Less than that is no difference.
_FASTER = 1.1
# What a server says that knows nothing of the reserved name.
_UNKNOWN = (Code.DNS_FAIL, Code.DNS_TIMEOUT)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What C{stripetwist bench} can be told."""

    server: Server | None = same_option(
        ClientSettings,
        "server",
        metavar="LINK|FILE",
        default=None,
        repeatable=False,
        doc="Measure the way to the server that a link names, or a link in a file "
        "(default $STRIPETWIST_SERVER).",
    )
    subflows: int | None = same_option(ClientSettings, "subflows")
    congestion: str = same_option(ClientSettings, "congestion")
    seconds: float = option(
        "seconds", "SECONDS", seconds, 10.0, "Measure for so long.", kinds=(str, int, float)
    )
    up: bool = flag("up", "Measure the way to the server.")
    down: bool = flag("down", "Measure the way from the server, as without either.")

    def link(self) -> Link:
        """
        The way to the server.

        @raise StartupError: the file holds no link.
        """
        assert self.server is not None and self.server != LOOPBACK
        return self.server if isinstance(self.server, Link) else read_link(self.server)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if self.server is None:
            return (
                "there is no server to measure the way to; give --server LINK or FILE, or "
                "$STRIPETWIST_SERVER, or see stripetwist demo, which needs none"
            )
        if self.server == LOOPBACK:
            return f"there is no way to measure to {LOOPBACK}; see stripetwist demo instead"
        if self.up and self.down:
            return "--up and --down are measured one at a time; leave one out"
        if self.subflows == 1:
            return "--subflows 1 leaves nothing to compare; give 2 or more"
        return ""


def introduction(up: bool, where: str, rtt: float, pace: str) -> Sequence[str]:
    """What is going to be measured, and over what."""
    what = "Uploads to" if up else "Downloads from"
    return (
        f"{what} {where}, round trip {rtt * 1e3:.1f} ms.",
        f"Congestion control here: {pace or 'unknown'}"
        f"{'.' if up else '; for downloads the one of the server counts.'}",
    )


def conclusion(many: str, one: float, striped: float) -> str:
    """
    What was measured, of two rates in bytes a second.

    @raise StartupError: there is nothing to compare with.
    """
    if not one:
        raise StartupError(f"nothing came over {ONE}; try again with more --seconds")
    if striped < one * _FASTER:
        return f"{many} are no faster: your line does not limit one connection."
    return f"{many} are {times(striped / one)} as fast as {ONE}."


def begin(
    words: Sequence[str], environ: Mapping[str, str], output: TextIO
) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """
    Read the command line; what is then to be done on a reactor.

    @raise StartupError: one sentence on what is wrong with it.
    """
    settings = verb_settings("bench", BenchSettings, ABOUT, words, environ)
    return lambda reactor: Bench(reactor, Screen(output, environ), settings).run()


class Contender:
    """
    A session, and what its turns came to.

    @ivar client: keeps it.
    @ivar subflows: how many connections it has, or is to have.
    """

    def __init__(self, client: Client, subflows: int) -> None:
        self.client = client
        self.subflows = subflows
        self._meters: list[Meter] = []

    def meter(self, clock: IReactorTime) -> Meter:
        """What counts in its next turn."""
        self._meters.append(Meter(clock))
        return self._meters[-1]

    @property
    def has_begun(self) -> bool:
        """Whether it has had a turn, or has one."""
        return bool(self._meters)

    @property
    def row(self) -> Row:
        """All its turns as one."""
        name = ONE if self.subflows == 1 else f"{self.subflows} striped connections"
        total = sum(meter.total for meter in self._meters)
        elapsed = sum(meter.until - meter.since for meter in self._meters)
        return Row(name, total, total / elapsed if elapsed else 0.0)


def begun(contenders: Sequence[Contender]) -> list[Row]:
    """What there is to be seen: nobody is shown as slow who waits for the first turn."""
    return [contender.row for contender in contenders if contender.has_begun]


class Bench:
    """Two sessions to one server, which take turns."""

    def __init__(self, reactor: Any, screen: Screen, settings: BenchSettings) -> None:
        """
        @raise StartupError: the link cannot be read, or the congestion control not be had.
        """
        self._reactor = reactor
        self._screen = screen
        self._settings = settings
        self._link = settings.link()
        self._services = MultiService()
        # Neither is to rest while it is the other's turn.
        limits = replace(CommonSettings().limits(), rest_after=inf)
        self._one = self._contender(1, replace(limits, prewarm=0))
        self._many = self._contender(settings.subflows or limits.subflows, limits)

    def _contender(self, subflows: int, limits: Limits) -> Contender:
        limits = replace(limits, subflows=subflows, grow_most=subflows)
        ground = ground_for(self._reactor, limits, self._settings.congestion)
        self._clock = ground.clock
        return Contender(Client(self._reactor, ground, [self._link]), limits.subflows)

    async def run(self) -> None:
        """
        Measure, and say what came out.

        @raise StartupError: it cannot be measured.
        """
        contenders = [self._one, self._many]
        self._services.startService()
        try:
            await self._connect(self._one)
            self._introduce()
            for contender in contenders * _TURNS:
                # The filler of a new session is not to be in the way of the other's first turn.
                await self._connect(contender)
                await self._turn(contender)
        finally:
            await put_away(self._services, self._clock)
        one, many = rows = [contender.row for contender in contenders]
        self._screen.finish(rows, 0)
        self._screen.say(conclusion(many.name, one.rate, many.rate))

    async def _connect(self, contender: Contender) -> None:
        """Have a session up, and nothing of another turn on its way any more."""
        client = contender.client
        if client.parent is None:
            client.setServiceParent(self._services)
        driver = await client.up(Limits().session_wait)
        await deferLater(self._clock, _PAUSE)
        # The server may take fewer than were asked for.
        contender.subflows = len(driver.connections)
        if contender is self._many and contender.subflows == 1:
            raise StartupError(
                f"the server {self._link.address} takes one connection of a session only; "
                "start it with a higher --max-subflows"
            )

    def _introduce(self) -> None:
        driver = self._one.client.dialer.driver
        if driver is not None and driver.connections:
            way = way_of(driver, self._clock.seconds())
            self._screen.say(*introduction(self._settings.up, self._link.address, *way))
        self._began = self._clock.seconds()

    async def _turn(self, contender: Contender) -> None:
        """One transfer."""
        meter = contender.meter(self._clock)
        until = meter.since + self._settings.seconds / (2 * _TURNS)
        end = Giver(meter) if self._settings.up else Taker(meter)
        stream = await self._open(contender.client)
        stream.protocol = end
        end.makeConnection(stream)
        stream.resumeProducing()
        while (left := until - self._clock.seconds()) > 0:
            await deferLater(self._clock, min(_EVERY, left))
            end.look()
            rows = begun([self._one, self._many])
            self._screen.draw(rows, 0, self._clock.seconds() - self._began)
        if end.is_lost:
            raise StartupError(f"the connection to {self._link.address} was lost; try again")
        stream.abortConnection()

    async def _open(self, client: Client) -> Any:
        """A stream to what the server has for this."""
        try:
            return await client.opener.open(OpenRequest(SINK if self._settings.up else SOURCE))
        except OpenRefused as refused:
            if refused.code in _UNKNOWN:
                raise StartupError(
                    f"the server {self._link.address} is too old for bench; "
                    "install the version there that you have here"
                ) from None
            raise StartupError(refused.sentence) from None
