"""One running role: its control socket, its signals, its first words."""

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from stripetwist import __version__
from stripetwist.core.address import Address
from stripetwist.core.config import Limits
from stripetwist.net import sockets
from stripetwist.net.checksum import best_checksum
from stripetwist.net.clock import MonotonicClock
from stripetwist.net.control import Command, ControlFactory, ControlService
from stripetwist.net.drain import Drain
from stripetwist.net.files import StartupError
from stripetwist.net.ground import Ground, Store
from stripetwist.net.state import StateDirectory, forbid_core_dumps
from stripetwist.net.users import Users

AUTO, SYSTEM = "auto", "system"
SPARE_DESCRIPTORS = 64
# What stands for "without limit" where a number is wanted.
ENDLESS = 1_000_000
# What the command ends with when streams were cut.
CUT = 3


def ground_for(reactor: Any, limits: Limits, congestion: str) -> Ground:
    """
    What all sessions of this process stand on.

    @raise StartupError: that congestion control cannot be had.
    """
    clock, pace = MonotonicClock(reactor), pace_for(congestion)
    return Ground(clock, limits, Store(limits), os.urandom, best_checksum, pace)


def pace_for(congestion: str) -> str:
    """
    The congestion control of subflows that C{--congestion} means; empty for the system's.

    @raise StartupError: it cannot be had.
    """
    if congestion == SYSTEM:
        return ""
    if congestion == AUTO:
        return sockets.BBR if sockets.may_pace(sockets.BBR) else ""
    if not sockets.may_pace(congestion):
        raise StartupError(
            f"--congestion {congestion}: this kernel does not let us; load the module "
            f"tcp_{congestion} and list it in net.ipv4.tcp_allowed_congestion_control"
        )
    return congestion


def raise_descriptor_limit() -> int:
    """Allow as many open files as the system lets us; how many connections that means."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        soft = ENDLESS
    return max(SPARE_DESCRIPTORS, soft - SPARE_DESCRIPTORS)


class Instance(MultiService):
    """
    One running role, as its user meets it.

    Answers on the control socket, tells of itself when it starts, ends when it is told to.

    @ivar connections: how many connections the process may have.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        ground: Ground,
        state: StateDirectory,
        role: str,
        details: Callable[[], dict[str, object]],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._ground = ground
        self._role = role
        self._details = details
        self._state = state
        self._drain: Drain | None = None
        self._started = time.time()  # noqa: TID251 - for people, who live by the wall
        self.connections = raise_descriptor_limit()
        forbid_core_dumps()

    def serve_control(self, commands: Mapping[str, Command]) -> None:
        """Open the control socket: C{status}, and what the role adds."""
        every: dict[str, Command] = {"status": lambda _: self.snapshot(), **commands}
        factory = ControlFactory(every, self._ground.clock)
        path = self._state.control_path()
        ControlService(self._reactor, path, factory).setServiceParent(self)

    def serve_status(
        self, address: Address, users: Users | None, complaint: Callable[[], str]
    ) -> IListeningPort:
        """
        Open the status port.

        @param users: who may see it; C{None} for everybody who can reach it.
        @param complaint: why the role cannot do its job; empty if it can.
        @raise StartupError: the port is taken, or not for us.
        """
        # HTTP brings some 3 MiB along, which who wants no such port need not have.
        from stripetwist.net.status import StatusFactory, StatusPort

        factory = StatusFactory(self._ground.clock, self.snapshot, complaint, users)
        status = StatusPort(self._reactor, address, factory)
        status.setServiceParent(self)
        return status.port

    def watch_signals(
        self,
        leave: Callable[[], None],
        is_idle: Callable[[], bool],
        reload: Callable[[], Sequence[str]],
    ) -> None:
        """
        Drain at TERM and INT, read files again at HUP.

        @param reload: reads them; what it has read is for the log.
        """
        ground = self._ground

        def read_again() -> None:
            what = ", ".join(reload()) or "nothing; options are read at the start"
            self.log.info("read again: {what}", what=what)

        drain = Drain(self._reactor, ground.clock, ground.limits, leave, is_idle, read_again)
        self._drain = drain
        drain.watch()

    @property
    def exit_code(self) -> int:
        """What C{stripetwist} ends with: 3 if streams were cut at the end of the drain."""
        return CUT if self._drain is not None and self._drain.cut else 0

    def snapshot(self) -> dict[str, object]:
        """Everything there is to see, JSON-ready; seconds and bytes."""
        budget = self._ground.store.budget
        return {
            "version": 1,
            "stripetwist": __version__,
            "role": self._role,
            "pid": os.getpid(),
            "started": self._started,
            "state": "draining" if self._drain and self._drain.is_under_way else "running",
            "sessions": [],
            "agents": [],
            "paths": [],
            "memory": {
                "promised": budget.promised,
                "held": budget.stored,
                "limit": budget.limit,
            },
            "counters": {},
            **self._details(),
        }

    def show(self, lines: list[str]) -> None:
        """Print what a user should read at the start, before there is a log."""
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    def stopService(self) -> Deferred[None]:
        """End everything, and leave the state folder to others."""
        stopped: Deferred[Any] = maybeDeferred(MultiService.stopService, self)
        return stopped.addCallback(lambda _: self._state.close())
