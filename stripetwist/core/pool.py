"""A pool of workers: who is meant, who is next, and who is counted out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from stripetwist.core.agents import ANY, RESERVED_NAMES, SERVER, is_agent_name, is_label_word
from stripetwist.core.config import Limits
from stripetwist.core.target import OpenRequest


class Worker(Protocol):
    """
    An agent as the pool knows it: somewhere to open streams.

    @ivar name: unique among the living.
    @ivar labels: what its user says of it.
    @ivar capacity: the most streams at a time; 0 for no limit.
    @ivar weight: its share beside others, 1 to 1000.
    """

    name: str
    labels: Mapping[str, str]
    capacity: int
    weight: int

    @property
    def active(self) -> int:
        """How many streams are open or being opened on it."""

    @property
    def is_able(self) -> bool:
        """Whether it has a living subflow and takes new streams."""

    @property
    def stuck_since(self) -> float:
        """Since when bytes have been under way to it and none arrived; infinite if they do."""

    @property
    def state(self) -> str:
        """In a word: able, or draining or away."""

    def has_room_for(self, key_id: str) -> bool:
        """Whether it takes one more stream, of that key."""

    def open(self, request: OpenRequest) -> Any:
        """Have it reach a target, as an opener does."""

    def associate(self, request: OpenRequest) -> Any:
        """Have it carry datagrams, as an opener does."""


@dataclass(frozen=True, slots=True)
class Selector:
    """
    Which exit is meant: any agent, those with a name or a label, or the server itself.

    @ivar text: as users write it.
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """
        Read C{any}, C{server}, C{NAME} or C{LABEL=VALUE}.

        @raise ValueError: it is none of these; the words say what to write.
        """
        label, equals, value = text.partition("=")
        is_label = equals and is_label_word(label) and is_label_word(value)
        if not (is_label or is_agent_name(text) or text in RESERVED_NAMES):
            raise ValueError(
                "an exit is any, server, an agent's name (a-z, 0-9 and -), or a LABEL=VALUE"
            )
        return cls(text)

    @property
    def is_server(self) -> bool:
        """Whether it means the server itself."""
        return self.text == SERVER

    def fits(self, worker: Worker) -> bool:
        """Whether it means that worker, among others perhaps."""
        label, equals, value = self.text.partition("=")
        if equals:
            return worker.labels.get(label) == value
        return self.text in (ANY, worker.name)

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class _Place:
    """
    A worker, and what was seen of it.

    @ivar turn: a number that grows, from when it was last chosen.
    @ivar heard_at: when it last answered an open, in whatever way.
    @ivar out_until: counted out since it did not answer, and given one more chance then.
    @ivar is_stuck: counted out since nothing arrives there.
    """

    worker: Worker
    turn: int = 0
    heard_at: float = -inf
    out_until: float = -inf
    is_stuck: bool = False

    @property
    def is_out(self) -> bool:
        """Whether it is counted out."""
        return self.out_until > -inf

    @property
    def load(self) -> tuple[float, int]:
        """Who has the least is next: by streams for its weight, then by turns."""
        return (self.worker.active + 1) / self.worker.weight, self.turn


class Roster:
    """
    The workers that live, and which of them is next.

    The next is who would have the fewest streams for its weight; equals take turns.  Who has
    left an open unanswered for C{limits.agent_silent} seconds, and answered no other
    meanwhile, is counted out until it answers.  Lest nobody ask it any more, it is given one
    open in as much time.  So is who takes no bytes for as long, until the first arrives; one
    to whom nothing is sent may be silent.

    @ivar on_silence: told of each that is counted out (C{True}), and that comes back.
    """

    def __init__(self, workers: Callable[[], Iterable[Worker]], limits: Limits) -> None:
        """
        @param workers: the living, in order of arrival.
        """
        self._workers = workers
        self._patience = limits.agent_silent
        self._places: dict[int, _Place] = {}
        self._turns = 0
        self.on_silence: Callable[[Worker, bool], None] = lambda worker, silent: None

    def living(self) -> list[Worker]:
        """All of them, able or not."""
        return list(self._workers())

    def has(
        self, selector: Selector, now: float, tried: Sequence[Worker] = (), key_id: str = ""
    ) -> bool:
        """Whether one of those that are meant, and are not counted out, takes a stream."""
        return any(one.out_until <= now for one in self._free(selector, now, tried, key_id))

    def choose(
        self,
        selector: Selector,
        now: float,
        tried: Sequence[Worker] = (),
        key_id: str = "",
        at_worst: bool = False,
    ) -> Worker | None:
        """
        The next of those that are meant; C{None} if none of them takes a stream of that key.

        @param tried: those that are not wanted any more.
        @param at_worst: take one that is counted out rather than none.
        """
        free = self._free(selector, now, tried, key_id)
        sound = [one for one in free if one.out_until <= now]
        best = min(sound or (free if at_worst else []), key=lambda one: one.load, default=None)
        if best is None:
            return None
        self._turns += 1
        best.turn = self._turns
        if best.is_out:
            best.out_until = now + self._patience
        return best.worker

    def answered(self, worker: Worker, now: float) -> None:
        """It has answered an open, in whatever way."""
        place = self._places.get(id(worker))
        if place is None:
            return
        if place.is_out:
            self.on_silence(worker, False)
        place.heard_at, place.out_until = now, -inf

    def unanswered(self, worker: Worker, asked_at: float, now: float) -> bool:
        """It was asked then, and has not answered; whether it is counted out for that."""
        place = self._places.get(id(worker))
        if place is None:
            return False
        self._watch(place, now)
        if not place.is_stuck and now - max(place.heard_at, asked_at) < self._patience:
            return False
        if not place.is_out:
            self.on_silence(worker, True)
            place.out_until = now + self._patience
        return True

    def is_out(self, worker: Worker, now: float) -> bool:
        """Whether it is counted out."""
        place = self._places.get(id(worker))
        if place is None or place.worker is not worker:
            return self._is_stuck(worker, now)
        self._watch(place, now)
        return place.is_out

    def _is_stuck(self, worker: Worker, now: float) -> bool:
        return now - worker.stuck_since >= self._patience

    def _watch(self, place: _Place, now: float) -> None:
        """Count one that is able out, or no longer, by whether bytes arrive there."""
        worker, is_stuck = place.worker, self._is_stuck(place.worker, now)
        if not (is_stuck or place.is_stuck) or not worker.is_able:
            return
        place.is_stuck = is_stuck
        if not is_stuck:
            self.answered(worker, now)
            return
        if not place.is_out:
            self.on_silence(worker, True)
        place.out_until = inf

    def _free(
        self, selector: Selector, now: float, tried: Sequence[Worker], key_id: str
    ) -> list[_Place]:
        """The places of those that are meant and take a stream of that key."""
        places = self._living()
        for one in places:
            self._watch(one, now)
        return [
            one
            for one in places
            if selector.fits(one.worker)
            and one.worker.is_able
            and one.worker.has_room_for(key_id)
            and not any(one.worker is other for other in tried)
        ]

    def _living(self) -> list[_Place]:
        """A place for each that lives; what was seen of the others is forgotten."""
        old = self._places
        self._places = {
            id(worker): old.get(id(worker)) or _Place(worker) for worker in self._workers()
        }
        return list(self._places.values())
