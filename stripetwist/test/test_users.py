"""The users file, and the check of a login."""

import os
import queue
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net import userfile
from stripetwist.net.userfile import Secret, UsersError, add_user, parse_users
from stripetwist.net.users import MAX_CHECKS, REMEMBER, Threads, Users

WORD = b"secret"
OTHER_COST = "scrypt:4:2:2"


class HeldThreads:
    """Stands for C{deferToThread}: does its work when told, one after the other."""

    def __init__(self) -> None:
        self.work: list[tuple[Deferred[bool], Callable[..., bool], tuple[object, ...]]] = []
        self.started = 0
        self.is_held = True

    def __call__(self, work: Callable[..., bool], *args: object) -> Deferred[bool]:
        """Keep it, or do it."""
        self.started += 1
        if not self.is_held:
            return maybeDeferred(work, *args)
        waiting: Deferred[bool] = Deferred()
        self.work.append((waiting, work, args))
        return waiting

    def next(self) -> None:
        """Do the oldest work."""
        waiting, work, args = self.work.pop(0)
        waiting.callback(work(*args))


class UsersCase(SynchronousTestCase):
    """A users file with cheap secrets."""

    def setUp(self) -> None:
        """joe and ann, in a file of their own."""
        for name, value in (("COST_N", 16), ("COST_R", 1), ("COST_P", 1)):
            self.patch(userfile, name, value)
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.threads = HeldThreads()
        self.threads.is_held = False
        self.logs = capturedLogs()
        self.events = self.logs.__enter__()
        self.addCleanup(self.logs.__exit__, None, None, None)
        add_user(self.path, "joe", WORD.decode())
        add_user(self.path, "ann", "other")

    def build(self) -> Users:
        """The users of the file."""
        return Users(self.path, self.clock, self.threads)

    def write(self, text: str, mode: int = 0o600) -> None:
        """Another state of the file, told apart whatever the clock's resolution."""
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(self.path)

    def refusal(self, path: Path | None = None) -> str:
        """Why the file is refused."""
        with self.assertRaises(UsersError) as caught:
            Users(path or self.path, self.clock, self.threads)
        return str(caught.exception)

    def texts(self, lowest: LogLevel = LogLevel.info) -> list[str]:
        """What was logged from this level up."""
        return [str(formatEvent(e)) for e in self.events if e["log_level"] >= lowest]


