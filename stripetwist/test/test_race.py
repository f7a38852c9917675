"""L{stripetwist.net.race}: the first address that answers wins."""

import errno
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionLost,
    NotConnectingError,
    UserError,
    getConnectError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IProtocol,
    IReactorTCP,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from stripetwist.core.config import Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import Target
from stripetwist.net.race import MOST_AT_ONCE, Race, interleaved
from stripetwist.net.relay import Parked

SILENT, ANSWERS = "silent", "answers"


class Wire(StringTransport):
    """A connected transport that notes what is set on it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: IProtocol | None = None
        self.options: dict[str, bool] = {}
        self.broken = False
        alsoProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See L{ITCPTransport}."""
        if self.broken:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.options["nodelay"] = enabled

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See L{ITCPTransport}."""
        self.options["keepalive"] = enabled


@implementer(IConnector)
class Dial:
    """One address being dialed, in Twisted's order of events."""

    def __init__(self, host: str, port: int, factory: ClientFactory[Any]) -> None:
        self.host = host
        self.port = port
        self.factory = factory
        self.state = "connecting"
        self.wire = Wire()
        self.timeout: IDelayedCall | None = None

    def connect(self) -> None:
        """Not used."""

    def disconnect(self) -> None:
        """Not used."""

    def getDestination(self) -> IAddress:
        """Where to."""
        return IPv4Address("TCP", self.host, self.port)

    def stopConnecting(self) -> None:
        """As Twisted does it: an error unless connecting, else a failure at once."""
        if self.state != "connecting":
            raise NotConnectingError("we're not trying to connect")
        self.fail(UserError())

    def fail(self, error: BaseException) -> None:
        """The dial comes to nothing."""
        if self.state == "connecting":
            self._leave("failed")
            self.factory.clientConnectionFailed(self, Failure(error))

    def answer(self) -> None:
        """The dial succeeds."""
        if self.state == "connecting":
            self._leave("connected")
            protocol = self.factory.buildProtocol(self.getDestination())
            if protocol is None:
                self.state = "dropped"
                return
            self.wire.protocol = protocol
            protocol.makeConnection(self.wire)

    def _leave(self, state: str) -> None:
        self.state = state
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()


@implementer(IReactorTCP)
class Network:
    """
    Where addresses answer, fail or keep silent, as C{addresses} says.

    An errno fails a moment later, as with Twisted; an exception is raised by C{connectTCP}.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.addresses: dict[str, str | int | Exception] = {}
        self.errors: dict[str, Exception] = {}
        self.dials: list[Dial] = []

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """See L{IReactorTCP}."""
        what = self.addresses.get(host, SILENT)
        if isinstance(what, Exception):
            raise what
        dial = Dial(host, port, factory)
        self.dials.append(dial)
        dial.timeout = self.clock.callLater(timeout, dial.fail, ConnectTimeout())
        if host in self.errors:
            self.clock.callLater(0, dial.fail, self.errors[host])
        elif what == ANSWERS:
            self.clock.callLater(0, dial.answer)
        elif isinstance(what, int):
            self.clock.callLater(0, dial.fail, self._error(what))
        return dial

    def listenTCP(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
        """Not used."""

    def _error(self, number: int) -> BaseException:
        if number == errno.EMFILE:
            return ConnectBindError(number, "Too many open files")
        error: BaseException = getConnectError((number, "why"))
        return error

    def dialed(self) -> list[str]:
        """The addresses, in the order in which they were dialed."""
        return [dial.host for dial in self.dials]

    def pending(self) -> list[Dial]:
        """Dials that have not ended."""
        return [dial for dial in self.dials if dial.state == "connecting"]


class RaceTestCase(SynchronousTestCase):
    """A network and a clock; no race may leave a timer or a dial behind."""

    def setUp(self) -> None:
        """Nobody answers."""
        self.clock = Clock()
        self.network = Network(self.clock)

    def tearDown(self) -> None:
        """Nothing is left."""
        self.assertEqual(self.network.pending(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def race(self, *addresses: str, host: str = "a.test") -> Deferred[ITransport]:
        """Dial those addresses of that host."""
        found = [ip_address(text) for text in addresses]
        target = Target.of(host, 80)
        return Race(self.network, self.clock, Limits(), target, found).run()

    def refused(self, racing: Deferred[ITransport]) -> OpenRefused:
        """Why nobody won."""
        error = self.failureResultOf(racing, OpenRefused).value
        assert isinstance(error, OpenRefused)
        self.assertTrue(error.sentence.isascii() and error.sentence.isprintable())
        return error

    def advance(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in small steps."""
        self.clock.pump([step] * round(seconds / step))


