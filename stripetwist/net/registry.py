"""The agents of a server, each under a name that no other has."""

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from stripetwist.core.agents import numbered
from stripetwist.core.config import Limits
from stripetwist.core.errors import Code
from stripetwist.net.driver import SessionDriver
from stripetwist.net.worker import AgentWorker, Standing

_LOOK_EVERY = 0.25


class Registry:
    """
    The agents of a server, each under a name that no other has.

    An agent that comes anew replaces its session of before, which finishes its streams.  If
    that one lives on and does not take its leave, it is another agent, with a copy of the
    first's state.
    Another one of the same name waits until the first has given a sign of life: then it gets
    a number behind its name, if its key allows that, and else waits on.  If there is none
    within C{limits.agent_probe}, it takes over the name and the session of the first ends.

    @ivar on_change: told when an agent comes, goes, or becomes able or unable.
    @ivar registered: how many have got a name so far.
    @ivar replaced: how many of these got that of a session before.
    @ivar renamed: how many got a number.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self.on_change: Callable[[], None] = lambda: None
        self._agents: list[AgentWorker] = []
        self.registered = self.replaced = self.renamed = 0

    def workers(self) -> list[AgentWorker]:
        """Those that have a name of their own, in order of arrival."""
        return [one for one in self._agents if one.standing is Standing.SERVES]

    # ---- sessions come and go

    def arrived(self, worker: AgentWorker) -> None:
        """An agent has opened a session."""
        before = next((one for one in self._agents if self._is_older(one, worker)), None)
        self._agents.append(worker)
        worker.driver.on_change = lambda: self._changed(worker)
        if before is None:
            self._look(worker)
            return
        was_waiting = before.standing is Standing.WAITS
        self._retire(before)
        if was_waiting:
            self._look(worker)
        else:
            self.replaced += 1
            self._serve(worker, before.name)
            self._doubt(before)
        # Only a connection could still bring what its streams have under way.
        self._changed(before)

    @staticmethod
    def _is_older(one: AgentWorker, worker: AgentWorker) -> bool:
        return one.is_same_agent(worker) and one.standing is not Standing.REPLACED

    def left(self, driver: SessionDriver) -> None:
        """A session is over; it may have been an agent's."""
        worker = next((one for one in self._agents if one.driver is driver), None)
        if worker is None:
            return
        self._retire(worker)
        self._agents.remove(worker)
        for one in list(self._agents):
            if one.standing is Standing.WAITS and one.rival is worker:
                self._look(one)
        self.on_change()

    def _changed(self, worker: AgentWorker) -> None:
        """An agent has won or lost a subflow, or goes away."""
        driver = worker.driver
        if worker.standing is Standing.REPLACED and not driver.connections:
            driver.finish(Code.SESSION_LOST, "its agent has opened another session")
        else:
            self.on_change()

    # ---- names

    def _holder(self, name: str) -> AgentWorker | None:
        return next((one for one in self.workers() if one.name == name), None)

    def _serve(self, worker: AgentWorker, name: str) -> None:
        """It gets that name, and streams."""
        self._forget_look(worker)
        worker.name, worker.standing, worker.rival = name, Standing.SERVES, None
        worker.driver.rename(name)
        self.registered += 1
        self.log.info("{name}: agent registered by key {key}", name=name, key=worker.key_id)
        self.on_change()

    def _retire(self, worker: AgentWorker) -> None:
        """It gets no more streams."""
        self._forget_look(worker)
        worker.standing = Standing.REPLACED

    @staticmethod
    def _forget_look(worker: AgentWorker) -> None:
        if worker.look is not None and worker.look.active():
            worker.look.cancel()
        worker.look = None

    def _look(self, worker: AgentWorker) -> None:
        """Whether an agent that waits can have a name now."""
        self._forget_look(worker)
        now, holder = self._clock.seconds(), self._holder(worker.said.name)
        is_there = bool(worker.driver.connections)
        if is_there and holder is None:
            self._serve(worker, worker.said.name)
            return
        if not is_there or holder is None:
            # A name is for one that can use it; this one may be back.
            worker.rival = None
        elif holder is not worker.rival:
            worker.rival, worker.asked_at = holder, now
            holder.driver.ask()
        elif holder.driver.session.last_heard > worker.asked_at:
            self._number(worker)
            return
        elif now - worker.asked_at >= self._limits.agent_probe:
            # Silent it may be: what is under way on its session is not another key's to end.
            if holder.key_id == worker.key_id:
                self._depose(holder, worker)
            else:
                self._number(worker)
            return
        worker.look = self._clock.callLater(_LOOK_EVERY, self._look, worker)

    def _number(self, worker: AgentWorker) -> None:
        """Its name is another's, who lives: it gets one like it, if its key allows that."""
        said = worker.said.name
        taken = {one.name for one in self.workers()}
        tries = (numbered(said, number) for number in range(2, len(taken) + 3))
        name = next(name for name in tries if name not in taken)
        if not worker.may_be_called(name):
            self.log.warn(
                "{name}: another agent of that name waits until this one goes; "
                "its key {key} allows no other name",
                name=said,
                key=worker.key_id,
            )
            return
        self.renamed += 1
        self.log.warn(
            "{said}: another agent of that name is called {name}; say --name there",
            said=said,
            name=name,
        )
        self._serve(worker, name)

    def _depose(self, holder: AgentWorker, worker: AgentWorker) -> None:
        """The one who has its name is silent.  Should it live, it begins anew, with a number."""
        self.replaced += 1
        self._retire(holder)
        self._serve(worker, worker.said.name)
        holder.driver.close(Code.SESSION_LOST, "it is silent, and another agent has its name")

    # ---- on the way out

    def drain(self, name: str) -> AgentWorker | None:
        """
        Have the agent of that name finish what it has, and go.

        @return: it; C{None} if there is none.
        """
        worker = self._holder(name)
        if worker is not None and not worker.drained:
            worker.drained = True
            self.log.info("{name}: agent is drained and gets no streams", name=name)
            self.on_change()
            worker.driver.on_drained = partial(self._see_off, worker)
            worker.driver.go_away("the server drains this agent", Code.DRAINED)
        return worker

    def _see_off(self, worker: AgentWorker) -> None:
        """
        End its session once nothing is left at this end, and it can be told.

        It has said that nothing is left at its own, which nobody else can know.
        """
        self._forget_look(worker)
        if worker.driver.is_idle and worker.driver.connections:
            worker.driver.close(Code.DRAINED, "it was drained")
        else:
            worker.look = self._clock.callLater(_LOOK_EVERY, self._see_off, worker)

    # ---- copies

    def _doubt(self, worker: AgentWorker) -> None:
        """Whether one that was replaced is another agent after all, and lives."""
        worker.asked_at = self._clock.seconds()
        worker.look = self._clock.callLater(_LOOK_EVERY, self._look_back, worker)
        worker.driver.ask()

    def _look_back(self, worker: AgentWorker) -> None:
        worker.look = None
        driver, now = worker.driver, self._clock.seconds()
        if driver.session.peer_leaves or not driver.connections:
            return
        if driver.session.last_heard > worker.asked_at:
            self.log.warn(
                "{name}: another agent has a copy of its state folder; say --state there",
                name=worker.said.name,
            )
            worker.standing = Standing.WAITS
            self._look(worker)
        elif now - worker.asked_at < self._limits.agent_probe:
            worker.look = self._clock.callLater(_LOOK_EVERY, self._look_back, worker)

    # ---- for people

    def snapshot(self, is_out: Callable[[AgentWorker], bool]) -> list[dict[str, object]]:
        """
        Every session of an agent.

        @param is_out: whether one that is able gets no streams since it does not answer.
        """
        rows = [(one, one.snapshot()) for one in self._agents]
        for worker, row in rows:
            if worker.is_able and is_out(worker):
                row["state"] = "counted out"
        return [row for _, row in rows]
