"""Tests for L{stripetwist.net.files}."""

import os
import socket
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.files import (
    MAX_FILE,
    StartupError,
    file_stamp,
    private_complaint,
    read_file,
    read_private,
    take_lock,
    write_private,
)

SECRET = b"marked-secret"


def status(mode: int, uid: int) -> os.stat_result:
    """What the system would say of a file of that mode and owner."""
    return os.stat_result((mode, 1, 1, 1, uid, uid, 0, 0, 0, 0))


class ReadPrivateTests(SynchronousTestCase):
    """Reading what must be secret."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "keys.toml"

    def make(self, mode: int, data: bytes = SECRET) -> None:
        """The file, of that mode."""
        self.path.write_bytes(data)
        self.path.chmod(mode)

    def refused(self) -> str:
        """The sentence with which the file is refused: one line, without its content."""
        error = self.assertRaises(StartupError, read_private, self.path, "key file")
        self.assertNotIn("marked", str(error))
        self.assertNotIn("\n", str(error))
        self.assertIn("key file", str(error)[:80])
        self.assertIn("keys.toml", str(error))
        return str(error)

    def test_reads_a_private_file(self) -> None:
        """A file of mode 0600 is read whole."""
        self.make(0o600)
        self.assertEqual(read_private(self.path), SECRET)

    def test_empty_is_a_file(self) -> None:
        """What an empty file means is the reader's business."""
        self.make(0o400, b"")
        self.assertEqual(read_private(self.path), b"")

    def test_open_to_others(self) -> None:
        """Any right of group or others is too much, and the remedy is named."""
        for mode in (0o644, 0o640, 0o604, 0o620, 0o602, 0o601, 0o777):
            self.make(mode)
            self.assertIn("chmod 600", self.refused())

    def test_symbolic_link(self) -> None:
        """A link is refused even where it leads to a private file."""
        target = self.folder / "target"
        target.write_bytes(SECRET)
        target.chmod(0o600)
        self.path.symlink_to(target)
        self.assertIn("symbolic link", self.refused())

    def test_fifo(self) -> None:
        """A FIFO nobody writes to is refused at once."""
        os.mkfifo(self.path, 0o600)
        self.assertIn("no regular file", self.refused())

    def test_directory(self) -> None:
        """A directory is no file."""
        self.path.mkdir(0o700)
        self.assertIn("no regular file", self.refused())

    def test_socket(self) -> None:
        """A socket cannot even be opened."""
        here = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, here)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("keys.toml")
        os.chdir(here)
        self.refused()

    def test_device(self) -> None:
        """An endless device is refused before it is read."""
        error = self.assertRaises(StartupError, read_private, Path("/dev/zero"))
        self.assertIn("no regular file", str(error))

    def test_missing(self) -> None:
        """A missing file is called that."""
        self.assertIn("does not exist", self.refused())

    def test_too_large(self) -> None:
        """Files of the size of a mistake are not read into memory."""
        self.make(0o600)
        os.truncate(self.path, MAX_FILE + 1)
        self.assertIn("larger", self.refused())
        os.truncate(self.path, MAX_FILE)
        self.assertEqual(len(read_private(self.path)), MAX_FILE)

    def test_impossible_name(self) -> None:
        """A NUL in a name is a sentence like any other."""
        self.path = self.folder / "a\0keys.toml"
        self.refused()

    def test_owners(self) -> None:
        """Another user's file is refused, except by root; root's file is trusted."""
        mode = stat.S_IFREG | 0o600
        self.assertIsNone(private_complaint(status(mode, 1000), 1000))
        self.assertIsNone(private_complaint(status(mode, 1000), 0))
        self.assertIsNone(private_complaint(status(mode, 0), 1000))
        complaint = private_complaint(status(mode, 1001), 1000)
        self.assertIsNotNone(complaint)

    def test_links_where_allowed(self) -> None:
        """Files that need not be secret may be reached through links."""
        self.make(0o644)
        link = self.folder / "link"
        link.symlink_to(self.path.name)
        self.assertEqual(read_file(link, "certificate"), SECRET)


class WritePrivateTests(SynchronousTestCase):
    """Writing what must be secret."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "client.link"

    def assertPrivate(self) -> None:
        """The file is there, of mode 0600, and nothing else is."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["client.link"])

    def test_whatever_the_umask(self) -> None:
        """The mode is 0600 under every umask."""
        for mask in (0o000, 0o022, 0o077, 0o777):
            before = os.umask(mask)
            try:
                write_private(self.path, SECRET)
            finally:
                os.umask(before)
            self.assertPrivate()
            self.assertEqual(read_private(self.path), SECRET)

    def test_replaces(self) -> None:
        """An older file of any mode gives way."""
        self.path.write_bytes(b"old and longer than the new one")
        self.path.chmod(0o666)
        write_private(self.path, SECRET)
        self.assertPrivate()
        self.assertEqual(read_private(self.path), SECRET)

    def test_writes_through_no_link(self) -> None:
        """A planted link is replaced; what it leads to stays as it was."""
        victim = Path(self.mktemp())
        victim.write_bytes(b"untouched")
        self.path.symlink_to(victim)
        write_private(self.path, SECRET)
        self.assertFalse(self.path.is_symlink())
        self.assertEqual(victim.read_bytes(), b"untouched")

    def test_failure_leaves_nothing(self) -> None:
        """Where the file cannot be put in place, no other is left, and a sentence says so."""
        self.path.mkdir()
        error = self.assertRaises(StartupError, write_private, self.path, SECRET)
        self.assertNotIn("marked", str(error))
        self.assertEqual(os.listdir(self.folder), ["client.link"])

    def test_missing_folder(self) -> None:
        """A folder that is gone is a sentence."""
        self.assertRaises(StartupError, write_private, self.folder / "no" / "file", SECRET)


class LockTests(SynchronousTestCase):
    """Locks and stamps."""

    def test_one_at_a_time(self) -> None:
        """A lock is had by one until it is given back."""
        path = Path(self.mktemp())
        first = take_lock(path)
        assert first is not None
        self.assertIsNone(take_lock(path))
        os.close(first)
        second = take_lock(path)
        assert second is not None
        os.close(second)

    def test_no_place_for_a_lock(self) -> None:
        """A lock that cannot be made is a sentence."""
        self.assertRaises(StartupError, take_lock, Path(self.mktemp(), "lock"))

    def test_stamp_changes_with_the_file(self) -> None:
        """Replacing a file by one of the same size changes its stamp; none has none."""
        path = Path(self.mktemp())
        self.assertIsNone(file_stamp(path))
        write_private(path, b"one")
        before = file_stamp(path)
        self.assertEqual(file_stamp(path), before)
        write_private(path, b"two")
        self.assertNotEqual(file_stamp(path), before)
