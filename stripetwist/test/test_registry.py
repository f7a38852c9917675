"""L{stripetwist.net.registry} and its workers: agents that come, go, and share names."""

from dataclasses import replace
from math import inf
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.agents import Agent
from stripetwist.core.config import MIB, Limits, PeerLimits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.session import Session
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.checksum import table_driven
from stripetwist.net.driver import SessionDriver
from stripetwist.net.ground import Ground, Store
from stripetwist.net.registry import Registry
from stripetwist.net.relay import Parked
from stripetwist.net.worker import AgentWorker
from stripetwist.test.test_driver import Exit, Wire
from stripetwist.testing_transports import BoundedTransport

WEB = OpenRequest(Target.of("example.test", 80), exit="attic")
LIMITS = Limits(max_memory=16 * MIB, prewarm=0)
ATTIC = Agent("attic", {"site": "home"}, 8, 3, b"1" * 16)
OTHER = replace(ATTIC, instance=b"2" * 16)


def cancelled(opening: "Deferred[ITransport]") -> "Deferred[ITransport]":
    """It, which nobody wants any more."""
    opening.cancel()
    return opening


class Visit:
    """
    One session of an agent, both ends of it, over one connection.

    @ivar exit: what the agent reaches.
    """

    def __init__(self, case: "RegistryTestCase", agent: Agent, key: str, names: str) -> None:
        self._clock = case.clock
        self.near = self._driver(True, lambda *_: None)
        self.far = self._driver(False, case.ended)
        self.exit = Exit()
        self.near.serve(self.exit, "vps")
        self.near.on_drained = lambda: self.near.go_away("nothing is left", Code.DRAINED)
        self.wires = Wire(case.clock, 1, self.near), Wire(case.clock, 1, self.far)
        self.wires[0].other, self.wires[1].other = self.wires[1], self.wires[0]
        self.near.attach(1, self.wires[0], 0.02, None)
        self.far.attach(1, self.wires[1], 0.02, None)
        self.worker = AgentWorker(agent, self.far, key, lambda name: names in ("*", name))

    def _driver(self, is_dialer: bool, ended: object) -> SessionDriver:
        store = Store(LIMITS)
        peer = PeerLimits(LIMITS.min_window, LIMITS.max_streams, 60.0)
        session = Session(is_dialer, LIMITS, store.budget, peer, self._clock.seconds())
        ground = Ground(self._clock, LIMITS, store, bytes, table_driven)
        return SessionDriver(session, ground, ended, "agent-1")  # type: ignore[arg-type]

    def hang(self) -> None:
        """The agent is there no more, and nobody says so."""
        self.wires[0].stuck = True

    def cut(self) -> None:
        """Its one connection is lost."""
        for wire in self.wires:
            wire.lose()


