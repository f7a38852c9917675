"""L{stripetwist.net.acceptor} and its arrivals: strangers, guests, and their sessions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from stripetwist.core import frames, hello
from stripetwist.core.agents import Agent
from stripetwist.core.handshake import (
    DialerHandshake,
    Established,
    Intent,
    Membership,
    late_reject,
)
from stripetwist.core.hello import Rejected, Role
from stripetwist.core.link import encode32
from stripetwist.net import tls
from stripetwist.net.acceptor import Acceptor
from stripetwist.net.keyfile import Key
from stripetwist.test.link_case import PORT, WEB, LinkTestCase, Scripts
from stripetwist.testing_transports import Cable


class Guest:
    """
    A dialer by hand, over TLS, one step at a time.

    @ivar heard: what came after TLS was up.
    """

    def __init__(self, case: "AcceptorTestCase", subflow_id: int = 1, **intent: Any) -> None:
        self.case = case
        self.heard = b""
        scripts = Scripts(then=self._came)
        link = case.link
        creator = tls.ClientCreator(link, "label")
        factory: Any = tls.TLSFactory(creator, scripts, case.network)
        case.network.connectTCP("192.0.2.1", PORT, factory)
        case.network.run(0.1)
        self.cable: Cable = case.network.cables[-1]
        self._script = scripts.made[0]
        self.wire: Any = self._script.transport
        self.intent = Intent(
            intent.pop("key_id", link.key_id), intent.pop("key", link.secret), subflow_id, **intent
        )

    def _came(self, wire: Any) -> None:
        self.heard, self._script.got = self.heard + self._script.got, b""

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._script.lost

    def say(self, data: bytes, seconds: float = 0.1) -> bytes:
        """Say something; what is answered."""
        before = len(self.heard)
        self.wire.write(data)
        self.case.network.run(seconds)
        return self.heard[before:]

    def handshake(self) -> DialerHandshake:
        """What it would have to say."""
        binding = tls.exporter(self.wire.getHandle())
        return DialerHandshake(self.intent, binding, self.case.limits, lambda n: b"\xd1" * n)

    def enter(self, more: bytes = b"") -> tuple[Established, bytes]:
        """The whole hello; what was established, and what came after it."""
        handshake = self.handshake()
        result = handshake.feed(self.say(handshake.hello))
        assert result is not None
        return result[1], self.say(result[0] + more)


class AcceptorTestCase(LinkTestCase):
    """A server, and guests."""

    def setUp(self) -> None:
        super().setUp()
        self.acceptor = self.serve()

    def member(self) -> Any:
        """The one session."""
        (member,) = self.acceptor.door.sessions.values()
        return member

    def own(self, guest: Guest) -> Established:
        """The session that a guest opens."""
        return guest.enter()[0]

    def join(self, who: Established, subflow_id: int, **intent: Any) -> tuple[Guest, bytes]:
        """A guest that joins a session, and what it hears in the end."""
        member = Membership(who.session_id, who.session_secret)
        guest = Guest(self, subflow_id, join=member, **intent)
        return guest, guest.enter()[1]

    def assert_rejected(self, answer: bytes, words: str) -> None:
        """The answer is a REJECT that says so."""
        error, _ = late_reject(answer)
        assert error is not None, answer
        self.assertIn(words, error.reason)

    def assert_one_line(self, lines: list[str], words: str) -> None:
        """One line was logged: who, why, and nothing secret."""
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(f"192.0.2.1 not let in{words}", lines[0])
        self.assert_sentence(lines[0])
        self.assertNotIn(encode32(self.link.secret), lines[0])


class GuestTests(AcceptorTestCase):
    """Those who prove a key."""

    def test_new_and_join(self) -> None:
        """The first opens a session, the second joins it."""
        found: list[Established] = []
        lines = self.logged(lambda: found.append(self.own(Guest(self))))
        self.assertEqual(lines, ["client-1: session opened"])
        self.assertEqual(list(self.member().driver.connections), [1])
        self.join(found[0], 2)
        self.assertEqual(list(self.member().driver.connections), [1, 2])

    def test_early_frames(self) -> None:
        """Frames may come with CONFIRM, in one piece (the acceptor sends none before)."""
        guest = Guest(self)
        _, answer = guest.enter(frames.pack(frames.PING, offset=5))
        kinds = [frame[0] for frame in frames.FrameParser().feed(answer)]
        self.assertEqual(kinds, [frames.PONG])

    def test_served(self) -> None:
        """What a guest opens is reached on behalf of its key."""
        guest = Guest(self)
        guest.enter(frames.pack_open(1, 8192, WEB))
        self.assertEqual(len(self.exit.targets), 1)
        self.assertFalse(self.acceptor.is_idle)

    def test_duplicate_number(self) -> None:
        """A second connection of the same number is told, and the first stays (B23)."""
        first = Guest(self)
        who = self.own(first)
        second, answer = self.join(who, 1)
        self.assert_rejected(answer, "subflow 1 was there before")
        self.network.run(0.2)
        self.assertEqual((first.lost, second.lost), (False, True))

    def test_replaces(self) -> None:
        """One that replaces another has that one ended, after its proof."""
        first = Guest(self)
        who = self.own(first)
        self.join(who, 2, replaces=1)
        self.network.run(0.1)
        self.assertTrue(first.lost)
        self.assertEqual(list(self.member().driver.connections), [2])

    def test_too_many(self) -> None:
        """A session has at most so many; replacing what is not there is no way around that."""
        self.acceptor.limits = replace(self.limits, max_subflows=2)
        who = self.own(Guest(self))
        self.join(who, 2)
        for number, replaces in ((3, 0), (4, 99)):
            guest, answer = self.join(who, number, replaces=replaces)
            self.assert_rejected(answer, "may have 2 of them")
            self.network.run(0.2)
            self.assertTrue(guest.lost)
        self.join(who, 5, replaces=2)
        self.assertEqual(sorted(self.member().driver.connections), [1, 5])

    def test_too_many_sessions(self) -> None:
        """A key has at most so many; another key has its own."""
        self.acceptor.limits = replace(self.limits, max_sessions=2)
        self.keys.insert(Key("other", bytes(32), "client"))
        self.own(Guest(self))
        self.own(Guest(self))
        third = Guest(self)
        self.assert_rejected(third.enter()[1], "may have 2 sessions")
        self.network.run(0.2)
        self.assertTrue(third.lost)
        self.own(Guest(self, key_id="other", key=bytes(32)))
        self.assertEqual(len(self.acceptor.door.sessions), 3)

    def test_session_of_another_key(self) -> None:
        """Its id is of no use, open or only offered, not even with its secret (T-X2-5)."""
        self.keys.insert(Key("other", bytes(32), "client"))
        first = Guest(self)
        handshake = first.handshake()
        result = handshake.feed(first.say(handshake.hello))
        assert result is not None
        member = Membership(result[1].session_id, result[1].session_secret)
        for confirm in (b"", result[0]):
            if confirm:
                first.say(confirm)
            thief = Guest(self, 2, join=member, key_id="other", key=bytes(32))
            self.assert_rejected(thief.say(thief.handshake().hello), "not known here")
        self.join(result[1], 3)
        self.assertEqual(list(self.member().driver.connections), [1, 3])

    def test_session_over(self) -> None:
        """A session that ended while a guest was at the door is told so (B21)."""
        who = self.own(Guest(self))
        member = Membership(who.session_id, who.session_secret)
        guest = Guest(self, 2, join=member)
        handshake = guest.handshake()
        result = handshake.feed(guest.say(handshake.hello))
        assert result is not None
        self.member().driver.finish(0, "of this test")
        self.assert_rejected(guest.say(result[0]), "has just ended")
        late = Guest(self, 3, join=member)
        self.assert_rejected(late.say(late.handshake().hello), "not known here")

    def test_leaving(self) -> None:
        """A server that goes away takes joins, no new sessions, and refuses opens."""
        first = Guest(self)
        who = self.own(first)
        self.acceptor.leave()
        _, answer = self.join(who, 2)
        self.assertEqual(late_reject(answer), (None, answer == b""))
        self.assertEqual(len(self.member().driver.connections), 2)
        stranger = Guest(self)
        self.assert_rejected(stranger.enter()[1], "shutting down")

    def test_revoked(self) -> None:
        """The sessions of a revoked key are closed, others are not; the peer is told (50)."""
        key = self.keys.add("desk")
        self.own(Guest(self, key_id="desk", key=key.secret))
        other = Guest(self)
        self.own(other)
        self.keys.revoke("desk")
        ended = self.keys.reload_if_changed(datetime.now(UTC))
        lines = self.logged(lambda: self.acceptor.end_sessions_of(ended))
        self.assertEqual(lines, ["desk: session over: its key was revoked"])
        self.network.run(0.2)
        self.assertFalse(other.lost)
        self.assertEqual(self.member().key_id, "client-1")

    def test_replaced(self) -> None:
        """A new key of the same name is good at once, and only what the old one opened ends."""
        old = self.keys.add("desk")
        self.own(Guest(self, key_id="desk", key=old.secret))
        self.keys.revoke("desk")
        self.keys.insert(replace(old, secret=bytes(reversed(old.secret))))
        guest = Guest(self, key_id="desk", key=bytes(reversed(old.secret)))
        lines = self.logged(lambda: self.own(guest))
        self.assertEqual(lines, ["desk: session over: its key was revoked", "desk: session opened"])
        self.acceptor.look_at_keys()
        self.network.run(0.2)
        self.assertFalse(guest.lost)

    def test_snapshot(self) -> None:
        """Sessions can be shown, without secrets."""
        who = self.own(Guest(self))
        (session,) = self.acceptor.snapshot()
        self.assertEqual((session["key"], session["role"]), ("client-1", "client"))
        self.assertEqual(session["id"], who.session_id.hex()[:8])
        self.assertNotIn(who.session_secret.hex(), str(session))


class AgentTests(AcceptorTestCase):
    """Agents, at the door."""

    def setUp(self) -> None:
        """A key for agents of two names."""
        super().setUp()
        self.agent_key = Key("guest", b"a" * 32, "agent", ("attic", "barn"))
        self.keys.insert(self.agent_key)

    def come(self, name: str = "attic", **more: Any) -> Guest:
        """An agent at the door."""
        key, said = self.agent_key, Agent(name, {"site": "home"})
        return Guest(self, key_id=key.id, key=key.secret, role=Role.AGENT, agent=said, **more)

    def test_registered(self) -> None:
        """It is there under its name, for as long as its session is."""
        guest = self.come()
        lines = self.logged(guest.enter)
        self.assertEqual(lines, ["guest: session opened", "attic: agent registered by key guest"])
        (worker,) = self.acceptor.registry.workers()
        self.assertEqual((worker.name, worker.labels), ("attic", {"site": "home"}))
        self.assertTrue(worker.is_able)
        self.assertEqual([row["name"] for row in self.acceptor.snapshot()], ["attic"])
        self.acceptor.end_sessions_of({"guest"})
        self.assertEqual(self.acceptor.registry.workers(), [])

    def test_a_name_that_is_not_its_own(self) -> None:
        """It is told which are, and has no session."""
        guest = self.come("cellar")
        self.assert_rejected(guest.enter()[1], "not for an agent called cellar; say --name attic")
        self.assertEqual(self.acceptor.door.sessions, {})

    def test_again_and_again(self) -> None:
        """Each is told why, and the log has the first at once."""
        guests = [self.come("cellar") for _ in range(3)]
        heard: list[bytes] = []
        lines = self.logged(lambda: heard.extend(guest.enter()[1] for guest in guests))
        self.assert_one_line(lines, ' as "guest": this key is not for an agent called cellar')
        for answer in heard:
            self.assert_rejected(answer, "not for an agent called cellar")
        self.assertEqual(self.acceptor._unproved, {})
        lines = self.logged(lambda: self.network.run(61, 1))
        self.assertEqual(len(lines), 1, lines)
        self.assertIn('2 more not let in as "guest" within a minute: this key is', lines[0])

    def test_a_name_that_another_key_is_for(self) -> None:
        """A key for any name does not take it, whoever comes first."""
        anything = next(one for one in self.keys.keys() if one.id == "agent-1")  # noqa: SIM118
        for name, entered in (("attic", False), ("cellar", True)):
            said = Agent(name)
            guest = Guest(
                self, key_id=anything.id, key=anything.secret, role=Role.AGENT, agent=said
            )
            _, heard = guest.enter()
            if not entered:
                self.assert_rejected(heard, "another key is for the agent called attic")
        self.assertEqual([one.name for one in self.acceptor.registry.workers()], ["cellar"])

    def test_asks_for_streams(self) -> None:
        """It is refused each, the exit hears nothing of it, and the log has it once."""
        guest = self.come()
        streams = [frames.pack_open(number, 8192, WEB) for number in (1, 3, 5)]
        lines = self.logged(lambda: self.heard(guest, b"".join(streams)))
        self.assertEqual([line for line in lines if "asks" in line],
                         ["attic: an agent asks for streams, and is refused"])  # fmt: skip
        self.assertEqual(self.kinds.count(frames.REFUSE), 3)
        self.assertEqual(self.exit.targets, [])

    def heard(self, guest: Guest, more: bytes) -> None:
        """What a guest hears after its hello."""
        self.kinds = [frame[0] for frame in frames.FrameParser().feed(guest.enter(more)[1])]

    def test_as_a_client(self) -> None:
        """Its key is not for that, nor a client's for this."""
        for guest in (
            Guest(self, key_id="guest", key=self.agent_key.secret),
            Guest(self, role=Role.AGENT, agent=Agent("attic")),
        ):
            self.assert_rejected(guest.enter()[1], "not accepted")
        self.assertEqual(self.acceptor.registry.snapshot(lambda _: False), [])


