"""The command C{stripetwist}."""

import io
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import stripetwist
from stripetwist.cli import main
from stripetwist.core.link import Link
from stripetwist.net.keystore import KeyStore
from stripetwist.net.links import link_of, write_link, write_own_links
from stripetwist.net.state import StateDirectory


class Terminal(io.StringIO):
    """An input that is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class CliTestCase(SynchronousTestCase):
    """
    Runs the command in this process, with a state folder of its own.

    @ivar state: what C{--state} is.
    @ivar out: what the last command printed.
    @ivar err: what it complained of.
    """

    def setUp(self) -> None:
        # Short, since sockets are in it.
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.state = Path(folder.name)
        self.input: io.TextIOBase | None = None
        self.environ: dict[str, str] = {"HOME": folder.name}

    def run_command(self, *words: object) -> int:
        """What the command's exit code would be."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch("sys.stdout", out),
            patch("sys.stderr", err),
            patch("sys.stdin", self.input),
            patch.dict(os.environ, self.environ, clear=True),
        ):
            code = main([str(word) for word in words])
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def assert_refused(self, words: str, *command: object) -> None:
        """The command ends with 1 and one sentence, with those words in it."""
        self.assertEqual((self.run_command(*command), self.out), (1, ""))
        self.assertIn(words, self.err)
        self.assertEqual(self.err.count("\n"), 1)


class MainTests(CliTestCase):
    """The verbs."""

    def test_help_and_version(self) -> None:
        """Without anything it is help."""
        for words in ((), ("--help",), ("-h",)):
            self.assertEqual(self.run_command(*words), 0)
            verbs = "client", "server", "agent", "status", "demo", "bench", "key add", "passwd"
            for verb in (*verbs, "drain NAME"):
                self.assertIn(f"\n  {verb} ", self.out)
            self.assertLess(max(map(len, self.out.splitlines())), 101)
        self.assertEqual(self.run_command("--version"), 0)
        self.assertEqual(self.out, f"stripetwist {stripetwist.__version__}\n")

    def test_unknown_verbs_come_with_a_guess(self) -> None:
        """Or with the way to the list."""
        self.assert_refused("did you mean status?", "statsu")
        self.assert_refused("stripetwist --help lists", "frobnicate")
        self.assert_refused("did you mean revoke?", "key", "revok")

    def test_wrong_words_are_a_sentence(self) -> None:
        """Not argparse's usage and exit code 2; nothing is abbreviated."""
        self.assert_refused("unrecognized arguments: --js", "status", "--js")
        self.assert_refused("required: NAME", "key", "add")
        self.assert_refused("required: FILE, USER", "passwd")
        self.assert_refused("did you mean --seconds?", "demo", "--second", "9")
        self.assert_refused("there is no server to measure", "bench")

    def test_each_verb_has_its_help(self) -> None:
        """Which ends well."""
        verbs = ("status", "drain", "demo", "bench", "passwd", "key")
        for words in (*((verb,) for verb in verbs), ("key", "add"), ("key", "list")):
            self.assertEqual(self.run_command(*words, "--help"), 0)
            self.assertIn("sage: stripetwist", self.out)

    def test_client_and_server_are_the_twistd_commands(self) -> None:
        """With their options, their help and their refusals."""
        before = sys.argv
        for verb in ("client", "server", "agent"):
            self.assert_refused("did you mean --state?", verb, "--sate", "x")
            self.assertEqual(self.run_command(verb, "--help"), 0)
            self.assertIn(f"twistd -n --pidfile= stripe-{verb} [options]", self.out)
        self.assert_refused("there is no server to dial", "client")
        self.assertIs(sys.argv, before)


