"""L{stripetwist.net.tally}: what a key leaves for others."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.tally import Tally


class TallyTests(SynchronousTestCase):
    """Streams of several keys."""

    def setUp(self) -> None:
        """None yet."""
        self.tally = Tally()
        self.next_id = 1

    def take(self, key_id: str, most: int) -> int:
        """Add as many as that key gets; how many these are."""
        count = 0
        while self.tally.has_room(key_id, most):
            self.tally.add(self.next_id, key_id)
            self.next_id += 1
            count += 1
        return count

    def test_greedy_keys(self) -> None:
        """Each leaves something to the next, as long as there is something."""
        self.assertEqual([self.take(key_id, 8) for key_id in "abcde"], [4, 2, 1, 1, 0])
        self.assertEqual(self.take("", 8), 0)

    def test_keys_in_turn(self) -> None:
        """Two have a third each."""
        for _ in range(20):
            for key_id in "ab":
                if self.tally.has_room(key_id, 9):
                    self.tally.add(self.next_id, key_id)
                    self.next_id += 1
        self.assertEqual(self.tally._counts, {"a": 3, "b": 3})

    def test_few(self) -> None:
        """A single one is for whoever comes first."""
        self.assertEqual((self.take("a", 1), self.take("b", 1)), (1, 0))

    def test_local_users(self) -> None:
        """Get all that is free."""
        self.take("a", 8)
        self.assertEqual(self.take("", 8), 4)

    def test_over(self) -> None:
        """What has ended is free again, once; nothing is kept of it."""
        self.take("a", 8)
        for stream_id in (1, 1, 2, 99):
            self.tally.discard(stream_id)
        self.assertEqual(self.take("a", 8), 2)
        for stream_id in range(self.next_id):
            self.tally.discard(stream_id)
        self.assertEqual((self.tally._counts, self.tally._keys), ({}, {}))
