"""What a client is told of its connection in the answer of a target (RFC 9112, section 9)."""

import re

MAX_HEAD = 64 * 1024

_BEGIN = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})")
_BARE = re.compile(rb"(?<!\r)\n")
_INTERIM = re.compile(rb"10[02-9]")
# What a target says of its own connection, which is not the client's.
_ITS_OWN = frozenset((b"connection", b"keep-alive", b"proxy-connection"))


class Answer:
    """
    Says in the head of an answer that the connection ends behind it.

    Not every server does where it was asked to close, and a client that trusts the
    connection would send its next request into its end.  What is no HTTP passes unchanged,
    and so does a head with a bare LF: clients differ in where that ends.
    """

    def __init__(self) -> None:
        self._held = b""
        self._is_past = False

    def take(self, data: bytes) -> bytes:
        """What the client may have of these bytes now, and of those before."""
        if self._is_past:
            return data
        self._held += data
        said = b""
        while not self._is_past and (end := self._held.find(b"\r\n\r\n")) >= 0:
            head, self._held = self._held[:end], self._held[end:]
            said += self._told(head) + self._held[:4]
            self._held = self._held[4:]
        if not self._may_be_head():
            self._is_past = True
        return said + self.rest() if self._is_past else said

    def rest(self) -> bytes:
        """What was held back of a head that has no end."""
        held, self._held = self._held, b""
        return held

    def _may_be_head(self) -> bool:
        held = self._held
        begins = held[: len(_BEGIN)] == _BEGIN[: len(held)]
        return begins and len(held) <= MAX_HEAD and _BARE.search(held) is None

    def _told(self, head: bytes) -> bytes:
        """A head as the client is to have it; there is another behind an interim one."""
        found = None if _BARE.search(head) else _STATUS.match(head)
        if found is not None and _INTERIM.match(found[1]):
            return head
        self._is_past = True
        if found is None:
            return head
        lines = head.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in _ITS_OWN]
        return b"\r\n".join([*kept, b"Connection: close"])
