"""L{stripetwist.foreground}: work with an end, on a reactor of its own."""

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist import foreground


class Reactor(MemoryReactorClock):
    """Runs what was to be run, then ends as if by a signal, if it has not already."""

    def run(self) -> None:
        """All of its life."""
        with contextlib.suppress(ReactorNotRunning):
            super().run()

    def stop(self) -> None:
        """The end; only once."""
        if self.hasStopped:
            raise ReactorNotRunning
        super().stop()
        for phase in self.triggers.get("before", {}).values():
            for call, args, kwargs in phase:
                call(*args, **kwargs)


class RunTests(SynchronousTestCase):
    """How it ends."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.put_away: list[bool] = []

    def run_work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it; signals are left as they are."""
        with patch("signal.signal") as handlers:
            try:
                foreground.run(self.reactor, work)
            finally:
                self.handlers = handlers.call_count

    async def for_ever(self) -> None:
        """Work that has no end of its own."""
        try:
            await Deferred()
        finally:
            self.put_away.append(True)

    def test_done(self) -> None:
        """The reactor stops with the work."""

        async def work() -> None: ...

        self.run_work(work)
        self.assertTrue(self.reactor.hasStopped)
        self.assertEqual(self.handlers, 0)

    def test_failed(self) -> None:
        """The error is the caller's."""

        async def work() -> None:
            raise ValueError("of this test")

        self.assertRaises(ValueError, self.run_work, work)
        self.assertTrue(self.reactor.hasStopped)

    def test_failed_to_begin(self) -> None:
        """Also if there is nothing yet that could be awaited."""

        def work() -> Coroutine[Any, Any, None]:
            raise ValueError("of this test")

        self.assertRaises(ValueError, self.run_work, work)

    def test_interrupted(self) -> None:
        """The work may put its things away; the next signal would not wait for that."""
        self.assertRaises(KeyboardInterrupt, self.run_work, self.for_ever)
        self.assertEqual((self.put_away, self.handlers), ([True], 2))


class _Slow(Service):
    """A service that takes its time to stop."""

    def __init__(self, stopped: Deferred[None]) -> None:
        self.stopped = stopped

    def stopService(self) -> Deferred[None]:
        """It will."""
        return self.stopped


class PutAwayTests(SynchronousTestCase):
    """How services are stopped."""

    def test_waited_for(self) -> None:
        """Until it has stopped."""
        clock, stopped = Clock(), Deferred[None]()
        done = Deferred.fromCoroutine(foreground.put_away(_Slow(stopped), clock))
        self.assertNoResult(done)
        stopped.callback(None)
        self.successResultOf(done)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_not_for_long(self) -> None:
        """A second is enough."""
        clock = Clock()
        done = Deferred.fromCoroutine(foreground.put_away(_Slow(Deferred()), clock))
        clock.advance(1.0)
        self.successResultOf(done)
