"""L{stripetwist.net.speed}: a source and a sink that need no network."""

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.policy import Policy
from stripetwist.core.target import Kind, OpenRequest, Target
from stripetwist.net.guard import Guard
from stripetwist.net.relay import Parked, couple
from stripetwist.net.speed import NAME, PIECE, SINK, SOURCE, SpeedOpener, SpeedTransport
from stripetwist.test.test_relay import Counting
from stripetwist.testing_transports import BoundedTransport

LIMIT = 1000


class _Inner:
    """An opener that takes note."""

    def __init__(self) -> None:
        self.asked: list[OpenRequest] = []

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """No datagrams are asked for here."""
        raise NotImplementedError

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """It opens nothing."""
        self.asked.append(request)
        return succeed(BoundedTransport())


class OpenerTests(SynchronousTestCase):
    """What is reached by the name."""

    def setUp(self) -> None:
        self.inner = _Inner()
        self.clock = Clock()
        self.opener = self.with_policy(Policy())

    def with_policy(self, policy: Policy) -> SpeedOpener:
        """One that asks that policy."""
        return SpeedOpener(self.inner, self.clock, Guard(policy))

    def open(self, key_id: str = "") -> Any:
        """A source."""
        return self.successResultOf(self.opener.open(OpenRequest(SOURCE, key_id=key_id)))

    def refusal(self, policy: Policy) -> OpenRefused:
        """Why there is none."""
        waiting = self.with_policy(policy).open(OpenRequest(SOURCE))
        error = self.failureResultOf(waiting, OpenRefused).value
        assert isinstance(error, OpenRefused)
        return error

    def test_policies_are_asked(self) -> None:
        """Who may reach one host may not reach this; nor anybody, where it is denied."""
        for policy in (
            Policy(["192.168.1.5:22"]),
            Policy(["*.example.com"]),
            Policy(["internet"], [NAME]),
        ):
            self.assertIs(self.refusal(policy).code, Code.NOT_ALLOWED)
        self.assertIn(f"--allow {NAME}:19", self.refusal(Policy(["192.168.1.5:22"])).sentence)
        for policy in (Policy(["localhost"]), Policy([f"{NAME}:19", "192.168.1.5:22"])):
            self.successResultOf(self.with_policy(policy).open(OpenRequest(SOURCE)))

    def test_a_key_has_few(self) -> None:
        """Each could fill a store at once; another key, and who comes later, have theirs."""
        taken = [self.open("greedy") for _ in range(8)]
        waiting = self.opener.open(OpenRequest(SINK, key_id="greedy"))
        error: Any = self.failureResultOf(waiting, OpenRefused).value
        self.assertIs(error.code, Code.TOO_MANY_STREAMS)
        self.open("modest").abortConnection()
        taken[0].abortConnection()
        self.clock.advance(0)
        self.open("greedy")

    def test_the_two_ports(self) -> None:
        """They are answered here, by transports that wait to be coupled."""
        for target in (SOURCE, SINK):
            transport: Any = self.successResultOf(self.opener.open(OpenRequest(target)))
            self.assertIsInstance(transport, SpeedTransport)
            self.assertIsInstance(transport.protocol, Parked)
        self.assertEqual(self.inner.asked, [])

    def test_other_ports(self) -> None:
        """They are refused, as by a host that has nothing there."""
        refused = self.opener.open(OpenRequest(Target.of(NAME, 80)))
        error = self.failureResultOf(refused, OpenRefused).value
        self.assertEqual(error.code, Code.REFUSED_BY_TARGET)
        self.assertIn("9 and 19", error.sentence)

    def test_everything_else_is_passed_on(self) -> None:
        """Other names, and other kinds."""
        others = [
            OpenRequest(Target.of("example.com", 19)),
            OpenRequest(SOURCE, kind=Kind.UDP),
        ]
        for request in others:
            self.successResultOf(self.opener.open(request))
        self.assertEqual(self.inner.asked, others)


class SpeedTestCase(SynchronousTestCase):
    """A stream coupled with one of the two."""

    def setUp(self) -> None:
        self.clock = Clock()

    def couple(self, near: BoundedTransport, gives: bool) -> None:
        """Couple it."""
        self.near, self.far = near, SpeedTransport(self.clock, gives)
        near.connect(Parked())
        self.relay = couple(near, self.far, clock=self.clock, limits=Limits())
        self.clock.advance(0)

    def assert_over(self) -> None:
        """Nothing of it is left."""
        for _ in range(3):
            self.clock.advance(0)
        self.assertTrue(self.relay.ended.called)
        self.assertFalse(self.near.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SourceTests(SpeedTestCase):
    """Bytes without end."""

    def setUp(self) -> None:
        super().setUp()
        self.couple(BoundedTransport(LIMIT, self.clock), True)

    def test_one_piece_in_each_turn_while_there_is_room(self) -> None:
        """A stream that is full is given nothing more."""
        for _ in range(5):
            self.clock.advance(0)
        self.assertEqual(self.near.drain(), PIECE)
        self.clock.advance(0)
        self.assertEqual(self.near.drain(), PIECE)

    def test_pieces_are_as_large_as_is_wanted(self) -> None:
        """As those of a socket are."""
        self.near.drain()
        self.far.bufferSize = 400
        for _ in range(5):
            self.clock.advance(0)
        self.assertEqual(self.near.drain(), PIECE[:400] * 3)

    def test_the_end(self) -> None:
        """Who ends is given no more."""
        self.near.arrive_end()
        self.near.drain()
        self.clock.advance(0)
        self.near.drain()
        self.assert_over()

    def test_a_reset(self) -> None:
        """Who breaks it neither."""
        self.near.arrive_reset()
        self.assert_over()


class SinkTests(SpeedTestCase):
    """Where everything may go."""

    def setUp(self) -> None:
        super().setUp()
        self.couple(Counting(LIMIT, self.clock), False)

    def told(self) -> list[int]:
        """The numbers that it has sent."""
        data = self.near.drain()
        return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data), 8)]

    def test_it_tells_how_much_has_come(self) -> None:
        """Within 100 ms; nothing where nothing came."""
        self.assertEqual(self.told(), [])
        for _ in range(3):
            self.near.arrive(bytes(100_000))
            self.clock.advance(0)
        self.clock.advance(0.1)
        self.assertEqual(self.told(), [300_000])
        self.clock.advance(0.1)
        self.assertEqual(self.told(), [])

    def test_it_tells_nothing_to_who_does_not_listen(self) -> None:
        """What it tells does not pile up."""
        for _ in range(1000):
            self.near.arrive(b"x")
            self.clock.advance(0.1)
        self.assertLess(len(self.told()), LIMIT // 8 + 2)

    def test_the_end(self) -> None:
        """The last number is that of all bytes."""
        self.told()
        self.near.arrive(bytes(7))
        self.clock.advance(0)
        self.near.arrive_end()
        self.clock.advance(0)
        self.assertEqual(self.told(), [7])
        self.assert_over()

    def test_a_reset(self) -> None:
        """It is over at once."""
        self.near.arrive_reset()
        self.assert_over()

    def test_given_up_before_it_was_coupled(self) -> None:
        """An open that nobody waits for any more leaves nothing."""
        far = SpeedTransport(self.clock, True)
        parked = far.protocol
        far.abortConnection()
        self.clock.advance(0)
        self.assertIsNotNone(parked.lost)
