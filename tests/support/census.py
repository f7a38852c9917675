"""
twistd with a census: on USR1 it prints how much it still keeps.

Run as C{census.py PLUGIN OPTION...}; the line is C{census {...}} with the pending delayed
calls, the selectables, and the live objects of stripetwist's classes by name.
"""

import gc
import json
import signal
import sys
from collections import Counter

from twisted.internet import reactor
from twisted.scripts.twistd import run


def census() -> None:
    """Count what is alive, after everything that can go has gone."""
    gc.collect()
    kinds = Counter(
        type(thing).__name__
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith("stripetwist.")
    )
    kept = {
        "delayed_calls": len(reactor.getDelayedCalls()),
        "selectables": len(reactor.getReaders()) + len(reactor.getWriters()),
        "objects": dict(kinds),
    }
    print("census", json.dumps(kept), file=sys.__stdout__, flush=True)


def install() -> None:
    """Answer USR1 from now on."""
    signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(census))


if __name__ == "__main__":
    reactor.callWhenRunning(install)
    sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
    run()
