"""L{stripetwist.net.opener}: the seam, through a session and under observation."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.opener import SessionOpener, Witness

WEB = OpenRequest(Target.of("example.test", 80), key_id="laptop")


class Way:
    """An opener with one answer."""

    def __init__(self, answer: "Deferred[Any]") -> None:
        self.answer = answer

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """No datagrams are asked for here."""
        raise NotImplementedError

    def open(self, request: OpenRequest) -> "Deferred[Any]":
        """See L{Opener.open}."""
        return self.answer


class SessionOpenerTests(SynchronousTestCase):
    """Opens that may have to wait for a session."""

    def test_waits_for_the_session(self) -> None:
        """The session is asked once there is one."""
        up: Deferred[Any] = Deferred()
        opening = SessionOpener(lambda: up).open(WEB)
        self.assertNoResult(opening)
        up.callback(Way(succeed("a transport")))
        self.assertEqual(self.successResultOf(opening), "a transport")

    def test_no_session(self) -> None:
        """Why there is none is why it is refused."""
        why = OpenRefused(Code.NET_UNREACHABLE, "no connection to the server: of this test")
        opening = SessionOpener(lambda: fail(why)).open(WEB)
        self.assertIs(self.failureResultOf(opening).value, why)

    def test_cancelled(self) -> None:
        """Cancelling reaches whoever is waited for: first the session, then the target."""
        done: list[str] = []
        for stage in ("session", "target"):
            waiting: Deferred[Any] = Deferred(lambda _, s=stage: done.append(s))  # type: ignore[misc]
            up = waiting if stage == "session" else succeed(Way(waiting))
            opening = SessionOpener(lambda u=up: u).open(WEB)  # type: ignore[misc]
            opening.cancel()
            self.failureResultOf(opening, CancelledError)
        self.assertEqual(done, ["session", "target"])


class WitnessTests(SynchronousTestCase):
    """What is logged of opens."""

    def opened(self, answer: "Deferred[Any]", targets: bool = False) -> list[tuple[Any, str]]:
        """Open through a witness; the levels and lines that were logged."""
        witness = Witness(Way(answer))
        witness.targets = targets
        with capturedLogs() as logs:
            self.opening = witness.open(WEB)
            self.opening.addErrback(lambda failure: failure.trap(OpenRefused, CancelledError))
        return [(event["log_level"], str(formatEvent(event))) for event in logs]

    def test_reached(self) -> None:
        """Targets are for debugging, unless told otherwise; the transport is passed on."""
        line = "laptop: reached example.test:80"
        self.assertEqual(self.opened(succeed("it")), [(LogLevel.debug, line)])
        self.assertEqual(self.successResultOf(self.opening), "it")
        self.assertEqual(self.opened(succeed("it"), True), [(LogLevel.info, line)])

    def test_refused(self) -> None:
        """The same for what was not reached."""
        why = OpenRefused(Code.REFUSED_BY_TARGET, "example.test:80 refused the connection")
        line = "laptop: example.test:80 refused the connection"
        self.assertEqual(self.opened(fail(why)), [(LogLevel.debug, line)])
        self.assertEqual(self.opened(fail(why), True), [(LogLevel.info, line)])

    def test_given_up(self) -> None:
        """Nothing is said of what nobody waits for any more."""
        self.assertEqual(self.opened(fail(CancelledError()), True), [])
