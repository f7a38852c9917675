"""L{stripetwist.net.resolver}: an answer within the time, whatever the threads do."""

import errno
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.zones import Address
from stripetwist.net import resolver
from stripetwist.net.resolver import (
    KEPT_FOR,
    MOST_ADDRESSES,
    MOST_KEPT,
    Outcome,
    Resolver,
    daemon_threads,
)


def rows(*addresses: str) -> list[tuple[Any, ...]]:
    """What C{getaddrinfo} says."""
    found: list[tuple[Any, ...]] = []
    for text in addresses:
        tail = (text, 0, 0, 0) if ":" in text else (text, 0)
        found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", tail))
    return found


class NameServer:
    """Answers by table; an exception in it is raised.  Unlisted names exist nowhere."""

    def __init__(self) -> None:
        self.table: dict[str, list[tuple[Any, ...]] | Exception] = {}
        self.asked: list[bytes] = []

    def __call__(self, name: bytes, *rest: object) -> list[tuple[Any, ...]]:
        self.asked.append(name)
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = self.table.get(name.decode("ascii"), unknown)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Threads:
    """Threads that work when told, and hang until then."""

    def __init__(self) -> None:
        self.works: list[tuple[Callable[[], Outcome], Callable[[Outcome], None]]] = []
        self.error: Exception | None = None

    def __call__(self, work: Callable[[], Outcome], done: Callable[[Outcome], None]) -> None:
        if self.error is not None:
            raise self.error
        self.works.append((work, done))

    def finish(self, number: int = 0) -> None:
        """One thread does its work and is gone."""
        work, done = self.works.pop(number)
        done(work())

    def finish_all(self) -> None:
        """Until none is left, those included that start meanwhile."""
        while self.works:
            self.finish()


class ResolverTestCase(SynchronousTestCase):
    """A resolver on a clock of its own; at the end no timer may be left."""

    def setUp(self) -> None:
        """Nothing is known and nobody waits."""
        self.clock = Clock()
        self.server = NameServer()
        self.threads = Threads()
        self.resolver = self.make()

    def make(self, threads: int = 64, waiting: int = 1024) -> Resolver:
        """A resolver with those bounds."""
        return Resolver(
            self.clock, self.threads, self.server, timeout=5.0, threads=threads, waiting=waiting
        )

    def tearDown(self) -> None:
        """Once all threads are back and the time is over, nothing is left."""
        self.threads.finish_all()
        self.assertEqual(self.resolver.busy, 0)
        self.assertEqual(self.resolver.hanging, 0)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self, name: str, number: int = 0) -> list[str]:
        """The addresses of a name whose thread works at once."""
        waiting = self.resolver.resolve(name)
        self.threads.finish(number)
        return [str(each) for each in self.successResultOf(waiting)]

    def refused(self, waiting: Deferred[list[Address]]) -> OpenRefused:
        """Why it was refused."""
        error = self.failureResultOf(waiting, OpenRefused).value
        assert isinstance(error, OpenRefused)
        self.assertTrue(error.sentence.isascii() and error.sentence.isprintable())
        return error


