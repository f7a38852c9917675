"""L{stripetwist.core.pool}: who is meant, who is next, who is counted out."""

from dataclasses import replace
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.frames import HEADER_SIZE, MAX_EXIT, pack_open, parse_open
from stripetwist.core.pool import Roster, Selector
from stripetwist.test.pool_case import LIMITS, WEB, FakeWorker

ANY = Selector("any")


class SelectorTests(SynchronousTestCase):
    """Which exit is meant."""

    def test_what_is_meant(self) -> None:
        """Anybody, one by name, some by a label; the server is none of them."""
        attic = FakeWorker("attic", labels={"site": "berlin", "net": "lte"})
        cases = {"any": True, "attic": True, "attic-2": False, "server": False}
        cases |= {"site=berlin": True, "site=bonn": False, "size=berlin": False, "net=lte": True}
        for text, fits in cases.items():
            self.assertEqual(Selector.parse(text).fits(attic), fits, text)
            self.assertEqual(str(Selector.parse(text)), text)
            self.assertEqual(Selector.parse(text).is_server, text == "server")

    def test_what_cannot_be_meant(self) -> None:
        """A sentence says what can."""
        for text in ("", "Attic", "a b", "a" * 64, "=", "a=", "=b", "a=b=c", "a\n", "a=b\n", "*"):
            error = self.assertRaises(ValueError, Selector.parse, text)
            self.assertIn("LABEL=VALUE", str(error))

    def test_the_longest_travels(self) -> None:
        """An OPEN has room for it."""
        longest = Selector.parse(f"{'a' * 63}={'b' * 63}")
        self.assertEqual(len(str(longest)), MAX_EXIT)
        request = replace(WEB, exit=str(longest))
        packed = pack_open(1, 0, request)
        self.assertEqual(parse_open(request.kind, packed[HEADER_SIZE:]), request)


class ChoiceTests(SynchronousTestCase):
    """Who is next."""

    def setUp(self) -> None:
        """Three alike."""
        self.workers = [FakeWorker(name) for name in ("attic", "barn", "cellar")]
        self.roster = Roster(lambda: self.workers, LIMITS)

    def take(self, count: int, selector: Selector = ANY) -> str:
        """The first letters of the next ones, each of which keeps its stream."""
        taken = ""
        for _ in range(count):
            worker = self.roster.choose(selector, 0.0)
            taken += "-" if worker is None else worker.name[0]
            for one in self.workers:
                one.active += one is worker
        return taken

    def test_equals_take_turns(self) -> None:
        """In order of arrival, also where streams end at once, and whoever was asked for."""
        self.assertEqual(self.take(6), "abcabc")
        for one in self.workers:
            one.active = 0
        chosen = [self.roster.choose(ANY, 0.0) for _ in range(4)]
        self.assertEqual([one.name[0] for one in chosen if one], ["a", "b", "c", "a"])
        self.roster.choose(Selector("cellar"), 0.0)
        chosen = [self.roster.choose(ANY, 0.0) for _ in range(3)]
        self.assertEqual([one.name[0] for one in chosen if one], ["b", "a", "c"])

    def test_by_weight(self) -> None:
        """Streams are held three to one."""
        self.workers[0].weight = 3
        del self.workers[2]
        taken = self.take(400)
        self.assertEqual((taken.count("a"), taken.count("b")), (300, 100))

    def test_the_least_busy(self) -> None:
        """Whoever has ended its streams gets the next ones."""
        self.take(6)
        self.workers[1].active = 0
        self.assertEqual(self.take(2), "bb")

    def test_capacity(self) -> None:
        """A full one gets nothing, and when all are full nobody does."""
        for one, most in zip(self.workers, (1, 2, 3), strict=True):
            one.capacity = most
        self.assertEqual(self.take(8), "abcbcc--")
        self.workers[1].active = 1
        self.assertEqual(self.take(2), "b-")

    def test_only_the_able_that_are_meant(self) -> None:
        """By name, by label, without those that were tried."""
        attic, barn, cellar = self.workers
        barn.labels = cellar.labels = {"site": "bonn"}
        self.assertEqual(self.take(2, Selector("attic")), "aa")
        self.assertEqual(self.take(3, Selector("site=bonn")), "bcb")
        barn.is_able = False
        self.assertEqual(self.take(2, Selector("site=bonn")), "cc")
        self.assertEqual(self.take(1, Selector("barn")), "-")
        self.assertIs(self.roster.choose(ANY, 0.0, [attic]), cellar)
        self.assertIsNone(self.roster.choose(ANY, 0.0, [attic, cellar]))


