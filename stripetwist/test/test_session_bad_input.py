"""A valid peer that misbehaves: what ends the subflow, the session, the stream, or nothing."""

import random
import tracemalloc
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import events, frames
from stripetwist.core.config import KIB, MIB, Limits, PeerLimits
from stripetwist.core.credit import MemoryBudget
from stripetwist.core.errors import Code, FramingError, OpenRefused, ProtocolError
from stripetwist.core.frames import HEADER, FrameParser, pack, pack_with
from stripetwist.core.session import Session
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.core.traits import Traits

LIMITS = Limits(max_memory=32 * MIB, prewarm=0)
REQUEST = OpenRequest(Target.of("example.test", 80))
NOW = 100.0


def data(stream: int, offset: int, payload: bytes, fin: bool = False) -> bytes:
    """A DATA frame."""
    return pack_with(payload, frames.DATA, frames.FIN if fin else 0, 0, stream, offset)


def reset(stream: int, size: int = 0) -> bytes:
    """A RESET frame."""
    return pack(frames.RESET, 0, Code.CANCELLED, stream, size)


class BadInputCase(SynchronousTestCase):
    """An acceptor on subflows 1 and 2, and a peer that sends what it likes."""

    limits = LIMITS

    def setUp(self) -> None:
        """A session, its budget, and no events yet."""
        self.budget = MemoryBudget(self.limits)
        peer = PeerLimits(8 * KIB, 100, 60.0)
        self.session = Session(False, self.limits, self.budget, peer, NOW)
        for subflow_id in (1, 2):
            self.session.subflow_up(subflow_id, NOW, 0.02)

    def feed(self, *sent: bytes, subflow: int = 1, now: float = NOW) -> None:
        """Frames come."""
        self.session.received(subflow, sent, now)

    def happened(self) -> list[events.Event]:
        """The events since the last time."""
        found = []
        while (event := self.session.next_event()) is not None:
            found.append(event)
        return found

    def said(self, subflow: int = 1, now: float = NOW + 1) -> list[frames.Frame]:
        """What the session has to say on a subflow."""
        self.session.drained(subflow)
        return FrameParser().feed(b"".join(self.session.poll(subflow, now)))

    def kinds(self) -> list[int]:
        """Types of the frames that it has to say, but acknowledgements."""
        return [frame[0] for frame in self.said() if frame[0] != frames.ACK]

    def opened(self, stream_id: int = 1) -> int:
        """A stream of the peer's, accepted, with a window of 1 MiB."""
        self.feed(frames.pack_open(stream_id, 8 * KIB, REQUEST))
        self.session.accept(stream_id)
        self.happened()
        self.said()
        return stream_id

    def ours(self) -> int:
        """A stream of ours that the peer has accepted."""
        stream_id = self.session.open(REQUEST)
        self.said()
        self.feed(pack(frames.ACCEPT, stream=stream_id, offset=8 * KIB))
        self.happened()
        return stream_id

    def assert_session_ends(self, code: Code, *sent: bytes) -> None:
        """These frames are against their meaning."""
        error = self.assertRaises(ProtocolError, self.feed, *sent)
        self.assertNotIsInstance(error, FramingError)
        self.assertIs(error.code, code, error)
        self.session.close(error.code, error.reason)
        self.assertEqual((self.budget.promised, self.budget.stored), (0, 0))

    def assert_subflow_ends(self, *sent: bytes) -> None:
        """These bytes are no frames."""
        self.assertRaises(FramingError, self.feed, *sent)

    def assert_ignored(self, *sent: bytes) -> None:
        """These frames change nothing, but are acknowledged."""
        self.feed(*sent)
        self.assertEqual(self.happened(), [])
        self.assertEqual(self.kinds(), [])


