"""The control socket: requests, limits, its file, and the program that asks."""

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.asking import COMMAND, MAX_LINE, ControlError, NobodyThereError, ask
from stripetwist.net.control import (
    IDLE,
    MAX_CONNECTIONS,
    ControlFactory,
    ControlProtocol,
    ControlService,
)
from stripetwist.net.files import StartupError


class Wire(StringTransport):
    """
    A transport that pushes back: it is full above a limit until it is drained.

    @ivar aborted: whether the connection was cut.
    """

    def __init__(self, limit: int = 1 << 20) -> None:
        super().__init__()
        self.limit = limit
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep it, and tell the producer if that is too much."""
        super().write(data)
        if self.producer is not None and len(self.value()) > self.limit:
            self.producer.pauseProducing()

    def drain(self) -> bytes:
        """Take all that is written."""
        taken: bytes = self.value()
        self.clear()
        if self.producer is not None:
            self.producer.resumeProducing()
        return taken

    def abortConnection(self) -> None:
        """Remember it."""
        self.aborted = True


class Told(ControlError):
    """A refusal for tests."""


def refuse(request: dict[str, Any]) -> object:
    """A command that cannot be done."""
    raise Told("not now")


def break_down(request: dict[str, Any]) -> object:
    """A command with a mistake in it."""
    raise KeyError("a secret of ours")


class ProtocolTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slow: list[Deferred[object]] = []
        self.cancelled: list[object] = []
        self.factory = ControlFactory(
            {
                "status": lambda request: {"echo": request.get("x")},
                "later": lambda request: succeed([1]),
                "slow": self.start_slow,
                "refuse": refuse,
                "break": break_down,
                "odd": lambda request: {1, 2},
                "nan": lambda request: float("nan"),
            },
            self.clock,
        )
        self.wire = Wire()
        self.protocol = self.connect(self.wire)

    def start_slow(self, request: dict[str, Any]) -> Deferred[object]:
        """A command that takes its time."""
        self.slow.append(Deferred(self.cancelled.append))
        return self.slow[-1]

    def connect(self, wire: Wire) -> ControlProtocol:
        """Another connection."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(wire)
        return protocol

    def replies(self) -> list[dict[str, Any]]:
        """What has been answered since the last call."""
        return [json.loads(line) for line in self.wire.drain().splitlines()]

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The one answer to a request."""
        self.protocol.dataReceived(json.dumps(request).encode() + b"\n")
        (reply,) = self.replies()
        return reply

    def lose(self) -> None:
        """The connection ends."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_a_request_has_its_result(self) -> None:
        """At once, or when the Deferred fires."""
        self.assertEqual(
            self.ask({"command": "status", "x": "ä"}), {"ok": True, "result": {"echo": "ä"}}
        )
        self.assertEqual(self.ask({"command": "later"}), {"ok": True, "result": [1]})

    def test_bytes_come_in_any_pieces(self) -> None:
        """A line is a line."""
        for byte in b'\n \n{"command":"status","x":1}\r\n':
            self.protocol.dataReceived(bytes([byte]))
        self.assertEqual(self.replies(), [{"ok": True, "result": {"echo": 1}}])

    def test_requests_are_done_one_after_the_other(self) -> None:
        """In order, however many came at once."""
        lines = b'{"command":"slow"}\n' + b'{"command":"status"}\n' * 3000
        self.protocol.dataReceived(lines)
        self.assertEqual(self.replies(), [])
        self.slow[0].callback("done")
        replies = self.replies()
        self.assertEqual((len(replies), replies[0]["result"]), (3001, "done"))

    def test_refusals_are_sentences(self) -> None:
        """Whatever is wrong with a request, the connection lives on."""
        for line, words in (
            (b"status", "one line of JSON"),
            (b"[" * 60000, "one line of JSON"),
            (b"9" * 6000, "one line of JSON"),
            (b"\xff\xfe", "one line of JSON"),
            (b"[]", "a JSON object"),
            (b"{}", '"command"'),
            (b'{"command":1}', '"command"'),
            (b'{"command":"nope\\u001b"}', 'unknown command "nope\\x1b"; there are break, later'),
            (b'{"command":"refuse"}', "not now"),
        ):
            self.protocol.dataReceived(line + b"\n")
            (reply,) = self.replies()
            self.assertIs(reply["ok"], False)
            self.assertIn(words, reply["error"])

    def test_our_own_mistakes_are_logged_and_not_shown(self) -> None:
        """No traceback, and nothing of it, travels."""
        for name, kind in (("break", KeyError), ("odd", TypeError), ("nan", ValueError)):
            self.assertEqual(
                self.ask({"command": name})["error"],
                f"{name} failed here; the log of the running process says why",
            )
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_a_line_is_bounded(self) -> None:
        """Too long a one is refused and ends the connection."""
        self.protocol.dataReceived(b"x" * (MAX_LINE + 1))
        self.assertIn("at most 64 KiB", self.replies()[0]["error"])
        self.assertTrue(self.wire.disconnecting)

    def test_no_more_is_read_than_can_be_done(self) -> None:
        """While a command takes its time, one line's worth waits here."""
        self.protocol.dataReceived(b'{"command":"slow"}\n')
        self.protocol.dataReceived(b"\n" * MAX_LINE)
        self.assertEqual(self.wire.producerState, "producing")
        self.protocol.dataReceived(b"\n")
        self.assertEqual(self.wire.producerState, "paused")
        self.slow[0].callback(None)
        self.assertEqual(self.wire.producerState, "producing")

    def test_replies_wait_for_a_slow_reader(self) -> None:
        """The next command is not even begun."""
        self.wire.limit = 10
        self.protocol.dataReceived(b'{"command":"status"}\n' * 3)
        self.assertEqual(len(self.replies()), 1)
        self.assertEqual(len(self.replies()), 1)
        self.assertEqual(len(self.replies()), 1)

    def test_a_silent_connection_is_cut(self) -> None:
        """So is one whose reply is not taken; a working one is not."""
        self.protocol.dataReceived(b'{"comm')
        self.clock.advance(IDLE - 1)
        self.assertFalse(self.wire.aborted)
        self.protocol.dataReceived(b'and":"slow"}\n')
        self.clock.advance(IDLE + 1)
        self.assertFalse(self.wire.aborted)
        self.slow[0].callback(None)
        self.clock.advance(IDLE)
        self.assertTrue(self.wire.aborted)

    def test_a_command_that_never_ends_is_given_up(self) -> None:
        """With a sentence."""
        self.protocol.dataReceived(b'{"command":"slow"}\n')
        self.clock.advance(COMMAND)
        self.assertIn("took longer than 60 s", self.replies()[0]["error"])
        self.assertEqual(len(self.cancelled), 1)

    def test_a_lost_connection_leaves_nothing_behind(self) -> None:
        """No timer, and no command that nobody waits for."""
        self.protocol.dataReceived(b'{"command":"slow"}\n{"command":"status"}\n')
        self.lose()
        self.assertEqual(len(self.cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.wire.value(), b"")

    def test_who_has_nothing_more_to_ask_gets_the_answers(self) -> None:
        """A half-closed connection ends after the last of them."""
        self.protocol.dataReceived(b'{"command":"slow"}\n{"command":"status"}\n')
        self.protocol.readConnectionLost()
        self.assertFalse(self.wire.disconnecting)
        self.slow[0].callback(None)
        self.assertEqual(len(self.replies()), 2)
        self.assertTrue(self.wire.disconnecting)

    def test_connections_are_bounded(self) -> None:
        """One that ends makes room for another."""
        for _ in range(MAX_CONNECTIONS - 1):
            self.connect(Wire())
        self.assertIs(self.factory.buildProtocol(None), None)
        self.lose()
        self.assertIsNot(self.factory.buildProtocol(None), None)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=6))
    def test_any_bytes_have_as_many_answers_as_lines(self, pieces: list[bytes]) -> None:
        """And no exception."""
        self.wire = Wire()
        self.protocol = self.connect(self.wire)
        for piece in pieces:
            self.protocol.dataReceived(piece)
        lines = b"".join(pieces).split(b"\n")[:-1]
        self.assertEqual(len(self.replies()), sum(1 for line in lines if line.strip()))
        self.lose()


