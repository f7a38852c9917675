"""What the verbs of C{stripetwist} share: how their words are read."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from stripetwist.net.files import StartupError
from stripetwist.sources import variable_of


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise StartupError(f"{self.prog}: {message}; {self.prog} --help says what it takes")


def add_state(parser: argparse.ArgumentParser) -> None:
    """The option that says whose state, or control socket, is meant."""
    given = os.environ.get(variable_of("state"))
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path(given) if given else None,
        help="the state folder, as the server's",
    )
