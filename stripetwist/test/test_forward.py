"""L{stripetwist.net.forward}: a port, each connection to which leads to one target."""

from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import fail
from twisted.logger import LogLevel

from stripetwist.core.errors import Code
from stripetwist.core.target import OpenRequest
from stripetwist.net.forward import MAX_EARLY, ForwardFactory
from stripetwist.net.guests import Guests, Sources
from stripetwist.test.socks_case import LIMITS, TARGET, FrontCase, Wire


class ForwardTests(FrontCase):
    """One forwarded port between fakes."""

    def build(self, **more: Any) -> Any:
        """A factory for it."""
        sources = Sources(more.pop("sources", ()), self.clock)
        self.guests = Guests(more.pop("most", 1024), sources)
        return ForwardFactory(
            self.opener, TARGET, self.clock, LIMITS, self.guests, "attic", couple=self.couple
        )

    def coupled(self, wire: Wire) -> Any:
        """The target answers; what was coupled."""
        far = self.opener.accept()
        coupling = self.couplings[-1]
        self.assertEqual((coupling.near, coupling.far), (wire, far))
        return coupling

    def test_coupled(self) -> None:
        """Once the target has answered, with all that was said before."""
        wire = self.client(b"abc", b"def")
        self.assertEqual(self.opener.requests, [OpenRequest(TARGET, exit="attic")])
        self.assertEqual((self.couplings, self.guests.active), ([], 1))
        coupling = self.coupled(wire)
        self.assertEqual((coupling.early, coupling.early_eof), (b"abcdef", False))
        self.assertEqual((wire.said, wire.bufferSize), (b"", Wire.bufferSize))
        self.assertEqual((self.front.opened, self.guests.active), (1, 1))
        coupling.ended.callback(None)
        self.assert_nothing_left()

    def test_half_closed_before_the_answer(self) -> None:
        """A program that says all at once and ends has it delivered, and may be answered."""
        wire = self.client(b"abc").fin()
        self.assertEqual(wire.end, "")
        coupling = self.coupled(wire)
        self.assertEqual((coupling.early, coupling.early_eof), (b"abc", True))

    def test_early_bytes_are_bounded(self) -> None:
        """The rest stays in the kernel."""
        wire = self.client(b"x" * (MAX_EARLY - 1), b"yz" * MAX_EARLY)
        self.assertEqual((wire.is_read, wire.unread), (False, 2 * MAX_EARLY - 1))
        self.assertEqual(len(self.coupled(wire).early), MAX_EARLY)

    def test_refused(self) -> None:
        """A reset, and why in the log."""
        wire = self.client(b"abc")
        self.opener.refuse(Code.REFUSED_BY_TARGET, "refused there")
        self.assertEqual((wire.turn().end, wire.said), ("aborted", b""))
        self.assertEqual(self.texts(), ["refused: refused there"])
        self.assertEqual(dict(self.front.refused), {Code.REFUSED_BY_TARGET: 1})
        self.assert_nothing_left()

    def test_refused_by_a_policy(self) -> None:
        """Which says so itself: nothing is refused twice."""
        wire = self.client(b"abc")
        self.opener.refuse(Code.NOT_ALLOWED, "10.0.0.1:80 is refused: a private address")
        self.assertEqual(wire.turn().end, "aborted")
        self.assertEqual(self.texts(), ["refused: 10.0.0.1:80: a private address"])

    def test_no_answer(self) -> None:
        """The target is not waited for without end."""
        wire = self.client(b"abc")
        self.later(wire, LIMITS.reply_timeout)
        self.assertEqual((wire.end, self.opener.cancelled), ("aborted", 1))
        self.assertIn("93.184.216.34:443 has not answered within 30 s", self.texts()[0])
        self.assert_nothing_left()

    def test_the_program_leaves(self) -> None:
        """Nobody waits for the target any more; one that answers all the same is left."""
        for late in (False, True):
            if late:
                self.opener.late = Wire()
            self.client(b"abc").rst()
            self.assert_nothing_left()
        self.assertEqual((self.opener.cancelled, self.couplings), (2, []))
        assert self.opener.late is not None
        self.assertTrue(self.opener.late._aborting)
        self.assertEqual(self.texts(), [])

    def test_who_may_come(self) -> None:
        """As many as there is room for, from where they may."""
        self.front = self.build(most=1)
        first, second = self.client(), self.client()
        self.assertEqual((first.end, second.end, self.guests.turned_away), ("", "closed", 1))
        first.rst()
        self.front = self.build(sources=[ip_network("10.0.0.0/8")])
        self.assertEqual(self.client().end, "closed")

    def test_closed(self) -> None:
        """All are cut, waiting or coupled."""
        waiting, coupled = self.client(), self.client()
        self.coupled(coupled)
        done = self.guests.close_all()
        self.assertNoResult(done)
        self.assertEqual((waiting.turn().end, coupled.turn().end), ("aborted", "aborted"))
        self.couplings[0].ended.callback(None)
        self.successResultOf(done)
        self.assert_nothing_left()

    def test_an_error_of_our_own(self) -> None:
        """It costs one connection, and is logged."""
        self.opener.answer = lambda: fail(ValueError("of this test"))
        self.assertEqual(self.client().turn().end, "aborted")
        self.assertEqual(len(self.texts(LogLevel.critical)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assert_nothing_left()

    def test_a_relay_that_fails(self) -> None:
        """Neither side is left behind."""

        def broken(*_: Any, **more: Any) -> None:
            raise ValueError("of this test")

        self.front.couple = broken
        wire = self.client()
        far = self.opener.accept()
        self.assertEqual((wire.turn().end, far.turn().end), ("aborted", "aborted"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assert_nothing_left()