class RegistryTestCase(SynchronousTestCase):
    """A registry, and agents."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = Registry(self.clock, LIMITS)
        self.changes = 0
        self.registry.on_change = self.changed
        self.over: list[tuple[SessionDriver, str]] = []
        self.visits: list[Visit] = []

    def changed(self) -> None:
        """Note it."""
        self.changes += 1

    def ended(self, driver: SessionDriver, code: Code, reason: str) -> None:
        """What an acceptor does."""
        self.over.append((driver, reason))
        self.registry.left(driver)

    def come(self, agent: Agent = ATTIC, key: str = "agent-1", names: str = "*") -> Visit:
        """An agent opens a session."""
        visit = Visit(self, agent, key, names)
        self.visits.append(visit)
        self.run_for(0.05)
        self.registry.arrived(visit.worker)
        return visit

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.01] * round(seconds / 0.01))

    def names(self) -> list[str]:
        """Those that can be opened on."""
        return [worker.name for worker in self.registry.workers() if worker.is_able]

    def states(self) -> list[tuple[object, object]]:
        """What is shown of each."""
        return [(row["name"], row["state"]) for row in self.registry.snapshot(lambda _: False)]

    def tearDown(self) -> None:
        """Nothing is left of anybody."""
        for visit in self.visits:
            visit.near.close(Code.GOING_AWAY, "the agent was stopped")
            visit.far.close(Code.GOING_AWAY, "the server was stopped")
        self.run_for(0.05)
        self.assertEqual(self.registry.snapshot(lambda _: False), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WorkerTests(RegistryTestCase):
    """One agent."""

    def opened(self, visit: Visit) -> "Deferred[ITransport]":
        """A stream towards it, asked for."""
        opening = visit.worker.open(WEB)
        self.run_for(0.05)
        return opening

    def test_opened(self) -> None:
        """It is asked for the target, by the name that it has here."""
        visit = self.come()
        opening = self.opened(visit)
        self.assertNoResult(opening)
        self.assertEqual([(str(one.target), one.exit) for one in visit.exit.asked],
                         [("example.test:80", "attic")])  # fmt: skip
        self.assertEqual(visit.worker.active, 1)
        visit.exit.answers[0].errback(OpenRefused(Code.TIMEOUT, "no answer there"))
        self.run_for(0.05)
        error = self.failureResultOf(opening, OpenRefused).value
        self.assertEqual((error.code, error.sentence), (Code.TIMEOUT, "no answer there"))
        self.assertEqual(visit.worker.active, 0)

    def test_cancelled(self) -> None:
        """Who no longer wants the target has the agent's dial given up."""
        visit = self.come()
        opening = self.opened(visit)
        opening.addErrback(lambda failure: None)
        opening.cancel()
        self.run_for(0.05)
        self.assertEqual((visit.exit.cancelled, visit.worker.active), (1, 0))

    def test_share_of_a_key(self) -> None:
        """Of its capacity, 8, and of what may be opened at a time; what ends is given back."""
        worker = self.come().worker
        desk = replace(WEB, key_id="desk")
        openings = []
        while worker.has_room_for("desk"):
            openings.append(worker.open(desk))
        self.assertEqual((len(openings), worker.has_room_for("guest")), (4, True))
        self.failureResultOf(cancelled(openings.pop()), CancelledError)
        self.run_for(0.05)
        self.assertTrue(worker.has_room_for("desk"))
        openings.append(worker.open(desk))
        self.assertFalse(worker.has_room_for("desk"))
        self.visits[0].exit.answers[0].callback(BoundedTransport().connect(Parked()))
        self.visits[0].exit.answers[1].errback(OpenRefused(Code.TIMEOUT, "no"))
        self.run_for(0.05)
        stream: Any = self.successResultOf(openings[0])
        self.failureResultOf(openings[1], OpenRefused)
        openings.append(worker.open(desk))
        self.assertFalse(worker.has_room_for("desk"))
        stream.abortConnection()
        self.run_for(0.05)
        self.assertTrue(worker.has_room_for("desk"))
        worker.capacity = 0
        few = replace(worker.driver._ground, limits=replace(LIMITS, max_opening=4))
        self.patch(worker.driver, "_ground", few)
        self.assertFalse(worker.has_room_for("desk"))
        self.assertTrue(worker.has_room_for("guest"))
        for one in openings:
            one.addErrback(lambda failure: failure.trap(OpenRefused))

    def test_goes_away(self) -> None:
        """One that drains is not able; it says so itself, and the stream goes on."""
        visit = self.come()
        before = self.opened(visit)
        changes = self.changes
        visit.near.go_away("the agent is shutting down")
        self.run_for(0.05)
        self.assertGreater(self.changes, changes)
        self.assertEqual((self.names(), self.states()), ([], [("attic", "draining")]))
        error = self.failureResultOf(self.opened(visit), OpenRefused).value
        self.assertEqual(error.code, Code.NO_WORKER)
        self.assertIn("attic takes no streams now: it is draining", error.sentence)
        self.assertNoResult(before)
        before.addErrback(lambda failure: failure.trap(OpenRefused))

    def test_without_a_connection(self) -> None:
        """It is not able, and able again once there is one."""
        visit = self.come()
        visit.cut()
        self.assertEqual((self.names(), self.states()), ([], [("attic", "away")]))
        self.assertEqual(len(self.registry.workers()), 1)
        again = Wire(self.clock, 2, visit.far)
        again.other = Wire(self.clock, 2, visit.near)
        changes = self.changes
        visit.far.attach(2, again, 0.02, None)
        self.assertEqual((self.names(), self.changes), (["attic"], changes + 1))

    def test_drained(self) -> None:
        """It gets no new streams, finishes what it has, and is let go; its name is kept."""
        visit = self.come()
        before = self.opened(visit)
        changes = self.changes
        self.assertIs(self.registry.drain("attic"), visit.worker)
        self.assertIs(self.registry.drain("attic"), visit.worker)
        self.assertEqual(self.changes, changes + 1)
        self.assertEqual((self.names(), self.states()), ([], [("attic", "draining")]))
        self.failureResultOf(self.opened(visit), OpenRefused)
        visit.exit.answers[0].callback(BoundedTransport().connect(Parked()))
        self.run_for(5)
        stream: Any = self.successResultOf(before)
        self.assertEqual(self.over, [])
        stream.abortConnection()
        self.run_for(0.5)
        self.assertEqual(self.over, [(visit.far, "it was drained")])
        assert visit.near.session.closed is not None
        self.assertIs(visit.near.session.closed.code, Code.DRAINED)
        self.assertIsNone(self.registry.drain("attic"))

    def test_drained_while_away(self) -> None:
        """It is told once it is back."""
        visit = self.come()
        visit.cut()
        self.registry.drain("attic")
        self.run_for(1)
        self.assertEqual((self.over, self.states()), ([], [("attic", "draining")]))
        again = self.come()
        self.assertEqual(self.registry.workers(), [again.worker])
        self.assertEqual(self.names(), ["attic"])

    def test_stuck(self) -> None:
        """What is sent to it does not arrive; an idle stream is no such thing."""
        visit = self.come()
        opening = self.opened(visit)
        visit.exit.answers[0].callback(BoundedTransport().connect(Parked()))
        self.run_for(15)
        stream: Any = self.successResultOf(opening)
        self.assertEqual(visit.worker.stuck_since, inf)
        visit.wires[1].stuck = True
        stream.write(b"lost")
        sent_at = self.clock.seconds()
        self.run_for(15)
        self.assertApproximates(visit.worker.stuck_since, sent_at, 0.1)
        self.assertEqual(self.names(), ["attic"])
        again = Wire(self.clock, 2, visit.far)
        again.other = Wire(self.clock, 2, visit.near)
        again.other.other = again
        visit.near.attach(2, again.other, 0.02, None)
        visit.far.attach(2, again, 0.02, None)
        self.run_for(1)
        self.assertEqual(visit.worker.stuck_since, inf)

    def test_snapshot(self) -> None:
        """What it said, and what became of it."""
        visit = self.come()
        (row,) = self.registry.snapshot(lambda _: False)
        self.assertEqual(
            [row[name] for name in ("name", "key", "state", "labels", "capacity", "weight")],
            ["attic", "agent-1", "able", {"site": "home"}, 8, 3],
        )
        self.assertEqual((row["active"], "age" in row, "streams" in row), (0, True, True))
        self.assertEqual(row["subflows"], 1)
        self.assertEqual((row["rtt"], row["sent"], row["received"]), (0.02, 0, 0))
        self.assertEqual(row["last_error"], "")
        visit.far._drop(1, "no progress")
        (row,) = self.registry.snapshot(lambda _: False)
        self.assertEqual(row["last_error"], "subflow 1 was given up: no progress")
        visit = self.come()
        (row,) = self.registry.snapshot(lambda worker: worker.name == "attic")
        self.assertEqual(row["state"], "counted out")
        visit.cut()
        (row,) = self.registry.snapshot(lambda _: True)
        self.assertEqual(
            (row["state"], row["last_error"]), ("away", "the last connection was lost")
        )
        self.assertEqual(row["subflows"], 0)


