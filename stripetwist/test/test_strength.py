"""L{stripetwist.net.strength}: how many subflows each path has, by its role."""

from typing import Any

from stripetwist.core.way import PathRole, Via, Way
from stripetwist.net.dialer import Dialer
from stripetwist.test.link_case import PORT, WEB, LinkTestCase

RELAY = 443
PRIMARY = Way("198.51.100.7", RELAY, via=Via.RELAY)
BACKUP = Way(role=PathRole.BACKUP)


class BackupTests(LinkTestCase):
    """A relay, and the direct way for when that fails."""

    def setUp(self) -> None:
        """Six subflows of both."""
        super().setUp()
        self.acceptor = self.serve()
        self.listening = self.network.ports[RELAY] = self.network.ports[PORT]

    def tearDown(self) -> None:
        """The relay is not a port of its own."""
        self.network.ports.pop(RELAY, None)
        super().tearDown()

    def start(self, *ways: Way) -> Dialer:
        """A client with those paths."""
        dialer = self.dial(ways=ways or (PRIMARY, BACKUP), subflows=6)
        self.network.run(3, 0.02)
        return dialer

    def break_relay(self) -> None:
        """The relay goes, with all that it carries."""
        del self.network.ports[RELAY]
        for dial in self.network.dials:
            if dial.port == RELAY and dial.cable is not None:
                dial.cable.cut()

    def up(self, dialer: Dialer) -> list[int]:
        """How many subflows each path has."""
        return [sum(place.is_up for place in path.places) for path in dialer.paths]

    def test_one_waits(self) -> None:
        """The others are where they are of use."""
        self.assertEqual(self.up(self.start()), [6, 1])

    def test_there_and_back(self) -> None:
        """It has its share once it is needed, and one again when that is over."""
        dialer = self.start()
        self.break_relay()
        self.network.run(3, 0.02)
        self.assertEqual(self.up(dialer), [0, 3])
        self.network.ports[RELAY] = self.listening
        self.network.run(2, 0.02)
        self.assertEqual(self.up(dialer)[0], 3)
        self.network.run(5, 0.02)
        self.assertEqual(self.up(dialer), [6, 1])

    def test_at_rest(self) -> None:
        """One per path, whatever its role."""
        dialer = self.start(PRIMARY, Way(bind="10.0.0.2"), BACKUP)
        self.assertEqual(self.up(dialer), [3, 3, 1])
        self.network.run(305, 0.1)
        self.assertEqual(self.up(dialer), [1, 1, 1])

    def test_nothing_else(self) -> None:
        """Backup paths alone are as good as primary ones."""
        dialer = self.start(BACKUP, Way(bind="10.0.0.2", role=PathRole.BACKUP))
        self.assertEqual(self.up(dialer), [3, 3])

    def test_the_server_knows(self) -> None:
        """It calls the paths what the client does, and keeps to their roles."""
        dialer = self.start()
        opening = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        self.network.run(0.5)
        stream: Any = self.successResultOf(opening)
        (target,) = self.exit.targets
        target.protocol.dataReceived(bytes(200_000))
        self.network.run(1)
        (session,) = self.acceptor.snapshot()
        seen: Any = session["subflows"]
        sent = {one["path"]: one["tx"]["first"] > 0 for one in seen}
        self.assertEqual(sent, {str(PRIMARY): True, str(BACKUP): False})
        stream.abortConnection()
        self.network.run(0.5)
