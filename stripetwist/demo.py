"""C{stripetwist demo}: one connection and sixteen side by side, all within this process."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from twisted.application.service import MultiService
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from stripetwist.bars import Row, Screen, megabits, times
from stripetwist.core.address import LOOPBACK_HOST, Address
from stripetwist.core.target import OpenRequest, Target
from stripetwist.foreground import put_away
from stripetwist.net.client import Client
from stripetwist.net.files import StartupError
from stripetwist.net.instance import SYSTEM, ground_for
from stripetwist.net.listening import listen
from stripetwist.net.meter import Meter, Source, Taker
from stripetwist.net.narrow import Line, NarrowRelay
from stripetwist.options import verb_settings
from stripetwist.own_server import own_server
from stripetwist.settings import CommonSettings
from stripetwist.sources import option
from stripetwist.values import seconds

ABOUT = (
    "Shows what striping does, with both ends and a slow line between them in this process: "
    "one plain TCP connection and 16 connections of a session download side by side."
)
SUBFLOWS = 16
LINE = Line(rate=1e6, delay=0.03)
PLAIN, STRIPED = "1 plain TCP connection", f"{SUBFLOWS} striped connections"

_LEAST_SECONDS = 3.0
_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What C{stripetwist demo} can be told."""

    seconds: float = option(
        "seconds",
        "SECONDS",
        seconds,
        20.0,
        "Take so long in all, 3 at least.",
        kinds=(str, int, float),
    )

    def complaint(self) -> str:
        """Why these values make no sense, or nothing."""
        if self.seconds < _LEAST_SECONDS:
            return f"--seconds {self.seconds:g} is too short to see much; give {_LEAST_SECONDS:g}"
        return ""


def introduction(line: Line) -> Sequence[str]:
    """What is going to be seen."""
    return (
        "Two downloads side by side, over a line made for this: it holds each connection",
        f"to {line.rate * 8 / 1e6:g} Mbit/s, and a round trip takes {line.delay * 2e3:g} ms.",
    )


def conclusion(plain: float, striped: float) -> str:
    """
    What was seen, of two rates in bytes a second.

    @raise StartupError: there is nothing to compare with.
    """
    if not plain:
        raise StartupError("the plain connection carried nothing; is this machine very busy?")
    return (
        f"{STRIPED} carried {megabits(striped)}, one carried {megabits(plain)}: "
        f"{times(striped / plain)} as much."
    )


def begin(
    words: Sequence[str], environ: Mapping[str, str], output: TextIO
) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """
    Read the command line; what is then to be done on a reactor.

    @raise StartupError: one sentence on what is wrong with it.
    """
    settings = verb_settings("demo", DemoSettings, ABOUT, words, environ)
    return lambda reactor: Demo(reactor, Screen(output, environ), settings.seconds).run()


class Demo:
    """
    A source of bytes, two lines to it, and a server and a client on one of them.

    Everything listens on this machine's loopback, at ports that the system chooses.
    """

    def __init__(self, reactor: Any, screen: Screen, seconds: float) -> None:
        self._reactor = reactor
        self._screen = screen
        self._seconds = seconds
        limits = replace(CommonSettings().limits(), subflows=SUBFLOWS, grow_most=SUBFLOWS)
        self._ground = ground_for(reactor, limits, SYSTEM)
        self._clock = self._ground.clock
        self._ports: list[IListeningPort] = []
        self._services = MultiService()

    async def run(self) -> None:
        """
        Show it, and say what was seen.

        @raise StartupError: something cannot start.
        """
        started = self._clock.seconds()
        try:
            source = self._listen(Factory.forProtocol(Source))
            client = self._client()
            self._services.startService()
            self._screen.say(*introduction(LINE))
            await self._all_up(client, self._seconds / 2)
            takers = [await self._plain(source), await self._striped(client, source)]
            await self._watch(takers, started + self._seconds)
        finally:
            await self._close()

    # ---- what there is

    def _listen(self, factory: Any) -> int:
        """Have it listen somewhere; the port."""
        port: Any = listen(self._reactor, Address(LOOPBACK_HOST, 0), factory, "the demonstration")
        self._ports.append(port)
        number: int = port.getHost().port
        return number

    def _narrow(self, port: int) -> int:
        """A line that leads to a port; where it begins."""
        relay = NarrowRelay(self._reactor, self._clock, LINE, LOOPBACK_HOST, port)
        return self._listen(relay)

    def _client(self) -> Client:
        """A client, and its server at the other end of a line."""
        ground = self._ground
        server, link = own_server(self._reactor, ground, ["localhost"])
        client = Client(self._reactor, ground, [replace(link, port=self._narrow(link.port))])
        server.setServiceParent(self._services)
        client.setServiceParent(self._services)
        return client

    async def _all_up(self, client: Client, patience: float) -> None:
        """Wait until all its connections are up."""
        driver = await client.up(patience)
        if len(driver.connections) < SUBFLOWS:
            raise StartupError("connecting takes too long here; give it more --seconds")

    # ---- what is done

    async def _plain(self, source: int) -> Taker:
        """Download over one connection of its own."""
        taker = Taker(Meter(self._clock))
        line = TCP4ClientEndpoint(self._reactor, LOOPBACK_HOST, self._narrow(source))
        await connectProtocol(line, taker)
        return taker

    async def _striped(self, client: Client, source: int) -> Taker:
        """Download over the session."""
        taker = Taker(Meter(self._clock))
        request = OpenRequest(Target.of(LOOPBACK_HOST, source))
        stream: Any = await client.opener.open(request)
        stream.protocol = taker
        taker.makeConnection(stream)
        stream.resumeProducing()
        return taker

    async def _watch(self, takers: Sequence[Taker], until: float) -> None:
        began = now = self._clock.seconds()
        full = LINE.rate * SUBFLOWS * (until - began)
        while now < until:
            await deferLater(self._clock, min(_EVERY, until - now))
            now = self._clock.seconds()
            self._screen.draw(_rows(takers), full, now - began)
        rows = _rows(takers)
        self._screen.finish(rows, full)
        self._screen.say(conclusion(rows[0].rate, rows[1].rate))

    async def _close(self) -> None:
        for port in self._ports:
            port.stopListening()
        await put_away(self._services, self._clock)


def _rows(takers: Sequence[Taker]) -> list[Row]:
    """
    How far they are by now.

    @raise StartupError: one of them is lost.
    """
    for taker in takers:
        if taker.is_lost:
            raise StartupError("a connection was lost within this machine; try again")
        taker.look()
    meters = [taker.meter for taker in takers]
    return [
        Row(name, meter.total, meter.rate)
        for name, meter in zip((PLAIN, STRIPED), meters, strict=True)
    ]
