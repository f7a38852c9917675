"""A snapshot of a running process, as text for a terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stripetwist.core.config import MIB
from stripetwist.core.errors import printable

Snapshot = Mapping[str, Any]

_HEAD = ("subflow", "path", "state", "rtt", "sent", "received", "dummy", "in flight", "")
_WORK_HEAD = ("rtt", "streams", "sent", "received")
_AGENT_HEAD = ("agent", "state", "up", "key", *_WORK_HEAD, "capacity", "weight", "labels", "")
_SERVER_HEAD = ("server", "state", "up", *_WORK_HEAD, "")
_PATH_HEAD = ("path", "server", "state", "subflows", "")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def render(snapshot: Snapshot, now: float) -> str:
    """
    The lines about one process.

    What a snapshot lacks, or has of another kind, is a dash: it may be of another version.

    @param now: the time by the clock that C{started} was read from.
    """
    return "\n".join(_lines(snapshot, now)) + "\n"


def _lines(snapshot: Snapshot, now: float) -> Iterator[str]:
    memory = _part(snapshot, "memory")
    started = _number(snapshot.get("started"))
    age = "-" if started is None else duration(max(0.0, now - started))
    who = [_text(snapshot.get("role")), *(_text(name) for name in [snapshot.get("name")] if name)]
    sessions = _parts(snapshot, "sessions")
    state = "draining  " if snapshot.get("state") == "draining" else ""
    yield (
        f"{' '.join(who)}  pid {_text(snapshot.get('pid'))}  {state}up {age}"
        f"  {_count(len(sessions), 'session')}"
        f"  memory {mebibytes(memory.get('held'))} of {mebibytes(memory.get('limit'))}"
    )
    if servers := _parts(snapshot, "servers"):
        yield from _table([_SERVER_HEAD, *map(_server, servers)], "  ")
    elif not sessions and snapshot.get("last_error"):
        yield f"  not connected: {printable(str(snapshot['last_error']))}"
    if agents := _parts(snapshot, "agents"):
        yield from _table([_AGENT_HEAD, *map(_agent, agents)], "  ")
    if paths := _paths(snapshot, bool(sessions)):
        yield from _table([_PATH_HEAD, *paths], "  ")
    for session in sessions:
        yield from _session(session)


def _paths(snapshot: Snapshot, has_session: bool) -> list[Sequence[str]]:
    """The cells of each path, where there are several, or a session has none that is up."""
    paths = _parts(snapshot, "paths")
    is_down = any(path.get("state") == "down" for path in paths)
    if len(paths) < 2 and not (has_session and is_down):
        return []
    servers = {_text(path.get("server")) for path in paths}
    return [_path(path, len(servers) > 1) for path in paths]


def _path(path: Snapshot, names_server: bool) -> Sequence[str]:
    """The cells of one path."""
    return (
        _text(path.get("path")),
        _text(path.get("server")) if names_server else "-",
        _text(path.get("state")),
        f"{_text(path.get('subflows'))} of {_text(path.get('wanted'))}",
        _last_error(path),
    )


def _session(session: Snapshot) -> Iterator[str]:
    """One session: a line for itself, a table of its subflows."""
    streams = _part(session, "streams")
    who = [session.get(name) for name in ("id", "role", "key", "name")]
    subflows = _parts(session, "subflows")
    age = session.get("age")
    state = f"up  {duration(age)}"
    if session.get("subflows") == []:
        # How long it has been down is not known; its age beside the word would pass for that.
        state = "down" if _number(age) is None else f"down, opened {duration(age)} ago"
    counts = ", ".join(
        f"{_text(streams[name])} {name}"
        for name in ("open", "opened", "refused", "reset")
        if name in streams
    )
    yield (
        f"  session {' '.join(dict.fromkeys(_text(one) for one in who if one))}"
        f"  {state}  {_count(len(subflows), 'subflow')}  streams: {counts or '-'}"
    )
    if subflows:
        yield from _table([_HEAD, *map(_subflow, subflows)])


def _server(server: Snapshot) -> Sequence[str]:
    """The cells of one server, as an agent sees it."""
    return (
        _text(server.get("address")),
        _text(server.get("state")),
        _up(server),
        *_work(server),
        _last_error(server),
    )


def _up(peer: Snapshot) -> str:
    """For how long there has been a session with a peer, if it has a connection."""
    return "-" if peer.get("subflows") == 0 else duration(peer.get("age"))


def _work(peer: Snapshot) -> Sequence[str]:
    """The cells of what there is between two peers."""
    return (
        milliseconds(peer.get("rtt")),
        _text(peer.get("active")),
        amount(peer.get("sent")),
        amount(peer.get("received")),
    )


def _last_error(peer: Snapshot) -> str:
    return printable(str(peer.get("last_error") or " "), 200)


def _agent(agent: Snapshot) -> Sequence[str]:
    """The cells of one agent."""
    labels = [f"{key}={value}" for key, value in _part(agent, "labels").items()]
    return (
        _text(agent.get("name")),
        _text(agent.get("state")),
        _up(agent),
        _text(agent.get("key")),
        *_work(agent),
        _text(agent.get("capacity") or None),
        _text(agent.get("weight")),
        printable(" ".join(labels), 200) or "-",
        _last_error(agent),
    )


def _subflow(subflow: Snapshot) -> Sequence[str]:
    """The cells of one subflow."""
    tx, rx = _part(subflow, "tx"), _part(subflow, "rx")
    dummy = [one.get(name) for one in (tx, rx) for name in ("copy", "pad", "overhead")]
    return (
        _text(subflow.get("id")),
        _text(subflow.get("path")),
        _text(subflow.get("state")),
        milliseconds(subflow.get("rtt")),
        amount(tx.get("first")),
        amount(rx.get("first")),
        amount(sum(_number(one) or 0 for one in dummy)),
        amount(subflow.get("in_flight")),
        _text(subflow.get("last_error") or " "),
    )


def _table(rows: Sequence[Sequence[str]], indent: str = "    ") -> Iterator[str]:
    """The rows with their columns under each other; a column of dashes is left out."""
    columns = [column for column in zip(*rows, strict=True) if set(column[1:]) != {"-"}]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield indent + "  ".join(cells).rstrip()


def amount(value: object) -> str:
    """A number of bytes."""
    number = _number(value)
    if number is None:
        return "-"
    unit = 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number /= 1000
        unit += 1
    return f"{number:.3g} {_UNITS[unit]}"


def mebibytes(value: object) -> str:
    """A number of bytes, in the unit that C{--max-memory} is given in."""
    number = _number(value)
    return "-" if number is None else f"{number / MIB:.0f} MiB"


def milliseconds(value: object) -> str:
    """A time of seconds, in milliseconds."""
    number = _number(value)
    return "-" if number is None else f"{number * 1000:.1f} ms"


def duration(value: object) -> str:
    """A time of seconds, in the two units that matter."""
    number = _number(value)
    if number is None:
        return "-"
    minutes, seconds = divmod(int(number), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None  # type: ignore[return-value]


def _text(value: object) -> str:
    return "-" if value is None else printable(str(value), 60)


def _part(parent: Snapshot, name: str) -> Snapshot:
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def _parts(parent: Snapshot, name: str) -> list[Snapshot]:
    value = parent.get(name)
    found: Iterable[object] = value if isinstance(value, list) else ()
    return [one for one in found if isinstance(one, Mapping)]
