"""How a connection proves that it belongs to a session, at the dialing and accepting side."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stripetwist.core import hello as wire
from stripetwist.core.agents import INSTANCE_SIZE, Agent, parse_agent
from stripetwist.core.config import Limits, PeerLimits
from stripetwist.core.errors import Code, printable
from stripetwist.core.hello import Message, Reader, Rejected, Role
from stripetwist.core.path import PLAIN, PathInfo, parse_path
from stripetwist.core.proof import Keys, same

EXPORTER_LABEL = b"EXPORTER-stripetwist-v1"

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Established:
    """
    A connection that has proved itself.

    @ivar is_new: whether a session starts with it.
    @ivar session_id: 16 bytes, chosen by the acceptor.
    @ivar session_secret: 32 bytes that prove later joins.
    @ivar key_id: the key the session was opened with.
    @ivar role: what the dialer says it is.
    @ivar subflow_id: chosen by the dialer.
    @ivar replaces: a subflow that the dialer knows is gone; 0 for none.
    @ivar peer: what the other side's hello allows.
    @ivar agent: what a dialing agent says of itself, at the acceptor of a new session.
    @ivar path: the path that the connection takes.
    """

    is_new: bool
    session_id: bytes
    session_secret: bytes
    key_id: str
    role: Role
    subflow_id: int
    replaces: int
    peer: PeerLimits
    agent: Agent | None = None
    path: PathInfo = PLAIN

    def __repr__(self) -> str:
        return f"<Established {self.key_id} subflow {self.subflow_id}>"


@dataclass(frozen=True, slots=True)
class Membership:
    """
    A session that a connection can join: its id and its secret.
    """

    session_id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return "<Membership>"


@dataclass(frozen=True, slots=True)
class Intent:
    """
    What a dialer wants of one connection.

    @ivar key_id: with which key.
    @ivar key: its 32 bytes.
    @ivar subflow_id: the connection's number in its session.
    @ivar join: the session to join; C{None} for a new one.
    @ivar replaces: a subflow known to be gone, whose end the acceptor may not have seen.
    @ivar agent: what it says of itself, if it is an agent.
    @ivar path: the path that the connection takes.
    """

    key_id: str
    key: bytes = field(repr=False)
    subflow_id: int
    join: Membership | None = None
    replaces: int = 0
    role: Role = Role.CLIENT
    agent: Agent | None = None
    path: PathInfo = PLAIN


class DialerHandshake:
    """
    The dialing side of a hello: says who it is, checks the acceptor's proof, gives its own.

    Lives for one connection.  C{hello} goes out first; C{feed} takes what comes.
    """

    def __init__(
        self,
        intent: Intent,
        binding: bytes,
        limits: Limits,
        entropy: Entropy,
        plain: bool = False,
    ) -> None:
        self._intent = intent
        self._join = intent.join
        self._secret = intent.join.secret if intent.join else intent.key
        self._binding = binding
        self._flags = wire.CHECKSUMS | wire.NO_TLS if plain else 0
        self._reader = Reader()
        self.hello = self._pack_hello(limits, entropy)

    def _pack_hello(self, limits: Limits, entropy: Entropy) -> bytes:
        intent = self._intent
        fields = [
            (wire.MODE, bytes([wire.JOIN if self._join else wire.NEW])),
            (wire.NONCE, entropy(32)),
            (wire.SUBFLOW, intent.subflow_id.to_bytes(4, "big")),
            (wire.ROLE, bytes([intent.role])),
            (wire.KEY_ID, intent.key_id.encode("ascii")),
            (wire.LIMITS, wire.pack_limits(limits)),
        ]
        if self._join is not None:
            fields.append((wire.SESSION, self._join.session_id))
            if intent.replaces:
                fields.append((wire.REPLACES, intent.replaces.to_bytes(4, "big")))
        elif intent.agent is not None:
            fields.append((wire.INSTANCE, intent.agent.instance))
            fields.append((wire.AGENT, intent.agent.pack()))
        if intent.path != PLAIN:
            fields.append((wire.PATH, intent.path.pack()))
        return wire.pack(wire.HELLO, fields, self._flags)

    def feed(self, data: bytes) -> tuple[bytes, Established] | None:
        """
        Take the acceptor's answer.

        @return: once it is whole, the CONFIRM to send and what was established.
        @raise Rejected: it says no, or its proof is wrong.
        """
        self._reader.feed(data)
        answer = self._reader.take(wire.HELLO_ACK, wire.REJECT)
        if answer is None:
            return None
        if answer.kind == wire.REJECT:
            raise _as_rejection(answer)
        if self._reader.rest:
            raise Rejected(Code.PROTOCOL, "it talks before it knows us")
        return self._confirm(answer)

    def _confirm(self, answer: Message) -> tuple[bytes, Established]:
        own = Reader()
        own.feed(self.hello)
        hello = own.take(wire.HELLO)
        assert hello is not None
        nonces = hello.need(wire.NONCE, 32), answer.need(wire.NONCE, 32)
        keys = Keys(self._secret, self._binding, *nonces)
        transcript = hashlib.sha256(self.hello + answer.unsealed).digest()
        mac_a = answer.need(wire.MAC, 32)
        if not same(mac_a, keys.acceptor_mac(transcript)):
            raise Rejected(Code.AUTH, "it does not know our key")
        session_id = answer.need(wire.SESSION, 16)
        if self._join is not None and session_id != self._join.session_id:
            raise Rejected(Code.PROTOCOL, "it answers for another session")
        unsealed = wire.pack(wire.CONFIRM, [], self._flags, spare=wire.MAC_SIZE)
        confirm = wire.with_mac(unsealed, keys.dialer_mac(transcript, mac_a, unsealed))
        secret = self._join.secret if self._join else keys.session_secret(session_id)
        return confirm, Established(
            self._join is None,
            session_id,
            secret,
            self._intent.key_id,
            self._intent.role,
            self._intent.subflow_id,
            self._intent.replaces,
            wire.parse_limits(answer.fields.get(wire.LIMITS, b"")),
            path=self._intent.path,
        )


def late_reject(data: bytes) -> tuple[Rejected | None, bool]:
    """
    A REJECT that comes where frames were expected, in answer to CONFIRM.

    No frame type looks like the magic's first byte, so the two cannot be confused.

    @return: the rejection, if C{data} is one; else whether it may yet become one.
    """
    reader = Reader()
    reader.feed(data)
    try:
        answer = reader.take(wire.REJECT)
    except Rejected:
        return None, False
    return (None, True) if answer is None else (_as_rejection(answer), False)


def _as_rejection(answer: Message) -> Rejected:
    error = answer.fields.get(wire.ERROR, b"")
    code = Code.of(int.from_bytes(error[:2], "big"))
    return Rejected(code, printable(error[2:].decode("latin-1")) or code.name.lower())


class Doorkeeper(Protocol):
    """
    What an acceptor knows of keys and sessions, asked by each hello.

    @ivar instance: 16 bytes, new at each start of the process.
    """

    instance: bytes

    def key(self, key_id: str) -> bytes:
        """The key of that id; of an unknown one, something that nobody can know."""

    def role_is_allowed(self, key_id: str, role: Role) -> bool:
        """Whether the key is known, valid now, and for that role."""

    def session(self, session_id: bytes, key_id: str) -> Membership | None:
        """The session of that id, if that key opened it."""


class AcceptorHandshake:
    """
    The accepting side of a hello: answers every key alike, then waits for the proof.

    Lives for one connection and allocates nothing beyond a message until CONFIRM is good.

    @ivar key_id: whom the dialer says it is, for the log; unproved.
    """

    def __init__(
        self,
        door: Doorkeeper,
        binding: bytes,
        limits: Limits,
        entropy: Entropy,
        plain: bool = False,
    ) -> None:
        self._door = door
        self._binding = binding
        self._limits = limits
        self._entropy = entropy
        self._flags = wire.CHECKSUMS | wire.NO_TLS if plain else 0
        self._reader = Reader()
        self._hello: Message | None = None
        self._mac_a = b""
        self._transcript = b""
        self._keys: Keys | None = None
        self._membership: Membership | None = None
        self.key_id = ""

    @property
    def offered(self) -> Membership | None:
        """The session that the answer named: one to be, until CONFIRM is good, or one to join."""
        return self._membership if self._hello is not None else None

    @property
    def rest(self) -> bytes:
        """The first frames, that came with CONFIRM."""
        return self._reader.rest

    def feed(self, data: bytes) -> tuple[bytes, Established | None]:
        """
        Take what the dialer sends.

        @return: what to answer, and what was established once it has.
        @raise Rejected: it is no hello, or its proof is wrong.
        """
        self._reader.feed(data)
        if self._hello is None:
            hello = self._reader.take(wire.HELLO)
            if hello is None:
                return b"", None
            if self._reader.rest:
                raise Rejected(Code.PROTOCOL, "it talks before it knows us")
            return self._answer(hello), None
        confirm = self._reader.take(wire.CONFIRM)
        return b"", (None if confirm is None else self._verify(self._hello, confirm))

    def refusal(self, code: Code, text: str) -> bytes:
        """What to send to a dialer that proved itself but cannot be let in."""
        return wire.pack_reject(code, text, self._flags)

    def _answer(self, hello: Message) -> bytes:
        if hello.flags != self._flags:
            raise Rejected(Code.PROTOCOL, "it takes this port for one with (or without) TLS")
        raw_id = hello.fields.get(wire.KEY_ID, b"")
        self.key_id = printable(raw_id.decode("latin-1"), 40)
        hello.need(wire.SUBFLOW, 4)
        session_id, secret = self._session_of(hello)
        nonce = self._entropy(32)
        fields = [
            (wire.NONCE, nonce),
            (wire.SESSION, session_id),
            (wire.INSTANCE, self._door.instance),
            (wire.LIMITS, wire.pack_limits(self._limits)),
        ]
        unsealed = wire.pack(wire.HELLO_ACK, fields, self._flags, spare=wire.MAC_SIZE)
        self._keys = Keys(secret, self._binding, hello.need(wire.NONCE, 32), nonce)
        self._transcript = hashlib.sha256(hello.raw + unsealed).digest()
        self._mac_a = self._keys.acceptor_mac(self._transcript)
        self._hello = hello
        if self._membership is None:
            self._membership = Membership(session_id, self._keys.session_secret(session_id))
        return wire.with_mac(unsealed, self._mac_a)

    def _session_of(self, hello: Message) -> tuple[bytes, bytes]:
        """The id of the session that is to be opened or joined, and what proves the right to."""
        mode = hello.need(wire.MODE, 1)[0]
        if mode == wire.NEW:
            return self._entropy(16), self._door.key(self.key_id)
        if mode != wire.JOIN:
            raise Rejected(Code.PROTOCOL, f"a hello of mode {mode}")
        self._membership = self._door.session(hello.need(wire.SESSION, 16), self.key_id)
        if self._membership is None:
            raise self._rejection(Code.UNKNOWN_SESSION, "that session is not known here")
        return self._membership.session_id, self._membership.secret

    def _verify(self, hello: Message, confirm: Message) -> Established:
        assert self._keys is not None and self._membership is not None
        expected = self._keys.dialer_mac(self._transcript, self._mac_a, confirm.unsealed)
        proved = same(confirm.fields.get(wire.MAC, b""), expected)
        role = hello.fields.get(wire.ROLE, b"")
        if not proved or len(role) != 1 or role[0] not in (Role.CLIENT, Role.AGENT):
            raise self._rejection(Code.AUTH, "not accepted")
        if not self._door.role_is_allowed(self.key_id, Role(role[0])):
            # The words to the peer are the same; whoever reads the log has to know.
            why = f"its key is not one for {Role(role[0]).name.lower()}s"
            raise Rejected(Code.AUTH, why, self.refusal(Code.AUTH, "not accepted"))
        replaces = hello.need(wire.REPLACES, 4) if wire.REPLACES in hello.fields else b""
        is_new = hello.need(wire.MODE, 1)[0] == wire.NEW
        return Established(
            is_new,
            self._membership.session_id,
            self._membership.secret,
            self.key_id,
            Role(role[0]),
            int.from_bytes(hello.need(wire.SUBFLOW, 4), "big"),
            int.from_bytes(replaces, "big"),
            wire.parse_limits(hello.fields.get(wire.LIMITS, b"")),
            self._agent_of(hello) if is_new and role[0] == Role.AGENT else None,
            self._path_of(hello),
        )

    def _agent_of(self, hello: Message) -> Agent:
        """What an agent says of itself."""
        try:
            instance = hello.need(wire.INSTANCE, INSTANCE_SIZE)
            return parse_agent(hello.fields.get(wire.AGENT, b""), instance)
        except Rejected as error:
            raise self._rejection(error.code, error.reason) from None

    def _path_of(self, hello: Message) -> PathInfo:
        """What a dialer says of the connection's path."""
        try:
            return parse_path(hello.fields[wire.PATH]) if wire.PATH in hello.fields else PLAIN
        except Rejected as error:
            raise self._rejection(error.code, error.reason) from None

    def _rejection(self, code: Code, text: str) -> Rejected:
        return Rejected(code, text, self.refusal(code, text))
