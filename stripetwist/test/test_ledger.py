"""L{stripetwist.core.ledger}: what is on its way on one subflow."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, ProtocolError
from stripetwist.core.ledger import Ledger


class LedgerTests(SynchronousTestCase):
    """A count of parsed bytes says exactly what has arrived."""

    def setUp(self) -> None:
        """An empty ledger."""
        self.ledger: Ledger[str] = Ledger()

    def test_an_item_arrives_with_its_last_byte(self) -> None:
        """All but one byte of a frame is not the frame."""
        self.ledger.note(10, "a", 1.0)
        self.ledger.note(10, "b", 2.0)
        self.assertEqual(self.ledger.ack(9), ([], None))
        self.assertEqual(self.ledger.ack(10), (["a"], 1.0))
        self.assertEqual(self.ledger.ack(20), (["b"], 2.0))
        self.assertEqual(self.ledger.in_flight, 0)
        self.assertEqual(len(self.ledger), 0)

    def test_the_newest_arrival_gives_the_time(self) -> None:
        """Items without meaning count for time and bytes."""
        self.ledger.note(10, "a", 1.0)
        self.ledger.note(5, None, 3.0)
        self.assertEqual(self.ledger.ack(15), (["a"], 3.0))

    def test_old_counts_are_ignored(self) -> None:
        """Acknowledgements are absolute: an older one changes nothing."""
        self.ledger.note(10, "a", 1.0)
        self.ledger.ack(10)
        self.assertEqual(self.ledger.ack(3), ([], None))
        self.assertEqual(self.ledger.acked, 10)

    def test_bytes_never_sent_cannot_be_acknowledged(self) -> None:
        """The peer lies (C22, C25)."""
        self.ledger.note(10, "a", 1.0)
        error = self.assertRaises(ProtocolError, self.ledger.ack, 11)
        self.assertIs(error.code, Code.PROTOCOL)
        self.assertRaises(ProtocolError, self.ledger.ack, 2**64 - 1)
        self.assertEqual(self.ledger.outstanding(), ["a"])

    def test_quiet_bytes_are_not_in_flight(self) -> None:
        """What calls for no acknowledgement is counted, not waited for."""
        self.ledger.note_quiet(20)
        self.assertEqual(self.ledger.in_flight, 0)
        self.ledger.note(10, "a", 1.0)
        self.ledger.note_quiet(20)
        self.assertEqual(self.ledger.in_flight, 30)
        self.ledger.ack(30)
        self.assertEqual((self.ledger.in_flight, self.ledger.written), (0, 50))
        self.ledger.ack(50)
        self.assertEqual(self.ledger.in_flight, 0)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=40), st.data())
    def test_arrived_and_outstanding_are_all(
        self, sizes: list[tuple[int, bool]], data: st.DataObject
    ) -> None:
        """Any counts in any order: each item arrives once, when its bytes have."""
        ledger: Ledger[int] = Ledger()
        ends: list[tuple[int, int]] = []
        for number, (size, quiet) in enumerate(sizes):
            if quiet:
                ledger.note_quiet(size)
            else:
                ledger.note(size, number, 0.0)
                ends.append((ledger.written, number))
        arrived: list[int] = []
        most = 0
        for count in data.draw(st.lists(st.integers(0, ledger.written), max_size=10)):
            most = max(most, count)
            arrived += ledger.ack(count)[0]
            self.assertEqual(arrived, [n for end, n in ends if end <= most])
            self.assertEqual(ledger.outstanding(), [n for end, n in ends if end > most])
            self.assertEqual(ledger.acked, most)
