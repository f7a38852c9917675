"""C{twistd stripe-agent}: an exit that dials servers and reaches targets from where it stands."""

import os
import socket
from typing import Any

from twisted.application.service import IService
from twisted.logger import globalLogBeginner

from stripetwist.agent_settings import AgentSettings
from stripetwist.core.agents import INSTANCE_SIZE, Agent, name_of_host
from stripetwist.net.files import StartupError
from stripetwist.net.instance import Instance, ground_for
from stripetwist.net.logs import limit_level
from stripetwist.net.outpost import Outpost
from stripetwist.net.state import StateDirectory
from stripetwist.net.userfile import UsersError
from stripetwist.options import AgentOptions
from stripetwist.ways_in import open_status

INSTANCE_FILE = "instance"


class Options(AgentOptions):
    """See L{AgentOptions}."""


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    A dialer toward each server, an exit that serves their sessions, and a control socket.

    @raise SystemExit: it cannot start; one sentence says why.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: TID251 - a tap's privilege
    try:
        return _make(options.settings, reactor)
    except (StartupError, UsersError) as error:
        raise SystemExit(str(error)) from None


def _make(settings: AgentSettings, reactor: Any) -> IService:
    limit_level(globalLogBeginner, settings.log_level)
    links = settings.links()
    state = StateDirectory(settings.state, "agent", os.environ)
    state.open()
    ground = ground_for(reactor, settings.limits(), settings.congestion)
    agent = _agent(settings, _instance(state))
    outpost = Outpost(reactor, ground, agent, links, settings.policy(), settings.paths)
    outpost.witness.targets = settings.log_targets
    instance = Instance(reactor, ground, state, "agent", outpost.snapshot)
    for port in open_status(reactor, ground, settings, instance, outpost.complaint):
        outpost.exit.guard.note_own(port)
    outpost.setServiceParent(instance)
    instance.serve_control({})
    instance.watch_signals(outpost.leave, outpost.is_idle, lambda: ())
    return instance


def _agent(settings: AgentSettings, instance: bytes) -> Agent:
    """What it says of itself."""
    name = settings.name or name_of_host(socket.gethostname())
    labels = dict(settings.labels)
    return Agent(name, labels, settings.capacity or 0, settings.weight, instance)


def _instance(state: StateDirectory) -> bytes:
    """What tells this agent from others of its name; made at the first start, and kept."""
    if state.has(INSTANCE_FILE):
        kept = state.read_private(INSTANCE_FILE)
        if len(kept) == INSTANCE_SIZE:
            return kept
    made = os.urandom(INSTANCE_SIZE)
    state.write_private(INSTANCE_FILE, made)
    return made