class WinnerTests(RaceTestCase):
    """How a connection is made, and handed over."""

    def test_connection_is_parked(self) -> None:
        """Paused, with its options set, its protocol a L{Parked}."""
        self.network.addresses["10.0.0.1"] = ANSWERS
        racing = self.race("10.0.0.1")
        self.assertNoResult(racing)
        self.clock.advance(0)
        wire = self.successResultOf(racing)
        assert isinstance(wire, Wire)
        self.assertIsInstance(wire.protocol, Parked)
        self.assertEqual(wire.producerState, "paused")
        self.assertEqual(wire.options, {"nodelay": True, "keepalive": True})

    def test_reset_before_the_options_were_set(self) -> None:
        """Is no reason to refuse: whoever takes the transport will see."""
        racing = self.race("10.0.0.1")
        self.network.dials[0].wire.broken = True
        self.network.dials[0].answer()
        self.successResultOf(racing)

    def test_only_the_literal_is_dialed(self) -> None:
        """Never a name, which would be looked up again."""
        racing = self.race("10.0.0.1", "fd00::1")
        self.clock.advance(0.3)
        self.assertEqual(self.network.dialed(), ["10.0.0.1", "fd00::1"])
        self.assertEqual({dial.port for dial in self.network.dials}, {80})
        self.network.dials[1].answer()
        self.successResultOf(racing)

    def test_next_after_300_ms(self) -> None:
        """One address after the other, not all at once."""
        racing = self.race("10.0.0.1", "10.0.0.2", "10.0.0.3")
        for count in (1, 2, 3, 3):
            self.assertEqual(len(self.network.dials), count)
            self.clock.advance(0.3)
        self.network.dials[1].answer()
        self.assertIs(self.successResultOf(racing), self.network.dials[1].wire)
        self.assertEqual(
            [dial.state for dial in self.network.dials], ["failed", "connected", "failed"]
        )

    def test_next_at_a_failure(self) -> None:
        """Without a pause; the pause then begins anew."""
        self.network.addresses["10.0.0.1"] = errno.ECONNREFUSED
        racing = self.race("10.0.0.1", "10.0.0.2", "10.0.0.3")
        self.clock.advance(0.1)
        self.assertEqual(len(self.network.dials), 2)
        self.clock.advance(0.29)
        self.assertEqual(len(self.network.dials), 2)
        self.clock.advance(0.01)
        self.assertEqual(len(self.network.dials), 3)
        self.network.dials[2].answer()
        self.successResultOf(racing)

    def test_late_connection_is_dropped(self) -> None:
        """One that arrives after all was over finds no protocol."""
        racing = self.race("10.0.0.1")
        dial = self.network.dials[0]
        racing.cancel()
        self.failureResultOf(racing, CancelledError)
        self.assertIs(dial.factory.buildProtocol(dial.getDestination()), None)

    def test_winner_does_not_keep_the_race(self) -> None:
        """What lives as long as the connection knows nothing of its beginning."""
        racing = self.race("10.0.0.1")
        dial = self.network.dials[0]
        dial.answer()
        self.successResultOf(racing)
        self.assertIs(dial.factory.race, None)  # type: ignore[attr-defined]
        self.assertIs(dial.wire.protocol._attempt, None)  # type: ignore[union-attr]

    def test_hundred_addresses(self) -> None:
        """99 that refuse take no time; 99 that are silent end with the total (fault 37)."""
        addresses = [f"10.0.0.{number}" for number in range(1, 101)]
        for text in addresses[:-1]:
            self.network.addresses[text] = errno.ECONNREFUSED
        self.network.addresses[addresses[-1]] = ANSWERS
        racing = self.race(*addresses)
        for _ in range(120):
            self.clock.advance(0)
        self.successResultOf(racing)
        self.network.addresses.clear()
        self.network.dials.clear()
        racing = self.race(*addresses)
        self.advance(19.9)
        self.assertNoResult(racing)
        self.assertEqual(len(self.network.pending()), MOST_AT_ONCE)
        self.advance(0.2)
        self.assertIs(self.refused(racing).code, Code.TIMEOUT)

    def test_hundred_addresses_that_fail_on_the_spot(self) -> None:
        """An exception out of C{connectTCP} is one more failure, and no recursion."""
        addresses = [f"10.0.{number // 250}.{number % 250}" for number in range(1, 2000)]
        for text in addresses:
            self.network.addresses[text] = OSError(errno.ENETUNREACH, "Network is unreachable")
        self.assertIs(self.refused(self.race(*addresses)).code, Code.NET_UNREACHABLE)

    def test_families_take_turns(self) -> None:
        """The first stays first (RFC 8305, section 4)."""
        given = ["fd00::1", "fd00::2", "fd00::3", "10.0.0.1"]
        found = interleaved([ip_address(text) for text in given])
        self.assertEqual(
            [str(each) for each in found], ["fd00::1", "10.0.0.1", "fd00::2", "fd00::3"]
        )
        self.assertEqual(interleaved([]), [])


