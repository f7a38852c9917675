"""Tests for L{stripetwist.net.keystore}."""

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.link import Link, encode32
from stripetwist.net.files import StartupError, take_lock, write_private
from stripetwist.net.keyfile import Key
from stripetwist.net.keystore import MAX_LINK_FILE, KeyStore, read_link

SECRET = b"marked-secret-marked-secret-mark"
SECRET_TEXT = encode32(SECRET)
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2030, 1, 3, tzinfo=UTC)


def ids(store: KeyStore) -> list[str]:
    """What the keys are called."""
    return list(map(attrgetter("id"), store.keys()))


class LoggedTestCase(SynchronousTestCase):
    """A test that knows what was logged."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())


class KeyStoreTests(LoggedTestCase):
    """A store in a file."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "keys.toml"

    def store(self) -> KeyStore:
        """A store whose file exists or is made now."""
        return KeyStore(self.path, create=True)

    def refused(self) -> str:
        """The sentence with which the file is refused; it shows no secret."""
        error = self.assertRaises(StartupError, KeyStore, self.path)
        self.assertNotIn(SECRET_TEXT[:16], str(error))
        self.assertIn("key file", str(error)[:80])
        self.assertIn("keys.toml", str(error))
        return str(error)

    def test_first_start(self) -> None:
        """The first start makes a key for clients and one for agents, and keeps them."""
        store = self.store()
        agent, client = store.keys()
        self.assertEqual((agent.id, agent.role), ("agent-1", "agent"))
        self.assertEqual((client.id, client.role), ("client-1", "client"))
        self.assertNotEqual(agent.secret, client.secret)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(self.store().keys(), store.keys())
        self.assertTrue(agent.allows_name("any-name"))

    def test_missing_file_that_was_named(self) -> None:
        """A file that a user named is not made up."""
        self.assertIn("does not exist", self.refused())
        self.assertFalse(self.path.exists())

    def test_unsafe_files_are_refused(self) -> None:
        """Open modes, links, FIFOs and directories are refused, without waiting."""
        self.store()
        self.path.chmod(0o644)
        self.assertIn("chmod 600", self.refused())
        self.path.unlink()
        self.path.symlink_to("nowhere")
        self.refused()
        self.assertRaises(StartupError, self.store)
        self.path.unlink()
        os.mkfifo(self.path, 0o600)
        self.refused()
        self.path.unlink()
        self.path.mkdir()
        self.refused()

    def test_wrong_content_is_refused(self) -> None:
        """A file that is wrong says where."""
        write_private(self.path, f'[keys.a]\nsecret = "{SECRET_TEXT}"\nrole = 1'.encode())
        self.assertIn("keys.a.role", self.refused())
        write_private(self.path, f'[keys.a]\nsecret = "{SECRET_TEXT}\n'.encode())
        self.assertIn("line 2", self.refused())

    def test_lookup(self) -> None:
        """A key is found by its id until its time is over."""
        store = self.store()
        key = store.add("guest", expires=LATER)
        self.assertEqual(store.lookup("guest", NOW), key)
        self.assertIsNone(store.lookup("guest", LATER))
        self.assertIsNone(store.lookup("nobody", NOW))
        self.assertIsNone(store.lookup("\0../../x", NOW))
        self.assertIn(key, store.keys())

    def test_add(self) -> None:
        """A new key is in the file; an agent's is good for its own name only."""
        store = self.store()
        client = store.add("laptop", note="Ann's")
        agent = store.add("attic", role="agent")
        self.assertEqual((client.names, client.note), (("*",), "Ann's"))
        self.assertEqual((agent.names, agent.role), (("attic",), "agent"))
        again = KeyStore(self.path)
        self.assertEqual(again.lookup("laptop", NOW), client)
        self.assertEqual(again.lookup("attic", NOW), agent)

    def test_add_refuses(self) -> None:
        """Names that are taken or impossible are refused, and nothing changes."""
        store = self.store()
        before = self.path.read_bytes()
        for name, role in (("client-1", "client"), ("A", "client"), ("any", "agent")):
            self.assertRaises(StartupError, store.add, name, role)
        self.assertRaises(StartupError, store.add, "x", "server")
        self.assertEqual(self.path.read_bytes(), before)

    def test_revoke(self) -> None:
        """A revoked key is gone from memory and file; a mistyped one is guessed."""
        store = self.store()
        store.revoke("client-1")
        self.assertIsNone(store.lookup("client-1", NOW))
        self.assertIsNone(KeyStore(self.path).lookup("client-1", NOW))
        error = self.assertRaises(StartupError, store.revoke, "agent1")
        self.assertIn("agent-1", str(error))

    def test_changes_meet_in_the_file(self) -> None:
        """What another process added or revoked meanwhile is kept by our own change."""
        ours, theirs = self.store(), self.store()
        theirs.add("theirs")
        theirs.revoke("client-1")
        ours.add("ours")
        self.assertEqual(ids(KeyStore(self.path)), ["agent-1", "ours", "theirs"])

    def test_one_change_at_a_time(self) -> None:
        """While another process changes the keys, we do not."""
        store = self.store()
        lock = take_lock(self.path.with_name(".keys.toml.lock"))
        assert lock is not None
        self.addCleanup(os.close, lock)
        self.assertRaises(StartupError, store.add, "laptop")

    def test_a_broken_file_is_not_written_over(self) -> None:
        """A change needs a file that can be read."""
        store = self.store()
        write_private(self.path, b"broken")
        self.assertRaises(StartupError, store.add, "laptop")
        self.assertEqual(self.path.read_bytes(), b"broken")

    def test_reload_tells_what_ended(self) -> None:
        """Revoked, expired and changed keys are told once; added ones are just there."""
        ours, theirs = self.store(), self.store()
        self.assertEqual(ours.reload_if_changed(NOW), set())
        theirs.add("guest", expires=LATER)
        theirs.add("laptop")
        self.assertEqual(ours.reload_if_changed(NOW), set())
        self.assertIsNotNone(ours.lookup("laptop", NOW))
        theirs.revoke("client-1")
        theirs.revoke("laptop")
        theirs.add("laptop")
        self.assertEqual(ours.reload_if_changed(NOW), {"client-1", "laptop"})
        self.assertEqual(ours.reload_if_changed(NOW), set())
        self.assertEqual(ours.reload_if_changed(LATER), {"guest"})
        self.assertEqual(ours.reload_if_changed(LATER), set())

    def test_own_revocation_is_told_too(self) -> None:
        """A key that this very store revoked has ended like any other."""
        store = self.store()
        store.revoke("client-1")
        self.assertEqual(store.reload_if_changed(NOW), {"client-1"})

    def test_added_and_revoked_between_two_looks(self) -> None:
        """A key that lived for a moment only has ended all the same."""
        store = self.store()
        key = store.add("moment")
        self.assertTrue(store.is_good(key, NOW))
        store.revoke("moment")
        self.assertFalse(store.is_good(key, NOW))
        self.assertEqual(store.reload_if_changed(NOW), {"moment"})

    def test_another_key_of_the_same_name(self) -> None:
        """A session goes on with the very key it began with, in its role and time."""
        store = self.store()
        key = store.add("laptop", expires=LATER)
        self.assertTrue(store.is_good(replace(key, note="renamed"), NOW))
        self.assertFalse(store.is_good(replace(key, secret=SECRET), NOW))
        self.assertFalse(store.is_good(replace(key, role="agent"), NOW))
        self.assertFalse(store.is_good(key, LATER))

    def test_broken_reload_keeps_the_keys(self) -> None:
        """A file that breaks while we run is logged once, in one sentence, and changes nothing."""
        store = self.store()
        write_private(self.path, f'[keys.client-1]\nsecret = "{SECRET_TEXT}'.encode())
        self.assertEqual(store.reload_if_changed(NOW), set())
        self.assertEqual(store.reload_if_changed(NOW), set())
        self.assertIsNotNone(store.lookup("client-1", NOW))
        self.assertEqual(len(self.events), 1)
        self.assertNotIn(SECRET_TEXT[:16], str(self.events))
        self.path.unlink()
        self.assertEqual(store.reload_if_changed(NOW), set())
        self.assertIsNotNone(store.lookup("client-1", NOW))
        self.path.write_bytes(b"")
        self.path.chmod(0o600)
        self.assertEqual(store.reload_if_changed(NOW), {"client-1", "agent-1"})

    def test_complaints_again(self) -> None:
        """Who asks for it hears each time what is wrong, until nothing is."""
        store = self.store()
        good = self.path.read_bytes()
        store.complain_again()
        store.reload_if_changed(NOW)
        self.assertEqual((store.is_current, len(self.events)), (True, 0))
        write_private(self.path, b"nonsense")
        for _ in range(2):
            store.complain_again()
            store.reload_if_changed(NOW)
        self.path.unlink()
        for _ in range(2):
            store.complain_again()
            store.reload_if_changed(NOW)
        self.assertEqual((store.is_current, len(self.events)), (False, 4))
        write_private(self.path, good)
        store.reload_if_changed(NOW)
        self.assertTrue(store.is_current)

    def test_in_memory(self) -> None:
        """A store without a file starts with the same two keys and ends with the process."""
        store = KeyStore(None)
        self.assertEqual(ids(store), ["agent-1", "client-1"])
        store.add("laptop")
        store.revoke("agent-1")
        self.assertRaises(StartupError, store.revoke, "agent-1")
        self.assertEqual(store.reload_if_changed(NOW), {"agent-1"})

    def test_secrets_come_from_the_entropy(self) -> None:
        """Every key takes 32 bytes of what the store was given."""
        asked: list[int] = []

        def entropy(size: int) -> bytes:
            asked.append(size)
            return SECRET

        store = KeyStore(None, entropy=entropy)
        self.assertEqual(store.add("x"), Key("x", SECRET, "client"))
        self.assertEqual(asked, [32, 32, 32])
        self.assertNotIn("marked", repr(store) + repr(store.keys()) + repr(vars(store)))