class ForegroundTests(SynchronousTestCase):
    """A twistd command that really runs."""

    def test_the_end_by_a_signal_is_clean_unless_streams_were_cut(self) -> None:
        """Under twistd itself it would be 143."""
        folder = Path(self.mktemp()).absolute()
        (folder / "twisted/plugins").mkdir(parents=True)
        (folder / "twisted/plugins/probe_plugin.py").write_text(
            "from twisted.application.service import ServiceMaker\n"
            "probe = ServiceMaker('probe', 'probe_tap', 'a probe', 'stripe-probe')\n"
        )
        (folder / "probe_tap.py").write_text(
            "import os\n"
            "from twisted.application.service import Service\n"
            "from twisted.python.usage import Options\n"
            "def makeService(options):\n"
            "    from twisted.internet import reactor\n"
            "    reactor.callWhenRunning(os.kill, os.getpid(), 15)\n"
            "    service = Service()\n"
            "    service.exit_code = 3\n"
            "    return service\n"
        )
        run = (
            "import sys; from stripetwist.cli import run_in_foreground as run\n"
            "code = run('stripe-probe', []); print('code', code); sys.exit(code)"
        )
        root = Path(stripetwist.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", run],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{root}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stderr, done.returncode), ("", 3))
        self.assertIn("SIGTERM", done.stdout)
        self.assertTrue(done.stdout.endswith("\ncode 3\n"))
        self.assertFalse((folder / "twistd.pid").exists())


class AskTestCase(CliTestCase):
    """
    Asks processes of the test's own.

    @ivar asked: what came in.
    """

    def serve(self, role: str, reply: bytes) -> Path:
        """A process that answers once."""
        self.asked: list[bytes] = []
        state = StateDirectory(self.state, role, {})
        state.path.mkdir()
        path = state.control_path()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            wire, _ = listener.accept()
            with listener, wire:
                self.asked.append(wire.recv(1000))
                wire.sendall(reply)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return path


class DrainTests(AskTestCase):
    """C{stripetwist drain}."""

    def answered(self, reply: object) -> None:
        """A server runs that gives that answer."""
        self.serve("server", json.dumps(reply).encode() + b"\n")

    def test_it_is_told_what_there_is_to_wait_for(self) -> None:
        """In words that fit the number."""
        for streams, words in ((0, "has none, and is let go"),
                               (1, "is let go once the one that it has is done"),
                               (3, "is let go once the 3 that it has are done")):  # fmt: skip
            with TemporaryDirectory() as folder:
                self.state = Path(folder)
                self.answered({"ok": True, "result": {"name": "attic", "streams": streams}})
                self.assertEqual(self.run_command("drain", "attic", "--state", self.state), 0)
            self.assertTrue(self.out.startswith("attic gets no more streams, "))
            self.assertIn(words, self.out)
            self.assertEqual(json.loads(self.asked[0]), {"command": "drain", "name": "attic"})

    def test_refusals(self) -> None:
        """Of the server, or for want of one; a client is not asked."""
        where = ("--state", self.state)
        self.assert_refused("required: NAME", "drain")
        self.assert_refused("no server of this user runs here", "drain", "attic", *where)
        self.answered({"ok": False, "error": 'there is no agent "attic" here'})
        StateDirectory(self.state, "client", {}).path.mkdir()
        self.assert_refused('there is no agent "attic" here', "drain", "attic", *where)


class StatusTests(AskTestCase):
    """C{stripetwist status}."""

    def test_nothing_runs(self) -> None:
        """A dead socket is no instance."""
        self.assert_refused("no stripetwist of this user", "status", "--state", self.state)
        state = StateDirectory(self.state, "client", {})
        state.path.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(state.control_path()))
        self.assert_refused("no stripetwist", "status", "--state", self.state)

    def test_every_instance_is_shown(self) -> None:
        """One after the other."""
        for role in ("client", "server"):
            result: dict[str, object] = {"role": role, "pid": 7, "started": 0, "sessions": []}
            self.serve(role, json.dumps({"ok": True, "result": result}).encode() + b"\n")
        self.assertEqual(self.run_command("status", "--state", self.state), 0)
        roles = [line.split()[:3] for line in self.out.splitlines() if line]
        self.assertEqual(roles, [["client", "pid", "7"], ["server", "pid", "7"]])

    def test_snapshots_as_json(self) -> None:
        """A list of them, as they came; the state folder may be a variable."""
        self.serve("client", b'{"ok":true,"result":{"version":1}}\n')
        self.environ["STRIPETWIST_STATE"] = str(self.state)
        self.assertEqual(self.run_command("status", "--json"), 0)
        self.assertEqual(json.loads(self.out), [{"version": 1}])

    def test_an_instance_that_does_not_answer_well_is_told_of(self) -> None:
        """The others are shown all the same."""
        self.serve("client", b'{"ok":false,"error":"busy"}\n')
        self.serve("server", b'{"ok":true,"result":{"role":"server"}}\n')
        self.assertEqual(self.run_command("status", "--state", self.state), 0)
        self.assertEqual(self.err, "busy\n")
        self.assertTrue(self.out.startswith("server "))

    def test_only_snapshots_are_shown(self) -> None:
        """A result of another kind is a complaint."""
        self.serve("client", b'{"ok":true,"result":[]}\n')
        self.assertEqual(self.run_command("status", "--state", self.state), 1)
        self.assertIn("makes no sense", self.err)


