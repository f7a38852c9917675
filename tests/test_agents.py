"""Agents as processes: they dial in, have names, come back, and go."""

import re
import signal
import time
from contextlib import ExitStack

import pytest
from support import socks, wire
from support.agents import ABLE, attic, wait_agents
from support.ports import LOOPBACK, free_port
from support.targets import Echo
from support.timing import in_time, measures_times
from support.waiting import wait_still, wait_until
from support.workshop import Workshop


def test_registered_and_shown(workshop: Workshop) -> None:
    """What it says of itself is seen at the server; its own log says where it is."""
    server = workshop.server()
    labels = ("--label", "site=home", "--label", "os=linux")
    agent = attic(workshop, server.agent_link, *labels, "--capacity", "100", "--weight", "7")
    agent.wait_line(rf"connected +{LOOPBACK}:{server.port} as attic")
    (row,) = server.snapshot()["agents"]
    assert (row["name"], row["key"], row["state"]) == ("attic", "agent-1", "able")
    assert row["labels"] == {"site": "home", "os": "linux"}
    assert (row["capacity"], row["weight"], row["active"]) == (100, 7, 0)
    runtime = str(server.control_socket().parent.parent)
    shown = workshop.command("status", XDG_RUNTIME_DIR=runtime).stdout.decode()
    assert re.search(r"^  attic +able .* 100 +7 +site=home os=linux$", shown, re.MULTILINE), shown
    assert agent.snapshot()["role"] == "agent"


def test_ended(workshop: Workshop) -> None:
    """TERM ends it at once, the server hears of it, and no session is left."""
    server = workshop.server()
    agent = attic(workshop, server.agent_link)
    wait_agents(server, ABLE)
    assert agent.terminate() == -signal.SIGTERM
    wait_agents(server, timeout=2)
    assert server.snapshot()["sessions"] == []
    # That it leaves goes on another connection than its last word, and may come behind it.
    assert "attic: session over: the agent was stopped" in server.log


@measures_times
def test_agent_first_and_server_later(workshop: Workshop) -> None:
    """Within 3 s of the server's start the agent is able, and again after a restart of it."""
    server = workshop.server()
    server.terminate()
    agent = attic(workshop, server.agent_link)
    agent.wait_line("refuses connections: start the server there")
    for _ in range(2):
        server = workshop.restart(server)
        began = time.monotonic()
        wait_agents(server, ABLE)
        took = time.monotonic() - began
        in_time(took < 3, took)
        server.terminate()


def test_killed_and_started_again(workshop: Workshop) -> None:
    """It has its name again at once, and the session of the one before is gone."""
    server = workshop.server()
    agent = attic(workshop, server.agent_link)
    wait_agents(server, ABLE)
    agent.kill()
    wait_agents(server, ("attic", "away"))
    again = attic(workshop, server.agent_link, state=agent.state)
    wait_agents(server, ABLE)
    assert again.running
    assert server.snapshot()["counters"]["agents_renamed"] == 0


def test_two_of_one_name(workshop: Workshop, echo: Echo) -> None:
    """The second is numbered, which both logs say in the end; the first is not disturbed."""
    proxy = free_port()
    server = workshop.server("--socks", str(proxy), "--exit", "attic-2")
    attic(workshop, server.agent_link)
    wait_agents(server, ABLE)
    second = attic(workshop, server.agent_link)
    wait_agents(server, ABLE, ("attic-2", "able"), timeout=5)
    server.wait_line("another agent of that name is called attic-2")
    socks.connect(proxy, echo.port).close()
    second.wait_line("calls this agent attic-2, as attic is another one's name there; say --name")
    second.kill()
    wait_agents(server, ABLE, ("attic-2", "away"))
    attic(workshop, server.agent_link, state=second.state)
    wait_agents(server, ABLE, ("attic-2", "able"))


def test_a_key_of_its_own(workshop: Workshop) -> None:
    """It is good for that name only; another is refused with a sentence that says which."""
    server = workshop.server()
    where = ("--state", str(server.state))
    assert workshop.command("key", "add", "attic", "--agent", *where).returncode == 0
    link = workshop.command("key", "show", "attic", *where).stdout.decode().strip()
    assert server.ask(command="reload")["ok"]
    wrong = workshop.agent(link, "--name", "cellar", "--allow", "lan")
    wrong.wait_line("not for an agent called cellar; say --name attic")
    attic(workshop, link)
    wait_agents(server, ABLE)
    done = workshop.command("key", "revoke", "attic", *where)
    assert done.returncode == 0
    wait_agents(server, timeout=5)