class UnixReactor:
    """
    Binds real sockets, as the reactor does, and remembers how their files looked at once.

    @ivar modes: of each socket, between its making and any change of it.
    @ivar failing: what the next one meets.
    """

    def __init__(self) -> None:
        self.modes: list[int] = []
        self.failing: OSError | None = None
        self._socket: socket.socket | None = None
        self._path = ""

    def listenUNIX(self, path: str, factory: object, mode: int) -> "UnixReactor":
        """Bind, and change the mode only later."""
        if self.failing:
            raise CannotListenError(None, path, self.failing)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self.modes.append(stat.S_IMODE(os.stat(path).st_mode))
        os.chmod(path, mode)
        return self

    def stopListening(self) -> Deferred[None]:
        """As Twisted's: raises if the file is gone."""
        os.unlink(self._path)
        self.close()
        return succeed(None)

    def close(self) -> None:
        """Die without removing the file."""
        if self._socket:
            self._socket.close()


class ServiceTests(SynchronousTestCase):
    """The socket's file."""

    def setUp(self) -> None:
        # A short path: a socket's has 107 characters at most.
        self.folder = Path(mkdtemp())
        self.addCleanup(self.folder.rmdir)
        self.path = self.folder / "control.sock"
        self.reactor = UnixReactor()
        self.addCleanup(self.reactor.close)
        self.factory = ControlFactory({}, Clock())
        self.service = ControlService(self.reactor, self.path, self.factory)

    def test_the_socket_is_private_from_the_start(self) -> None:
        """Whatever the umask; and that is as it was afterwards."""
        before = os.umask(0)
        try:
            self.service.startService()
            self.assertEqual(os.umask(0), 0)
        finally:
            os.umask(before)
        self.assertEqual(self.reactor.modes, [0o600])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.successResultOf(self.service.stopService())
        self.assertFalse(self.path.exists())

    def test_a_stale_socket_is_replaced(self) -> None:
        """A killed process leaves one behind."""
        self.service.startService()
        self.reactor.close()
        self.service.startService()
        self.successResultOf(self.service.stopService())

    def test_a_living_socket_is_left_alone(self) -> None:
        """Its process goes on."""
        self.service.startService()
        other = ControlService(UnixReactor(), self.path, self.factory)
        error = self.assertRaises(StartupError, other.startService)
        self.assertIn("another process answers", str(error))
        self.successResultOf(self.service.stopService())

    def test_what_is_no_socket_is_left_alone(self) -> None:
        """It may be somebody's."""
        self.path.write_text("precious")
        error = self.assertRaises(StartupError, self.service.startService)
        self.assertIn("is no socket", str(error))
        self.assertEqual(self.path.read_text(), "precious")
        self.path.unlink()

    def test_a_refusal_of_the_system_is_a_sentence(self) -> None:
        """And the umask is restored."""
        self.reactor.failing = PermissionError(13, "Permission denied")
        error = self.assertRaises(StartupError, self.service.startService)
        self.assertIn("cannot be made (Permission denied)", str(error))
        self.successResultOf(self.service.stopService())

    def test_a_socket_that_somebody_removed_is_not_missed(self) -> None:
        """Not even when its folder is gone."""
        self.service.startService()
        self.path.unlink()
        self.successResultOf(self.service.stopService())
        self.service.startService()
        self.path.unlink()
        self.folder.rmdir()
        self.successResultOf(self.service.stopService())
        self.folder.mkdir()

    def test_stopping_ends_the_connections(self) -> None:
        """None outlives the service."""
        self.service.startService()
        protocol, wire = self.factory.buildProtocol(None), Wire()
        assert protocol is not None
        protocol.makeConnection(wire)
        self.successResultOf(self.service.stopService())
        self.assertTrue(wire.aborted)
        protocol.connectionLost(Failure(ConnectionDone()))


