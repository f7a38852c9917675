"""The dialing side of a SOCKS5 dialogue as bytes in and bytes out."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import ProxyRefused
from stripetwist.core.socks5_client import SocksConnect
from stripetwist.core.target import Target

SERVER = Target.of("vps.example", 8443)
REQUEST = b"\x05\x01\x00\x03\x0bvps.example\x20\xfb"
LOGIN = b"\x01\x02me\x06secret"
OPEN, LOGIN_WANTED, LOGIN_RIGHT = b"\x05\x00", b"\x05\x02", b"\x01\x00"
BOUND = {
    "IPv4": b"\x01\x7f\x00\x00\x01\x00\x50",
    "IPv6": b"\x04" + bytes(15) + b"\x01\x00\x50",
    "a name": b"\x03\x04host\x00\x50",
    "an empty name": b"\x03\x00\x00\x50",
    "the longest name": b"\x03\xff" + b"n" * 255 + b"\x00\x50",
}
BEHIND = b"\x16\x03\x03 of the tunnel"


def dialogue(login: bool = False) -> SocksConnect:
    """One with or without credentials."""
    return SocksConnect(SERVER, b"me", b"secret") if login else SocksConnect(SERVER)


class SocksConnectTests(SynchronousTestCase):
    """From the first byte to the last of the reply."""

    def feed(self, pieces: Iterable[bytes], talk: SocksConnect) -> tuple[bytes, bytes | None]:
        """All that is said, and what is left for the server."""
        said, behind = b"", None
        for piece in pieces:
            if behind is None:
                said += talk.feed(piece)
                behind = talk.rest
            else:
                behind += piece
        return said, behind

    def refused(self, data: bytes, login: bool = False) -> ProxyRefused:
        """The refusal, the same byte by byte as at once."""
        error: ProxyRefused = self.assertRaises(ProxyRefused, dialogue(login).feed, data)
        pieces = (bytes([one]) for one in data)
        again = self.assertRaises(ProxyRefused, self.feed, pieces, dialogue(login))
        self.assertEqual(error.sentence, again.sentence)
        self.assertTrue(error.sentence.startswith("it "), error.sentence)
        self.assertNotIn("secret", error.sentence)
        return error

    def test_first_words(self) -> None:
        """A login is offered only where we have one."""
        self.assertEqual(dialogue().first, b"\x05\x01\x00")
        self.assertEqual(dialogue(login=True).first, b"\x05\x02\x00\x02")

    def test_step_by_step(self) -> None:
        """Nothing is said before the answer to the last word is whole."""
        talk = dialogue(login=True)
        steps = [(b"\x05", b""), (b"\x02", LOGIN), (b"\x01", b""), (b"\x00", REQUEST)]
        steps += [(b"\x05\x00\x00", b""), (BOUND["IPv4"], b"")]
        for heard, said in steps:
            self.assertIsNone(talk.rest)
            self.assertEqual(talk.feed(heard), said)
        self.assertEqual(talk.rest, b"")

    def test_addresses(self) -> None:
        """They are asked for as what they are."""
        for host, form in (("192.0.2.1", b"\x01\xc0\x00\x02\x01"), ("::1", b"\x04" + bytes(15))):
            said = SocksConnect(Target.of(host, 443)).feed(OPEN)
            self.assertTrue(said.startswith(b"\x05\x01\x00" + form), said)

    def test_cut_anywhere(self) -> None:
        """One cut, or a byte at a time; every kind of bound address is passed over exactly."""
        for name, bound in BOUND.items():
            for login in (False, True):
                greeting = LOGIN_WANTED + LOGIN_RIGHT if login else OPEN
                data = greeting + b"\x05\x00\x00" + bound + BEHIND
                wanted = (LOGIN * login + REQUEST, BEHIND)
                for at in range(len(data) + 1):
                    got = self.feed([data[:at], data[at:]], dialogue(login))
                    self.assertEqual(got, wanted, name)
                bytewise = [bytes([one]) for one in data]
                self.assertEqual(self.feed(bytewise, dialogue(login)), wanted, name)

    def test_logins(self) -> None:
        """None where one is wanted, a wrong one, and one that nobody wants."""
        none = self.refused(b"\x05\xff")
        self.assertEqual(none.sentence, "it wants a login: write socks://USER:PASSWORD@HOST:PORT")
        self.assertIn("neither", self.refused(b"\x05\xff", login=True).sentence)
        wrong = self.refused(LOGIN_WANTED + b"\x01\x01", login=True)
        self.assertIn("does not accept this user name and password", wrong.sentence)
        self.assertTrue(none.lasting and wrong.lasting)
        self.assertEqual(dialogue(login=True).feed(OPEN), REQUEST)

    def test_replies(self) -> None:
        """Each is a sentence of its own, told as soon as the code is there."""
        sentences = set()
        for code in range(1, 11):
            error = self.refused(OPEN + bytes([5, code]))
            self.assertIn(f"({code})", error.sentence)
            self.assertEqual(error.lasting, code in (2, 7, 8), code)
            sentences.add(error.sentence)
        self.assertEqual(len(sentences), 10)

    def test_443_is_not_allowed_either(self) -> None:
        """Then another port would be no help."""
        talk = SocksConnect(Target.of("vps.example", 443))
        error = self.assertRaises(ProxyRefused, talk.feed, OPEN + b"\x05\x02")
        self.assertNotIn("--listen", error.sentence)

    def test_nonsense(self) -> None:
        """The first byte that cannot be ends it."""
        cases = [b"H", b"\x04", b"\x05\x01", LOGIN_WANTED, OPEN + b"\x04"]
        cases += (OPEN + b"\x05\x00\x00\x02\x00", OPEN + b"\x05\x00\x00\x00\x00")
        for data in cases:
            self.assertIn("not as a SOCKS5 proxy", self.refused(data).sentence, data)
        self.assertIn("not as", self.refused(LOGIN_WANTED + b"\x02", login=True).sentence)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=40), st.booleans())
    def test_whatever_comes(self, data: bytes, is_open: bool) -> None:
        """A refusal, a connection or the wait for more; nothing else, however it is cut."""
        data = OPEN * is_open + data
        outcomes: set[tuple[bytes, bytes | None]] = set()
        for pieces in ([data], [bytes([one]) for one in data]):
            try:
                outcomes.add(self.feed(pieces, dialogue()))
            except ProxyRefused as error:
                outcomes.add((error.sentence.encode(), None))
        self.assertEqual(len(outcomes), 1)
