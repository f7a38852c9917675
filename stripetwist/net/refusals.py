"""Those who are not let in, again and again: a line a minute for each of them."""

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_EVERY = 60.0
# More of them within a minute are not told of.
_MOST = 256


class _Since:
    """
    What came after a line was logged.

    @ivar may_tell: how many more may be logged at once.
    @ivar count: how many were not.
    @ivar last: why the last of them was not let in.
    @ivar telling: when that is logged.
    """

    def __init__(self, may_tell: int, telling: IDelayedCall) -> None:
        self.may_tell = may_tell
        self.count = 0
        self.last = ""
        self.telling = telling


class Refusals:
    """
    Those who are not let in, by who they are: C{as "KEY"}, or C{from ADDRESS}.

    The first are for the log at once; others that come within a minute are counted, and told
    at its end.  Nothing is kept of anyone once a minute has passed without.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, first: int = 1) -> None:
        """
        @param first: how many of each are for the log at once.
        """
        self._clock = clock
        self._first = first
        self._since: dict[str, _Since] = {}
        self._stopped = False

    def is_news(self, who: str, reason: str) -> bool:
        """Whether one more is to be logged; if not, it is counted."""
        since = self._since.get(who)
        if since is None:
            return self._wait(who, self._first - 1)
        if since.may_tell:
            since.may_tell -= 1
            return True
        since.count += 1
        since.last = reason
        return False

    def _wait(self, who: str, may_tell: int = 0) -> bool:
        if self._stopped or len(self._since) >= _MOST:
            return False
        self._since[who] = _Since(may_tell, self._clock.callLater(_EVERY, self._tell, who))
        return True

    def _tell(self, who: str) -> None:
        since = self._since.pop(who)
        if since.count:
            self.log.info(
                "{count} more not let in {who} within a minute: {reason}",
                count=since.count,
                who=who,
                reason=since.last,
            )
            self._wait(who)

    def stop(self) -> None:
        """Tell nothing more."""
        self._stopped = True
        for since in self._since.values():
            since.telling.cancel()
        self._since.clear()
