"""L{stripetwist.net.path}: how many places a path has, and where they dial."""

from dataclasses import replace
from functools import partial
from typing import Any

from stripetwist.core.config import KIB
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest
from stripetwist.core.way import Via, Way
from stripetwist.net import sockets
from stripetwist.net.dialer import Dialer
from stripetwist.test.associations import Bound, Far
from stripetwist.test.link_case import PORT, WEB, LinkTestCase


class PathTestCase(LinkTestCase):
    """Looks at the subflows of both ends."""

    def up(self, dialer: Dialer) -> list[int]:
        """The subflows of a client, and of its server."""
        assert dialer.driver is not None
        ours = sorted(dialer.driver.connections)
        (member,) = self.acceptors[0].door.sessions.values()
        self.assertEqual(sorted(member.driver.connections), ours)
        return ours


class RestTests(PathTestCase):
    """A session that nobody uses."""

    def rested(self) -> Dialer:
        """One that has not been used for five minutes."""
        dialer, _ = self.connected()
        self.network.run(299 - self.network.seconds(), 0.5)
        self.assertEqual(len(self.up(dialer)), 3)
        lines = self.logged(lambda: self.network.run(5, 0.05))
        self.assertEqual(lines, [])
        return dialer

    def test_one_stays(self) -> None:
        """After five minutes there is one subflow, in the same session, and none is dialed."""
        dialer = self.rested()
        self.assertEqual(len(self.up(dialer)), 1)
        dials = len(self.network.dials)
        self.network.run(60, 0.05)
        self.assertEqual(len(self.up(dialer)), 1)
        self.assertEqual(len(self.network.dials), dials)

    def test_all_come_back(self) -> None:
        """Who opens a stream has it at once, and the others come up beside it."""
        dialer = self.rested()
        opening = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        self.network.run(0.045)
        stream: Any = self.successResultOf(opening)
        self.network.run(0.5)
        self.assertEqual(len(self.up(dialer)), 3)
        stream.loseConnection()
        self.network.run(0.5)

    def test_datagrams_are_use(self) -> None:
        """An association alone is none, but what flows on it is."""
        dialer, _ = self.connected()
        assert dialer.driver is not None
        (member,) = self.acceptors[0].door.sessions.values()
        exit = Bound()
        member.driver.serve(exit, "client")
        opening = dialer.driver.associate(OpenRequest(ANYWHERE, Kind.UDP))
        self.network.run(0.2)
        exit.bindings.pop().callback(Far())
        self.network.run(0.2)
        association = self.successResultOf(opening)
        self.network.run(305, 0.5)
        self.assertEqual(len(self.up(dialer)), 1)
        association.send(b"x", None)
        self.network.run(5, 0.05)
        self.assertEqual(len(self.up(dialer)), 3)

    def test_not_while_a_stream_is_open(self) -> None:
        """However long nothing is sent on it."""
        dialer, _ = self.connected()
        assert dialer.driver is not None
        opening = dialer.driver.open(WEB)
        self.network.run(0.2)
        stream = self.successResultOf(opening)
        self.network.run(400, 0.5)
        self.assertEqual(len(self.up(dialer)), 3)
        stream.abortConnection()  # type: ignore[attr-defined]
        self.network.run(0.5)

    def test_one_on_each_path(self) -> None:
        """Each path keeps one."""
        self.serve()
        dialer = self.dial(ways=[Way(), Way(bind="10.0.0.2")], subflows=5)
        self.network.run(0.5)
        self.assertEqual([len(path.places) for path in dialer.paths], [3, 2])
        self.network.run(305, 0.1)
        self.assertEqual([len(path.places) for path in dialer.paths], [1, 1])
        self.assertEqual(len(self.up(dialer)), 2)