class FramingTests(BadInputCase):
    """Bytes that make no frames end their subflow, and lose nothing that was good."""

    def test_unknown_types(self) -> None:
        """Those that must be understood end the subflow (C01), others are skipped (C02)."""
        self.assert_ignored(pack_with(b"whatever", 0x81), pack_with(bytes(65536), 0xFE))
        self.assert_subflow_ends(pack(0x08))

    def test_lengths(self) -> None:
        """Too long for the type, at the header (C03, C06)."""
        for kind, size in ((frames.DATA, 65517), (frames.RESET, 1), (frames.CLOSE, 1025)):
            self.setUp()
            self.assert_subflow_ends(HEADER.pack(kind, 0, 0, size, 1, 0))

    def test_reserved_flags_are_ignored(self) -> None:
        """Bits of the future mean nothing today (C04)."""
        stream_id = self.opened()
        self.feed(HEADER.pack(frames.DATA, 0xFE, 0xFFFF, 1, stream_id, 0) + b"x")
        self.assertEqual(self.session.take(stream_id, 10), (b"x", False))

    def test_cut_payloads(self) -> None:
        """Half records, fields and ids (C05, C06)."""
        for bad in (
            pack_with(bytes(13), frames.CREDIT),
            pack_with(bytes(17), frames.ACK),
            pack_with(bytes(3), frames.SUBFLOW_FINAL),
            pack_with(bytes(5), frames.SUBFLOW_FINAL),
            pack_with(b"\x01\x00\x09\x01", frames.OPEN, 0, 1, 1),
            pack_with(b"", frames.OPEN, 0, 1, 1),
        ):
            self.setUp()
            self.assert_subflow_ends(bad)

    def test_what_follows_a_bad_frame_was_never_parsed(self) -> None:
        """So the peer sends it again elsewhere, and a stream loses nothing by it."""
        stream_id = self.opened()
        good, late = data(stream_id, 0, b"abc"), data(stream_id, 3, b"def")
        parsed = self.session._subflows.alive[1].parser.parsed
        self.assert_subflow_ends(good, pack_with(b"!", frames.CREDIT), late, late[:7])
        self.session.subflow_down(1, NOW)
        (final,) = [f for f in self.said(2) if f[0] == frames.SUBFLOW_FINAL]
        self.assertEqual(final[4], parsed + len(good))
        self.feed(late, subflow=2)
        self.assertEqual(self.session.take(stream_id, 10)[0], b"abcdef")

    def test_a_wrong_checksum(self) -> None:
        """Ends the subflow before the frame; the session goes on."""
        self.session.subflow_up(3, NOW, 0.02, Traits(lambda value, data: 0))
        self.assertRaises(
            FramingError, self.session.received, 3, [pack(frames.PING) + b"\0\0\0\1"], NOW
        )
        self.assertEqual(self.session._subflows.alive[3].parser.parsed, 0)
        self.opened()