class FailureTests(RaceTestCase):
    """What each failure is called."""

    def test_what_twisted_does_not_know(self) -> None:
        """The kernel had an error and nothing else, and Twisted only that the socket closed."""
        self.network.errors["10.0.0.1"] = ConnectError(string=Failure(ConnectionLost()))
        racing = self.race("10.0.0.1", host="10.0.0.1")
        self.clock.advance(0)
        error = self.refused(racing)
        self.assertIs(error.code, Code.HOST_UNREACHABLE)
        self.assertNotIn("Traceback", error.sentence)

    def test_codes_by_errno(self) -> None:
        """M01 to M08; the class that Twisted makes of it does not count."""
        codes = {
            errno.EACCES: Code.NOT_ALLOWED,
            errno.EPERM: Code.NOT_ALLOWED,
            errno.ENETUNREACH: Code.NET_UNREACHABLE,
            errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
            errno.ECONNREFUSED: Code.REFUSED_BY_TARGET,
            errno.ECONNRESET: Code.REFUSED_BY_TARGET,
            errno.ETIMEDOUT: Code.TIMEOUT,
            errno.EAFNOSUPPORT: Code.BAD_ADDRESS,
            errno.EMFILE: Code.GENERAL,
            errno.ENFILE: Code.GENERAL,
            errno.ENOBUFS: Code.GENERAL,
            errno.ENOMEM: Code.GENERAL,
            errno.EADDRNOTAVAIL: Code.GENERAL,
            errno.EINVAL: Code.GENERAL,
        }
        for number, code in codes.items():
            for failure in (number, OSError(number, "why")):
                self.network.addresses["10.0.0.1"] = failure
                racing = self.race("10.0.0.1", host="10.0.0.1")
                self.clock.advance(0)
                error = self.refused(racing)
                self.assertIs(error.code, code, errno.errorcode[number])
                self.assertTrue(error.sentence.startswith("10.0.0.1:80 "), error.sentence)

    def test_sentences(self) -> None:
        """Where, what, and by which address of a name."""
        self.network.addresses["127.0.0.1"] = errno.ECONNREFUSED
        racing = self.race("127.0.0.1", host="127.0.0.1")
        self.clock.advance(0)
        self.assertEqual(
            self.refused(racing).sentence,
            "127.0.0.1:80 refused the connection: nothing listens there",
        )
        racing = self.race("127.0.0.1")
        self.clock.advance(0)
        self.assertEqual(
            self.refused(racing).sentence,
            "a.test:80 (127.0.0.1) refused the connection: nothing listens there",
        )

    def test_out_of_descriptors(self) -> None:
        """Code 1, at once, with what to do (fault 40)."""
        self.network.addresses["10.0.0.1"] = errno.EMFILE
        racing = self.race("10.0.0.1")
        self.clock.advance(0)
        error = self.refused(racing)
        self.assertIs(error.code, Code.GENERAL)
        self.assertIn("raise its limit", error.sentence)

    def test_anything_else(self) -> None:
        """An exception without a number is told as it is, printably."""
        self.network.addresses["10.0.0.1"] = RuntimeError("broken\n\x1b[31m")
        error = self.refused(self.race("10.0.0.1"))
        self.assertIs(error.code, Code.GENERAL)
        self.assertIn("could not be dialed: broken\\n", error.sentence)

    def test_silent_target(self) -> None:
        """Ends after 10 s (fault 35)."""
        racing = self.race("10.0.0.1")
        self.clock.advance(9.9)
        self.assertNoResult(racing)
        self.clock.advance(0.1)
        error = self.refused(racing)
        self.assertIs(error.code, Code.TIMEOUT)
        self.assertIn("did not answer within 10 s", error.sentence)

    def test_most_telling_failure_is_reported(self) -> None:
        """Refused, then host unreachable, then timeout, then no network (M09)."""
        order = [
            errno.ECONNREFUSED,
            errno.EHOSTUNREACH,
            errno.ETIMEDOUT,
            errno.EPERM,
            errno.EMFILE,
            errno.ENETUNREACH,
            errno.EAFNOSUPPORT,
        ]
        for better, worse in zip(order, order[1:], strict=False):
            for pair in ((better, worse), (worse, better)):
                self.network.addresses = {"10.0.0.1": pair[0], "10.0.0.2": pair[1]}
                alone = self.race("10.0.0.1" if pair[0] == better else "10.0.0.2")
                both = self.race("10.0.0.1", "10.0.0.2")
                for _ in range(3):
                    self.clock.advance(0)
                self.assertIs(self.refused(both).code, self.refused(alone).code)

    def test_late_total_reports_the_best_so_far(self) -> None:
        """A refusal counts more than the silence of the rest."""
        self.network.addresses["10.0.0.1"] = errno.ECONNREFUSED
        racing = self.race(*(f"10.0.0.{number}" for number in range(1, 60)))
        self.advance(20.1)
        self.assertIs(self.refused(racing).code, Code.REFUSED_BY_TARGET)


