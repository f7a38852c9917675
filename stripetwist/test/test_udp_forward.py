"""L{stripetwist.net.udp_forward}: programs, associations, and what becomes of both."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.net.association import Association
from stripetwist.net.guests import Guests, Sources
from stripetwist.net.udp_forward import MOST_PROGRAMS, UdpForward
from stripetwist.test.associations import Far

REQUEST = OpenRequest(Target.of("127.0.0.1", 51820), Kind.UDP)
ANN, BOB = ("127.0.0.1", 40001), ("127.0.0.1", 40002)


class UdpForwardTests(SynchronousTestCase):
    """A forwarded port whose associations the test makes."""

    def setUp(self) -> None:
        """Nobody has sent anything."""
        self.clock = Clock()
        self.asked: list[Deferred[Association]] = []
        self.answers: list[tuple[bytes, Any]] = []
        self.error: Exception | None = None
        self.front = self.make()

    def make(self, program: Any = None, limits: Limits | None = None) -> UdpForward:
        """A port that is open."""
        front = UdpForward(self, REQUEST, self.clock, limits or Limits(), program)
        transport: Any = self
        front.transport = transport
        return front

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """As an opener."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def write(self, data: bytes, address: Any) -> None:
        """As the port's transport."""
        if self.error is not None:
            raise self.error
        self.answers.append((data, address))

    def test_each_program_has_its_own(self) -> None:
        """Answers find their way; what came before the association was made is sent."""
        ann, bob = Far(), Far()
        for source in (ANN, BOB):
            self.front.datagramReceived(b"early", source)
        self.asked[0].callback(ann)
        self.asked[1].callback(bob)
        self.front.datagramReceived(b"late", BOB)
        self.assertEqual(([b"early"], [b"early", b"late"]), (ann.payloads, bob.payloads))
        ann.says(b"answer")
        self.assertEqual([(b"answer", ANN)], self.answers)

    def test_waits_with_the_newest(self) -> None:
        """While there is no way, the oldest are dropped."""
        self.front = self.make(limits=replace(Limits(), datagrams=2))
        for number in range(5):
            self.front.datagramReceived(b"%d" % number, ANN)
        far = Far()
        self.asked[0].callback(far)
        self.assertEqual([b"3", b"4"], far.payloads)

    def test_waits_no_longer_than_programs_do(self) -> None:
        """What a program sent long before there was a way is dropped, and counted."""
        self.front.datagramReceived(b"stale", ANN)
        self.clock.advance(100)
        self.front.datagramReceived(b"fresh", ANN)
        self.clock.advance(1)
        far = Far()
        self.asked[0].callback(far)
        self.assertEqual(([b"fresh"], 1), (far.payloads, self.front.dropped))

    def test_waits_in_few_bytes(self) -> None:
        """However large they are, no more of them wait than at an association."""
        for number in range(6):
            self.front.datagramReceived(b"%d" % number + bytes(60_000), ANN)
        far = Far()
        self.asked[0].callback(far)
        self.assertEqual([b"2", b"3", b"4", b"5"], [one[:1] for one in far.payloads])

    def test_made_again(self) -> None:
        """After a refusal, and after a loss, for ever, ever more slowly; told once."""
        self.front = self.make(ANN)
        self.front.start()
        for _ in range(8):
            self.asked[-1].errback(OpenRefused(Code.TIMEOUT, "not there"))
            self.clock.advance(5)
        self.assertEqual(9, len(self.asked))
        far = Far()
        self.asked[-1].callback(far)
        far.ends(Code.SESSION_LOST)
        self.clock.advance(0.2)
        self.assertEqual(10, len(self.asked))

    def test_forbidden(self) -> None:
        """What the server forbids is asked for twice a minute, and told once."""
        self.front = self.make(ANN)
        self.front.start()
        with capturedLogs() as logs:
            for _ in range(600):
                if not self.asked[-1].called:
                    self.asked[-1].errback(OpenRefused(Code.NOT_ALLOWED, "a private address"))
                self.clock.advance(0.2)
        self.assertEqual((11, 1), (len(self.asked), len(logs)))
        self.clock.advance(30)
        self.asked[-1].errback(OpenRefused(Code.HOST_UNREACHABLE, "no way there"))
        self.clock.advance(5)
        self.assertEqual(13, len(self.asked))

    def test_far_side_first(self) -> None:
        """With one fixed program nothing needs to be sent first, and nobody else is heard."""
        self.front = self.make(ANN)
        self.front.start()
        far = Far()
        self.asked[0].callback(far)
        far.says(b"hello")
        self.assertEqual([(b"hello", ANN)], self.answers)
        self.front.datagramReceived(b"no", BOB)
        self.assertEqual((1, []), (self.front.dropped, far.payloads))
        self.clock.advance(10_000)
        self.assertFalse(far.closed)

    def test_answer_does_not_leave(self) -> None:
        """What the system does not take is a counted drop, and the next one leaves."""
        far = Far()
        self.front.datagramReceived(b"a", ANN)
        self.asked[0].callback(far)
        for self.error in (MessageLengthError(), OSError(), None):
            far.says(b"b")
        self.assertEqual((2, [(b"b", ANN)]), (self.front.dropped, self.answers))

    def test_idle(self) -> None:
        """What is idle is ended, but for the program that came last."""
        self.front.start()
        fars = []
        for source in (ANN, BOB):
            self.front.datagramReceived(b"a", source)
            fars.append(Far())
            self.asked[-1].callback(fars[-1])
        self.clock.pump([5] * 26)
        self.assertEqual([1, 0], [far.closed for far in fars])

    def test_who_may_come(self) -> None:
        """As at a forwarded port."""
        self.front.guests = Guests(sources=Sources([ip_network("10.0.0.0/8")], self.clock))
        self.front.datagramReceived(b"no", ANN)
        self.assertEqual((1, 0), (self.front.dropped, len(self.asked)))

    def test_full(self) -> None:
        """One more takes the place of the longest idle, which is told once."""
        fars = []
        with capturedLogs() as logs:
            for number in range(MOST_PROGRAMS + 2):
                if number == MOST_PROGRAMS:
                    self.front.datagramReceived(b"in use", ("127.0.0.1", 1000))
                self.front.datagramReceived(b"a", ("127.0.0.1", 1000 + number))
                fars.append(Far())
                self.asked[-1].callback(fars[-1])
                self.clock.advance(0.01)
        self.assertEqual([1, 2], [at for at, far in enumerate(fars) if far.closed])
        self.assertEqual((0, 1), (self.front.dropped, len(logs)))

    def test_full_of_one_machine(self) -> None:
        """Another machine, or who forges its address, has a few places, and no one else's."""
        self.front.datagramReceived(b"a", ANN)
        ann = Far()
        self.asked[-1].callback(ann)
        for number in range(100):
            self.clock.advance(0.01)
            self.front.datagramReceived(b"a", ("192.0.2.9", 1000 + number))
            self.asked[-1].addErrback(lambda _: None)
        share = Limits().max_associations_per_source
        self.assertEqual((1 + share, 0), (len(self.front._flows), ann.closed))

    def test_resolver(self) -> None:
        """Who asks from another port each time, and has its answer, never fills it."""
        self.front.start()
        for number in range(600):
            self.front.datagramReceived(b"question", ("127.0.0.1", 1000 + number))
            far = Far()
            self.asked[-1].callback(far)
            far.says(b"answer")
            self.clock.advance(0.1)
        self.assertEqual((600, 0), (len(self.answers), self.front.dropped))
        self.assertLess(len(self.front._flows), 160)

    def test_conversation(self) -> None:
        """Who says something after an answer is not taken for a resolver."""
        self.front.start()
        self.front.datagramReceived(b"a", ANN)
        far = Far()
        self.asked[-1].callback(far)
        far.says(b"b")
        self.front.datagramReceived(b"c", ANN)
        self.front.datagramReceived(b"a", BOB)
        self.clock.pump([5] * 20)
        self.assertFalse(far.closed)

    def test_stop(self) -> None:
        """Nothing is left: no association, no question, no timer."""
        self.front.start()
        far = Far()
        self.front.datagramReceived(b"a", ANN)
        self.front.datagramReceived(b"a", BOB)
        self.asked[0].callback(far)
        self.asked[1].addErrback(lambda _: None)
        self.front.stop()
        self.assertTrue(far.closed and self.asked[1].called)
        self.assertEqual([], self.clock.getDelayedCalls())