class DataTests(BadInputCase):
    """DATA that cannot be."""

    def test_data_before_its_open_waits(self) -> None:
        """Within the first window, for the OPEN to come (C07)."""
        self.feed(data(1, 0, bytes(8 * KIB)))
        self.assertEqual(self.happened(), [])
        self.assertEqual(self.session.take(1, 10), (b"", False))
        self.opened()
        self.assertEqual(len(self.session.take(1, 10)[0]), 8 * KIB)
        self.assert_session_ends(Code.FLOW_CONTROL, data(3, 8 * KIB, b"x"))

    def test_data_on_streams_of_ours_that_never_were(self) -> None:
        """Nobody can have opened it (C07)."""
        for stream_id in (0, 2, 2**31):
            self.setUp()
            self.assert_session_ends(Code.STREAM_STATE, data(stream_id, 0, b"x"))

    def test_late_data_on_a_closed_stream(self) -> None:
        """Is harmless (C08, C41)."""
        stream_id = self.opened()
        self.feed(reset(stream_id))
        self.happened()
        self.assert_ignored(data(stream_id, 0, b"x"), data(stream_id, 2**40, b"x", True))
        mine = self.ours()
        self.session.reset(mine, Code.CANCELLED)
        self.said()
        self.assert_ignored(data(mine, 0, b"x"), reset(mine), pack(frames.STOP, stream=mine))

    def test_data_after_the_end(self) -> None:
        """The session ends (C09, C12)."""
        for extra in (data(1, 3, b"d"), data(1, 2, b"cd"), data(1, 2**62, b"x")):
            self.setUp()
            stream_id = self.opened()
            self.feed(data(stream_id, 0, b"abc", True))
            self.assert_session_ends(Code.FINAL_SIZE, extra)

    def test_the_same_end_twice(self) -> None:
        """Is a copy (C10)."""
        stream_id = self.opened()
        self.feed(data(stream_id, 0, b"abc", True))
        self.happened()
        self.assert_ignored(data(stream_id, 0, b"abc", True), data(stream_id, 3, b"", True))
        self.assertEqual(self.session.take(stream_id, 10), (b"abc", True))

    def test_another_end(self) -> None:
        """Smaller, larger, or of a RESET: the session ends (C11)."""
        for extra in (data(1, 2, b"", True), data(1, 4, b"", True), reset(1, 4), reset(1, 2)):
            self.setUp()
            stream_id = self.opened()
            self.feed(data(stream_id, 0, b"abc", True))
            self.assert_session_ends(Code.FINAL_SIZE, extra)

    def test_an_end_before_bytes_that_came(self) -> None:
        """Told by FIN or RESET (C11)."""
        for extra in (data(1, 5, b"", True), reset(1, 5)):
            self.setUp()
            self.opened()
            self.feed(data(1, 5, b"fgh"))
            self.assert_session_ends(Code.FINAL_SIZE, extra)

    def test_data_at_the_limit(self) -> None:
        """The last byte is fine (C13), one more is not (C14)."""
        stream_id = self.opened()
        limit = self.session._streams.table[stream_id].window.limit
        self.assert_ignored(data(stream_id, limit - 1, b"x"))
        self.assert_session_ends(Code.FLOW_CONTROL, data(stream_id, limit, b"x"))

    def test_offsets_beyond_everything(self) -> None:
        """No sum overflows, nothing is allocated (C16)."""
        for offset in (2**62, 2**63, 2**64 - 1):
            self.setUp()
            self.opened()
            self.assert_session_ends(Code.FLOW_CONTROL, data(1, offset, bytes(1000)))

    def test_overlaps(self) -> None:
        """Other boundaries, whatever the bytes: the session ends (C17, C18)."""
        for first, second in (
            (data(1, 0, b"abcd"), data(1, 2, b"cdef")),
            (data(1, 0, b"abcd"), data(1, 3, b"XY")),
            (data(1, 4, b"efgh"), data(1, 4, b"ef")),
            (data(1, 1, b"bcde"), data(1, 2, b"cdef")),
        ):
            self.setUp()
            self.opened()
            self.feed(first)
            self.assert_session_ends(Code.STREAM_STATE, second)

    def test_every_second_byte(self) -> None:
        """A stream that is nothing but gaps is reset, and frees what it held (C19)."""
        stream_id = self.opened()
        self.session._streams.table[stream_id].window.size = 8 * KIB
        with self.assertRaises(AssertionError):
            for i in range(1, 2000, 2):
                self.feed(data(stream_id, i, b"x"))
                assert not self.happened()
        self.assertLess(i, 200)
        self.assertEqual(self.kinds(), [frames.RESET])
        self.assertEqual(self.budget.promised, 0)
        self.assert_ignored(data(stream_id, 0, b"x"))

    def test_empty_data(self) -> None:
        """Without an end it is nonsense at once (C20); with one it is an end (C21)."""
        stream_id = self.opened()
        self.feed(data(stream_id, 0, b"", True))
        self.assertEqual(self.session.take(stream_id, 10), (b"", True))
        self.opened(3)
        self.assert_session_ends(Code.STREAM_STATE, data(3, 0, b""))

    def test_a_flood_of_tiny_chunks(self) -> None:
        """In order, to a consumer that takes nothing: held in little more than its size."""
        stream_id = self.opened()
        tracemalloc.start()
        try:
            for start in range(0, 24_000, 600):
                self.feed(*(data(stream_id, i, b"xy") for i in range(start, start + 600, 2)))
            # An object for each would be over a megabyte; the tracer counts itself, too.
            self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)
        finally:
            tracemalloc.stop()


