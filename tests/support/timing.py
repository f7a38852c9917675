"""Times that tests judge: what is late once may be the machine's doing, and is measured again."""

import pytest


class LateError(AssertionError):
    """Everything was right, but too slow, too late or too little of it in its time."""


measures_times = pytest.mark.flaky(reruns=2, only_rerun=["^LateError:"])
"""Such a test is run up to three times as long as nothing is wrong but what C{in_time} judges."""


def in_time(was: bool, seen: object) -> None:
    """
    Judge what a machine that stands still for a moment spoils.

    @param was: whether it was in time.
    @param seen: what there was instead.
    @raise LateError: it was not.
    """
    if not was:
        raise LateError(str(seen))
