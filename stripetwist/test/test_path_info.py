"""L{stripetwist.core.path}: what a hello says of its path."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.hello import Rejected
from stripetwist.core.path import PLAIN, PathInfo, parse_path
from stripetwist.core.way import PathRole, Way

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"))


class PathInfoTests(SynchronousTestCase):
    """A number, a role, a rate and a label."""

    def test_golden(self) -> None:
        """The bytes are these."""
        info = PathInfo(2, PathRole.BACKUP, 2_500_000, "tcp://relay")
        data = "0002" + "02" + "00000000002625a0" + b"tcp://relay".hex()
        self.assertEqual(info.pack().hex(), data)
        self.assertEqual(PLAIN.pack().hex(), "0000" + "00" + "0000000000000000")
        self.assertEqual(PathInfo(role=PathRole.OVERFLOW).pack().hex()[4:6], "01")

    @settings(max_examples=50, deadline=None)
    @given(
        st.integers(0, 65535),
        st.sampled_from(PathRole),
        st.just(0) | st.integers(1000, 2**64 - 1),
        PRINTABLE.filter(lambda label: len(label) <= 64),
    )
    def test_round_trip(self, number: int, role: PathRole, rate: int, label: str) -> None:
        """What is packed is read."""
        info = PathInfo(number, role, rate, label)
        self.assertEqual(parse_path(info.pack()), info)

    def test_least_rate(self) -> None:
        """What a user may ask for is what a peer may."""
        info = PathInfo(rate=Way.parse("direct,rate=8K").rate)
        self.assertEqual(parse_path(info.pack()), info)

    def test_label(self) -> None:
        """It is cut before it is sent; of a peer's only what may be printed is shown."""
        self.assertEqual(len(PathInfo(label="x" * 500).pack()), 11 + 64)
        label = parse_path(PLAIN.pack() + b"a\x1b[31m\xff").label
        self.assertEqual(label, "a\\x1b[31m\\xff")
        cut = parse_path(PLAIN.pack() + b"\xff" * 64).label
        self.assertEqual(cut, "\\xff" * 15 + "...")

    def test_nonsense(self) -> None:
        """Too short, too long, a role or a rate that cannot be."""
        whole = PathInfo(1, PathRole.BACKUP, 1000).pack()
        for data in (
            *(whole[:size] for size in range(len(whole))),
            whole + b"x" * 65,
            whole[:2] + b"\x03" + whole[3:],
            whole[:3] + (999).to_bytes(8, "big"),
            whole[:3] + (1).to_bytes(8, "big"),
        ):
            self.assertRaises(Rejected, parse_path, data)
