"""L{stripetwist.net.logs}: how much is logged."""

from typing import Any

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.logs import limit_level
from stripetwist.test.process_case import Beginner


class LimitTests(SynchronousTestCase):
    """What gets through to an observer that twistd makes later."""

    def passed(self, level: str) -> list[str]:
        """The levels of which an event gets through."""
        got: list[Any] = []
        beginner = Beginner()
        limit_level(beginner, level)
        beginner.beginLoggingTo([got.append], redirectStandardIO=False)
        log = Logger("stripetwist.probe", observer=LogPublisher(*beginner.observers))
        for each in LogLevel.iterconstants():
            log.emit(each, "an event")
        return [event["log_level"].name for event in got]

    def test_a_level_and_what_is_worse(self) -> None:
        """As the option says."""
        levels = ["debug", "info", "warn", "error", "critical"]
        for at, level in enumerate(levels):
            self.assertEqual(self.passed(level), levels[at:])

    def test_every_observer_is_limited(self) -> None:
        """Also when there are several."""
        first: list[Any] = []
        second: list[Any] = []
        beginner = Beginner()
        limit_level(beginner, "warn")
        beginner.beginLoggingTo([first.append, second.append])
        log = Logger("stripetwist.probe", observer=LogPublisher(*beginner.observers))
        log.info("quiet")
        log.warn("loud")
        self.assertEqual([len(first), len(second)], [1, 1])

    def test_what_twisted_says_of_ports(self) -> None:
        """It is for debugging; what else it says is not."""
        of_ports = ["Acceptor (TLS) starting on 8443", "Relay starting on '/run/x'"]
        of_ports += ["(TCP Port 8443 Closed)", "(UNIX Port /run/my x Closed)"]
        of_ports += ["UdpForward (UDP) starting on 51820", "(UDP Port 51820 Closed)"]
        others = ["Unhandled", "an event of a Port"]
        self.assertEqual(self.told("info", of_ports + others), others)
        self.assertEqual(self.told("debug", of_ports + others), of_ports + others)

    def told(self, level: str, texts: list[str]) -> list[str]:
        """What gets through of what Twisted says."""
        got: list[Any] = []
        beginner = Beginner()
        limit_level(beginner, level)
        beginner.beginLoggingTo([got.append], redirectStandardIO=False)
        for text in texts:
            told = {"log_namespace": "log_legacy", "log_level": LogLevel.info}
            beginner.observers[0]({**told, "log_format": "{log_text}", "log_text": text})
        return [event["log_text"] for event in got]
