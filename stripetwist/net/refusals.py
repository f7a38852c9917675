"""Those who prove a key and are not let in even so: a line a minute for each key."""

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_EVERY = 60.0


class _Since:
    """
    What came after a line was logged.

    @ivar count: how many.
    @ivar last: why the last of them was not let in.
    @ivar telling: when that is logged.
    """

    def __init__(self, telling: IDelayedCall) -> None:
        self.count = 0
        self.last = ""
        self.telling = telling


class Refusals:
    """
    Those who prove a key and are not let in even so, by key.

    The first is for the log at once; those that come within a minute are counted, and told
    at its end.  Nothing is kept of a key once a minute has passed without any.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._by_key: dict[str, _Since] = {}

    def is_news(self, key_id: str, reason: str) -> bool:
        """Whether one more is to be logged; if not, it is counted."""
        since = self._by_key.get(key_id)
        if since is None:
            self._wait(key_id)
            return True
        since.count += 1
        since.last = reason
        return False

    def _wait(self, key_id: str) -> None:
        self._by_key[key_id] = _Since(self._clock.callLater(_EVERY, self._tell, key_id))

    def _tell(self, key_id: str) -> None:
        since = self._by_key.pop(key_id)
        if since.count:
            self.log.info(
                '{count} more not let in as "{key}" within a minute: {reason}',
                count=since.count,
                key=key_id,
                reason=since.last,
            )
            self._wait(key_id)

    def stop(self) -> None:
        """Tell nothing more."""
        for since in self._by_key.values():
            since.telling.cancel()
        self._by_key.clear()
