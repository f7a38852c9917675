"""How many bytes to give a connection at a time."""

from stripetwist.core.config import Limits

# What TLS takes in one record, and adds to it (RFC 8446, section 5.2, with a tag of 16 bytes).
_RECORD = 16 * 1024
_RECORD_ADDS = 5 + 1 + 16
# A batch is no less than so many TCP segments.
_SEGMENTS_LEAST = 3


def size_for(rate: float, limits: Limits) -> int:
    """
    A power of two, so that it changes rarely.

    What is bound to a slow subflow waits there, and what is next to it in the stream
    waits for that: so no more than leaves soon.  Where even a large one leaves at once
    what counts is the work that each frame takes, whatever its size.

    @param rate: bytes per second.
    """
    most = max(limits.batch, min(limits.batch_most, rate * limits.batch_time_fast))
    size = max(limits.batch_least, min(most, rate * limits.batch_time))
    return 1 << int(size).bit_length() - 1


def whole_segments(size: int, segment: int) -> int:
    """
    About so many bytes, as what TLS makes of them fills TCP segments to the last byte.

    Congestion windows count packets (RFC 9438, section 4.1), and so does loss: one that is
    half full is half wasted.

    @param segment: bytes that TCP puts into a packet.
    """
    on_wire = segment * max(_SEGMENTS_LEAST, size // segment)
    return on_wire - _RECORD_ADDS * -(-on_wire // (_RECORD + _RECORD_ADDS))