class AnswerTests(ResolverTestCase):
    """What comes out of a lookup."""

    def test_addresses_in_their_order(self) -> None:
        """Once each, IPv4-mapped ones plain, scopes dropped; the system's order is kept."""
        self.server.table["a.test"] = rows("2001:db8::1", "10.0.0.1", "10.0.0.1", "fe80::1%eth0")
        self.assertEqual(self.ask("a.test"), ["2001:db8::1", "10.0.0.1", "fe80::1"])
        self.server.table["b.test"] = rows("::ffff:10.0.0.2", "10.0.0.2")
        self.assertEqual(self.ask("b.test"), ["10.0.0.2"])

    def test_name_goes_down_as_bytes(self) -> None:
        """So that no codec stands in between, nor has to be imported."""
        self.server.table["xn--bcher-kva.test"] = rows("10.0.0.1")
        self.ask("xn--bcher-kva.test")
        self.assertEqual(self.server.asked, [b"xn--bcher-kva.test"])

    def test_localhost_is_never_looked_up(self) -> None:
        """Neither it nor what lies below."""
        for name in ("localhost", "x.localhost"):
            found = self.successResultOf(self.resolver.resolve(name))
            self.assertEqual([str(each) for each in found], ["127.0.0.1", "::1"])
        self.assertEqual(self.server.asked, [])

    def test_addresses_are_bounded(self) -> None:
        """A zone with thousands of them does not fill the memory."""
        self.server.table["many.test"] = rows(*(f"10.0.{n // 250}.{n % 250}" for n in range(2000)))
        self.assertEqual(len(self.ask("many.test")), MOST_ADDRESSES)

    def test_unknown_name(self) -> None:
        """Says so; an empty answer is the same."""
        self.server.table["empty.test"] = []
        for name in ("none.test", "empty.test"):
            waiting = self.resolver.resolve(name)
            self.threads.finish()
            error = self.refused(waiting)
            self.assertIs(error.code, Code.DNS_FAIL)
            self.assertEqual(error.sentence, f"{name} has no address: no such name")

    def test_whatever_is_raised_is_an_answer(self) -> None:
        """No exception in a thread leaves anyone waiting (fault 38)."""
        cases = [
            (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), Code.DNS_FAIL),
            (socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"), Code.DNS_FAIL),
            (OSError(errno.EIO, "I/O error"), Code.DNS_FAIL),
            (UnicodeError("label too long"), Code.DNS_FAIL),
            (LookupError("unknown encoding: idna"), Code.DNS_FAIL),
            (ValueError(""), Code.DNS_FAIL),
            (OSError(errno.EMFILE, "Too many open files"), Code.OVERLOAD),
            (OSError(errno.ENFILE, "Too many open files in system"), Code.OVERLOAD),
            (MemoryError(), Code.OVERLOAD),
        ]
        for error, code in cases:
            self.server.table["bad.test"] = error
            waiting = self.resolver.resolve("bad.test")
            self.threads.finish()
            self.assertIs(self.refused(waiting).code, code, repr(error))
        self.assertEqual(self.resolver.failed, len(cases))

    def test_rows_that_make_no_sense(self) -> None:
        """Are a failed lookup too."""
        for answer in ([()], [(1, 2, 3, "", ("nonsense", 0))], [(1, 2, 3, "", ())]):
            self.server.table["odd.test"] = answer
            waiting = self.resolver.resolve("odd.test")
            self.threads.finish()
            self.assertIs(self.refused(waiting).code, Code.DNS_FAIL)

    def test_unknown_name_without_descriptors_is_no_answer(self) -> None:
        """The system says "not known" when it cannot open its own files (fault 40)."""
        self.patch(resolver, "is_short_of_descriptors", lambda: True)
        waiting = self.resolver.resolve("good.test")
        self.threads.finish()
        error = self.refused(waiting)
        self.assertIs(error.code, Code.OVERLOAD)
        self.assertIn("file descriptors", error.sentence)

    def test_long_names_do_not_hide_the_reason(self) -> None:
        """A sentence stays within what is shown."""
        name = ".".join(["a" * 63] * 3)
        waiting = self.resolver.resolve(name)
        self.threads.finish()
        self.assertLess(len(self.refused(waiting).sentence), 256)


class KeptTests(ResolverTestCase):
    """Answers that are used again."""

    def test_kept_for_a_few_seconds(self) -> None:
        """Then asked anew."""
        self.server.table["a.test"] = rows("10.0.0.1")
        self.ask("a.test")
        self.server.table["a.test"] = rows("10.0.0.2")
        self.clock.advance(KEPT_FOR - 0.1)
        found = self.successResultOf(self.resolver.resolve("a.test"))
        self.assertEqual([str(each) for each in found], ["10.0.0.1"])
        found.clear()
        self.assertNotEqual(self.successResultOf(self.resolver.resolve("a.test")), [])
        self.clock.advance(0.2)
        self.assertEqual(self.ask("a.test"), ["10.0.0.2"])

    def test_failures_are_not_kept(self) -> None:
        """A name that comes to life is found at once."""
        waiting = self.resolver.resolve("a.test")
        self.threads.finish()
        self.refused(waiting)
        self.server.table["a.test"] = rows("10.0.0.1")
        self.assertEqual(self.ask("a.test"), ["10.0.0.1"])

    def test_bounded(self) -> None:
        """The oldest makes room."""
        for number in range(MOST_KEPT + 1):
            self.server.table[f"n{number}.test"] = rows("10.0.0.1")
            self.ask(f"n{number}.test")
        self.ask("n0.test")
        self.successResultOf(self.resolver.resolve(f"n{MOST_KEPT}.test"))


