"""L{stripetwist.net.datagrams}: associations through two drivers, and what serves them."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError

from stripetwist.core.errors import Code, OpenRefused
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.net.association import couple_associations
from stripetwist.test.associations import Bound, Far
from stripetwist.test.test_driver import DriverTestCase

ANY = OpenRequest(ANYWHERE, Kind.UDP, bind=Target.of("127.0.0.1", 51820), copies=2)
PEER = Target.of("192.0.2.7", 53)


class Ear:
    """Who listens to an association."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, Target | None]] = []
        self.lost: list[Code | None] = []

    def datagram_came(self, payload: bytes, peer: Target | None) -> None:
        """See L{Receiver.datagram_came}."""
        self.heard.append((payload, peer))

    def association_lost(self, code: Code | None) -> None:
        """See L{Receiver.association_lost}."""
        self.lost.append(code)


class AssociationCase(DriverTestCase):
    """Two drivers, and an exit with datagrams."""

    def setUp(self) -> None:
        super().setUp()
        self.bound = Bound()
        self.far.serve(self.bound, "laptop")

    def associated(self, request: OpenRequest = ANY) -> tuple[Any, Any, Ear]:
        """One that is there: our end, the exit's, and who listens to ours."""
        opening = self.near.associate(request)
        self.run_for(0.05)
        far, ear = Far(), Ear()
        self.bound.bindings.pop().callback(far)
        self.run_for(0.05)
        near = self.successResultOf(opening)
        near.receiver = ear
        return near, far, ear


