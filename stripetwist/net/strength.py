"""How many places a dialer has, spread over its paths, as its session is used."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from stripetwist.core.config import Limits
from stripetwist.core.growth import Growth
from stripetwist.core.way import PathRole
from stripetwist.net.driver import SessionDriver
from stripetwist.net.path import Path
from stripetwist.net.place import Place


class Strength:
    """
    How many places a dialer has: more while that brings more, one per path at rest.

    A backup path has one as long as another is up, and its share once none is.

    Has two timers while it runs: one looks whether anybody uses the session and where we
    are, one, while there is use, whether more subflows are worth their while.

    @ivar paths: over which they are spread.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        paths: Sequence[Path],
        session: Callable[[], SessionDriver | None],
        address: str,
    ) -> None:
        """
        @param session: the session, once there is one.
        @param address: the server's, for the log.
        """
        self.paths = paths
        self._clock = clock
        self._limits = limits
        self._session = session
        self._address = address
        self._growth = Growth(limits, clock.seconds())
        self._used_at = clock.seconds()
        self._moved = 0
        self._rests = False
        self._on_backup = False
        self._is_over = False
        self._looking: IDelayedCall | None = None
        self._growing: IDelayedCall | None = None

    def start(self) -> None:
        """Dial: two places at once, the others a little later."""
        self._fit(self._growth.count)
        self._look_around()

    def begin_again(self) -> None:
        """Dial as at the start: there were none for a while."""
        self._rests, self._used_at = False, self._clock.seconds()
        self._fit(self._growth.count)

    def stop(self) -> None:
        """Look at nothing any more, and end every place."""
        self._is_over = True
        for call in (self._looking, self._growing):
            if call is not None and call.active():
                call.cancel()
        for place in self.places:
            place.stop()

    # ---- how many

    @property
    def places(self) -> list[Place]:
        """All of them, over the paths in turn."""
        return _in_turn([path.places for path in self.paths])

    @property
    def wanted(self) -> int:
        """How many there are to be."""
        return sum(len(path.wanted) for path in self.paths)

    def _fit(self, count: int) -> None:
        """Have so many, spread over the paths."""
        shares = self._shares(count)
        self._dial([path.fit(share) for path, share in zip(self.paths, shares, strict=True)])

    def _rest(self) -> None:
        """Have one on each path, whatever it says."""
        self._rests = True
        self._dial([path.fit(1) for path in self.paths])

    def _dial(self, fresh: Sequence[Sequence[Place]]) -> None:
        """Have these dial, those of each path after one another."""
        for number, place in enumerate(_in_turn(fresh)):
            place.dial_after(max(0, number - 1) * self._limits.dial_spacing)

    def _shares(self, count: int) -> list[int]:
        """How many on each: what it says, one where it only waits, else its part of the rest."""
        waiting = [_is_backup(path) and not self._on_backup for path in self.paths]
        said = [path.way.subflows for path in self.paths]
        taken = sum(n for n, waits in zip(said, waiting, strict=True) if not waits)
        free = sum(not (n or waits) for n, waits in zip(said, waiting, strict=True))
        each, more = divmod(max(0, count - taken), free or 1)
        shares = []
        for n, waits in zip(said, waiting, strict=True):
            shares.append(1 if waits else n or max(1, each + (more > 0)))
            more -= not (n or waits)
        return shares

    # ---- use and rest

    def used(self) -> None:
        """The session is to carry something: have as many subflows as it then has."""
        self._used_at = self._clock.seconds()
        if self._rests:
            self._rests = False
            self._fit(self._growth.count)
        if self._growing is None and self._may_grow:
            self._grow()

    @property
    def _may_grow(self) -> bool:
        """Whether anybody leaves the number to us."""
        all_say = all(path.way.subflows for path in self.paths)
        return self._limits.grow_most > self._limits.subflows and not all_say

    def _look_around(self) -> None:
        """Now and then: whether anybody uses the session, and where we are."""
        self._looking = self._clock.callLater(self._limits.look_around, self._look_around)
        driver, now = self._session(), self._clock.seconds()
        moved = 0 if driver is None else driver.session.moved
        if driver is None or not driver.is_idle:
            self._used_at = now
        elif moved != self._moved:
            # Datagrams, for whose associations nobody waits.
            self.used()
        elif not self._rests and now - self._used_at >= self._limits.rest_after:
            self._rest()
        self._moved = moved
        self._see_who_carries()
        for path in self.paths:
            path.look_around()

    def _see_who_carries(self) -> None:
        """Whether the backup paths have to, by now."""
        driver = self._session()
        if driver is None or not driver.connections:
            return
        others = [path for path in self.paths if not _is_backup(path)]
        alone = not any(place.is_up for path in others for place in path.places)
        if alone is not self._on_backup:
            self._on_backup = alone
            if not self._rests:
                self._fit(self._growth.count)

    # ---- growth

    def _grow(self) -> None:
        """Have more subflows while that brings more; look now and then while there is use."""
        self._growing = None
        now, driver, before = self._clock.seconds(), self._session(), self._growth.count
        places = self.wanted
        if driver is not None and driver.session.rtt is not None:
            self._growth.look(driver.session.moved, driver.session.rtt, now)
        if self._rests or self._is_over:
            return
        if self._growth.count != before:
            self._fit(self._growth.count)
        if self.wanted != places:
            self.log.info(
                "session with {address}: {count} connections from now on, {before} before",
                address=self._address,
                count=self.wanted,
                before=places,
            )
        if now - self._used_at < 2 * self._limits.grow_forget:
            self._growing = self._clock.callLater(self._limits.grow_look, self._grow)

    def fresh_session(self) -> None:
        """Another session has been opened."""
        self._growth.begin_again(self._clock.seconds())

    def is_enough(self) -> bool:
        """
        The server takes no more of a session.

        @return: whether that is no trouble, since more were only tried.
        """
        if self._growth.count <= self._limits.subflows:
            return False
        self._growth.take_no_more_than(sum(place.is_up for place in self.places))
        self._fit(self._growth.count)
        return True


def _is_backup(path: Path) -> bool:
    return path.way.role is PathRole.BACKUP


def _in_turn(rows: Sequence[Sequence[Place]]) -> list[Place]:
    """The first of each, then the second of each, and so on."""
    columns = zip_longest(*rows)
    return [place for column in columns for place in column if place is not None]