class OutTests(SynchronousTestCase):
    """Who is counted out, and comes back."""

    def setUp(self) -> None:
        """Two, the first of which was asked at 0."""
        self.attic, self.barn = self.workers = [FakeWorker("attic"), FakeWorker("barn")]
        self.roster = Roster(lambda: self.workers, LIMITS)
        self.assertIs(self.roster.choose(ANY, 0.0), self.attic)
        self.told: list[tuple[str, bool]] = []
        self.roster.on_silence = lambda worker, silent: self.told.append((worker.name, silent))

    def test_without_an_answer(self) -> None:
        """It gets nothing until it answers."""
        self.assertTrue(self.roster.unanswered(self.attic, 0.0, 10.0))
        self.assertTrue(self.roster.has(ANY, 11.0))
        self.assertFalse(self.roster.has(Selector("attic"), 11.0))
        for _ in range(3):
            self.assertIs(self.roster.choose(ANY, 11.0), self.barn)
        self.roster.unanswered(self.attic, 0.0, 11.0)
        self.assertEqual(self.told, [("attic", True)])
        self.assertEqual([self.roster.is_out(one, 11.0) for one in self.workers], [True, False])
        self.roster.answered(self.attic, 12.0)
        self.roster.answered(self.attic, 12.0)
        self.assertEqual(self.told, [("attic", True), ("attic", False)])
        self.assertFalse(self.roster.is_out(self.attic, 12.0))
        self.assertIs(self.roster.choose(ANY, 12.0), self.attic)

    def test_others_were_answered(self) -> None:
        """Then it is the target that is slow."""
        self.roster.answered(self.attic, 0.5)
        self.assertFalse(self.roster.unanswered(self.attic, 0.0, 10.0))
        self.assertFalse(self.roster.unanswered(self.attic, 1.0, 10.9))
        self.assertTrue(self.roster.unanswered(self.attic, 1.0, 11.0))

    def test_another_chance(self) -> None:
        """It is asked once in ten seconds, lest it never be able to answer."""
        self.roster.unanswered(self.attic, 0.0, 10.0)
        self.barn.active = 7
        later = 10.0 + LIMITS.agent_silent
        chosen = [self.roster.choose(ANY, now) for now in (later - 0.1, later, later + 0.1)]
        self.assertEqual(chosen, [self.barn, self.attic, self.barn])

    def test_at_worst(self) -> None:
        """Before nobody is asked, it is."""
        self.roster.unanswered(self.attic, 0.0, 10.0)
        self.barn.is_able = False
        self.assertIsNone(self.roster.choose(ANY, 11.0))
        self.assertIs(self.roster.choose(ANY, 11.0, at_worst=True), self.attic)

    def test_no_bytes_arrive(self) -> None:
        """It gets nothing for as long, whatever it has answered; nor is it waited for."""
        self.attic.stuck_since = 5.0
        self.roster.answered(self.attic, 14.0)
        self.assertFalse(self.roster.unanswered(self.attic, 12.0, 14.9))
        self.assertFalse(self.roster.is_out(self.attic, 14.9))
        self.assertTrue(self.roster.is_out(self.attic, 15.0))
        self.assertTrue(self.roster.unanswered(self.attic, 12.0, 15.0))
        self.barn.active = 7
        for now in (15.0, 25.0, 35.0):
            self.assertIs(self.roster.choose(ANY, now), self.barn)
        self.assertFalse(self.roster.has(Selector("attic"), 35.0))
        only = self.roster.choose(Selector("attic"), 35.0, at_worst=True)
        self.assertIs(only, self.attic)
        self.assertFalse(self.roster.has(Selector("attic"), 50.0))
        self.assertEqual(self.told, [("attic", True)])
        self.attic.stuck_since = inf
        self.assertFalse(self.roster.is_out(self.attic, 50.0))
        self.assertIs(self.roster.choose(ANY, 50.0), self.attic)
        self.assertEqual(self.told, [("attic", True), ("attic", False)])

    def test_no_bytes_arrive_until_it_is_cut_off(self) -> None:
        """It is back once it is able again, not before."""
        self.attic.stuck_since = 5.0
        self.assertIs(self.roster.choose(ANY, 15.0), self.barn)
        self.attic.stuck_since, self.attic.is_able = inf, False
        self.assertTrue(self.roster.is_out(self.attic, 20.0))
        self.assertIs(self.roster.choose(ANY, 25.0), self.barn)
        self.assertEqual(self.told, [("attic", True)])
        self.attic.is_able = True
        self.assertIs(self.roster.choose(ANY, 30.0), self.attic)
        self.assertEqual(self.told, [("attic", True), ("attic", False)])

    def test_who_is_gone_is_forgotten(self) -> None:
        """Another one of the same name begins afresh."""
        self.roster.unanswered(self.attic, 0.0, 10.0)
        self.workers[0] = FakeWorker("attic")
        self.assertTrue(self.roster.has(Selector("attic"), 11.0))
        self.roster.answered(self.attic, 11.0)
        self.assertFalse(self.roster.unanswered(self.attic, 0.0, 30.0))