class AssociationTests(AssociationCase):
    """One from its beginning to its end."""

    def test_there_and_back(self) -> None:
        """Datagrams with their peers, and what was asked for, with the key that asks."""
        near, far, ear = self.associated()
        (request,) = self.bound.asked
        self.assertEqual(
            request, OpenRequest(ANYWHERE, Kind.UDP, "", "laptop", ANY.bind, ANY.copies)
        )
        near.send(b"ping", PEER)
        near.send(b"", None)
        self.run_for(0.05)
        self.assertEqual(far.sent, [(b"ping", PEER), (b"", None)])
        far.says(b"pong", PEER)
        self.run_for(0.05)
        self.assertEqual(ear.heard, [(b"pong", PEER)])
        self.assertEqual((self.near.active, self.near.is_idle), (1, True))

    def test_closed_here(self) -> None:
        """The far end is closed, after what was sent last; nothing is left."""
        near, far, ear = self.associated()
        near.send(b"bye", None)
        near.close()
        near.send(b"no more", None)
        near.close()
        self.run_for(0.2)
        self.assertEqual((far.sent, far.closed, ear.lost), ([(b"bye", None)], 1, []))
        self.assert_nothing_left()

    def test_closed_there(self) -> None:
        """Whoever listens here is told, in order."""
        near, far, ear = self.associated()
        far.ends()
        self.run_for(0.2)
        self.assertEqual(ear.lost, [None])
        near.close()
        self.assert_nothing_left()

    def test_the_session_is_lost(self) -> None:
        """Both ends are told, with the reason; so is who waits."""
        _, far, ear = self.associated()
        waiting = self.near.associate(ANY)
        self.near.finish(Code.SESSION_LOST, "of this test")
        self.far.finish(Code.SESSION_LOST, "of this test")
        self.assertEqual((ear.lost, far.closed), ([Code.SESSION_LOST], 1))
        self.failureResultOf(waiting, OpenRefused)
        self.failureResultOf(self.near.associate(ANY), OpenRefused)

    def test_shares(self) -> None:
        """A key's associations count among its streams, from the question to their end."""
        held, asked = self.near._streams.held, replace(ANY, key_id="desk")
        made = [self.associated(asked) for _ in range(4)]
        openings = [self.near.associate(asked) for _ in range(2)]
        self.assertEqual({"desk": 6}, held._counts)
        self.assertEqual([False, True], [held.has_room(key, 11) for key in ("desk", "other")])
        self.run_for(0.05)
        openings[0].cancel()
        self.bound.bindings[1].errback(OpenRefused(Code.NOT_ALLOWED, "no"))
        self.run_for(0.05)
        for opening, why in zip(openings, (CancelledError, OpenRefused), strict=True):
            self.failureResultOf(opening, why)
        self.assertEqual(({"desk": 4}, {}), (held._counts, self.near._streams.opening._counts))
        for near, _, _ in made[:2]:
            near.close()
        for _, far, _ in made[2:]:
            far.ends()
        self.run_for(0.2)
        self.assertEqual({}, held._counts)

    def test_share_of_a_key(self) -> None:
        """Of what an exit takes of us one key has a part; local users have what there is."""
        self.near._streams.associations._most = 4
        desk, other = (replace(ANY, key_id=key_id) for key_id in ("desk", "other"))
        made = [self.associated(desk)[0] for _ in range(2)]
        refusal = self.failureResultOf(self.near.associate(desk), OpenRefused).value
        self.assertEqual(Code.OVERLOAD, refusal.code)
        self.assertIn("this key has its share", refusal.sentence)
        made += [self.associated(one)[0] for one in (other, ANY, ANY)]
        made[0].close()
        self.run_for(0.2)
        self.failureResultOf(self.near.associate(other), OpenRefused)
        for one in made[1:]:
            one.close()
        self.run_for(0.2)
        self.associated(desk)

    def test_refused(self) -> None:
        """With the sentence of the exit."""
        opening = self.near.associate(ANY)
        self.run_for(0.05)
        self.bound.bindings.pop().errback(OpenRefused(Code.NOT_ALLOWED, "not there"))
        self.run_for(0.05)
        self.assertEqual(self.failureResultOf(opening, OpenRefused).value.sentence, "not there")
        self.assert_nothing_left()

    def test_an_opener_without_datagrams(self) -> None:
        """Such a kind is refused."""
        self.far.serve(self.exit, "laptop")
        opening = self.near.associate(ANY)
        self.run_for(0.05)
        self.assertEqual(self.failureResultOf(opening, OpenRefused).value.code, Code.BAD_KIND)

    def test_cancelled(self) -> None:
        """The far end is cancelled too, and closed if it comes all the same."""
        opening = self.near.associate(ANY)
        self.run_for(0.05)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.run_for(0.05)
        self.assertEqual(self.bound.cancelled, 1)
        self.assert_nothing_left()

    def test_nobody_listens(self) -> None:
        """What comes is dropped; bytes on its stream mean nothing."""
        near, far, _ = self.associated()
        near.receiver = None
        for _ in range(1000):
            far.says(bytes(1000))
        far_streams = self.far.session._streams
        (stream_id,) = far_streams.table
        self.far.session.write(stream_id, bytes(4000))
        self.far.turn()
        self.run_for(0.2)
        (stream,) = self.near.session._streams.table.values()
        self.assertEqual((stream.ready, stream.window.consumed), (0, 4000))

    def test_coupled(self) -> None:
        """Each end closes the other, once."""
        one, other = Far(), Far()
        couple_associations(one, other)
        one.says(b"x", PEER)
        one.ends(Code.IDLE)
        self.assertEqual((other.sent, other.closed, one.closed), ([(b"x", PEER)], 1, 0))
        self.assertIsNone(other.receiver)

    def test_counted(self) -> None:
        """The snapshot says what has become of them."""
        near, _, _ = self.associated()
        near.send(b"x", None)
        near.send(bytes(65508), None)
        self.run_for(0.05)
        nothing = {"old": 0, "overflow": 0, "late": 0, "duplicate": 0}
        sent = {"sent": 1, "received": 0, "dropped": {**nothing, "overflow": 1}}
        self.assertEqual(self.near.snapshot()["datagrams"], sent)
        came = {"sent": 0, "received": 1, "dropped": {**nothing, "duplicate": 1}}
        self.assertEqual(self.far.snapshot()["datagrams"], came)

    def assert_nothing_left(self) -> None:
        """No stream, no promise."""
        for end, store in zip((self.near, self.far), self.stores, strict=True):
            self.assertEqual((end.active, end.session._streams.table), (0, {}))
            self.assertEqual(store.budget.promised, 0)