class AckTests(BadInputCase):
    """Acknowledgements and credit that lie."""

    def test_an_ack_of_unsent_bytes(self) -> None:
        """For this subflow, or for another (C22, C25)."""
        stream_id = self.ours()
        self.session.write(stream_id, b"hello")
        self.said()
        written = self.session._subflows.alive[1].ledger.written
        record = (2).to_bytes(4, "big") + (10**9).to_bytes(8, "big") + bytes(4)
        self.assert_ignored(pack(frames.ACK, offset=written))
        self.assert_session_ends(Code.PROTOCOL, pack(frames.ACK, offset=written + 100))
        self.setUp()
        self.assert_session_ends(Code.PROTOCOL, pack_with(record, frames.ACK))

    def test_old_acks_and_strange_records(self) -> None:
        """Lower counts and dead subflows are ignored, however many (C23)."""
        stream_id = self.ours()
        self.session.write(stream_id, b"hello")
        self.said()
        records = b"".join(i.to_bytes(4, "big") + bytes(12) for i in range(90, 300))
        self.assert_ignored(pack_with(records, frames.ACK), pack(frames.ACK))

    def test_credit_only_grows(self) -> None:
        """Less is ignored (C26), an absurd limit is only a limit (C27)."""
        stream_id = self.ours()
        self.assert_ignored(frames.pack_credit([(stream_id, 5)]))
        self.session.write(stream_id, bytes(20 * KIB))
        sent = [f[6] for f in self.said() if f[0] == frames.DATA]
        self.assertEqual(sum(sent), 8 * KIB)
        self.feed(frames.pack_credit([(stream_id, 2**63), (stream_id, 2**64 - 1)]))
        sent = [f[6] for f in self.said() + self.said() if f[0] == frames.DATA]
        self.assertEqual(sum(sent), 12 * KIB)
        self.assertFalse(self.session.write(stream_id, bytes(self.limits.max_unsent)))

    def test_a_flood_of_credit(self) -> None:
        """Costs nothing but its parsing (C28)."""
        stream_id = self.ours()
        for limit in range(10_000, 30_000):
            self.feed(frames.pack_credit([(stream_id, limit)]))
        self.assertEqual(self.kinds(), [])

    def test_credit_for_strangers(self) -> None:
        """For streams that are closed it is ignored, for streams that cannot be it is an error."""
        stream_id = self.opened()
        self.feed(reset(stream_id))
        self.happened()
        self.assert_ignored(frames.pack_credit([(stream_id, 10**6)]))
        self.assert_session_ends(Code.STREAM_STATE, frames.pack_credit([(2, 10**6)]))
        self.setUp()
        self.assert_session_ends(Code.STREAM_STATE, frames.pack_credit([(7, 10**6)]))

    def test_a_flood_of_pings(self) -> None:
        """Owes one PONG (C29)."""
        for stamp in range(5000):
            self.feed(pack(frames.PING, offset=stamp))
        pongs = [frame for frame in self.said() if frame[0] == frames.PONG]
        self.assertEqual([frame[4] for frame in pongs], [4999])

    def test_pongs_nobody_asked_for(self) -> None:
        """Of any stamp: no effect that matters (C30)."""
        for stamp in (0, 1, 2**40, 2**64 - 1):
            self.assert_ignored(pack(frames.PONG, aux=65535, offset=stamp))
        self.assertLess(self.session._subflows.alive[1].life.stall_after, 3.01)


