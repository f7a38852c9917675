"""L{stripetwist.net.checksum}: CRC32C, quick or not."""

import sys
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from stripetwist.core.frames import Checksum
from stripetwist.net.checksum import best_checksum, table_driven

# RFC 3720, appendix B.4, and the check value of the polynomial.
VECTORS = (
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000000000000000000000000000140000000000040000000014"
            "0000001828000000000000000200000000000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
)


class ChecksumTests(SynchronousTestCase):
    """Both ways to compute it."""

    def assert_right(self, extend: Checksum) -> None:
        """It gives the known values, in one go and in pieces."""
        for data, expected in VECTORS:
            self.assertEqual(extend(0, data), expected)
            for at in range(len(data) + 1):
                self.assertEqual(extend(extend(0, data[:at]), data[at:]), expected)

    def test_table(self) -> None:
        """The one that needs nothing but Python."""
        self.assert_right(table_driven())

    def test_best(self) -> None:
        """The one that is used."""
        self.assert_right(best_checksum())

    def test_without_the_extra(self) -> None:
        """Without the package in C there is the table."""
        with patch.dict(sys.modules, {"google_crc32c": None}):
            extend = best_checksum()
        self.assertEqual(extend.__module__, "stripetwist.net.checksum")
        self.assert_right(extend)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
    def test_they_agree(self, data: bytes, start: int) -> None:
        """On anything, from any value so far."""
        if best_checksum().__module__ == "stripetwist.net.checksum":
            raise SkipTest("google-crc32c is not installed")
        self.assertEqual(table_driven()(start, data), best_checksum()(start, data))
