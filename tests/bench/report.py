"""What is printed and kept: where it was measured, rows as JSON, rows as a table."""

import datetime
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.tables import Table

Row = dict[str, Any]


def surroundings(congestion: str) -> Row:
    """Where and how this is measured; the congestion control as it was read back."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "congestion": congestion,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def print_surroundings(where: Row) -> None:
    """As text above a table."""
    print(f"{where['date']}  {where['command']}")
    print(f"{where['cores']} cores, {where['processor']}")
    print(f"Linux {where['kernel']}, Python {where['python']}")
    print(f"congestion control (cc) {where['congestion']}, as both ends say")


def keep(path: str, row: Row) -> None:
    """Append a row to a file, as a line of JSON."""
    if path:
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")


def load(path: str) -> list[Row]:
    """The rows of a file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def brief(row: Row) -> str:
    """A row on one line, without its series."""
    numbers = [f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, int | float) and k != "run"]
    what = row.get("error") or ", ".join(numbers)
    return f"run {row['run']}  {row['case']}  {row['peer']}: {what}"


def print_table(table: Table, rows: list[Row], against: str) -> None:
    """Medians over the runs, and the ratio to another peer in the same run."""
    good = [row for row in rows if "error" not in row]
    columns = [c for c in table.columns if any(c[0] in row for row in good)]
    ratio = f"{dict(table.columns)[table.compared]} / {against}"
    lines = [["case", "peer", "cc", "runs", *(heading for _, heading in columns), ratio]]
    for case in dict.fromkeys(row["case"] for row in good):
        here = [row for row in good if row["case"] == case]
        for peer, pace in dict.fromkeys((row["peer"], row["congestion"]) for row in here):
            alike = [row for row in here if row["congestion"] == pace]
            base = {row["run"]: row for row in alike if row["peer"] == against}
            own = [row for row in alike if row["peer"] == peer]
            cells = [_median([row[key] for row in own if key in row]) for key, _ in columns]
            ratios = _ratios(table.compared, own, base)
            lines.append([case, peer, pace, str(len(own)), *cells, _median(ratios)])
    print(f"\n{table.about}; medians\n")
    _print_aligned(lines)
    for row in rows:
        if "error" in row:
            print(f"\nnot measured: {row['case']}, {row['peer']}, run {row['run']}: {row['error']}")


def _ratios(key: str, own: list[Row], base: dict[int, Row]) -> list[float]:
    pairs = [(row.get(key), base.get(row["run"], {}).get(key)) for row in own]
    return [value / other for value, other in pairs if value is not None and other]


def _median(values: list[float]) -> str:
    if not values:
        return "-"
    value = statistics.median(values)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _print_aligned(lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        left = [cell.ljust(width) for cell, width in zip(line[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(line[3:], widths[3:], strict=True)]
        print("  ".join([*left, *right]))
