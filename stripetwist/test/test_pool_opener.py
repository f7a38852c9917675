"""L{stripetwist.net.pool}: targets reached by one of several agents."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.pool import Selector
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest
from stripetwist.net.pool import Pool
from stripetwist.test.associations import Far
from stripetwist.test.pool_case import LIMITS, WEB, FakeWorker, PoolCase
from stripetwist.test.test_associations import Ear


class PoolOpenerCase(PoolCase):
    """One pool."""

    def setUp(self) -> None:
        """Of all, with a way out besides."""
        super().setUp()
        self.direct = FakeWorker("direct")
        self.pool = self.make()

    def make(self, selector: str = "any", fallback: Any = None) -> Pool:
        """A pool of those."""
        return Pool(self.roster, Selector(selector), fallback, self.clock, LIMITS)

    def open(self, pool: Pool | None = None) -> "Deferred[Any]":
        """Ask for a target."""
        return (pool or self.pool).open(OpenRequest(WEB.target, exit="any", key_id="desk"))


class PoolTests(PoolOpenerCase):
    """Refusals, deaths, fallbacks."""

    def test_reached(self) -> None:
        """By the next one, which is not told of the exit that was asked for."""
        opening = self.open()
        self.assertNoResult(opening)
        far = self.attic.reach()
        self.assertIs(self.successResultOf(opening), far)
        self.assertEqual(self.attic.requests, [OpenRequest(WEB.target, key_id="desk")])

    def test_refused(self) -> None:
        """Each is asked once; the last refusal is told."""
        opening = self.open()
        self.attic.refuse(Code.REFUSED_BY_TARGET)
        self.barn.refuse(Code.DNS_FAIL)
        self.assertNoResult(opening)
        self.cellar.refuse(Code.NOT_ALLOWED, "not from the cellar")
        self.assertEqual(self.refusal(opening, Code.NOT_ALLOWED), "not from the cellar")
        self.assertEqual([len(one.opens) for one in self.workers], [1, 1, 1])

    def test_refused_by_one(self) -> None:
        """Another reaches it."""
        opening = self.open()
        self.attic.refuse(Code.HOST_UNREACHABLE)
        self.assert_reached(opening, self.barn)

    def test_death_before_the_answer(self) -> None:
        """Another is asked; whoever had been answered is not."""
        reached = self.open()
        self.attic.reach()
        self.successResultOf(reached)
        waiting = [self.open() for _ in range(3)]
        self.assertEqual(self.asked(), ["attic", "barn", "cellar"])
        self.attic.die()
        self.assertEqual(self.asked(), ["barn", "barn", "cellar"])
        self.barn.die()
        self.cellar.die()
        for one in waiting:
            self.refusal(one, Code.GENERAL)

    def test_dozens_are_not_asked(self) -> None:
        """A target that is not there would cost a dial of each."""
        self.workers[:] = [FakeWorker(f"a{number}") for number in range(30)]
        opening = self.open()
        for _ in range(8):
            (asked,) = [one for one in self.workers if one.opens and not one.opens[-1].called]
            asked.refuse(Code.REFUSED_BY_TARGET)
        self.refusal(opening, Code.REFUSED_BY_TARGET)

    def test_our_own_refusals_are_no_answers(self) -> None:
        """Nor is the end of its session: a silent agent stays counted out."""
        told: list[bool] = []
        self.workers[:] = [self.attic]
        self.roster.on_silence = lambda worker, silent: told.append(silent)
        self.open().addErrback(lambda _: None)
        self.workers.append(self.barn)
        self.clock.advance(LIMITS.agent_silent + 1)
        self.assertEqual(told, [True])
        self.patch(self.attic, "open", lambda _: fail(OpenRefused(Code.TOO_MANY_STREAMS, "")))
        self.workers[:] = [self.attic]
        self.refusal(self.open(), Code.TOO_MANY_STREAMS)
        self.assertEqual(told, [True])
        self.barn.refuse(Code.TIMEOUT)
        self.clock.advance(LIMITS.open_total)

    def test_nothing_is_kept_for_the_silent(self) -> None:
        """What nobody waits for any more is given up, some time after."""
        opening = self.open()
        self.clock.advance(LIMITS.agent_silent + 1)
        self.assert_reached(opening, self.barn)
        self.assertEqual(self.attic.cancelled, 0)
        self.clock.advance(LIMITS.open_total)
        self.assertEqual(self.attic.cancelled, 1)

    def test_a_worker_that_raises(self) -> None:
        """It is no refusal, so nobody else is asked."""
        self.patch(self.attic, "open", lambda _: 1 / 0)
        self.failureResultOf(self.open(), ZeroDivisionError)

    def test_no_end_of_trying(self) -> None:
        """After the time of all addresses the last refusal is told."""
        opening = self.open()
        for worker in (self.attic, self.barn):
            self.clock.advance(LIMITS.connect_total / 2)
            if len(worker.opens) and not worker.opens[0].called:
                worker.refuse(Code.TIMEOUT)
        self.refusal(opening, Code.TIMEOUT)

    def test_cancelled(self) -> None:
        """So is the open under way, and nobody else is asked."""
        opening = self.open()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual((self.attic.cancelled, self.asked()), (1, []))

    def test_nobody(self) -> None:
        """None is there, none takes streams, all are full: each has its sentence."""
        for one in self.workers:
            one.capacity = one.active = 1
        sentence = self.refusal(self.open(), Code.OVERLOAD)
        self.assertIn("example.test:80 is refused: the agents of exit any have as many", sentence)
        for one, state in zip(self.workers, ("draining", "away", "draining"), strict=True):
            one.is_able, one.state = False, state
        sentence = self.refusal(self.open(), Code.NO_WORKER)
        self.assertEqual(
            sentence,
            "example.test:80 is refused: exit any has only agents that are away or draining now; "
            "wait for one, or ask for another exit",
        )
        sentence = self.refusal(self.open(self.make("barn")), Code.NO_WORKER)
        self.assertIn("exit barn has only agents that are away now", sentence)
        sentence = self.refusal(self.open(self.make("garage")), Code.NO_WORKER)
        self.assertIn("example.test:80 is refused: no agent is there for exit garage", sentence)

    def test_a_key_with_its_share(self) -> None:
        """Gets another worker, or is told; whoever else asks gets that one."""
        self.attic.sated.add("desk")
        opening = self.open()
        self.assert_reached(opening, self.barn)
        sentence = self.refusal(self.open(self.make("attic")), Code.OVERLOAD)
        self.assertIn("refused: this key has its share of the streams that exit attic", sentence)
        opening = self.make("attic").open(OpenRequest(WEB.target, key_id="guest"))
        self.assert_reached(opening, self.attic)

    def test_fallback(self) -> None:
        """While none is able; back as soon as one is."""
        pool = self.make(fallback=self.direct)
        for one in self.workers:
            one.is_able = False
        opening = self.open(pool)
        self.assert_reached(opening, self.direct)
        self.cellar.is_able = True
        opening = self.open(pool)
        self.assertEqual(self.asked(), ["cellar"])
        self.cellar.die()
        self.assert_reached(opening, self.direct)

    def test_fallback_is_not_for_refusals(self) -> None:
        """What agents that are there refuse is refused."""
        opening = self.open(self.make("attic", self.direct))
        self.attic.refuse(Code.NOT_ALLOWED)
        self.refusal(opening, Code.NOT_ALLOWED)
        self.assertEqual(self.direct.opens, [])

    def test_fallback_cancelled(self) -> None:
        """It is the fallback's open that is under way."""
        opening = self.open(self.make("garage", self.direct))
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(self.direct.cancelled, 1)


