"""L{stripetwist.net.driver} and what it is made of: two sessions on one simulated reactor."""

from dataclasses import replace
from math import ceil
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import frames
from stripetwist.core.config import KIB, MIB, Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget, SendStore
from stripetwist.core.errors import Code, OpenRefused, ProtocolError
from stripetwist.core.events import SubflowWarm
from stripetwist.core.progress import KernelView
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.checksum import table_driven
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground, Store
from stripetwist.net.relay import Parked, Relay, couple
from stripetwist.net.transport import StreamReset
from stripetwist.testing import pattern
from stripetwist.testing_transports import BoundedTransport

WEB = OpenRequest(Target.of("example.test", 80))


class Wire:
    """
    One end of a connection between two drivers.

    What is sent leaves this process at once and comes a little later; while C{stuck} nothing
    leaves.

    @ivar done: C{close} or C{abort}, as the driver asked.
    """

    delay = 0.01

    def __init__(self, clock: Clock, subflow_id: int, driver: SessionDriver) -> None:
        self.driver = driver
        self.other: Wire
        self.done: list[str] = []
        self.stuck = False
        self.sent = b""
        self.sends = 0
        self.paces: list[int] = []
        self.views: list[KernelView] = []
        self.retransmitted = 0
        self.window_decays = False
        self.segment = 0
        self.sizes: list[int] = []
        self.smoothed = 0
        self._clock = clock
        self._id = subflow_id
        self._open = True

    def send(self, data: bytes) -> None:
        """See L{Connection}."""
        self.sent += data
        self.sends += 1
        self.sizes.append(len(data))
        if self._open and not self.stuck:
            self._clock.callLater(self.delay, self.other.come, data)
            self._clock.callLater(0, self._drained)

    def _drained(self) -> None:
        if self._open:
            self.driver.drained(self._id)

    def come(self, data: bytes) -> None:
        """Bytes come from the other end."""
        if self._open:
            self.driver.received(self._id, [data])

    def pace(self, batch: int) -> None:
        """See L{Connection}."""
        self.paces.append(batch)

    def smooth(self) -> None:
        """Note it."""
        self.smoothed += 1

    def kernel_view(self) -> KernelView | None:
        """See L{Connection}."""
        return self.views.pop(0) if self.views else None

    def close(self) -> None:
        """See L{Connection}."""
        self._end("close")

    def abort(self) -> None:
        """See L{Connection}."""
        self._end("abort")

    def _end(self, how: str) -> None:
        self.done.append(how)
        self.lose()
        self._clock.callLater(self.delay, self.other.lose)

    def lose(self) -> None:
        """This end is gone."""
        if self._open:
            self._open = False
            self.driver.connection_lost(self._id)


class Exit:
    """An opener whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[OpenRequest] = []
        self.answers: list[Deferred[ITransport]] = []
        self.cancelled = 0
        self.at_once: Any = None

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """There are no datagrams here."""
        return fail(OpenRefused(Code.BAD_KIND, "streams only"))

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        self.asked.append(request)
        if isinstance(self.at_once, Exception):
            raise self.at_once
        if self.at_once is not None:
            return succeed(self.at_once)
        self.answers.append(Deferred(self._cancel))
        return self.answers[-1]

    def _cancel(self, answer: object) -> None:
        self.cancelled += 1


class Lingering(Exit):
    """An opener whose dials end some time after they were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: list[Deferred[ITransport]] = []

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        return super().open(request).addErrback(self._linger)

    def _linger(self, failure: Failure) -> Deferred[ITransport]:
        self.endings.append(Deferred())
        return self.endings[-1]


def parked(clock: Clock, limit: int = 64 * KIB) -> BoundedTransport:
    """A target that has answered."""
    return BoundedTransport(limit, clock).connect(Parked())


