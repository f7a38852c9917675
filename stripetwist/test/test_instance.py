"""L{stripetwist.net.instance}: one running role, as its user meets it."""

import io
import json
import os
import resource
import signal
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from stripetwist.core.config import MIB, Limits
from stripetwist.net import sockets
from stripetwist.net.clock import MonotonicClock
from stripetwist.net.files import StartupError
from stripetwist.net.instance import (
    ENDLESS,
    Instance,
    ground_for,
    pace_for,
    raise_descriptor_limit,
)
from stripetwist.net.state import StateDirectory
from stripetwist.test.process_case import ProcessTestCase

LIMITS = Limits(max_memory=16 * MIB)


class InstanceTestCase(ProcessTestCase):
    """An instance with work that ends when a test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.busy = True
        self.did: list[str] = []
        self.files = ["keys", "users"]
        self.ground = ground_for(self.reactor, LIMITS, "system")
        self.instance = self.make()

    def make(self) -> Instance:
        """A server's."""
        details: dict[str, object] = {"sessions": [1], "server": "x"}
        return Instance(self.reactor, self.ground, self.state(), "server", lambda: details)

    def run_it(self) -> None:
        """Start it, under handlers of Twisted's."""
        self.ends: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda which, _: self.ends.append(which))
        self.instance.watch_signals(
            lambda: self.did.append("leave"),
            lambda: not self.busy,
            self.reload,
        )
        self.instance.startService()
        self.reactor.start()

    def reload(self) -> list[str]:
        """Files are read."""
        self.did.append("reload")
        return self.files


class SignalTests(InstanceTestCase):
    """Signals, and what the command ends with."""

    def test_clean(self) -> None:
        """Streams that could finish make it 0."""
        self.assertEqual(self.instance.exit_code, 0)
        self.run_it()
        self.assertEqual(self.instance.exit_code, 0)
        self.busy = False
        self.signalled(signal.SIGTERM)
        self.assertEqual((self.ends, self.instance.exit_code), ([signal.SIGTERM], 0))

    def test_cut(self) -> None:
        """Streams that were cut make it 3."""
        self.run_it()
        self.signalled(signal.SIGTERM)
        self.assertEqual(self.instance.exit_code, 0)
        self.assertEqual(self.instance.snapshot()["state"], "draining")
        self.signalled(signal.SIGTERM)
        self.assertEqual((self.ends, self.instance.exit_code), ([signal.SIGTERM], 3))

    def test_hang_up(self) -> None:
        """Files are read again, and the log says which."""
        self.run_it()
        with capturedLogs() as logs:
            self.signalled(signal.SIGHUP)
            self.files = []
            self.signalled(signal.SIGHUP)
        self.assertEqual(self.did, ["reload", "reload"])
        told = [str(formatEvent(event)) for event in logs]
        self.assertEqual(told[0], "read again: keys, users")
        self.assertTrue(told[1].startswith("read again: nothing; "))

    def test_before_the_reactor_runs(self) -> None:
        """Handlers that come first would be replaced by Twisted's."""
        before = signal.getsignal(signal.SIGTERM)
        self.instance.watch_signals(lambda: None, lambda: True, lambda: ())
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def read_again(self) -> tuple[str, ...]:
        """What HUP asks for."""
        self.did.append("reload")
        return ()

    def test_hang_up_before_the_reactor_runs(self) -> None:
        """Who reads that it is there may ask at once: files are read again as soon as it runs."""
        self.instance.watch_signals(lambda: None, lambda: True, self.read_again)
        self.signalled(signal.SIGHUP)
        self.assertEqual(self.did, ["reload"])


class ShowTests(InstanceTestCase):
    """What can be seen of it."""

    def test_snapshot(self) -> None:
        """Its own part and the role's, fit for JSON."""
        snapshot: Any = json.loads(json.dumps(self.instance.snapshot()))
        self.assertEqual((snapshot["version"], snapshot["role"]), (1, "server"))
        self.assertEqual(snapshot["state"], "running")
        self.assertEqual((snapshot["pid"], snapshot["sessions"]), (os.getpid(), [1]))
        self.assertEqual(snapshot["memory"], {"promised": 0, "held": 0, "limit": 16 * MIB})
        self.assertEqual((snapshot["server"], snapshot["agents"]), ("x", []))

    def test_greeting(self) -> None:
        """Is there at once, also where the output is a pipe."""
        out = io.StringIO()
        with patch("sys.stdout", out):
            self.instance.show(["one", "two"])
        self.assertEqual(out.getvalue(), "one\ntwo\n")

    def test_control_socket(self) -> None:
        """Is there from the start to the end; C{status} and the role's own are answered."""
        self.instance.serve_control({"reload": lambda _: self.did.append("reload")})
        self.assertEqual(self.reactor.unix, [])
        self.instance.startService()
        place = self.reactor.unix[0]
        self.assertEqual(place, str(StateDirectory(self.base, "server", {}).control_path()))
        self.successResultOf(self.instance.stopService())


class ProcessTests(InstanceTestCase):
    """What it does to the process."""

    def test_no_core(self) -> None:
        """Secrets are not written to core files."""
        self.assertEqual(self.resource_limits[resource.RLIMIT_CORE], (0, 0))

    def test_descriptors(self) -> None:
        """As many as the system lets us have, some kept for ourselves."""
        endless = resource.RLIM_INFINITY
        for hard, expected in ((4096, 4032), (100, 64), (endless, ENDLESS - 64)):
            self.patch(resource, "getrlimit", lambda _, hard=hard: (64, hard))
            self.assertEqual(raise_descriptor_limit(), expected)
            self.assertEqual(self.resource_limits[resource.RLIMIT_NOFILE], (hard, hard))

    def test_descriptors_that_cannot_be_had(self) -> None:
        """Those that there are do."""

        def refuse(*_: object) -> None:
            raise ValueError("of this test")

        self.patch(resource, "getrlimit", lambda _: (1024, 4096))
        self.patch(resource, "setrlimit", refuse)
        self.assertEqual(raise_descriptor_limit(), 960)

    def test_ground(self) -> None:
        """Time that never jumps, entropy of the system, and the limits as given."""
        self.assertIsInstance(self.ground.clock, MonotonicClock)
        self.assertIs(self.ground.limits, LIMITS)
        self.assertEqual(len(self.ground.entropy(32)), 32)
        self.assertEqual(self.ground.checksum()(0, b"123456789"), 0xE3069283)

    def test_pace(self) -> None:
        """What the user wants of the kernel: bbr if it may be had, nothing, or that very one."""
        for had in (("bbr", "reno"), ("reno",)):
            self.patch(sockets, "may_pace", had.__contains__)
            self.assertEqual(pace_for("system"), "")
            self.assertEqual(pace_for("auto"), "bbr" if "bbr" in had else "")
            self.assertEqual(pace_for("reno"), "reno")
            error = self.assertRaises(StartupError, pace_for, "vegas")
            self.assertIn("tcp_vegas", str(error))

    def test_state_is_left_to_others(self) -> None:
        """Once everything has ended, not before."""
        waiting: Deferred[None] = Deferred()
        self.instance.startService()
        child = Instance(self.reactor, self.ground, self.state("agent"), "agent", dict)
        self.patch(child, "stopService", lambda: waiting)
        child.setServiceParent(self.instance)
        stopping = self.instance.stopService()
        other = StateDirectory(self.base, "server", {})
        self.assertRaises(StartupError, other.open)
        self.assertNoResult(stopping)
        waiting.callback(None)
        self.successResultOf(stopping)
        other.open()
        other.close()
