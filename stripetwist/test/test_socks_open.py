"""The proxy port between the request and the relay, and its end."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code
from stripetwist.core.socks5 import MAX_HELD, SUCCESS, reply
from stripetwist.net.socks import SocksFactory
from stripetwist.test.socks_case import (
    GREETING,
    LIMITS,
    LOGIN,
    LOGIN_GREETING,
    REQUEST,
    TARGET,
    WRONG_LOGIN,
    FrontCase,
    Wire,
    far_wire,
    request_for,
)


class OpenTests(FrontCase):
    """Between the request and the target's answer."""

    def opening(self, *pieces: bytes, front: SocksFactory | None = None) -> Wire:
        """A client whose target has not answered."""
        return self.client(GREETING, REQUEST, *pieces, front=front)

    def test_every_refusal_has_its_reply(self) -> None:
        """M01 to M10: the code's number, never before the opener has said it."""
        expected = {n: n for n in range(1, 9)} | {10: 4, 11: 4, 13: 3}
        for code in Code:
            wire = self.opening()
            self.assertEqual(wire.said, b"\x05\x00")
            self.opener.refuse(code)
            self.assert_closed_with(wire.turn(), b"\x05\x00" + reply(expected.get(code, 1)))
            self.assertEqual(self.front.refused[code], 1)
        self.assertEqual(self.front.opened, 0)

    def test_the_reason_stands_in_the_log(self) -> None:
        """Once, escaped."""
        self.opening()
        self.opener.refuse(Code.NOT_ALLOWED, "vps refused 10.0.0.1:80: a private\x1b address")
        self.assertEqual(self.texts(), ["refused: vps refused 10.0.0.1:80: a private\\x1b address"])

    def test_a_reason_that_says_so_itself(self) -> None:
        """It stands behind what is ours, and nothing is refused twice."""
        self.opening()
        self.opener.refuse(Code.NOT_ALLOWED, "10.0.0.1:80 is refused: a private address")
        self.assertEqual(self.texts(), ["refused: 10.0.0.1:80: a private address"])

    def test_targets_are_logged_at_debug_only(self) -> None:
        """Who talks to whom is nobody's business."""
        self.opening()
        self.opener.accept()
        self.assertNotIn(str(TARGET), "".join(self.texts()))
        self.assertIn(str(TARGET), "".join(self.texts(LogLevel.debug)))

    def test_the_time_of_the_dialogue_does_not_run_on(self) -> None:
        """A slow open has its own time."""
        wire = self.opening()
        self.later(wire, LIMITS.reply_timeout - 0.1)
        self.assertEqual(wire.end, "")
        self.opener.accept()
        self.assertEqual(wire.turn().said[2:], SUCCESS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """R38: told as a timeout, and the open is cancelled."""
        wire = self.opening()
        self.later(wire, LIMITS.reply_timeout)
        self.assertEqual(self.opener.cancelled, 1)
        self.assert_closed_with(wire, b"\x05\x00" + reply(6))
        self.assertEqual(self.front.refused, {Code.TIMEOUT: 1})

    def test_an_answer_that_comes_with_the_cancelling(self) -> None:
        """R38: a transport that nobody waits for is aborted, not leaked."""
        self.opener.late = late = far_wire()
        self.later(self.opening(), LIMITS.reply_timeout)
        self.assertEqual((late.turn().end, self.couplings), ("aborted", []))
        self.opener.late = later = far_wire()
        self.opening().rst()
        self.assertEqual(later.turn().end, "aborted")

    def test_a_client_that_is_gone_cancels_the_open(self) -> None:
        """R37."""
        wire = self.opening().rst()
        self.assertEqual((wire.said, self.opener.cancelled), (b"\x05\x00", 1))
        self.assertEqual(self.texts(), [])
        self.assert_nothing_left()

    def test_a_half_closed_client_waits_for_its_answer(self) -> None:
        """R36, D01, D13: its last bytes and its FIN go to the target, its reply comes."""
        wire = self.opening(b"bye").fin()
        self.assertEqual((wire.end, self.opener.cancelled), ("", 0))
        self.opener.accept()
        self.assertEqual(wire.turn().said, b"\x05\x00" + SUCCESS)
        (coupling,) = self.couplings
        self.assertEqual((coupling.early, coupling.early_eof), (b"bye", True))

    def test_a_half_closed_client_is_told_of_the_failure(self) -> None:
        """And closed right then, for it has nothing more to say."""
        wire = self.opening().fin()
        self.opener.refuse(Code.REFUSED_BY_TARGET)
        self.assertEqual((wire.turn().said, wire.end), (b"\x05\x00" + reply(5), "closed"))
        self.assert_nothing_left()

    def test_without_early_bytes_nothing_is_handed_on(self) -> None:
        """The usual client waits for the reply."""
        self.opening()
        self.opener.accept()
        (coupling,) = self.couplings
        self.assertEqual((coupling.early, coupling.early_eof), (b"", False))
        self.assertIs(coupling.clock, self.clock)
        self.assertIs(coupling.limits, LIMITS)

    def test_a_burst_is_bounded(self) -> None:
        """S13, K04: at most 64 KiB are kept, the rest waits in the kernel; nothing is lost."""
        data = bytes(range(256)) * 400
        wire = self.client(GREETING + REQUEST + data)
        self.assertFalse(wire.is_read)
        self.opener.accept()
        (coupling,) = self.couplings
        self.assertEqual(len(coupling.early), MAX_HELD)
        self.assertEqual(coupling.early, data[:MAX_HELD])
        self.assertEqual(wire.unread, len(data) - MAX_HELD)
        self.assertEqual(wire.bufferSize, Wire.bufferSize)

    def test_a_paused_client_is_read_on_when_it_is_refused(self) -> None:
        """Otherwise our close would destroy the reply."""
        wire = self.client(GREETING + REQUEST + bytes(200_000))
        self.opener.refuse(Code.HOST_UNREACHABLE)
        self.assertEqual((wire.turn().unread, wire.end), (0, ""))
        self.assert_closed_with(wire, b"\x05\x00" + reply(4))

    def test_the_reply_comes_before_the_relay(self) -> None:
        """Whatever the relay writes at once stands behind it."""
        self.opener.answer = lambda: succeed(far_wire())
        self.front.couple = lambda near, far, **more: near.write(b"banner")
        self.assertEqual(self.opening().said, b"\x05\x00" + SUCCESS + b"banner")

    def test_an_answer_at_once(self) -> None:
        """An opener may fire before it returns, also behind a login."""
        self.opener.answer = lambda: succeed(far_wire())
        front = self.build(users=self.users)
        wire = self.client(LOGIN_GREETING + LOGIN + REQUEST + b"hello", front=front)
        self.assertEqual(wire.said, b"\x05\x02\x01\x00" + SUCCESS)
        self.assertEqual((self.couplings[0].early, front.opened), (b"hello", 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_opener_that_raises(self) -> None:
        """General failure; one line of what went wrong, the traceback at debug."""

        def broken() -> Deferred[Any]:
            raise ZeroDivisionError("by\nzero")

        self.opener.answer = broken
        self.assert_closed_with(self.opening(), b"\x05\x00" + reply(1))
        self.assertEqual(self.texts()[0], "an open failed: ZeroDivisionError: by\\nzero")
        self.assertNotIn("Traceback", "".join(self.texts()))
        self.assertIn("Traceback", "".join(self.texts(LogLevel.debug)))

    def test_an_open_that_fails_otherwise(self) -> None:
        """The same."""
        wire = self.opening()
        self.opener.opens[0].errback(Failure(RuntimeError("oops")))
        self.assert_closed_with(wire.turn(), b"\x05\x00" + reply(1))
        self.assertEqual(self.front.refused, {Code.GENERAL: 1})

    def test_a_relay_that_fails(self) -> None:
        """Our own mistake costs this connection alone, and is a failure in the log."""

        def broken(near: Any, far: Any, **more: Any) -> None:
            raise ZeroDivisionError

        self.front.couple = broken
        wire = self.opening()
        far = self.opener.accept()
        self.assertEqual((wire.turn().end, far.turn().end), ("aborted", "aborted"))
        self.assert_nothing_left()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OptimisticTests(FrontCase):
    """Saying connected before it is."""

    def setUp(self) -> None:
        """A port that does."""
        super().setUp()
        self.front = self.build(optimistic=True)

    def test_the_reply_does_not_wait(self) -> None:
        """And comes once."""
        wire = self.client(GREETING, REQUEST, b"hello")
        self.assertEqual(wire.said, b"\x05\x00" + SUCCESS)
        self.opener.accept()
        self.assertEqual(wire.turn().said, b"\x05\x00" + SUCCESS)
        self.assertEqual(self.couplings[0].early, b"hello")

    def test_a_refusal_is_a_reset(self) -> None:
        """What was said can't be taken back; the log and the counters know."""
        wire = self.client(GREETING, REQUEST)
        self.opener.refuse(Code.REFUSED_BY_TARGET, "nobody listens")
        self.assertEqual(wire.turn().end, "aborted")
        self.assertEqual(self.texts(), ["refused: nobody listens"])
        self.assertEqual(self.front.refused, {Code.REFUSED_BY_TARGET: 1})
        self.assert_nothing_left()

    def test_no_answer_is_a_reset(self) -> None:
        """After the same time."""
        wire = self.client(GREETING, REQUEST)
        self.later(wire, LIMITS.reply_timeout)
        self.assertEqual((wire.end, self.opener.cancelled), ("aborted", 1))
        self.assert_nothing_left()


class StopTests(FrontCase):
    """The end of the port."""

    def test_all_stages_are_closed(self) -> None:
        """Talking, opening, refused, coupled; the Deferred fires with the last."""
        talking, opening = self.client(GREETING), self.client(GREETING, REQUEST)
        refused, coupled = self.client(b"\x05\x00"), self.client(GREETING, REQUEST)
        self.opener.accept()
        done = self.guests.close_all()
        for wire in (talking, opening, refused, coupled):
            self.assertNoResult(done)
            self.assertEqual(wire.turn().end, "aborted")
        self.couplings[0].ended.callback(None)
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.opener.cancelled, 1)
        self.assert_nothing_left()

    def test_an_answer_after_the_abort(self) -> None:
        """A target that answers before the client's transport is gone is not coupled."""
        wire = self.client(GREETING, REQUEST)
        self.opener.late = late = far_wire()
        self.guests.close_all()
        self.assertEqual((late.turn().end, wire.turn().end), ("aborted", "aborted"))
        self.assertEqual(self.couplings, [])
        self.assert_nothing_left()

    def test_nothing_to_close(self) -> None:
        """Fires at once."""
        self.assertIsNone(self.successResultOf(self.guests.close_all()))

    def test_waiting_for_the_end_can_be_given_up(self) -> None:
        """A cancelled wait is forgotten."""
        wire = self.client()
        waiting = self.guests.close_all()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(wire.turn().end, "aborted")

    def test_a_relay_without_an_end(self) -> None:
        """Its connections are not counted, and not kept."""
        self.front.couple = lambda near, far, **more: None
        self.client(GREETING, REQUEST)
        self.opener.accept()
        self.assert_nothing_left()


class FuzzTests(SynchronousTestCase):
    """K03: anything, in any pieces."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.booleans(),
        st.sampled_from(
            [
                [],
                [GREETING, REQUEST],
                [GREETING + REQUEST[:7]],
                [LOGIN_GREETING, LOGIN],
                [LOGIN_GREETING + LOGIN + REQUEST],
            ]
        ),
        st.lists(
            st.one_of(
                st.sampled_from([GREETING, LOGIN_GREETING, LOGIN, WRONG_LOGIN, REQUEST]),
                st.sampled_from([request_for(b"example.com"), bytes(40_000)]),
                st.binary(max_size=300),
                st.sampled_from(["accept", "refuse", "fin", "rst", "second", "minute"]),
            ),
            max_size=12,
        ),
    )
    def test_nothing_raises_and_nothing_grows(
        self, login: bool, begin: list[bytes], acts: list[bytes | str]
    ) -> None:
        """Whatever a client does: no exception, no more than 64 KiB, and an end."""
        case = FrontCase()
        case.setUp()
        try:
            self.play(case, login, [*begin, *acts])
        finally:
            case.doCleanups()

    def play(self, case: FrontCase, login: bool, acts: list[bytes | str]) -> None:
        """One client's life."""
        case.front = case.build(users=case.users if login else None)
        wire = case.client()
        for act in acts:
            if isinstance(act, bytes):
                wire.send(act)
            else:
                self.act(case, wire, act)
            if not case.couplings:
                self.assertLessEqual(len(wire.protocol._dialogue._held), MAX_HELD)
        if case.couplings:
            self.assertLessEqual(len(case.couplings[0].early), MAX_HELD)
            case.couplings[0].ended.callback(None)
        for _ in range(4):
            case.later(wire, LIMITS.reply_timeout)
        case.assert_nothing_left()

    def act(self, case: FrontCase, wire: Wire, act: str) -> None:
        """Something other than bytes happens."""
        undecided = case.opener.opens and not case.opener.opens[-1].called
        if act == "accept" and undecided:
            case.opener.accept()
        elif act == "refuse" and undecided:
            case.opener.refuse(Code.NOT_ALLOWED)
        elif act in ("fin", "rst"):
            getattr(wire, act)()
        elif act in ("second", "minute"):
            case.clock.advance(1 if act == "second" else 60)
        wire.turn()
