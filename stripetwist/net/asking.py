"""Asking a running process by its control socket, from a program without a reactor."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from stripetwist.core.errors import StripetwistError, printable
from stripetwist.net.files import shown

MAX_LINE = 64 * 1024
MAX_REPLY = 64 * 1024 * 1024
# For a command to be done; longer than a drain.
COMMAND = 60.0

Request = dict[str, Any]


class ControlError(StripetwistError):
    """A command cannot be done: one sentence for whoever gave it."""


class NobodyThereError(ControlError):
    """No process listens at the control socket."""


def answers(path: Path) -> bool:
    """Whether a process listens at a control socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:
            return True
    return True


def ask(path: Path, request: Request, timeout: float = COMMAND + 5) -> Any:
    """
    Ask the process behind a control socket; waits for it.

    @param timeout: the longest silence, in seconds.
    @return: the reply's C{result}.
    @raise ControlError: nobody answers, or the answer is a refusal.
    """
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(timeout)
        try:
            wire.connect(os.fspath(path))
            wire.sendall(json.dumps(request).encode("ascii") + b"\n")
            reply = _receive(wire)
        except TimeoutError:
            raise ControlError(f"no answer within {timeout:g} s from {shown(path)}") from None
        except (ConnectionRefusedError, FileNotFoundError):
            raise NobodyThereError(f"nobody listens at {shown(path)}; is it running?") from None
        except OSError as error:
            raise ControlError(
                f"no answer from {shown(path)} ({error.strerror or error})"
            ) from None
    if reply.get("ok") is not True:
        raise ControlError(printable(str(reply.get("error", "refused without a word"))))
    return reply.get("result")


def _receive(wire: socket.socket) -> Request:
    """The reply that comes in."""
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = wire.recv(MAX_LINE)
        if not piece or len(data) > MAX_REPLY:
            raise ControlError("the answer broke off; is the process going down?")
        data += piece
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise ControlError("the answer makes no sense; is it of another version?")
    return reply
