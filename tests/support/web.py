"""Web servers over a folder of files, http and https, on loopback."""

import datetime
import http.server
import random
import ssl
import threading
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.ports import LOOPBACK

# What the file holds that most of them serve.
CONTENT = random.Random(2).randbytes(3_000_000)


class Web:
    """
    Serves the files of a folder, a thread per request.

    @ivar port: where it listens.
    @ivar requests: the request lines that came.
    """

    def __init__(self, folder: Path, certificate: "Certificate | None" = None) -> None:
        self.requests: list[str] = []
        handler = partial(_Quiet, self.requests, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), handler)
        self._server.daemon_threads = True
        if certificate is not None:
            self._server.socket = certificate.wrap(self._server)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A file handler that keeps its log to itself."""

    def __init__(self, requests: list[str], *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self._requests = requests
        super().__init__(*args, **kwargs)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self._requests.append(self.requestline)

    def log_message(self, *_: object) -> None:
        pass


class Certificate:
    """
    A self-signed certificate for localhost and 127.0.0.1.

    @ivar file: the certificate, PEM.
    @ivar key: its key, PEM.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.key = folder / "web-cert.pem", folder / "web-key.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        self.file.write_bytes(_sign(key).public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def wrap(self, server: http.server.HTTPServer) -> ssl.SSLSocket:
        """The server's socket behind TLS; each handshake is left to its request's thread."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)


def _sign(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address(LOOPBACK))]
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
