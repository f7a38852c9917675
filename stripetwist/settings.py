"""What every command can be told: its settings, each option declared once."""

from dataclasses import dataclass, replace
from pathlib import Path

from stripetwist.core.address import Address
from stripetwist.core.config import Limits
from stripetwist.core.credit import default_memory
from stripetwist.net.memory import usable_memory
from stripetwist.ports import Named, named_twice
from stripetwist.sources import flag, option
from stripetwist.values import (
    congestion,
    local_address,
    log_level,
    path,
    prewarm,
    seconds,
    size,
)

# How a file may have what is a number.
NUMBER = (str, int)


@dataclass(frozen=True, slots=True)
class CommonSettings:
    """What every command can be told."""

    config: Path | None = option(
        "config", "FILE", path, None, "Read options from a TOML file, NAME = VALUE."
    )
    state: Path | None = option(
        "state",
        "DIR",
        path,
        None,
        "Keep files in DIR (default $STATE_DIRECTORY, else $XDG_STATE_HOME/stripetwist, else "
        "~/.local/state/stripetwist): a server its keys, its certificate and the links, an agent "
        "what tells it from others, and each its lock, and its control socket where "
        "$XDG_RUNTIME_DIR is not set.",
    )
    status: Address | None = option(
        "status",
        "ADDRESS",
        local_address,
        None,
        "Answer HTTP there, /status.json and /healthz; beyond this machine it needs "
        "--status-users (default nowhere).",
        kinds=NUMBER,
    )
    status_users: Path | None = option(
        "status-users",
        "FILE",
        path,
        None,
        "Let only these users see that; stripetwist passwd FILE USER adds one.",
    )
    log_level: str = option(
        "log-level",
        "LEVEL",
        log_level,
        "info",
        "Log debug, info, warn, error or critical events, and what is worse.",
    )
    log_targets: bool = flag("log-targets", "Log the hosts and ports that are reached.")
    max_memory: int | None = option(
        "max-memory",
        "SIZE",
        size,
        None,
        "Hold at most so much data under way, such as 64M or 1G "
        "(default a quarter of the memory, at most 256M).",
        kinds=NUMBER,
    )
    session_timeout: float = option(
        "session-timeout",
        "SECONDS",
        seconds,
        Limits().session_timeout,
        "Reset the streams of a session that has been without any connection for so long.",
        kinds=(str, int, float),
    )

    congestion: str = option(
        "congestion",
        "auto|system|NAME",
        congestion,
        "auto",
        "Have the kernel pace what this end sends by bbr where that may be chosen (auto), as "
        "every connection of this system, or by the algorithm NAME.",
    )

    prewarm: int | None = option(
        "prewarm",
        "auto|off|SIZE",
        prewarm,
        None,
        "Open congestion windows by so much filler per session, and hold them open for a "
        "minute after use (default auto, 2M).",
        kinds=NUMBER,
    )

    def limits(self) -> Limits:
        """Every limit and time, with those that options change."""
        return replace(
            Limits(),
            max_memory=self.max_memory or default_memory(usable_memory()),
            session_timeout=self.session_timeout,
            prewarm=Limits().prewarm if self.prewarm is None else self.prewarm,
        )

    def ports(self) -> list[Named]:
        """Those for TCP that it is to open, with the options that name them."""
        return [] if self.status is None else [("--status", self.status)]

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if twice := named_twice(self.ports()):
            return twice
        if self.log_targets and self.log_level not in ("debug", "info"):
            return f"--log-targets is of no use with --log-level {self.log_level}; leave one out"
        if self.status is None:
            return "--status-users is of no use without --status ADDRESS" * bool(self.status_users)
        if self.status.is_local or self.status_users:
            return ""
        return (
            f"--status {self.status} is open to other machines; "
            "say who may see it with --status-users FILE"
        )
