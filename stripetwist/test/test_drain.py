"""L{stripetwist.net.drain}: how a process ends."""

import signal
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from stripetwist.core.config import Limits
from stripetwist.net.drain import Drain
from stripetwist.test.process_case import ProcessTestCase

LIMITS = Limits()


class DrainTestCase(ProcessTestCase):
    """
    Work that ends when a test says so.

    @ivar busy: whether streams are carried.
    @ivar did: what the drain did, in order.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.busy = True
        self.did: list[str] = []
        self.drain = Drain(
            self.reactor,
            self.clock,
            LIMITS,
            lambda: self.did.append("leave"),
            lambda: not self.busy,
            lambda: self.did.append("reload"),
        )

    def ask(self) -> None:
        """Somebody wants it to end."""
        self.drain.asked(lambda: self.did.append("end"))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.1] * round(seconds * 10))

    def tearDown(self) -> None:
        """No timer is left of it."""
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WaitTests(DrainTestCase):
    """How long it waits, and for what."""

    def test_idle(self) -> None:
        """What has nothing to do ends at once, and says nothing."""
        self.busy = False
        with capturedLogs() as logs:
            self.ask()
        self.assertEqual(self.did, ["leave", "end"])
        self.assertFalse(self.drain.cut)
        self.assertEqual(logs, [])

    def test_until_streams_have_finished(self) -> None:
        """It ends within a moment of the last one."""
        with capturedLogs() as logs:
            self.ask()
            self.wait(5)
            self.assertEqual(self.did, ["leave"])
            self.busy = False
            self.wait(0.1)
        self.assertEqual(self.did, ["leave", "end"])
        self.assertFalse(self.drain.cut)
        self.assertEqual(
            [formatEvent(event) for event in logs],
            ["waiting up to 30 s for streams to finish; a second signal ends at once"],
        )

    def test_no_longer_than_its_time(self) -> None:
        """Then it cuts what is left, and says so."""
        self.assertEqual(LIMITS.drain_timeout, 30)
        self.ask()
        self.wait(29.8)
        self.assertEqual(self.did, ["leave"])
        with capturedLogs() as logs:
            self.wait(0.4)
        self.assertEqual(self.did, ["leave", "end"])
        self.assertTrue(self.drain.cut)
        self.assertEqual(
            [formatEvent(event) for event in logs], ["streams that had not finished are cut"]
        )

    def test_second_time(self) -> None:
        """Ends at once, with streams or without."""
        self.ask()
        self.ask()
        self.assertEqual(self.did, ["leave", "end"])
        self.assertTrue(self.drain.cut)

    def test_second_time_with_nothing_left(self) -> None:
        """Nothing was cut then."""
        self.ask()
        self.busy = False
        self.ask()
        self.assertEqual((self.did, self.drain.cut), (["leave", "end"], False))

    def test_third_time(self) -> None:
        """It has ended already."""
        for _ in range(3):
            self.ask()
        self.assertEqual(self.did, ["leave", "end"])


class BrokenTests(DrainTestCase):
    """Whatever goes wrong, the process ends."""

    def test_leaving_goes_wrong(self) -> None:
        """The rest is waited for all the same."""

        def broken() -> None:
            raise ValueError("of this test")

        self.drain._leave = broken
        self.ask()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.busy = False
        self.wait(0.1)
        self.assertEqual(self.did, ["end"])

    def test_looking_goes_wrong(self) -> None:
        """It does not wait for what it cannot see."""
        self.ask()

        def broken() -> bool:
            raise ValueError("of this test")

        self.drain._is_idle = broken
        self.wait(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((self.did, self.drain.cut), (["leave", "end"], True))


class SignalTests(DrainTestCase):
    """What signals do."""

    def setUp(self) -> None:
        super().setUp()
        self.ends: list[int] = []

        def end(number: int, frame: Any) -> None:
            self.ends.append(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        self.drain.watch()
        self.reactor.start()

    def test_first_and_second(self) -> None:
        """The first drains, the second ends, as Twisted's own handler of the first would."""
        for first, second in ((signal.SIGTERM, signal.SIGINT),):
            self.signalled(first)
            self.assertEqual((self.did, self.ends), (["leave"], []))
            self.signalled(second)
            self.assertEqual(self.ends, [first])

    def test_idle(self) -> None:
        """One is enough."""
        self.busy = False
        self.signalled(signal.SIGINT)
        self.assertEqual(self.ends, [signal.SIGINT])

    def test_hang_up(self) -> None:
        """Files are read again, and nothing ends."""
        self.signalled(signal.SIGHUP, signal.SIGHUP)
        self.assertEqual((self.did, self.ends), (["reload", "reload"], []))

    def test_without_a_handler_before(self) -> None:
        """The reactor is stopped."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.drain.install()
        self.busy = False
        self.signalled(signal.SIGTERM)
        self.assertEqual(self.reactor.stops, 1)
