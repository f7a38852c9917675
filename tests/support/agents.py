"""An agent of a test, and what its server says of it."""

from pathlib import Path

from support.waiting import wait_equal
from support.workshop import Agent, Server, Workshop

ABLE = ("attic", "able")


def attic(workshop: Workshop, link: str, *options: str, state: Path | None = None) -> Agent:
    """An agent called attic, with two connections, that may reach its own machine."""
    fixed = ("--name", "attic", "--allow", "localhost", "--subflows", "2")
    return workshop.agent(link, *fixed, *options, state=state)


def wait_agents(server: Server, *wanted: tuple[str, str], timeout: float = 10.0) -> None:
    """Until the server has exactly these."""
    wait_equal(lambda: sorted(server.agents()), sorted(wanted), timeout, "the agents")


def key_for(workshop: Workshop, server: Server, name: str) -> str:
    """The link of a new key for the agent of that name only."""
    where = ("--state", str(server.state))
    assert workshop.command("key", "add", name, "--agent", *where).returncode == 0
    assert server.ask(command="reload")["ok"]
    return workshop.command("key", "show", name, *where).stdout.decode().strip()
