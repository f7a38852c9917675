"""The file that holds keys: TOML, read strictly and written in one way."""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from stripetwist.core.agents import SERVER, is_agent_name
from stripetwist.core.errors import printable
from stripetwist.core.link import decode32, encode32, is_key_id
from stripetwist.core.spelling import nearest
from stripetwist.core.target import Target

ROLES = ("client", "agent")
ANY = ("*",)
MAX_SHOWN = 32

_POSITION = re.compile(r"\(at [^()]*\)\Z")
_ID_RULE = "a key's name is 1 to 32 of the characters a-z, 0-9 and -"
_HEAD = """\
# The keys that let clients and agents in; as secret as passwords.
# "stripetwist key add NAME", "key revoke NAME" and "key list" work on this file;
# they keep every field, but no comment: use "note" for those.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """
    A shared secret and what it is good for.

    @ivar id: how the peer names it; no secret.
    @ivar secret: 32 bytes; never shown.
    @ivar role: C{client} or C{agent}.
    @ivar names: the names an agent may take, or L{ANY}.
    @ivar exits: the exits a client may ask for, or L{ANY}; C{None} for what goes without
        saying: all of them, but the server alone where C{allow} narrows what may be reached.
    @ivar allow: what of the server's policy remains for it; C{None} for all of it.
    @ivar udp_bind: the far ends that its UDP forwards may bind.
    @ivar expires: from when on it is good for nothing.
    @ivar note: whose it is.
    """

    id: str
    secret: bytes = field(repr=False)
    role: str
    names: tuple[str, ...] = ANY
    exits: tuple[str, ...] | None = None
    allow: tuple[str, ...] | None = None
    udp_bind: tuple[str, ...] = ()
    expires: datetime | None = None
    note: str = ""

    def is_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires

    def allows_name(self, name: str) -> bool:
        """Whether an agent with this key may be called that."""
        return "*" in self.names or name in self.names

    def allows_bind(self, place: Target) -> bool:
        """Whether a UDP forward with this key may be bound there."""
        return str(place) in map(str.lower, self.udp_bind)

    def allows_exit(self, name: str) -> bool:
        """Whether a client with this key may ask for that exit."""
        if self.exits is None:
            return self.allow is None or name == SERVER
        return "*" in self.exits or name in self.exits


def key_complaint(key: Key) -> str:
    """Why a key could not be written and read back, or nothing."""
    if not is_key_id(key.id):
        return _ID_RULE
    if key.role == "agent":
        for name in key.names:
            if name != "*" and not is_agent_name(name):
                return f'no agent can be called "{printable(name, 40)}"; choose another name'
    lists = (key.names, key.exits, key.allow, key.udp_bind)
    texts = [text for some in lists for text in some or ()] + [key.note]
    if not all(text.isprintable() for text in texts):
        return "a key's fields are single lines of printable text"
    if key.expires is not None and key.expires.tzinfo is None:
        return "a key's expiry needs a time zone"
    try:
        same = parse_keys(dump_keys([key])) == {key.id: key}
    except ValueError as error:
        return str(error)
    return "" if same else "a field of the key has a wrong type"


def read_keys(data: bytes) -> dict[str, Key]:
    """
    The keys in a file's content.

    @raise ValueError: in words that say where the file is wrong and show nothing of it.
    """
    try:
        return parse_keys(data.decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        # Only the position: the rest of the message may show what stands there.
        position = _POSITION.search(str(error))
        problem = f"it is no TOML {position.group() if position else ''}".rstrip()
    except (UnicodeDecodeError, RecursionError):
        problem = "it is no TOML"
    raise ValueError(problem)


def parse_keys(text: str) -> dict[str, Key]:
    """
    The keys that a file's text stands for.

    @raise ValueError: with words that show no value.
    """
    tables = tomllib.loads(text)
    unknown = [name for name in tables if name != "keys"]
    if unknown:
        raise ValueError(f"{_shown(unknown[0])} is unknown here, keys are [keys.NAME]")
    keys = tables.get("keys", {})
    if not isinstance(keys, dict):
        raise ValueError("keys is no table, keys are [keys.NAME]")
    return {key_id: _parse_key(key_id, table) for key_id, table in keys.items()}


def _parse_key(key_id: str, table: object) -> Key:
    """One key's table."""
    where = f"keys.{_shown(key_id)}"
    if not is_key_id(key_id):
        raise ValueError(f"{where}: {_ID_RULE}")
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table, keys are [keys.NAME]")
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _FIELDS:
            near = nearest(name, _FIELDS)
            hint = f", did you mean {near}?" if near else ""
            raise ValueError(f"{where}.{_shown(name)} is unknown{hint}")
        expected, read = _FIELDS[name]
        values[name] = read(value)
        if values[name] is None:
            raise ValueError(f"{where}.{name} must be {expected}")
    for name in ("secret", "role"):
        if name not in values:
            raise ValueError(f"{where}.{name} is missing")
    return Key(id=key_id, **values)


