"""Sessions under everything that can befall them, in any order."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import MIB
from stripetwist.test.engine_case import EngineCase
from stripetwist.test.session_world import World
from stripetwist.testing import Pair, pattern

_LONG = os.environ.get("STRIPETWIST_HYPOTHESIS") == "long"
_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
# The short run is the same each time: what it finds, everybody finds; the long one explores.
SETTINGS = settings(
    derandomize=not _LONG,
    max_examples=1000 if _LONG else 60,
    stateful_step_count=100 if _LONG else 50,
    deadline=None,
    suppress_health_check=_QUIET,
    print_blob=True,
)

END = st.integers(0, 1)
WHICH = st.integers(0, 30)
PART = st.sampled_from([0.0, 0.3, 0.7, 0.99, 1.0])
SIZE = st.sampled_from([0, 1, 10, 100, 1500, 9000, 70_000, 250_000])
SECONDS = st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.1, 4.0])
RATE = st.sampled_from([5e4, 1e6, 5e6])
DELAY = st.sampled_from([0.001, 0.02, 0.15])


class SessionMachine(RuleBasedStateMachine):
    """Each rule is something that an application, a network or a process may do."""

    world: World

    @initialize(
        memory=st.sampled_from([MIB // 4, MIB, 64 * MIB]),
        unsent=st.sampled_from([20_000, MIB]),
        subflows=st.integers(1, 4),
        path=st.tuples(RATE, DELAY),
        sizes=st.lists(st.tuples(END, SIZE), min_size=1, max_size=6),
        seconds=SECONDS,
    )
    def begin(
        self,
        memory: int,
        unsent: int,
        subflows: int,
        path: tuple[float, float],
        sizes: list[tuple[int, int]],
        seconds: float,
    ) -> None:
        """Two sessions, a few subflows, and something going on already."""
        self.world = World(memory, unsent)
        for _ in range(subflows):
            self.world.add(*path)
        for which, (end, size) in enumerate(sizes):
            self.world.open(self.world.end(end))
            self.world.write(which, self.world.end(end), size)
        self.world.advance(seconds)

    @rule(end=END)
    def open(self, end: int) -> None:
        """Open a stream."""
        self.world.open(self.world.end(end))

    if _LONG:
        # The short run has them in test_session_datagrams, which is quicker.

        @rule(end=END, copies=st.integers(1, 2))
        def associate(self, end: int, copies: int) -> None:
            """Make an association."""
            self.world.associate(self.world.end(end), copies)

        @rule(which=WHICH, end=END, size=st.sampled_from([0, 100, 9000]), count=END)
        def tell(self, which: int, end: int, size: int, count: int) -> None:
            """Send some datagrams."""
            for _ in range(1 + 9 * count):
                self.world.tell(which, self.world.end(end), size)

    @rule(end=END, accepts=st.sampled_from([True, True, False]))
    def policy(self, end: int, accepts: bool) -> None:
        """Accept or refuse what is opened from now on."""
        self.world.set_policy(self.world.end(end), accepts)

    @rule(which=WHICH, end=END, size=SIZE, seconds=SECONDS)
    def write(self, which: int, end: int, size: int, seconds: float) -> None:
        """Write to a stream."""
        self.world.write(which, self.world.end(end), size)
        self.world.advance(seconds)

    @rule(size=SIZE, seconds=SECONDS)
    def write_everywhere(self, size: int, seconds: float) -> None:
        """Everybody writes."""
        for end in self.world.ends:
            for which in range(12):
                self.world.write(which, end, size)
        self.world.advance(seconds)

    @rule(
        which=WHICH,
        end=END,
        size=st.sampled_from([1, 30, 700]),
        count=st.sampled_from([3, 20, 40]),
    )
    def write_often(self, which: int, end: int, size: int, count: int) -> None:
        """Write many small pieces, a moment apart."""
        for _ in range(count):
            self.world.write(which, self.world.end(end), size)
            self.world.advance(0.001)

    @rule(which=WHICH, end=END)
    def half_close(self, which: int, end: int) -> None:
        """End one half."""
        self.world.half_close(which, self.world.end(end))

    @rule(which=WHICH, end=END)
    def reset(self, which: int, end: int) -> None:
        """Break a stream."""
        self.world.reset(which, self.world.end(end))

    @rule(which=WHICH, end=END, on=st.booleans())
    def read(self, which: int, end: int, on: bool) -> None:
        """Stop reading for now, or go on."""
        change = self.world.unpause if on else self.world.pause
        change(which, self.world.end(end))

    @rule(which=WHICH, end=END)
    def stop(self, which: int, end: int) -> None:
        """Stop reading for good."""
        self.world.stop(which, self.world.end(end))

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.world.advance(seconds)

    @rule(rate=RATE, delay=DELAY, checked=st.booleans())
    def add(self, rate: float, delay: float, checked: bool) -> None:
        """One more subflow."""
        self.world.add(rate, delay, checked)

    @rule(which=WHICH, end=END)
    def corrupt(self, which: int, end: int) -> None:
        """A bit flips."""
        self.world.corrupt(which, self.world.end(end))

    @rule(which=WHICH, there=PART, back=PART)
    def cut(self, which: int, there: float, back: float) -> None:
        """A subflow dies."""
        self.world.cut(which, there, back)

    @rule(which=WHICH, end=END, keep=PART)
    def cut_in_a_duty(self, which: int, end: int, keep: float) -> None:
        """A subflow dies while it is being written to."""
        self.world.cut_in_a_duty(which, self.world.end(end), keep)

    @rule()
    def cut_all(self) -> None:
        """All die."""
        self.world.cut_all()

    @rule(seconds=st.sampled_from([1.0, 20.0, 61.0, 80.0]))
    def outage(self, seconds: float) -> None:
        """Nothing, for longer than some sessions live."""
        self.world.cut_all()
        self.world.advance(seconds)
        self.world.check()
        self.world.add(1e6, 0.02)

    @rule(which=WHICH, end=END)
    def lose_at_one_end(self, which: int, end: int) -> None:
        """One dies, and one end does not know."""
        self.world.lose_at_one_end(which, self.world.end(end))

    @rule(end=END)
    def join_at_one_end(self, end: int) -> None:
        """One dies before the other end ever saw it."""
        self.world.join_at_one_end(self.world.end(end))

    @rule(which=WHICH, there=st.booleans(), back=st.booleans())
    def stall(self, which: int, there: bool, back: bool) -> None:
        """One goes silent."""
        self.world.stall(which, there, back)

    @rule(which=WHICH)
    def resume(self, which: int) -> None:
        """It comes back."""
        self.world.resume(which)

    @rule(which=WHICH, size=st.sampled_from([61, 1000, 16384]))
    def slice(self, which: int, size: int) -> None:
        """One delivers in other pieces."""
        self.world.slice(which, size)

    @rule(end=END, seconds=SECONDS)
    def sleep(self, end: int, seconds: float) -> None:
        """A process is stopped for a while."""
        self.world.sleep(self.world.end(end))
        self.world.advance(seconds)
        self.world.wake()

    @rule(end=END, promised=PART, stored=PART)
    def squeeze(self, end: int, promised: float, stored: float) -> None:
        """Other sessions need memory."""
        self.world.squeeze(self.world.end(end), promised, stored)

    @rule(end=END)
    def relax(self, end: int) -> None:
        """They need it no more."""
        self.world.relax(self.world.end(end))

    @invariant()
    def holds(self) -> None:
        """What must hold after each step."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """In the end everything comes to its end."""
        if hasattr(self, "world"):
            self.world.finish()


class MachineTests(SynchronousTestCase):
    """Any sequence of events."""

    def test_whatever_happens(self) -> None:
        """Bytes come out as they went in, and everything ends."""
        run_state_machine_as_test(SessionMachine, settings=SETTINGS)


class WorldTests(SynchronousTestCase):
    """What the long run has found in the simulated world itself."""

    def test_two_cuts_in_duties_and_a_sleep(self) -> None:
        """A subflow that is cut while its end wakes up still delivers its bytes in order."""
        state = SessionMachine()
        sizes = [(0, 100), (0, 1500), (1, 1500), (1, 1500), (1, 0)]
        state.begin(MIB, 20_000, 2, (1e6, 0.02), sizes, 0.0)
        state.policy(end=0, accepts=True)
        state.write_everywhere(seconds=0.1, size=250_000)
        state.half_close(end=0, which=12)
        state.half_close(end=0, which=30)
        state.policy(end=0, accepts=False)
        state.join_at_one_end(end=0)
        state.lose_at_one_end(end=1, which=27)
        state.write_everywhere(seconds=0.3, size=1500)
        state.join_at_one_end(end=1)
        state.slice(size=61, which=0)
        state.cut_in_a_duty(end=1, keep=0.99, which=11)
        state.policy(end=1, accepts=True)
        state.policy(end=0, accepts=True)
        state.cut_in_a_duty(end=1, keep=0.3, which=14)
        state.sleep(end=1, seconds=0.03)
        state.holds()


class ExampleTests(SynchronousTestCase):
    """What the machine has found, step by step."""

    def finish(self, world: World) -> None:
        """Everything comes to its end."""
        world.check()
        world.finish()

    def test_last_words_that_wait_for_each_other(self) -> None:
        """Each end's last word died with a subflow whose own last word the other waits for."""
        world = World(MIB, 20_000)
        world.add(5e4, 0.001)
        for which in range(4):
            world.open(world.end(0))
            world.write(which, world.end(0), 1000)
        world.advance(0.01)
        world.cut_in_a_duty(0, world.end(0), 0.0)
        world.advance(0.0)
        world.add(5e4, 0.001)
        world.cut_all()
        self.assertEqual(world.pair.cuts, 2)
        self.finish(world)

    def test_promises_taken_while_a_window_was_not_renewed(self) -> None:
        """What a stream has not been granted again yet is still its own."""
        world = World(MIB)
        world.add(1e6, 0.01)
        a, b = world.ends
        world.open(b)
        world.advance(1)
        size = a.session._streams.table[2].window.size
        world.write(0, b, size // 5)
        world.advance(1)
        world.squeeze(a, 1.0, 0.0)
        world.write(0, b, size // 5)
        world.advance(1)
        self.assertEqual(a.budget.promised, MIB * 3 // 4)
        self.finish(world)

    def test_what_is_owed_leaves_in_time_once_there_is_room(self) -> None:
        """An acknowledgement that found no room had no time to leave by either."""
        world = World(64 * MIB, MIB)
        for _ in range(3):
            world.add(1e6, 0.02)
        world.open(world.end(0))
        for which, size in ((1, 1500), (0, 0), (1, 100), (1, 70_000), (0, 250_000), (0, 9000)):
            world.write(0, world.end(which), size)
        world.advance(0.3)
        world.check()

    def test_a_reset_makes_room_for_others(self) -> None:
        """What one stream held in the store, its end gives to those who wait."""
        for how in ("reset", "stop"):
            world = World(MIB // 4)
            world.add(5e4, 0.001)
            a, b = world.ends
            world.open(a)
            world.open(a)
            world.advance(1)
            world.write(0, a, 70_000)
            world.write(1, a, 1)
            self.assertFalse(a.streams[3].may_write)
            if how == "reset":
                world.reset(0, a)
            else:
                world.stop(0, b)
                world.advance(0.1)
            self.assertTrue(a.streams[3].may_write)
            self.finish(world)


class DifferentialTests(EngineCase):
    """How many subflows there are makes no difference but in time."""

    @settings(max_examples=200 if _LONG else 15, deadline=None, suppress_health_check=_QUIET)
    @given(
        st.lists(
            st.tuples(WHICH, END, st.sampled_from(["write", "write", "end", "open"]), SIZE),
            max_size=25,
        ),
        st.lists(st.tuples(st.integers(0, 9), PART), max_size=4),
    )
    def test_one_or_eight(
        self, program: list[tuple[int, int, str, int]], cuts: list[tuple[int, float]]
    ) -> None:
        """The same program over 1 and over 8 subflows delivers the same bytes."""
        self.assertEqual(self.outcome(program, cuts, 1), self.outcome(program, cuts, 8))

    def outcome(
        self, program: list[tuple[int, int, str, int]], cuts: list[tuple[int, float]], count: int
    ) -> dict[tuple[int, int], tuple[bytes, bool]]:
        """What each end got on each stream, and whether it saw the end."""
        pair = Pair()
        pair.add_many(count, 2e6, 0.02)
        ends = (pair.a, pair.b)
        for end in ends:
            pair.run(end.open() * 0.2)
        for step, (which, side, what, size) in enumerate(program):
            end = ends[side]
            stream_id = list(end.streams)[which % len(end.streams)]
            if what == "open" and len(end.streams) < 6:
                end.open()
                pair.run(1)
            elif not end.streams[stream_id].ended:
                end.write(stream_id, pattern(size, step))
                if what == "end":
                    end.end(stream_id)
            for at, keep in cuts:
                if at == step % 10 and step < 10:
                    victim = list(pair.subflows)[which % len(pair.subflows)]
                    pair.cut(victim, int(keep * 5000), int(keep * 100))
                    pair.add(2e6, 0.02)
            pair.run(0.005)
        pair.run(60)
        return {
            (side, stream_id): (bytes(carried.got), carried.saw_end)
            for side, end in enumerate(ends)
            for stream_id, carried in end.streams.items()
        }
