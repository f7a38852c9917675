"""L{stripetwist.core.handshake}: who may open and join sessions, and who may not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core import hello
from stripetwist.core.agents import Agent
from stripetwist.core.config import MIB, Limits
from stripetwist.core.errors import Code
from stripetwist.core.handshake import (
    AcceptorHandshake,
    DialerHandshake,
    Established,
    Intent,
    Membership,
    late_reject,
)
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.path import PLAIN, PathInfo
from stripetwist.core.way import PathRole

SECRET = b"marked-secret-marked-secret-mark"
BINDING, OTHER_BINDING = b"\x55" * 32, b"\x66" * 32
SESSION = bytes(range(0xB0, 0xC0))
# So little that it says nothing of long frames.
LIMITS = Limits(max_memory=32 * MIB)

HELLO = (
    "535457500101010000000053" "8001000101"
    "80020020d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"
    "8004000400000001" "8005000101" "800600066c6170746f70"
    "0008000f01000020000300004000060000003c"
)  # fmt: skip
HELLO_ACK = (
    "535457500101020000000083"
    "80020020a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
    "80030010b0b1b2b3b4b5b6b7b8b9babbbcbdbebf" "00090010c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
    "0008000f01000020000300004000060000003c"
)  # fmt: skip
CONFIRM = "535457500101030000000024"
JOIN_HELLO = (
    "53545750010101000000006f" "8001000102"
    "80020020d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"
    "8004000400000007" "8005000101" "800600066c6170746f70"
    "0008000f01000020000300004000060000003c"
    "80030010b0b1b2b3b4b5b6b7b8b9babbbcbdbebf" "000b000400000003"
)  # fmt: skip
PROOFS = [
    "23c55f9dbf29d6afc796f7dda8762d7649feb9b25bfe8724f14cf5cfccc4a337",
    "de88807144af00b4042b77f6e3e8fecae42f5d6fd638a7d00d2604de1dac3e65",
    "5b742cef68a4e92c1897645a1e958b5ecc24dfc56c86249a4ea59eab033de1b9",
]
REJECT = "535457500101040000000012000d000e001e6e6f74206163636570746564"


class Door:
    """What an acceptor knows: one key, of one role, and the sessions that it opened."""

    instance = bytes(range(0xC0, 0xD0))

    def __init__(self) -> None:
        self.known = {"laptop": SECRET}
        self.role = Role.CLIENT
        self.sessions: dict[tuple[bytes, str], Membership] = {}

    def key(self, key_id: str) -> bytes:
        """See L{Doorkeeper}."""
        return self.known.get(key_id, b"nobody-knows-" + key_id.encode("ascii"))

    def role_is_allowed(self, key_id: str, role: Role) -> bool:
        """See L{Doorkeeper}."""
        return key_id in self.known and role is self.role

    def session(self, session_id: bytes, key_id: str) -> Membership | None:
        """See L{Doorkeeper}."""
        return self.sessions.get((session_id, key_id))


def fixed(*values: bytes) -> Callable[[int], bytes]:
    """Chance that was decided before."""
    left: Iterator[bytes] = iter(values)

    def entropy(size: int) -> bytes:
        value = next(left)
        assert len(value) == size
        return value

    return entropy


class HandshakeTestCase(SynchronousTestCase):
    """A dialer and an acceptor."""

    def setUp(self) -> None:
        self.door = Door()

    def dialer(
        self,
        key_id: str = "laptop",
        key: bytes = SECRET,
        join: Membership | None = None,
        role: Role = Role.CLIENT,
        binding: bytes = BINDING,
        plain: bool = False,
        agent: Agent | None = None,
    ) -> DialerHandshake:
        """One that dials."""
        intent = Intent(key_id, key, 7 if join else 1, join, 3 if join else 0, role, agent)
        return DialerHandshake(intent, binding, LIMITS, fixed(b"\xd1" * 32), plain)

    def acceptor(
        self, join: bool = False, binding: bytes = BINDING, plain: bool = False
    ) -> AcceptorHandshake:
        """One that accepts."""
        nonce = b"\xa1" * 32
        chance = fixed(nonce) if join else fixed(SESSION, nonce)
        return AcceptorHandshake(self.door, binding, LIMITS, chance, plain)

    def shake(
        self, dialer: DialerHandshake, acceptor: AcceptorHandshake
    ) -> tuple[Established, Established]:
        """Let them do it; what each has then."""
        answer, nothing = acceptor.feed(dialer.hello)
        self.assertIsNone(nothing)
        result = dialer.feed(answer)
        assert result is not None
        confirm, theirs = result
        silence, ours = acceptor.feed(confirm)
        assert ours is not None
        self.assertEqual(silence, b"")
        return theirs, ours

    def opened(self) -> Membership:
        """A session that the acceptor has."""
        established, _ = self.shake(self.dialer(), self.acceptor())
        member = Membership(established.session_id, established.session_secret)
        self.door.sessions[member.session_id, "laptop"] = member
        return member

    def rejected(self, code: Code, call: Callable[..., object], *args: object) -> Rejected:
        """The call is rejected, with that code."""
        error: Rejected = self.assertRaises(Rejected, call, *args)
        self.assertIs(error.code, code)
        return error


class GoldenTests(HandshakeTestCase):
    """The bytes, once and for all."""

    def test_new(self) -> None:
        """Opening a session."""
        dialer, acceptor = self.dialer(), self.acceptor()
        self.assertEqual(dialer.hello.hex(), HELLO)
        answer, _ = acceptor.feed(dialer.hello)
        self.assertEqual(answer.hex()[:-72], HELLO_ACK)
        result = dialer.feed(answer)
        assert result is not None
        self.assertEqual(result[0].hex()[:-72], CONFIRM)
        macs = answer[-32:], result[0][-32:], result[1].session_secret
        self.assertEqual(macs, self.by_hand(SECRET, BINDING, HELLO))
        self.assertEqual([mac.hex() for mac in macs], PROOFS)

    def test_join(self) -> None:
        """Joining it over another connection."""
        member = self.opened()
        dialer = self.dialer(join=member, binding=OTHER_BINDING)
        acceptor = self.acceptor(join=True, binding=OTHER_BINDING)
        self.assertEqual(dialer.hello.hex(), JOIN_HELLO)
        answer, _ = acceptor.feed(dialer.hello)
        self.assertEqual(answer.hex()[:-72], HELLO_ACK)
        result = dialer.feed(answer)
        assert result is not None
        macs = self.by_hand(member.secret, OTHER_BINDING, JOIN_HELLO)
        self.assertEqual((answer[-32:], result[0][-32:]), macs[:2])

    def by_hand(self, secret: bytes, binding: bytes, first: str) -> tuple[bytes, bytes, bytes]:
        """The two proofs and the session's secret, computed by somebody else's arithmetic."""

        def mac(key: bytes, data: bytes) -> bytes:
            one = HMAC(key, SHA256())
            one.update(data)
            return one.finalize()

        def expand(info: bytes) -> bytes:
            return HKDFExpand(SHA256(), 32, info).derive(prk)

        prk = mac(b"\xd1" * 32 + b"\xa1" * 32, secret + binding)
        transcript = Hash(SHA256())
        transcript.update(bytes.fromhex(first) + bytes.fromhex(HELLO_ACK))
        digest = transcript.finalize()
        mac_a = mac(expand(b"stw1 a"), digest)
        mac_d = mac(expand(b"stw1 d"), digest + mac_a + bytes.fromhex(CONFIRM))
        return mac_a, mac_d, expand(b"stw1 session" + SESSION)

    def test_plain(self) -> None:
        """Without TLS every message says so, and that checksums follow."""
        dialer = self.dialer(binding=bytes(32), plain=True)
        acceptor = self.acceptor(binding=bytes(32), plain=True)
        answer, _ = acceptor.feed(dialer.hello)
        result = dialer.feed(answer)
        assert result is not None
        flags = hello.CHECKSUMS | hello.NO_TLS
        self.assertEqual({one[7] for one in (dialer.hello, answer, result[0])}, {flags})
        self.assertEqual(acceptor.refusal(Code.BUSY, "full")[7], flags)

    def test_reject(self) -> None:
        """The answer to everybody who proves nothing."""
        acceptor = self.acceptor()
        acceptor.feed(self.dialer().hello)
        confirm = bytes.fromhex(CONFIRM + "80fe0020") + bytes(32)
        self.assertEqual(self.rejected(Code.AUTH, acceptor.feed, confirm).reply.hex(), REJECT)


class PathTests(HandshakeTestCase):
    """Each connection's path is told."""

    info = PathInfo(2, PathRole.BACKUP, 2_500_000, "tcp://relay")

    def dial(self, join: Membership | None = None, path: PathInfo = info) -> DialerHandshake:
        """One that dials over it."""
        intent = Intent("laptop", SECRET, 7 if join else 1, join, path=path)
        return DialerHandshake(intent, BINDING, LIMITS, fixed(b"\xd1" * 32))

    def test_golden(self) -> None:
        """The last field; there is none where nothing is to be said."""
        whole = HELLO.replace("0101010000000053", "010101000000006d")
        told = "000a0016" + self.info.pack().hex()
        self.assertEqual(self.dial().hello.hex(), whole + told)
        self.assertEqual(self.dial(path=PLAIN).hello.hex(), HELLO)

    def test_new_and_join(self) -> None:
        """The acceptor knows it of each."""
        theirs, ours = self.shake(self.dial(), self.acceptor())
        self.assertEqual((theirs.path, ours.path), (self.info, self.info))
        member = Membership(theirs.session_id, theirs.session_secret)
        self.door.sessions[member.session_id, "laptop"] = member
        _, ours = self.shake(self.dial(member), self.acceptor(join=True))
        self.assertEqual(ours.path, self.info)

    def test_nonsense(self) -> None:
        """It is told so, after its proof."""
        dialer, acceptor = self.dial(path=replace(self.info, rate=999)), self.acceptor()
        answer, _ = acceptor.feed(dialer.hello)
        result = dialer.feed(answer)
        assert result is not None
        error = self.rejected(Code.PROTOCOL, acceptor.feed, result[0])
        self.assertIn(b"too low a rate", error.reply)


