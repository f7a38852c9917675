"""C{python tests/bench TABLE}: measure it and print it."""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path

# Python puts this folder first, where it was given one; the package is found from the one above.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench import congestion, report  # noqa: E402
from bench.crowd import raise_descriptors  # noqa: E402
from bench.links import compile_emulator  # noqa: E402
from bench.peers import Peer, choose  # noqa: E402
from bench.places import BenchError, Place  # noqa: E402
from bench.stage import Settings, Stage  # noqa: E402
from bench.tables import TABLES, Case, Table  # noqa: E402


def options() -> argparse.Namespace:
    """What the command line asks for."""
    tables = "\n".join(f"  {name:12} {table.about}" for name, table in TABLES.items())
    parser = argparse.ArgumentParser(
        prog="python tests/bench",
        epilog=f"tables:\n{tables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE")
    parser.add_argument("--runs", type=int, default=3, help="of each peer, by turns (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each transfer (8)")
    parser.add_argument(
        "--congestion", default="cubic", help="of every connection: cubic,bbr (cubic)"
    )
    parser.add_argument(
        "--subflows", default="6", help="of stripetwist, plain and iperf3: 6,16,auto (6)"
    )
    parser.add_argument("--peers", default="", help="only these: direct,ssh,stripetwist")
    parser.add_argument("--cases", default="", help="only those whose names begin so: P1,P4 down")
    parser.add_argument("--against", default="", help="the peer that ratios are to")
    parser.add_argument("--streams", type=int, default=10_000, help="that are idle (10000)")
    parser.add_argument("--rest", type=float, default=330.0, help="seconds before a day counts")
    parser.add_argument("--prewarm", default="auto", help="filler: auto, off or SIZE (auto)")
    parser.add_argument("--out", default="", help="append the rows to this file, as JSON lines")
    return parser.parse_args()


def chosen_cases(table: Table, words: str) -> list[Case]:
    """All of a table's cases, or those that are asked for."""
    starts = tuple(words.split(",")) if words else ("",)
    cases = [case for case in table.cases if case.name.startswith(starts)]
    if not cases:
        names = ", ".join(case.name for case in table.cases)
        raise BenchError(f"--cases {words}: there are {names}")
    return cases


def chosen_peers(table: Table, asked: argparse.Namespace) -> list[Peer]:
    """The peers to measure; what is not installed is named and left out."""
    names = asked.peers.split(",") if asked.peers else list(table.peers)
    present = []
    for peer in choose(names, asked.subflows.split(",")):
        if reason := peer.missing():
            print(reason, file=sys.stderr)
        else:
            present.append(peer)
    return present


def measure(table: Table, settings: Settings, case: Case, peer: Peer, run: int) -> list[report.Row]:
    """One peer in one case; what goes wrong is a row as well."""
    row = {"case": case.name, "peer": peer.label, "run": run, "links": [str(n) for n in case.lines]}
    row["congestion"] = settings.congestion
    try:
        with Stage(settings, case.lines, peer, seed=run + 1) as stage:
            row["congestion"] = stage.lab.near.congestion
            results = list(table.measure(stage, case))
    except (BenchError, OSError, ValueError) as error:
        # A peer that breaks, or says what nobody understands, is a result too.
        return [{**row, "error": str(error)}]
    parts = [result.pop("part", "") for result in results]
    names = [f"{case.name}, {part}" if part else case.name for part in parts]
    return [{**row, **r, "case": name} for r, name in zip(results, names, strict=True)]


def _read_back(choice: str) -> str:
    place = Place(choice)
    place.close()
    return place.congestion


def run(asked: argparse.Namespace) -> None:
    """Measure a table."""
    if min(asked.runs, asked.seconds, asked.streams) <= 0:
        raise BenchError("--runs, --seconds and --streams take numbers above 0")
    if asked.table not in TABLES:
        raise BenchError(f"there is no table {asked.table}; there are {', '.join(TABLES)}")
    table = TABLES[asked.table]
    cases, peers = chosen_cases(table, asked.cases), chosen_peers(table, asked)
    against = asked.against or table.against
    if asked.against and asked.against not in [peer.label for peer in peers]:
        labels = ", ".join(peer.label for peer in peers)
        raise BenchError(f"--against {asked.against} is not measured; there are {labels}")
    choices = asked.congestion.split(",")
    with ExitStack() as stack:
        for choice in choices:
            stack.enter_context(congestion.allowed(choice))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stw-")))
        settings = Settings(
            compile_emulator(folder),
            choices[0],
            asked.seconds,
            asked.streams,
            asked.rest,
            asked.prewarm,
        )
        where = report.surroundings(", ".join(map(_read_back, choices)))
        report.keep(asked.out, {"table": asked.table, **where})
        rows = []
        for number, case, peer, choice in product(range(asked.runs), cases, peers, choices):
            chosen = replace(settings, congestion=choice)
            for row in measure(table, chosen, case, peer, number):
                rows.append(row)
                print(report.brief(row), file=sys.stderr, flush=True)
                report.keep(asked.out, row)
    report.print_surroundings(where)
    report.print_table(table, rows, against)


def main() -> int:
    """Run, and say in one sentence why not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = options()
    if os.geteuid():
        print("network namespaces need root: run this with sudo", file=sys.stderr)
        return 1
    raise_descriptors()
    try:
        run(asked)
    except (BenchError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
