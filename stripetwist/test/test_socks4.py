"""The SOCKS4 and SOCKS4a dialogue as bytes in and events out (tests-socks 4.7)."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code
from stripetwist.core.socks4 import MAX_REQUEST, Socks4Dialogue, reply
from stripetwist.core.socks5 import MAX_HELD, Connect, Event, NotSocks, Refuse
from stripetwist.core.target import Target

PLAIN = b"\x04\x01\x01\xbb\x5d\xb8\xd8\x22joe\0"
NAMED = b"\x04\x01\x00\x50\0\0\0\x01joe\0example.com\0"


def fed(*pieces: bytes, login: bool = False) -> tuple[Event | None, Socks4Dialogue]:
    """The first event of these pieces."""
    dialogue = Socks4Dialogue(login)
    event = None
    for piece in pieces:
        dialogue.received(piece)
        event = event or dialogue.next_event()
    return event, dialogue


class Socks4Tests(SynchronousTestCase):
    """What is asked for, and what is refused."""

    def reject(self, request: bytes, code: Code, login: bool = False) -> str:
        """It is refused; the sentence."""
        event, dialogue = fed(request, login=login)
        assert isinstance(event, Refuse), event
        self.assertEqual((event.data, event.code), (b"\x00\x5b" + bytes(6), code))
        self.assertFalse(dialogue.is_listening)
        self.assertEqual(dialogue.take_early(), b"")
        return event.sentence

    def test_asked(self) -> None:
        """F01, F02, F11: by address or name, however it is cut; the rest is for the target."""
        for request, host, port in (
            (PLAIN, "93.184.216.34", 443),
            (NAMED, "example.com", 80),
            (PLAIN.replace(b"joe", b""), "93.184.216.34", 443),
        ):
            for at in range(len(request)):
                event, dialogue = fed(request[:at], request[at:] + b"\0early")
                self.assertEqual(event, Connect(Target.of(host, port)))
                self.assertFalse(dialogue.is_listening)
                self.assertEqual(dialogue.room, MAX_HELD - len(b"\0early"))
                self.assertEqual(dialogue.take_early(), b"\0early")
                self.assertTrue(fed(request[:at])[1].is_listening)
        self.assertEqual((Socks4Dialogue.success, Socks4Dialogue.keep), (reply(90), None))
        self.assertEqual(Socks4Dialogue().refusal(Code.TIMEOUT, ""), reply(91))

    def test_commands(self) -> None:
        """F03, F04: known from the second byte on."""
        for command in (0, 2, 255):
            self.reject(bytes([4, command]), Code.BAD_KIND)

    def test_another_language(self) -> None:
        """It is told once, and nothing else is."""
        event, dialogue = fed(b"\x05\x01\x00")
        self.assertEqual((event, dialogue.next_event()), (NotSocks(5), None))
        self.assertFalse(dialogue.is_listening)

    def test_no_target(self) -> None:
        """F05, F08."""
        self.reject(b"\x04\x01\x00\x50\0\0\0\0joe\0", Code.GENERAL)
        self.reject(b"\x04\x01\x00\x00\x5d\xb8\xd8\x22joe\0", Code.GENERAL)
        for name in (b"", b"a b", b"\xff", b"127.1", b"a..b", b"x" * 64):
            self.reject(NAMED.replace(b"example.com", name), Code.GENERAL)

    def test_no_end(self) -> None:
        """F06, F07: 512 bytes are the most."""
        for start in (PLAIN[:8], NAMED[:-1]):
            event, _ = fed(start, bytes(b"x" * (MAX_REQUEST - 1 - len(start))))
            self.assertIsNone(event)
            self.assertIn("does not end", self.reject(start + b"x" * 2000, Code.LIMIT))

    def test_login(self) -> None:
        """F09: where one is needed nobody comes in this way."""
        self.assertIn("no passwords", self.reject(PLAIN, Code.AUTH, login=True))
        self.reject(b"\x04", Code.AUTH, login=True)
        self.assertIsInstance(Socks4Dialogue(True).login_checked(True), Refuse)
