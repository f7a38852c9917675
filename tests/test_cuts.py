"""Subflows that die under a transfer: the transfer does not notice."""

import time
from collections.abc import Callable

from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.relay import Relay
from support.timing import in_time, measures_times
from support.transfers import through_relay, transfer, wait_six
from support.waiting import wait_until
from support.workshop import Workshop

MIB = 1 << 20
SECONDS = 60


@measures_times
def test_a_cut_every_second_for_a_minute(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """At 20 MB/s: all bytes right, no gap of a second, six subflows within three of each cut."""
    pair, middle = through_relay(workshop, relay)
    slowest = 0.0
    with transfer(pair, SECONDS) as state:
        end = time.monotonic() + SECONDS - 2
        while (start := time.monotonic()) < end:
            middle.cut()
            wait_six(pair, middle, 3)
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(max(0.0, start + 1 - time.monotonic()))
    assert middle.cuts >= 50
    in_time(state.down.longest_gap < 1, state.down)
    in_time(slowest < 3, slowest)
    assert len(middle.links) >= 6 + middle.cuts


def test_two_at_once_and_all_but_one(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """Losing most subflows at the same moment loses no byte."""
    pair, middle = through_relay(workshop, relay)
    with transfer(pair, 4):
        for count in (2, 5):
            wait_six(pair, middle, 5)
            for link in middle.alive[:count]:
                middle.cut(link)
    wait_six(pair, middle, 5)
    assert middle.cuts == 7


def test_a_corrupt_byte_kills_one_subflow(
    workshop: Workshop, relay: Callable[[int], Relay]
) -> None:
    """TLS ends the subflow whose bytes were changed; the transfer stays whole."""
    pair, middle = through_relay(workshop, relay)
    with transfer(pair, 3):
        link = middle.corrupt()
        wait_until(lambda: link.up.corrupted or link.down.corrupted, 3, "a byte to change")
        wait_until(lambda: not link.alive, 3, "the subflow to end")
        wait_six(pair, middle, 3)


@measures_times
def test_a_stalled_subflow_is_passed_by(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """One that neither carries nor ends holds up nothing for a second, and is replaced."""
    pair, middle = through_relay(workshop, relay)
    with transfer(pair, 6) as state:
        link = middle.stall()
        wait_until(lambda: len(middle.alive) >= 7, 5, "a replacement")
        wait_until(lambda: len(pair.client.subflows()) == 6, 5, "six that carry")
        assert link.stalled
    in_time(state.down.longest_gap < 1, state.down)


@measures_times
def test_a_black_hole_is_passed_by(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """One that takes everything and delivers nothing loses no byte."""
    pair, middle = through_relay(workshop, relay)
    with transfer(pair, 6) as state:
        link = middle.blackhole()
        wait_until(lambda: link.up.swallowed + link.down.swallowed > 0, 3, "bytes to vanish")
        wait_until(lambda: len(pair.client.subflows()) == 6, 5, "six that carry")
    in_time(state.down.longest_gap < 1.5, state.down)
    assert link.up.swallowed + link.down.swallowed > 0


def test_one_byte_slices_change_nothing(workshop: Workshop, relay: Callable[[int], Relay]) -> None:
    """A link that delivers single bytes is only slow."""
    pair, middle = through_relay(workshop, relay)
    with Exchange() as target:
        link = middle.slice()
        with socks.connect(pair.client.proxy, target.port) as sock:
            ask_exchange(sock, down=2, size=MIB)
            assert receive(sock, 2).size == MIB
    assert link.sliced
    pair.client.wait_streams(0)
