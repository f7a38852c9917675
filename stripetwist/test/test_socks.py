"""The proxy port: who may come, the dialogue, and what may be asked for."""

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from stripetwist.core.errors import Code
from stripetwist.core.socks5 import MAX_HELD, SUCCESS, reply
from stripetwist.core.target import OpenRequest, Target
from stripetwist.net.socks import LINGER
from stripetwist.test.socks_case import (
    GREETING,
    LIMITS,
    LOGIN,
    LOGIN_GREETING,
    REQUEST,
    TARGET,
    WRONG_LOGIN,
    FrontCase,
    Wire,
    far_wire,
    request_for,
    ways,
)


class MethodTests(FrontCase):
    """Tests-socks 4.1: how a dialogue begins."""

    def greet(self, message: bytes, said: bytes, **more: Any) -> None:
        """A greeting that is taken, in four ways."""
        self.front = self.build(**more)
        following = LOGIN if more else REQUEST
        for pieces in ways(message, following):
            wire = self.client(*pieces)
            self.assertEqual(wire.said[:2], said)
            self.assertEqual(wire.end, "")
            self.assertLessEqual(len(wire.said), 4)
            wire.rst()
        self.assert_nothing_left()

    def reject(self, message: bytes, said: bytes, **more: Any) -> None:
        """A greeting that ends the dialogue, in four ways."""
        self.front = self.build(**more)
        for pieces in ways(message, REQUEST):
            self.assert_closed_with(self.client(*pieces), said)
        self.assertEqual(self.opener.requests, [])

    def test_no_login_needed(self) -> None:
        """S01, S02, S11: method 0 is among those offered, perhaps twice."""
        for message in (GREETING, b"\x05\x02\x00\x02", b"\x05\x03\x00\x00\x00"):
            self.greet(message, b"\x05\x00")

    def test_no_login_needed_among_255_methods(self) -> None:
        """S07: the last of the longest list."""
        self.greet(b"\x05\xff" + bytes(range(254, 0, -1)) + b"\x00", b"\x05\x00")

    def test_login_needed(self) -> None:
        """S03: with users, method 2 is taken even if 0 is offered; httpx offers 2 alone."""
        for message in (b"\x05\x02\x00\x02", LOGIN_GREETING, b"\x05\x03\x00\x01\x02"):
            self.greet(message, b"\x05\x02", users=self.users)

    def test_no_method_fits(self) -> None:
        """S05, S06, S09, S10."""
        for message in (b"\x05\x01\x02", b"\x05\x00", b"\x05\x01\x01", b"\x05\x03\x03\x7f\x80"):
            self.reject(message, b"\x05\xff")

    def test_none_of_255_methods_fits(self) -> None:
        """S08."""
        self.reject(b"\x05\xff" + b"\x03" * 255, b"\x05\xff")

    def test_without_login_where_it_is_needed(self) -> None:
        """S04: counted, and the log says what to do."""
        self.reject(GREETING, b"\x05\xff", users=self.users)
        self.assertIn("give it a user name", self.texts()[0])
        self.assertEqual(list(self.front.refused), [Code.AUTH])

    def test_another_protocol(self) -> None:
        """S19, S21, S22: closed without a byte, counted, with one line for the user."""
        others = [bytes([first]) for first in (0x00, 0x01, 0x06, 0x7F, 0xFF)]
        others += [b"\x16\x03\x01\x02\x00", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"]
        others += [b"\x0d\x0a\x0d\x0a\x00\x0d\x0aQUIT\x0a", b"SSH-2.0-OpenSSH_9.9\r\n"]
        count = 0
        for message in others:
            for pieces in ways(message, GREETING):
                wire = self.client(*pieces)
                self.assertEqual((wire.end, wire.said), ("closed", b""))
                count += 1
        self.assertEqual(self.front.wrong_protocol, count)
        self.assertEqual(len(self.texts()), count)
        spoken = {text.split("speaks ")[1].split(",")[0] for text in self.texts()}
        self.assertEqual(spoken, {"TLS", "none of SOCKS5"})
        self.assert_nothing_left()

    def test_silence(self) -> None:
        """S14: ten seconds, then closed without a reply, and no word in the log."""
        wire = self.client(b"\x05")
        self.later(wire, LIMITS.socks_timeout - 0.001)
        self.assertEqual(wire.end, "")
        self.later(wire, 0.001)
        self.assertEqual((wire.end, wire.said, self.texts()), ("closed", b"", []))
        self.assertEqual(self.front.timed_out, 1)
        self.assert_nothing_left()

    def test_a_drip(self) -> None:
        """S15: bytes do not buy time."""
        wire = self.client()
        for byte in b"\x05\xff" + bytes(20):
            self.later(wire.send(bytes([byte])), 1)
        self.assertEqual((wire.end, wire.said), ("closed", b""))
        self.assert_nothing_left()

    def test_a_client_that_ends_in_the_dialogue(self) -> None:
        """S16, S17, R35: closed silently, at every byte of it."""
        dialogue = GREETING + REQUEST
        for length in range(len(dialogue)):
            wire = self.client(dialogue[:length]).fin()
            self.assertEqual((wire.end, wire.said), ("closed", b"\x05\x00" if length > 2 else b""))
        self.assertEqual((self.opener.requests, self.texts()), ([], []))
        self.assert_nothing_left()

    def test_a_client_that_is_reset_in_the_dialogue(self) -> None:
        """S18: not a word, nothing left."""
        dialogue = GREETING + REQUEST
        for length in range(len(dialogue) + 1):
            self.client(dialogue[:length]).rst()
        self.assertEqual(self.texts(), [])
        self.assert_nothing_left()

    def test_a_client_that_does_not_read_and_is_closed(self) -> None:
        """Unsent bytes do not keep a silent client for ever."""
        wire = self.client()
        wire.is_drained = False
        wire.send(GREETING)
        self.later(wire, LIMITS.socks_timeout)
        self.assertEqual(wire.end, "")
        self.later(wire, LIMITS.close_timeout)
        self.assertEqual(wire.end, "aborted")
        self.assert_nothing_left()

    def test_talking_on_after_the_refusal(self) -> None:
        """S23: thrown away for a second, so that our close is no reset."""
        wire = self.client(b"\x05\x01\x7f")
        for _ in range(16):
            wire.send(bytes(65536))
        self.assertEqual((wire.said, wire.unread), (b"\x05\xff", 0))
        self.assertEqual(wire.end, "")
        self.assert_closed_with(wire, b"\x05\xff")

    def test_the_refused_client_that_closes_is_let_go_at_once(self) -> None:
        """Nobody has to wait for the second to pass."""
        wire = self.client(b"\x05\x01\x7f").fin()
        self.assertEqual((wire.end, wire.said), ("closed", b"\x05\xff"))
        self.assert_nothing_left()

    def test_the_refused_client_that_does_not_read(self) -> None:
        """It is aborted in the end."""
        wire = self.client()
        wire.is_drained = False
        wire.send(b"\x05\x01\x7f")
        self.later(wire, LINGER)
        self.later(wire, LIMITS.close_timeout)
        self.assertEqual((wire.end, wire.said), ("aborted", b""))
        self.assert_nothing_left()


class AdmissionTests(FrontCase):
    """Who may connect at all."""

    def from_host(self, host: str) -> str:
        """How a connection from there has ended, right after it was made."""
        kind = IPv6Address if ":" in host else IPv4Address
        return Wire(kind("TCP", host, 4000)).connect(self.front).end

    def test_one_connection_too_many(self) -> None:
        """S24: closed at once; the others go on, and there is room when one goes."""
        self.front = self.build(most=2)
        first, second = self.client(), self.client()
        self.assertEqual(self.client().end, "closed")
        self.assertEqual((first.end, second.end, self.guests.turned_away), ("", "", 1))
        first.rst()
        self.assertEqual(self.client().end, "")

    def test_coupled_connections_count_until_their_end(self) -> None:
        """Each of them has a file descriptor."""
        self.opener.answer = lambda: succeed(far_wire())
        self.front = self.build(most=1)
        self.client(GREETING, REQUEST)
        self.assertEqual(self.client().end, "closed")
        self.couplings[0].ended.callback(None)
        self.assertEqual((self.guests.active, self.client().end), (0, ""))

    def test_sources(self) -> None:
        """Other networks are closed without a byte."""
        nets = (ip_network(n) for n in ("10.0.0.0/8", "fd00::/8"))
        self.front = self.build(sources=nets)
        welcome = {h: not self.from_host(h) for h in ("10.1.2.3", "11.0.0.1", "fd00::1", "fe80::1")}
        self.assertEqual(list(welcome.values()), [True, False, True, False])
        self.assertEqual(self.guests.turned_away, 2)

    def test_a_line_for_each_source(self) -> None:
        """Who is turned away is told of once a minute, and of so many sources only."""
        self.front = self.build(sources=[ip_network("10.0.0.0/8")])
        for seconds in (0, 30, 31):
            self.clock.advance(seconds)
            self.from_host("::ffff:192.0.2.1")
        self.from_host("192.0.2.2")
        line = "192.0.2.1 is not among --from"
        self.assertEqual(self.texts(), [line, line, "192.0.2.2 is not among --from"])
        for number in range(300):
            self.from_host(f"192.0.{number // 256 + 3}.{number % 256}")
        self.assertEqual(len(self.texts()), 1 + 256)

    def test_ipv4_clients_of_a_dual_stack_socket(self) -> None:
        """K10: they are judged as what they are."""
        self.front = self.build(sources=[ip_network("10.0.0.0/8")])
        self.assertEqual(self.from_host("::ffff:10.1.2.3"), "")
        self.assertEqual(self.from_host("::ffff:11.1.2.3"), "closed")

    def test_a_scoped_address(self) -> None:
        """A link-local client's address has the name of a card behind it."""
        self.front = self.build(sources=[ip_network("fe80::/10")])
        self.assertEqual(self.from_host("fe80::1%eth0"), "")

    def test_unix_sockets_have_no_source(self) -> None:
        """Their file's mode says who may."""
        self.front = self.build(sources=[ip_network("10.0.0.0/8")])
        self.assertEqual(Wire(UNIXAddress(None)).connect(self.front).end, "")

    def test_many_that_come_and_go(self) -> None:
        """K02: nothing is left, nothing is logged."""
        for _ in range(1000):
            self.client().fin()
        self.assertEqual(self.texts(LogLevel.debug), [])
        self.assert_nothing_left()


class LoginTests(FrontCase):
    """Tests-socks 4.2: user names and passwords."""

    def setUp(self) -> None:
        """A port with users."""
        super().setUp()
        self.front = self.build(users=self.users)

    def log_in(self, message: bytes, verdict: bytes, following: bytes = b"") -> None:
        """A login in four ways."""
        for pieces in ways(message, following):
            wire = self.client(LOGIN_GREETING, *pieces)
            if verdict == b"\x01\x01":
                self.assert_closed_with(wire, b"\x05\x02" + verdict)
            else:
                self.assertEqual((wire.said, wire.end), (b"\x05\x02" + verdict, ""))
                wire.rst()
        self.assert_nothing_left()

    def test_right(self) -> None:
        """A01, and the request that came with it is opened."""
        self.log_in(LOGIN, b"\x01\x00", REQUEST)
        self.assertEqual([r.target for r in self.opener.requests], [TARGET])

    def test_right_and_longest(self) -> None:
        """A07: 255 bytes each, and none of them text (A08)."""
        self.log_in(b"\x01\xff" + b"u" * 255 + b"\xff" + b"\xff" * 255, b"\x01\x00")

    def test_wrong_password_or_user(self) -> None:
        """A02, A03, A09: the same bytes, nothing of what follows is opened, who it was is told."""
        self.log_in(WRONG_LOGIN, b"\x01\x01", REQUEST)
        self.log_in(b"\x01\x04jack\x06secret", b"\x01\x01", REQUEST)
        self.log_in(b"\x01\x03\x00\xff\x80\x04\xc3\x28\x00z", b"\x01\x01", REQUEST)
        self.assertEqual(self.opener.requests, [])
        for line in self.texts():
            self.assertRegex(line, r"^refused [0-9.]+: wrong user name or password")
        self.assertTrue(self.texts())

    def test_malformed(self) -> None:
        """A04, A05, A06: refused without asking anybody."""
        for message in (b"\x05\x03joe\x06secret", b"\x00\x03joe\x06secret"):
            self.log_in(message, b"\x01\x01", REQUEST)
        self.log_in(b"\x01\x00\x06secret", b"\x01\x01", REQUEST)
        self.log_in(b"\x01\x03joe\x00", b"\x01\x01", REQUEST)
        self.assertEqual((self.users.asked, self.opener.requests), ([], []))

    def test_everything_in_one_burst(self) -> None:
        """A10: replies in order, and the data for the target."""
        wire = self.client(LOGIN_GREETING + LOGIN + REQUEST + b"hello")
        self.assertEqual(wire.said, b"\x05\x02\x01\x00")
        self.opener.accept()
        self.assertEqual(wire.turn().said, b"\x05\x02\x01\x00" + SUCCESS)
        self.assertEqual(self.couplings[0].early, b"hello")

    def test_login_although_none_was_asked_for(self) -> None:
        """A11: no request of version 5."""
        self.front = self.build()
        for pieces in ways(LOGIN, REQUEST):
            self.assert_closed_with(self.client(GREETING, *pieces), b"\x05\x00" + reply(1))

    def test_silence_before_the_login(self) -> None:
        """A14: ten seconds from the accept, not from the last reply."""
        wire = self.client()
        self.later(wire, 6)
        self.later(wire.send(LOGIN_GREETING), 4)
        self.assertEqual((wire.end, wire.said), ("closed", b"\x05\x02"))
        self.assert_nothing_left()

    def test_the_request_waits_for_a_slow_verdict(self) -> None:
        """Meanwhile what comes is kept within its bound, and a FIN is no reason to stop."""
        self.users.is_slow = True
        wire = self.client(LOGIN_GREETING + LOGIN + REQUEST, bytes(70_000)).fin()
        self.assertFalse(wire.is_read)
        self.assertEqual(self.opener.requests, [])
        self.users.waiting[0].callback(True)
        wire.turn()
        self.assertEqual(len(self.opener.requests), 1)
        self.opener.accept()
        early = self.couplings[0].early
        self.assertEqual(len(early) + wire.unread, 70_000)
        self.assertLessEqual(len(early), MAX_HELD)

    def test_fin_after_the_login_alone(self) -> None:
        """Once the verdict is there nothing is left to wait for."""
        self.users.is_slow = True
        wire = self.client(LOGIN_GREETING + LOGIN).fin()
        self.assertEqual(wire.end, "")
        self.users.waiting[0].callback(True)
        self.assertEqual(wire.turn().end, "closed")
        self.assert_nothing_left()

    def test_a_verdict_nobody_waits_for(self) -> None:
        """The client is reset, or out of time: the check is cancelled."""
        self.users.is_slow = True
        self.client(LOGIN_GREETING + LOGIN).rst()
        late = self.client(LOGIN_GREETING + LOGIN)
        self.later(late, LIMITS.socks_timeout)
        self.assertEqual((late.end, self.users.cancelled), ("closed", 2))
        self.assertEqual(self.texts(), [])
        self.assert_nothing_left()

    def test_a_check_that_fails(self) -> None:
        """It lets nobody in; one line says so, without a traceback."""
        self.users.is_slow = True
        wire = self.client(LOGIN_GREETING + LOGIN)
        self.users.waiting[0].errback(Failure(MemoryError("no room")))
        self.assert_closed_with(wire.turn(), b"\x05\x02\x01\x01")
        self.assertEqual(self.texts()[0], "a login could not be checked: MemoryError: no room")

    def test_wrong_logins(self) -> None:
        """A source has a line at once and one a minute, by its address as IPv4 if it is one."""
        front = self.build(users=self.users)
        for host in 3 * ["::ffff:10.77.1.2"] + ["10.77.1.3"]:
            source = IPv4Address("TCP", host, 1)
            Wire(source).connect(front).send(LOGIN_GREETING + WRONG_LOGIN).turn()
        wrong = "wrong user name or password; see the file given with --users"
        self.assertEqual(self.texts(), [f"refused 10.77.1.{last}: {wrong}" for last in (2, 3)])
        self.assertEqual(front.refused[Code.AUTH], 4)
        self.clock.advance(60)
        line = f"2 more not let in from 10.77.1.2 within a minute: {wrong}"
        self.assertEqual(self.texts()[2:], [line])

    def test_a_checker_that_says_something_else_than_yes(self) -> None:
        """Only true is true."""
        self.users.is_slow = True
        wire = self.client(LOGIN_GREETING + LOGIN)
        self.users.waiting[0].callback("yes")  # type: ignore[arg-type]
        self.assert_closed_with(wire.turn(), b"\x05\x02\x01\x01")

    def test_passwords_are_nowhere(self) -> None:
        """A13: at no level, in no repr."""
        word = b"canary7"
        message = b"\x01\x03joe" + bytes([len(word)]) + word
        self.client(LOGIN_GREETING + message)
        self.users.is_slow = True
        wire = self.client(LOGIN_GREETING + message)
        seen = [repr(wire.protocol), repr(self.front), repr(vars(wire.protocol))]
        seen += [repr(event) for event in self.events] + self.texts(LogLevel.debug)
        self.assertNotIn("canary7", "".join(seen))


class RequestTests(FrontCase):
    """Tests-socks 4.3: what is asked for."""

    def refused(self, message: bytes, number: int) -> None:
        """A request that no opener sees, in four ways."""
        for pieces in ways(message, b"more"):
            self.assert_closed_with(self.client(GREETING, *pieces), b"\x05\x00" + reply(number))
        self.assertEqual(self.opener.requests, [])

    def asked(self, message: bytes, target: Target) -> None:
        """A request that is opened, in four ways, and answered when the target has."""
        for pieces in ways(message, b"more"):
            wire = self.client(GREETING, *pieces)
            self.assertEqual(wire.said, b"\x05\x00")
            self.opener.accept()
            self.assertEqual(wire.turn().said, b"\x05\x00" + SUCCESS)
            self.assertEqual(self.opener.requests[-1], OpenRequest(target))
            self.couplings[-1].ended.callback(None)
        self.assertEqual(self.couplings[-1].early, b"more")
        self.assertEqual(self.couplings[-2].early, b"")
        self.assert_nothing_left()

    def test_addresses(self) -> None:
        """R01, R02."""
        self.asked(REQUEST, TARGET)
        packed = bytes.fromhex("26062800022000010248189325c81946")
        self.asked(
            b"\x05\x01\x00\x04" + packed + b"\x00\x50",
            Target.of("2606:2800:220:1:248:1893:25c8:1946", 80),
        )

    def test_names(self) -> None:
        """R03, R04, R12, R13, R15, R16: passed on as names, never resolved here."""
        names = [b"example.com", b"x", b"xn--bcher-kva.example", b"_sip._tcp.example", b"-b.de"]
        for name in names:
            self.asked(request_for(name), Target(name.decode(), 80))
        self.asked(request_for(b"EXAMPLE.com."), Target("example.com", 80))

    def test_the_longest_name(self) -> None:
        """R06: 253 bytes."""
        name = b".".join([b"a" * 63] * 3 + [b"b" * 61])
        self.asked(request_for(name), Target(name.decode(), 80))

    def test_addresses_written_as_names(self) -> None:
        """R17, R18, R20: the exit's policy is to see them as addresses."""
        for name in (b"127.0.0.1", b"93.184.216.34", b"::1"):
            self.asked(request_for(name), Target.of(name.decode(), 80))

    def test_bad_names(self) -> None:
        """R05, R07 to R11, R14, R19, R20: refused before anybody is asked."""
        names = [b"", b".", b".example", b"a..b", b"a" * 64, b"127.0.0.1\0.ok.example"]
        names += [b"a" + bytes([c]) + b"b" for c in b"\r\n\t /@%[\x7f\x80\xff"]
        names += ["bücher.de".encode(), "１２７.1".encode(), "ⓛocalhost".encode()]
        names += [b"127.1", b"2130706433", b"0x7f.1", b"017700000001", b"0", b"[::1]"]
        names += [b"fe80::1%lo"]
        for name in names:
            self.refused(request_for(name), 1)

    def test_names_that_are_too_long(self) -> None:
        """R07: 254 and 255 bytes."""
        for length in (254, 255):
            name = b".".join([b"a" * 49] * 6)[:length].ljust(length, b"z")
            self.refused(request_for(name), 1)

    def test_bad_requests(self) -> None:
        """R27, R29, R34."""
        self.refused(REQUEST[:-2] + b"\0\0", 1)
        self.refused(request_for(b"example.com", 0), 1)
        self.refused(b"\x05\x01\x01" + REQUEST[3:], 1)
        self.refused(b"\x04" + REQUEST[1:], 1)
        self.refused(b"\x00" + REQUEST[1:], 1)

    def test_unknown_address_types(self) -> None:
        """R30."""
        for form in (0, 2, 5, 0xFF):
            self.refused(b"\x05\x01\x00" + bytes([form]) + REQUEST[4:], 8)

    def test_commands_that_are_not_offered(self) -> None:
        """R31 to R33."""
        for command in (0, 2, 3, 4, 0xF0, 0xF1, 0xFF):
            self.refused(b"\x05" + bytes([command]) + REQUEST[2:], 7)

    def test_names_are_escaped_in_the_log(self) -> None:
        """R10, K08."""
        self.client(GREETING, request_for(b"{0}%n\x1b[31m\r\nx"))
        (text,) = self.texts()
        self.assertEqual(
            text, 'refused: the name "{0}%n\\x1b[31m\\r\\nx" is no host name'.replace("\\\\", "\\")
        )

    def test_the_exit_is_asked_for(self) -> None:
        """A port may be made for one exit."""
        self.front = self.build(exit="attic")
        self.client(GREETING, REQUEST)
        self.assertEqual(self.opener.requests, [OpenRequest(TARGET, exit="attic")])

    def test_greeting_and_request_in_one_segment(self) -> None:
        """S12."""
        wire = self.client(GREETING + REQUEST)
        self.opener.accept()
        self.assertEqual(wire.turn().said, b"\x05\x00" + SUCCESS)
