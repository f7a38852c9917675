"""Every limit and time of the project, in one table."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What may grow, how far, and what may take time, how long.

    Sizes are bytes, times seconds.  One object is made by a tap and handed down; tests
    make their own with C{dataclasses.replace}.
    """

    # memory, of the whole process
    max_memory: int = 256 * MIB
    min_window: int = 8 * KIB
    first_window: int = 4 * MIB
    max_window: int = 16 * MIB
    max_unsent: int = 4 * MIB

    # sessions, of one key
    max_sessions: int = 256

    # agents of one name
    agent_probe: float = 3.0

    # streams, of one session
    max_streams: int = 16_384
    max_opening: int = 1_024

    # subflows, of one session
    subflows: int = 6
    max_subflows: int = 64
    grow_most: int = 32
    grow_above: float = 100e3
    grow_look: float = 0.5
    grow_span: float = 1.0
    grow_rounds: int = 5
    grow_again: float = 30.0
    grow_again_most: float = 600.0
    grow_forget: float = 60.0
    leave_after: float = 2.0

    # the server port
    max_unauthenticated: int = 256
    max_unauthenticated_per_source: int = 64
    tls_timeout: float = 10.0
    proof_timeout: float = 5.0

    # the dialer
    max_handshakes: int = 8
    dial_spacing: float = 0.05
    dial_timeout: float = 10.0
    dial_timeout_alive: float = 1.0
    redial_alive: float = 0.2
    redial_first: float = 0.2
    redial_most: float = 2.0
    redial_late: float = 30.0
    redial_refused: float = 30.0
    outage_early: float = 300.0
    active_after: float = 1.0
    look_around: float = 2.0
    rest_after: float = 300.0

    # frames
    frame_small: int = 16 * KIB
    frame_large_above: float = 2e6
    batch: int = 64 * KIB
    batch_fast: int = 256 * KIB
    batch_first: int = 10 * KIB
    batch_least: int = 4 * KIB
    batch_time: float = 0.05
    batch_time_fast: float = 0.005

    # control that a peer can make us owe
    max_control_items: int = 10_000
    max_control_bytes: int = 1 * MIB
    control_ahead: int = 16 * KIB

    # datagrams that cannot leave at once
    datagrams: int = 64
    datagram_bytes: int = 256 * KIB
    datagram_bytes_all: int = 4 * MIB
    datagram_age: float = 0.1
    datagram_wait: float = 2.0

    # associations at an exit, of one key; at a port for local programs, of one other machine
    max_associations: int = 256
    max_associations_per_source: int = 16
    association_idle: float = 120.0
    association_brief: float = 10.0
    association_again: float = 0.2
    association_again_most: float = 5.0
    association_again_refused: float = 30.0

    # padding
    prewarm: int = 2_048 * KIB
    warm_hold: float = 60.0
    warm_tick: float = 0.12
    lossy_for: float = 300.0
    pad_rate: float = 6e3
    pad_share: float = 0.1
    pad_burst: int = 4 * MIB

    # a subflow that is silent
    stall_floor: float = 0.12
    stall_most: float = 3.0
    stall_margin: float = 0.025
    dead_alive: float = 1.0
    dead_alone: float = 20.0
    slow_below: float = 100e3
    slow_share: float = 0.05
    slow_rest: float = 5.0
    slow_trial: float = 60.0
    slow_span: float = 2.0
    slow_for: float = 300.0
    ping_busy: float = 5.0
    ping_idle: float = 20.0
    ping_again: float = 1.0
    ping_grace: float = 1.2
    pings_doubted: int = 2
    pings_missed: int = 6
    ack_delay: float = 0.025
    ack_delay_floor: float = 0.005

    # a session without subflows
    session_timeout: float = 60.0
    acceptor_grace: float = 1.25
    session_wait: float = 10.0

    # an open
    dns_timeout: float = 5.0
    connect_timeout: float = 10.0
    connect_total: float = 20.0
    open_total: float = 25.0
    next_address: float = 0.3

    # an agent that is asked for a target
    agent_silent: float = 10.0
    agent_look: float = 1.0

    # an agent that its server has drained
    drained_away: float = 600.0

    # fronts
    socks_timeout: float = 10.0
    reply_timeout: float = 30.0
    half_closed: float = 3600.0
    close_timeout: float = 5.0
    drain_timeout: float = 30.0

    @property
    def batch_most(self) -> int:
        """
        How much to handle at a time where all is fast, and how long a frame may be.

        Where there is little memory, half-read frames and the holes that long pieces leave
        would be much of it.
        """
        return max(self.batch, min(self.batch_fast, self.max_memory // 512))


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """
    What the peer's hello allows us.

    @ivar init_window: bytes of a stream that may follow its OPEN at once.
    @ivar max_streams: streams that we may have open.
    @ivar session_timeout: seconds it keeps a session without subflows.
    @ivar longest: bytes of a DATA frame, header included, where that is more than anybody takes.
    """

    init_window: int
    max_streams: int
    session_timeout: float
    longest: int = 0
