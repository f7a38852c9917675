"""L{stripetwist.net.dialer} and its places, against servers good and bad."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from stripetwist.core import frames
from stripetwist.core.config import KIB
from stripetwist.core.errors import Code
from stripetwist.core.handshake import Intent
from stripetwist.net.dialer import Dialer
from stripetwist.test.link_case import PORT, WEB, LinkTestCase


class UpTests(LinkTestCase):
    """A server that answers."""

    def test_all_places(self) -> None:
        """One connection opens the session, the others join it."""
        dialer, acceptor = self.connected()
        assert dialer.driver is not None
        self.assertEqual(sorted(dialer.driver.connections), [1, 2, 3])
        (member,) = acceptor.door.sessions.values()
        self.assertEqual(sorted(member.driver.connections), [1, 2, 3])
        self.assertTrue(dialer.is_alive())
        self.assertIsNone(dialer.outage())
        self.assertEqual(dialer.last_error, "")

    def test_spacing(self) -> None:
        """The first two are dialed at once, the others a little later."""
        self.connected(subflows=5)
        moments = [round(dial.at, 2) for dial in self.network.dials]
        self.assertEqual(moments, [0.0, 0.0, 0.05, 0.1, 0.15])

    def test_padded(self) -> None:
        """Both ends open their windows, through TLS, and each end counts the other's filler."""
        dialer, acceptor = self.connected(prewarm=96 * KIB)
        self.network.run(1)
        (session,) = dialer.snapshot()
        (other,) = acceptor.snapshot()
        ours: Any = session["subflows"]
        theirs: Any = other["subflows"]
        sent = sum(one["tx"]["pad"] for one in ours)
        # The first had no others to share with for a while.
        self.assertTrue(90 * KIB < sent <= 2 * 96 * KIB, sent)
        self.assertEqual(sum(one["rx"]["pad"] for one in theirs), sent)
        self.assertEqual(sum(one["tx"]["pad"] for one in theirs), 0)

    def test_without_tls(self) -> None:
        """A plain link is for a plain server."""
        self.serve(plain=True)
        dialer = self.dial(self.plain_link())
        self.network.run(0.5)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 3)

    def test_eight_handshakes_at_most(self) -> None:
        """However many places there are, no more are dialed at a time; all come up."""
        self.network.delay = 0.2
        acceptor = self.serve()
        dialer = self.dial(subflows=20, dial_spacing=0.001)
        most = 0
        for _ in range(800):
            self.network.advance(0.01)
            proved = sum(len(m.driver.connections) for m in acceptor.door.sessions.values())
            most = max(most, len(self.network.dials) - proved)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 20)
        # Some that the dialer counts as done have their CONFIRM still under way.
        self.assertLessEqual(most, 16)
        self.assertEqual(len(self.network.dials), 20)

    def test_when_up(self) -> None:
        """Who waits gets the session; who comes later gets it at once."""
        self.serve()
        dialer = self.dial()
        early = dialer.when_up()
        self.assertNoResult(early)
        self.network.run(0.5)
        self.assertIs(self.successResultOf(early), dialer.driver)
        self.assertIs(self.successResultOf(dialer.when_up()), dialer.driver)

    def test_opened_through_it(self) -> None:
        """A stream opened by who waited reaches the server's exit."""
        self.serve()
        dialer = self.dial()
        opening = dialer.when_up().addCallback(lambda opener: opener.open(WEB))
        self.network.run(0.5)
        self.successResultOf(opening)
        self.assertEqual(len(self.exit.targets), 1)

    def test_snapshot(self) -> None:
        """It can be shown, without secrets."""
        dialer, _ = self.connected()
        (session,) = dialer.snapshot()
        self.assertEqual((session["key"], session["role"]), ("client-1", "client"))
        self.assertNotIn("secret", str(session))
        self.stop(dialer)
        self.assertEqual(dialer.snapshot(), [])


