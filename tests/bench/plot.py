"""
Goodput over time, from a file of rows: C{python tests/bench/plot.py ROWS PICTURE}.

A panel for each case, with a line for each peer, of the first run that has it.  Where there
are several links, what each of them has carried for a peer is drawn beside it, dashed.
Needs matplotlib; the picture's format is that of its name, as C{rows.png} or C{rows.svg}.
"""

import json
import sys
from pathlib import Path
from typing import Any

STEP = 0.1
_SMOOTH = 5

Row = dict[str, Any]


def first_runs(path: str) -> dict[str, list[Row]]:
    """By case, the first row of each peer that has a series."""
    found: dict[str, dict[str, Row]] = {}
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        if row.get("series"):
            found.setdefault(row["case"], {}).setdefault(row["peer"], row)
    return {case: list(peers.values()) for case, peers in found.items()}


def megabits(counts: list[int]) -> list[float]:
    """Mbit/s at each moment, over half a second."""
    parts = [counts[max(0, at + 1 - _SMOOTH) : at + 1] for at in range(len(counts))]
    return [sum(part) * 8e-6 / (len(part) * STEP) for part in parts]


def draw(axes: Any, case: str, rows: list[Row]) -> None:
    """One case."""
    for row in rows:
        times = [at * STEP for at in range(1, len(row["series"]) + 1)]
        (line,) = axes.plot(times, megabits(row["series"]), label=row["peer"])
        links = row.get("carried") or []
        for number, carried in enumerate(links if len(links) > 1 else []):
            axes.plot(
                [at * STEP for at in range(1, len(carried) + 1)],
                megabits(carried),
                label=f"{row['peer']}, link {number}",
                color=line.get_color(),
                linestyle=("--", ":", "-.")[number % 3],
                linewidth=0.8,
            )
    axes.set_title("\n".join([case, *rows[0].get("links", [])]), fontsize="small")
    axes.set_xlabel("seconds")
    axes.set_ylabel("Mbit/s")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))


def main() -> int:
    """Draw what the command line names."""
    if len(sys.argv) != 3:
        print("usage: python tests/bench/plot.py ROWS PICTURE", file=sys.stderr)
        return 1
    try:
        import matplotlib
    except ImportError:
        print("there is no matplotlib: pip install '.[bench]'", file=sys.stderr)
        return 1
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        cases = first_runs(sys.argv[1])
    except (OSError, ValueError, AttributeError, KeyError) as error:
        print(f"{sys.argv[1]} holds no rows of tests/bench: {error}", file=sys.stderr)
        return 1
    if not cases:
        print(f"{sys.argv[1]} has no goodput over time; bulk and paths have", file=sys.stderr)
        return 1
    figure, axes = pyplot.subplots(
        len(cases), 1, figsize=(9, 3.5 * len(cases)), squeeze=False, layout="constrained"
    )
    for place, (case, rows) in zip(axes.flat, cases.items(), strict=True):
        draw(place, case, rows)
    try:
        figure.savefig(sys.argv[2])
    except (OSError, ValueError) as error:
        print(f"{sys.argv[2]} cannot be written: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
