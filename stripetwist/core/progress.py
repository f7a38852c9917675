"""What a kernel knows of a connection: whether its bytes move."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KernelView:
    """
    One connection as its kernel sees it, at one moment; bytes and seconds.

    @ivar acked: bytes that the other end's kernel has acknowledged since the beginning.
    @ivar acked_ago: since the last acknowledgement.
    @ivar received: bytes that have come since the beginning, whole records or not.
    @ivar received_ago: since the last of them.
    @ivar waiting: whether bytes of ours are not acknowledged yet.
    @ivar patience: how long the kernel expects an acknowledgement to take, at most.
    @ivar rtt: how long a packet takes there and its acknowledgement back, of late.
    @ivar least: the least of that.
    @ivar rate: bytes per second that have arrived of late; 0 if we had no more to send.
    """

    acked: int = 0
    acked_ago: float = 0.0
    received: int = 0
    received_ago: float = 0.0
    waiting: bool = False
    patience: float = 0.0
    rtt: float = 0.0
    least: float = 0.0
    rate: float = 0.0

    def moved(self, before: "KernelView") -> float | None:
        """
        How long ago it last made progress; C{None} if it made none since that view.

        Bytes that come are progress only when all of ours have arrived: then the peer's
        answer stands behind them.
        """
        if self.acked > before.acked:
            return self.acked_ago
        if not self.waiting and self.received > before.received:
            return self.received_ago
        return None
