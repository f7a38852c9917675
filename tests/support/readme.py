"""
The commands of the README, as written there.

Run as C{readme.py TEXT} it prints the literal block that follows the line with that text.
It needs nothing but the standard library, so that a fresh checkout can run it.
"""

import sys
import textwrap
from pathlib import Path

README = Path(__file__).parents[2] / "README.rst"
FAR = 8


class ReadmeError(Exception):
    """The README does not have the block, or not clearly."""


def block_after(text: str, readme: str) -> str:
    """
    The first literal block after the only line that holds C{text}.

    @raise ReadmeError: no such line, several, or no block soon after it.
    """
    lines = readme.splitlines()
    found = [number for number, line in enumerate(lines) if text in line]
    if len(found) != 1:
        raise ReadmeError(f'"{text}" stands on {len(found)} lines of the README, not on one')
    block = _block(lines[found[0] :])
    if not block:
        raise ReadmeError(f'no literal block follows "{text}" in the README')
    return textwrap.dedent("\n".join(block)).strip("\n") + "\n"


def _block(lines: list[str]) -> list[str]:
    """The indented lines after the first C{::} that is near enough."""
    for number, line in enumerate(lines[:FAR]):
        if line.rstrip().endswith("::") or line.startswith(".. code-block::"):
            rest = lines[number + 1 :]
            ends = (i for i, each in enumerate(rest) if each[:1] not in ("", " ", "\t"))
            return rest[: next(ends, len(rest))]
    return []


def main() -> None:
    """Print the block that the command line asks for, or say why not and fail."""
    try:
        sys.stdout.write(block_after(" ".join(sys.argv[1:]), README.read_text()))
    except (OSError, ReadmeError) as error:
        raise SystemExit(f"readme.py: {error}") from None


if __name__ == "__main__":
    main()