class KeyTests(CliTestCase):
    """C{stripetwist key}."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.state / "server"
        self.folder.mkdir(mode=0o700)
        store = KeyStore(self.folder / "keys.toml", create=True)
        self.first = store.keys()[1]
        self.link = Link("client-1", self.first.secret, "vps.example", 8443, (bytes(32),))
        write_link(self.folder, "client", self.link)
        self.environ["STRIPETWIST_STATE"] = str(self.state)

    def keys(self) -> dict[str, str]:
        """The keys in the file, and their roles."""
        found = KeyStore(self.folder / "keys.toml").keys()
        return {key.id: key.role for key in found}

    def test_a_key_is_added_with_its_link(self) -> None:
        """The link's file is named; the link, a password, is not shown."""
        self.assertEqual(self.run_command("key", "add", "laptop", "--expires", "2999-12-31"), 0)
        path = self.folder / "laptop.link"
        self.assertEqual(self.out, f"{path}\n")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        link = Link.parse(path.read_text())
        key = KeyStore(self.folder / "keys.toml").keys()[2]
        self.assertEqual(link, link_of(key, self.link))
        self.assertEqual(
            (key.id, key.role, str(key.expires)[:10]), ("laptop", "client", "2999-12-31")
        )

    def test_an_agent_key_is_for_that_name(self) -> None:
        """And no other."""
        self.assertEqual(self.run_command("key", "add", "attic", "--agent"), 0)
        self.assertEqual(self.keys()["attic"], "agent")

    def test_a_link_without_an_address_says_so(self) -> None:
        """On the side, where scripts do not stumble over it."""
        write_link(self.folder, "client", Link("client-1", bytes(32), "HOST", 1, (), True))
        self.assertEqual(self.run_command("key", "add", "laptop"), 0)
        self.assertEqual(self.out, f"{self.folder / 'laptop.link'}\n")
        self.assertIn("HOST", self.err)

    def test_a_key_is_shown_because_the_user_asks(self) -> None:
        """As its link."""
        self.assertEqual(self.run_command("key", "show", "client-1"), 0)
        self.assertEqual(self.out, self.link.format() + "\n")

    def test_a_list_shows_no_secrets(self) -> None:
        """Names, roles, times."""
        self.run_command("key", "add", "laptop", "--expires", "2999-12-31")
        self.assertEqual(self.run_command("key", "list"), 0)
        self.assertEqual([line.split()[0] for line in self.out.splitlines()],
                         ["NAME", "agent-1", "client-1", "laptop"])  # fmt: skip
        self.assertIn("2999-12-31", self.out)
        self.assertNotIn(self.link.format().split(":")[2][:43], self.out)

    def test_a_list_says_which_are_over(self) -> None:
        """A key whose day has come is refused; the list says so."""
        self.run_command("key", "add", "laptop", "--expires", "2999-12-31")
        keys = self.folder / "keys.toml"
        keys.write_text(keys.read_text().replace("2999", "2019"))
        self.assertEqual(self.run_command("key", "list"), 0)
        self.assertRegex(self.out, r"laptop .*2019-12-31.*, over")

    def test_a_revoked_key_is_gone_with_its_link(self) -> None:
        """The server's own link file stays: it says where the server is."""
        self.run_command("key", "add", "laptop")
        self.assertEqual(self.run_command("key", "revoke", "laptop"), 0)
        self.assertNotIn("client.link", self.out)
        self.assertEqual(self.run_command("key", "revoke", "client-1"), 0)
        self.assertIn("\nclient.link opens nothing now; stripetwist key add NAME makes", self.out)
        self.assertEqual(self.keys(), {"agent-1": "agent"})
        self.assertFalse((self.folder / "laptop.link").exists())
        self.assertIn("//nobody:", (self.folder / "client.link").read_text())

    def test_a_revoked_key_of_agents(self) -> None:
        """The way to another one is said as well."""
        keys = KeyStore(self.folder / "keys.toml").keys()
        write_own_links(self.folder, keys, self.link)
        self.assertEqual(self.run_command("key", "revoke", "agent-1"), 0)
        self.assertIn("\nagent.link opens nothing now; stripetwist key add NAME --agent ", self.out)

    def test_a_revoked_key_leaves_its_file_to_no_other_person(self) -> None:
        """Only to a key of a like name, and the user is told which."""
        for name in ("anna", "client-2"):
            self.run_command("key", "add", name)
        self.assertEqual(self.run_command("key", "revoke", "client-1"), 0)
        self.assertIn("\nclient.link is now the link of client-2\n", self.out)
        self.assertIn("//client-2:", (self.folder / "client.link").read_text())

    def test_refusals(self) -> None:
        """Each changes nothing."""
        before = self.keys()
        self.assert_refused("already", "key", "add", "client-1")
        self.assert_refused("choose another name", "key", "add", "client")
        self.assert_refused("a key's name is", "key", "add", "A B")
        self.assert_refused("that is over", "key", "add", "x", "--expires", "2020-01-01")
        self.assert_refused("such as 2030-12-31", "key", "add", "x", "--expires", "soon")
        for verb in ("show", "revoke"):
            unknown = "there is no key client1; did you mean client-1?"
            self.assert_refused(unknown, "key", verb, "client1")
            for name in ("x", "client-2", "client"):
                unknown = f"there is no key {name}; stripetwist key list shows them"
                self.assert_refused(unknown, "key", verb, name)
        self.assertEqual(self.keys(), before)
        self.assertEqual(self.run_command("key"), 1)

    def test_without_a_server_there_is_nothing_to_add_to(self) -> None:
        """The sentence says what makes the keys, and what the links."""
        self.assert_refused("start stripe-server once", "key", "list", "--state", "/nowhere")
        (self.folder / "client.link").unlink()
        self.assert_refused("no server has written a link", "key", "add", "laptop")
        self.assertNotIn("laptop", self.keys())

    def test_the_key_file_may_be_elsewhere(self) -> None:
        """By option or by variable, as for the server."""
        path = self.state / "k.toml"
        KeyStore(path, create=True)
        self.assertEqual(self.run_command("key", "add", "laptop", "--keys", path), 0)
        self.environ["STRIPETWIST_KEYS"] = str(path)
        self.assertEqual(self.run_command("key", "show", "laptop"), 0)
        self.assertNotIn("laptop", self.keys())