def test_wrong_links(workshop: Workshop) -> None:
    """A client's at an agent, an agent's at a client: one sentence each, and no session."""
    server = workshop.server()
    agent = attic(workshop, server.link)
    client = workshop.client(str(workshop.link_file(server.agent_link)))
    for process, says in (
        (agent, "takes this link from clients only; give --server an agent's link"),
        (client, "takes this link from agents only; give --server a client's link"),
    ):
        process.wait_line(says)
        wait_still(lambda process=process: len(process.lines), 0.5, 5, "the log")
        said = [line for line in process.lines if f"{LOOPBACK}:{server.port}" in line]
        assert len(said) == 1, said
        assert process.running
    snapshot = server.snapshot()
    assert (snapshot["sessions"], snapshot["agents"]) == ([], [])


def test_several_servers(workshop: Workshop) -> None:
    """One agent serves each of them; one that is gone does not disturb the other."""
    servers = [workshop.server() for _ in range(2)]
    more = str(workshop.link_file(servers[1].agent_link))
    agent = attic(workshop, servers[0].agent_link, "--server", more)
    for server in servers:
        wait_agents(server, ABLE)
    servers[0].kill()
    wait_until(lambda: len(agent.snapshot()["sessions"]) == 2, 5, "the snapshot")
    wait_agents(servers[1], ABLE)


def test_capacity(workshop: Workshop, echo: Echo) -> None:
    """No key takes all of it; local users may, and the rest of it is for whoever comes next."""
    proxy = free_port()
    server = workshop.server("--socks", str(proxy))
    attic(workshop, server.agent_link, "--capacity", "8")
    wait_agents(server, ABLE)
    where = ("--state", str(server.state))
    assert workshop.command("key", "add", "desk", *where).returncode == 0
    assert server.ask(command="reload")["ok"]
    link = workshop.command("key", "show", "desk", *where).stdout.decode().strip()
    first = workshop.client(server, "--exit", "attic")
    second = workshop.client(str(workshop.link_file(link)), "--exit", "attic")
    counts = {first.proxy: 4, second.proxy: 2, proxy: 2}
    with ExitStack() as streams:
        for port, most in counts.items():
            answers = [socks.ask(port, LOOPBACK, echo.port) for _ in range(most + 1)]
            for _, sock in answers:
                streams.enter_context(sock)
            codes = [code for code, _ in answers]
            assert codes[:most] == [socks.SUCCEEDED] * most, codes
            assert codes[most] != socks.SUCCEEDED, codes
        first.wait_line("this key has its share of the streams that exit attic takes; end some")
    wait_until(lambda: server.snapshot()["agents"][0]["active"] == 0, 5, "the streams to end")
    socks.connect(second.proxy, echo.port).close()


def test_by_hand(workshop: Workshop) -> None:
    """A hello made from the specification is understood; what such an agent opens is refused."""
    server = workshop.server("--allow", "localhost")
    said = b"\x01\x05attic" + b"\x02\x09site=home" + b"\x04\x02\x00\x05"
    more = wire.tlv(wire.INSTANCE, bytes(16)) + wire.tlv(wire.AGENT_SAYS, said)
    with wire.Peer(server.port) as peer:
        peer.join_in(wire.Link.parse(server.agent_link), wire.AGENT, more)
        target = b"\x01\x00\x07" + b"\x01\x7f\x00\x00\x01" + server.port.to_bytes(2, "big")
        for stream in (1, 3):
            peer.send(wire.frame(wire.OPEN, target, stream, aux=1))
        refused = (payload for kind, payload in peer.frames() if kind == wire.REFUSE)
        for _ in range(2):
            assert b"an agent opens no streams" in next(refused)
        (row,) = server.snapshot()["agents"]
    assert server.log.count("an agent asks for streams") == 1
    assert (row["name"], row["labels"], row["weight"]) == ("attic", {"site": "home"}, 5)


@pytest.mark.parametrize("style", ["twistd", "console"])
def test_allow_is_missing(workshop: Workshop, style: str) -> None:
    """One sentence and exit code 1."""
    link = f"stripetwist://agent-1:{'A' * 43}@{LOOPBACK}:{free_port()}/{'A' * 43}"
    agent = workshop.agent(link, style=style)
    assert agent.wait(20) == 1
    assert len(agent.lines) == 1
    assert agent.lines[0].startswith("--allow is missing; say what may be reached from here")