class WaitTests(ResolverTestCase):
    """Who waits, for how long, and with whom."""

    def test_time_limit_is_ours(self) -> None:
        """A thread that hangs costs its waiter 5 s, not more (fault 36)."""
        waiting = self.resolver.resolve("slow.test")
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        error = self.refused(waiting)
        self.assertIs(error.code, Code.DNS_TIMEOUT)
        self.assertIn("within 5 s", error.sentence)
        self.assertEqual((self.resolver.timed_out, self.resolver.hanging), (1, 1))

    def test_same_name_is_looked_up_once(self) -> None:
        """All who ask meanwhile get the answer, each a list of its own."""
        self.server.table["a.test"] = rows("10.0.0.1")
        waiting = [self.resolver.resolve("a.test") for _ in range(3)]
        self.assertEqual(len(self.threads.works), 1)
        self.threads.finish()
        found = [self.successResultOf(each) for each in waiting]
        self.assertEqual(len({id(each) for each in found}), 3)

    def test_each_has_its_own_patience(self) -> None:
        """Who joins late waits on; who asks after the time begins anew."""
        self.server.table["a.test"] = rows("10.0.0.1")
        early = self.resolver.resolve("a.test")
        self.clock.advance(3)
        late = self.resolver.resolve("a.test")
        self.clock.advance(2)
        self.refused(early)
        anew = self.resolver.resolve("a.test")
        self.assertEqual(len(self.threads.works), 2)
        self.threads.finish()
        self.successResultOf(late)
        self.assertNoResult(anew)
        self.threads.finish()
        self.successResultOf(anew)

    def test_silent_names_do_not_delay_others(self) -> None:
        """40 silent names, then 100 good ones at once (fault 36)."""
        silent = [self.resolver.resolve(f"silent{n}.test") for n in range(40)]
        good = []
        for number in range(100):
            self.server.table[f"good{number}.test"] = rows("10.0.0.1")
            good.append(self.resolver.resolve(f"good{number}.test"))
        while len(self.threads.works) > 40:
            self.threads.finish(40)
        for waiting in good:
            self.successResultOf(waiting)
        self.clock.advance(5)
        for waiting in silent:
            self.refused(waiting)

    def test_one_who_asks_for_silent_names_leaves_something(self) -> None:
        """However many, and however long they hang: names of others are looked up at once."""
        self.resolver = self.make(threads=8)
        for number in range(2000):
            self.resolver.resolve(f"silent{number}.test", "mallory").addErrback(lambda _: None)
            if number % 10 == 0:
                self.clock.advance(1)
            self.server.table[f"good{number}.test"] = rows("10.0.0.1")
            before = len(self.threads.works)
            waiting = self.resolver.resolve(f"good{number}.test", "alice")
            self.assertEqual(len(self.threads.works), before + 1, number)
            self.threads.finish(before)
            self.successResultOf(waiting)
        self.clock.advance(10)

    def test_hanging_threads_give_up_their_place(self) -> None:
        """After the time limit, the next in the queue starts."""
        self.resolver = self.make(threads=2)
        hung = [self.resolver.resolve(f"silent{n}.test") for n in range(2)]
        self.clock.advance(3)
        self.server.table["good.test"] = rows("10.0.0.1")
        waiting = self.resolver.resolve("good.test")
        self.assertEqual(len(self.threads.works), 2)
        self.clock.advance(2)
        self.threads.finish(2)
        self.successResultOf(waiting)
        for each in hung:
            self.refused(each)

    def test_threads_are_bounded(self) -> None:
        """As many may hang as may work; the rest wait their time, and start when one is back."""
        self.resolver = self.make(threads=2)
        for number in range(10):
            # Of one who asks as of many: somebody else's work is never waited for.
            silent = self.resolver.resolve(f"silent{number}.test", f"key-{number}")
            silent.addErrback(lambda _: None)
            self.clock.advance(6)
        self.assertEqual(len(self.threads.works), 4)
        self.server.table["good.test"] = rows("10.0.0.1")
        waiting = self.resolver.resolve("good.test")
        self.assertEqual(len(self.threads.works), 4)
        self.threads.finish()
        self.threads.finish(3)
        self.successResultOf(waiting)

    def test_queue_is_bounded(self) -> None:
        """One name more is refused at once; one that is waited for already is not."""
        self.resolver = self.make(threads=1, waiting=2)
        waiting = [self.resolver.resolve(f"n{number}.test") for number in range(3)]
        error = self.refused(self.resolver.resolve("n3.test"))
        self.assertIs(error.code, Code.OVERLOAD)
        waiting.append(self.resolver.resolve("n2.test"))
        self.threads.finish_all()
        for each in waiting:
            self.refused(each)

    def test_no_queue_at_all(self) -> None:
        """A free thread takes a name all the same."""
        self.resolver = self.make(threads=1, waiting=0)
        self.server.table["a.test"] = rows("10.0.0.1")
        self.assertEqual(self.ask("a.test"), ["10.0.0.1"])

    def test_no_thread_can_be_had(self) -> None:
        """Is a refusal, for a long queue too."""
        self.resolver = self.make(threads=1, waiting=2000)
        waiting = [self.resolver.resolve(f"n{number}.test") for number in range(2000)]
        self.threads.error = RuntimeError("can't start new thread")
        self.threads.finish()
        for each in waiting[1:]:
            self.assertIs(self.refused(each).code, Code.OVERLOAD)
        self.refused(waiting[0])
        self.assertIs(self.refused(self.resolver.resolve("last.test")).code, Code.OVERLOAD)