class AgentTests(HandshakeTestCase):
    """An agent says what it is when it opens a session."""

    agent = Agent("attic", {"site": "home"}, 100, 3, bytes(range(0xE0, 0xF0)))

    def setUp(self) -> None:
        """The key is an agent's."""
        super().setUp()
        self.door.role = Role.AGENT

    def dial(self, agent: Agent | None = agent, **more: Any) -> DialerHandshake:
        """One that dials as an agent."""
        return self.dialer(role=Role.AGENT, agent=agent, **more)

    def test_golden(self) -> None:
        """The fields behind those of a client."""
        told = "00090010e0e1e2e3e4e5e6e7e8e9eaebecedeeef000c001a" + self.agent.pack().hex()
        whole = HELLO.replace("8005000101", "8005000102") + told
        whole = whole.replace("0101010000000053", "0101010000000085")
        self.assertEqual(self.dial().hello.hex(), whole)

    def test_new(self) -> None:
        """The acceptor knows it then."""
        _, ours = self.shake(self.dial(), self.acceptor())
        self.assertEqual((ours.role, ours.agent), (Role.AGENT, self.agent))

    def test_join(self) -> None:
        """It is said once; whoever joins says nothing more."""
        established, _ = self.shake(self.dial(), self.acceptor())
        member = Membership(established.session_id, established.session_secret)
        self.door.sessions[member.session_id, "laptop"] = member
        dialer = self.dial(join=member)
        self.assertNotIn(self.agent.instance, dialer.hello)
        _, ours = self.shake(dialer, self.acceptor(join=True))
        self.assertEqual((ours.role, ours.agent), (Role.AGENT, None))

    def test_nothing_said(self) -> None:
        """An agent without a name, or with nonsense for one, is told so after its proof."""
        broken = replace(self.agent, name="any")
        for agent, words in ((None, "0x0009"), (broken, "name")):
            dialer, acceptor = self.dial(agent), self.acceptor()
            result = dialer.feed(acceptor.feed(dialer.hello)[0])
            assert result is not None
            error = self.rejected(Code.PROTOCOL, acceptor.feed, result[0])
            self.assertIn(words, error.reason)
            self.assertIn(words.encode("ascii"), error.reply)

    def test_of_a_client(self) -> None:
        """What a client says of itself as an agent is not listened to."""
        self.door.role = Role.CLIENT
        _, ours = self.shake(self.dialer(agent=self.agent), self.acceptor())
        self.assertIsNone(ours.agent)

    def test_wrong_role(self) -> None:
        """The log has the reason, the peer hears what everybody hears."""
        dialer, acceptor = self.dialer(), self.acceptor()
        result = dialer.feed(acceptor.feed(dialer.hello)[0])
        assert result is not None
        error = self.rejected(Code.AUTH, acceptor.feed, result[0])
        self.assertEqual(error.reason, "its key is not one for clients")
        self.assertEqual(error.reply.hex(), REJECT)