class WaitTests(LinkTestCase):
    """Who waits for a session that does not come."""

    def test_too_long(self) -> None:
        """After a while they are told why, in a sentence that names the server."""
        dialer = self.dial()
        waiting = dialer.when_up()
        self.network.run(self.limits.session_wait - 0.1, 0.05)
        self.assertNoResult(waiting)
        self.network.run(0.2)
        sentence = self.refusal(waiting, Code.NET_UNREACHABLE)
        self.assertIn("192.0.2.1:8443", sentence[:80])
        self.assertIn("start the server there", sentence)

    def test_no_answer_yet(self) -> None:
        """Also when there is no reason to be given."""
        self.network.silent.add(PORT)
        dialer = self.dial(session_wait=0.5)
        waiting = dialer.when_up()
        self.network.run(0.6)
        self.assertIn("no answer yet", self.refusal(waiting, Code.NET_UNREACHABLE))

    def test_cancelled(self) -> None:
        """Who no longer waits is forgotten, with its timer."""
        self.network.silent.add(PORT)
        dialer = self.dial()
        before = len(self.network.getDelayedCalls())
        waiting = dialer.when_up()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(len(self.network.getDelayedCalls()), before)

    def test_cancelled_by_another(self) -> None:
        """One that is told may cancel the next; that is no error."""
        for works in (True, False):
            self.setUp()
            if works:
                self.serve()
            dialer = self.dial()
            first, second = dialer.when_up(), dialer.when_up()
            first.addBoth(self.cancel, second)
            if works:
                self.network.run(0.5)
            else:
                self.stop(dialer)
            self.failureResultOf(second, CancelledError)
            self.tearDown()

    def cancel(self, result: object, other: "Deferred[Any]") -> None:
        """Cancel another."""
        other.cancel()

    def test_stopped(self) -> None:
        """Stopping tells them, and whoever still comes."""
        dialer = self.dial()
        waiting = dialer.when_up()
        self.stop(dialer)
        for one in (waiting, dialer.when_up()):
            sentence = self.refusal(one, Code.NET_UNREACHABLE)
            self.assertIn("shutting down", sentence)


