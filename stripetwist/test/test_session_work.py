"""What carrying costs, counted in calls: no clock has a say in it."""

import sys
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.config import Limits
from stripetwist.testing import Pair


class Calls:
    """Counts the calls within the core while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Calls":
        self._before = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def _note(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and "/core/" in frame.f_code.co_filename:
            self.count += 1

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(self._before)


class WorkTests(SynchronousTestCase):
    """The work for each batch of a stream."""

    def work(self, subflows: int) -> float:
        """How many calls at both ends a batch of 4 KiB takes; all subflows are busy."""
        rate, batch = 60e3, 4096
        pair = Pair(Limits(prewarm=0))
        pair.add_many(subflows, rate, 0.001)
        stream_id = pair.a.open()
        pair.a.write(stream_id, bytes(int(2 * subflows * rate)))
        pair.run(1)
        alive = pair.a.session._subflows.alive.values()
        self.assertEqual({one.pace.batch for one in alive}, {batch})
        before = pair.a.session.moved
        with Calls() as calls:
            pair.run(0.3)
        moved = pair.a.session.moved - before
        self.assertGreater(moved, 0.2 * subflows * rate)
        return calls.count / (moved / batch)

    def test_many_subflows(self) -> None:
        """With 64 there are so many to look at; but not at every turn, nor several times."""
        self.assertLess(self.work(64), 3 * self.work(6))