class EstablishedTests(HandshakeTestCase):
    """Those who know what they have to."""

    def test_new(self) -> None:
        """Both ends have the same session, and know each other's limits."""
        theirs, ours = self.shake(self.dialer(), self.acceptor())
        self.assertEqual(theirs, ours)
        self.assertTrue(ours.is_new)
        self.assertEqual((ours.session_id, len(ours.session_secret)), (SESSION, 32))
        self.assertEqual((ours.key_id, ours.role), ("laptop", Role.CLIENT))
        self.assertEqual((ours.subflow_id, ours.replaces), (1, 0))
        self.assertEqual(ours.peer.max_streams, LIMITS.max_streams)

    def test_join(self) -> None:
        """A later connection joins it, and may say which one it replaces."""
        member = self.opened()
        theirs, ours = self.shake(self.dialer(join=member), self.acceptor(join=True))
        self.assertEqual(theirs, ours)
        self.assertFalse(ours.is_new)
        self.assertEqual((ours.session_id, ours.session_secret), (SESSION, member.secret))
        self.assertEqual((ours.subflow_id, ours.replaces), (7, 3))

    def test_byte_by_byte(self) -> None:
        """However the messages are cut; what follows CONFIRM is kept for the session."""
        dialer, acceptor = self.dialer(), self.acceptor()
        answer = b"".join(acceptor.feed(bytes([one]))[0] for one in dialer.hello)
        results = [dialer.feed(bytes([one])) for one in answer]
        self.assertEqual(results[:-1], [None] * (len(answer) - 1))
        last = results[-1]
        assert last is not None
        outcomes = [acceptor.feed(bytes([one]))[1] for one in last[0][:-1]]
        self.assertEqual(outcomes, [None] * (len(last[0]) - 1))
        _, established = acceptor.feed(last[0][-1:] + b"frames")
        self.assertIsNotNone(established)
        self.assertEqual(acceptor.rest, b"frames")


