"""The server side as one service: a door, ways out, and what keeps them up to date."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from stripetwist.core.address import Address
from stripetwist.core.errors import printable
from stripetwist.core.policy import Policy
from stripetwist.core.pool import Roster, Worker
from stripetwist.core.target import Target
from stripetwist.net.acceptor import Acceptor
from stripetwist.net.asking import ControlError, Request
from stripetwist.net.certificates import CertificateFiles
from stripetwist.net.exit import DirectExit
from stripetwist.net.files import StartupError
from stripetwist.net.fronts import Front, Fronts
from stripetwist.net.ground import Ground
from stripetwist.net.guard import Guard
from stripetwist.net.keyfile import Key
from stripetwist.net.keystore import KeyStore
from stripetwist.net.listening import listen
from stripetwist.net.opener import Witness
from stripetwist.net.resolver import Resolver, daemon_threads
from stripetwist.net.router import Router
from stripetwist.net.speed import SpeedOpener
from stripetwist.net.tls import ServerCreator, TLSFactory

_LOOK_EVERY = 2.0


class Server(MultiService):
    """
    Accepts sessions and reaches the targets that they ask for, itself or through agents.

    Listens from C{listen} on, before the process forks, so that a port that is taken stops
    the start; keys and certificates that change on disk are noticed while it runs.

    @ivar acceptor: the door.
    @ivar exit: the way out from here.
    @ivar direct: that, and the targets within the server.
    @ivar router: that, or agents, as a request says.
    @ivar witness: logs what is reached, as its C{targets} says.
    @ivar certificates: the user's own, to be read again when they change.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        ground: Ground,
        keys: KeyStore,
        policy: Policy,
        creator: ServerCreator | None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._ground = ground
        self._keys = keys
        self._creator = creator
        self.certificates: CertificateFiles | None = None
        self._ports: list[IListeningPort] = []
        clock, limits = ground.clock, ground.limits
        self._resolver = Resolver(clock, daemon_threads(reactor), timeout=limits.dns_timeout)
        guard = Guard(policy, key_policy=self._policy_of_key, may_bind=self._may_bind)
        self.exit = DirectExit(reactor, clock, self._resolver, guard, limits)
        self.direct = SpeedOpener(self.exit, clock, guard)
        self._roster = roster = Roster(self._workers, limits)
        roster.on_silence = self._silence
        self.router = Router(self.direct, roster, self._key, clock, limits)
        self.witness = Witness(self.router, clock)
        self.fronts = Fronts(reactor)
        self.acceptor = Acceptor(ground, keys, self.witness)
        self._watch = LoopingCall(self._look_on)
        self._watch.clock = clock

    def listen(self, address: Address, option: str = "--listen") -> IListeningPort:
        """
        Let peers dial in there.

        @raise StartupError: the port is taken, or not for us.
        """
        factory: IProtocolFactory = self.acceptor
        if self._creator is not None:
            factory = TLSFactory(self._creator, self.acceptor, self._ground.clock)
        port = listen(self._reactor, address, factory, option)
        self._ports.append(port)
        self.exit.guard.note_own(port)
        return port

    def listen_locally(self, address: Address, front: Front) -> None:
        """
        Open a proxy port, or a forwarded one.

        @raise StartupError: it is taken, or not for us.
        """
        self.exit.guard.note_own(self.fronts.listen(address, front))

    def _workers(self) -> Iterable[Worker]:
        """The agents that live, in order of arrival."""
        return self.acceptor.registry.workers()

    def _silence(self, worker: Worker, silent: bool) -> None:
        """Tell of an agent that is counted out, or comes back."""
        what = "does not answer and gets no streams until it does" if silent else "answers again"
        self.log.info("agent {name} {what}", name=worker.name, what=what)

    def _key(self, key_id: str) -> Key | None:
        return self._keys.lookup(key_id, datetime.now(UTC))

    def _policy_of_key(self, key_id: str) -> Policy | None:
        key = self._key(key_id)
        if key is None:
            # Its sessions are about to be closed; until then they reach nothing.
            return Policy((), hint="this key was revoked or has expired, and lacks")
        if key.allow is None:
            return None
        return Policy(key.allow, hint="this key's allow list lacks")

    def _may_bind(self, key_id: str, place: Target) -> bool:
        key = self._key(key_id)
        return key is not None and key.allows_bind(place)

    def startService(self) -> None:
        """Begin to look after keys and certificates."""
        super().startService()
        self._watch.start(_LOOK_EVERY, now=False)

    def _look_on(self) -> None:
        try:
            self.look()
        # One look that fails must not be the last.
        except Exception:  # noqa: BLE001
            self.log.failure("keys and certificates could not be looked at")

    def look(self) -> None:
        """Take over what has changed on disk."""
        self.acceptor.look_at_keys()
        if self.certificates is not None and self._creator is not None:
            try:
                if self.certificates.reload_if_changed():
                    self._creator.renew(self.certificates.current)
                    self.log.info("the TLS certificate was read again")
            except StartupError as error:
                self.log.warn("{sentence}", sentence=str(error))

    def reload(self) -> list[str]:
        """Take over what has changed, and complain again of what cannot be used; what was read."""
        files = {"keys": self._keys, "certificate": self.certificates}
        held = {name: one for name, one in files.items() if one is not None}
        for one in held.values():
            one.complain_again()
        self.look()
        return [name for name, one in held.items() if one.is_current]

    def leave(self) -> None:
        """Take no new sessions and connections; let streams finish."""
        self.fronts.leave()
        self.acceptor.leave()

    def drain(self, request: Request) -> dict[str, object]:
        """
        Have the agent that a request names finish its streams, and go.

        @return: its name, and how many streams those are.
        @raise ControlError: there is no such agent.
        """
        name, registry = request.get("name"), self.acceptor.registry
        names = [one.name for one in registry.workers()]
        if name not in names:
            there = f"there is {', '.join(names)}" if names else "there is none at all"
            raise ControlError(f'there is no agent "{printable(str(name), 63)}" here; {there}')
        worker = next(one for one in registry.workers() if one.name == name)
        active = worker.active
        registry.drain(worker.name)
        return {"name": worker.name, "streams": active}

    def is_idle(self) -> bool:
        """Whether no stream is carried."""
        return self.acceptor.is_idle and self.fronts.is_idle

    def complaint(self) -> str:
        """Why it cannot do its job, a sentence; empty if it can."""
        return "the server is shutting down" if self.acceptor.is_leaving else ""

    def snapshot(self) -> dict[str, object]:
        """For the instance's."""
        acceptor, now = self.acceptor, self._ground.clock.seconds()
        agents = acceptor.registry
        return {
            "sessions": acceptor.snapshot(),
            "agents": agents.snapshot(lambda one: self._roster.is_out(one, now)),
            "counters": {
                "turned_away": acceptor.turned_away,
                **self.exit.counters(),
                **self.fronts.counters(),
                "agents_registered": agents.registered,
                "agents_replaced": agents.replaced,
                "agents_renamed": agents.renamed,
            },
        }

    def stopService(self) -> Deferred[None]:
        """End everything; fires when the last connection is gone."""
        if self._watch.running:
            self._watch.stop()
        self._resolver.stop()
        ports = [maybeDeferred(port.stopListening) for port in self._ports]
        closed: Deferred[Any] = gatherResults(ports, consumeErrors=True)
        closed.addErrback(lambda failure: self.log.failure("a port did not close", failure))
        # A front may wait for a stream that only the end of its session ends.
        closed.addCallback(lambda _: gatherResults([self.fronts.stop(), self.acceptor.stop()]))
        closed.addCallback(lambda _: maybeDeferred(MultiService.stopService, self))
        return closed.addCallback(lambda _: None)
