"""Datagrams between two sessions: over paths that are unlike, stall, die, and beside streams."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from stripetwist.core import events, frames
from stripetwist.core.config import KIB
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.datagrams import Datagrams
from stripetwist.core.frames import Frame
from stripetwist.core.path import PathInfo
from stripetwist.core.subflow import Subflow
from stripetwist.core.target import Target
from stripetwist.core.way import PathRole
from stripetwist.test.engine_case import LIMITS, EngineCase, Scribe
from stripetwist.testing import Pair, pattern

PEERS = (None, Target.of("192.0.2.7", 53), Target.of("example.test", 65535))
THREE = ((2e6, 0.01), (1e6, 0.03), (3e6, 0.05))


@dataclass
class Tally:
    """
    What has become of datagrams that count up.

    @ivar sent: when each was given to the session.
    @ivar took: how long those took that have come, in their order.
    """

    sent: list[float] = field(default_factory=list)
    took: dict[int, float] = field(default_factory=dict)

    @property
    def lost(self) -> list[float]:
        """When those were sent that have not come."""
        return [at for number, at in enumerate(self.sent) if number not in self.took]


class DatagramCase(EngineCase):
    """An association of the dialer's, on subflows of which each is a path."""

    def joined(self, *paths: tuple[float, float], copies: int = 1) -> tuple[Pair, int]:
        """Two sessions, and an association that the acceptor has accepted."""
        pair = Pair(LIMITS)
        for number, (rate, delay) in enumerate(paths):
            pair.add(rate, delay, path=PathInfo(number))
        stream_id = pair.a.associate(copies)
        pair.run_while(lambda: not pair.a.streams[stream_id].accepted, 5.0)
        return pair, stream_id

    def flow(
        self, pair: Pair, stream_id: int, seconds: float, each: float, size: int, tally: Tally
    ) -> None:
        """Send one of that size each so many seconds; wait for the last."""
        end = pair.heap.now + seconds
        while pair.heap.now < end:
            pair.a.send_datagram(stream_id, len(tally.sent).to_bytes(4, "big") + bytes(size - 4))
            tally.sent.append(pair.heap.now)
            pair.run(each)
        for at, payload, _ in pair.b.streams[stream_id].datagrams:
            number = int.from_bytes(payload[:4], "big")
            tally.took.setdefault(number, at - tally.sent[number])


