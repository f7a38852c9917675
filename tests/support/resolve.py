"""Ask a name server by twisted.names, as a process: C{python resolve.py ADDRESS PORT NAME...}."""

import sys
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import react
from twisted.names.client import Resolver


def ask(reactor: Any, address: str, port: str, *names: str) -> Any:
    """Print an address for each name."""
    resolver = Resolver(servers=[(address, int(port))], timeout=(5, 5), reactor=reactor)
    answers = gatherResults([resolver.lookupAddress(name) for name in names])

    def tell(found: Any) -> None:
        for records, _, _ in found:
            print(*[record.payload.dottedQuad() for record in records], flush=True)

    return answers.addCallback(tell)


if __name__ == "__main__":
    react(ask, sys.argv[1:])