class SilentTests(PoolOpenerCase):
    """Workers that do not answer."""

    def test_another_is_asked(self) -> None:
        """After ten seconds; what the first says then is not used, but brings it back."""
        opening = self.open()
        self.clock.pump([1.0] * 9 + [0.9])
        self.assertEqual(self.asked(), ["attic"])
        self.clock.advance(0.1)
        self.assertEqual(self.asked(), ["attic", "barn"])
        self.assert_reached(opening, self.barn)
        others = [self.open() for _ in range(4)]
        self.assertEqual(self.asked(), ["attic", "barn", "barn", "cellar", "cellar"])
        self.assertTrue(self.attic.reach().aborted)
        others.append(self.open())
        self.assertEqual(self.asked()[0], "attic")
        for one in others:
            one.cancel()
            self.failureResultOf(one)

    def test_it_is_cut_off(self) -> None:
        """One that has no connection left is not waited for that long."""
        opening = self.open()
        self.clock.advance(0.5)
        self.attic.is_able = False
        self.clock.advance(0.5)
        self.assertEqual(self.asked(), ["attic", "barn"])
        self.assert_reached(opening, self.barn)
        self.attic.die()

    def test_cut_off_with_nobody_else(self) -> None:
        """Until there is somebody."""
        self.barn.is_able = self.cellar.is_able = False
        opening = self.open()
        self.attic.is_able = False
        self.clock.advance(3)
        self.assertNoResult(opening)
        self.cellar.is_able = True
        self.clock.advance(1)
        self.assert_reached(opening, self.cellar)

    def test_it_refuses_late(self) -> None:
        """That brings it back as well, and is told to nobody."""
        opening = self.open(self.make("attic", self.direct))
        self.clock.advance(10)
        self.assertEqual(len(self.direct.opens), 1)
        self.attic.refuse(Code.TIMEOUT)
        self.assertNoResult(opening)
        self.direct.reach()
        self.successResultOf(opening)
        self.assertTrue(self.roster.has(Selector("attic"), self.clock.seconds()))

    def test_none_of_them_answers(self) -> None:
        """After twenty seconds that is told."""
        opening = self.open()
        for worker in (self.barn, self.cellar):
            self.clock.pump([1.0] * 10)
            self.assertEqual(len(worker.opens), worker is self.barn)
        sentence = self.refusal(opening, Code.TIMEOUT)
        self.assertIn("example.test:80 is not reached: the agent barn does not answer", sentence)

    def test_nobody_else(self) -> None:
        """Then it is waited for, and asked by others too."""
        pool = self.make("attic")
        opening = self.open(pool)
        self.clock.advance(12)
        self.assertNoResult(opening)
        other = self.open(pool)
        self.attic.reach()
        self.successResultOf(other)
        self.attic.opens[0].callback("late")
        self.assertEqual(self.successResultOf(opening), "late")

    def test_all_of_them(self) -> None:
        """The fallback is asked while all are counted out."""
        pool = self.make(fallback=self.direct)
        waiting = [self.open(pool) for _ in range(3)]
        self.clock.advance(10)
        self.assertEqual(len(self.direct.opens), 1)
        self.assertEqual(self.asked().count("attic"), 1)
        late = self.open(pool)
        self.assert_reached(late, self.direct)
        for one in waiting:
            one.cancel()
            self.failureResultOf(one, CancelledError)

    def test_a_slow_target_among_others(self) -> None:
        """A worker that answers others is not counted out."""
        slow = self.open()
        self.clock.advance(5)
        for _ in range(3):
            opening = self.open(self.make("attic"))
            self.attic.reach()
            self.successResultOf(opening)
        self.clock.advance(8)
        self.assertEqual(self.asked(), ["attic"])
        slow.cancel()
        self.failureResultOf(slow, CancelledError)