class StrangerTests(AcceptorTestCase):
    """Those who do not."""

    def test_silence(self) -> None:
        """TCP without TLS is closed after 10 s, whatever drips in (B01, B02, T-X1-2)."""
        scripts = Scripts()
        self.network.connectTCP("192.0.2.1", PORT, scripts)
        self.network.run(0.1)
        wire: Any = scripts.made[0].transport
        hello_record = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)

        def drip() -> None:
            for at in range(98):
                wire.write(hello_record[at : at + 1])
                self.network.run(0.1, 0.05)

        self.assertEqual(self.logged(drip), [])
        self.assertFalse(scripts.made[0].lost)
        lines = self.logged(lambda: self.network.run(0.3))
        self.assertTrue(scripts.made[0].lost)
        self.assert_one_line(lines, ": no TLS handshake in time")
        self.assertEqual(scripts.made[0].got, b"")

    def test_silence_after_tls(self) -> None:
        """TLS without a proof is closed after 5 s, whatever drips in (B09)."""
        guest = Guest(self)
        data = guest.handshake().hello

        def drip() -> None:
            for at in range(48):
                guest.wire.write(data[at : at + 1])
                self.network.run(0.1, 0.05)

        self.assertEqual(self.logged(drip), [])
        self.assertFalse(guest.lost)
        lines = self.logged(lambda: self.network.run(0.3))
        self.assertTrue(guest.lost)
        self.assert_one_line(lines, ": no proof of a key in time")

    def test_nonsense(self) -> None:
        """What is no hello is not answered, nor kept (B10, B11, B12, B24, B25)."""
        header = hello.MAGIC + b"\x01\x01\x01\x00"
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(5000),
            header + b"\xff\xff\xff\xff",
            header + b"\0\0\0\0",
            frames.pack(frames.PING) * 50_000,
        ):
            guest = Guest(self)
            lines = self.logged(partial(guest.say, data, 0.3))
            self.assertEqual((guest.heard, guest.lost), (b"", True))
            self.assert_one_line(lines, ": ")

    def test_other_version(self) -> None:
        """Another version is told ours (B13)."""
        guest = Guest(self)
        data = guest.handshake().hello
        answer = guest.say(data[:4] + b"\x09\x07" + data[6:])
        self.assert_rejected(answer, "version 1 is spoken here")

    def test_wrong_and_unknown_keys(self) -> None:
        """Both get the same bytes; the log has the name in quotes (B14, B15)."""
        answers = []
        for key_id in ("client-1", "nobody"):
            guest = Guest(self, key_id=key_id)
            first = guest.say(guest.handshake().hello)
            confirm = hello.pack(hello.CONFIRM, [(hello.MAC, bytes(32))], 0)
            lines = self.logged(partial(guest.say, confirm))
            answers.append((len(first), guest.heard[len(first) :]))
            self.assert_one_line(lines, f' as "{key_id}": not accepted')
        self.assertEqual(answers[0], answers[1])

    def test_expired_key(self) -> None:
        """A key whose time is over is a wrong key."""
        past = datetime.now(UTC) - timedelta(days=1)
        self.keys.insert(Key("old", bytes(32), "client", expires=past))
        guest = Guest(self, key_id="old", key=bytes(32))
        handshake = guest.handshake()
        answer = guest.say(handshake.hello)
        self.assertRaises(Rejected, handshake.feed, answer)
        guest.wire.loseConnection()
        lines = self.logged(lambda: self.network.run(0.1))
        self.assert_one_line(lines, ' as "old": no key of that name is valid here')

    def test_unknown_key_again_and_again(self) -> None:
        """The first has its line at once, the others have one together a minute later."""
        lines = self.logged(self.four_unknown)
        self.assert_one_line(lines, ' as "gone": no key of that name is valid here')
        lines = self.logged(lambda: self.network.run(61, 1))
        self.assertEqual(len(lines), 1, lines)
        self.assertIn('3 more not let in as "gone" from 192.0.2.1 within a minute: no', lines[0])

    def four_unknown(self) -> None:
        """As many connections of clients whose key was revoked."""
        for _ in range(4):
            guest = Guest(self, key_id="gone")
            guest.say(guest.handshake().hello)
            guest.wire.loseConnection()
            self.network.run(0.1)

    def test_left(self) -> None:
        """Who leaves by itself has its line, too (B27, B28)."""
        guest = Guest(self)
        guest.wire.loseConnection()
        lines = self.logged(lambda: self.network.run(0.1))
        self.assert_one_line(lines, ": it left without a proof of its key")
        self.network.connectTCP("192.0.2.1", PORT, Scripts())
        self.network.run(0.1)
        self.network.cables[-1].ends[0].abortConnection()
        lines = self.logged(lambda: self.network.run(0.1))
        self.assert_one_line(lines, ": it closed the connection before TLS was ready")

    def test_many_without_a_word(self) -> None:
        """Each of the first has its line, and all others one when a minute is over."""
        most = self.limits.max_unauthenticated_per_source

        def knock() -> None:
            for _ in range(most + 20):
                self.network.connectTCP("192.0.2.1", PORT, Scripts())
                self.network.run(0.2)
                self.network.cables[-1].ends[0].abortConnection()
                self.network.run(0.2)

        lines = self.logged(knock)
        self.assertEqual(len(lines), most)
        self.assert_one_line(lines[-1:], ": it closed the connection before TLS was ready")
        (line,) = self.logged(lambda: self.network.run(60))
        self.assertIn("20 more not let in from 192.0.2.1 within a minute", line)

    def test_no_tls(self) -> None:
        """Plain text on a TLS port (B04, B05)."""
        scripts = Scripts(lambda wire: wire.write(b"SSH-2.0-x\r\n"))
        self.network.connectTCP("192.0.2.1", PORT, scripts)
        lines = self.logged(lambda: self.network.run(0.2))
        self.assertTrue(scripts.made[0].lost)
        self.assert_one_line(lines, ": it does not speak TLS")

    def test_no_alpn(self) -> None:
        """A TLS client that asks for nothing is no dialer of ours."""

        class Creator(tls.ClientCreator):
            """A browser's."""

            def _verify_chain(self, roots: object) -> None:
                """Whoever answers."""

        creator = Creator(self.link, "label")
        creator._context = tls._context()
        factory: Any = tls.TLSFactory(creator, Scripts(), self.network)
        self.network.connectTCP("192.0.2.1", PORT, factory)
        lines = self.logged(lambda: self.network.run(0.2))
        self.assert_one_line(lines, ": a dialer completed TLS without asking")

    def test_caps(self) -> None:
        """Unproved connections are capped, in all and per source; proved ones do not count."""
        addresses = [IPv4Address("TCP", f"198.51.100.{n}", 1) for n in range(5)]
        acceptor = self.acceptor
        made: list[Any] = [acceptor.buildProtocol(addresses[0]) for _ in range(65)]
        self.assertEqual([one is None for one in made], [False] * 64 + [True])
        for address in addresses[1:]:
            made += [acceptor.buildProtocol(address) for _ in range(64)]
        self.assertEqual(sum(one is not None for one in made), 256)
        self.assertEqual(acceptor.turned_away, 65)
        self.assertIsNone(acceptor.buildProtocol(UNIXAddress(None)))
        living = [one for one in made if one is not None]
        arrivals = list(acceptor._unproved)
        acceptor.proved(arrivals[0])
        acceptor.proved(arrivals[0])
        late = acceptor.buildProtocol(UNIXAddress(None))
        self.assertIsNotNone(late)
        self.end(acceptor)
        self.assertEqual(len(living), 256)

    def test_mapped_source(self) -> None:
        """An IPv4 peer of an IPv6 socket is the IPv4 peer: one source, and logged as that."""
        acceptor = self.acceptor
        for host in ("198.51.100.1", "::ffff:198.51.100.1", "::1"):
            acceptor.buildProtocol(IPv6Address("TCP", host, 1))
        self.assertEqual(acceptor._by_source, {"198.51.100.1": 2, "::1": 1})
        self.end(acceptor)

    def end(self, acceptor: Acceptor) -> None:
        """Those connections never were: forget them."""
        for arrival in list(acceptor._arrivals):
            arrival._cancel_timer()
            acceptor.departed(arrival)
        self.assertEqual((acceptor._unproved, acceptor._by_source), ({}, {}))

    def test_room_comes_back(self) -> None:
        """A stranger that has gone makes room for the next, and proved guests need none."""
        self.acceptor.limits = replace(self.limits, max_unauthenticated_per_source=1)
        first = Guest(self)
        factory = Scripts()
        self.network.connectTCP("192.0.2.1", PORT, factory)
        self.network.run(0.2)
        self.assertTrue(factory.made[0].lost)
        self.own(first)
        second = Guest(self)
        self.network.run(0.1)
        self.assertFalse(second.lost)