class TroubleTests(DatagramCase):
    """Paths that go silent, or away."""

    def test_a_path_stalls(self) -> None:
        """The flow is elsewhere within 400 ms, and what was on it is not sent again."""
        for each, size in ((0.02, 200), (0.002, 1250)):
            pair, stream_id = self.joined(*THREE)
            tally = Tally()
            self.flow(pair, stream_id, 0.4, each, size, tally)
            at = pair.heap.now
            pair.stall(1)
            self.flow(pair, stream_id, 0.8, each, size, tally)
            pair.run(0.2)
            self.flow(pair, stream_id, each, each, size, tally)
            self.assertTrue(tally.lost)
            self.assertLess(max(tally.lost[:-1]), at + 0.4)

    def test_a_late_answer_is_enough(self) -> None:
        """The flow leaves a path before that is suspected, however patient TCP is there."""
        pair, stream_id = self.joined(*THREE)
        tally = Tally()
        self.flow(pair, stream_id, 0.4, 0.02, 1400, tally)
        alive = pair.a.session._subflows.alive
        alive[1].rtt.variation = 0.1
        at = pair.heap.now
        pair.stall(1)
        self.flow(pair, stream_id, 0.8, 0.02, 1400, tally)
        pair.run(0.2)
        self.flow(pair, stream_id, 0.02, 0.02, 1400, tally)
        self.assertTrue(tally.lost)
        self.assertLess(max(tally.lost[:-1]), at + 0.15)

    def test_two_copies_lose_nothing(self) -> None:
        """Whichever of two paths dies, or falls silent."""
        for subflow_id in (1, 2):
            for stalls in (False, True):
                pair, stream_id = self.joined(*THREE[:2], copies=2)
                tally = Tally()
                self.flow(pair, stream_id, 0.2, 0.01, 500, tally)
                if stalls:
                    pair.stall(subflow_id)
                else:
                    pair.cut(subflow_id)
                self.flow(pair, stream_id, 0.4, 0.01, 500, tally)
                pair.run(0.1)
                came = pair.b.streams[stream_id].datagrams
                self.assertEqual(len(came), len(tally.sent))
                self.assertEqual(len({payload[:4] for _, payload, _ in came}), len(came))

    def test_copies_without_room(self) -> None:
        """Where many wait a path gets those that have not left yet, and no copies of others."""
        datagrams = Datagrams(LIMITS, MemoryBudget(LIMITS))
        datagrams.add(1, 2)
        ways = [(Subflow(number, LIMITS, 0.0, 0.02 * number), 0.0, 0.0) for number in (1, 2)]
        for number, (subflow, _, _) in enumerate(ways):
            subflow.path = number
        for _ in range(LIMITS.datagrams):
            datagrams.put(1, bytes(1000), None, 0.0)
        datagrams.route(ways, 0.0)
        for subflow_id, numbers in ((1, range(40)), (2, range(32, 64))):
            for number in numbers:
                datagram = datagrams.take(subflow_id, 0.001)
                assert datagram is not None
                self.assertEqual(datagram.number, number)
                datagram.carriers += (subflow_id,)
        self.assertEqual(sum(datagrams.dropped.values()), 0)

    def test_both_ends_send_copies(self) -> None:
        """What the opener has asked for holds for the answers, too."""
        pair, stream_id = self.joined(*THREE, copies=2)
        scribe = Scribe(pair.b)
        pair.b.send_datagram(stream_id, b"x")
        pair.run(0.2)
        self.assertEqual([payload for _, payload, _ in pair.a.streams[stream_id].datagrams], [b"x"])
        self.assertEqual([i for i, f in scribe.sent if f[0] == frames.DGRAM], [1, 2])

    def test_nothing_is_left(self) -> None:
        """What would have to wait longer is dropped, in time, though nothing else happens."""
        pair, stream_id = self.joined(THREE[0])
        pair.cut_all()
        pair.a.send_datagram(stream_id, b"x")
        drop_at = pair.heap.now + LIMITS.datagram_age
        self.assertEqual(pair.a.session.no_deadline_before(pair.heap.now), drop_at)
        pair.run(0.0999)
        datagrams = pair.a.session._datagrams
        self.assertEqual((datagrams._held, datagrams.dropped["old"]), (21, 0))
        pair.run(0.0002)
        self.assertEqual((datagrams._held, datagrams.dropped["old"]), (0, 1))
        pair.add()
        pair.run(0.1)
        self.assertEqual(pair.b.streams[stream_id].datagrams, [])
        pair.a.send_datagram(stream_id, b"y")
        pair.run(0.1)
        self.assertEqual(len(pair.b.streams[stream_id].datagrams), 1)

    def test_at_rest(self) -> None:
        """An association that has ended leaves nothing, and had promised little."""
        pair, stream_id = self.joined(*THREE)
        self.assertEqual(pair.a.budget.promised, LIMITS.min_window)
        pair.a.send_datagram(stream_id, b"x")
        for end in (pair.a, pair.b):
            end.end(stream_id)
        self.assert_at_rest(pair)
        self.assertEqual(len(pair.b.streams[stream_id].datagrams), 1)
        self.assertEqual(pair.a.session._datagrams._flows, {})

    def test_out_of_turn(self) -> None:
        """Those for a stream that is not accepted yet, or carries none, come to nothing."""
        pair = self.pair(2)
        stream_id = pair.a.associate()
        pair.a.send_datagram(stream_id, b"too early")
        stream = self.opened(pair)
        pair.a.send_datagram(stream, b"no association")
        pair.a.send_datagram(99, b"no stream")
        pair.run(0.2)
        told = [e for e in pair.b.log if isinstance(e, events.DatagramArrived)]
        self.assertEqual((told, pair.a.session._datagrams.waits), ([], False))


class BesideTests(DatagramCase):
    """Datagrams and streams on the same subflows."""

    def streamed(self, each: float, size: int, tally: Tally) -> float:
        """How many bytes per second a stream carries, with datagrams beside it."""
        pair, stream_id = self.joined(*[(1e6, 0.02)] * 2)
        stream = self.opened(pair)
        pair.a.write(stream, pattern(1200 * KIB))
        pair.run(0.3)
        before = len(pair.b.streams[stream].got)
        at = pair.heap.now
        if size:
            self.flow(pair, stream_id, 0.25, each, size, tally)
        else:
            pair.run(0.25)
        return (len(pair.b.streams[stream].got) - before) / (pair.heap.now - at)

    def test_a_flood(self) -> None:
        """Streams keep four fifths of their rate."""
        alone = self.streamed(0, 0, Tally())
        self.assertGreater(alone, 1.9e6)
        for each, size in ((2e-4, 1200), (0.01, 60_000)):
            tally = Tally()
            self.assertGreater(self.streamed(each, size, tally), 0.8 * alone - 0.05e6)
            self.assertTrue(tally.took)

    def test_a_few(self) -> None:
        """Beside a stream they take longer by what is given to a subflow at a time."""
        tally = Tally()
        self.streamed(0.02, 200, tally)
        self.assertGreater(len(tally.took), 8)
        self.assertLess(max(tally.took.values()), 0.02 + 1.5 * LIMITS.batch_time)


