"""What the verbs of C{stripetwist} share."""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from stripetwist.core.spelling import nearest
from stripetwist.net.asking import ControlError, NobodyThereError, Request, ask
from stripetwist.net.files import StartupError, shown
from stripetwist.sources import show, variable_of

# How long an answer may take.
_PATIENCE = 10.0

Verb = Callable[[list[str]], int]
Verbs = Mapping[str, Verb]


def find(word: str, verbs: Verbs, before: str) -> Verb:
    """What a verb does."""
    if word not in verbs:
        near = nearest(word, verbs)
        hint = f"did you mean {near}?" if near else "stripetwist --help lists what there is"
        raise StartupError(f"{before} knows no command {show(word)}; {hint}")
    return verbs[word]


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


def ask_each(sockets: Iterable[Path], request: Request) -> tuple[list[dict[str, Any]], list[str]]:
    """What the processes behind control sockets answer, and why some that run do not."""
    found, problems = [], []
    for path in sockets:
        try:
            answer = ask(path, request, _PATIENCE)
        except NobodyThereError:
            continue
        except ControlError as error:
            problems.append(str(error))
            continue
        if isinstance(answer, dict):
            found.append(answer)
        else:
            problems.append(f"the answer makes no sense: {shown(path)}; is it of another version?")
    return found, problems
