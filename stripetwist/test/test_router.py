"""L{stripetwist.net.router}: the exit that is asked for, and who may ask."""

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from stripetwist.core.errors import Code
from stripetwist.core.target import ANYWHERE, Kind, OpenRequest, Target
from stripetwist.net.keyfile import Key
from stripetwist.net.router import Router
from stripetwist.test.associations import Far
from stripetwist.test.pool_case import LIMITS, WEB, FakeWorker, PoolCase

SECRET = bytes(32)
KEYS = {
    "desk": Key("desk", SECRET, "client"),
    "guest": Key("guest", SECRET, "client", exits=("attic", "garage")),
}


class RouterTests(PoolCase):
    """Three agents and the server."""

    def setUp(self) -> None:
        """One router."""
        super().setUp()
        self.direct = FakeWorker("direct")
        self.router = Router(self.direct, self.roster, KEYS.get, self.clock, LIMITS)

    def open(self, exit_name: str, key_id: str = "desk") -> "Deferred[Any]":
        """A peer, or without a key a local user, asks."""
        return self.router.open(OpenRequest(WEB.target, exit=exit_name, key_id=key_id))

    def test_the_server(self) -> None:
        """It is its own exit where it is named, or none is."""
        for name in ("", "server"):
            opening = self.open(name)
            self.assert_reached(opening, self.direct)
        self.assertEqual(self.direct.requests[0].key_id, "desk")
        self.assertEqual(self.asked(), [])

    def test_an_agent(self) -> None:
        """By name."""
        opening = self.open("barn")
        self.assert_reached(opening, self.barn)
        self.barn.is_able = False
        self.refusal(self.open("barn"), Code.NO_WORKER)

    def test_one_that_is_not_there(self) -> None:
        """The sentence names those that are, as far as the key may use them."""
        sentence = self.refusal(self.open("garage"), Code.NO_WORKER)
        self.assertIn("no agent is there for exit garage; there is attic, barn, cellar", sentence)
        sentence = self.refusal(self.open("garage", "guest"), Code.NO_WORKER)
        self.assertTrue(sentence.endswith("garage; there is attic"), sentence)
        self.workers.clear()
        sentence = self.refusal(self.open("garage", "guest"), Code.NO_WORKER)
        self.assertTrue(sentence.endswith("for exit garage"), sentence)
        self.workers.extend(FakeWorker(f"a{number}") for number in range(9))
        self.assertIn("a7, ...", self.refusal(self.open("site=x"), Code.NO_WORKER))

    def test_what_the_key_may_not_use(self) -> None:
        """Neither the server, nor any agent, nor another one, there or not."""
        for name in ("", "server", "any", "barn", "nowhere", "site=bonn"):
            sentence = self.refusal(self.open(name, "guest"), Code.NOT_ALLOWED)
            self.assertIn(f"may not use the exit {name or 'server'};", sentence)
            self.assertNotIn("attic", sentence)
        self.assertEqual(self.asked() + self.direct.opens, [])
        opening = self.open("attic", "guest")
        self.assert_reached(opening, self.attic)

    def own(self, exit_name: str, name: str, key_id: str = "desk") -> "Deferred[Any]":
        """Somebody asks for an agent's own machine."""
        target = Target.of(f"{name}.exit", 80)
        return self.router.open(OpenRequest(target, exit=exit_name, key_id=key_id))

    def test_the_machine_of_an_agent(self) -> None:
        """Is reached by that agent, and by no other in its place."""
        self.router.fallback = self.direct
        for exit_name in ("barn", "any", "", "server"):
            opening = self.own(exit_name, "barn", "")
            self.assertEqual(self.asked(), ["barn"], exit_name)
            self.barn.refuse(Code.REFUSED_BY_TARGET)
            self.refusal(opening, Code.REFUSED_BY_TARGET)
        self.assertEqual(self.asked() + self.direct.opens, [])
        sentence = self.refusal(self.own("attic", "barn"), Code.NO_WORKER)
        self.assertIn("it is the machine of the agent barn, not of exit attic", sentence)
        self.refusal(self.own("", "barn", "guest"), Code.NOT_ALLOWED)
        self.refusal(self.own("any", "nowhere"), Code.NO_WORKER)

    def test_a_key_for_few_targets(self) -> None:
        """Reaches them from the server, unless its exits say more."""
        narrow = Key("n", SECRET, "client", allow=("203.0.113.5:443",))
        self.assertTrue(narrow.allows_exit("server"))
        self.assertFalse(narrow.allows_exit("attic"))
        self.assertTrue(replace(narrow, exits=("*",)).allows_exit("attic"))
        self.assertTrue(KEYS["desk"].allows_exit("attic"))

    def test_a_key_that_is_gone(self) -> None:
        """Reaches nothing."""
        for name in ("", "any"):
            sentence = self.refusal(self.open(name, "gone"), Code.NOT_ALLOWED)
            self.assertIn("revoked or has expired", sentence)

    def test_what_is_no_exit(self) -> None:
        """A sentence says what is."""
        self.assertIn("LABEL=VALUE", self.refusal(self.open("Not This"), Code.NO_WORKER))

    def test_the_fallback_is_for_local_users(self) -> None:
        """A peer gets the exit that it names, or a refusal."""
        self.workers.clear()
        self.refusal(self.open("any", ""), Code.NO_WORKER)
        self.router.fallback = self.direct
        self.refusal(self.open("any"), Code.NO_WORKER)
        opening = self.open("any", "")
        self.assert_reached(opening, self.direct)

    def associate(self, exit_name: str, key_id: str = "desk") -> "Deferred[Any]":
        """A peer asks for an association."""
        asked = OpenRequest(ANYWHERE, Kind.UDP, exit=exit_name, key_id=key_id)
        return self.router.associate(asked)

    def test_datagrams(self) -> None:
        """They go the way of streams: by the exit, and as far as the key may use it."""
        for name, way in (("", self.direct), ("barn", self.barn), ("any", self.attic)):
            opening = self.associate(name)
            way.opens[-1].callback(Far())
            self.successResultOf(opening).close()
        self.refusal(self.associate("garage"), Code.NO_WORKER)
        for name in ("", "barn"):
            self.refusal(self.associate(name, "guest"), Code.NOT_ALLOWED)
        self.refusal(self.associate("", "revoked"), Code.NOT_ALLOWED)