class AskTests(SynchronousTestCase):
    """The program's side, which has no reactor."""

    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        self.addCleanup(self.folder.rmdir)
        self.path = self.folder / "s"

    def serve(self, *answer: bytes) -> Callable[[], bytes]:
        """Answer one request with these pieces; the result gives the request."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self.addCleanup(self.path.unlink)
        got: list[bytes] = []

        def run() -> None:
            wire, _ = listener.accept()
            with listener, wire:
                got.append(wire.recv(MAX_LINE))
                for piece in answer:
                    wire.sendall(piece)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        return lambda: got[0]

    def refusal(self) -> str:
        """Why the request came to nothing."""
        return str(self.assertRaises(ControlError, ask, self.path, {"command": "x"}, 5))

    def test_the_result_comes_back(self) -> None:
        """Whatever pieces the reply has."""
        request = self.serve(b'{"ok":true,"res', b'ult":{"a":1}}\n')
        self.assertEqual(ask(self.path, {"command": "x", "y": "ä"}, 5), {"a": 1})
        self.assertEqual(json.loads(request()), {"command": "x", "y": "ä"})

    def test_a_refusal_is_a_sentence(self) -> None:
        """Made safe for a terminal."""
        self.serve(b'{"ok":false,"error":"no \\u001b[2J"}\n')
        self.assertEqual(self.refusal(), "no \\x1b[2J")

    def test_an_answer_that_breaks_off_is_told(self) -> None:
        """So is one that makes no sense."""
        self.serve(b'{"ok":tr')
        self.assertIn("broke off", self.refusal())

    def test_nonsense_is_told(self) -> None:
        """It is no reply of ours."""
        self.serve(b"[]\n")
        self.assertIn("makes no sense", self.refusal())

    def test_nobody_there(self) -> None:
        """No file, or one that nobody listens at."""
        self.assertRaises(NobodyThereError, ask, self.path, {}, 5)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        self.addCleanup(self.path.unlink)
        self.assertRaises(NobodyThereError, ask, self.path, {}, 5)

    def test_silence_ends(self) -> None:
        """The program does not hang with the process."""
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(self.path))
            silent.listen()
            error = self.assertRaises(ControlError, ask, self.path, {}, 0.01)
        self.addCleanup(self.path.unlink)
        self.assertIn("no answer within 0.01 s", str(error))

    def test_an_impossible_path_is_told(self) -> None:
        """Without a traceback."""
        error = self.assertRaises(ControlError, ask, Path("/x" * 100), {}, 1)
        self.assertIn("no answer from", str(error))