class FileTests(UsersCase):
    """What stands in the file, and who may read it."""

    def test_a_new_file_is_its_owners_alone(self) -> None:
        """J07: whatever the umask; and holds no password."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        path = Path(self.mktemp())
        add_user(path, "joe", "canary7")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertNotIn("canary7", path.read_text())
        self.assertRegex(path.read_text(), r"^joe:scrypt:16:1:1:[\w-]{22}:[\w-]{43}\n$")

    def test_a_password_is_replaced_and_the_rest_stays(self) -> None:
        """Comments, other users and their order."""
        ann = self.path.read_text().splitlines()[1]
        self.write(f"# staff\n{ann}\n\n{self.path.read_text().splitlines()[0]}\n# end")
        add_user(self.path, "joe", "new")
        lines = self.path.read_text().splitlines()
        self.assertEqual(lines[:4], ["# staff", ann, "", "# end"])
        self.assertTrue(self.successResultOf(self.build().check(b"joe", b"new")))
        self.assertFalse(self.successResultOf(self.build().check(b"joe", WORD)))

    def test_nothing_else_is_left_in_the_folder(self) -> None:
        """The file is replaced by a rename."""
        folder = Path(self.mktemp())
        folder.mkdir()
        add_user(folder / "users", "joe", "x")
        add_user(folder / "users", "joe", "y")
        self.assertEqual(os.listdir(folder), ["users"])

    def test_a_link_to_the_file_stays_a_link(self) -> None:
        """What it leads to is replaced."""
        link = Path(self.mktemp())
        link.symlink_to(self.path.resolve())
        add_user(link, "joe", "new")
        self.assertTrue(link.is_symlink())
        self.assertTrue(self.successResultOf(self.build().check(b"joe", b"new")))

    def test_names_that_cannot_be(self) -> None:
        """They would break the line, or not fit into SOCKS."""
        for name in ("", "a:b", "#a", " a", "a ", "a\nb", "a\x1b", "a" * 256, "\udcff"):
            with self.assertRaises(UsersError, msg=repr(name)):
                add_user(self.path, name, "x")
        for word in ("", "x" * 256, "a\0", "a\0b"):
            with self.assertRaises(UsersError):
                add_user(self.path, "joe", word)

    def test_any_password_can_be(self) -> None:
        """Spaces, colons, line ends, other scripts, and what was no text at all."""
        for word in (" ", ":", "#", "a\nb", "пароль", "\udcff\udcfe"):
            add_user(self.path, "joe", word)
            raw = word.encode("utf-8", "surrogateescape")
            self.assertTrue(self.successResultOf(self.build().check(b"joe", raw)), repr(word))

    def test_a_folder_that_is_not_there(self) -> None:
        """One sentence, for reading and for writing."""
        path = Path(self.mktemp()) / "users"
        self.assertIn("No such file", self.refusal(path))
        with self.assertRaises(UsersError):
            add_user(path, "joe", "x")

    def test_a_file_that_others_may_read(self) -> None:
        """J01: refused, for reading and for adding."""
        for mode in (0o640, 0o604, 0o660, 0o644):
            self.path.chmod(mode)
            self.assertIn(f"(mode {mode:o}): chmod 600", self.refusal())
        with self.assertRaises(UsersError):
            add_user(self.path, "joe", "x")

    def test_what_is_no_file(self) -> None:
        """J01: a directory, a FIFO (which is not waited for), a device."""
        folder, fifo = Path(self.mktemp()), Path(self.mktemp())
        folder.mkdir(0o700)
        os.mkfifo(fifo, 0o600)
        for path in (folder, fifo, Path("/dev/null")):
            self.assertIn("not a plain file", self.refusal(path))

    def test_a_file_of_another_user(self) -> None:
        """J01: unless root has put it there."""
        self.patch(os, "geteuid", lambda: self.path.stat().st_uid + 1)
        if self.path.stat().st_uid == 0:
            self.assertEqual(len(self.build()), 2)
            os.chown(self.path, 12345, -1)
            self.patch(os, "geteuid", lambda: 12346)
        self.assertIn("belongs to another user", self.refusal())

    def test_a_file_that_is_too_large(self) -> None:
        """J01."""
        self.write("#" * (userfile.MAX_FILE + 1))
        self.assertIn("larger than", self.refusal())

    def test_a_file_that_names_nobody(self) -> None:
        """At the start that is a mistake."""
        self.write("# nobody yet\n")
        self.assertIn("stripetwist passwd", self.refusal())

    def test_bad_lines_are_named_by_number_only(self) -> None:
        """Their text may be a password."""
        line = self.path.read_text().splitlines()[0]
        name, scheme, n, r, p, salt, digest = line.split(":")
        bad = [
            "canary",
            "joe:canary",
            line + ":x",
            f":{scheme}:{n}:{r}:{p}:{salt}:{digest}",
            f"{name}:bcrypt:{n}:{r}:{p}:{salt}:{digest}",
            f"{name}:{scheme}:15:{r}:{p}:{salt}:{digest}",
            f"{name}:{scheme}:-16:{r}:{p}:{salt}:{digest}",
            f"{name}:{scheme}:1048576:8:{p}:{salt}:{digest}",
            f"{name}:{scheme}:{n}:0:{p}:{salt}:{digest}",
            f"{name}:{scheme}:{n}:{r}:0:{salt}:{digest}",
            f"{name}:{scheme}:{n}:{r}:17:{salt}:{digest}",
            f"{name}:{scheme}:{n}:{r}:x:{salt}:{digest}",
            f"{name}:{scheme}:{n}:{r}:{p}::{digest}",
            f"{name}:{scheme}:{n}:{r}:{p}:{salt}:",
            f"{name}:{scheme}:{n}:{r}:{p}:{salt}:{digest[:8]}",
            f"{name}:{scheme}:{n}:{r}:{p}:!{salt[1:]}:{digest}",
        ]
        for text in bad:
            self.write(f"# users\n{text}\n")
            why = self.refusal()
            self.assertIn("line 2 of", why, text)
            self.assertNotIn("canary", why)

    def test_a_user_twice(self) -> None:
        """Nobody could say which password holds."""
        line = self.path.read_text().splitlines()[0]
        self.write(f"{line}\n{line}\n")
        self.assertIn("line 2 of", self.refusal())

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=80))
    def test_any_text_is_read_or_refused(self, data: bytes) -> None:
        """With our own error, whatever it is."""
        for text in (data, b"joe:scrypt:16:1:1:" + data):
            try:
                parse_users(text, self.path)
            except UsersError:
                continue

    def test_secrets_are_in_no_repr(self) -> None:
        """Neither salt nor hash."""
        secret = Secret.of(b"canary7")
        for hidden in ("canary7", repr(secret.salt), repr(secret.hash)):
            self.assertNotIn(hidden, repr(secret))

    def test_the_default_cost(self) -> None:
        """Not less than what is recommended: 16 MiB, five times."""
        # The module's own values are patched in these tests; a fresh copy has them.
        source = Path(userfile.__file__).read_text()
        self.assertIn("COST_N, COST_R, COST_P = 2**14, 8, 5", source)


class CheckTests(UsersCase):
    """Who is let in, and at what cost."""

    def ask(self, users: Users, user: bytes, password: bytes) -> bool:
        """The verdict, which must be there."""
        return self.successResultOf(users.check(user, password))

    def test_verdicts(self) -> None:
        """A01 to A03, A08: compared as bytes, NUL at the end too."""
        users = self.build()
        self.assertIs(self.ask(users, b"joe", WORD), True)
        self.assertIs(self.ask(users, b"ann", b"other"), True)
        wrong = [(b"joe", b"other"), (b"jack", WORD), (b"JOE", WORD), (b"joe\0", WORD)]
        wrong += [(b"joe", WORD + b"\0"), (b"\xff\xfe", b"\x80"), (b"", b""), (b"# joe", WORD)]
        for user, password in wrong:
            self.assertIs(self.ask(users, user, password), False, (user, password))

    def test_a_user_who_is_not_there_costs_the_same(self) -> None:
        """A03: the same work with the same parameters."""
        line = self.path.read_text().splitlines()[0].split(":")
        self.write(":".join(["joe", *OTHER_COST.split(":"), *line[5:]]))
        self.threads.is_held = True
        users = self.build()
        for user in (b"joe", b"jack"):
            users.check(user, b"wrong")
        made: list[Any] = [getattr(work, "__self__", None) for _, work, _ in self.threads.work]
        costs = [(secret.n, secret.r, secret.p, len(secret.hash)) for secret in made]
        self.assertEqual(costs[0], costs[1])
        self.assertEqual(costs[0][:3], (4, 2, 2))

    def test_a_right_login_is_known_for_ten_minutes(self) -> None:
        """Then it is checked again."""
        users = self.build()
        for _ in range(3):
            self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertEqual(self.threads.started, 1)
        self.clock.advance(REMEMBER)
        self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertEqual(self.threads.started, 2)

    def test_a_known_login_opens_nothing_else(self) -> None:
        """Neither for another password, nor for another cut between name and password."""
        self.write(self.path.read_text().replace("joe", "jo"))
        users = self.build()
        self.assertTrue(self.ask(users, b"jo", WORD))
        self.assertFalse(self.ask(users, b"jo", WORD + b"x"))
        self.assertFalse(self.ask(users, b"jos", WORD[1:]))

    def test_a_wrong_login_is_checked_every_time(self) -> None:
        """Nothing is remembered of it."""
        users = self.build()
        for _ in range(3):
            self.assertFalse(self.ask(users, b"joe", b"x"))
        self.assertEqual(self.threads.started, 3)
        self.assertEqual(len(users._known) + len(users._checks), 0)

    def test_passwords_are_not_kept(self) -> None:
        """A13: what is remembered is a hash with a key of this process."""
        users, again = self.build(), self.build()
        self.ask(users, b"joe", WORD)
        self.ask(again, b"joe", WORD)
        self.assertNotIn("secret", repr(vars(users)))
        self.assertNotEqual(list(users._known), list(again._known))
        self.assertNotIn("secret", "".join(repr(e) for e in self.events))

    def test_few_checks_at_a_time(self) -> None:
        """The others wait their turn; everybody is answered."""
        self.threads.is_held = True
        users = self.build()
        asked = [users.check(b"joe", word) for word in (b"a", b"b", WORD, b"c", b"d")]
        self.assertEqual(self.threads.started, MAX_CHECKS)
        while self.threads.work:
            self.assertLessEqual(len(self.threads.work), MAX_CHECKS)
            self.threads.next()
        verdicts = [self.successResultOf(d) for d in asked]
        self.assertEqual(verdicts, [False, False, True, False, False])

    def test_the_same_login_at_the_same_time_is_checked_once(self) -> None:
        """A browser opens thirty connections at once."""
        self.threads.is_held = True
        users = self.build()
        asked = [users.check(b"joe", WORD) for _ in range(30)]
        self.assertEqual(self.threads.started, 1)
        self.threads.next()
        self.assertEqual([self.successResultOf(d) for d in asked], [True] * 30)

    def test_a_question_that_is_given_up(self) -> None:
        """Others who ask the same are answered; what nobody asks any more is not started."""
        self.threads.is_held = True
        users = self.build()
        running = [users.check(b"joe", word) for word in (b"a", b"b")]
        left, stays = users.check(b"joe", WORD), users.check(b"joe", WORD)
        gone = [users.check(b"joe", bytes([65 + i])) for i in range(20)]
        for asked in (left, running[0], *gone):
            asked.cancel()
            self.failureResultOf(asked)
        while self.threads.work:
            self.threads.next()
        self.assertEqual(self.threads.started, 3)
        self.assertTrue(self.successResultOf(stays))
        self.assertFalse(self.successResultOf(running[1]))
        self.assertEqual((len(users._checks), len(users._queue), users._running), (0, 0, 0))

    def test_a_waiter_may_ask_again_or_cancel_another(self) -> None:
        """Verdicts are told one by one."""
        self.threads.is_held = True
        users = self.build()
        first, second = users.check(b"joe", WORD), users.check(b"joe", WORD)
        first.addCallback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        again: list[Deferred[bool]] = []
        first.addCallback(lambda _: again.append(users.check(b"joe", WORD)))
        self.threads.next()
        self.assertTrue(self.successResultOf(again[0]))
        self.assertIsNone(self.successResultOf(second))

    def test_a_thread_that_fails(self) -> None:
        """Nobody is let in by it; the next check runs."""
        self.threads.is_held = True
        users = self.build()
        asked = users.check(b"joe", WORD)
        self.threads.work.pop()[0].errback(Failure(MemoryError("no room")))
        self.assertFalse(self.successResultOf(asked))
        self.assertEqual(self.texts(), ["a password could not be checked: no room"])
        self.threads.is_held = False
        self.assertTrue(self.ask(users, b"joe", WORD))


class ChangeTests(UsersCase):
    """The file changes under a running port."""

    def ask(self, users: Users, user: bytes, password: bytes) -> bool:
        """The verdict, which must be there."""
        return self.successResultOf(users.check(user, password))

    def test_a_new_user_is_let_in(self) -> None:
        """And the log says that the file was read."""
        users = self.build()
        add_user(self.path, "eve", "new")
        self.assertTrue(self.ask(users, b"eve", b"new"))
        self.assertEqual(self.texts(), ["read the users file again: 3 users"])

    def test_a_removed_user_is_forgotten(self) -> None:
        """Even one whose login was known."""
        users = self.build()
        self.assertTrue(self.ask(users, b"joe", WORD))
        self.write(self.path.read_text().splitlines()[1])
        self.assertFalse(self.ask(users, b"joe", WORD))
        self.assertEqual(self.texts(), ["read the users file again: 1 user"])
        self.write("")
        self.assertFalse(self.ask(users, b"ann", b"other"))
        self.assertEqual(len(users), 0)

    def test_a_verdict_by_the_old_file_is_not_remembered(self) -> None:
        """The file changed while the check ran."""
        self.threads.is_held = True
        users = self.build()
        users.check(b"joe", WORD)
        self.write(self.path.read_text().splitlines()[1])
        asked = users.check(b"joe", WORD)
        while self.threads.work:
            self.threads.next()
        self.assertFalse(self.successResultOf(asked))
        self.assertEqual((len(users._known), len(users._checks)), (0, 0))

    def test_a_broken_file_changes_nothing(self) -> None:
        """It is complained about once, until it is mended."""
        users = self.build()
        good = self.path.read_text()
        self.write("nonsense\n")
        for _ in range(3):
            self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertEqual(len(self.texts(LogLevel.error)), 1)
        self.assertIn("kept the users as they were: line 1 of", self.texts()[0])
        self.write(good)
        self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertEqual(self.texts()[1:], ["read the users file again: 2 users"])

    def test_a_file_opened_to_others_changes_nothing(self) -> None:
        """The mode counts as a change."""
        users = self.build()
        self.path.chmod(0o644)
        self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertIn("(mode 644)", self.texts(LogLevel.error)[0])

    def test_a_file_that_is_gone_changes_nothing(self) -> None:
        """An editor may be between two steps; if not, it is said, once."""
        users = self.build()
        self.path.unlink()
        self.assertTrue(self.ask(users, b"joe", WORD))
        self.assertFalse(self.ask(users, b"joe", b"x"))
        (line,) = self.texts(LogLevel.error)
        self.assertIn("no such file", line)

    def test_complaints_again(self) -> None:
        """Who asks for it hears each time what is wrong, until nothing is."""
        users = self.build()
        good = self.path.read_text()
        users.complain_again()
        users.refresh()
        self.assertEqual((users.is_current, self.texts()), (True, []))
        self.write("nonsense\n")
        for _ in range(2):
            users.complain_again()
            users.refresh()
        self.path.unlink()
        for _ in range(2):
            users.complain_again()
            users.refresh()
        self.assertFalse(users.is_current)
        kept = ["kept the users as they were" in line for line in self.texts()]
        self.assertEqual(kept, 4 * [True])
        self.write(good)
        users.refresh()
        self.assertTrue(users.is_current)


class LoopReactor:
    """What L{Threads} needs of a reactor: calls from threads, and an end."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.Queue()
        self.triggers: list[Callable[[], object]] = []

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        """See IReactorFromThreads."""
        self.calls.put((call, args))

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> object:
        """See IReactorCore."""
        self.triggers.append(call)
        return call

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        """See IReactorCore."""
        self.triggers.remove(trigger)

    def run_one(self) -> None:
        """Wait for a thread's call and make it."""
        call, args = self.calls.get(timeout=10)
        call(*args)


class ThreadsTests(UsersCase):
    """Real threads, without a reactor."""

    def test_a_login_is_checked_in_a_thread(self) -> None:
        """And answered on the reactor's."""
        reactor = LoopReactor()
        threads = Threads(reactor)
        self.addCleanup(threads.stop)
        users = Users(self.path, self.clock, threads)
        asked = users.check(b"joe", WORD)
        self.assertNoResult(asked)
        reactor.run_one()
        self.assertTrue(self.successResultOf(asked))

    def test_threads_end_with_the_reactor_or_before(self) -> None:
        """None is started before there is work, none is left behind."""
        reactor = LoopReactor()
        threads = Threads(reactor)
        threads.stop()
        self.assertEqual(reactor.triggers, [])
        done = threads(lambda: 7)
        reactor.run_one()
        self.assertEqual(self.successResultOf(done), 7)
        self.assertEqual(len(reactor.triggers), 1)
        threads.stop()
        self.assertEqual(reactor.triggers, [])
        self.assertEqual([t for t in threads._pool.threads if t.is_alive()], [])