class RefusedTests(HandshakeTestCase):
    """Those who do not."""

    def test_every_byte_counts(self) -> None:
        """Whichever byte of whichever message is changed on the way, it comes to nothing."""
        for join in (False, True):
            self.setUp()
            member = self.opened() if join else None
            sizes = [len(one) for one in self.messages(member, None)]
            for number, size in enumerate(sizes):
                for at in range(size):
                    changed = number, at
                    self.assertRaises(Rejected, self.messages, member, changed)

    def messages(
        self, member: Membership | None, change: tuple[int, int] | None
    ) -> tuple[bytes, bytes, bytes]:
        """The three messages of a handshake; one byte of one is changed on the way."""

        def sent(number: int, data: bytes) -> bytes:
            if change is None or change[0] != number:
                return data
            at = change[1]
            return data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]

        dialer, acceptor = self.dialer(join=member), self.acceptor(member is not None)
        answer, _ = acceptor.feed(sent(0, dialer.hello))
        if not answer:
            raise Rejected(Code.PROTOCOL, "the length was changed: the rest never comes")
        result = dialer.feed(sent(1, answer))
        if result is None:
            raise Rejected(Code.PROTOCOL, "the length was changed: the rest never comes")
        _, established = acceptor.feed(sent(2, result[0]))
        if established is None:
            raise Rejected(Code.PROTOCOL, "the length was changed: the rest never comes")
        return dialer.hello, answer, result[0]

    def test_other_connection(self) -> None:
        """A proof is good for one TLS connection only: nobody in the middle (B18, T-X6-3)."""
        dialer, acceptor = self.dialer(), self.acceptor(binding=OTHER_BINDING)
        answer, _ = acceptor.feed(dialer.hello)
        self.rejected(Code.AUTH, dialer.feed, answer)

    def test_replayed_confirm(self) -> None:
        """What was recorded is worthless on the next connection (B17, T-X6-2)."""
        dialer, acceptor = self.dialer(), self.acceptor()
        answer, _ = acceptor.feed(dialer.hello)
        result = dialer.feed(answer)
        assert result is not None
        again = AcceptorHandshake(self.door, BINDING, LIMITS, fixed(SESSION, b"\xa2" * 32))
        again.feed(dialer.hello)
        self.rejected(Code.AUTH, again.feed, result[0])
        bound = self.acceptor(binding=OTHER_BINDING)
        bound.feed(dialer.hello)
        self.rejected(Code.AUTH, bound.feed, result[0])

    def test_unknown_key(self) -> None:
        """It is answered like a known one and fails like a wrong one (B14, B15, T-X1-4)."""
        outcomes = []
        for key_id in ("laptop", "nobody"):
            acceptor = self.acceptor()
            answer, _ = acceptor.feed(self.dialer(key_id).hello)
            confirm = bytes.fromhex(CONFIRM + "80fe0020") + bytes(32)
            error = self.rejected(Code.AUTH, acceptor.feed, confirm)
            outcomes.append((len(answer), answer[:12], error.reply, error.reason))
        self.assertEqual(outcomes[0], outcomes[1])

    def test_strange_key_ids(self) -> None:
        """Whatever stands for a key id is unknown, and safe to log (B14)."""
        for raw in (b"", b"x" * 33, b"\0", b"a\r\nb", b"../../x", b"\\", b"x" * 3000):
            acceptor = self.acceptor()
            fields = [
                (hello.MODE, b"\x01"),
                (hello.NONCE, bytes(32)),
                (hello.SUBFLOW, bytes(4)),
                (hello.ROLE, b"\x01"),
                (hello.KEY_ID, raw),
            ]
            answer, _ = acceptor.feed(hello.pack(hello.HELLO, fields, 0))
            self.assertEqual(answer.hex()[:24], HELLO_ACK[:24])
            self.assertTrue(acceptor.key_id.isprintable() and len(acceptor.key_id) <= 40)
            self.assertNotIn(acceptor.key_id, self.door.known)

    def test_wrong_server(self) -> None:
        """A server that does not know our key gets no proof of ours."""
        self.door.known["laptop"] = b"another"
        acceptor = self.acceptor()
        dialer = self.dialer()
        answer, _ = acceptor.feed(dialer.hello)
        self.rejected(Code.AUTH, dialer.feed, answer)

    def test_wrong_role(self) -> None:
        """A key is for one role; the refusal is the same as any other's (B26, T-X4-1)."""
        for role, key_role in ((Role.AGENT, Role.CLIENT), (Role.CLIENT, Role.AGENT)):
            self.door.role = key_role
            error = self.rejected(Code.AUTH, self.shake, self.dialer(role=role), self.acceptor())
            self.assertEqual(error.reply.hex(), REJECT)

    def test_no_role(self) -> None:
        """A role that is none is none of the key's."""
        dialer = self.dialer(role=3)  # type: ignore[arg-type]
        error = self.rejected(Code.AUTH, self.shake, dialer, self.acceptor())
        self.assertEqual(error.reply.hex(), REJECT)

    def test_revoked_meanwhile(self) -> None:
        """A key that ends between HELLO and CONFIRM, or before a JOIN, is refused."""
        member = self.opened()
        for join in (None, member):
            dialer, acceptor = self.dialer(join=join), self.acceptor(join is not None)
            answer, _ = acceptor.feed(dialer.hello)
            result = dialer.feed(answer)
            assert result is not None
            known, self.door.known = self.door.known, {}
            error = self.rejected(Code.AUTH, acceptor.feed, result[0])
            self.assertEqual(error.reply.hex(), REJECT)
            self.door.known = known

    def test_unknown_session(self) -> None:
        """A JOIN of a session that is not there is told so at once (B19, B21)."""
        acceptor = self.acceptor(join=True)
        dialer = self.dialer(join=Membership(bytes(16), bytes(32)))
        error = self.rejected(Code.UNKNOWN_SESSION, acceptor.feed, dialer.hello)
        told = self.rejected(Code.UNKNOWN_SESSION, dialer.feed, error.reply)
        self.assertIn("not known", told.reason)

    def test_session_of_another_key(self) -> None:
        """Another key's session does not exist for us (B20, T-X2-5)."""
        member = self.opened()
        self.door.known["desk"] = SECRET
        dialer = self.dialer("desk", join=member)
        self.rejected(Code.UNKNOWN_SESSION, self.acceptor(True).feed, dialer.hello)

    def test_join_without_the_secret(self) -> None:
        """Knowing a session's id is not being its member."""
        member = self.opened()
        dialer = self.dialer(join=Membership(member.session_id, SECRET))
        acceptor = self.acceptor(join=True)
        answer, _ = acceptor.feed(dialer.hello)
        self.rejected(Code.AUTH, dialer.feed, answer)

    def test_answer_for_another_session(self) -> None:
        """A dialer that joins wants its own session, not one that the acceptor prefers."""
        member = self.opened()
        other = Membership(bytes(16), member.secret)
        self.door.sessions[SESSION, "laptop"] = other
        dialer = self.dialer(join=member)
        answer, _ = self.acceptor(join=True).feed(dialer.hello)
        self.rejected(Code.PROTOCOL, dialer.feed, answer)

    def test_impatience(self) -> None:
        """Nobody may say more than is due (B22, B24)."""
        dialer, acceptor = self.dialer(), self.acceptor()
        self.rejected(Code.PROTOCOL, acceptor.feed, dialer.hello + b"x")
        acceptor = self.acceptor()
        answer, _ = acceptor.feed(dialer.hello)
        self.rejected(Code.PROTOCOL, dialer.feed, answer + b"x")
        self.rejected(Code.PROTOCOL, acceptor.feed, dialer.hello)

    def test_with_and_without_tls(self) -> None:
        """A dialer that expects the other kind of port is not answered."""
        for plain in (False, True):
            dialer, acceptor = self.dialer(plain=plain), self.acceptor(plain=not plain)
            self.rejected(Code.PROTOCOL, acceptor.feed, dialer.hello)

    def test_incomplete_hellos(self) -> None:
        """A hello lacks none of its fields, and has none of another size."""
        whole = {
            hello.MODE: b"\x02",
            hello.NONCE: bytes(32),
            hello.SUBFLOW: bytes(4),
            hello.ROLE: b"\x01",
            hello.KEY_ID: b"laptop",
            hello.SESSION: SESSION,
        }
        self.opened()
        for field in (hello.MODE, hello.NONCE, hello.SUBFLOW, hello.SESSION):
            for value in (None, b"", whole[field] + b"\0"):
                fields = {**whole, field: value}
                data = hello.pack(
                    hello.HELLO, [(k, v) for k, v in fields.items() if v is not None], 0
                )
                acceptor = self.acceptor(join=True)
                self.rejected(Code.PROTOCOL, acceptor.feed, data)
        for mode in (0, 3, 255):
            data = hello.pack(hello.HELLO, [*{**whole, hello.MODE: bytes([mode])}.items()], 0)
            acceptor = self.acceptor(join=True)
            self.rejected(Code.PROTOCOL, acceptor.feed, data)

    def test_replaces_has_a_size(self) -> None:
        """The number of a replaced subflow is one of 4 bytes."""
        member = self.opened()
        dialer = self.dialer(join=member)
        good = bytes.fromhex("000b000400000003")
        bad = bytes.fromhex("000b0009" + "ff" * 9)
        body = dialer.hello[12:].replace(good, bad)
        dialer.hello = dialer.hello[:8] + len(body).to_bytes(4, "big") + body
        acceptor = self.acceptor(join=True)
        answer, _ = acceptor.feed(dialer.hello)
        result = dialer.feed(answer)
        assert result is not None
        self.rejected(Code.PROTOCOL, acceptor.feed, result[0])

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """Mutations of true messages, and noise, are rejected or waited for, never a crash."""
        self.setUp()
        dialer, acceptor = self.dialer(), self.acceptor()
        answer, _ = acceptor.feed(dialer.hello)
        good = data.draw(st.sampled_from([dialer.hello, answer, bytes.fromhex(CONFIRM)]))
        at = data.draw(st.integers(0, len(good)))
        noise = data.draw(st.binary(max_size=60))
        cut = data.draw(st.integers(0, 60))
        bad = good[:at] + noise + good[at + cut :]
        for end in (self.acceptor(), self.dialer(), acceptor):
            try:
                result = end.feed(bad)
            except Rejected as error:
                self.assertTrue(str(error).isprintable())
            else:
                # Only the true answer to the very hello lets anybody in.
                self.assertTrue(result is None or result[1] is None or bad == answer)


