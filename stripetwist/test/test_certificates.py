"""Tests for L{stripetwist.net.certificates}."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.certificates import (
    KEPT_FILE,
    CertificateFiles,
    PrivateKey,
    check_pair,
    kept_certificate,
    load,
    load_chain,
    make_certificate,
    spki_pin,
)
from stripetwist.net.files import StartupError
from stripetwist.net.state import StateDirectory

PASSPHRASE = b"marked-passphrase"


def key_pem(key: PrivateKey, old: bool = False, passphrase: bytes | None = None) -> bytes:
    """A key as openssl writes it, in the newer or the older form."""
    form = serialization.PrivateFormat
    return key.private_bytes(
        serialization.Encoding.PEM,
        form.TraditionalOpenSSL if old else form.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def cert_pem(key: PrivateKey) -> bytes:
    """A certificate that the key signed for itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vps.example")])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, datetime(2020, 1, 1), datetime(2021, 1, 1)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


class MakeTests(SynchronousTestCase):
    """Certificates of our own."""

    def test_a_pair(self) -> None:
        """Key and certificate belong together, and the certificate is always in time."""
        certificate = check_pair(*make_certificate())
        [parsed] = load_chain(certificate.cert_pem)
        self.assertLess(parsed.not_valid_before_utc, datetime(2001, 1, 1, tzinfo=UTC))
        self.assertGreater(parsed.not_valid_after_utc, datetime(9999, 1, 1, tzinfo=UTC))
        self.assertIsInstance(parsed.public_key(), ec.EllipticCurvePublicKey)

    def test_no_two_alike(self) -> None:
        """Each is of a key of its own."""
        self.assertNotEqual(
            check_pair(*make_certificate()).pin, check_pair(*make_certificate()).pin
        )

    def test_tells_strangers_nothing(self) -> None:
        """The certificate names the program and no more."""
        [parsed] = load_chain(make_certificate()[1])
        self.assertEqual(parsed.subject.rfc4514_string(), "CN=stripetwist")
        self.assertEqual(list(parsed.extensions), [])

    def test_pin_is_of_the_public_key(self) -> None:
        """The pin is SHA-256 of the key's DER: the same for two certificates of one key."""
        key = ec.generate_private_key(ec.SECP256R1())
        der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for _ in range(2):
            [parsed] = load_chain(cert_pem(key))
            self.assertEqual(spki_pin(parsed), hashlib.sha256(der).digest())

    def test_never_shows_its_key(self) -> None:
        """Neither repr nor str of a server's certificate has its private key."""
        certificate = check_pair(*make_certificate())
        self.assertNotIn("PRIVATE", repr(certificate) + str(certificate))


class FilesTestCase(SynchronousTestCase):
    """A folder with a certificate and a key."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.cert = self.folder / "cert.pem"
        self.key = self.folder / "key.pem"

    def write(self, key: bytes, cert: bytes) -> None:
        """Put both files there, as a careful user would."""
        self.cert.write_bytes(cert)
        self.key.write_bytes(key)
        self.key.chmod(0o600)

    def write_pair(self, key: PrivateKey) -> None:
        """A key and its certificate."""
        self.write(key_pem(key), cert_pem(key))


class LoadTests(FilesTestCase):
    """Certificates of users."""

    def refused(self) -> str:
        """The sentence with which the files are refused; it shows no key."""
        error = self.assertRaises(StartupError, load, self.cert, self.key)
        self.assertNotIn("\n", str(error))
        self.assertNotIn("BEGIN", str(error))
        self.assertIn("TLS", str(error)[:80])
        return str(error)

    def test_kinds_of_keys(self) -> None:
        """RSA, EC and Ed25519 keys, in either form that openssl writes."""
        for key, old in (
            (rsa.generate_private_key(65537, 2048), True),
            (ec.generate_private_key(ec.SECP384R1()), True),
            (ec.generate_private_key(ec.SECP256R1()), False),
            (ed25519.Ed25519PrivateKey.generate(), False),
        ):
            self.write(key_pem(key, old), cert_pem(key))
            [parsed] = load_chain(self.cert.read_bytes())
            self.assertEqual(load(self.cert, self.key).pin, spki_pin(parsed))

    def test_a_chain(self) -> None:
        """The pin is of the server's own certificate, the first of several."""
        key = ec.generate_private_key(ec.SECP256R1())
        other = cert_pem(ec.generate_private_key(ec.SECP256R1()))
        self.write(key_pem(key), cert_pem(key) + other)
        self.assertEqual(load(self.cert, self.key).pin, spki_pin(load_chain(cert_pem(key))[0]))
        self.write(key_pem(key), other + cert_pem(key))
        self.assertIn("first", self.refused())

    def test_mismatch(self) -> None:
        """A key of another certificate is refused."""
        other = ec.generate_private_key(ec.SECP256R1())
        self.write(key_pem(other), make_certificate()[1])
        self.assertIn("does not belong", self.refused())

    def test_passphrase(self) -> None:
        """A key that nobody is there to unlock is refused."""
        key = ec.generate_private_key(ec.SECP256R1())
        for old in (True, False):
            self.write(key_pem(key, old, PASSPHRASE), cert_pem(key))
            self.assertIn("passphrase", self.refused())

    def test_keys_that_tls_cannot_use(self) -> None:
        """Short RSA keys and foreign curves are refused before any dialer meets them."""
        for key in (
            rsa.generate_private_key(65537, 1024),
            ec.generate_private_key(ec.SECP256K1()),
        ):
            self.write_pair(key)
            self.refused()

    def test_garbage(self) -> None:
        """Broken, empty and swapped files are told apart."""
        key, cert = make_certificate()
        for bad in (b"", b"\0\xff" * 50, cert, key[:100], key.replace(b"A", b"!")):
            self.write(bad, cert)
            self.assertIn("key file", self.refused())
        for bad in (b"", b"\0\xff" * 50, key, cert[:100], cert[:200] + cert[260:]):
            self.write(key, bad)
            self.assertIn("certificate file", self.refused())

    def test_missing(self) -> None:
        """A missing file is named, and neither a folder nor a FIFO is waited for."""
        key, cert = make_certificate()
        self.write(key, cert)
        self.key.unlink()
        self.assertIn("key.pem", self.refused())
        os.mkfifo(self.key, 0o600)
        self.refused()
        self.write_bytes_instead(self.key, key)
        self.cert.unlink()
        self.assertIn("cert.pem", self.refused())
        self.cert.mkdir()
        self.refused()

    def write_bytes_instead(self, path: Path, data: bytes) -> None:
        """Put a file where something else was."""
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o600)

    def test_modes(self) -> None:
        """A key may be open to its group and reached by a link, but not open to everybody."""
        self.write(*make_certificate())
        link = self.folder / "live.pem"
        link.symlink_to("key.pem")
        self.key.chmod(0o640)
        load(self.cert, link)
        self.key.chmod(0o644)
        self.assertIn("chmod 600", self.refused())