class OverflowTests(DatagramCase):
    """A path for what the primary one cannot carry."""

    def over(self, rate: float, copies: int = 1) -> tuple[Tally, int]:
        """
        Send so many bytes a second, where the primary path carries 250 kB and another 1 MB.

        @return: what became of them, and how many bytes of them the other path got.
        """
        pair, stream_id = self.joined((0.25e6, 0.01), copies=copies)
        other = pair.add(1e6, 0.03, path=PathInfo(1, PathRole.OVERFLOW))
        tally = Tally()
        self.flow(pair, stream_id, 2.0, 1000 / rate, 1000, tally)
        pair.run(0.3)
        self.flow(pair, stream_id, 0.01, 0.01, 1000, tally)
        traffic = pair.a.session._subflows.alive[other].tx
        return tally, traffic.first + traffic.copy

    def test_what_fits(self) -> None:
        """Nothing, however many go onto the primary one."""
        for rate in (20e3, 200e3):
            tally, carried = self.over(rate)
            self.assertEqual((tally.lost[:-1], carried), ([], 0))

    def test_what_does_not(self) -> None:
        """The rest goes there, instead of being dropped."""
        tally, carried = self.over(750e3)
        self.assertLess(len(tally.lost), 0.03 * len(tally.sent))
        # At first nobody knows how much the primary one carries.
        took = [took for number, took in tally.took.items() if number > len(tally.sent) / 4]
        self.assertLess(max(took), 0.03 + LIMITS.datagram_age)
        self.assertLess(carried, 0.75 * 1000 * len(tally.sent))


SENDS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from((0, 1, 1200, 9000, frames.MAX_DATAGRAM)),
        st.integers(0, 2),
        st.sampled_from((0.0, 0.0, 0.001, 0.03)),
        st.sampled_from(("", "", "", "cut", "stall", "resume", "slice")),
    ),
    max_size=30,
)


class PropertyTests(DatagramCase):
    """Whatever happens."""

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(SENDS, st.integers(1, 2))
    def test_as_they_were_sent(
        self, sends: list[tuple[int, int, int, float, str]], copies: int
    ) -> None:
        """None is altered, merged, split, given to another, doubled, or waits too long."""
        pair, _ = self.joined((2e6, 0.01), (3e5, 0.03), (1e6, 0.002), copies=copies)
        pair.b.streams.clear()
        ids = [pair.a.associate(copies) for _ in range(2)]
        pair.run(0.2)
        born: dict[tuple[int, int], float] = {}
        sent: dict[int, list[tuple[bytes, Target | None]]] = {i: [] for i in ids}
        pair.a.watch = lambda _, frame: self.check_age(frame, born, pair)
        for number, (which, size, peer, pause, trouble) in enumerate(sends):
            stream_id = ids[which % 2]
            payload = pattern(size, seed=number)
            born[stream_id, len(sent[stream_id])] = pair.heap.now
            sent[stream_id].append((payload, PEERS[peer]))
            pair.a.send_datagram(stream_id, payload, PEERS[peer])
            self.trouble(pair, trouble, 1 + which % 3)
            pair.run(pause)
        pair.run(1.0)
        for stream_id in ids:
            left = list(sent[stream_id])
            for _, came, peer_named in pair.b.streams[stream_id].datagrams:
                self.assertIn((came, peer_named), left)
                left.remove((came, peer_named))
        self.assertEqual(pair.a.session._datagrams._held, 0)

    def check_age(self, frame: Frame, born: dict[tuple[int, int], float], pair: Pair) -> None:
        """It has not waited longer than it may."""
        if frame[0] == frames.DGRAM:
            waited = pair.heap.now - born[frame[3], frame[4]]
            self.assertLess(waited, LIMITS.datagram_age)

    def trouble(self, pair: Pair, what: str, subflow_id: int) -> None:
        """Something befalls a subflow."""
        if subflow_id not in pair.subflows:
            return
        if what == "cut":
            pair.cut(subflow_id, 1000)
        elif what == "stall":
            pair.stall(subflow_id)
        elif what == "resume":
            pair.resume(subflow_id)
        elif what == "slice":
            pair.subflows[subflow_id][0].slice = 100
