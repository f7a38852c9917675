"""Bars that grow on a terminal, or lines of text where there is none."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

_BLOCKS = " ▏▎▍▌▋▊▉█"
_MOST_COLUMNS = 78
_LEAST_COLUMNS = 50
_LEAST_BAR = 8
_PLAIN_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """
    One bar.

    @ivar name: what it stands for.
    @ivar amount: how long it is to be, in any unit.
    @ivar rate: bytes a second, shown beside it.
    """

    name: str
    amount: float
    rate: float


def megabits(rate: float) -> str:
    """Bytes a second, as people speak of lines: three digits of Mbit/s."""
    number = rate * 8 / 1e6
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f} Mbit/s"


def times(ratio: float) -> str:
    """How many times as much, with no more digits than such a measurement has."""
    return f"{ratio:.{0 if ratio >= 9.95 else 1}f} times"


def bars(rows: Sequence[Row], full: float, columns: int, blocks: bool) -> list[str]:
    """
    A line for each row: its name, its bar, its rate.

    @param full: the amount of the longest bar; one that has more makes all of them shorter.
    @param columns: the width of the lines.
    @param blocks: whether blocks of Unicode may be used, which grow by eighths.
    """
    names = max(len(row.name) for row in rows)
    rates = max(len("999.9 Mbit/s"), *(len(megabits(row.rate)) for row in rows))
    width = max(_LEAST_BAR, columns - names - rates - 4)
    full = max(full, *(row.amount for row in rows)) or 1.0
    return [
        f"{row.name:<{names}}  {_bar(row.amount / full * width, blocks):<{width}}"
        f"  {megabits(row.rate):>{rates}}"
        for row in rows
    ]


def _bar(length: float, blocks: bool) -> str:
    """A bar of so many columns."""
    if not blocks:
        return "#" * round(length)
    whole, eighths = divmod(round(length * 8), 8)
    return (_BLOCKS[-1] * whole + _BLOCKS[eighths]).rstrip()


class Screen:
    """
    Where bars are drawn: over each other on a terminal, else now and then as a line of text.

    @ivar is_terminal: whether what stands there can be drawn over.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        columns = shutil.get_terminal_size().columns - 1
        drawable = environ.get("TERM", "dumb") != "dumb" and columns >= _LEAST_COLUMNS
        self.is_terminal = stream.isatty() and drawable
        self._columns = min(_MOST_COLUMNS, max(columns, _LEAST_COLUMNS))
        self._blocks = _can_say(_BLOCKS, stream.encoding)
        self._drawn = 0
        self._next_line = _PLAIN_EVERY

    def say(self, *lines: str) -> None:
        """Text that stays."""
        self._drawn = 0
        self._write("".join(f"{line}\n" for line in lines))

    def draw(self, rows: Sequence[Row], full: float, elapsed: float) -> None:
        """
        The state of things, to be drawn over by the next.

        @param elapsed: seconds since the first.
        """
        if self.is_terminal:
            self._redraw(rows, full)
        elif elapsed >= self._next_line:
            self._next_line += _PLAIN_EVERY
            rates = ", ".join(f"{row.name} {megabits(row.rate)}" for row in rows)
            self._write(f"{elapsed:.0f} s: {rates}\n")

    def finish(self, rows: Sequence[Row], full: float) -> None:
        """The last state, which stays."""
        self._redraw(rows, full)
        self._drawn = 0

    def _redraw(self, rows: Sequence[Row], full: float) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        clear = "\x1b[K" if self.is_terminal else ""
        lines = bars(rows, full, self._columns, self._blocks)
        self._write(up + "".join(f"{line.rstrip()}{clear}\n" for line in lines))
        self._drawn = len(lines)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _can_say(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
