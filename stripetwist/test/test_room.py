"""L{stripetwist.core.room}: who has to wait before writing more."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import events
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.credit import MemoryBudget, ReceiveWindow, SendStore
from stripetwist.core.room import Room
from stripetwist.core.stream import Stream

LIMITS = Limits(max_memory=32 * MIB, max_unsent=64 * KIB)


class RoomTests(SynchronousTestCase):
    """Told once, when there is room."""

    def setUp(self) -> None:
        """A stream, and room for it."""
        self.told: list[events.Event] = []
        self.budget = MemoryBudget(LIMITS)
        self.store = SendStore(self.budget)
        self.room = Room(LIMITS, self.store, self.told.append)
        self.stream = Stream(1, True, MIB, ReceiveWindow(8 * KIB, self.budget, LIMITS))

    def write(self, size: int) -> bool:
        """Write so much; whether more may follow."""
        self.stream.send.write(bytes(size))
        self.store.add(size)
        return self.room.may_go_on(self.stream) > 0

    def test_a_stream_waits_for_its_own_bytes(self) -> None:
        """From the limit on, until half of it is left."""
        self.assertTrue(self.write(64 * KIB - 1))
        self.assertFalse(self.write(1))
        self.stream.send.cut(32 * KIB - 1, MIB)
        self.room.check(1)
        self.assertEqual(self.told, [])
        self.stream.send.cut(1, MIB)
        self.room.check(1)
        self.room.check(1)
        self.assertEqual(self.told, [events.StreamWritable(1)])

    def test_a_stream_waits_for_the_store(self) -> None:
        """Which others have filled; it is told when that has room."""
        self.budget.stored = 9 * MIB
        self.assertFalse(self.write(1))
        self.budget.stored = 8 * MIB
        self.room.freed()
        self.assertEqual(self.told, [])
        self.budget.stored = 7 * MIB
        self.room.freed()
        self.room.freed()
        self.assertEqual(self.told, [events.StreamWritable(1)])

    def test_room_in_the_store_is_not_room_in_the_stream(self) -> None:
        """Both have to hold."""
        self.budget.stored = 9 * MIB
        self.assertFalse(self.write(64 * KIB))
        self.budget.stored = 0
        self.room.freed()
        self.room.check_all()
        self.assertEqual(self.told, [])

    def test_bytes_cut_while_the_store_is_full(self) -> None:
        """The wait goes on, and ends with the store's."""
        self.budget.stored = 9 * MIB
        self.assertFalse(self.write(64 * KIB))
        self.stream.send.cut(64 * KIB, MIB)
        self.room.check(1)
        self.assertEqual(self.told, [])
        self.budget.stored = 0
        self.room.freed()
        self.assertEqual(self.told, [events.StreamWritable(1)])

    def test_a_stream_that_is_gone_is_not_told(self) -> None:
        """Nobody waits for it."""
        self.write(64 * KIB)
        self.room.forget(self.stream)
        self.stream.send.discard()
        self.room.check_all()
        self.assertEqual(self.told, [])
