"""A snapshot as text."""

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.report import amount, duration, render

TX = {"first": 1_000_000, "copy": 1000, "pad": 500, "overhead": 500}
SUBFLOW = {"id": 1, "state": "active", "rtt": 0.0123, "in_flight": 0, "tx": TX, "rx": {}}
SNAPSHOT: dict[str, Any] = {
    "version": 1,
    "role": "client",
    "pid": 42,
    "started": 1000.0,
    "memory": {"promised": 1, "held": 2_000_000, "limit": 268_435_456},
    "sessions": [
        {
            "id": "a1b2c3d4",
            "key": "laptop",
            "role": "client",
            "age": 90.0,
            "streams": {"open": 3, "opened": 12, "refused": 1, "reset": 0},
            "subflows": [SUBFLOW, {**SUBFLOW, "id": 12, "last_error": "cut\x1b"}],
        }
    ],
}

PARTS = ["sessions", "subflows", "agents", "servers", "paths", "labels", "tx", "memory", "id"]
junk = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PARTS), inner),
    max_leaves=12,
)


class RenderTests(SynchronousTestCase):
    """What a terminal shows."""

    def test_a_process_its_sessions_and_their_subflows(self) -> None:
        """One line each, the subflows in columns; what nobody knows is left out."""
        self.assertEqual(
            render(SNAPSHOT, 1075.0),
            "client  pid 42  up 1 min 15 s  1 session  memory 2 MiB of 256 MiB\n"
            "  session a1b2c3d4 client laptop  up  1 min 30 s  2 subflows"
            "  streams: 3 open, 12 opened, 1 refused, 0 reset\n"
            "    subflow  state   rtt      sent  dummy  in flight\n"
            "    1        active  12.3 ms  1 MB  2 kB   0 B\n"
            "    12       active  12.3 ms  1 MB  2 kB   0 B        cut\\x1b\n",
        )

    def test_a_session_that_is_called_like_its_key(self) -> None:
        """Has that name once."""
        session = {"id": "a1b2", "role": "client", "key": "client-1", "name": "client-1"}
        text = render({"role": "server", "sessions": [session]}, 0.0)
        self.assertIn("\n  session a1b2 client client-1  up", text)

    def test_agents(self) -> None:
        """A line each, before the sessions; what none of them has is left out."""
        attic = {"name": "attic", "state": "able", "age": 9, "key": "agent-1", "active": 3}
        attic |= {"capacity": 0, "weight": 2, "labels": {"site": "home\x1b", "os": "linux"}}
        attic |= {"rtt": 0.0123, "sent": 1000, "received": 2_000_000}
        barn = {**attic, "name": "barn", "active": 0, "labels": {}, "last_error": "cut\x1b"}
        text = render({"role": "server", "sessions": [], "agents": [attic, barn]}, 0.0)
        self.assertIn(
            "\n  agent  state  up   key      rtt      streams  sent  received  weight  labels\n"
            "  attic  able   9 s  agent-1  12.3 ms  3        1 kB  2 MB      2       "
            "site=home\\x1b os=linux\n"
            "  barn   able   9 s  agent-1  12.3 ms  0        1 kB  2 MB      2       "
            "-                       cut\\x1b\n",
            text,
        )

    def test_how_long_peers_are_up(self) -> None:
        """Of those without a connection nothing is said, though their session is some age."""
        for kind, state in product(("agents", "servers"), ("away", "draining", "waiting")):
            peer = {"name": "a", "address": "a", "state": state, "age": 9, "active": 0}
            for subflows, up in ((0, ""), (1, "9 s ")):
                text = render({kind: [{**peer, "subflows": subflows}]}, 0.0)
                (line,) = [" ".join(one.split()) for one in text.split("\n") if state in one]
                self.assertTrue(line.startswith(f"a {state} {up}0"), line)

    def test_servers_of_an_agent(self) -> None:
        """A line each, with what is wrong with those that are away; its own name before."""
        vps = {"address": "vps:8443", "state": "connected", "rtt": 0.0123, "active": 2}
        vps |= {"sent": 1000, "received": 2_000_000, "last_error": "", "age": 61}
        other = {"address": "b:1", "state": "away", "last_error": "b:1 refuses it\x1b"}
        text = render({"role": "agent", "name": "attic", "servers": [vps, other]}, 0.0)
        self.assertEqual(
            text,
            "agent attic  pid -  up -  0 sessions  memory - of -\n"
            "  server    state      up         rtt      streams  sent  received\n"
            "  vps:8443  connected  1 min 1 s  12.3 ms  2        1 kB  2 MB\n"
            "  b:1       away       -          -        -        -     -         "
            "b:1 refuses it\\x1b\n",
        )

    def test_a_process_without_sessions(self) -> None:
        """Has its line."""
        self.assertEqual(
            render({"role": "server", "pid": 1, "started": 5.0, "sessions": []}, 4.0),
            "server  pid 1  up 0 s  0 sessions  memory - of -\n",
        )

    def test_a_process_that_drains(self) -> None:
        """Says so; one that runs need not."""
        for state, head in (("draining", "draining  up"), ("running", "up")):
            text = render({"role": "agent", "pid": 1, "state": state}, 0.0)
            self.assertIn(f"agent  pid 1  {head} -", text)

    def test_a_client_that_is_not_connected_says_why(self) -> None:
        """In the words of its log."""
        snapshot = {"role": "client", "sessions": [], "last_error": "no route to vps"}
        self.assertIn("\n  not connected: no route to vps\n", render(snapshot, 0.0))

    def test_paths(self) -> None:
        """A line each, and why one is down; not where there is but one, and that is up."""
        one = {"path": "direct", "server": "a:1", "state": "up", "subflows": 3, "wanted": 3}
        two = {**one, "path": "direct,nic=wwan0", "state": "down", "subflows": 0}
        two["last_error"] = "a:1 does not answer\x1b"
        snapshot = {"role": "client", "sessions": [{"subflows": [SUBFLOW]}], "paths": [one, two]}
        self.assertIn(
            "\n  path              state  subflows\n"
            "  direct            up     3 of 3\n"
            "  direct,nic=wwan0  down   0 of 3    a:1 does not answer\\x1b\n"
            "  session ",
            render(snapshot, 0.0),
        )
        self.assertNotIn("direct", render({**snapshot, "paths": [one]}, 0.0))
        other = {**one, "server": "b:1"}
        self.assertIn("direct  b:1     up", render({"paths": [one, other]}, 0.0))

    def test_a_session_without_connections(self) -> None:
        """Is down, for who knows how long; its only path says why."""
        path = {"path": "direct", "state": "down", "last_error": "a:1 refuses connections"}
        session = {"id": "a1", "subflows": [], "age": 90.0}
        text = render({"sessions": [session], "paths": [path]}, 0.0)
        self.assertIn("\n  direct  down   - of -    a:1 refuses connections\n", text)
        self.assertIn("\n  session a1  down, opened 1 min 30 s ago  0 subflows", text)
        text = render({"sessions": [{"id": "a1", "subflows": []}]}, 0.0)
        self.assertIn("\n  session a1  down  0 subflows", text)

    def test_amounts(self) -> None:
        """Three digits and a unit."""
        for value, text in ((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_500, "1 MB"),
                            (1234567, "1.23 MB"), (10**15, "1 PB"), (None, "-"),
                            (True, "-")):  # fmt: skip
            self.assertEqual(amount(value), text)

    def test_durations(self) -> None:
        """The two units that matter."""
        for value, text in ((0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"),
                            (90000, "1 d 1 h"), ("x", "-")):  # fmt: skip
            self.assertEqual(duration(value), text)

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([*sorted(SNAPSHOT), "agents", "servers", "paths", "name"]), junk
        )
    )
    def test_any_snapshot_can_be_shown(self, snapshot: dict[str, Any]) -> None:
        """One of another version too; nothing of it controls the terminal."""
        text = render(snapshot, 0.0)
        self.assertTrue(text.isascii())
        self.assertTrue(text.replace("\n", "").isprintable())