class PlainTests(LinkTestCase):
    """A server without TLS."""

    def test_proof_time_counts_from_the_start(self) -> None:
        """Without TLS there are 5 s for the proof."""
        self.serve(plain=True)
        scripts = Scripts()
        self.network.connectTCP("127.0.0.1", PORT, scripts)
        self.network.run(4.9, 0.05)
        self.assertFalse(scripts.made[0].lost)
        self.network.run(0.3)
        self.assertTrue(scripts.made[0].lost)


class StopTests(AcceptorTestCase):
    """The end."""

    def test_idle(self) -> None:
        """Without anybody it is over at once, and nobody is let in any more."""
        self.successResultOf(self.acceptor.stop())
        self.assertIsNone(self.acceptor.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))

    def test_everybody_leaves(self) -> None:
        """Guests, strangers and connections within TLS: it fires when the last is gone."""
        guest = Guest(self)
        self.own(guest)
        stranger = Guest(self)
        scripts = Scripts()
        self.network.connectTCP("192.0.2.1", PORT, scripts)
        self.network.run(0.1)
        stopping = self.acceptor.stop()
        self.assertNoResult(stopping)
        self.network.run(0.3)
        self.successResultOf(stopping)
        self.assertTrue(guest.lost and stranger.lost and scripts.made[0].lost)
        self.assertEqual(self.acceptor.door.sessions, {})

    def test_one_that_hangs(self) -> None:
        """A guest that does not answer is waited for no longer than 5 s."""
        guest = Guest(self)
        self.own(guest)
        guest.cable.silent = True
        stopping = self.acceptor.stop()
        self.network.run(4.9, 0.05)
        self.assertNoResult(stopping)
        self.network.run(0.2)
        self.successResultOf(stopping)