class GrowTests(PathTestCase):
    """More subflows are tried, and given up again where they bring nothing."""

    def test_there_and_back(self) -> None:
        """Nothing that was on them is lost, nor sent twice."""
        self.network.delay = 0.05
        dialer, _ = self.connected(subflows=2, grow_most=8)
        opening = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        self.network.run(0.3)
        stream: Any = self.successResultOf(opening)
        (target,) = self.exit.targets
        most = 0
        for _ in range(110):
            stream.write(bytes(20 * KIB))
            self.network.run(0.05, 0.01)
            target.drain()
            most = max(most, len(dialer.places))
        self.assertEqual(most, 4)
        self.network.run(2, 0.05)
        self.assertEqual(self.up(dialer), [1, 2])
        self.assertEqual(len(self.network.dials), 4)
        target.drain()
        self.assertEqual(len(target.sent), 110 * 20 * KIB)
        driver: Any = dialer.driver
        traffic = [subflow["tx"] for subflow in driver.snapshot()["subflows"]]
        self.assertEqual(sum(one["copy"] for one in traffic), 0)
        stream.loseConnection()
        self.network.run(0.5)

    def test_both_sides_know(self) -> None:
        """What is to go carries nothing new in either direction, and is there for a while yet."""
        dialer, acceptor = self.connected()
        place = dialer.places[-1]
        place.leave()
        self.network.run(0.1)
        (member,) = acceptor.door.sessions.values()
        for driver in (dialer.driver, member.driver):
            assert driver is not None
            states = {one["id"]: one["state"] for one in driver.snapshot()["subflows"]}
            self.assertEqual(states, {1: "active", 2: "active", 3: "draining"})
        self.network.run(self.limits.leave_after)
        self.assertEqual(self.up(dialer), [1, 2])

    def test_a_server_that_takes_no_more(self) -> None:
        """That is no trouble, and what there was stays."""
        self.network.delay = 0.05
        self.serve(replace(self.limits, max_subflows=3))
        dialer = self.dial(subflows=2, grow_most=8)
        opening = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        self.network.run(0.8)
        stream: Any = self.successResultOf(opening)
        (target,) = self.exit.targets
        most = 0

        def upload() -> None:
            nonlocal most
            for _ in range(110):
                stream.write(bytes(20 * KIB))
                self.network.run(0.05, 0.01)
                target.drain()
                most = max(most, len(dialer.places))

        lines = [line for line in self.logged(upload) if "192.0.2.1:8443" in line]
        self.assertEqual((most, dialer.last_error), (4, ""))
        self.assertIn("4 connections from now on, 2 before", lines[0])
        self.assertEqual([line for line in lines if "from now on" not in line], [])
        self.network.run(2, 0.05)
        self.assertTrue({1, 2} <= set(self.up(dialer)))
        stream.loseConnection()
        self.network.run(0.5)

    def test_stopped_while_it_grows(self) -> None:
        """Neither the next look nor what is about to go holds the end up."""
        dialer, _ = self.connected(grow_most=8)
        dialer.when_up()
        dialer.places[-1].leave()
        self.network.run(0.1)
        self.stop(dialer)

    def test_growth_and_doubt(self) -> None:
        """A substitute stands for what it replaces: both go, or both stay, and they count once."""
        dialer, _ = self.connected()
        self.network.run(1)
        (path,) = dialer.paths
        for place in dialer.places[:2]:
            path.doubt(place)
        self.assertEqual(len(path.wanted), 3)
        self.assertEqual(path.fit(3), [])
        self.assertEqual(len(path.places), 5)
        path.fit(1)
        self.network.run(3)
        self.assertEqual((len(self.up(dialer)), len(path.places)), (1, 1))

    def test_what_is_not_up_need_not_drain(self) -> None:
        """It goes at once."""
        self.network.silent.add(PORT)
        dialer = self.dial()
        self.network.run(0.1)
        dialer.places[-1].leave()
        self.assertEqual(len(dialer.places), 2)


