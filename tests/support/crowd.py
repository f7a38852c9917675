"""Many streams at once, in threads."""

import threading
from collections.abc import Callable, Iterable

STACK = 256 * 1024


def crowd(work: Callable[[int], None], members: Iterable[int], timeout: float) -> None:
    """
    Run C{work(member)} for each, all at the same time; the first failure is raised.
    """
    errors: list[BaseException] = []

    def guarded(member: int) -> None:
        try:
            work(member)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test
            errors.append(error)

    before = threading.stack_size(STACK)
    try:
        threads = [
            threading.Thread(target=guarded, args=(member,), daemon=True) for member in members
        ]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(before)
    for thread in threads:
        thread.join(timeout)
        if errors:
            raise errors[0]
    late = sum(thread.is_alive() for thread in threads)
    assert not late, f"{late} of {len(threads)} are not done after {timeout:g} s"