class Greedy:
    """A session whose producer fills the store as soon as it may."""

    def __init__(
        self, budget: MemoryBudget, told: list[str], name: str, store: Store | None = None
    ) -> None:
        self.outgoing = SendStore(budget)
        self._budget, self._told, self._name, self._store = budget, told, name, store

    @property
    def is_short(self) -> bool:
        """As a session says."""
        return self.outgoing.is_full

    @property
    def has_room(self) -> bool:
        """As a session says."""
        return self.outgoing.has_room

    def hold(self) -> None:
        """Note it."""
        self._told.append(f"hold {self._name}")

    def release(self) -> None:
        """Note it, and write."""
        self._told.append(f"release {self._name}")
        if self._store is not None:
            self.outgoing.add(self._budget.limit // 4)
            self._store.check(self)


class DriverTestCase(SynchronousTestCase):
    """A dialer's and an acceptor's driver, joined by two connections."""

    limits = Limits(max_memory=16 * MIB, max_opening=2, prewarm=0)
    # What the far end may hold; it decides how much it grants.
    far_memory = 16 * MIB
    # What the kernel is like at either end.
    window_decays = False
    segment = 0

    def setUp(self) -> None:
        self.clock = Clock()
        self.ends: list[tuple[SessionDriver, Code, str]] = []
        self.exit = Exit()
        self.told: list[str] = []
        far_limits = replace(self.limits, max_memory=self.far_memory)
        self.stores = [Store(self.limits), Store(far_limits)]
        self.near = self.driver(True, self.stores[0])
        self.far = self.driver(False, self.stores[1])
        self.far.serve(self.exit, "laptop")
        self.wires: list[tuple[Wire, Wire]] = []
        self.join(1)
        self.join(2)

    def driver(self, is_dialer: bool, store: Store) -> SessionDriver:
        """One end of a session."""
        peer = PeerLimits(self.limits.min_window, self.limits.max_streams, 60.0)
        session = Session(is_dialer, self.limits, store.budget, peer, self.clock.seconds())
        ground = Ground(self.clock, self.limits, store, bytes, table_driven)
        label = "vps.example:8443" if is_dialer else "laptop"
        return SessionDriver(session, ground, self.ended, label)

    def ended(self, driver: SessionDriver, code: Code, reason: str) -> None:
        """A driver says that it is over."""
        self.ends.append((driver, code, reason))

    def join(self, subflow_id: int) -> tuple[Wire, Wire]:
        """One connection more."""
        near = Wire(self.clock, subflow_id, self.near)
        far = Wire(self.clock, subflow_id, self.far)
        near.other, far.other = far, near
        for one in (near, far):
            one.window_decays, one.segment = self.window_decays, self.segment
        self.wires.append((near, far))
        self.near.attach(subflow_id, near, 0.02, None)
        self.far.attach(subflow_id, far, 0.02, None)
        return near, far

    def run_for(self, seconds: float = 0.5) -> None:
        """Let time pass."""
        self.clock.advance(0)
        self.clock.pump([0.005] * round(seconds / 0.005))

    def reached(self, target: BoundedTransport | None = None) -> tuple[Any, BoundedTransport]:
        """A stream whose target has answered: our transport, and the target's."""
        target = target or parked(self.clock)
        opening = self.near.open(WEB)
        self.run_for(0.05)
        self.exit.answers.pop().callback(target)
        self.run_for(0.05)
        return self.successResultOf(opening), target

    def coupled(self, limit: int = 64 * KIB) -> tuple[BoundedTransport, BoundedTransport, Relay]:
        """A local socket and a target with a stream between them."""
        stream, target = self.reached(parked(self.clock, limit))
        local = parked(self.clock, limit)
        relay = couple(local, stream, clock=self.clock, limits=self.limits)
        self.run_for(0.05)
        return local, target, relay

    def timers(self) -> list[Any]:
        """The pending timers of drivers."""
        return [call for call in self.clock.getDelayedCalls() if "_tick" in str(call)]


class OpenTests(DriverTestCase):
    """How a stream begins."""

    def test_reached(self) -> None:
        """The peer's opener is asked on behalf of its key; then there is a parked transport."""
        opening = self.near.open(OpenRequest(Target.of("example.test", 80), key_id="forged"))
        self.run_for()
        self.assertNoResult(opening)
        self.assertEqual(
            [(str(one.target), one.key_id) for one in self.exit.asked],
            [("example.test:80", "laptop")],
        )
        self.exit.answers[0].callback(parked(self.clock))
        self.run_for()
        transport: Any = self.successResultOf(opening)
        self.assertIsInstance(transport.protocol, Parked)

    def test_given_before_the_answer(self) -> None:
        """What is written goes with the question; the target gets it once it is there."""
        transport: Any = self.successResultOf(self.near.open(replace(WEB, at_once=True)))
        transport.write(b"hello")
        transport.loseWriteConnection()
        self.run_for(Wire.delay / 2)
        self.assertIn(b"hello", b"".join(near.sent for near, _ in self.wires))
        self.run_for(0.05)
        target = parked(self.clock)
        self.exit.answers[0].callback(target)
        self.run_for()
        self.assertEqual(target.drain(), b"hello")

    def test_given_and_then_refused(self) -> None:
        """The stream breaks; the log says why."""
        transport: Any = self.successResultOf(self.near.open(replace(WEB, at_once=True)))
        with capturedLogs() as logs:
            self.run_for(0.05)
            self.exit.answers[0].errback(OpenRefused(Code.DNS_FAIL, "no such name; check it"))
            self.run_for()
        self.assertIsInstance(transport.protocol.lost.value, StreamReset)
        self.assertIn("refused: no such name; check it", [formatEvent(one) for one in logs])
        self.assertTrue(self.near.is_idle and self.far.is_idle)

    def test_answered_at_once(self) -> None:
        """An opener that has its answer ready is as good."""
        self.exit.at_once = parked(self.clock)
        opening = self.near.open(WEB)
        self.run_for()
        self.successResultOf(opening)

    def test_refused(self) -> None:
        """Code and sentence of a refusal come through."""
        opening = self.near.open(WEB)
        self.run_for()
        self.exit.answers[0].errback(OpenRefused(Code.DNS_FAIL, "no such name; check it"))
        self.run_for()
        error = self.failureResultOf(opening, OpenRefused).value
        self.assertEqual((error.code, error.sentence), (Code.DNS_FAIL, "no such name; check it"))
        self.assertTrue(self.near.is_idle and self.far.is_idle)

    def test_opener_that_fails(self) -> None:
        """An error of our own is logged here, and a sentence there."""
        for at_once in (False, True):
            self.setUp()
            self.exit.at_once = ValueError("of this test") if at_once else None
            opening = self.near.open(WEB)
            self.run_for()
            if not at_once:
                self.exit.answers[0].errback(ValueError("of this test"))
                self.run_for()
            error = self.failureResultOf(opening, OpenRefused).value
            self.assertIs(error.code, Code.GENERAL)
            self.assertNotIn("of this test", error.sentence)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_target_that_is_no_transport(self) -> None:
        """Whatever goes wrong with an answer is logged, and no Deferred is left with it."""
        self.exit.at_once = object()
        self.near.open(WEB).addErrback(lambda _: None)
        self.run_for()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_nobody_serves(self) -> None:
        """What a server asks of a client is refused (T-X3-4)."""
        opening = self.far.open(WEB)
        self.run_for()
        self.assertIs(self.failureResultOf(opening, OpenRefused).value.code, Code.NOT_ALLOWED)

    def test_cancelled(self) -> None:
        """Cancelling an open cancels the dial at the other side, and leaves nothing."""
        opening = self.near.open(WEB)
        self.run_for()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.run_for()
        self.assertEqual(self.exit.cancelled, 1)
        self.assertTrue(self.near.is_idle and self.far.is_idle)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelled_too_late(self) -> None:
        """An answer that crosses the cancellation has its target reset."""
        opening = self.near.open(WEB)
        self.run_for()
        target = parked(self.clock)
        self.exit.answers[0].callback(target)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.run_for()
        self.assertEqual(target.ended, "reset")
        self.assertTrue(self.near.is_idle and self.far.is_idle)

    def test_cancelled_but_not_done(self) -> None:
        """A dial that takes its time to end counts as long as it does."""
        slow = Lingering()
        self.far.serve(slow, "laptop")
        for opening in [self.ask().addErrback(lambda _: None) for _ in range(2)]:
            opening.cancel()
        refused = self.failureResultOf(self.ask(), OpenRefused).value
        self.assertIs(refused.code, Code.TOO_MANY_STREAMS)
        self.assertEqual((len(slow.asked), len(slow.endings)), (2, 2))
        for ending in slow.endings:
            ending.errback(CancelledError())
        self.assertNoResult(self.ask())
        self.assertEqual(len(slow.asked), 3)

    def ask(self) -> Deferred[ITransport]:
        """One open more, and the time for it to be refused."""
        opening = self.near.open(WEB)
        self.run_for()
        return opening

    def test_stopped_while_reaching(self) -> None:
        """A stream that the session loses while it is being reached cancels its dial."""
        opening = self.near.open(WEB)
        self.run_for()
        self.far.close(Code.GOING_AWAY, "the server was stopped")
        self.assertEqual(self.exit.cancelled, 1)
        self.run_for()
        error = self.failureResultOf(opening, OpenRefused).value
        self.assertIn("vps.example:8443", error.sentence)

    def test_too_many_being_opened(self) -> None:
        """More at a time are refused at once; one that is done makes room."""
        opening = [self.near.open(WEB) for _ in range(3)]
        self.run_for()
        self.assertEqual(len(self.exit.asked), 2)
        error = self.failureResultOf(opening[2], OpenRefused).value
        self.assertIs(error.code, Code.TOO_MANY_STREAMS)
        self.exit.answers[0].errback(OpenRefused(Code.TIMEOUT, "no answer"))
        self.run_for()
        self.failureResultOf(opening[0], OpenRefused)
        another = self.near.open(WEB)
        self.run_for()
        self.assertNoResult(another)
        self.assertEqual(len(self.exit.asked), 3)

    def test_peer_goes_away(self) -> None:
        """After a GOAWAY new opens are refused, and those that crossed it, too."""
        self.far.go_away("the server is shutting down")
        crossing = self.near.open(WEB)
        self.run_for()
        later = self.near.open(WEB)
        for opening in (crossing, later):
            error = self.failureResultOf(opening, OpenRefused).value
            self.assertIs(error.code, Code.GOING_AWAY)
        self.assertEqual(self.exit.asked, [])

    def test_after_the_end(self) -> None:
        """An open on a session that is over is refused."""
        self.near.close(Code.GOING_AWAY, "the client was stopped")
        self.failureResultOf(self.near.open(WEB), OpenRefused)


class CarryTests(DriverTestCase):
    """Bytes from a local socket to a target and back."""

    def test_both_ways(self) -> None:
        """All bytes arrive, both ends end, and everything is idle again."""
        local, target, relay = self.coupled()
        there, back = pattern(200_000), pattern(300_000, 1)
        for at in range(0, 300_000, 20_000):
            local.arrive(there[at : at + 20_000])
            target.arrive(back[at : at + 20_000])
            self.run_for(0.05)
            local.drain()
            target.drain()
        local.arrive_end()
        target.arrive_end()
        for _ in range(20):
            self.run_for(0.05)
            local.drain()
            target.drain()
        self.assertEqual((bytes(target.sent), bytes(local.sent)), (there, back))
        self.assertTrue(relay.ended.called)
        self.assertTrue(self.near.is_idle and self.far.is_idle)
        self.assertEqual([store.budget.stored for store in self.stores], [0, 0])
        self.assertEqual([store.budget.promised for store in self.stores], [0, 0])

    def test_half_closed_client_gets_all(self) -> None:
        """A client that ended its half takes its time, and still gets the last byte (D01)."""
        local, target, relay = self.coupled(1000)
        local.arrive(b"GET")
        local.arrive_end()
        self.run_for()
        target.drain()
        answer = pattern(300_000)
        target.arrive(answer)
        target.arrive_end()
        self.run_for(1)
        while local.connected:
            self.assertNotIn("abort", local.calls)
            local.drain(9000)
            self.run_for(0.02)
        self.assertEqual(bytes(local.sent), answer)
        self.assertEqual(local.ended, "fin")
        self.assertTrue(relay.ended.called)

    def test_not_idle_before_the_target_has_it(self) -> None:
        """A session is busy while bytes that it carried are still in this process."""
        local, target, _ = self.coupled()
        local.arrive(b"the last words")
        local.arrive_end()
        target.arrive_end()
        self.run_for(1)
        self.assertTrue(self.near.is_idle)
        self.assertFalse(self.far.is_idle)
        target.drain()
        self.run_for(0.1)
        self.assertTrue(self.far.is_idle)

    def test_reset_travels(self) -> None:
        """A target that breaks the connection breaks the client's, and the other way round."""
        for ours in (False, True):
            self.setUp()
            local, target, relay = self.coupled()
            broken, other = (local, target) if ours else (target, local)
            broken.arrive_reset()
            self.run_for()
            self.assertEqual(other.ended, "reset")
            self.assertTrue(relay.ended.called)
            self.assertTrue(self.near.is_idle and self.far.is_idle)

    def test_slow_target(self) -> None:
        """A target that takes nothing stops its client, and memory stays bounded (31, 32)."""
        local, target, _ = self.coupled()
        sent = 0
        for _ in range(2000):
            if local.is_reading:
                local.arrive(bytes(16 * KIB))
                sent += 16 * KIB
            self.clock.advance(0.001)
        self.run_for()
        self.assertFalse(local.is_reading)
        self.assertLess(sent, 16 * MIB)
        far = self.stores[1].budget
        self.assertLessEqual(far.promised, far.limit * 3 // 4)
        other, echo, _ = self.coupled()
        other.arrive(b"not delayed")
        self.run_for(0.1)
        self.assertEqual(echo.drain(), b"not delayed")
        while target.unsent or not local.is_reading:
            target.drain()
            self.run_for(0.05)
        self.assertEqual(len(target.sent), sent)

    def test_connection_lost_midway(self) -> None:
        """A connection that dies costs no byte."""
        local, target, _ = self.coupled()
        data = pattern(400_000)
        for at in range(0, len(data), 20_000):
            local.arrive(data[at : at + 20_000])
            if at == 100_000:
                self.wires[0][0].stuck = True
                self.clock.advance(0.004)
                self.wires[0][0].lose()
                self.wires[0][1].lose()
            self.run_for(0.02)
            target.drain()
        self.run_for()
        target.drain()
        self.assertEqual(bytes(target.sent), data)
        self.assertEqual(self.ends, [])


class StoreTests(DriverTestCase):
    """The store of a process, shared by its sessions."""

    limits = Limits(max_memory=1 * MIB, max_unsent=1 * MIB, max_opening=2)
    far_memory = 64 * MIB

    def test_full_for_one(self) -> None:
        """Every local socket of the session that fills it waits, and none of another one."""
        beside, mine = self.coupled(), self.coupled()
        first, second = self.near, self.driver(True, self.stores[0])
        self.near = second
        self.far = self.driver(False, self.stores[1])
        self.far.serve(self.exit, "laptop")
        self.join(1)
        others = self.coupled()
        stuck = self.wires[0][0], self.wires[1][0]
        for wire in stuck:
            wire.stuck = True
        self.assertTrue(mine[0].is_reading and beside[0].is_reading)
        count = 0
        while mine[0].is_reading and count < 100:
            mine[0].arrive(bytes(16 * KIB))
            count += 1
            self.clock.advance(0.001)
        self.assertLessEqual(count, 18)
        self.assertFalse(beside[0].is_reading)
        late = self.coupled()
        for local, target, _ in (late, others):
            local.arrive(b"x")
            self.run_for(0.05)
            self.assertTrue(local.is_reading)
            self.assertEqual(target.drain(), b"x")
        self.assertFalse(mine[0].is_reading or beside[0].is_reading)
        first.close(Code.GOING_AWAY, "of this test")
        self.run_for(0.05)
        self.assertEqual(self.stores[0].budget.stored, 0)
        self.assertEqual(self.stores[0]._held, set())

    def test_released_by_acknowledgements(self) -> None:
        """Bytes that arrive make room as well."""
        local, target, _ = self.coupled()
        data = pattern(600_000)
        at = 0
        while len(target.sent) < len(data):
            if local.is_reading and at < len(data):
                local.arrive(data[at : at + 16 * KIB])
                at += 16 * KIB
            self.run_for(0.01)
            target.drain()
        self.assertEqual(bytes(target.sent), data)
        self.assertLess(self.clock.seconds(), 30)

    def test_each_waits_for_itself(self) -> None:
        """One above its share is held, and what it frees lets others go on, each once."""
        store, told = self.stores[0], self.told
        first, second, third = (Greedy(store.budget, told, name) for name in "abc")
        first.outgoing.add(store.budget.limit // 4)
        for one in (first, second, third):
            store.check(one)
        self.assertEqual(told, ["hold a"])
        second.outgoing.add(1)
        store.check(second)
        store.check(second)
        self.assertEqual(told, ["hold a", "hold b"])
        first.outgoing.add(-store.budget.limit // 4)
        store.check(first)
        self.assertEqual(sorted(told[2:]), ["release a", "release b"])

    def test_refilled_while_released(self) -> None:
        """Should one that is released fill the store again, the others stay held."""
        store, told = self.stores[0], self.told
        several = [Greedy(store.budget, told, "x", store) for _ in range(3)]
        several[0].outgoing.add(store.budget.limit // 4)
        for one in several:
            one.outgoing.add(1)
            store.check(one)
        told.clear()
        several[0].outgoing.add(-store.budget.limit // 4)
        store.check(several[0])
        self.assertEqual(told, ["release x", "hold x"])
        first = next(one for one in several if one.outgoing.stored > 1)
        first.outgoing.add(-first.outgoing.stored)
        store.leave(first)
        self.assertEqual(told, ["release x", "hold x"] * 2)


class ErrorTests(DriverTestCase):
    """What a peer can do wrong."""

    def test_framing(self) -> None:
        """Bytes that are no frames cost the connection, not the session."""
        local, target, _ = self.coupled()
        self.far.received(1, [b"STWP" + bytes(16)])
        self.assertEqual(self.wires[0][1].done, ["abort"])
        local.arrive(b"still here")
        self.run_for()
        self.assertEqual(target.drain(), b"still here")
        self.assertEqual(list(self.far.connections), [2])
        self.assertEqual(self.ends, [])

    def test_meaning(self) -> None:
        """Nonsense ends the session: the peer is told, streams break, one line is logged."""
        local, target, _ = self.coupled()
        with capturedLogs() as logs:
            self.far.received(1, [frames.pack(frames.ACCEPT, stream=2)])
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(len(lines), 1)
        self.assertIn("laptop", str(lines[0]))
        self.run_for()
        self.assertEqual([code for _, code, _ in self.ends], [Code.STREAM_STATE] * 2)
        self.assertEqual((local.ended, target.ended), ("reset", "reset"))
        self.assertEqual(self.wires[0][1].done, ["close"])

    def test_flood(self) -> None:
        """A peer that makes us owe too much has its session ended; nothing is raised."""
        self.limits = replace(self.limits, max_control_items=50)
        self.setUp()
        for near, far in self.wires:
            near.stuck = far.stuck = True
        self.near.turn()
        for stream_id in range(2, 2000, 2):
            self.near.received(1, [frames.pack_open(stream_id, 8192, WEB)])
            self.clock.advance(0)
        self.assertEqual([code for _, code, _ in self.ends], [Code.LIMIT])
        self.assertLess(len(self.wires[0][0].sent), 64 * KIB)

    def test_used_number(self) -> None:
        """A connection with a used number is not taken, and harms nothing."""
        wire = Wire(self.clock, 1, self.far)
        self.assertRaises(ProtocolError, self.far.attach, 1, wire, None, None)
        self.assertIs(self.far.connections[1], self.wires[0][1])

    def test_replaced(self) -> None:
        """A connection that replaces another has that one aborted."""
        wire = Wire(self.clock, 3, self.far)
        wire.other = wire
        self.far.attach(3, wire, None, None, replaces=1)
        self.assertEqual(self.wires[0][1].done, ["abort"])
        self.assertEqual(sorted(self.far.connections), [2, 3])
        self.far.attach(4, Wire(self.clock, 4, self.far), None, None, replaces=99)
        self.assertEqual(sorted(self.far.connections), [2, 3, 4])


class TimeTests(DriverTestCase):
    """One timer, and none after the end."""

    def test_one_timer(self) -> None:
        """However busy, a driver has one timer."""
        local, target, _ = self.coupled()
        for _ in range(50):
            local.arrive(bytes(10_000))
            self.assertLessEqual(len(self.timers()), 2)
            self.run_for(0.01)
            target.drain()
        self.assertEqual(len(self.timers()), 2)

    def test_silent_connections(self) -> None:
        """Connections that answer nothing are given up one by one, with a reason (6)."""
        for near, far in self.wires:
            near.stuck = far.stuck = True
        with capturedLogs() as logs:
            self.clock.pump([1.0] * 300)
        self.assertEqual(self.near.connections, {})
        reasons = [str(formatEvent(one)) for one in logs]
        self.assertTrue(all("given up" in one for one in reasons))

    def test_the_kernel_is_asked_before_a_silent_connection_is_given_up(self) -> None:
        """Bytes that move there keep it (slow, not dead)."""
        local, _, _ = self.coupled()
        stuck = self.wires[0][0]
        stuck.stuck = True
        local.arrive(pattern(200_000))
        stuck.views = [KernelView(acked=500 * i) for i in range(1, 21)]
        with capturedLogs():
            self.run_for(2.0)
            self.assertEqual(stuck.done, [])
            self.run_for(4.0)
        self.assertEqual(stuck.views, [])
        self.assertEqual(stuck.done, ["abort"])

    def test_the_kernel_is_asked_about_a_slow_connection(self) -> None:
        """Its session wants to know whether there is a queue; nothing else is doubtful."""
        local, _, _ = self.coupled()
        for wire in (wire for pair in self.wires for wire in pair):
            wire.delay = 0.15
        for _ in range(10):
            local.arrive(pattern(100))
            self.run_for(1.0)
        for near, _ in self.wires:
            near.views = [KernelView(acked=1)]
        local.arrive(pattern(20_000))
        self.run_for(0.4)
        self.assertEqual([near.views for near, _ in self.wires], [[], []])

    def test_a_connection_hears_how_fast_it_is(self) -> None:
        """How many bytes it will be given at a time."""
        local, target, _ = self.coupled()
        for _ in range(50):
            local.arrive(pattern(40_000))
            self.run_for(0.02)
            target.drain()
        for near, _ in self.wires:
            self.assertTrue(near.paces)
            self.assertTrue(set(near.paces) <= {1 << i for i in range(12, 17)})

    def test_session_timeout(self) -> None:
        """Without any connection streams stay for a minute, then break at both ends (4)."""
        stream, target = self.reached()
        protocol = stream.protocol
        for near, far in self.wires:
            near.lose()
            far.lose()
        self.clock.pump([1.0] * 59)
        self.assertEqual(self.ends, [])
        self.clock.pump([1.0] * 17)
        self.assertEqual([code for _, code, _ in self.ends], [Code.SESSION_LOST] * 2)
        error = protocol.lost.value
        assert isinstance(error, StreamReset)
        self.assertIs(error.code, Code.SESSION_LOST)
        self.assertEqual(target.ended, "reset")
        self.assertEqual(self.timers(), [])

    def test_resumed(self) -> None:
        """Should a connection come back in time, nothing was lost (3, 8)."""
        local, target, _ = self.coupled()
        data = pattern(100_000)
        for near, far in self.wires:
            near.stuck = far.stuck = True
        local.arrive(data)
        self.run_for(0.1)
        for near, far in self.wires:
            near.lose()
            far.lose()
        self.clock.pump([1.0] * 40)
        self.join(3)
        for _ in range(10):
            self.run_for(0.1)
            target.drain()
        self.assertEqual(bytes(target.sent), data)

    def test_nothing_after_the_end(self) -> None:
        """A session that was closed leaves no timer, and no input revives it."""
        local, target, relay = self.coupled()
        opening = self.near.open(WEB)
        self.near.close(Code.GOING_AWAY, "the client was stopped")
        self.near.close(Code.GOING_AWAY, "twice")
        self.run_for()
        self.failureResultOf(opening, OpenRefused)
        self.assertEqual(
            [(driver, reason) for driver, _, reason in self.ends],
            [(self.near, "the client was stopped"), (self.far, "the client was stopped")],
        )
        self.assertTrue(relay.ended.called)
        self.assertEqual((local.ended, target.ended), ("reset", "reset"))
        for driver in (self.near, self.far):
            self.assertEqual(driver.connections, {})
            self.assertTrue(driver.is_idle)
            driver.drained(1)
            driver.received(1, [b"late"])
            driver.connection_lost(1)
            driver.go_away("late")
            driver.finish(Code.GENERAL, "late")
            driver.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.ends), 2)

    def test_snapshot(self) -> None:
        """It can be shown, with its name and age."""
        self.run_for(2)
        snapshot: dict[str, Any] = self.near.snapshot()
        self.assertEqual(snapshot["name"], "vps.example:8443")
        self.assertApproximates(snapshot["age"], 2, 0.1)
        self.assertEqual([one["path"] for one in snapshot["subflows"]], [None, None])


class PaddingTests(DriverTestCase):
    """Windows that are opened ahead of use."""

    limits = Limits(max_memory=16 * MIB, prewarm=512 * KIB)
    window_decays = True

    def padded(self) -> list[int]:
        """How much filler went onto each connection."""
        return [one["tx"]["pad"] for one in self.near.snapshot()["subflows"]]

    def test_what_was_lost_before_is_no_matter(self) -> None:
        """All windows are opened; and again, after use that lost packets and a long rest."""
        self.run_for()
        before = self.padded()
        self.assertTrue(all(250 * KIB < size <= 256 * KIB for size in before), before)
        for near, _ in self.wires:
            near.retransmitted = 7
        self.run_for(self.limits.warm_hold + 1)
        self.near.open(WEB)
        self.run_for()
        self.assertTrue(all(size > 500 * KIB for size in self.padded()), self.padded())

    def test_none_where_packets_get_lost(self) -> None:
        """It ends at the first; another is not even begun, nor one that comes later."""
        self.run_for(0.05)
        before, none = self.padded()
        self.assertGreater(before, 10 * KIB)
        self.assertEqual(none, 0)
        self.wires[0][0].retransmitted = 1
        self.run_for(0.02)
        after = self.padded()[0]
        self.assertLess(after, before + 100 * KIB)
        self.run_for()
        self.join(3)
        self.run_for()
        self.assertEqual(self.padded(), [after, 0, 0])

    def test_windows_that_do_not_mind(self) -> None:
        """Where they stay as wide as they are whatever gets lost (bbr), all are opened."""
        self.wires.clear()
        self.window_decays = False
        for number in (3, 4):
            self.join(number)
        self.run_for(0.05)
        self.wires[0][0].retransmitted = 1
        self.run_for()
        self.assertGreater(min(self.padded()), 100 * KIB)

    def test_windows_are_smoothed_once_open(self) -> None:
        """Each as its filler ends, for whatever reason; not one whose connection is gone."""
        first, second = (near for near, _ in self.wires)
        self.near._happened(SubflowWarm(1))
        self.assertEqual((first.smoothed, second.smoothed), (1, 0))
        first.retransmitted = 1
        self.near._happened(SubflowWarm(2))
        self.near._happened(SubflowWarm(3))
        self.assertEqual((first.smoothed, second.smoothed), (1, 1))


class SmoothTests(DriverTestCase):
    """What is sent is spread over the round trip."""

    @property
    def smoothed(self) -> list[int]:
        """How often each of the near end's connections was told so."""
        return [near.smoothed for near, _ in self.wires]

    def test_where_there_is_much_to_send(self) -> None:
        """More than the session takes, whatever gets lost; and those that come later, too."""
        self.wires[0][0].retransmitted = 1
        local, _, _ = self.coupled()
        local.arrive(bytes(200_000))
        self.run_for(0.1)
        self.assertEqual(self.smoothed, [0, 0])
        for near, _ in self.wires:
            near.stuck = True
        for _ in range(200):
            local.arrive(bytes(100_000))
        self.assertFalse(local.is_reading)
        self.assertEqual(self.smoothed, [1, 1])
        self.join(3)
        self.assertEqual(self.smoothed, [1, 1, 1])


class NoCreditTests(DriverTestCase):
    """A peer that takes little."""

    far_memory = 256 * KIB

    def test_where_there_is_no_room_for_much(self) -> None:
        """A writer has to wait, and is not the one with too much: nothing is spread."""
        local, _, _ = self.coupled()
        for near, _ in self.wires:
            near.stuck = True
        for _ in range(20):
            local.arrive(bytes(100_000))
        self.assertFalse(local.is_reading)
        self.assertEqual([near.smoothed for near, _ in self.wires], [0, 0])


class SegmentTests(DriverTestCase):
    """Packets that are filled to the last byte."""

    segment = 1448

    def test_most_are_full(self) -> None:
        """With 22 bytes of TLS for each 16 KiB; what ends with a piece of the socket's is less."""
        local, target, _ = self.coupled()
        for _ in range(50):
            local.arrive(pattern(40_000))
            self.run_for(0.02)
            target.drain()
        sizes = [size for near, _ in self.wires for size in near.sizes if size > 2 * 1448]
        full = [size for size in sizes if (size + 22 * ceil(size / 16_384)) % 1448 == 0]
        self.assertGreater(len(full), 0.5 * len(sizes), sizes)


class ReentryTests(DriverTestCase):
    """Connections that answer within the call."""

    def test_one_turn_for_all_that_comes(self) -> None:
        """What is written in one turn of the reactor leaves in one batch."""
        stream, _ = self.reached()
        self.run_for(0.1)
        before = [near.sends for near, _ in self.wires]
        for _ in range(5):
            stream.write(b"x" * 100)
        self.assertEqual([near.sends for near, _ in self.wires], before)
        self.clock.advance(0)
        self.assertEqual(sum(near.sends for near, _ in self.wires), sum(before) + 1)

    def test_connection_lost_while_it_is_written_to(self) -> None:
        """A connection may die of a write, in the middle of a turn."""

        class Brittle(Wire):
            """Dies of the first write."""

            def send(self, data: bytes) -> None:
                self.lose()

        stream, target = self.reached()
        wire = Brittle(self.clock, 9, self.near)
        self.near.attach(9, wire, 0.0, None)
        target.protocol = Parked()
        couple(parked(self.clock), stream, clock=self.clock, limits=self.limits)
        stream.write(pattern(100_000))
        self.clock.advance(0)
        self.assertNotIn(9, self.near.connections)
        self.run_for()
        self.assertEqual(self.ends, [])

    def test_drained_together(self) -> None:
        """Connections that drain in one turn of the reactor cost one turn of ours."""
        self.clock.advance(0)
        before = len(self.clock.getDelayedCalls())
        self.assertGreater(len(self.near.connections), 1)
        for subflow_id in self.near.connections:
            self.near.drained(subflow_id)
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)

    def test_drained_while_it_is_written_to(self) -> None:
        """A connection that drains at once is given all there is, without going deeper."""

        class Quick(Wire):
            """Its bytes leave within the call."""

            def send(self, data: bytes) -> None:
                self.sent += data
                self.driver.drained(self._id)

        stream, _ = self.reached()
        for near, _ in list(self.wires):
            near.lose()
        wire = Quick(self.clock, 9, self.near)
        self.near.attach(9, wire, 0.0, None)
        stream.write(bytes(8192))
        self.clock.advance(0)
        self.assertGreater(len(wire.sent), 8192)