class DoubtTests(PathTestCase):
    """Connections that may lead nowhere any more."""

    def test_two_pings_missed(self) -> None:
        """An idle one that does not answer is replaced before it is given up."""
        dialer, _ = self.connected()
        self.network.run(1)
        lost = self.network.cables[0]
        lost.silent = True
        self.network.run(20.5, 0.05)
        self.assertEqual(self.up(dialer), [1, 2, 3])
        self.network.run(2, 0.05)
        self.assertEqual(self.up(dialer), [2, 3, 4])
        self.assertEqual(len(dialer.places), 3)
        self.network.run(60, 0.05)
        self.assertEqual(self.up(dialer), [2, 3, 4])
        self.assertEqual(len(self.network.dials), 4)

    def test_it_dies_first(self) -> None:
        """While its substitute dials: that one stays, and it is not dialed a second time."""
        dialer, _ = self.connected()
        self.network.run(1)
        place = dialer.places[0]
        place.path.doubt(place)
        place.path.doubt(place)
        self.assertEqual(len(dialer.places), 4)
        self.network.cables[0].cut()
        self.network.run(1)
        self.assertEqual(len(dialer.places), 3)
        self.assertEqual(self.up(dialer), [2, 3, 4])
        self.assertFalse(place.path.is_replaced(place))

    def test_no_substitute_to_be_had(self) -> None:
        """The one in doubt goes on, and the substitute is dialed until it is there."""
        dialer, _ = self.connected()
        self.network.run(1)
        place, listening = dialer.places[0], self.network.ports.pop(PORT)
        place.path.doubt(place)
        self.network.run(3)
        self.assertEqual(self.up(dialer), [1, 2, 3])
        self.network.ports[PORT] = listening
        self.network.run(1)
        self.assertEqual(self.up(dialer), [2, 3, 4])


class SourceTests(PathTestCase):
    """A machine that moves from one network to another."""

    def setUp(self) -> None:
        super().setUp()
        self.source: str | None = "10.0.0.2"
        self.cards: list[str] = []
        self.patch(sockets, "source_towards", self.source_towards)

    def source_towards(self, address: str, card: str) -> str | None:
        """What the kernel would say."""
        self.cards.append(card)
        return self.source

    def test_moved(self) -> None:
        """All are dialed again within two seconds, and not one is without replacement."""
        dialer, _ = self.connected()
        self.network.run(2)
        opening: Any = dialer.driver
        opening = opening.open(WEB)
        self.network.run(0.2)
        self.successResultOf(opening).loseConnection()
        self.source = None
        self.network.run(4)
        seen = dialer.paths[0].snapshot()
        self.assertEqual((seen["state"], seen["subflows"], seen["wanted"]), ("down", 0, 3))
        self.assertEqual(seen["last_error"], "this machine has no route there for now")
        self.source = "10.0.0.2"
        self.network.run(4)
        self.assertEqual(dialer.paths[0].snapshot()["state"], "up")
        self.assertEqual(self.up(dialer), [1, 2, 3])
        self.source = "192.168.1.2"
        self.network.run(2.5)
        self.assertEqual(self.up(dialer), [4, 5, 6])
        self.assertEqual(len(dialer.places), 3)
        self.network.run(4)
        self.assertEqual(self.up(dialer), [4, 5, 6])

    def test_not_known(self) -> None:
        """Where the kernel cannot be asked, all is taken to be as it was."""
        dialer, _ = self.connected()
        for self.source in ("", "10.0.0.2", ""):
            self.network.run(4)
            self.assertEqual(dialer.paths[0].snapshot()["state"], "up")
            self.assertEqual(self.up(dialer), [1, 2, 3])
        self.source = "192.168.1.2"
        self.network.run(2.5)
        self.assertEqual(self.up(dialer), [4, 5, 6])

    def test_moved_at_once(self) -> None:
        """Just after the session was opened, before anybody has looked around."""
        dialer, _ = self.connected()
        self.source = "192.168.1.2"
        self.network.run(2.5)
        self.assertEqual(self.up(dialer), [4, 5, 6])

    def test_waiting_places_dial_at_once(self) -> None:
        """What failed from the old address need not fail from the new one."""
        dialer, _ = self.connected(redial_alive=100.0)
        self.network.run(2)
        listening = self.network.ports.pop(PORT)
        self.network.cables[0].cut()
        self.network.run(3)
        self.assertEqual(self.up(dialer), [2, 3])
        self.network.ports[PORT] = listening
        self.source = "192.168.1.2"
        self.network.run(2.5)
        self.assertEqual(len(self.up(dialer)), 3)

    def test_a_card_that_appears(self) -> None:
        """However long it was away, what was lost meanwhile is dialed within two seconds."""
        self.source = None
        dialer, _ = self.connected(redial_alive=100.0)
        for lost in (3, 4):
            self.network.run(2.5)
            listening = self.network.ports.pop(PORT)
            self.network.cables[-1].cut()
            self.source = None
            self.network.run(3)
            self.assertEqual(self.up(dialer), [1, 2])
            self.network.ports[PORT] = listening
            self.source = "10.0.0.2"
            self.network.run(2.5)
            self.assertEqual(len(self.up(dialer)), 3)
            self.assertNotIn(lost, self.up(dialer))

    def test_not_where_the_user_has_chosen(self) -> None:
        """With bind= there is no other; with nic= that card is looked at."""
        self.serve()
        self.dial(ways=[Way(bind="10.0.0.2"), Way(nic="wlan0")])
        self.network.run(5)
        self.assertEqual(set(self.cards), {"wlan0"})