class EndTests(ResolverTestCase):
    """Cancelling and stopping."""

    def test_cancel_while_queued(self) -> None:
        """The name is never looked up."""
        self.resolver = self.make(threads=1)
        first = self.resolver.resolve("a.test")
        second = self.resolver.resolve("b.test")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.threads.finish_all()
        self.refused(first)
        self.assertEqual(self.server.asked, [b"a.test"])

    def test_cancel_while_running(self) -> None:
        """The others still hear; with none left, the answer comes to nobody."""
        self.server.table["a.test"] = rows("10.0.0.1")
        first, second = self.resolver.resolve("a.test"), self.resolver.resolve("a.test")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.threads.finish()

    def test_cancel_from_another_callback(self) -> None:
        """One waiter may end another while all are told."""
        self.server.table["a.test"] = rows("10.0.0.1")
        first, second = self.resolver.resolve("a.test"), self.resolver.resolve("a.test")
        first.addCallback(lambda _: second.cancel())
        self.threads.finish()
        self.failureResultOf(second, CancelledError)

    def test_ask_from_a_callback(self) -> None:
        """Whoever hears may ask on."""
        self.server.table["a.test"] = rows("10.0.0.1")
        self.server.table["b.test"] = rows("10.0.0.2")
        chained = self.resolver.resolve("a.test")
        chained.addCallback(lambda _: self.resolver.resolve("b.test"))
        self.threads.finish_all()
        self.successResultOf(chained)

    def test_stop(self) -> None:
        """Everyone is refused, no timer stays, and threads are not waited for."""
        self.resolver = self.make(threads=1)
        hung = self.resolver.resolve("hung.test")
        self.clock.advance(4)
        late = self.resolver.resolve("hung.test")
        self.clock.advance(1)
        self.refused(hung)
        waiting = [late, self.resolver.resolve("a.test"), self.resolver.resolve("b.test")]
        self.resolver.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        waiting.append(self.resolver.resolve("c.test"))
        for each in waiting:
            self.assertIs(self.refused(each).code, Code.GOING_AWAY)


class Inbox:
    """The part of a reactor that threads see."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Callable[..., object], tuple[object, ...]]] = queue.Queue()

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        """Keep the call for the test's own thread."""
        self.calls.put((call, args))


class ThreadTests(SynchronousTestCase):
    """Real threads, no reactor."""

    def test_work_is_done_elsewhere_and_comes_back(self) -> None:
        """In a daemon thread; the result is handed over by the reactor."""
        inbox = Inbox()
        seen: list[threading.Thread] = []
        results: list[Outcome] = []

        def work() -> Outcome:
            seen.append(threading.current_thread())
            return []

        daemon_threads(inbox)(work, results.append)  # type: ignore[arg-type]
        call, args = inbox.calls.get(timeout=10)
        self.assertEqual(results, [])
        call(*args)
        self.assertEqual(results, [[]])
        self.assertIsNot(seen[0], threading.current_thread())
        self.assertTrue(seen[0].daemon)

    def test_descriptors_are_there(self) -> None:
        """The probe opens a socket and leaves none."""
        self.assertFalse(resolver.is_short_of_descriptors())

    def test_descriptors_are_short(self) -> None:
        """Any failure to make a socket counts."""

        def fail(*args: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", fail)
        self.assertTrue(resolver.is_short_of_descriptors())
