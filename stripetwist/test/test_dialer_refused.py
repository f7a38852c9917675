"""L{stripetwist.net.dialer} against servers that refuse, hang, or are none of ours."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.error import ConnectError

from stripetwist.core import hello
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.net.dialer import Dialer
from stripetwist.test.link_case import PORT, WEB, LinkTestCase, Scripts


class RefusedTests(LinkTestCase):
    """Servers that say no, and what is said about it."""

    def refused(self, words: str, link: Any = None, again: int = 3, tries: int = 1) -> Dialer:
        """Dial, and be refused for those reasons: one line, then half a minute of peace."""
        dialer = self.dial(link)
        lines = self.logged(lambda: self.network.run(29, 0.05))
        told = [line for line in lines if words in line]
        self.assertEqual(len(told), 1, lines)
        self.assert_sentence(told[0])
        self.assertIn("192.0.2.1:8443", told[0][:80])
        self.assertEqual(len(self.network.dials), 3 * tries)
        self.assertIn(words, dialer.last_error)
        self.network.run(2)
        self.assertEqual(len(self.network.dials), 3 * tries + again)
        return dialer

    def test_unknown_key(self) -> None:
        """A key that the server does not know, or has revoked: 30 s."""
        self.serve()
        for link in (replace(self.link, key_id="nobody"), replace(self.link, secret=bytes(32))):
            self.network.dials.clear()
            dialer = self.refused("does not accept the key", link)
            self.stop(dialer)

    def test_wrong_role(self) -> None:
        """An agent's key does not open a client's session, and none is left half open."""
        key = next(key for key in self.keys.keys() if key.role == "agent")  # noqa: SIM118
        acceptor = self.serve()
        link = replace(self.link, key_id=key.id, secret=key.secret)
        dialer = self.dial(link)
        waiting = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        lines = self.logged(lambda: self.network.run(5))
        self.refusal(waiting, Code.GENERAL)
        self.assertIsNone(dialer.driver)
        self.assertEqual(acceptor.door.sessions, {})
        told = [one for one in lines if "192.0.2.1:8443" in one]
        self.assertEqual(len(told), 1, told)
        self.assertIn("takes this link from agents only; give --server a client's link", told[0])
        self.assertEqual(dialer.last_error, told[0])

    def test_wrong_pin(self) -> None:
        """A server with another key gets not one byte of ours: 30 s (48, T-X3-1)."""
        scripts = self.script(number=1)
        self.refused("is not the server of this link")
        self.assertEqual({one.got for one in scripts.made}, {b""})
        self.assertTrue(all(one.lost for one in scripts.made))

    def test_no_tls(self) -> None:
        """Something that is no TLS server, when it is seen for the second time."""
        self.network.listenTCP(PORT, Scripts(lambda wire: wire.write(b"SSH-2.0-OpenSSH_9.2\r\n")))
        self.refused("does not speak TLS", tries=2)

    def test_other_version(self) -> None:
        """A server of another version: 30 s, and both numbers are named (49, T-X7-1)."""
        text = b"\0\x1fversion 7 is spoken here"
        answer = hello.pack(hello.REJECT, [(hello.ERROR, text)], 0)
        answer = answer[:4] + b"\x07\x07" + answer[6:]
        self.script(then=lambda wire: wire.write(answer))
        self.refused("the other end speaks 7 to 7")

    def test_too_many(self) -> None:
        """A server that wants fewer connections is asked again after 30 s; the others stay."""
        self.serve(replace(self.limits, max_subflows=2))
        dialer = self.refused("wants fewer connections", again=1)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 2)

    def test_noise(self) -> None:
        """A server that answers nonsense is none of ours."""
        self.script(then=lambda wire: wire.write(b"nonsense"))
        self.refused("let us not in: what came is no stripetwist hello")

    def test_talks_first(self) -> None:
        """Nor is one that does not wait for our hello."""
        self.script(lambda wire: wire.write(b"220 ready\r\n"))
        dialer = self.dial()
        self.network.run(29, 0.05)
        self.assertEqual(len(self.network.dials), 3)
        self.assertIn("let us not in", dialer.last_error)

    def test_closes_at_once(self) -> None:
        """A connection that is closed before TLS is up has its own sentence."""
        self.network.listenTCP(PORT, Scripts(lambda wire: wire.loseConnection()))
        dialer = self.dial()
        self.network.run(1)
        self.assertIn("closed the connection before TLS", dialer.last_error)

    def test_closes_after_tls(self) -> None:
        """And one that is closed during the hello, another."""
        self.script(then=lambda wire: wire.loseConnection())
        dialer = self.dial()
        self.network.run(1)
        self.assertIn("instead of letting us in", dialer.last_error)

    def test_shuts_down(self) -> None:
        """A server that goes away is expected back soon."""
        self.serve().leave()
        dialer = self.dial()
        lines = self.logged(lambda: self.network.run(5))
        self.assertIn("the server is shutting down", " ".join(lines))
        self.assertGreater(len(self.network.dials), 6)
        # A proof that was sent counts until its answer is there.
        seen = []
        for _ in range(100):
            self.network.run(0.01)
            seen.append(dialer.driver is None)
        self.assertIn(True, seen)


class UnreachableTests(LinkTestCase):
    """Servers that cannot be dialed."""

    def test_refuses_connections(self) -> None:
        """One line, and a bounded rate (27)."""
        dialer = self.dial()
        lines = self.logged(lambda: self.network.run(60, 0.02))
        self.assertEqual(len(lines), 1)
        self.assertIn("192.0.2.1:8443 refuses connections", lines[0])
        self.assert_sentence(lines[0])
        self.assertLess(len(self.network.dials), 60 * 3 * 1.6)
        self.assertGreater(len(self.network.dials), 60)
        self.network.run(240, 0.1)
        late = len(self.network.dials)
        self.network.run(60, 0.1)
        self.assertLessEqual(len(self.network.dials) - late, 9)
        outage = dialer.outage()
        assert outage is not None
        self.assertApproximates(outage, 360, 3)

    def test_while_another_lives(self) -> None:
        """One that is left keeps the others' places trying, for 5 minutes every 0.2 s."""
        dialer, _ = self.connected()
        del self.network.ports[PORT]
        self.network.run(1.5)
        for cable in self.network.cables[1:]:
            cable.cut()
        self.network.dials.clear()
        self.network.run(60, 0.05)
        self.assertEqual({dial.timeout for dial in self.network.dials}, {1.0})
        self.assertApproximates(len(self.network.dials), 2 * 60 / 0.25, 100)
        self.network.run(245, 0.25)
        self.network.dials.clear()
        self.network.run(60, 0.25)
        self.assertLessEqual(len(self.network.dials), 4)
        self.assertTrue(dialer.is_alive())

    def test_silence(self) -> None:
        """A connect gets 1 s, then 2 s, then 10 s."""
        self.network.silent.add(PORT)
        dialer = self.dial(subflows=1)
        self.network.run(40, 0.05)
        self.assertEqual([dial.timeout for dial in self.network.dials[:4]], [1.0, 2.0, 10.0, 10.0])
        self.assertIn("does not answer", dialer.last_error)

    def test_accepts_and_hangs(self) -> None:
        """TCP without TLS is given up after 10 s, TLS without a hello after 5 (25, 26)."""
        for tls, patience in ((False, 10), (True, 5)):
            self.setUp()
            if tls:
                self.script()
            else:
                self.network.listenTCP(PORT, Scripts())
            dialer = self.dial(subflows=1)
            self.network.run(patience - 0.1, 0.05)
            self.assertEqual(dialer.last_error, "")
            self.assertEqual(len(self.network.dials), 1)
            self.network.run(0.6)
            self.assertIn("does not answer", dialer.last_error)
            self.assert_sentence(dialer.last_error)
            self.tearDown()

    def test_one_that_hangs_does_not_keep_the_others(self) -> None:
        """While the first waits for its answer in vain, the next tries its luck."""
        self.network.delay = 0.0
        self.serve()
        dialer = self.dial(subflows=2)
        self.network.advance(0)
        assert self.network.cables
        self.network.run(0.5)
        self.assertTrue(dialer.is_alive())

    def test_other_errors(self) -> None:
        """What the system says becomes a sentence."""
        dialer = self.dial(subflows=1)
        for error, words in (
            (ConnectError(101), "network is unreachable"),
            (ConnectError(None, "no route\nto it"), "no route\\nto it"),
        ):
            self.network.silent.add(PORT)
            self.network.run(3)
            self.network.dials[-1].fail(error)
            self.assertIn(words, dialer.last_error)
            self.assert_sentence(dialer.last_error)

    def test_connect_that_raises(self) -> None:
        """Even an error of our own does not keep a place from being dialed again."""
        calls: list[str] = []

        def broken(*args: object, **kwargs: object) -> Any:
            calls.append("dial")
            raise ValueError("of this test")

        self.patch(self.network, "connectTCP", broken)
        self.dial(subflows=1)
        self.network.run(3)
        self.assertGreater(len(calls), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(calls))


