"""L{stripetwist.core.agents}: what an agent says of itself."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.agents import (
    MAX_CAPACITY,
    MAX_LABELS,
    MAX_WEIGHT,
    Agent,
    is_agent_name,
    name_of_host,
    numbered,
    parse_agent,
)
from stripetwist.core.errors import Code
from stripetwist.core.hello import MAX_BODY, Rejected

INSTANCE = bytes(range(16))
ATTIC = Agent("attic", {"site": "home", "os": "linux"}, 100, 3, INSTANCE)
GOLDEN = (
    "01056174746963" "0209736974653d686f6d65" "02086f733d6c696e7578" "03020064" "04020003"
)  # fmt: skip

words = st.text("abcxyz0189._-", min_size=1, max_size=63)
names = st.text("abcxyz0189-", min_size=1, max_size=63).filter(is_agent_name)
agents = st.builds(
    Agent,
    names,
    st.dictionaries(words, words, max_size=MAX_LABELS),
    st.integers(0, MAX_CAPACITY),
    st.integers(1, MAX_WEIGHT),
    st.binary(min_size=16, max_size=16),
)


def record(kind: int, value: bytes) -> bytes:
    """One record."""
    return bytes([kind, len(value)]) + value


class AgentTests(SynchronousTestCase):
    """Bytes that are sent, and bytes that come."""

    def assert_rejected(self, words: str, data: bytes) -> None:
        """The bytes are refused, with those words."""
        error: Rejected = self.assertRaises(Rejected, parse_agent, data, INSTANCE)
        self.assertIs(error.code, Code.PROTOCOL)
        self.assertIn(words, error.reason)
        self.assertTrue(error.reason.isascii() and error.reason.isprintable())

    def test_golden(self) -> None:
        """The bytes are these."""
        self.assertEqual(ATTIC.pack().hex(), GOLDEN)
        self.assertEqual(parse_agent(bytes.fromhex(GOLDEN), INSTANCE), ATTIC)

    @settings(max_examples=50, deadline=None)
    @given(agents)
    def test_round_trip(self, agent: Agent) -> None:
        """What is packed is read, and fits into a hello with all that goes with it."""
        packed = agent.pack()
        self.assertEqual(parse_agent(packed, agent.instance), agent)
        self.assertLess(len(packed), MAX_BODY - 512)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is an agent or rejected."""
        for attempt in (data, record(1, b"attic") + data):
            try:
                self.assertEqual(parse_agent(attempt, INSTANCE).complaint(), "")
            except Rejected as error:
                self.assertTrue(error.reason.isascii() and error.reason.isprintable())

    def test_absent_and_unknown(self) -> None:
        """A name is enough; records of a later version are ignored."""
        data = record(1, b"attic") + record(9, b"later")
        self.assertEqual(parse_agent(data, INSTANCE), Agent("attic", instance=INSTANCE))

    def test_cut_off(self) -> None:
        """Half a record is none."""
        whole = record(3, b"\0\x64") + record(1, b"attic")
        for size in range(5, len(whole)):
            self.assert_rejected("cut off", whole[:size])
        self.assert_rejected("name", whole[:4])

    def test_what_no_agent_is(self) -> None:
        """Names that are reserved, numbers out of range, labels that are none."""
        name = record(1, b"attic")
        for bad in (b"", b"any", b"server", b"Attic", b"a.b", b"a" * 64, b"\xff"):
            self.assert_rejected("name is 1 to 63", record(1, bad))
        for bad in (b"site", b"site=", b"=home", b"site=a b", b"s=\xe9", b"s=" + b"x" * 64):
            self.assert_rejected("label is KEY=VALUE", name + record(2, bad))
        self.assert_rejected("each KEY once", name + record(2, b"a=b") * 2)
        self.assert_rejected("stands twice", name * 2)
        self.assert_rejected("weight is 1 to 1000", name + record(4, b"\0\0"))
        self.assert_rejected("weight is 1 to 1000", name + record(4, b"\x03\xe9"))
        self.assert_rejected("2 bytes", name + record(3, b"\1"))
        many = b"".join(record(2, b"k%d=v" % number) for number in range(17))
        self.assert_rejected("at most 16 labels", name + many)
        self.assertIn("capacity", replace(ATTIC, capacity=65_536).complaint())
        self.assertIn("instance", replace(ATTIC, instance=b"").complaint())


class NameTests(SynchronousTestCase):
    """What an agent is called."""

    def test_of_a_host(self) -> None:
        """Its first label, folded; a word that is taken, or nothing, is no name."""
        for host, name in (
            ("attic", "attic"), ("Attic.example.org", "attic"), ("my_box", "my-box"),
            ("server", "agent"), ("any.lan", "agent"), ("", "agent"), ("...", "agent"),
            ("\xe9\xe8", "agent"), ("x" * 70, "x" * 63), ("-a-", "a"),
        ):  # fmt: skip
            self.assertEqual(name_of_host(host), name)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=80))
    def test_of_any_host(self, host: str) -> None:
        """Always a name."""
        self.assertTrue(is_agent_name(name_of_host(host)))

    def test_numbered(self) -> None:
        """A number goes behind it, even where there is hardly room."""
        self.assertEqual(numbered("attic", 2), "attic-2")
        self.assertEqual(numbered("x" * 63, 12), "x" * 60 + "-12")
