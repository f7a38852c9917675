"""L{stripetwist.net.drain}: ending in good order."""

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.net.drain import Drain


class Reactor:
    """What a drain needs of a reactor."""

    def __init__(self) -> None:
        self.stopped = 0

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        """Signal handlers may not do more than this."""
        call(*args)

    def stop(self) -> None:
        """Count it."""
        self.stopped += 1


class DrainTestCase(SynchronousTestCase):
    """A drain of something that can be busy."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = Reactor()
        self.left = 0
        self.reloaded = 0
        self.ended = 0
        self.busy = True
        limits = replace(Limits(), drain_timeout=30.0)
        self.drain = Drain(
            self.reactor, self.clock, limits, self.leave, lambda: not self.busy, self.reload
        )

    def leave(self) -> None:
        """Count it."""
        self.left += 1

    def reload(self) -> None:
        """Count it."""
        self.reloaded += 1

    def end(self) -> None:
        """Count it."""
        self.ended += 1

    def assert_ended(self, cut: bool) -> None:
        """It has ended, once, and looks no more."""
        self.assertEqual((self.ended, self.drain.cut), (1, cut))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AskedTests(DrainTestCase):
    """Being asked to end."""

    def test_idle(self) -> None:
        """Where nothing is carried the end comes at once, without a word."""
        self.busy = False
        with capturedLogs() as logs:
            self.drain.asked(self.end)
        self.assertEqual((self.left, logs), (1, []))
        self.assert_ended(cut=False)

    def test_busy(self) -> None:
        """Else it waits, and says so; the end comes when the last stream has finished."""
        with capturedLogs() as logs:
            self.drain.asked(self.end)
        self.assertEqual(len(logs), 1)
        self.assertIn("up to 30 s for streams", str(formatEvent(logs[0])))
        self.clock.pump([0.1] * 100)
        self.assertEqual((self.left, self.ended), (1, 0))
        self.busy = False
        self.clock.advance(0.1)
        self.assert_ended(cut=False)

    def test_too_long(self) -> None:
        """After 30 s it ends all the same, and knows that streams were cut."""
        self.drain.asked(self.end)
        self.clock.pump([0.1] * 298)
        self.assertEqual(self.ended, 0)
        self.clock.pump([0.1] * 3)
        self.assert_ended(cut=True)

    def test_twice(self) -> None:
        """A second signal ends it at once; a third changes nothing."""
        self.drain.asked(self.end)
        self.clock.advance(1)
        self.drain.asked(self.end)
        self.assert_ended(cut=True)
        self.busy = False
        self.drain.asked(self.end)
        self.assert_ended(cut=True)
        self.assertEqual(self.left, 1)

    def test_broken(self) -> None:
        """Should looking fail, the process does not live for ever."""
        calls = iter([False])
        self.drain._is_idle = lambda: next(calls)
        self.drain.asked(self.end)
        self.assert_ended(cut=True)
        self.assertEqual(len(self.flushLoggedErrors(StopIteration)), 1)


class SignalTests(DrainTestCase):
    """The signals themselves."""

    def setUp(self) -> None:
        super().setUp()
        self.came: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def handle(self, number: int) -> None:
        """What Python does when a signal comes."""
        handler: Any = signal.getsignal(number)
        handler(number, None)

    def test_terminated(self) -> None:
        """TERM and INT drain, then do what they would have done without us."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.busy = False
            signal.signal(number, lambda number, frame: self.came.append(number))
            Drain(
                self.reactor, self.clock, Limits(), self.leave, lambda: True, self.reload
            ).install()
            self.handle(number)
            self.assertEqual(self.came.pop(), number)
        self.assertEqual((self.left, self.reactor.stopped), (2, 0))

    def test_nobody_else(self) -> None:
        """Where there was no handler the reactor is stopped."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.drain.install()
        self.busy = False
        self.handle(signal.SIGTERM)
        self.assertEqual(self.reactor.stopped, 1)

    def test_hung_up(self) -> None:
        """HUP reads files again, and ends nothing."""
        self.drain.install()
        self.handle(signal.SIGHUP)
        self.handle(signal.SIGHUP)
        self.assertEqual((self.reloaded, self.left), (2, 0))