class CertificateFilesTests(FilesTestCase):
    """Renewal while we run."""

    def setUp(self) -> None:
        super().setUp()
        self.events = self.enterContext(capturedLogs())
        self.write(*make_certificate())

    def test_unchanged(self) -> None:
        """As long as the files are the same nothing happens."""
        files = CertificateFiles(self.cert, self.key)
        self.assertFalse(files.reload_if_changed())

    def test_renewed(self) -> None:
        """A new pair is taken over."""
        files = CertificateFiles(self.cert, self.key)
        before = files.current
        self.write(*make_certificate())
        self.assertTrue(files.reload_if_changed())
        self.assertNotEqual(files.current.pin, before.pin)
        self.assertFalse(files.reload_if_changed())

    def test_touched(self) -> None:
        """The same pair in new files is no change."""
        files = CertificateFiles(self.cert, self.key)
        self.write(self.key.read_bytes(), self.cert.read_bytes())
        self.assertFalse(files.reload_if_changed())

    def test_half_renewed(self) -> None:
        """Between the two steps of a renewal the old pair stays, and the log says so once."""
        files = CertificateFiles(self.cert, self.key)
        before = files.current
        key, cert = make_certificate()
        self.cert.write_bytes(cert)
        self.assertFalse(files.reload_if_changed())
        self.assertFalse(files.reload_if_changed())
        self.assertEqual(files.current, before)
        self.assertEqual(len(self.events), 1)
        files.complain_again()
        self.assertFalse(files.reload_if_changed())
        self.assertEqual((files.is_current, len(self.events)), (False, 2))
        self.key.write_bytes(key)
        self.assertTrue(files.reload_if_changed())
        self.assertTrue(files.is_current)
        self.assertEqual(files.current.cert_pem, cert)


class KeptTests(SynchronousTestCase):
    """The certificate in a server's state."""

    def setUp(self) -> None:
        self.state = StateDirectory(Path(self.mktemp()), "server", {})
        self.state.open()
        self.addCleanup(self.state.close)

    def test_made_once(self) -> None:
        """The second start proves itself by the key of the first."""
        self.assertEqual(kept_certificate(self.state), kept_certificate(self.state))
        self.assertEqual((self.state.path / KEPT_FILE).stat().st_mode & 0o777, 0o600)

    def test_broken(self) -> None:
        """A broken file is never replaced unasked: every link in the world names its key."""
        self.state.write_private(KEPT_FILE, b"broken")
        error = self.assertRaises(StartupError, kept_certificate, self.state)
        self.assertIn("backup", str(error))
        self.assertEqual(self.state.read_private(KEPT_FILE), b"broken")

    def test_open_to_others(self) -> None:
        """A private key that others could read is refused."""
        kept_certificate(self.state)
        (self.state.path / KEPT_FILE).chmod(0o644)
        self.assertRaises(StartupError, kept_certificate, self.state)
