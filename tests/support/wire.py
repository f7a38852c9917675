"""
The wire of version 1, written from its specification and not from the code.

It plays the peer that nobody should have to trust: one that greets wrongly, or one with a
good key that sends nonsense afterwards.
"""

import base64
import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from OpenSSL import SSL

from support.ports import LOOPBACK

MAGIC = b"STWP"
HELLO, HELLO_ACK, CONFIRM, REJECT = 1, 2, 3, 4
NEW, JOIN = 1, 2
CLIENT, AGENT = 1, 2
MODE, NONCE, SESSION, SUBFLOW, ROLE, KEY_ID = range(0x8001, 0x8007)
INSTANCE, AGENT_SAYS = 0x0009, 0x000C
MAC = 0x80FE
ALPN = b"stripetwist/1"
EXPORTER = b"EXPORTER-stripetwist-v1"
FRAME = struct.Struct(">BBHIIQ")
DATA, ACK, CREDIT, OPEN, ACCEPT, REFUSE, RESET = range(7)
PING, PONG, CLOSE, PAD = 0x09, 0x0A, 0x0F, 0x80


class ClosedError(ConnectionError):
    """The server closed."""


@dataclass(frozen=True)
class Link:
    """A link's parts."""

    key_id: str
    secret: bytes
    port: int

    @classmethod
    def parse(cls, text: str) -> "Link":
        """Read C{stripetwist://KEYID:SECRET@HOST:PORT/PIN}."""
        login, address = text.strip().split("://")[1].split("/")[0].split("@")
        key_id, secret = login.split(":")
        return cls(key_id, _unbase64(secret), int(address.rsplit(":", 1)[1]))


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def tlv(kind: int, value: bytes) -> bytes:
    """One item of a hello."""
    return struct.pack(">HH", kind, len(value)) + value


def hello(kind: int, body: bytes, version: int = 1) -> bytes:
    """A hello message around its items."""
    return MAGIC + struct.pack(">BBBBI", version, 1, kind, 0, len(body)) + body


def frame(
    kind: int, payload: bytes = b"", stream: int = 0, offset: int = 0, flags: int = 0, aux: int = 0
) -> bytes:
    """One frame."""
    return FRAME.pack(kind, flags, aux, len(payload), stream, offset) + payload


class Peer:
    """
    One TLS connection to a server, spoken by hand.

    @ivar nonce: what our hello carries.
    @ivar spoken: our HELLO and CONFIRM, once L{join_in} has sent them.
    """

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_alpn_protos([ALPN])
        self._sock = socket.create_connection((LOOPBACK, port))
        self._sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(timeout), 0)
        )
        self._tls = SSL.Connection(context, self._sock)
        self._tls.set_tlsext_host_name(b"tester.session.stripetwist")
        self._tls.set_connect_state()
        self._tls.do_handshake()
        self.nonce = os.urandom(32)
        self.spoken = b"", b""
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._tls.sendall(data)
        except (SSL.Error, OSError) as error:
            raise ClosedError(repr(error)) from error

    def receive(self, size: int) -> bytes:
        """Exactly that many bytes."""
        while len(self._held) < size:
            self._held += self._some()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        try:
            while True:
                self._held += self._some()
        except ClosedError:
            return self._held

    def _some(self) -> bytes:
        try:
            return self._tls.recv(65536)
        except SSL.WantReadError:
            raise TimeoutError("the server neither answered nor closed") from None
        except (SSL.Error, OSError) as error:
            raise ClosedError(repr(error)) from error

    def greeting(
        self, key_id: str, mode: int = NEW, role: int = CLIENT, more: bytes = b""
    ) -> bytes:
        """A HELLO for that key; a good one unless told otherwise."""
        body = tlv(MODE, bytes([mode])) + tlv(NONCE, self.nonce)
        body += tlv(SUBFLOW, (1).to_bytes(4, "big")) + tlv(ROLE, bytes([role]))
        body += tlv(KEY_ID, key_id.encode()) + more
        return hello(HELLO, body)

    def read_hello(self) -> tuple[int, bytes]:
        """The kind of the server's message, and the message."""
        head = self.receive(12)
        kind, length = head[6], int.from_bytes(head[8:12], "big")
        return kind, head + self.receive(length)

    def join_in(self, link: Link, role: int = CLIENT, more: bytes = b"") -> None:
        """
        The whole handshake as a new session's first subflow.

        @param more: further items of the hello.
        @raise AssertionError: the server's proof is wrong.
        """
        sent = self.greeting(link.key_id, role=role, more=more)
        self.send(sent)
        kind, answer = self.read_hello()
        assert kind == HELLO_ACK, f"the server answered with kind {kind}"
        items = dict(_items(answer[12:]))
        prk = self._prk(link.secret, items[NONCE])
        transcript = hashlib.sha256(sent + answer[: -len(tlv(MAC, bytes(32)))]).digest()
        theirs = _mac(prk, b"stw1 a", transcript)
        assert theirs == items[MAC], "the server's proof is wrong"
        self.spoken = sent, self.confirm(prk, transcript + theirs)
        self.send(self.spoken[1])

    def confirm(self, prk: bytes, transcript: bytes) -> bytes:
        """The CONFIRM that proves that we know the key."""
        head = hello(CONFIRM, tlv(MAC, bytes(32)))[:12]
        return head + tlv(MAC, _mac(prk, b"stw1 d", transcript + head))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The kind and payload of what comes, until the server closes."""
        while True:
            try:
                kind, _, _, length, _, _ = FRAME.unpack(self.receive(FRAME.size))
                yield kind, self.receive(length)
            except ClosedError:
                return

    def _prk(self, secret: bytes, theirs: bytes) -> bytes:
        binding = self._tls.export_keying_material(EXPORTER, 32)
        return hmac.digest(self.nonce + theirs, secret + binding, "sha256")


def _items(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        kind, length = struct.unpack_from(">HH", body)
        found.append((kind, body[4 : 4 + length]))
        body = body[4 + length :]
    return found


def _mac(prk: bytes, info: bytes, message: bytes) -> bytes:
    key = hmac.digest(prk, info + b"\x01", "sha256")
    return hmac.digest(key, message, "sha256")
