"""Names to addresses, off the reactor's thread, within a time."""

import errno
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime

from stripetwist.core.errors import Code, OpenRefused, printable
from stripetwist.core.zones import Address, is_loopback_name, plain

Outcome = list[Address] | OpenRefused
InThread = Callable[[Callable[[], Outcome], Callable[[Outcome], None]], None]
Lookup = Callable[..., list[tuple[Any, ...]]]

LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

# An answer is good for the connections that a page opens together, not for longer.
KEPT_FOR = 5.0
MOST_KEPT = 1024
# One of those who ask may have this many times what is left.
_SHARE = 2
# A zone may list thousands for one name; nobody dials so many.
MOST_ADDRESSES = 128

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_UNKNOWN = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


def daemon_threads(reactor: IReactorFromThreads) -> InThread:
    """
    Runs each piece of work in a thread of its own, and what it returns back in the reactor's.

    Daemon threads: one that hangs in the system's resolver does not keep the process.  A
    thread costs far less than a lookup, so that none is kept for the next.
    """

    def run(work: Callable[[], Outcome], done: Callable[[Outcome], None]) -> None:
        def body() -> None:
            reactor.callFromThread(done, work())

        Thread(target=body, name="stripetwist lookup", daemon=True).start()

    return run


def is_short_of_descriptors() -> bool:
    """Whether no socket can be made: a lookup then says that the name does not exist."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError:
        return True
    return False


def look_up(lookup: Lookup, name: str) -> Outcome:
    """
    Ask the system; blocks, and raises nothing.

    The name goes down as bytes: the codec of C{str} names has limits of its own, folds
    characters, and would have to be imported when perhaps no file can be opened any more.
    """
    try:
        rows = lookup(name.encode("ascii"), None, socket.AF_UNSPEC, socket.SOCK_STREAM)
        # A scope after the address ("%eth0") is of no use to anyone but this machine.
        found = [plain(ip_address(str(row[4][0]).partition("%")[0])) for row in rows]
    except Exception as error:  # noqa: BLE001 - whatever it is, the waiters must hear of it
        return _refusal(name, error)
    return list(dict.fromkeys(found))[:MOST_ADDRESSES] or _no_address(name)


def _no_address(name: str) -> OpenRefused:
    return OpenRefused(Code.DNS_FAIL, f"{printable(name, 80)} has no address: no such name")


def _refusal(name: str, error: Exception) -> OpenRefused:
    """What a failed lookup means to whoever asked."""
    shown = printable(name, 80)
    short = isinstance(error, OSError) and error.errno in _SHORTAGES
    if short or isinstance(error, MemoryError) or is_short_of_descriptors():
        why = "the exit is out of file descriptors or memory; raise its limit (ulimit -n)"
        return OpenRefused(Code.OVERLOAD, f"{shown} was not looked up: {why}")
    if isinstance(error, socket.gaierror):
        if error.errno in _UNKNOWN:
            return _no_address(name)
        if error.errno == socket.EAI_AGAIN:
            why = "the exit's name server gave no answer; try again"
            return OpenRefused(Code.DNS_FAIL, f"{shown} could not be looked up: {why}")
    why = printable(str(error) or type(error).__name__, 100)
    return OpenRefused(Code.DNS_FAIL, f"{shown} could not be looked up: {why}")


def _count_down(counter: Counter[str], key: str) -> None:
    """One less; what is at nothing is forgotten."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


class _Question:
    """
    One name that is being looked up, and all who wait for it.

    @ivar asker: on whose behalf it was asked first.
    @ivar waiters: each with the end of its patience.
    @ivar overdue: ends the time that the thread may count as busy; C{None} while queued.
    @ivar hangs: that time is over.
    """

    __slots__ = ("asker", "hangs", "name", "overdue", "waiters")

    def __init__(self, name: str, asker: str) -> None:
        self.name = name
        self.asker = asker
        self.waiters: dict[Deferred[list[Address]], IDelayedCall] = {}
        self.overdue: IDelayedCall | None = None
        self.hangs = False

    def settle(self, outcome: Outcome) -> None:
        """Tell everyone who still waits."""
        waiters, self.waiters = self.waiters, {}
        for patience in waiters.values():
            patience.cancel()
        for waiter in waiters:
            if waiter.called:  # by the callback of another one, which cancelled it
                continue
            if isinstance(outcome, OpenRefused):
                waiter.errback(OpenRefused(outcome.code, outcome.sentence))
            else:
                waiter.callback(list(outcome))


