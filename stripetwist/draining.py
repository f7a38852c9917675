"""C{stripetwist drain}: have an agent finish its streams, and go, by word of its server."""

import os
from typing import Any

from stripetwist.command_line import Parser, add_state, ask_each
from stripetwist.core.errors import printable
from stripetwist.net.files import StartupError
from stripetwist.net.state import find_control_sockets


def drain(words: list[str]) -> int:
    """Have each server of this user that knows the agent drain it."""
    parser = Parser(
        prog="stripetwist drain",
        description="Have an agent of the server that runs here finish its streams, and go.",
    )
    parser.add_argument("name", metavar="NAME", help="what the agent is called there")
    add_state(parser)
    options = parser.parse_args(words)
    sockets = find_control_sockets(os.environ, options.state, roles=("server",))
    done, refusals = ask_each(sockets, {"command": "drain", "name": options.name})
    if not done:
        raise StartupError(next(iter(refusals), _NO_SERVER))
    print("\n".join(map(_told, done)))
    return 0


_NO_SERVER = (
    "no server of this user runs here, as far as its sockets tell; agents are drained at "
    "their server"
)


def _told(answer: dict[str, Any]) -> str:
    """What a server has made of it."""
    name, streams = printable(str(answer["name"])), int(answer["streams"])
    if not streams:
        return f"{name} gets no more streams, has none, and is let go"
    those = "the one that it has is" if streams == 1 else f"the {streams} that it has are"
    return f"{name} gets no more streams, and is let go once {those} done"
