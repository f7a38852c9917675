"""C{stripetwist drain}: have an agent finish its streams, and go, by word of its server."""

import os
from typing import Any

from stripetwist.command_line import Parser, add_state
from stripetwist.core.errors import printable
from stripetwist.net.asking import ControlError, NobodyThereError, ask
from stripetwist.net.files import StartupError
from stripetwist.net.state import find_control_sockets

# How long a server may take to note it.
_PATIENCE = 10.0


def drain(words: list[str]) -> int:
    """Have each server of this user that knows the agent drain it."""
    parser = Parser(
        prog="stripetwist drain",
        description="Have an agent of the server that runs here finish its streams, and go.",
    )
    parser.add_argument("name", metavar="NAME", help="what the agent is called there")
    add_state(parser)
    options = parser.parse_args(words)
    done, refusals = [], []
    for path in find_control_sockets(os.environ, options.state, roles=("server",)):
        try:
            done.append(ask(path, {"command": "drain", "name": options.name}, _PATIENCE))
        except NobodyThereError:
            continue
        except ControlError as error:
            refusals.append(str(error))
    if not done:
        raise StartupError(next(iter(refusals), _NO_SERVER))
    print("\n".join(map(_told, done)))
    return 0


_NO_SERVER = (
    "no server of this user runs here, as far as its sockets tell; agents are drained at "
    "their server"
)


def _told(answer: Any) -> str:
    """What a server has made of it."""
    name, streams = printable(str(answer["name"])), int(answer["streams"])
    if not streams:
        return f"{name} gets no more streams, has none, and is let go"
    those = "the one that it has is" if streams == 1 else f"the {streams} that it has are"
    return f"{name} gets no more streams, and is let go once {those} done"