class DeathTests(LinkTestCase):
    """Connections that die."""

    def test_replaced(self) -> None:
        """One that worked is dialed again at once, and says which one it replaces (1)."""
        dialer, acceptor = self.connected()
        self.network.run(1.5)
        self.network.cables[0].cut()
        self.network.run(0.3)
        (member,) = acceptor.door.sessions.values()
        self.assertEqual(sorted(member.driver.connections), [2, 3, 4])
        self.assertEqual([place.deaths for place in dialer.places], [1, 0, 0])

    def test_half_dead(self) -> None:
        """Where the server has not noticed a death, the new connection tells it."""
        dialer, acceptor = self.connected()
        self.network.run(1.5)
        (member,) = acceptor.door.sessions.values()
        cable = self.network.cables[0]
        cable.silent = True
        cable.ends[0].arrive_reset()
        self.network.run(0.3)
        self.assertEqual(sorted(member.driver.connections), [2, 3, 4])
        self.assertFalse(cable.ends[1].connected)
        cable.ends[0]._unsent.clear()

    def test_all_at_once(self) -> None:
        """The session outlives the loss of every connection (3)."""
        dialer, acceptor = self.connected()
        opening = self.successful_open(dialer)
        self.network.run(1.5)
        for cable in self.network.living:
            cable.cut()
        self.assertFalse(dialer.is_alive())
        driver = dialer.driver
        self.network.run(0.5)
        self.assertIs(dialer.driver, driver)
        self.assertTrue(dialer.is_alive())
        opening.write(b"still there")
        self.network.run(0.3)
        self.assertEqual(len(acceptor.door.sessions), 1)

    def successful_open(self, dialer: Dialer) -> Any:
        """A stream."""
        assert dialer.driver is not None
        opening = dialer.driver.open(WEB)
        self.network.run(0.2)
        return self.successResultOf(opening)

    def test_session_timeout(self) -> None:
        """After a minute without any, streams are reset at both ends, and all is new (4)."""
        dialer, acceptor = self.connected()
        stream = self.successful_open(dialer)
        parked, driver = stream.protocol, dialer.driver
        listening = self.network.ports.pop(PORT)
        for cable in self.network.living:
            cable.cut()
        self.network.run(59, 0.05)
        self.assertIs(dialer.driver, driver)
        self.network.run(20, 0.05)
        self.assertIsNone(dialer.driver)
        self.assertIsNotNone(parked.lost)
        self.assertEqual(self.exit.targets[0].ended, "reset")
        self.assertEqual(acceptor.door.sessions, {})
        self.network.ports[PORT] = listening
        self.network.run(4)
        self.assertTrue(dialer.is_alive())
        self.assertEqual(len(acceptor.door.sessions), 1)

    def test_server_restarted(self) -> None:
        """Its sessions are gone: streams are reset and a new one is opened, soon (51)."""
        dialer, acceptor = self.connected()
        stream = self.successful_open(dialer)
        parked, driver = stream.protocol, dialer.driver
        self.network.run(1.5)
        acceptor = self.restart(acceptor)
        lines = self.logged(lambda: self.network.run(2))
        self.assertIsNotNone(parked.lost)
        self.assertIsNot(dialer.driver, driver)
        self.assertTrue(dialer.is_alive())
        (member,) = acceptor.door.sessions.values()
        self.assertEqual(len(member.driver.connections), 3)
        self.assertIn("session with 192.0.2.1:8443 over", " ".join(lines))

    def test_no_stream_for_a_session_in_doubt(self) -> None:
        """What is asked for while no subflow is up goes to the session that comes next."""
        dialer, acceptor = self.connected()
        self.network.run(1.5)
        listening = self.network.ports.pop(PORT)
        for cable in self.network.living:
            cable.cut()
        self.network.run(0.5)
        self.assertIsNotNone(dialer.driver)
        asked = dialer.when_up()
        self.assertNoResult(asked)
        self.network.ports[PORT] = listening
        self.network.run(2.5)
        self.assertIs(self.successResultOf(asked), dialer.driver)
        self.assertTrue(dialer.is_alive())

    def test_unknown_to_one_of_several(self) -> None:
        """A server that lets one connection not in ends nothing while others carry."""
        dialer, acceptor = self.connected()
        stream = self.successful_open(dialer)
        self.network.run(1.5)
        (member,) = acceptor.door.sessions.values()
        acceptor.door.sessions.clear()
        self.network.cables[0].cut()
        self.network.run(0.5)
        self.assertGreater(len(self.network.dials), 3)
        acceptor.door.sessions[member.membership.session_id] = member
        self.network.run(0.5)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 3)
        stream.write(b"still there")
        self.network.run(0.2)
        self.assertEqual(self.exit.targets[0].drain(), b"still there")

    def test_join_ahead_of_its_session(self) -> None:
        """A JOIN that overtakes the first CONFIRM costs a moment, not the session."""
        self.serve()
        dialer = self.dial()
        self.network.run(0.055)
        self.assertIsNone(dialer.driver)
        self.network.cables[0].delay = 0.1
        lines = self.logged(lambda: self.network.run(0.2))
        self.assertIn("not let in", " ".join(lines))
        driver = dialer.driver
        assert driver is not None
        self.network.run(1.5)
        self.assertIs(dialer.driver, driver)
        self.assertEqual(len(driver.connections), 3)

    def test_session_closed_by_the_server(self) -> None:
        """A server that ends the session is asked for another one."""
        dialer, acceptor = self.connected()
        acceptor.end_sessions_of({"client-1"})
        self.network.run(0.5)
        self.assertTrue(dialer.is_alive())
        self.assertEqual(len(acceptor.door.sessions), 1)