class PasswdTests(CliTestCase):
    """C{stripetwist passwd}."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.state / "users"

    def test_a_line_of_the_input_is_the_password(self) -> None:
        """Where it is no terminal; any bytes will do."""
        self.input = io.TextIOWrapper(io.BytesIO(b"s3cret \xff\r\nmore\n"))
        self.assertEqual(self.run_command("passwd", self.file, "ann"), 0)
        self.assertEqual((self.out, self.err), ("", ""))
        self.assertTrue(self.file.read_text().startswith("ann:scrypt:"))
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)

    def test_a_terminal_is_asked_twice(self) -> None:
        """And the answers must be the same."""
        self.input = Terminal()
        answers = iter(["one", "two"])
        with patch("getpass.getpass", lambda prompt: next(answers)):
            self.assert_refused("the two passwords differ", "passwd", self.file, "ann")
        self.assertFalse(self.file.exists())

    def test_no_password_no_user(self) -> None:
        """Closed, ended, empty or interrupted."""
        self.assert_refused("no password came in", "passwd", self.file, "ann")
        self.input = io.TextIOWrapper(io.BytesIO(b""))
        self.assert_refused("no password came in", "passwd", self.file, "ann")
        self.input = io.TextIOWrapper(io.BytesIO(b"\n"))
        self.assert_refused("bytes long", "passwd", self.file, "ann")
        self.input = Terminal()

        def interrupt(prompt: str) -> str:
            raise KeyboardInterrupt

        with patch("getpass.getpass", interrupt):
            self.assert_refused("interrupted", "passwd", self.file, "ann")
        self.assertFalse(self.file.exists())

    def test_an_impossible_name_is_refused(self) -> None:
        """As the file's own rules have it."""
        self.input = io.TextIOWrapper(io.BytesIO(b"x\n"))
        self.assert_refused("cannot be a user name", "passwd", self.file, "a:b")