class AssociationTests(PoolOpenerCase):
    """Datagrams through one of several agents."""

    def associate(self, pool: Pool | None = None) -> "Deferred[Any]":
        """Ask for an association."""
        request = OpenRequest(ANYWHERE, Kind.UDP, exit="any", key_id="desk")
        return (pool or self.pool).associate(request)

    def made(self) -> tuple[Any, Far, Ear]:
        """One at the first agent: as it was asked for, there, and who listens."""
        opening, far, ear = self.associate(), Far(), Ear()
        self.attic.opens[-1].callback(far)
        near = self.successResultOf(opening)
        near.receiver = ear
        return near, far, ear

    def test_made(self) -> None:
        """By the next one, or by another if that one refuses or dies."""
        opening = self.associate()
        self.attic.refuse(Code.NOT_ALLOWED)
        self.barn.die()
        self.assertEqual(["cellar"], self.asked())
        self.cellar.opens[-1].callback(Far())
        self.successResultOf(opening).close()
        self.assertEqual([OpenRequest(ANYWHERE, Kind.UDP, key_id="desk")], self.cellar.requests)

    def test_carries(self) -> None:
        """What is sent and what comes, until it is closed."""
        near, far, ear = self.made()
        near.send(b"there", None)
        far.says(b"back")
        near.close()
        self.assertEqual([(b"there", None)], far.sent)
        self.assertEqual(([(b"back", None)], []), (ear.heard, ear.lost))
        self.assertEqual((1, None), (far.closed, far.receiver))

    def test_lost_with_its_agent(self) -> None:
        """Soon after that is away while another is there; not if it comes back."""
        _, far, ear = self.made()
        for is_able in (False, False, True, False, False):
            self.attic.is_able = is_able
            self.clock.advance(LIMITS.agent_look)
        self.assertEqual(([], 0), (ear.lost, far.closed))
        self.clock.advance(LIMITS.agent_look)
        self.assertEqual(([None], 1), (ear.lost, far.closed))

    def test_nobody_else(self) -> None:
        """It waits for its agent, until another is there, or the session is over."""
        self.workers[:] = [self.attic]
        _, far, ear = self.made()
        self.attic.is_able = False
        self.clock.pump([LIMITS.agent_look] * 10)
        self.assertEqual([], ear.lost)
        far.ends(Code.SESSION_LOST)
        self.assertEqual(([Code.SESSION_LOST], 0), (ear.lost, far.closed))

    def test_refused_by_all(self) -> None:
        """The last reason is told."""
        opening = self.associate()
        for worker in self.workers:
            worker.refuse(Code.NOT_ALLOWED, f"not from the {worker.name}")
        self.assertEqual("not from the cellar", self.refusal(opening, Code.NOT_ALLOWED))

    def test_fallback(self) -> None:
        """It makes one where there is no agent."""
        self.workers.clear()
        opening = self.associate(self.make(fallback=self.direct))
        self.assert_reached(opening, self.direct)

    def test_too_late(self) -> None:
        """What an agent makes that was left for another is closed, and nobody gets it."""
        opening = self.associate()
        self.attic.is_able = False
        self.clock.advance(LIMITS.agent_look)
        self.barn.opens[-1].callback(Far())
        self.successResultOf(opening).close()
        late = Far()
        self.attic.opens[-1].callback(late)
        self.assertEqual(1, late.closed)

    def test_cancelled(self) -> None:
        """So is the question."""
        opening = self.associate()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(1, self.attic.cancelled)
