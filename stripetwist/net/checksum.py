"""CRC32C, for connections that no TLS guards."""

from stripetwist.core.frames import Checksum

# The polynomial of RFC 3720, appendix B.4, bits reversed.
_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


def table_driven() -> Checksum:
    """A CRC32C that needs nothing but Python; about 15 MB/s."""
    table = _table()

    def extend(value: int, data: bytes) -> int:
        value ^= 0xFFFFFFFF
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ value >> 8
        return value ^ 0xFFFFFFFF

    return extend


def best_checksum() -> Checksum:
    """
    The quickest CRC32C there is here: the extra C{plaintext} brings one in C.

    Loaded when it is first wanted: it takes a megabyte, and TLS needs none.
    """
    try:
        import google_crc32c
    except ImportError:
        return table_driven()
    extend: Checksum = google_crc32c.extend
    return extend
