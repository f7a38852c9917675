"""An agent's session, as something that streams can be opened on."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, ITransport

from stripetwist.core.agents import Agent
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import OpenRequest
from stripetwist.net.association import Association
from stripetwist.net.driver import SessionDriver


class Standing(Enum):
    """What an agent's session is to the registry; only one that serves is opened on."""

    WAITS = "waits for its name"
    SERVES = "serves"
    REPLACED = "replaced"


class AgentWorker:
    """
    An agent's session, as something that streams can be opened on.

    Lives as long as its session.  What it may not be asked for, or cannot, is refused.

    @ivar name: what it is called here: as it says, or with a number behind it.
    @ivar labels: what else it can be chosen by.
    @ivar capacity: how many streams at most it wants at a time; 0 for no limit.
    @ivar weight: its share beside others.
    @ivar said: what it says of itself.
    @ivar key_id: with which key it came.
    @ivar may_be_called: whether that key is good for a name.
    @ivar standing: kept by the registry, as the four below.
    @ivar rival: who had its name when it came.
    @ivar asked_at: when that one was asked for a sign of life.
    @ivar look: when the registry will look for it.
    @ivar drained: whether somebody here wants it to finish what it has, and go.
    """

    def __init__(
        self,
        said: Agent,
        driver: SessionDriver,
        key_id: str,
        may_be_called: Callable[[str], bool],
    ) -> None:
        self.name = said.name
        self.labels = said.labels
        self.capacity = said.capacity
        self.weight = said.weight
        self.said = said
        self.driver = driver
        self.key_id = key_id
        self.may_be_called = may_be_called
        self.standing = Standing.WAITS
        self.rival: AgentWorker | None = None
        self.asked_at = 0.0
        self.look: IDelayedCall | None = None
        self.drained = False

    @property
    def active(self) -> int:
        """Streams that are open or being opened on it."""
        return self.driver.active

    @property
    def _leaves(self) -> bool:
        """Whether one of the two ends wants no new streams on it."""
        return self.drained or self.driver.session.peer_leaves

    @property
    def stuck_since(self) -> float:
        """Since when nothing that was sent to it has arrived; see L{Session.stuck_since}."""
        return self.driver.session.stuck_since

    @property
    def is_able(self) -> bool:
        """Whether it can be asked for a stream now."""
        return (
            self.standing is Standing.SERVES
            and bool(self.driver.connections)
            and not self._leaves
            and self.driver.session.closed is None
        )

    def has_room_for(self, key_id: str) -> bool:
        """Whether a key has not got its share of what it takes yet; see L{Tally}."""
        return self.driver.has_room_for(key_id, self.capacity)

    def open(self, request: OpenRequest) -> Deferred[ITransport]:
        """See L{Opener.open<stripetwist.net.opener.Opener.open>}."""
        # Which agent it is has been decided; so it learns what it is called here.
        return self._refusal() or self.driver.open(replace(request, exit=self.name))

    def associate(self, request: OpenRequest) -> Deferred[Association]:
        """See L{Associator.associate<stripetwist.net.association.Associator.associate>}."""
        return self._refusal() or self.driver.associate(replace(request, exit=self.name))

    def _refusal(self) -> Deferred[Any] | None:
        if self.is_able:
            return None
        sentence = f"the agent {self.name} takes no streams now: it is {self.state}"
        return fail(OpenRefused(Code.NO_WORKER, sentence))

    def is_same_agent(self, other: "AgentWorker") -> bool:
        """Whether both are sessions of one agent."""
        ours = self.key_id, self.said.name, self.said.instance
        return ours == (other.key_id, other.said.name, other.said.instance)

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.standing is not Standing.SERVES:
            return "waiting" if self.standing is Standing.WAITS else "replaced"
        if self._leaves:
            return "draining"
        return "able" if self.driver.connections else "away"

    def snapshot(self) -> dict[str, object]:
        """For people."""
        seen = self.driver.snapshot()
        return {
            "name": self.name,
            "key": self.key_id,
            "state": self.state,
            "subflows": len(self.driver.connections),
            "age": seen["age"],
            "labels": dict(self.labels),
            "capacity": self.capacity,
            "weight": self.weight,
            "active": self.active,
            "streams": seen["streams"],
            "rtt": self.driver.session.rtt,
            "sent": seen["sent"],
            "received": seen["received"],
            "last_error": self.driver.last_error,
        }
