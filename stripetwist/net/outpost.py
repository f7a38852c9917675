"""The agent side as one service: a dialer for each server, and one way out for them all."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from stripetwist.core.agents import Agent, is_agent_name, owner_of
from stripetwist.core.errors import OpenRefused
from stripetwist.core.link import Link
from stripetwist.core.policy import Policy
from stripetwist.core.target import OpenRequest, Target, shown
from stripetwist.core.way import Way
from stripetwist.net.association import Association
from stripetwist.net.client import way_of
from stripetwist.net.dialer import Dialer
from stripetwist.net.driver import SessionDriver
from stripetwist.net.exit import DirectExit
from stripetwist.net.ground import Ground
from stripetwist.net.guard import Guard
from stripetwist.net.opener import Opener, Witness
from stripetwist.net.path import path_lines
from stripetwist.net.resolver import Resolver, daemon_threads

T = TypeVar("T")

_OWN_NAME = "localhost"
_LEAVING = "the agent is shutting down"
# A server that will not have us says so within a round trip of our believing it.
_TELL_AFTER = 0.5


class Inbound:
    """
    What one server asks an agent for.

    Has the session kept ready for it, and knows this machine by the agent's name.

    @ivar name: what that server calls the agent.
    """

    log = Logger()

    def __init__(self, dialer: Dialer, name: str, opener: Opener) -> None:
        self._dialer = dialer
        self.name = name
        self._opener = opener

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open}."""
        ours = self._ours(request)
        return _named(self._opener.open(ours), ours.target, request.target)

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        ours = self._ours(request)
        return _named(self._opener.associate(ours), ours.target, request.target)

    def _ours(self, request: OpenRequest) -> OpenRequest:
        self._dialer.strength.used()
        if request.exit != self.name and is_agent_name(request.exit):
            self._called(request.exit)
        if owner_of(request.target.host):
            own = Target(_OWN_NAME, request.target.port)
            request = replace(request, target=own)
        return request

    def _called(self, name: str) -> None:
        """The server has another agent of the name before."""
        self.log.warn(
            "{address} calls this agent {name}, as {before} is another one's name there; "
            "say --name here to choose",
            address=self._dialer.link.address,
            name=name,
            before=self.name,
        )
        self.name = name


def _named(opening: Deferred[T], ours: Target, asked: Target) -> Deferred[T]:
    """Have a refusal name what was asked for, which whoever asked knows."""

    def refused(failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, OpenRefused):
            sentence = error.sentence.replace(shown(ours), shown(asked), 1)
            return Failure(OpenRefused(error.code, sentence))
        return failure

    return opening if ours == asked else opening.addErrback(refused)


class Outpost(MultiService):
    """
    Keeps a session to each server, and reaches what they ask for, as far as it may.

    @ivar dialers: one for each server.
    @ivar exit: the way out.
    @ivar witness: logs what is reached, as its C{targets} says.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        ground: Ground,
        agent: Agent,
        links: Sequence[Link],
        policy: Policy,
        ways: Sequence[Way] = (),
    ) -> None:
        """
        @param ways: how to get to each server; none means straight there.
        """
        super().__init__()
        self._agent = agent
        self._ways = ways
        self._clock = clock = ground.clock
        self._resolver = Resolver(clock, daemon_threads(reactor), timeout=ground.limits.dns_timeout)
        guard = Guard(policy)
        self.exit = DirectExit(reactor, clock, self._resolver, guard, ground.limits)
        # No keys come this far: of one server all have its name.
        self.exit.udp.asker = "server"
        self.witness = Witness(self.exit, clock)
        self._told: dict[Dialer, IDelayedCall] = {}
        self._said: dict[Dialer, list[str]] = {}
        self._leaving = False
        self.dialers = [
            Dialer(reactor, ground, self._resolver, link, ways or (Way(),), agent) for link in links
        ]
        for dialer in self.dialers:
            dialer.on_session = partial(self._serve, dialer)
            dialer.on_change = partial(self._changed, dialer)
            dialer.setServiceParent(self)

    def _serve(self, dialer: Dialer, driver: SessionDriver) -> None:
        """A session has been opened: its server may ask for targets."""
        inbound = Inbound(dialer, self._agent.name, self.witness)
        driver.serve(inbound, dialer.link.address)
        if self._leaving:
            driver.go_away(_LEAVING)

    def _changed(self, dialer: Dialer) -> None:
        """A subflow came or went, or a session ended."""
        driver = dialer.driver
        if driver is None or not driver.connections:
            self._forget(dialer)
        elif dialer not in self._told:
            self._told[dialer] = self._clock.callLater(_TELL_AFTER, self._tell, dialer, driver)

    def _tell(self, dialer: Dialer, driver: SessionDriver) -> None:
        rtt, _ = way_of(driver, self._clock.seconds())
        self.log.info(
            "  connected   {address} as {name}, {rtt:.0f} ms",
            address=dialer.link.address,
            name=self._agent.name,
            rtt=rtt * 1000,
        )
        lines = path_lines(dialer.paths) if self._ways else []
        for line in lines:
            if line not in self._said.get(dialer, []):
                self.log.info("{line}", line=line)
        self._said[dialer] = lines

    def _forget(self, dialer: Dialer) -> None:
        """What is to be told of a session, or was, is no longer true."""
        telling = self._told.pop(dialer, None)
        if telling is not None and telling.active():
            telling.cancel()

    def leave(self) -> None:
        """Have no more asked of us; let streams finish."""
        self._leaving = True
        for dialer in self.dialers:
            if dialer.driver is not None:
                dialer.driver.go_away(_LEAVING)

    def is_idle(self) -> bool:
        """Whether no stream is carried, and what was has left for the targets."""
        drivers = [dialer.driver for dialer in self.dialers]
        return all(driver is None or driver.is_idle for driver in drivers)

    def complaint(self) -> str:
        """Why it gets no more, a sentence; empty if it does: if one server has it."""
        if self._leaving:
            return _LEAVING
        if any(dialer.is_welcome for dialer in self.dialers):
            return ""
        reasons = [one.why_unwelcome for one in self.dialers if one.why_unwelcome]
        return "; ".join(reasons) or "no connection to a server yet"

    def _last_error(self) -> str:
        """What those servers say or do to whom there is no connection."""
        return "; ".join(one.why_away for one in self.dialers if one.why_away)

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        return {
            "sessions": [one for dialer in self.dialers for one in dialer.snapshot()],
            "paths": [path.snapshot() for dialer in self.dialers for path in dialer.paths],
            "name": self._agent.name,
            "servers": [_seen(dialer) for dialer in self.dialers],
            "last_error": self._last_error(),
            "counters": self.exit.counters(),
        }

    def stopService(self) -> Deferred[Any]:
        """End everything; fires when the last connection is gone."""
        for dialer in self.dialers:
            self._forget(dialer)
        self._resolver.stop()
        stopped: Deferred[Any] = MultiService.stopService(self)
        return stopped


def _seen(dialer: Dialer) -> dict[str, object]:
    """A server, for people; the numbers are of the session there is."""
    driver = dialer.driver
    away = "drained" if dialer.is_drained else "away"
    found: dict[str, object] = {
        "address": dialer.link.address,
        "state": "connected" if dialer.is_alive() else away,
        "subflows": len(driver.connections) if driver is not None else 0,
        "last_error": dialer.why_away or dialer.last_error,
    }
    if driver is not None:
        seen = driver.snapshot()
        found |= {"rtt": driver.session.rtt, "active": driver.active}
        found |= {name: seen[name] for name in ("age", "streams", "sent", "received")}
    return found
