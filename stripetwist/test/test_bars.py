"""L{stripetwist.bars}: bars on a terminal, lines elsewhere."""

import io
import os
import shutil
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.bars import Row, Screen, bars, megabits, times

ROWS = (Row("one", 10.0, 1e6), Row("several", 80.0, 15.6e6))


class Stream(io.TextIOWrapper):
    """What is written, and where it seems to go."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        """Whether it looks like a terminal."""
        return self._terminal

    def text(self) -> str:
        """All that was written, and forget it."""
        self.seek(0)
        text = self.read()
        self.seek(0)
        self.truncate()
        return text


class BarsTests(SynchronousTestCase):
    """Bars as text."""

    def test_lines(self) -> None:
        """As wide as is wanted, the bars as long as the amounts are."""
        self.assertEqual(
            bars(ROWS, 80.0, 63, False),
            [
                "one      #####" + " " * 38 + "8.00 Mbit/s",
                "several  " + "#" * 40 + "    125 Mbit/s",
            ],
        )

    def test_blocks_grow_by_eighths(self) -> None:
        """From nothing to a whole column."""
        for amount, bar in ((0, ""), (1, "▏"), (8, "█"), (12, "█▌"), (79, "█████████▉")):
            line = bars([Row("x", amount, 0.0)], 80.0, 27, True)[0]
            self.assertEqual(line[3:13].rstrip(), bar)

    def test_more_than_full(self) -> None:
        """The longest bar takes all there is, and nothing at all is no reason to fail."""
        lines = bars([Row("x", 100.0, 0.0), Row("y", 50.0, 0.0)], 10.0, 37, False)
        self.assertEqual([line.count("#") for line in lines], [20, 10])
        self.assertNotIn("#", bars([Row("x", 0.0, 0.0)], 0.0, 37, False)[0])

    def test_rates(self) -> None:
        """Three digits."""
        rates = {1e3: "0.01", 1e6: "8.00", 1.25e6: "10.0", 12.49e6: "99.9", 12.5e6: "100"}
        for rate, digits in rates.items():
            self.assertEqual(megabits(rate), f"{digits} Mbit/s")

    def test_ratios(self) -> None:
        """Two digits."""
        for ratio, words in ((1.14, "1.1 times"), (9.94, "9.9 times"), (9.96, "10 times")):
            self.assertEqual(times(ratio), words)


class ScreenTests(SynchronousTestCase):
    """Where they are drawn."""

    def screen(self, stream: Stream, columns: int = 80, term: str = "xterm") -> Screen:
        """One for a stream."""
        with patch.dict("os.environ", {"COLUMNS": str(columns)}):
            return Screen(stream, {"TERM": term})

    def test_a_terminal_is_drawn_over(self) -> None:
        """But not what was said."""
        stream = Stream(terminal=True)
        screen = self.screen(stream)
        screen.say("hello")
        screen.draw(ROWS, 80.0, 0.0)
        self.assertNotIn("\x1b[2A", stream.text())
        screen.draw(ROWS, 80.0, 0.1)
        text = stream.text()
        self.assertTrue(text.startswith("\x1b[2Aone  "))
        self.assertEqual(text.count("\x1b[K\n"), 2)
        screen.finish(ROWS, 80.0)
        screen.say("bye")
        self.assertTrue(stream.text().endswith("\x1b[K\nbye\n"))

    def test_lines_fit_a_terminal(self) -> None:
        """One that wrapped could not be drawn over; a wide one is not filled."""
        for columns, longest in ((60, 59), (200, 78)):
            stream = Stream(terminal=True)
            self.screen(stream, columns).draw(ROWS, 80.0, 0.0)
            lines = stream.text().replace("\x1b[K", "").splitlines()
            self.assertEqual(max(map(len, lines)), longest)

    def test_elsewhere_there_are_lines(self) -> None:
        """One every two seconds, and at the end the bars."""
        for stream, term in ((Stream(), "xterm"), (Stream(terminal=True), "dumb")):
            screen = self.screen(stream, term=term)
            for tenth in range(45):
                screen.draw(ROWS, 80.0, tenth / 10)
            text = stream.text()
            self.assertEqual(text.splitlines()[0], "2 s: one 8.00 Mbit/s, several 125 Mbit/s")
            self.assertEqual(text.count("\n"), 2)
            screen.finish(ROWS, 80.0)
            text = stream.text()
            self.assertIn("█", text)
            self.assertNotIn("\x1b", text)

    def test_blocks_only_where_they_can_be_said(self) -> None:
        """Else number signs."""
        stream = Stream("ascii")
        self.screen(stream).finish(ROWS, 80.0)
        self.assertIn("####", stream.text())

    def test_a_terminal_too_narrow(self) -> None:
        """Lines that wrap cannot be drawn over: there is text instead."""
        stream = Stream(terminal=True)
        for columns, drawn in ((40, False), (80, True)):
            self.patch(
                shutil, "get_terminal_size", lambda size=columns: os.terminal_size((size, 24))
            )
            self.assertEqual(Screen(stream, {"TERM": "xterm"}).is_terminal, drawn)
