"""The server's certificate and key: made by us and kept, or the user's own."""

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from twisted.logger import Logger

from stripetwist.net.files import (
    Complaint,
    StartupError,
    file_stamp,
    read_file,
    shown,
)
from stripetwist.net.state import StateDirectory

KEPT_FILE = "tls.pem"
# Nobody who checks our pin looks at dates, and no clock needs to be right for it.
_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MIN_RSA_BITS = 2048

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

_log = Logger()


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """
    What a server proves itself with.

    @ivar key_pem: the private key; never shown.
    @ivar cert_pem: its certificate, and those between it and an authority.
    @ivar pin: what links say of it.
    """

    key_pem: bytes = field(repr=False)
    cert_pem: bytes = field(repr=False)
    pin: bytes


def make_certificate() -> tuple[bytes, bytes]:
    """
    A new EC P-256 key and a certificate signed by itself, good for ever.

    It names neither host nor version: any stranger may see it.

    @return: the key and the certificate, both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stripetwist")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def spki_pin(certificate: x509.Certificate) -> bytes:
    """
    SHA-256 of the certificate's public key, which outlives the certificate.

    @raise ValueError: the key is of no known kind.
    """
    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm:
        key = None
    if key is None:
        raise ValueError("the certificate's public key is of an unknown kind")
    der = serialization.Encoding.DER
    spki = key.public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


def load_chain(cert_pem: bytes) -> list[x509.Certificate]:
    """
    The certificates in a PEM text, the server's own first.

    @raise ValueError: there is none, or one is broken.
    """
    chain: list[x509.Certificate] = []
    with suppress(ValueError, UnsupportedAlgorithm):
        chain = x509.load_pem_x509_certificates(cert_pem)
    if not chain:
        raise ValueError("holds no PEM certificate, or a broken one")
    return chain


def load_key(key_pem: bytes) -> PrivateKey:
    """
    The private key in a PEM text.

    @raise ValueError: there is none, it wants a passphrase, or TLS 1.3 cannot use it.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except TypeError:
        problem = "holds a key with a passphrase, take the passphrase off"
    except (ValueError, UnsupportedAlgorithm):
        problem = "holds no private key in PEM"
    else:
        problem = _key_problem(key)
        if isinstance(key, PrivateKey) and not problem:
            return key
    raise ValueError(problem)


def _key_problem(key: object) -> str:
    """Why TLS 1.3 could not use a private key, or nothing."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "" if key.key_size >= _MIN_RSA_BITS else "holds an RSA key under 2048 bits"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "" if isinstance(key.curve, _CURVES) else "holds a key on a curve unknown to TLS 1.3"
    return "" if isinstance(key, PrivateKey) else "holds a key of a kind unknown to TLS 1.3"


def check_pair(key_pem: bytes, cert_pem: bytes) -> ServerCertificate:
    """
    A key and a certificate that belong together.

    @raise ValueError: they do not, or one of them is wrong; the words begin with which.
    """
    try:
        key = load_key(key_pem)
    except ValueError as error:
        raise ValueError(f"the TLS key file {error}") from None
    try:
        pin = spki_pin(load_chain(cert_pem)[0])
    except ValueError as error:
        raise ValueError(f"the TLS certificate file {error}") from None
    der = serialization.Encoding.DER
    public = key.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
    if hashlib.sha256(public).digest() != pin:
        raise ValueError(
            "the TLS key does not belong to the certificate, "
            "or the server's own certificate is not the first in its file"
        )
    return ServerCertificate(key_pem, cert_pem, pin)


def load(cert_file: Path, key_file: Path) -> ServerCertificate:
    """
    A user's own certificate and key, as C{openssl req} and ACME clients write them.

    The key's file may be a link and open to a group, as Debian's and certbot's are, but not
    to everybody.

    @raise StartupError: one sentence that names the file.
    """
    cert_pem = read_file(cert_file, "TLS certificate file")
    key_pem = read_file(key_file, "TLS key file", check=_key_file_complaint)
    try:
        return check_pair(key_pem, cert_pem)
    except ValueError as error:
        problem = str(error)
    raise StartupError(f"{problem}: {shown(key_file)} and {shown(cert_file)}")


def _key_file_complaint(status: os.stat_result) -> Complaint | None:
    """What keeps a user's key file from being secret enough."""
    if status.st_mode & stat.S_IRWXO:
        return "is open to all users", "run chmod 600 on it, and replace the key if they had access"
    return None


def kept_certificate(state: StateDirectory) -> ServerCertificate:
    """
    The certificate that a server made at its first start, or makes now.

    Key and certificate are in one file, so that one is never there without the other.

    @raise StartupError: the file cannot be used, or is not as we wrote it.
    """
    if not state.has(KEPT_FILE):
        key_pem, cert_pem = make_certificate()
        state.write_private(KEPT_FILE, key_pem + cert_pem)
    data = state.read_private(KEPT_FILE)
    try:
        return check_pair(data, data)
    except ValueError:
        path = shown(state.path / KEPT_FILE)
    raise StartupError(
        f"the server's kept TLS key is broken: {path}; "
        "restore it from a backup, or remove it and hand out new links"
    )


class CertificateFiles:
    """
    A user's certificate and key, read again whenever they change.

    @ivar current: the last pair that was good.
    @ivar is_current: whether that is what the files held when they were last read.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """
        @raise StartupError: as L{load}.
        """
        self._files = (cert_file, key_file)
        self._stamps = self._look()
        self.current = load(cert_file, key_file)
        self.is_current = True

    def complain_again(self) -> None:
        """Have the next look say once more what is wrong with the files, if it is."""
        if not self.is_current:
            self._stamps = []

    def reload_if_changed(self) -> bool:
        """
        Look at the files again; to be called now and then.

        While the two do not fit, as between the two steps of a renewal, the old pair stays.

        @return: whether C{current} is another one now.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            fresh = load(*self._files)
        except StartupError as error:
            self.is_current = False
            _log.warn("the TLS certificate stays as it was: {sentence}", sentence=str(error))
            return False
        self.is_current = True
        changed = fresh != self.current
        self.current = fresh
        return changed

    def _look(self) -> list[tuple[int, ...] | None]:
        """What tells that a file is another one."""
        return [file_stamp(path) for path in self._files]
