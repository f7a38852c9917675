"""What a session tells its owner, in the order in which it happened."""

from dataclasses import dataclass

from stripetwist.core.errors import Code
from stripetwist.core.target import OpenRequest, Target


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer asks for a stream; answer with C{accept} or C{refuse}."""

    stream_id: int
    request: OpenRequest


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The peer has reached what we asked for."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """The peer will not; the stream is gone."""

    stream_id: int
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class StreamReadable:
    """There are bytes to take, or the end to be seen."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """There is room for more bytes after a C{write} that said there was none."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream broke; nothing more will come or go, and its number is gone."""

    stream_id: int
    code: Code


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """Both halves have ended cleanly, all has arrived; the stream's number is gone."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class DatagramArrived:
    """
    A datagram has come on an association.

    @ivar peer: whom it names; C{None} for the association's one target.
    """

    stream_id: int
    payload: bytes
    peer: Target | None


@dataclass(frozen=True, slots=True)
class SubflowDead:
    """
    A subflow is to carry nothing more: abort its connection.

    @ivar reason: why the session has given it up; empty where the peer has ended it.
    """

    subflow_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class SubflowDoubted:
    """A subflow answers nothing: have another ready, should it be given up."""

    subflow_id: int


@dataclass(frozen=True, slots=True)
class SubflowSlow:
    """A subflow's path looks slow: the owner calls C{Session.seems_slow}."""

    subflow_id: int


@dataclass(frozen=True, slots=True)
class SubflowCold:
    """
    A subflow is to have padding, and what gets lost meanwhile makes its window small.

    The owner then calls C{Session.lost_packets}.  None is told of one that keeps its window.
    """

    subflow_id: int


@dataclass(frozen=True, slots=True)
class SubflowWarm:
    """A subflow gets no more padding: what it sends next may be a whole window at once."""

    subflow_id: int


@dataclass(frozen=True, slots=True)
class SubflowPaced:
    """A subflow has turned out faster or slower: how many bytes it is given at a time."""

    subflow_id: int
    batch: int


@dataclass(frozen=True, slots=True)
class PeerGoesAway:
    """The peer takes no new streams."""

    sentence: str
    code: Code = Code.GOING_AWAY


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is over; every stream has been reset.  Always the last event."""

    code: Code
    reason: str


Event = (
    StreamOpened
    | StreamAccepted
    | StreamRefused
    | StreamReadable
    | StreamWritable
    | StreamReset
    | StreamFinished
    | DatagramArrived
    | SubflowDead
    | SubflowDoubted
    | SubflowPaced
    | SubflowSlow
    | SubflowCold
    | SubflowWarm
    | PeerGoesAway
    | SessionClosed
)