class StreamTests(BadInputCase):
    """Streams that are opened, answered and reset against the rules."""

    limits = replace(LIMITS, max_streams=20)

    def test_one_stream_too_many(self) -> None:
        """Is refused with the reason (C31)."""
        for stream_id in range(1, 41, 2):
            self.opened(stream_id)
        self.feed(frames.pack_open(41, 0, REQUEST))
        (refusal,) = [f for f in self.said() if f[0] == frames.REFUSE]
        self.assertEqual((refusal[3], refusal[2]), (41, Code.TOO_MANY_STREAMS))
        self.assert_ignored(frames.pack_open(41, 0, REQUEST), data(41, 0, b"x"))

    def test_a_flood_of_opens_that_nobody_polls(self) -> None:
        """Ends the session at the caps (C32)."""
        with self.assertRaises(ProtocolError) as caught:
            for stream_id in range(1, 10**6, 2):
                self.feed(frames.pack_open(stream_id, 0, REQUEST))
        self.assertIs(caught.exception.code, Code.LIMIT)
        outbox = self.session._outbox
        self.assertLessEqual(outbox._owed_bytes, MIB + KIB)
        self.assertLessEqual(outbox._owed_items, 10_001)

    def test_a_flood_of_opens_that_we_refuse(self) -> None:
        """Our own refusals count as well."""
        with self.assertRaises(ProtocolError) as caught:
            for stream_id in range(1, 10**6, 2):
                self.feed(frames.pack_open(stream_id, 0, REQUEST))
                self.session.refuse(stream_id, Code.NOT_ALLOWED, "")
        self.assertIs(caught.exception.code, Code.LIMIT)
        self.assertLessEqual(self.session._outbox._owed_items, 10_001)

    def test_refusals_that_nobody_acknowledges(self) -> None:
        """Are sent up to a bound, then queued, then the session ends (C24, C32)."""
        session = self.session
        with self.assertRaises(ProtocolError):
            for stream_id in range(1, 10**6, 2):
                self.feed(frames.pack_open(stream_id, 0, REQUEST))
                session.refuse(stream_id, Code.NOT_ALLOWED, "n" * 200)
                for subflow_id in (1, 2):
                    session.drained(subflow_id)
                    session.poll(subflow_id, NOW)
        ledgers = [len(s.ledger) for s in session._subflows.alive.values()]
        self.assertLess(sum(ledgers), 6000)

    def test_streams_whose_open_never_comes(self) -> None:
        """There are at most so many of them, each for a minute; then it is reset."""
        self.limits = LIMITS
        self.setUp()
        most = self.limits.max_opening
        for number in range(most + 1):
            self.feed(data(2 * number + 1, 0, b"x"))
        self.assertEqual(len(self.session._streams.table), most)
        (refusal,) = [f for f in self.said() if f[0] == frames.REFUSE]
        self.assertEqual((refusal[3], refusal[2]), (2 * most + 1, Code.TOO_MANY_STREAMS))
        self.feed(frames.pack_open(1, 0, REQUEST))
        self.happened()
        for now in (NOW + 59, NOW + 61):
            self.session.received(2, [pack(frames.PING)], now)
            self.session.deadline_reached(now)
            left = most if now < NOW + 60 else 1
            self.assertEqual(len(self.session._streams.table), left)
        self.assertLessEqual(self.budget.promised, LIMITS.min_window)

    def test_streams_that_we_take_and_break(self) -> None:
        """Whoever acknowledges none of our words about its streams is closed in the end."""
        self.limits = replace(LIMITS, max_control_items=500, max_control_bytes=32 * KIB)
        self.setUp()
        with self.assertRaises(ProtocolError) as caught:
            for number in range(1, 10**6, 2):
                self.feed(frames.pack_open(number, 1 << 40, REQUEST))
                self.session.accept(number)
                self.session.reset(number, Code.PEER_RESET)
                self.said()
        self.assertIs(caught.exception.code, Code.LIMIT)
        self.assertLess(len(self.session._outbox._control), 510)

    def test_rapid_reset(self) -> None:
        """OPEN and RESET again and again: each is told, nothing is kept (C33)."""
        for stream_id in range(1, 20_001, 2):
            self.feed(frames.pack_open(stream_id, 0, REQUEST), reset(stream_id))
            told = self.happened()
            self.assertEqual([type(e) for e in told], [events.StreamOpened, events.StreamReset])
        self.assertEqual(self.session._streams.table, {})
        self.assertEqual(self.budget.promised, 0)
        self.assertEqual(self.kinds(), [])

    def test_numbers_of_opens(self) -> None:
        """Live and closed ids are copies; wrong parity, zero and huge jumps are errors (C34)."""
        self.opened(5)
        self.assert_ignored(frames.pack_open(5, 99, REQUEST))
        self.feed(reset(5))
        self.happened()
        self.assert_ignored(frames.pack_open(5, 99, REQUEST))
        self.opened(1)
        for stream_id, code in (
            (0, Code.STREAM_STATE),
            (2, Code.STREAM_STATE),
            (2**32 - 1, Code.LIMIT),
            (2**31 + 1, Code.LIMIT),
        ):
            self.setUp()
            self.assert_session_ends(code, frames.pack_open(stream_id, 0, REQUEST))
            self.assertEqual(len(self.session._streams._numbers._gaps), 0)

    def test_jumps_by_other_frames(self) -> None:
        """RESET, STOP and DATA cannot make us remember many gaps either."""
        for sent in (reset(1001), pack(frames.STOP, stream=1001), data(1001, 0, b"x")):
            self.setUp()
            self.assert_session_ends(Code.LIMIT, sent)

    def test_opens_of_impossible_targets(self) -> None:
        """Are refused; the session goes on (C36)."""
        bad = b"\x01\x00\x04\x03\x00\x00\x50"
        self.feed(pack_with(bad, frames.OPEN, 0, 1, 1))
        self.feed(pack_with(frames.pack_open(3, 0, REQUEST)[20:], frames.OPEN, 0, 77, 3))
        refused = [(f[3], f[2]) for f in self.said() if f[0] == frames.REFUSE]
        self.assertEqual(refused, [(1, Code.GENERAL), (3, Code.BAD_KIND)])
        self.assertEqual(self.happened(), [])
        self.assertEqual(self.budget.promised, 0)

    def test_answers_to_the_peers_own_streams(self) -> None:
        """End the session (C39)."""
        for kind in (frames.ACCEPT, frames.REFUSE):
            self.setUp()
            self.opened(1)
            self.assert_session_ends(Code.STREAM_STATE, pack(kind, stream=1))

    def test_answers_to_what_was_never_asked(self) -> None:
        """End the session, too."""
        for kind in (frames.ACCEPT, frames.REFUSE, frames.RESET, frames.STOP):
            self.setUp()
            self.assert_session_ends(Code.STREAM_STATE, pack(kind, stream=2))

    def test_an_answer_twice(self) -> None:
        """The first holds (C39); a refusal after an acceptance breaks the stream."""
        stream_id = self.ours()
        self.assert_ignored(pack(frames.ACCEPT, stream=stream_id, offset=10**9))
        self.assertEqual(self.session._streams.table[stream_id].credit.limit, 8 * KIB)
        self.feed(pack(frames.REFUSE, 0, Code.TIMEOUT, stream_id))
        self.assertEqual(self.happened(), [events.StreamReset(stream_id, Code.TIMEOUT)])

    def test_a_reset_of_the_unknown(self) -> None:
        """Closes that number, so that its OPEN is ignored when it comes (C40)."""
        self.assert_ignored(reset(1), frames.pack_open(1, 0, REQUEST), data(1, 0, b"x"))

    def test_a_reset_of_a_stream_without_open(self) -> None:
        """Its owner never knew of it, and is told nothing."""
        self.assert_ignored(data(1, 0, b"abc"), reset(1, 3))
        self.assertEqual(self.budget.promised, 0)

    def test_unknown_codes(self) -> None:
        """Mean a general failure."""
        stream_id = self.opened()
        self.feed(pack(frames.RESET, 0, 9999, stream_id))
        self.assertEqual(self.happened(), [events.StreamReset(stream_id, Code.GENERAL)])

    def test_a_stop_ends_our_sending(self) -> None:
        """Our bytes are dropped; the number is freed once the peer's half has ended (C42)."""
        stream_id = self.opened()
        self.session.write(stream_id, bytes(100 * KIB))
        self.feed(pack(frames.STOP, stream=stream_id), pack(frames.STOP, stream=stream_id))
        self.assertEqual(self.budget.stored, 0)
        self.assertEqual(self.happened(), [events.StreamWritable(stream_id)])
        self.feed(data(stream_id, 0, b"", True))
        self.session.take(stream_id, 1)
        self.assertIn(events.StreamFinished(stream_id), self.happened())

    def test_a_stop_before_the_open(self) -> None:
        """Comes on another subflow, and is remembered."""
        self.feed(pack(frames.STOP, stream=1), subflow=2)
        self.feed(frames.pack_open(1, 8 * KIB, REQUEST))
        self.session.accept(1)
        self.assertTrue(self.session.write(1, bytes(100)))
        self.assertNotIn(frames.DATA, self.kinds())

    def test_half_closed_for_ever(self) -> None:
        """As many as there may be streams, holding nothing (C43)."""
        for stream_id in range(1, 41, 2):
            self.opened(stream_id)
            self.feed(data(stream_id, 0, b"", True))
        self.assertEqual(self.budget.promised, 0)
        self.feed(frames.pack_open(41, 0, REQUEST))
        self.assertEqual(self.kinds(), [frames.REFUSE])


