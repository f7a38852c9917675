"""L{stripetwist.net.checksum}: CRC32C, whoever computes it."""

import sys
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.checksum import best_checksum, table_driven

# RFC 3720, appendix B.4, its bytes read as a little-endian number.
VECTORS = (
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000 00000000 00000000 00000000 14000000 00000400"
            "00000014 00000018 28000000 00000000 02000000 00000000"
        ),
        0xD9963A56,
    ),
)
FUNCTIONS = (table_driven(), best_checksum())


class ChecksumTests(SynchronousTestCase):
    """Both kinds."""

    def test_vectors_of_the_standard(self) -> None:
        """All of them come out."""
        for extend in FUNCTIONS:
            for data, expected in VECTORS:
                self.assertEqual(extend(0, data), expected)
            self.assertEqual(extend(0, b""), 0)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_kinds_agree_in_any_pieces(self, data: bytes, at: int) -> None:
        """A checksum that is continued is that of the whole."""
        ours, best = FUNCTIONS
        whole = ours(0, data)
        self.assertEqual(best(0, data), whole)
        self.assertEqual(ours(ours(0, data[:at]), data[at:]), whole)
        self.assertEqual(best(best(0, data[:at]), data[at:]), whole)

    def test_without_the_library(self) -> None:
        """Python alone will do."""
        with patch.dict(sys.modules, {"google_crc32c": None}):
            extend = best_checksum()
        self.assertEqual(extend(0, b"123456789"), 0xE3069283)