def _shown(name: str) -> str:
    """A name from the file; not one that is as long as a secret in the wrong place."""
    return printable(name) if len(name) <= MAX_SHOWN else "(a long name)"


def _read_secret(value: object) -> bytes | None:
    return decode32(value) if isinstance(value, str) else None


def _read_role(value: object) -> str | None:
    return value if isinstance(value, str) and value in ROLES else None


def _read_texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return None
    return tuple(value)


def _read_note(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_time(value: object) -> datetime | None:
    """A moment, UTC unless it says otherwise; a date is its first moment."""
    if isinstance(value, str):
        return parse_expiry(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


def parse_expiry(text: str) -> datetime | None:
    """What C{--expires} says: a date or a moment in ISO form; C{None} if it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_Reader = Callable[[object], Any]
_LIST = "a list of texts"
_FIELDS: Mapping[str, tuple[str, _Reader]] = {
    "secret": ("32 bytes in base64url, 43 characters", _read_secret),
    "role": ('"client" or "agent"', _read_role),
    "names": (_LIST, _read_texts),
    "exits": (_LIST, _read_texts),
    "allow": (_LIST, _read_texts),
    "udp_bind": (_LIST, _read_texts),
    "expires": ("a date or a time", _read_time),
    "note": ("a text", _read_note),
}


def nearest_key(name: str, known: Iterable[str]) -> str:
    """
    The key that was meant by a name that none has, or nothing.

    It differs by case or by one character only.  Another number is another key.
    """
    folded = name.lower()
    near = (one for one in known if _digits(one) == _digits(name) and _is_slip(folded, one))
    return next(near, "")


def _digits(name: str) -> list[str]:
    return [character for character in name if character.isdigit()]


def _is_slip(one: str, other: str) -> bool:
    """Whether two texts differ by one character at most."""
    short, long = sorted((one, other), key=len)
    same = len(os.path.commonprefix([short, long]))
    return long[same + 1 :] == short[same + (len(short) == len(long)) :]


def dump_keys(keys: Iterable[Key]) -> str:
    """The text of a file that holds these keys."""
    tables = ["\n".join(_dump_key(key)) for key in sorted(keys, key=lambda key: key.id)]
    return "\n\n".join([_HEAD.rstrip(), *tables]) + "\n"


def _dump_key(key: Key) -> Iterator[str]:
    """The lines of one key's table, without the fields that say what goes without saying."""
    yield f"[keys.{key.id}]"
    yield f"secret = {_quote(encode32(key.secret))}"
    yield f"role = {_quote(key.role)}"
    if key.names != ANY:
        yield f"names = {_quote_all(key.names)}"
    if key.exits is not None:
        yield f"exits = {_quote_all(key.exits)}"
    if key.allow is not None:
        yield f"allow = {_quote_all(key.allow)}"
    if key.udp_bind:
        yield f"udp_bind = {_quote_all(key.udp_bind)}"
    if key.expires is not None:
        yield f"expires = {key.expires.isoformat()}"
    if key.note:
        yield f"note = {_quote(key.note)}"


def _quote(text: str) -> str:
    """A TOML basic string."""
    pieces = []
    for character in text:
        if character in '"\\':
            pieces.append("\\" + character)
        elif character < " " or character == "\x7f":
            pieces.append(f"\\u{ord(character):04x}")
        else:
            pieces.append(character)
    return '"' + "".join(pieces) + '"'


def _quote_all(texts: Iterable[str]) -> str:
    """A TOML list of basic strings."""
    return "[" + ", ".join(_quote(text) for text in texts) + "]"