class LateTests(SynchronousTestCase):
    """A rejection where frames were expected."""

    def test_rejection(self) -> None:
        """It is known when it is whole; until then it may become one."""
        data = hello.pack_reject(Code.BUSY, "full, try later")
        for size in range(len(data)):
            self.assertEqual(late_reject(data[:size]), (None, True))
        error, more = late_reject(data)
        assert error is not None
        self.assertEqual((error.code, error.reason, more), (Code.BUSY, "full, try later", False))

    def test_frames(self) -> None:
        """No frame begins like one, from the first byte on."""
        for kind in range(256):
            if kind != hello.MAGIC[0]:
                self.assertEqual(late_reject(bytes([kind])), (None, False))
        self.assertEqual(late_reject(hello.pack(hello.HELLO_ACK, [(1, b"")], 0)), (None, False))

    def test_text_is_made_safe(self) -> None:
        """What the other end writes cannot reach into a terminal, nor be endless."""
        text = b"\x1b[31m" + b"x" * 1000
        data = hello.pack(hello.REJECT, [(hello.ERROR, b"\0\x22" + text)], 0)
        error, _ = late_reject(data)
        assert error is not None
        self.assertTrue(error.reason.isprintable() and len(error.reason) <= 256)

    def test_unknown_code(self) -> None:
        """A code of a later version is a general one, and without a text its name will do."""
        for body, code in (
            (b"\x7f\xff", Code.GENERAL),
            (b"\0\x1e", Code.AUTH),
            (b"", Code.NO_ERROR),
        ):
            error, _ = late_reject(hello.pack(hello.REJECT, [(hello.ERROR, body)], 0))
            assert error is not None
            self.assertEqual((error.code, error.reason), (code, code.name.lower()))


class SecrecyTests(HandshakeTestCase):
    """No secret is ever shown."""

    def test_repr(self) -> None:
        """Neither by values nor by errors."""
        member = self.opened()
        established, _ = self.shake(self.dialer(), self.acceptor())
        shown = [repr(member), repr(established), repr(Intent("laptop", SECRET, 1, member))]
        shown += [repr(self.dialer()), repr(self.acceptor())]
        for text in shown:
            self.assertNotIn("marked", text)
            for secret in (SECRET, member.secret):
                self.assertNotIn(repr(secret)[2:-1], text)
                self.assertNotIn(secret.hex(), text)