class ReadLinkTests(LoggedTestCase):
    """A file that holds a link."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "client.link"
        self.link = Link("laptop", SECRET, "vps.example", 8443, (bytes(32),))

    def refused(self) -> str:
        """The sentence with which the file is refused; it shows no secret."""
        error = self.assertRaises(StartupError, read_link, self.path)
        self.assertNotIn(SECRET_TEXT[:16], str(error))
        self.assertNotIn("\n", str(error))
        self.assertIn("link", str(error)[:80])
        self.assertIn("client.link", str(error))
        return str(error)

    def test_reads_a_link(self) -> None:
        """The link, with or without a line break or a byte order mark, is read silently."""
        for text in ("{}", "{}\n", "\n {}\r\n\n", "\ufeff{}\n"):
            write_private(self.path, text.format(self.link.format()).encode())
            self.assertEqual(read_link(self.path), self.link)
        self.assertEqual(self.events, [])

    def test_open_mode_is_a_warning(self) -> None:
        """A link that others can read works, and the log says how to close it."""
        self.path.write_text(self.link.format())
        self.path.chmod(0o644)
        self.assertEqual(read_link(self.path), self.link)
        self.assertEqual(len(self.events), 1)
        self.assertNotIn(SECRET_TEXT[:16], str(self.events))

    def test_no_link_in_it(self) -> None:
        """Empty files, cut links and other files are told apart."""
        for data, words in (
            (b"", "empty"),
            (b" \n", "empty"),
            (self.link.format()[:60].encode(), "cut"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "link"),
            ((self.link.format() + "\n" + self.link.format()).encode(), "line break"),
            (b"\xff\0\xff" * 100, "no link"),
            (self.link.format().replace("vps.example", "HOST").encode(), "HOST"),
        ):
            write_private(self.path, data)
            self.assertIn(words, self.refused())

    def test_no_file(self) -> None:
        """Missing files, directories, FIFOs and huge files are refused, without waiting."""
        self.assertIn("does not exist", self.refused())
        self.path.mkdir()
        self.refused()
        self.path.rmdir()
        os.mkfifo(self.path)
        self.refused()
        self.path.unlink()
        write_private(self.path, b"x" * (MAX_LINK_FILE + 1))
        self.assertIn("larger", self.refused())