class NameTests(RegistryTestCase):
    """Who is called what."""

    def test_names_of_their_own(self) -> None:
        """All are there at once, in order of arrival."""
        self.come()
        self.come(Agent("barn"))
        self.assertEqual(self.names(), ["attic", "barn"])
        self.assertEqual(self.registry.registered, 2)

    def test_begun_anew(self) -> None:
        """A new session of an agent takes the place of the one before, which finishes."""
        old = self.come()
        opening = old.worker.open(WEB)
        opening.addErrback(lambda failure: None)
        self.run_for(0.05)
        old.near.go_away("the agent is shutting down")
        new = self.come()
        self.assertEqual(self.registry.workers(), [new.worker])
        self.assertEqual(self.states(), [("attic", "replaced"), ("attic", "able")])
        self.run_for(5)
        self.assertEqual(self.over, [])
        old.cut()
        self.assertEqual(self.over, [(old.far, "its agent has opened another session")])
        self.assertEqual((self.registry.replaced, self.registry.renamed), (1, 0))

    def test_killed_and_begun_anew(self) -> None:
        """Where the old session has no connection, its streams break at once."""
        old = self.come()
        opening = old.worker.open(WEB)
        self.run_for(0.05)
        old.cut()
        self.come()
        self.failureResultOf(opening, OpenRefused)
        self.assertEqual(self.states(), [("attic", "able")])

    def test_a_copy(self) -> None:
        """One that was replaced and goes on living is another agent: it gets streams again."""
        self.come()
        with capturedLogs() as logs:
            second = self.come()
            self.assertEqual(self.registry.workers(), [second.worker])
            self.run_for(1)
        self.assertEqual(self.states(), [("attic-2", "able"), ("attic", "able")])
        lines = [str(formatEvent(event)) for event in logs]
        self.assertEqual(sum("say --state there" in line for line in lines), 1, lines)
        second.cut()
        second.far.close(Code.SESSION_LOST, "it is gone")
        self.run_for(5)
        self.assertEqual(self.names(), ["attic-2"])

    def test_a_copy_of_one_name(self) -> None:
        """Where the key allows no other name, it has the name once the other is gone."""
        first = self.come(names="attic")
        second = self.come(names="attic")
        self.run_for(1)
        self.assertEqual(self.states(), [("attic", "waiting"), ("attic", "able")])
        second.far.close(Code.SESSION_LOST, "it is gone")
        self.run_for(1)
        self.assertEqual(self.registry.workers(), [first.worker])

    def test_replaced_and_silent(self) -> None:
        """One that is there no more, and nobody said so, does not come back."""
        self.come().hang()
        self.come()
        self.run_for(5)
        self.assertEqual(self.states(), [("attic", "replaced"), ("attic", "able")])

    def test_two_of_one_name(self) -> None:
        """The second gets a number once the first has answered, and keeps it when it is back."""
        self.come()
        with capturedLogs() as logs:
            second = self.come(OTHER)
            self.assertEqual((self.names(), self.states()[1]), (["attic"], ("attic", "waiting")))
            self.failureResultOf(second.worker.open(WEB), OpenRefused)
            self.run_for(0.5)
        self.assertEqual(self.names(), ["attic", "attic-2"])
        lines = [str(formatEvent(event)) for event in logs]
        self.assertEqual(sum("is called attic-2" in line for line in lines), 1, lines)
        self.assertEqual(second.far.label, "attic-2")
        second.worker.open(WEB).addErrback(lambda failure: failure.trap(OpenRefused))
        self.run_for(0.05)
        self.assertEqual(second.exit.asked[0].exit, "attic-2")
        self.come(replace(OTHER, instance=b"3" * 16))
        self.run_for(0.5)
        second.cut()
        self.come(OTHER)
        self.assertEqual(self.names(), ["attic", "attic-3", "attic-2"])
        self.assertEqual((self.registry.renamed, self.registry.replaced), (2, 1))

    def test_of_another_key(self) -> None:
        """Even one that says it is the same agent is another."""
        self.come()
        self.come(key="agent-2")
        self.run_for(0.5)
        self.assertEqual(self.names(), ["attic", "attic-2"])

    def test_silent(self) -> None:
        """One that gives no sign of life for 3 s loses its name, and its session."""
        old = self.come()
        old.hang()
        self.come(OTHER)
        self.run_for(2.9)
        self.assertEqual(self.states(), [("attic", "able"), ("attic", "waiting")])
        self.run_for(0.3)
        self.assertEqual(self.states(), [("attic", "able")])
        self.assertEqual(len(self.over), 1)
        self.assertIn("silent", self.over[0][1])

    def test_silent_of_another_key(self) -> None:
        """It keeps its name and its session: another key ends neither."""
        old = self.come()
        old.hang()
        self.come(OTHER, key="agent-2")
        self.run_for(5)
        self.assertEqual(self.states(), [("attic", "able"), ("attic-2", "able")])
        self.assertEqual(self.over, [])

    def test_gone_meanwhile(self) -> None:
        """The one who waits need not wait for an answer that cannot come."""
        old = self.come()
        old.hang()
        self.come(OTHER)
        old.far.close(Code.AUTH, "its key was revoked")
        self.assertEqual(self.names(), ["attic"])

    def test_a_key_of_one_name(self) -> None:
        """It gets no number: its second agent waits until the first has gone."""
        first = self.come(names="attic")
        with capturedLogs() as logs:
            self.come(OTHER, names="attic")
            self.run_for(10)
        lines = [str(formatEvent(event)) for event in logs]
        self.assertEqual(sum("allows no other name" in line for line in lines), 1, lines)
        self.assertEqual(self.states(), [("attic", "able"), ("attic", "waiting")])
        first.near.close(Code.GOING_AWAY, "the agent was stopped")
        self.run_for(0.05)
        self.assertEqual(self.names(), ["attic"])

    def test_one_that_waits_begins_anew(self) -> None:
        """It does not wait twice."""
        self.come().hang()
        waiting = self.come(OTHER)
        waiting.cut()
        again = self.come(OTHER)
        self.assertEqual(self.states(), [("attic", "able"), ("attic", "waiting")])
        self.run_for(3.5)
        self.assertEqual(self.registry.workers(), [again.worker])

    def test_gone_while_it_waits(self) -> None:
        """Those that are gone take no name from one that is there, unless they come back."""
        self.come().hang()
        crowd = [self.come(replace(ATTIC, instance=bytes([number]) * 16)) for number in range(3)]
        for visit in crowd[:2]:
            visit.cut()
        self.run_for(3.5)
        self.assertEqual(self.registry.workers(), [crowd[2].worker])
        near, far = Wire(self.clock, 2, crowd[0].near), Wire(self.clock, 2, crowd[0].far)
        near.other, far.other = far, near
        crowd[0].near.attach(2, near, 0.02, None)
        crowd[0].far.attach(2, far, 0.02, None)
        self.run_for(1)
        self.assertEqual(self.names(), ["attic-2", "attic"])

    def test_many_at_once(self) -> None:
        """Each of a crowd of one name gets its own."""
        for number in range(6):
            self.come(replace(ATTIC, instance=bytes([number]) * 16))
        self.run_for(1)
        self.assertEqual(sorted(self.names()), ["attic", *(f"attic-{n}" for n in range(2, 7))])
