"""The SOCKS5 dialogue as bytes in and events out."""

from collections.abc import Iterable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, printable
from stripetwist.core.socks5 import (
    LOGIN_RIGHT,
    MAX_HELD,
    SUCCESS,
    Connect,
    Dialogue,
    Event,
    Login,
    NotSocks,
    Refuse,
    Say,
    reply,
    reply_code,
)
from stripetwist.core.target import Target

OPEN_GREETING = b"\x05\x01\x00"
LOGIN_GREETING = b"\x05\x02\x00\x02"
LOGIN = b"\x01\x03joe\x06secret"
REQUEST = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"


def events(dialogue: Dialogue) -> Iterator[Event]:
    """All that follows from what the dialogue has so far."""
    while (event := dialogue.next_event()) is not None:
        yield event


def fed(dialogue: Dialogue, pieces: Iterable[bytes]) -> list[Event]:
    """The events of these pieces, where every login is right."""
    found: list[Event] = []
    for piece in pieces:
        dialogue.received(piece)
        for event in events(dialogue):
            found.append(event)
            if isinstance(event, Login):
                found.append(dialogue.login_checked(True))
    return found


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data, cut at these places where it is long enough."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def request_for(name: bytes, port: int = 80) -> bytes:
    """A CONNECT for a name."""
    return b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big")


def refusal(found: list[Event]) -> Refuse:
    """The last event, which must be a refusal."""
    last = found[-1]
    assert isinstance(last, Refuse), last
    return last


class ReplyTests(SynchronousTestCase):
    """How reasons become the numbers of RFC 1928."""

    def test_every_code_has_a_reply_of_failure(self) -> None:
        """No reason, not even its absence, is told as success."""
        for code in Code:
            self.assertIn(reply_code(code), range(1, 9), code)

    def test_the_first_eight_keep_their_numbers(self) -> None:
        """M01 to M07: the codes were numbered after the replies."""
        self.assertEqual([reply_code(Code(n)) for n in range(1, 9)], list(range(1, 9)))

    def test_a_failed_lookup_is_an_unreachable_host(self) -> None:
        """M03: a name without an address, or a resolver without an answer."""
        self.assertEqual(reply_code(Code.DNS_FAIL), 4)
        self.assertEqual(reply_code(Code.DNS_TIMEOUT), 4)

    def test_an_agent_that_is_not_there_is_an_unreachable_network(self) -> None:
        """M02: nobody is connected who could reach the target."""
        self.assertEqual(reply_code(Code.NO_WORKER), 3)

    def test_caps_and_lost_sessions_are_general_failures(self) -> None:
        """M08 and M10."""
        for code in (Code.TOO_MANY_STREAMS, Code.OVERLOAD, Code.GOING_AWAY, Code.SESSION_LOST):
            self.assertEqual(reply_code(code), 1, code)

    def test_success_hides_the_address_of_the_exit(self) -> None:
        """The bound address is 0.0.0.0:0."""
        self.assertEqual(SUCCESS, bytes.fromhex("05000001000000000000"))


