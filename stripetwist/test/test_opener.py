"""L{stripetwist.net.opener}: the seam, through a session and under observation."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.net.opener import MOST_TOLD, TELL_AGAIN, SessionOpener, Witness

WEB = OpenRequest(Target.of("example.test", 80), key_id="laptop")
TUNNEL = OpenRequest(Target.of("10.0.0.1", 51820), Kind.UDP, key_id="laptop")


class Way:
    """An opener with one answer."""

    def __init__(self, answer: "Deferred[Any]") -> None:
        self.answer = answer

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """See L{Associator.associate}."""
        return self.answer

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

    def opened(
        self, answer: "Deferred[Any]", targets: bool = False, request: OpenRequest = WEB
    ) -> list[tuple[Any, str]]:
        """Open through a witness; the levels and lines that were logged."""
        witness = Witness(Way(answer), Clock())
        witness.targets = targets
        with capturedLogs() as logs:
            self.opening = witness.open(request)
            self.opening.addErrback(lambda failure: failure.trap(OpenRefused, CancelledError))
        return [(event["log_level"], str(formatEvent(event))) for event in logs]

    def test_reached(self) -> None:
        """Targets are for debugging, unless told otherwise; the transport is passed on."""
        line = "laptop: reached example.test:80"
        self.assertEqual(self.opened(succeed("it")), [(LogLevel.debug, line)])
        self.assertEqual(self.successResultOf(self.opening), "it")
        self.assertEqual(self.opened(succeed("it"), True), [(LogLevel.info, line)])

    def test_not_waited_for(self) -> None:
        """An optimistic port goes on before the target has answered, and says no more than that."""
        asked = replace(WEB, at_once=True)
        lines = self.opened(succeed("it"), True, asked)
        self.assertEqual(lines, [(LogLevel.info, "laptop: asks for example.test:80")])

    def test_refused(self) -> None:
        """The same for what was not reached."""
        why = OpenRefused(Code.REFUSED_BY_TARGET, "example.test:80 refused the connection")
        line = "laptop: example.test:80 refused the connection"
        self.assertEqual(self.opened(fail(why)), [(LogLevel.debug, line)])
        self.assertEqual(self.opened(fail(why), True), [(LogLevel.info, line)])

    def test_given_up(self) -> None:
        """Nothing is said of what nobody waits for any more."""
        self.assertEqual(self.opened(fail(CancelledError()), True), [])

    def associated(self, *whys: str, request: OpenRequest = TUNNEL) -> list[str]:
        """Ask for an association that is refused with these words in turn; what is logged."""
        answers: list[Deferred[Any]] = [
            fail(OpenRefused(Code.NOT_ALLOWED, why)) if why else succeed("it") for why in whys
        ]
        way = Way(answers[0])
        witness = Witness(way, Clock())
        witness.targets = True
        with capturedLogs() as logs:
            for way.answer in answers:
                witness.associate(request).addErrback(lambda failure: failure.trap(OpenRefused))
        return [str(formatEvent(event)) for event in logs]

    def test_asked_again(self) -> None:
        """A UDP port asks until it has its association: each refusal is logged once in a row."""
        lines = self.associated("not this", "not this", "not that", "", "not that", "not that")
        said = ["not this", "not that", "reached 10.0.0.1:51820", "not that"]
        self.assertEqual(lines, [f"laptop: {one}" for one in said])

    def test_asked_again_later(self) -> None:
        """Some minutes after a refusal was logged it is logged again: its reader may be new."""
        witness = Witness(way := Way(succeed("it")), clock := Clock())
        told = []
        for _ in range(9):
            way.answer = fail(OpenRefused(Code.NOT_ALLOWED, "no"))
            with capturedLogs() as logs:
                asking = witness.associate(TUNNEL)
            asking.addErrback(lambda failure: failure.trap(OpenRefused))
            told.append(len(logs))
            clock.advance(TELL_AGAIN / 4)
        self.assertEqual(told, [1, 0, 0, 0, 1, 0, 0, 0, 1])

    def test_asked_by_programs(self) -> None:
        """Each SOCKS client that is refused is logged: it has asked once."""
        anywhere = OpenRequest(ANYWHERE, Kind.UDP, key_id="laptop")
        self.assertEqual(len(self.associated("no", "no", request=anywhere)), 2)

    def test_asked_by_many(self) -> None:
        """What is remembered for that is bounded; who was refused longest ago is told again."""
        witness = Witness(way := Way(succeed("it")), Clock())
        ports = [*range(1, MOST_TOLD + 2), MOST_TOLD + 1, 1]
        with capturedLogs() as logs:
            for port in ports:
                way.answer = fail(OpenRefused(Code.NOT_ALLOWED, "no"))
                asked = OpenRequest(Target.of("10.0.0.1", port), Kind.UDP)
                witness.associate(asked).addErrback(lambda failure: failure.trap(OpenRefused))
        self.assertEqual(len(logs), MOST_TOLD + 2)