class WayTests(PathTestCase):
    """Where each path dials, and from where."""

    def test_relay_and_address(self) -> None:
        """A relay's host and port; the link's where the path says nothing."""
        self.serve()
        self.network.ports[443] = self.network.ports[PORT]
        ways = [
            Way(),
            Way("relay.example", 443, via=Via.RELAY),
            Way("198.51.100.7", bind="10.0.0.2", via=Via.RELAY),
        ]
        self.names.table["relay.example"] = ["198.51.100.1"]
        dialer = self.dial(ways=ways)
        self.network.run(1)
        self.assertEqual(len(self.up(dialer)), 3)
        seen = {(dial.host, dial.port, dial.source) for dial in self.network.dials}
        self.assertEqual(
            seen,
            {
                ("192.0.2.1", PORT, None),
                ("198.51.100.1", 443, None),
                ("198.51.100.7", PORT, ("10.0.0.2", 0)),
            },
        )
        (session,) = dialer.snapshot()
        subflows: Any = session["subflows"]
        self.assertEqual({one["path"] for one in subflows}, {str(way) for way in ways})
        del self.network.ports[443]

    def test_sentences_name_the_relay(self) -> None:
        """Whoever reads them must know what to look after."""
        self.dial(ways=[Way("198.51.100.7", 443, via=Via.RELAY)])
        lines = self.logged(lambda: self.network.run(1))
        self.assertIn("192.0.2.1:8443 by tcp://198.51.100.7:443 refuses", " ".join(lines))

    def test_two_ways_that_fail(self) -> None:
        """Each is told of once, though they are dialed in turn for a while."""
        relays = [Way("198.51.100.7", port, via=Via.RELAY) for port in (443, 444)]
        self.dial(ways=relays)
        lines = self.logged(lambda: self.network.run(5, 0.01))
        self.assertGreater(len(self.network.dials), 6)
        self.assertEqual(len([line for line in lines if "refuses" in line]), 2)

    def test_two_ways_that_fail_alike(self) -> None:
        """What is told of one is no news of the other, until that has worked."""
        dialer = self.dial(ways=[Way(bind="10.0.0.2"), Way(bind="10.0.0.3")])
        why = "192.0.2.1:8443 closed the connection instead of letting us in; see its log"

        def fail() -> None:
            for path in dialer.paths:
                dialer.failed(why, path)

        self.assertEqual(self.logged(fail), [why])
        for path in dialer.paths:
            since = self.network.seconds()
            self.network.run(1)
            dialer.place_lost(path, since)
            self.assertEqual((self.logged(fail), self.logged(fail)), ([why], []))

    def test_a_path_that_is_away(self) -> None:
        """Is seen, with the reason, until it is up again, which is told of once."""
        self.serve()
        self.network.ports[443] = self.network.ports[PORT]
        relay = Way("198.51.100.7", 443, via=Via.RELAY)
        dialer = self.dial(ways=[Way(), relay], subflows=4)
        self.network.run(1)
        direct, other = dialer.paths
        self.assertEqual((other.snapshot()["state"], other.snapshot()["subflows"]), ("up", 2))
        del self.network.ports[443]
        for dial in self.network.dials:
            if dial.port == 443 and dial.cable is not None:
                dial.cable.cut()
        self.network.run(2)
        self.assertEqual((direct.snapshot()["state"], direct.snapshot()["last_error"]), ("up", ""))
        seen = other.snapshot()
        self.assertEqual((seen["state"], seen["subflows"], seen["wanted"]), ("down", 0, 2))
        self.assertIn("by tcp://198.51.100.7:443 refuses", str(seen["last_error"]))
        self.network.ports[443] = self.network.ports[PORT]
        lines = self.logged(lambda: self.network.run(2))
        self.assertEqual([line for line in lines if "back" in line], [f"path {relay} is back"])
        self.assertEqual((other.snapshot()["state"], other.snapshot()["last_error"]), ("up", ""))
        del self.network.ports[443]

    def test_what_is_lost_one_by_one(self) -> None:
        """Is told of once, whatever becomes of other paths; and again once it was back."""
        self.serve()
        self.network.ports[443] = self.network.ports[PORT]
        dialer = self.dial(ways=[Way(), Way("198.51.100.7", 443, via=Via.RELAY)], subflows=4)
        self.network.run(2)

        def lose(cables: list[Any]) -> None:
            for cable in cables:
                cable.cut()
                self.network.run(1.5)

        for _ in range(2):
            cables = [one for one in self.network.living if one.ends[0].getPeer().port == 443]
            cables += [one for one in self.network.living if one not in cables]
            del self.network.ports[443]
            lines = self.logged(partial(lose, cables[:3]))
            self.assertEqual(sum("tcp://198.51.100.7:443 refuses" in one for one in lines), 1)
            self.network.ports[443] = self.network.ports[PORT]
            self.network.run(3)
            self.assertEqual(len(self.up(dialer)), 4)
        del self.network.ports[443]

    def test_a_session_that_is_away(self) -> None:
        """Its path says why; that it is back is told with the session."""
        dialer, _ = self.connected()
        listening = self.network.ports.pop(PORT)
        for cable in self.network.living:
            cable.cut()
        self.network.run(2)
        (path,) = dialer.paths
        self.assertIn("192.0.2.1:8443 refuses", str(path.snapshot()["last_error"]))
        self.network.ports[PORT] = listening
        lines = self.logged(lambda: self.network.run(3))
        self.assertEqual((path.snapshot()["state"], path.snapshot()["last_error"]), ("up", ""))
        self.assertNotIn("back", " ".join(lines))

    def test_a_card_is_named(self) -> None:
        """A path that fails says by which card or from which address it was dialed."""
        dialer = self.dial(ways=[Way(nic="wwan0")], subflows=1)
        self.network.run(1)
        self.assertIn(f"{dialer.link.address} by direct,nic=wwan0 refuses", dialer.last_error)

    def test_never_fewer_than_paths(self) -> None:
        """Each path has one, even if fewer were wanted."""
        self.serve()
        dialer = self.dial(ways=[Way(), Way(nic="eth0"), Way(nic="eth1")], subflows=2)
        self.network.run(1)
        self.assertEqual(len(self.up(dialer)), 3)

    def test_a_path_says_how_many(self) -> None:
        """It has so many; the others share what that leaves, and have at least one."""
        self.serve()
        for count, wanted in ((9, [4, 3, 2]), (4, [4, 1, 1])):
            ways = [Way(subflows=4), Way(nic="eth0"), Way(nic="eth1")]
            dialer = self.dial(ways=ways, subflows=count)
            self.network.run(1)
            self.assertEqual([len(path.places) for path in dialer.paths], wanted)

    def test_all_paths_say_how_many(self) -> None:
        """Then no more are tried; at rest one stays on each, and they come back with use."""
        self.serve()
        ways = [Way(subflows=2), Way(nic="eth0", subflows=1)]
        dialer = self.dial(ways=ways, subflows=2, grow_most=8)
        self.network.run(1)
        self.assertEqual(len(self.up(dialer)), 3)
        timers = len(self.network.getDelayedCalls())
        dialer.when_up()
        self.assertEqual(len(self.network.getDelayedCalls()), timers)
        self.network.run(305, 0.1)
        self.assertEqual(len(self.up(dialer)), 2)
        dialer.when_up()
        self.network.run(1)
        self.assertEqual(len(self.up(dialer)), 3)
