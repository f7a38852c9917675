"""Tests for L{stripetwist.net.keyfile}."""

import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.link import encode32
from stripetwist.net.keyfile import (
    Key,
    dump_keys,
    key_complaint,
    nearest_key,
    parse_expiry,
    read_keys,
)

SECRET = b"marked-secret-marked-secret-mark"
SECRET_TEXT = encode32(SECRET)
GOOD = f'[keys.laptop]\nsecret = "{SECRET_TEXT}"\nrole = "client"\n'

quick = settings(max_examples=100, deadline=None)
lines = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
some_lines = st.lists(lines, max_size=3).map(tuple)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9.5))]))
keys = st.builds(
    Key,
    id=st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True),
    secret=st.binary(min_size=32, max_size=32),
    role=st.sampled_from(["client", "agent"]),
    names=st.sampled_from([("*",), ("attic",), ("attic", "cellar"), ()]),
    exits=some_lines,
    allow=st.none() | some_lines,
    udp_bind=some_lines,
    expires=st.none() | moments,
    note=st.just("") | lines,
)


class ReadTests(SynchronousTestCase):
    """Files as users edit them."""

    def refused(self, text: str | bytes) -> str:
        """The words with which the content is refused; they show no secret."""
        data = text.encode() if isinstance(text, str) else text
        error = self.assertRaises(ValueError, read_keys, data)
        self.assertNotIsInstance(error, tomllib.TOMLDecodeError)
        self.assertNotIn(SECRET_TEXT[:20], str(error))
        self.assertIsNone(error.__context__)
        return str(error)

    def test_reads_every_field(self) -> None:
        """All fields of a key, in TOML's own types."""
        text = GOOD + (
            'names = ["a"]\nexits = ["attic", "server"]\nallow = ["10.0.0.0/8"]\n'
            'udp_bind = ["localhost:51820"]\nexpires = 2030-01-02\nnote = "Ann"\n'
        )
        expected = Key(
            id="laptop",
            secret=SECRET,
            role="client",
            names=("a",),
            exits=("attic", "server"),
            allow=("10.0.0.0/8",),
            udp_bind=("localhost:51820",),
            expires=datetime(2030, 1, 2, tzinfo=UTC),
            note="Ann",
        )
        self.assertEqual(read_keys(text.encode()), {"laptop": expected})

    def test_what_goes_without_saying(self) -> None:
        """A secret and a role make a key for any name and exit, for ever."""
        key = read_keys(GOOD.encode())["laptop"]
        self.assertEqual(key, Key("laptop", SECRET, "client"))
        self.assertTrue(key.allows_name("attic") and key.allows_exit("server"))
        self.assertFalse(key.is_expired(datetime.max.replace(tzinfo=UTC)))

    def test_no_keys(self) -> None:
        """An empty file lets nobody in."""
        self.assertEqual(read_keys(b""), {})

    def test_moments(self) -> None:
        """Dates, local times, times with a zone and texts; UTC unless they say otherwise."""
        for text, moment in (
            ("2030-01-02", datetime(2030, 1, 2, tzinfo=UTC)),
            ('"2030-01-02"', datetime(2030, 1, 2, tzinfo=UTC)),
            ("2030-01-02T03:04:05", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("2030-01-02T03:04:05+01:00", datetime(2030, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ):
            key = read_keys(f"{GOOD}expires = {text}".encode())["laptop"]
            self.assertEqual(key.expires, moment)
        self.assertIsNone(parse_expiry("next week"))

    def test_unknown_field(self) -> None:
        """A mistyped field is named, with the one that was meant."""
        self.assertIn("did you mean expires", self.refused(GOOD + "expire = 2030-01-01"))
        self.assertIn("keys.laptop.colour", self.refused(GOOD + 'colour = "red"'))
        self.assertIn("colour", self.refused(GOOD + '[colour]\nx = "red"'))

    def test_wrong_types(self) -> None:
        """A field of a wrong type or value is named, with what it must be."""
        for line in (
            "exits = 1",
            'exits = "attic"',
            "allow = [1]",
            'names = [""]',
            'expires = "never"',
            "expires = 12:00:00",
            "expires = true",
            "note = 1",
        ):
            field = line.split()[0]
            self.assertIn(f"keys.laptop.{field} must be", self.refused(GOOD + line))
        for role in ('"server"', "1"):
            self.assertIn("role must be", self.refused(GOOD.replace('"client"', role)))
        for secret in ('""', "1", f'"{SECRET_TEXT}="', f'"{SECRET_TEXT[1:]}"'):
            bad = GOOD.replace(f'"{SECRET_TEXT}"', secret)
            self.assertIn("secret must be", self.refused(bad))

    def test_missing_fields(self) -> None:
        """A key needs a secret and a role."""
        self.assertIn("secret is missing", self.refused('[keys.laptop]\nrole = "client"'))
        self.assertIn("role is missing", self.refused(GOOD.replace('role = "client"', "")))

    def test_wrong_shapes(self) -> None:
        """Keys that are no tables, or have impossible names."""
        self.refused("keys = 1")
        self.refused("[keys]\nlaptop = 1")
        self.refused(GOOD.replace("laptop", "LAPTOP"))
        self.refused(GOOD.replace("laptop", '"a b"'))

    def test_secret_in_the_wrong_place(self) -> None:
        """A secret that stands where a name belongs is not shown."""
        self.refused(f'[keys.{SECRET_TEXT}]\nrole = "client"')
        self.refused(f'[keys.laptop]\n{SECRET_TEXT} = "client"')
        self.refused(f'{SECRET_TEXT} = "client"')
        self.refused(f"[keys.laptop]\nsecret = {SECRET_TEXT}")
        self.refused(GOOD + GOOD)

    def test_no_toml(self) -> None:
        """Broken TOML is told by its position, whatever is wrong with it."""
        self.assertIn("line 2", self.refused("[keys.laptop]\nsecret =\n"))
        for data in (b"\xff\xfe", b"\0", b"a = " + b"[" * 20_000, b"a = 1" + b"0" * 5000):
            self.refused(data)

    @quick
    @given(st.binary(max_size=100), st.integers(0, len(GOOD)))
    def test_anything_is_read_or_refused(self, noise: bytes, at: int) -> None:
        """No content makes anything but keys or a sentence."""
        data = GOOD.encode()
        for mangled in (noise, data[:at] + noise + data[at:], data[:at]):
            try:
                read_keys(mangled)
            except ValueError as error:
                self.assertNotIn(SECRET_TEXT[:20], str(error))


class DumpTests(SynchronousTestCase):
    """Files as we write them."""

    @quick
    @given(st.lists(keys, max_size=3, unique_by=lambda key: key.id))
    def test_comes_back(self, some: list[Key]) -> None:
        """What was written is read as the same keys."""
        text = dump_keys(some)
        self.assertEqual(read_keys(text.encode()), {key.id: key for key in some})

    def test_control_characters_survive(self) -> None:
        """A note that a user wrote on two lines is kept."""
        key = Key("laptop", SECRET, "client", note='a\nb\t"\\\x7f')
        self.assertEqual(read_keys(dump_keys([key]).encode()), {"laptop": key})


class KeyTests(SynchronousTestCase):
    """One key."""

    def test_never_shows_its_secret(self) -> None:
        """Neither repr nor str of a key has the secret."""
        key = Key("laptop", SECRET, "client")
        self.assertNotIn("marked", repr(key) + str(key) + repr({"laptop": key}))

    def test_names_and_exits(self) -> None:
        """A list names all that is allowed; a star allows everything."""
        key = Key("k", SECRET, "agent", names=("attic",), exits=("*", "x"))
        self.assertTrue(key.allows_name("attic") and key.allows_exit("any other"))
        self.assertFalse(key.allows_name("cellar"))

    def test_expires_at_the_moment(self) -> None:
        """From its moment on a key is expired."""
        key = Key("k", SECRET, "client", expires=datetime(2030, 1, 1, tzinfo=UTC))
        self.assertFalse(key.is_expired(datetime(2029, 12, 31, 23, 59, 59, tzinfo=UTC)))
        self.assertTrue(key.is_expired(datetime(2030, 1, 1, tzinfo=UTC)))

    def test_complaints(self) -> None:
        """Keys that could not be written and read again are found before."""
        good = Key("attic", SECRET, "agent", names=("attic",))
        self.assertEqual(key_complaint(good), "")
        for bad in (
            replace(good, id="Attic"),
            replace(good, names=("any",)),
            replace(good, names=("a b",)),
            replace(good, role="server"),
            replace(good, secret=SECRET[1:]),
            replace(good, note="two\nlines"),
            replace(good, note="\udc80"),
            replace(good, expires=datetime(2030, 1, 1)),
            replace(good, exits=("",)),
        ):
            complaint = key_complaint(bad)
            self.assertNotEqual(complaint, "")
            self.assertNotIn("marked", complaint)

    def test_nearest(self) -> None:
        """A slip is guessed, another key is not."""
        for name in ("laptop", "Laptop", "LAPTOP", "laptpp", "latop", "lapttop", "Labtop"):
            self.assertEqual(nearest_key(name, ["agent-1", "laptop"]), "laptop", name)
        self.assertEqual(nearest_key("client1", ["agent-1", "client-1"]), "client-1")
        for name in ("client-1", "agent-2", "agent", "agent-11", "lap", "desktop", ""):
            self.assertEqual(nearest_key(name, ["agent-1", "laptop"]), "", name)
