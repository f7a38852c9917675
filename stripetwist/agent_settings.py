"""What C{stripe-agent} can be told."""

from dataclasses import dataclass

from stripetwist.client_settings import ClientSettings, paths_complaint, read_links, with_subflows
from stripetwist.core.agents import MAX_CAPACITY, MAX_LABELS, MAX_WEIGHT
from stripetwist.core.config import Limits
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.core.way import Way
from stripetwist.server_settings import ServerSettings
from stripetwist.settings import NUMBER, CommonSettings
from stripetwist.sources import option, same_option
from stripetwist.values import (
    LOOPBACK,
    Server,
    agent_name,
    count,
    label,
)


@dataclass(frozen=True, slots=True)
class AgentSettings(CommonSettings):
    """What C{stripe-agent} can be told."""

    servers: tuple[Server, ...] = same_option(
        ClientSettings,
        "server",
        metavar="LINK|FILE",
        doc="Dial the server that an agent's link names, or a link in a file; of several, each.",
    )
    name: str | None = option(
        "name",
        "NAME",
        agent_name,
        None,
        "Be called that by clients and servers (default the first part of the host's name).",
    )
    labels: tuple[tuple[str, str], ...] = option(
        "label",
        "KEY=VALUE",
        label,
        (),
        "Let servers choose this agent by that, too.",
        repeatable=True,
    )
    capacity: int | None = option(
        "capacity",
        "N",
        count(MAX_CAPACITY),
        None,
        "Take at most so many streams of a server at a time (default any number).",
        kinds=NUMBER,
    )
    weight: int = option(
        "weight",
        "N",
        count(MAX_WEIGHT),
        1,
        "Take so many times as many streams as an agent of weight 1.",
        kinds=NUMBER,
    )
    allow: tuple[str, ...] = same_option(ServerSettings, "allow", default=())
    deny: tuple[str, ...] = same_option(ServerSettings, "deny")
    subflows: int | None = same_option(ClientSettings, "subflows")
    paths: tuple[Way, ...] = same_option(ClientSettings, "path")

    def links(self) -> list[Link]:
        """
        The ways to the servers.

        @raise StartupError: a file holds no link, or two paths are one at that server's port.
        """
        return read_links(self.servers, self.paths)

    def limits(self) -> Limits:
        """As in L{CommonSettings}, with the subflows to start with."""
        return with_subflows(CommonSettings.limits(self), self.subflows)

    def policy(self) -> Policy:
        """
        What may be reached.

        @raise ValueError: an item would allow nothing.
        """
        return Policy(self.allow, self.deny)

    def complaint(self) -> str:
        """Why these values make no sense together, or nothing."""
        if not self.servers:
            return "there is no server to dial; give --server LINK or FILE, or $STRIPETWIST_SERVER"
        if LOOPBACK in self.servers:
            return f"--server {LOOPBACK} is for clients; give an agent's link, or a file with one"
        if astray := paths_complaint(self.servers, self.paths):
            return astray
        if not self.allow:
            return (
                "--allow is missing; say what may be reached from here, such as --allow internet, "
                "--allow lan or --allow localhost"
            )
        keys = [key for key, _ in self.labels]
        if len(set(keys)) < len(keys):
            return "--label gives a KEY twice; leave one out"
        if len(keys) > MAX_LABELS:
            return f"--label is given {len(keys)} times; {MAX_LABELS} labels are the most"
        try:
            self.policy()
        except ValueError as error:
            return f"--allow: {error}"
        return CommonSettings.complaint(self)
