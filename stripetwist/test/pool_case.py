"""A pool of fake workers, on simulated time."""

from collections.abc import Mapping
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.pool import Roster
from stripetwist.core.target import OpenRequest, Target

LIMITS = Limits()
WEB = OpenRequest(Target.of("example.test", 80))


class FakeWorker:
    """
    Answers when the test says so.

    @ivar sated: keys that have their share of it.
    """

    def __init__(
        self, name: str, weight: int = 1, capacity: int = 0, labels: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.labels: Mapping[str, str] = labels or {}
        self.capacity = capacity
        self.weight = weight
        self.active = 0
        self.is_able = True
        self.state = "able"
        self.stuck_since = inf
        self.requests: list[OpenRequest] = []
        self.opens: list[Deferred[Any]] = []
        self.cancelled = 0
        self.sated: set[str] = set()

    def has_room_for(self, key_id: str) -> bool:
        """See L{stripetwist.core.pool.Worker.has_room_for}."""
        is_free = not self.capacity or self.active < self.capacity
        return is_free and key_id not in self.sated

    def associate(self, request: OpenRequest) -> "Deferred[Any]":
        """As with a stream."""
        return self.open(request)

    def open(self, request: OpenRequest) -> "Deferred[Any]":
        """See L{stripetwist.core.pool.Worker.open}."""
        self.requests.append(request)
        self.opens.append(Deferred(self._cancel))
        return self.opens[-1]

    def _cancel(self, waiting: object) -> None:
        self.cancelled += 1

    def reach(self) -> "Far":
        """The target that was asked for last answers."""
        far = Far()
        self.opens[-1].callback(far)
        return far

    def refuse(self, code: Code, sentence: str = "no") -> None:
        """The target that was asked for last is not reached."""
        self.opens[-1].errback(OpenRefused(code, sentence))

    def die(self) -> None:
        """Its session is over, and with it all that waits."""
        self.is_able = False
        for one in self.opens:
            if not one.called:
                one.errback(OpenRefused(Code.GENERAL, f"{self.name} was lost; try again"))


class Far:
    """A target's connection."""

    aborted = False

    def abortConnection(self) -> None:
        """Nobody wants it."""
        self.aborted = True


class PoolCase(SynchronousTestCase):
    """Three workers, and time."""

    def setUp(self) -> None:
        """Everything fresh."""
        self.clock = Clock()
        self.workers = [FakeWorker(name) for name in ("attic", "barn", "cellar")]
        self.attic, self.barn, self.cellar = self.workers
        self.roster = Roster(lambda: self.workers, LIMITS)

    def asked(self) -> list[str]:
        """Who has been asked for something that is not answered yet, in order of arrival."""
        found = []
        for worker in self.workers:
            found += [worker.name for one in worker.opens if not one.called]
        return found

    def assert_reached(self, opening: "Deferred[Any]", by: FakeWorker) -> None:
        """The target answers that one, and whoever asked gets its connection."""
        far = by.reach()
        self.assertIs(self.successResultOf(opening), far)

    def refusal(self, waiting: "Deferred[Any]", code: Code) -> str:
        """Why it was refused."""
        error = self.failureResultOf(waiting, OpenRefused).value
        assert isinstance(error, OpenRefused)
        self.assertIs(error.code, code)
        return error.sentence

    def tearDown(self) -> None:
        """No timer is left."""
        for worker in self.workers:
            worker.die()
        self.assertEqual(self.clock.getDelayedCalls(), [])
