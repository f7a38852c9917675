"""Tests for L{stripetwist.net.state}."""

import os
import resource
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.files import StartupError
from stripetwist.net.state import (
    StateDirectory,
    find_control_sockets,
    folder_complaint,
    forbid_core_dumps,
    make_folder,
    state_base,
)


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


class BaseTests(SynchronousTestCase):
    """Where state is kept by default."""

    def test_order(self) -> None:
        """systemd's directory, else XDG's, else the one in the home."""
        environ = {"HOME": "/home/ann"}
        self.assertEqual(state_base(environ), Path("/home/ann/.local/state/stripetwist"))
        environ["XDG_STATE_HOME"] = "/xdg"
        self.assertEqual(state_base(environ), Path("/xdg/stripetwist"))
        environ["STATE_DIRECTORY"] = "/var/lib/stripetwist:/var/lib/other"
        self.assertEqual(state_base(environ), Path("/var/lib/stripetwist"))

    def test_relative_xdg_is_ignored(self) -> None:
        """A relative XDG_STATE_HOME means nothing."""
        environ = {"HOME": "/home/ann", "XDG_STATE_HOME": "state"}
        self.assertEqual(state_base(environ), Path("/home/ann/.local/state/stripetwist"))

    def test_no_home_in_the_environment(self) -> None:
        """Without HOME the user database tells."""
        self.assertTrue(state_base({}).is_absolute())


class StateDirectoryTests(SynchronousTestCase):
    """One role's folder."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.base = self.root / "state"
        self.environ = {"HOME": str(self.root)}

    def directory(self, role: str = "server") -> StateDirectory:
        """A directory below the test's own root, closed when the test ends."""
        directory = StateDirectory(self.base, role, self.environ)
        self.addCleanup(directory.close)
        return directory

    def refused(self, directory: StateDirectory) -> str:
        """The sentence with which the folder is refused."""
        error = self.assertRaises(StartupError, directory.open)
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_made_for_this_user_only(self) -> None:
        """The folder and all that was missing above it are 0700, whatever the umask."""
        before = os.umask(0)
        try:
            self.directory().open()
        finally:
            os.umask(before)
        for folder in (self.root, self.base, self.base / "server"):
            self.assertEqual(mode(folder), 0o700)
        self.assertEqual(mode(self.base / "server" / "lock"), 0o600)

    def test_default_place(self) -> None:
        """Without a base the environment tells, and the path is absolute."""
        directory = StateDirectory(None, "client", self.environ)
        self.assertEqual(directory.path, self.root / ".local/state/stripetwist/client")
        self.assertTrue(StateDirectory(Path("x"), "client", {}).path.is_absolute())

    def test_world_writable_is_refused(self) -> None:
        """Neither the folder nor the one above it may be open to everybody."""
        self.directory().open()
        self.base.chmod(0o777)
        self.assertIn("chmod 700", self.refused(self.directory("client")))
        self.base.chmod(0o755)
        (self.base / "client").chmod(0o770)
        self.assertIn("chmod 700", self.refused(self.directory("client")))

    def test_file_in_the_way(self) -> None:
        """A file where the folder belongs is a sentence that names --state."""
        self.root.mkdir()
        self.base.write_text("")
        self.assertIn("--state", self.refused(self.directory()))

    def test_foreign_folder(self) -> None:
        """Another user's folder is refused, except by root."""
        status = os.stat_result((stat.S_IFDIR | 0o700, 1, 1, 1, 1001, 1001, 0, 0, 0, 0))
        self.assertIsNotNone(folder_complaint(status, 1000, 0o022))
        self.assertIsNone(folder_complaint(status, 1001, 0o022))
        self.assertIsNone(folder_complaint(status, 0, 0o022))

    def test_second_process_is_refused(self) -> None:
        """Whoever comes second learns which folder is taken, and what to give."""
        first = self.directory()
        first.open()
        sentence = self.refused(self.directory())
        self.assertIn(str(self.base / "server"), sentence)
        self.assertIn("--state", sentence)
        self.directory("client").open()
        first.close()
        first.close()
        self.directory().open()

    def test_keeps_files(self) -> None:
        """What was written privately is read back."""
        directory = self.directory()
        directory.open()
        self.assertFalse(directory.has("client.link"))
        directory.write_private("client.link", b"secret")
        self.assertTrue(directory.has("client.link"))
        self.assertEqual(directory.read_private("client.link"), b"secret")
        self.assertEqual(mode(directory.path / "client.link"), 0o600)
        (directory.path / "client.link").chmod(0o644)
        self.assertRaises(StartupError, directory.read_private, "client.link")

    def test_folder_that_cannot_be_made(self) -> None:
        """What the system says about an impossible place ends up in the sentence."""
        error = self.assertRaises(StartupError, make_folder, Path("/proc/nothing/here"))
        self.assertIn("--state", str(error))
        error = self.assertRaises(StartupError, make_folder, self.root / ("x" * 300))
        self.assertNotIn("\n", str(error))


