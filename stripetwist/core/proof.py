"""What the two ends of a connection derive from a secret, to prove that they know it."""

import hmac


def _hmac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def _expand(prk: bytes, info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes, one block (RFC 5869, section 2.3)."""
    return _hmac(prk, info, b"\x01")


def same(one: bytes, other: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


class Keys:
    """
    What both ends derive for one connection.

    Extraction is HKDF-Extract (RFC 5869, section 2.2) over the secret and the TLS exporter
    (RFC 5705) of this connection, so that a proof is good for no other.
    """

    def __init__(
        self, secret: bytes, binding: bytes, dialer_nonce: bytes, acceptor_nonce: bytes
    ) -> None:
        self._prk = _hmac(dialer_nonce + acceptor_nonce, secret, binding)

    def session_secret(self, session_id: bytes) -> bytes:
        """What later connections prove to know; it never travels."""
        return _expand(self._prk, b"stw1 session" + session_id)

    def acceptor_mac(self, transcript: bytes) -> bytes:
        """The acceptor's proof: the last field of its HELLO_ACK."""
        return _hmac(_expand(self._prk, b"stw1 a"), transcript)

    def dialer_mac(self, transcript: bytes, acceptor_mac: bytes, confirm: bytes) -> bytes:
        """The dialer's proof: the last field of its CONFIRM."""
        return _hmac(_expand(self._prk, b"stw1 d"), transcript, acceptor_mac, confirm)
