"""Ports that two options name: one of them would find it taken, as if by another program."""

from collections.abc import Iterable
from itertools import combinations

from stripetwist.core.address import Address

Named = tuple[str, Address]


def named_twice(ports: Iterable[Named]) -> str:
    """
    What is wrong with ports that are to be opened, or nothing.

    @param ports: each with the option that names it.
    """
    for (option, one), (other, two) in combinations(ports, 2):
        if _are_one(one, two):
            where = one.raw or f"port {one.port}"
            options = f" in {option}" if option == other else f", in {option} and {other}"
            return f"{where} stands twice{options}; change one, or leave it out"
    return ""


def _are_one(one: Address, two: Address) -> bool:
    """Whether only one of them can be opened, as far as their texts tell."""
    if one.raw or two.raw:
        return one.raw == two.raw
    same_host = one.host == two.host or not one.host or not two.host
    # The system chooses another port for each 0.
    return same_host and one.port == two.port != 0
