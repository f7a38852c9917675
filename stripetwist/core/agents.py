"""What an agent says of itself in its hello: its name, and what a pool chooses it by."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stripetwist.core.errors import Code
from stripetwist.core.hello import Rejected

# Words that stand for something else wherever an agent's name may stand.
ANY, SERVER = RESERVED_NAMES = ("any", "server")
MAX_NAME = 63
MAX_LABELS = 16
MAX_CAPACITY = 65_535
MAX_WEIGHT = 1000
INSTANCE_SIZE = 16

NAME, LABEL, CAPACITY, WEIGHT = 1, 2, 3, 4
_FALLBACK = "agent"

_NAME = re.compile(rf"[a-z0-9-]{{1,{MAX_NAME}}}\Z")
_WORD = re.compile(r"[a-z0-9._-]{1,63}\Z")
_NO_NAME = re.compile(r"[^a-z0-9-]+")

_OWN = ".exit"


def is_agent_name(text: str) -> bool:
    """Whether an agent may be called that."""
    return _NAME.match(text) is not None and text not in RESERVED_NAMES


def is_label_word(text: str) -> bool:
    """Whether a label may have that for its key, or for its value."""
    return _WORD.match(text) is not None


def name_of_host(host: str) -> str:
    """The first label of a host's name, folded into what an agent may be called."""
    first = _NO_NAME.sub("-", host.lower().partition(".")[0])[:MAX_NAME].strip("-")
    return first if is_agent_name(first) else _FALLBACK


def owner_of(host: object) -> str:
    """
    The exit on whose own machine a host is: C{attic} for C{attic.exit}; else empty.

    Browsers never send C{localhost} to a proxy, so every exit's machine has such a name.
    """
    if isinstance(host, str) and host.endswith(_OWN) and host.count(".") == 1:
        return host.removesuffix(_OWN)
    return ""


def numbered(name: str, number: int) -> str:
    """The name of one more agent that calls itself C{name}."""
    end = f"-{number}"
    return name[: MAX_NAME - len(end)] + end


@dataclass(frozen=True, slots=True)
class Agent:
    """
    What an agent says of itself.

    @ivar name: what it calls itself; another of that name may be there already.
    @ivar labels: what else it can be chosen by.
    @ivar capacity: how many streams at most it wants at a time; 0 for no limit.
    @ivar weight: its share of streams beside others, 1 to 1000.
    @ivar instance: 16 bytes, its own over all its starts.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: int = 0
    weight: int = 1
    instance: bytes = bytes(INSTANCE_SIZE)

    def complaint(self) -> str:
        """What keeps an agent from being this, or nothing."""
        if not is_agent_name(self.name):
            return f"an agent's name is 1 to {MAX_NAME} of a-z, 0-9 and -, not any or server"
        if len(self.labels) > MAX_LABELS:
            return f"an agent has at most {MAX_LABELS} labels"
        if not all(map(is_label_word, (*self.labels, *self.labels.values()))):
            return "an agent's label is KEY=VALUE, each 1 to 63 of a-z, 0-9, dot, _ and -"
        if not 0 <= self.capacity <= MAX_CAPACITY:
            return f"an agent's capacity is 0 to {MAX_CAPACITY}"
        if not 1 <= self.weight <= MAX_WEIGHT:
            return f"an agent's weight is 1 to {MAX_WEIGHT}"
        if len(self.instance) != INSTANCE_SIZE:
            return f"an agent's instance has {INSTANCE_SIZE} bytes"
        return ""

    def pack(self) -> bytes:
        """All but the instance, as the value of the hello's field AGENT."""
        labels = [(LABEL, f"{key}={value}".encode("ascii")) for key, value in self.labels.items()]
        records = [
            (NAME, self.name.encode("ascii")),
            *labels,
            (CAPACITY, self.capacity.to_bytes(2, "big")),
            (WEIGHT, self.weight.to_bytes(2, "big")),
        ]
        return b"".join(bytes([kind, len(value)]) + value for kind, value in records)


def parse_agent(data: bytes, instance: bytes) -> Agent:
    """
    What the fields AGENT and INSTANCE of a hello say; records unknown here are ignored.

    @raise Rejected: they say nothing that an agent can be.
    """
    values: dict[int, bytes] = {}
    labels: dict[str, str] = {}
    for kind, value in _records(data):
        if kind == LABEL:
            key, equals, text = value.decode("latin-1").partition("=")
            if not equals or key in labels:
                raise _rejected("an agent's label is KEY=VALUE, each KEY once")
            labels[key] = text
        elif kind in values:
            raise _rejected("an agent's record stands twice")
        else:
            values[kind] = value
    name = values.get(NAME, b"").decode("latin-1")
    capacity, weight = _number(values, CAPACITY, 0), _number(values, WEIGHT, 1)
    agent = Agent(name, labels, capacity, weight, instance)
    complaint = agent.complaint()
    if complaint:
        raise _rejected(complaint)
    return agent


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a value: a type and a length of a byte each, and what is that long."""
    at = 0
    while at < len(data):
        end = at + 2 + data[at + 1] if at + 1 < len(data) else len(data) + 1
        if end > len(data):
            raise _rejected("an agent's record is cut off")
        yield data[at], data[at + 2 : end]
        at = end


def _number(values: Mapping[int, bytes], kind: int, absent: int) -> int:
    value = values.get(kind, absent.to_bytes(2, "big"))
    if len(value) != 2:
        raise _rejected("an agent's number has 2 bytes")
    return int.from_bytes(value, "big")


def _rejected(why: str) -> Rejected:
    return Rejected(Code.PROTOCOL, why)