class NameTests(LinkTestCase):
    """Links to names."""

    def setUp(self) -> None:
        super().setUp()
        self.link = replace(self.link, host="vps.example")

    def test_resolved(self) -> None:
        """One address for all connections of a session; looked up anew for the next (28)."""
        self.names.table["vps.example"] = ["192.0.2.7", "192.0.2.8"]
        dialer, acceptor = self.connected()
        self.network.run(1.5)
        self.network.cables[0].cut()
        self.network.run(0.5)
        self.assertEqual({dial.host for dial in self.network.dials}, {"192.0.2.7"})
        self.names.table["vps.example"] = ["192.0.2.9"]
        listening = self.network.ports.pop(PORT)
        for cable in self.network.living:
            cable.cut()
        self.network.run(62, 0.05)
        self.network.dials.clear()
        self.network.ports[PORT] = listening
        self.network.run(3)
        self.assertTrue(dialer.is_alive())
        self.assertEqual({dial.host for dial in self.network.dials}, {"192.0.2.9"})

    def test_every_address_is_tried(self) -> None:
        """Where dials fail the other addresses get their chance."""
        self.names.table["vps.example"] = ["192.0.2.7", "2001:db8::7"]
        self.dial()
        self.network.run(10)
        self.assertEqual({d.host for d in self.network.dials}, {"192.0.2.7", "2001:db8::7"})

    def test_not_found(self) -> None:
        """A failed look-up is a sentence, and tried again."""
        answers = self.names.resolve

        def refuse(name: str) -> Any:
            answers(name).addErrback(lambda _: None).cancel()
            return fail(OpenRefused(Code.DNS_FAIL, "there is no such name; check it"))

        self.patch(self.names, "resolve", refuse)
        dialer = self.dial()
        self.network.run(3)
        self.assertIn("vps.example:8443 was not found: there is no", dialer.last_error)
        self.assertGreater(len(self.names.asked), 3)