class CancelTests(RaceTestCase):
    """Whoever no longer wants the connection."""

    def test_cancel_ends_every_dial(self) -> None:
        """And every timer."""
        racing = self.race("10.0.0.1", "10.0.0.2", "10.0.0.3")
        self.clock.advance(0.3)
        self.assertEqual(len(self.network.pending()), 2)
        racing.cancel()
        self.failureResultOf(racing, CancelledError)
        self.assertEqual(self.network.pending(), [])

    def test_dial_that_failed_in_the_same_turn(self) -> None:
        """Stopping one that is already down is not an error."""
        racing = self.race("10.0.0.1", "10.0.0.2")
        self.clock.advance(0.3)
        self.network.dials[0].state = "failed"
        self.network.dials[0]._leave("failed")
        self.network.dials[1].answer()
        self.successResultOf(racing)

    def test_taker_may_do_anything_at_once(self) -> None:
        """The transport is complete when the Deferred fires."""
        seen: list[object] = []
        racing = self.race("10.0.0.1")
        racing.addCallback(self._look(seen))
        self.network.dials[0].answer()
        self.assertEqual(seen, ["paused"])

    def _look(self, seen: list[object]) -> Callable[[ITransport], None]:
        def look(transport: ITransport) -> None:
            assert isinstance(transport, Wire)
            seen.append(transport.producerState)

        return look