class SessionTests(BadInputCase):
    """Frames about subflows and the session."""

    def test_goaway(self) -> None:
        """With whatever last id; what it says is safe to show (C47, C54)."""
        self.feed(pack_with(b"\x1b[31m%s{}" * 100, frames.GOAWAY, 0, 15, 2**32 - 1, 2**64 - 1))
        (told,) = self.happened()
        assert isinstance(told, events.PeerGoesAway)
        self.assertTrue(told.sentence.isascii() and told.sentence.isprintable())
        self.assertLessEqual(len(told.sentence), 256)
        self.assertRaises(OpenRefused, self.session.open, REQUEST)
        self.opened()

    def test_close_is_the_last_word(self) -> None:
        """What follows in the same bytes is not looked at."""
        stream_id = self.opened()
        self.feed(
            pack_with(b"bye\x1b", frames.CLOSE, 0, Code.IDLE),
            frames.pack_open(3, 0, REQUEST),
            pack_with(b"x", frames.GOAWAY),
            data(stream_id, 2**60, b"x"),
        )
        last = [events.StreamReset(stream_id, Code.SESSION_LOST)]
        self.assertEqual(self.happened(), [*last, events.SessionClosed(Code.IDLE, r"bye\x1b")])
        self.assertEqual(self.budget.promised, 0)

    def test_datagrams_for_nobody(self) -> None:
        """Are dropped (C52)."""
        for payload in (b"", b"x", bytes(65764)):
            self.assert_ignored(pack_with(payload, frames.DGRAM, 0, 1, 99, 1))
        stream_id = self.opened()
        self.assert_ignored(pack_with(b"x", frames.DGRAM, 0, 0, stream_id, 1))
        self.assert_subflow_ends(HEADER.pack(frames.DGRAM, 0, 1, 65765, 99, 1))

    def test_datagrams_that_make_no_sense(self) -> None:
        """Are dropped, whatever they name; a cut address ends the subflow (C52)."""
        request = OpenRequest(ANYWHERE, Kind.UDP)
        early = pack_with(b"x", frames.DGRAM, 0, 0, 1, 1)
        self.feed(early, frames.pack_open(1, 0, request), early)
        self.assertEqual(self.happened(), [events.StreamOpened(1, request)])
        self.session.accept(1)
        self.happened()
        self.said()
        flag = frames.ADDRESSED
        for payload in (b"\x07abcdefgh", b"\x03\x01/\0\x50", b"\x01\x7f\0\0\x01\0\0x"):
            self.assert_ignored(pack_with(payload, frames.DGRAM, flag, 0, 1, 1))
        self.assert_ignored(pack_with(bytes(65764), frames.DGRAM, 0, 0, 1, 1))
        again = pack_with(b"x", frames.DGRAM, 0xFB, 7, 1, 1)
        self.feed(again, again, pack_with(b"y", frames.DGRAM, 0, 0, 1, 2**64 - 1), again)
        told = [events.DatagramArrived(1, payload, None) for payload in (b"x", b"y")]
        self.assertEqual(self.happened(), told)
        self.assert_subflow_ends(pack_with(b"\x01\x7f\0\0\x01\0", frames.DGRAM, flag, 0, 1, 2))

    def test_padding(self) -> None:
        """Is thrown away, counted, acknowledged."""
        self.feed(pack_with(bytes(65536), frames.PAD))
        self.assertEqual(self.session._subflows.alive[1].rx.pad, 65556)
        self.assertEqual([f[0] for f in self.said()], [frames.ACK])

    def test_the_last_word_on_a_subflow_that_lives(self) -> None:
        """It is dead from now on, even if it is the one that said so."""
        for about in (2, 1):
            self.setUp()
            self.feed(frames.pack_final(about, 0), frames.pack_open(1, 0, REQUEST))
            told = self.happened()
            self.assertIsInstance(told[0], events.SubflowDead)
            self.assertEqual(told[1:], [events.StreamOpened(1, REQUEST)])
            self.assertNotIn(about, self.session._subflows.alive)

    def test_a_last_word_that_lies(self) -> None:
        """Parsed more than was ever sent."""
        self.assert_session_ends(Code.PROTOCOL, frames.pack_final(2, 10**9))

    def test_a_flood_of_last_words(self) -> None:
        """On subflows that never were: bounded, then the session ends."""
        with self.assertRaises(ProtocolError) as caught:
            for subflow_id in range(10, 10**6):
                self.feed(frames.pack_final(subflow_id, 0))
        self.assertIs(caught.exception.code, Code.LIMIT)
        self.assertLessEqual(len(self.session._subflows._ended), 4096)

    def test_draining(self) -> None:
        """Nothing new on that subflow, but what it owes; the others carry on."""
        self.feed(pack(frames.SUBFLOW_DRAIN), frames.pack_open(1, 8 * KIB, REQUEST))
        self.session.accept(1)
        self.session.write(1, b"hello")
        self.assertEqual([f[0] for f in self.said(1)], [frames.ACK])
        kinds = {f[0] for f in self.said(2)}
        self.assertEqual(kinds, {frames.ACCEPT, frames.DATA})

    def test_numbers_of_subflows_are_used_once(self) -> None:
        """Alive or dead."""
        self.session.subflow_down(2, NOW)
        for subflow_id in (1, 2):
            self.assertRaises(ProtocolError, self.session.subflow_up, subflow_id, NOW)

    def test_two_sessions_do_not_mix(self) -> None:
        """Stream ids mean nothing beyond their session (C48)."""
        first = self.session
        self.opened(1)
        self.setUp()
        self.opened(1)
        self.feed(data(1, 0, b"second"))
        self.assertEqual(first.take(1, 10), (b"", False))
        self.assertEqual(self.session.take(1, 10), (b"second", False))


_IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 40, 2**32 - 1])
_OFFSETS = st.sampled_from([0, 1, 3, 100, 8192, 2**20, 2**63, 2**64 - 1])
_PAYLOADS = st.one_of(
    st.sampled_from([b"", b"x", b"abc", frames.pack_open(1, 0, REQUEST)[20:], bytes(12)]),
    st.binary(max_size=40),
)
_FRAMES = st.builds(
    lambda kind, flags, aux, stream, offset, payload: pack_with(
        payload, kind, flags, aux, stream, offset
    ),
    st.sampled_from([*frames.NAMES]),
    st.sampled_from([0, frames.FIN, frames.COPY]),
    st.sampled_from([0, 1, 2, 3, 41, 65535]),
    _IDS,
    _OFFSETS,
    _PAYLOADS,
)


class FuzzTests(BadInputCase):
    """Frames nobody thought of."""

    def survive(self, pieces: list[bytes]) -> None:
        """Nothing but the two errors; then everything is given back."""
        self.setUp()
        mine = self.ours()
        self.session.write(mine, b"hello")
        self.opened(1)
        for piece in pieces:
            try:
                self.feed(piece)
            except FramingError:
                break
            except ProtocolError as error:
                self.session.close(error.code, error.reason)
                break
            for event in self.happened():
                if isinstance(event, events.StreamOpened):
                    self.session.accept(event.stream_id)
                elif isinstance(event, events.StreamReadable):
                    taken, _ = self.session.take(event.stream_id, 100)
                    self.session.consumed(event.stream_id, len(taken))
            self.said()
            table = self.session._streams.table.values()
            promised = sum(s.window.booked for s in table)
            self.assertEqual(self.budget.promised, promised)
            self.assertEqual(self.budget.stored, sum(s.send.stored for s in table))
        self.session.finish(Code.GENERAL, "enough")
        self.assertEqual((self.budget.promised, self.budget.stored), (0, 0))

    @settings(max_examples=150, deadline=None)
    @given(st.lists(_FRAMES, max_size=12))
    def test_valid_frames_in_any_order(self, pieces: list[bytes]) -> None:
        """Structure-aware: each frame is well formed (C57)."""
        self.survive(pieces)

    def test_random_bytes(self) -> None:
        """Noise, whole or behind good frames (C56)."""
        rng = random.Random(3)
        for _ in range(300):
            good = frames.pack_open(3, 0, REQUEST) + data(3, 0, b"abc")
            noise = bytearray(good * 2 + rng.randbytes(60))
            for _ in range(rng.randrange(5)):
                noise[rng.randrange(len(noise))] ^= 1 << rng.randrange(8)
            self.survive([bytes(noise[:40]), bytes(noise[40:])])