class Resolver:
    """
    The addresses of names, by the system's own lookup in threads of our own.

    Whoever asks hears within C{timeout}, even if the thread never comes back.  Those who
    ask for the same name wait for the same lookup.  A lookup that takes longer gives its
    place to the next in the queue; at most as many threads hang as may work.  Nobody who
    asks has more than twice what is left of the threads and of the queue, so that something
    is left for the next (dynamic thresholds, Choudhury and Hahne 1998).  An answer is kept
    for C{KEPT_FOR} seconds, a failure never.

    @ivar failed: lookups that came back without an address.
    @ivar timed_out: waiters who heard nothing in time.
    @ivar busy: threads at work now, the hanging ones included.
    @ivar hanging: threads whose lookup is overdue.
    """

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: InThread,
        lookup: Lookup = socket.getaddrinfo,
        timeout: float = 5.0,
        threads: int = 64,
        waiting: int = 1024,
    ) -> None:
        """
        @param in_thread: see L{daemon_threads}.
        @param threads: how many lookups may be under way, overdue ones not counted.
        @param waiting: how many further names may be queued.
        """
        self._clock = clock
        self._in_thread = in_thread
        self._lookup = lookup
        self._timeout = timeout
        self._threads = threads
        self._most_queued = waiting
        self._queued_by: Counter[str] = Counter()
        self._busy_by: Counter[str] = Counter()
        self._hanging_by: Counter[str] = Counter()
        self._open: dict[str, _Question] = {}
        self._queue: dict[str, _Question] = {}
        self._hung: set[_Question] = set()
        self._kept: dict[str, tuple[float, list[Address]]] = {}
        self._starting = self._stopped = False
        self.failed = self.timed_out = 0
        self.busy = self.hanging = 0

    def resolve(self, name: str, asker: str = "") -> Deferred[list[Address]]:
        """
        The addresses of a name that C{parse_host} has passed, best first, at least one.

        @param asker: on whose behalf; others are not held up by this one.
        @return: fails with L{OpenRefused}; may be cancelled.
        """
        if is_loopback_name(name):
            return succeed(list(LOOPBACK))
        until, kept = self._kept.get(name, (0.0, []))
        if kept and self._clock.seconds() < until:
            return succeed(list(kept))
        question = self._open.get(name)
        if self._stopped or (question is None and self._is_full(asker)):
            return fail(self._turned_away(name))
        if question is None:
            question = self._open[name] = self._queue[name] = _Question(name, asker)
            self._queued_by[asker] += 1
        waiter = self._join(question)
        self._start_queued()
        return waiter

    def stop(self) -> None:
        """Refuse everyone who waits, now and later; threads that hang are left to themselves."""
        self._stopped = True
        questions = [*self._open.values(), *self._hung]
        self._open.clear()
        self._queue.clear()
        self._queued_by.clear()
        self._kept.clear()
        for question in questions:
            if question.overdue is not None and question.overdue.active():
                question.overdue.cancel()
            question.settle(self._turned_away(question.name))

    def _turned_away(self, name: str) -> OpenRefused:
        shown = printable(name, 80)
        if self._stopped:
            return OpenRefused(Code.GOING_AWAY, f"{shown} was not looked up: the exit stops")
        why = "too many names wait for the exit's name server"
        return OpenRefused(Code.OVERLOAD, f"{shown} was not looked up: {why}; try again")

    def _join(self, question: _Question) -> Deferred[list[Address]]:
        waiter: Deferred[list[Address]] = Deferred(partial(self._leave, question))
        question.waiters[waiter] = self._clock.callLater(
            self._timeout, self._give_up, question, waiter
        )
        return waiter

    def _leave(self, question: _Question, waiter: Deferred[list[Address]]) -> None:
        """The waiter was cancelled, or its time is over; what nobody wants is not begun."""
        patience = question.waiters.pop(waiter, None)
        if patience is not None and patience.active():
            patience.cancel()
        if not question.waiters and self._queue.get(question.name) is question:
            self._unqueue(question)
            del self._open[question.name]

    def _give_up(self, question: _Question, waiter: Deferred[list[Address]]) -> None:
        self.timed_out += 1
        self._leave(question, waiter)
        why = f"no answer from the exit's name server within {self._timeout:g} s"
        shown = printable(question.name, 80)
        waiter.errback(OpenRefused(Code.DNS_TIMEOUT, f"{shown} could not be looked up: {why}"))

    def _start_queued(self) -> None:
        """Give the oldest names to threads, as far as there is room; never nested."""
        if self._starting:
            return
        self._starting = True
        try:
            while self._has_room() and (question := self._next()) is not None:
                self._unqueue(question)
                self._start(question)
        finally:
            self._starting = False

    def _next(self) -> _Question | None:
        """The oldest whose asker has not its share under way."""
        return next((one for one in self._queue.values() if self._has_share(one.asker)), None)

    def _unqueue(self, question: _Question) -> None:
        del self._queue[question.name]
        _count_down(self._queued_by, question.asker)

    def _has_share(self, asker: str) -> bool:
        """Whether one more thread leaves something for others."""
        busy, hanging = self._busy_by[asker], self._hanging_by[asker]
        working, left = busy - hanging, self._threads - (self.busy - self.hanging)
        return working < _SHARE * left and busy < _SHARE * (2 * self._threads - self.busy)

    def _is_full(self, asker: str) -> bool:
        if self._has_room() and self._has_share(asker):
            return False
        return self._queued_by[asker] >= _SHARE * (self._most_queued - len(self._queue))

    def _has_room(self) -> bool:
        return self.busy - self.hanging < self._threads and self.busy < 2 * self._threads

    def _start(self, question: _Question) -> None:
        self.busy += 1
        self._busy_by[question.asker] += 1
        question.overdue = self._clock.callLater(self._timeout, self._now_hangs, question)
        done = partial(self._answered, question)
        try:
            self._in_thread(partial(look_up, self._lookup, question.name), done)
        except Exception as error:  # noqa: BLE001 - no thread can be had: a refusal, no hang
            shown, why = printable(question.name, 80), printable(str(error), 80)
            done(OpenRefused(Code.OVERLOAD, f"{shown} was not looked up: {why}"))

    def _now_hangs(self, question: _Question) -> None:
        """The next to ask for this name begins anew, and the next in the queue may start."""
        question.hangs = True
        self.hanging += 1
        self._hanging_by[question.asker] += 1
        self._hung.add(question)
        if self._open.get(question.name) is question:
            del self._open[question.name]
        self._start_queued()

    def _answered(self, question: _Question, outcome: Outcome) -> None:
        """The thread is back."""
        self.busy -= 1
        _count_down(self._busy_by, question.asker)
        if question.hangs:
            self.hanging -= 1
            _count_down(self._hanging_by, question.asker)
            self._hung.discard(question)
        elif question.overdue is not None and question.overdue.active():
            question.overdue.cancel()
        if self._open.get(question.name) is question:
            del self._open[question.name]
        if isinstance(outcome, OpenRefused):
            self.failed += 1
        elif not self._stopped:
            self._keep(question.name, outcome)
        self._start_queued()
        question.settle(outcome)

    def _keep(self, name: str, addresses: list[Address]) -> None:
        self._kept.pop(name, None)
        self._kept[name] = (self._clock.seconds() + KEPT_FOR, addresses)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