class ControlSocketTests(SynchronousTestCase):
    """Where a running process is asked for its status."""

    def setUp(self) -> None:
        # The path of a socket must be short, and trial's own folder may be deep.
        self.root = Path(tempfile.mkdtemp(prefix="st-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.runtime = self.root / "r"
        self.runtime.mkdir(0o700)
        self.environ = {"HOME": str(self.root), "XDG_RUNTIME_DIR": str(self.runtime)}

    def listen(self, path: Path) -> None:
        """A dead socket at that place."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))

    def test_in_the_runtime_directory(self) -> None:
        """One socket per state folder, in a folder that only the user can enter."""
        first = StateDirectory(self.root / "a", "client", self.environ)
        again = StateDirectory(self.root / "a", "client", self.environ)
        other = StateDirectory(self.root / "b", "client", self.environ)
        self.assertEqual(first.control_path().parent, self.runtime / "stripetwist")
        self.assertEqual(mode(self.runtime / "stripetwist"), 0o700)
        self.assertRegex(first.control_path().name, r"^client-[0-9a-f]{12}\.sock$")
        self.assertEqual(first.control_path(), again.control_path())
        self.assertNotEqual(first.control_path(), other.control_path())

    def test_in_the_state_folder(self) -> None:
        """Without a runtime directory of this user the socket is with the state."""
        state = Path("/s/stripetwist")
        place = state / "server" / "control.sock"
        for environ in ({}, {"XDG_RUNTIME_DIR": "relative"}, {"XDG_RUNTIME_DIR": "/none"}):
            directory = StateDirectory(state, "server", environ)
            self.assertEqual(directory.control_path(), place)
        self.runtime.chmod(0o777)
        self.assertEqual(StateDirectory(state, "server", self.environ).control_path(), place)

    def test_runtime_folder_taken(self) -> None:
        """A runtime folder that others can write to, or that is a file, is not used."""
        state = Path("/s/stripetwist")
        place = state / "server" / "control.sock"
        (self.runtime / "stripetwist").write_text("")
        self.assertEqual(StateDirectory(state, "server", self.environ).control_path(), place)
        (self.runtime / "stripetwist").unlink()
        (self.runtime / "stripetwist").mkdir()
        (self.runtime / "stripetwist").chmod(0o777)
        self.assertEqual(StateDirectory(state, "server", self.environ).control_path(), place)

    def test_too_long_for_a_socket(self) -> None:
        """A state folder too deep for a socket is a sentence before anything listens."""
        directory = StateDirectory(Path("/" + "x" * 120), "server", {})
        error = self.assertRaises(StartupError, directory.control_path)
        self.assertIn("--state", str(error))

    def test_finds_every_instance(self) -> None:
        """Sockets in the runtime directory, the default state and the system's are found."""
        system = self.root / "system"
        places = [
            self.runtime / "stripetwist" / "client-0123.sock",
            self.root / ".local/state/stripetwist/server/control.sock",
            system / "agent" / "control.sock",
        ]
        for place in places:
            self.listen(place)
        (self.runtime / "stripetwist" / "other.sock").write_text("no socket")
        found = find_control_sockets(self.environ, system=system)
        self.assertEqual(sorted(found), sorted(places))

    def test_finds_by_state(self) -> None:
        """With a base only its instances are found, wherever their socket is."""
        base = self.root / "a"
        places = StateDirectory(base, "client", self.environ).control_places()
        for place in places:
            self.listen(place)
        self.listen(self.runtime / "stripetwist" / "client-0123.sock")
        self.assertEqual(sorted(find_control_sockets(self.environ, base)), sorted(places))

    def test_nothing_runs(self) -> None:
        """No instance, no socket."""
        self.assertEqual(find_control_sockets(self.environ, system=self.root / "no"), [])


class CoreDumpTests(SynchronousTestCase):
    """Secrets stay in memory."""

    def test_no_core_dumps(self) -> None:
        """After the call no core file is written."""
        forbid_core_dumps()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_CORE), (0, 0))