class StopTests(LinkTestCase):
    """A client may be stopped at any moment: nothing is left, and the Deferred fires."""

    def test_before_the_start(self) -> None:
        """Also one that has not dialed yet."""
        dialer = Dialer(self.network, self.ground(), self.names, self.link)
        self.successResultOf(dialer.stopService())

    def test_while_looking_up(self) -> None:
        """Look-ups are cancelled."""
        dialer = self.dial(replace(self.link, host="vps.example"))
        self.network.run(0.1)
        self.successResultOf(dialer.stopService())
        self.dialers.clear()
        self.assertEqual(self.names.cancelled, 3)

    def test_while_connecting(self) -> None:
        """Connects are broken off."""
        self.network.silent.add(PORT)
        dialer = self.dial()
        self.network.run(0.1)
        self.successResultOf(dialer.stopService())
        self.dialers.clear()
        self.assertEqual({dial.state for dial in self.network.dials}, {"stopped"})

    def test_at_every_moment(self) -> None:
        """From the first SYN to the last answer, and with others that wait for their turn."""
        for moment in range(0, 160, 7):
            self.setUp()
            self.serve()
            dialer = self.dial(subflows=12, dial_spacing=0.005)
            waiting = dialer.when_up()
            waiting.addErrback(lambda _: None)
            self.network.run(moment / 1000, 0.001)
            self.stop(dialer)
            self.tearDown()

    def test_while_hanging(self) -> None:
        """A server that answers nothing more is waited for no longer than 5 s (23, 24)."""
        dialer, _ = self.connected()
        for cable in self.network.cables:
            cable.silent = True
        stopping = dialer.stopService()
        self.network.run(4.9)
        self.assertNoResult(stopping)
        self.network.run(0.2)
        self.successResultOf(stopping)
        self.dialers.clear()

    def test_not_before_the_last(self) -> None:
        """One place that ends at once does not speak for the others."""
        dialer, _ = self.connected(subflows=2)
        path: Any = dialer.paths[0]
        path.find_address = lambda: self.names.resolve("vps.example")
        self.network.cables[0].cut()
        self.network.run(0.5)
        self.network.cables[1].silent = True
        stopping = dialer.stopService()
        self.network.run(1)
        self.assertNoResult(stopping)
        self.network.run(5)
        self.successResultOf(stopping)
        self.dialers.clear()

    def test_session_is_closed_in_order(self) -> None:
        """The server is told, and does not wait for us."""
        dialer, acceptor = self.connected()
        self.stop(dialer)
        self.assertEqual(acceptor.door.sessions, {})


class EstablishedTests(LinkTestCase):
    """What the dialer does with connections that proved themselves."""

    def test_number_used_before(self) -> None:
        """Should a number be taken, that connection is given up, and the next one let in."""
        self.serve()
        dialer = self.dial()
        self.network.run(0.5)
        self.network.run(1.2)
        dialer._next_id = 2
        self.network.cables[0].cut()
        self.network.run(1)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 3)

    def test_late_frames(self) -> None:
        """A first frame that comes in pieces is no rejection."""
        dialer, acceptor = self.connected()
        (member,) = acceptor.door.sessions.values()
        connection: Any = next(iter(member.driver.connections.values()))
        ping = frames.pack(frames.PING, offset=7)
        for one in ping:
            connection.transport.write(bytes([one]))
            self.network.run(0.05)
        self.network.run(0.2)
        assert dialer.driver is not None
        self.assertEqual(len(dialer.driver.connections), 3)

    def test_intents_have_numbers_of_their_own(self) -> None:
        """No number is used twice in a session, whatever becomes of its connection."""
        seen: list[Intent] = []
        dialer, acceptor = self.connected()

        def noted(greet: Callable[[Intent], None], intent: Intent) -> None:
            seen.append(intent)
            greet(intent)

        for place in dialer.places:
            self.patch(place, "greet", partial(noted, place.greet))
        for _ in range(5):
            self.network.run(1.1)
            self.network.living[0].cut()
        self.network.run(0.5)
        numbers = [intent.subflow_id for intent in seen]
        self.assertEqual(len(numbers), len(set(numbers)))
        self.assertTrue(all(intent.replaces for intent in seen))
        self.assertTrue(all(intent.join for intent in seen))
