"""Waiting for what announces itself, and for what has to be asked."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(question: Callable[[], T], timeout: float, what: str, every: float = 0.02) -> T:
    """
    Ask until the answer is true; for other processes, which send no events.

    @return: that answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last answer: {answer!r}")
        time.sleep(every)


def wait_equal(question: Callable[[], T], wanted: T, timeout: float, what: str) -> None:
    """Ask until the answer is the one that is wanted."""
    last: list[T] = []

    def is_wanted() -> bool:
        last[:] = [question()]
        return last[0] == wanted

    try:
        wait_until(is_wanted, timeout, what)
    except AssertionError:
        raise AssertionError(
            f"waited {timeout:g} s for {what}: {last[0]!r}, not {wanted!r}"
        ) from None


def wait_still(question: Callable[[], T], still: float, timeout: float, what: str) -> T:
    """
    Ask until the answer has not changed for C{still} seconds.

    @return: that answer.
    """
    deadline = time.monotonic() + timeout
    answer, since = question(), time.monotonic()
    while time.monotonic() - since < still:
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what} to stop; last: {answer!r}")
        time.sleep(0.05)
        new = question()
        if new != answer:
            answer, since = new, time.monotonic()
    return answer