class DialogueTests(SynchronousTestCase):
    """What a dialogue makes of a client's bytes."""

    def test_a_request_without_login(self) -> None:
        """Greeting, answer, target."""
        found = fed(Dialogue(), [OPEN_GREETING, REQUEST])
        self.assertEqual(found, [Say(b"\x05\x00"), Connect(Target("example.com", 443))])

    def test_a_request_with_login(self) -> None:
        """The login is asked for, given, and answered before the request is looked at."""
        found = fed(Dialogue(login=True), [LOGIN_GREETING + LOGIN + REQUEST])
        self.assertEqual(
            found,
            [
                Say(b"\x05\x02"),
                Login(b"joe", b"secret"),
                Say(LOGIN_RIGHT),
                Connect(Target("example.com", 443)),
            ],
        )

    def test_nothing_is_read_while_a_login_is_checked(self) -> None:
        """The request waits for the verdict."""
        dialogue = Dialogue(login=True)
        dialogue.received(LOGIN_GREETING + LOGIN + REQUEST)
        self.assertIsInstance(list(events(dialogue))[-1], Login)
        self.assertFalse(dialogue.is_listening)
        verdict = refusal([dialogue.login_checked(False)])
        self.assertEqual((verdict.data, verdict.code), (b"\x01\x01", Code.AUTH))
        self.assertEqual(list(events(dialogue)), [])

    def test_the_first_byte_alone_gives_another_protocol_away(self) -> None:
        """Nothing is said to it."""
        for first in (0, 1, 4, 6, 0x16, ord("G"), 0x7F, 0xFF):
            dialogue = Dialogue()
            self.assertEqual(fed(dialogue, [bytes([first]), OPEN_GREETING]), [NotSocks(first)])

    def test_what_comes_behind_the_request_is_for_the_target(self) -> None:
        """It is handed out once, whole."""
        dialogue = Dialogue()
        fed(dialogue, [OPEN_GREETING + REQUEST + b"early ", b"bird"])
        self.assertEqual(dialogue.take_early(), b"early bird")
        self.assertEqual(dialogue.take_early(), b"")

    def test_room_shrinks_by_what_is_held(self) -> None:
        """A full dialogue asks for nothing more."""
        dialogue = Dialogue()
        self.assertEqual(dialogue.room, MAX_HELD)
        fed(dialogue, [OPEN_GREETING + REQUEST, bytes(1000)])
        self.assertEqual(dialogue.room, MAX_HELD - 1000)
        dialogue.received(bytes(MAX_HELD))
        self.assertEqual(dialogue.room, 0)

    def test_after_the_end_nothing_is_kept(self) -> None:
        """A refused client may talk on."""
        dialogue = Dialogue()
        fed(dialogue, [b"\x05\x01\x02" + bytes(5000)])
        dialogue.received(bytes(5000))
        self.assertEqual((dialogue.room, dialogue.take_early()), (MAX_HELD, b""))

    def test_passwords_are_in_no_repr(self) -> None:
        """A13: neither is the name, in whose field a password may have been typed."""
        text = repr(Login(b"canary-name", b"canary-word"))
        self.assertNotIn("canary", text)

    def test_an_unoffered_command_is_told_at_once(self) -> None:
        """The rest of such a request may be anything."""
        last = refusal(fed(Dialogue(), [OPEN_GREETING, b"\x05\x02\x00\x01"]))
        self.assertEqual((last.data, last.code), (reply(7), Code.BAD_KIND))

    def test_it_says_what_is_offered(self) -> None:
        """Datagrams too, where the port has them."""
        said = [
            refusal(fed(Dialogue(udp=udp), [OPEN_GREETING, b"\x05\x02\x00\x01"])).sentence
            for udp in (False, True)
        ]
        self.assertIn("only CONNECT;", said[0])
        self.assertIn("only CONNECT and UDP ASSOCIATE;", said[1])

    def test_the_sentence_escapes_what_the_client_wrote(self) -> None:
        """R10 and K08: it will stand in a log."""
        found = fed(Dialogue(), [OPEN_GREETING, request_for(b"a\r\n\x1b[31m{0}%n")])
        sentence = refusal(found).sentence
        self.assertIn("a\\r\\n\\x1b[31m{0}%n", sentence)
        self.assertEqual(sentence, sentence.encode("ascii", "strict").decode("ascii"))


class DialogueProperties(SynchronousTestCase):
    """What holds for any bytes in any pieces."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.booleans(),
        st.lists(
            st.one_of(
                st.sampled_from([OPEN_GREETING, LOGIN_GREETING, LOGIN, REQUEST]),
                st.binary(max_size=12),
            ),
            max_size=5,
        ),
        st.lists(st.integers(0, 400), max_size=8),
    )
    def test_cuts_change_nothing(
        self, login: bool, messages: list[bytes], places: list[int]
    ) -> None:
        """However the bytes arrive, the same events come and the same bytes are left."""
        data = b"".join(messages)
        whole, pieces, single = (Dialogue(login) for _ in range(3))
        expected = fed(whole, [data])
        self.assertEqual(fed(pieces, cut(data, places)), expected)
        self.assertEqual(fed(single, (data[i : i + 1] for i in range(len(data)))), expected)
        left = whole.take_early()
        self.assertEqual(pieces.take_early(), left)
        self.assertEqual(single.take_early(), left)

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=255))
    def test_any_name_is_passed_or_refused(self, name: bytes) -> None:
        """R05 to R21: nothing but a target or a refusal, and a sentence that is safe."""
        (event,) = fed(Dialogue(), [OPEN_GREETING + request_for(name)])[1:]
        if isinstance(event, Refuse):
            self.assertEqual(event.data, reply(1))
            self.assertEqual(printable(event.sentence, 1000).replace("\\\\", "\\"), event.sentence)
        else:
            self.assertIsInstance(event, Connect)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=255))
    def test_any_login_arrives_as_it_was_sent(self, user: bytes, password: bytes) -> None:
        """A07 and A08: all bytes, NUL and broken UTF-8 too, up to the longest."""
        message = b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
        found = fed(Dialogue(login=True), [LOGIN_GREETING, message])
        self.assertEqual(found[1:], [Login(user, password), Say(LOGIN_RIGHT)])
