"""TLS by the batch instead of by the record."""

from typing import Any

from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import Interface

from stripetwist.core.config import KIB

# What TLS takes in one record (RFC 8446, section 5.1).
_RECORD = 16 * KIB
# How much goes through OpenSSL at one go, and with what its records and its own words add.
# Its buffers never shrink, and a third is added where they grow: there are two for each
# connection.
_SLICE = 96 * KIB
_SEALED = _SLICE + KIB
# openssl/ssl.h; pyOpenSSL sets it for every context, and has no name for it.
_ENABLE_PARTIAL_WRITE = 1


class IReadListener(Interface):
    """A protocol that wants to know when all that one read brought has been given to it."""

    def readEnded() -> None:
        """What C{dataReceived} gave since the last time, if anything, came at one go."""


def write_slices_whole(context: SSL.Context) -> None:
    """Have a context's connections seal as many records as a write needs, not only the first."""
    context.clear_mode(_ENABLE_PARTIAL_WRITE)


class BatchTLS(TLSMemoryBIOProtocol):
    """
    TLS that seals a batch in few calls, and says when it has handed over all of a read.

    Twisted's own sees to each record of 16 KiB by itself, which costs more than to seal it.
    """

    transport: Any

    def write(self, data: bytes) -> None:
        """Send a batch, as one piece."""
        if len(data) <= _RECORD or not self.connected:
            super().write(data)
            return
        connection, view = self.getHandle(), memoryview(data)
        sealed: list[bytes] = []
        done = 0
        try:
            while done < len(data):
                done += connection.send(view[done : done + _SLICE])
                sealed.append(connection.bio_read(_SEALED))
        except SSL.Error:
            # It is not up yet, or has failed: Twisted knows what to do with the rest.
            pass
        if sealed:
            self.transport.write(b"".join(sealed))
        if done < len(data):
            super().write(data[done:])

    def dataReceived(self, data: bytes) -> None:
        """Hand over what is in the records that came, then say so to an L{IReadListener}."""
        view = memoryview(data)
        for at in range(0, len(data), _SLICE):
            super().dataReceived(view[at : at + _SLICE])
        if IReadListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readEnded()
