"""TLS by the batch instead of by the record."""

from typing import Any

from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import Interface

# What TLS takes in one record, and adds to it (RFC 8446, section 5.2, with a tag of 16 bytes).
_RECORD = 16 * 1024
_RECORD_ADDS = 5 + 1 + 16
# openssl/ssl.h; pyOpenSSL sets it for every context, and has no name for it.
_ENABLE_PARTIAL_WRITE = 1


class IReadListener(Interface):
    """A protocol that wants to know when all that one read brought has been given to it."""

    def readEnded() -> None:
        """What C{dataReceived} gave since the last time came at one go."""


def write_batches_whole(context: SSL.Context) -> None:
    """Have a context's connections seal as many records as a write needs, not only the first."""
    context.clear_mode(_ENABLE_PARTIAL_WRITE)


class BatchTLS(TLSMemoryBIOProtocol):
    """
    TLS by the batch: takes one as a whole, and says when it has handed over a whole read.

    Twisted's own sees to each record of 16 KiB by itself, which costs more than to seal it.
    """

    transport: Any

    def write(self, data: bytes) -> None:
        """
        Send a batch.

        For a context with L{write_batches_whole}.
        """
        if len(data) <= _RECORD or self.disconnecting:
            super().write(data)
            return
        connection = self.getHandle()
        try:
            connection.send(data)
            sealed = connection.bio_read(len(data) + _RECORD_ADDS * (len(data) // _RECORD + 1))
        except SSL.Error:
            # It is not up yet, or has failed: Twisted knows what to do.
            super().write(data)
        else:
            self.transport.write(sealed)

    def dataReceived(self, data: bytes) -> None:
        """Hand over what is in the records that came, then say so to an L{IReadListener}."""
        super().dataReceived(data)
        if IReadListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readEnded()
