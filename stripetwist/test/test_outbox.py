"""L{stripetwist.core.outbox}: control first, then what must go again, then new bytes."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import frames
from stripetwist.core.chunks import Chunk
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow
from stripetwist.core.frames import HEADER_SIZE
from stripetwist.core.outbox import Control, Outbox
from stripetwist.core.stream import Stream

LIMITS = Limits(max_memory=32 * MIB)
ALL = 2**30


class OutboxTests(SynchronousTestCase):
    """What waits to be sent, and in which order it leaves."""

    def setUp(self) -> None:
        """An empty outbox."""
        self.outbox = Outbox(LIMITS)
        self.budget = MemoryBudget(LIMITS)
        self.healthy: set[int] = {1, 2}

    def stream(self, stream_id: int, data: bytes = b"") -> Stream:
        """A stream that may send 64 KiB, in its turn if it has something."""
        window = ReceiveWindow(8 * KIB, self.budget, LIMITS)
        stream = Stream(stream_id, True, 64 * KIB, window)
        if data:
            stream.send.write(data)
            self.outbox.ready(stream)
        return stream

    def controls(self, most: int = ALL, carrier: int = 0) -> list[bytes]:
        """The control frames that leave, on that subflow."""
        return [control.data for control in self.take(most, carrier)]

    def take(self, most: int = ALL, carrier: int = 0) -> list[Control]:
        """The control frames that leave, on that subflow."""
        out = []
        for control in self.outbox.take_control(most, self.healthy):
            if carrier:
                control.carriers += (carrier,)
            out.append(control)
        return out

    def cut(self, size: int = 1000) -> Chunk:
        """The next chunk of new bytes."""
        chunk = self.outbox.cut(size)
        assert chunk is not None
        return chunk

    # ---- control

    def test_control_leaves_in_order(self) -> None:
        """First in, first out, about as much as is asked for."""
        for i in range(5):
            self.outbox.put(bytes([i]) * 20)
        self.assertEqual(self.controls(50), [bytes([i]) * 20 for i in range(3)])
        self.assertEqual(len(self.controls()), 2)
        self.assertFalse(self.outbox.has_control)

    def test_credit_is_said_as_it_is_when_it_leaves(self) -> None:
        """However often a limit rises before, one record goes."""
        stream = self.stream(3)
        for _ in range(4):
            stream.window.take(2 * KIB)
            self.outbox.renew(stream)
        (data,) = self.controls()
        self.assertEqual(frames.parse_credit(data[HEADER_SIZE:]), [(3, 16 * KIB)])
        self.assertEqual(self.controls(), [])

    def test_credit_of_many_streams_shares_frames(self) -> None:
        """As many records as fit 4 KiB."""
        for i in range(500):
            self.outbox.renew(self.stream(2 * i + 1))
        sizes = [len(frames.parse_credit(data[HEADER_SIZE:])) for data in self.controls()]
        self.assertEqual(sizes, [341, 159])

    def test_lost_credit_goes_again_with_its_present_value(self) -> None:
        """What was packed before is not repeated."""
        stream = self.stream(3)
        self.outbox.renew(stream)
        (control,) = self.take(carrier=1)
        stream.window.take(4 * KIB)
        self.healthy.discard(1)
        self.outbox.put_again(control)
        (data,) = self.controls()
        self.assertEqual(frames.parse_credit(data[HEADER_SIZE:]), [(3, 12 * KIB)])

    def test_credit_of_an_ended_stream_is_nobodys_business(self) -> None:
        """Nothing is renewed once no more will come."""
        stream = self.stream(3)
        self.outbox.renew(stream)
        (control,) = self.take(carrier=1)
        stream.window.close()
        self.outbox.put_again(control)
        self.outbox.renew(stream)
        self.assertFalse(self.outbox.has_control)

    def test_lost_control_goes_again(self) -> None:
        """Once, and not if it has arrived meanwhile."""
        self.outbox.put(b"a" * 20)
        self.outbox.put(b"b" * 20)
        first, second = self.take(carrier=3)
        for _ in range(2):
            self.outbox.put_again(first)
            self.outbox.put_again(second)
        self.outbox.arrived(second)
        self.assertEqual(self.controls(), [b"a" * 20])

    def test_control_on_a_healthy_subflow_does_not_go_again(self) -> None:
        """The one it was on has recovered."""
        self.outbox.put(b"a" * 20)
        (control,) = self.take(carrier=1)
        self.outbox.put_again(control)
        self.assertEqual(self.controls(), [])
        self.healthy.discard(1)
        self.outbox.put_again(control)
        self.assertEqual(self.controls(), [b"a" * 20])

    # ---- what the peer makes us owe

    def test_what_we_choose_to_say_is_not_the_peers_fault(self) -> None:
        """Ten thousand resets of our own are no reason to end the session."""
        for _ in range(20000):
            self.outbox.put(bytes(20))
        self.assertFalse(self.outbox.is_overfull)

    def test_too_many_items_owed(self) -> None:
        """10,000 are the most."""
        for _ in range(10000):
            self.outbox.put(bytes(20), owed=True)
        self.assertFalse(self.outbox.is_overfull)
        self.outbox.put(bytes(20), owed=True)
        self.assertTrue(self.outbox.is_overfull)
        self.take(20)
        self.assertFalse(self.outbox.is_overfull)

    def test_too_many_bytes_owed(self) -> None:
        """1 MiB is the most."""
        for _ in range(4096):
            self.outbox.put(bytes(256), owed=True)
        self.assertFalse(self.outbox.is_overfull)
        self.outbox.put(bytes(256), owed=True)
        self.assertTrue(self.outbox.is_overfull)

    def test_what_is_not_acknowledged_holds_the_rest_back(self) -> None:
        """A peer that never acknowledges cannot make our ledgers grow for ever."""
        outbox = self.outbox = Outbox(replace(LIMITS, max_control_bytes=100))
        for _ in range(10):
            outbox.put(bytes(20), owed=True)
        sent = self.take(carrier=1)
        self.assertEqual(len(sent), 5)
        self.assertFalse(outbox.has_control)
        outbox.arrived(sent[0])
        outbox.arrived(sent[0])
        self.assertEqual(len(self.take(carrier=1)), 1)

    def test_what_is_lost_holds_nothing_back(self) -> None:
        """Else the word that ends an outage could not leave."""
        outbox = self.outbox = Outbox(replace(LIMITS, max_control_bytes=100))
        for _ in range(5):
            outbox.put(bytes(20))
        sent = self.take(carrier=1)
        self.assertFalse(outbox.has_control)
        self.healthy.clear()
        for control in sent + sent:
            outbox.put_again(control)
        self.assertEqual(len(self.take(carrier=2)), 5)

    # ---- data

    def test_streams_take_turns(self) -> None:
        """One chunk each, round and round."""
        for stream_id in (1, 3, 5):
            self.stream(stream_id, bytes(2500 if stream_id == 1 else 1500))
        order = []
        while (chunk := self.outbox.cut(1000)) is not None:
            order.append(chunk.owner.stream_id)
        self.assertEqual(order, [1, 3, 5, 1, 3, 5, 1])
        self.assertFalse(self.outbox.has_data)

    def test_a_stream_without_credit_has_no_turn(self) -> None:
        """Until it has."""
        stream = self.stream(1, bytes(65 * KIB))
        self.assertEqual(len(self.cut(100 * KIB).data), 64 * KIB)
        self.assertIsNone(self.outbox.cut(1000))
        self.outbox.ready(stream)
        self.assertFalse(self.outbox.has_data)
        stream.credit.raise_to(100 * KIB)
        self.outbox.ready(stream)
        self.outbox.ready(stream)
        self.assertEqual(len(self.cut().data), 1000)

    def test_chunks_go_again_unless_they_need_not(self) -> None:
        """Once; not if they have arrived, or a healthy subflow has them."""
        stream = self.stream(1, bytes(4000))
        chunks = [self.cut() for _ in range(4)]
        for number, chunk in enumerate(chunks):
            chunk.carriers = (1,) if number == 2 else (9,)
        for chunk in chunks + chunks:
            self.outbox.put_again(chunk)
        stream.send.arrived(chunks[1])
        self.assertIs(self.outbox.take_again(self.healthy), chunks[0])
        self.assertIs(self.outbox.take_again(self.healthy), chunks[3])
        self.assertIsNone(self.outbox.take_again(self.healthy))
        self.outbox.put_again(chunks[2])
        self.assertIs(self.outbox.take_again({9}), chunks[2])

    def test_a_stream_that_is_gone_leaves_nothing(self) -> None:
        """Not its turn, not its credit."""
        streams = [self.stream(i, bytes(10)) for i in range(1, 2001, 2)]
        for stream in streams:
            self.outbox.renew(stream)
            stream.discard()
            self.outbox.forget(stream)
        self.assertFalse(self.outbox.has_data)
        self.assertFalse(self.outbox.has_control)

    # ---- when nothing is left

    def test_waits_for_the_last_word_on_the_dead(self) -> None:
        """What a dead subflow's peer may have parsed is not sent before that is known."""
        self.stream(1, bytes(3000))
        held, kept = self.cut(), self.cut()
        held.carriers, kept.carriers = (7,), (8,)
        for chunk in (held, kept):
            self.outbox.put_again(chunk)
        self.outbox.hold_back({7})
        self.assertIs(self.outbox.take_again(self.healthy), kept)
        self.assertIsNone(self.outbox.take_again(self.healthy))
        self.outbox.put_again(held)
        self.assertIs(self.outbox.take_again(self.healthy), held)

    def test_an_end_clears_all(self) -> None:
        """Nothing is left to say."""
        self.stream(1, bytes(10))
        self.outbox.put(b"a", owed=True)
        self.outbox.clear()
        self.assertFalse(self.outbox.has_data or self.outbox.has_control)
