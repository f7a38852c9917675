"""Tests for L{stripetwist.net.tls}."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stripetwist.core.errors import UsageViolation
from stripetwist.core.link import Link, encode32
from stripetwist.net.certificates import ServerCertificate, check_pair, make_certificate
from stripetwist.net.files import StartupError
from stripetwist.net.tls import (
    ALPN,
    ClientCreator,
    PeerRejected,
    ServerCreator,
    TLSFactory,
    check_protocol,
    exporter,
    require_service_identity,
    server_context,
    session_label,
    tls_sentence,
    verify_peer,
)

SECRET = b"marked-secret-marked-secret-mark"
ADDRESS = IPv4Address("TCP", "192.0.2.1", 1)
LABEL = "abcdefgh234567ij"
YESTERDAY, TOMORROW = datetime(2020, 1, 1), datetime(2120, 1, 1)


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = x509.CertificateBuilder(
            self.name, self.name, self.key.public_key(), 1, YESTERDAY, TOMORROW
        ).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.root = builder.sign(self.key, hashes.SHA256())

    def certificate(
        self, names: Iterable[x509.GeneralName], until: datetime = TOMORROW
    ) -> ServerCertificate:
        """A server's certificate for those names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vps.example")])
        builder = x509.CertificateBuilder(
            self.name, subject, key.public_key(), 2, YESTERDAY, until
        ).add_extension(x509.SubjectAlternativeName(names), critical=False)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signed = builder.sign(self.key, hashes.SHA256())
        return check_pair(key_pem, signed.public_bytes(serialization.Encoding.PEM))


@implementer(IHandshakeListener)
class Peer(Protocol):
    """
    One end, that remembers everything.

    @ivar link: what a client checks the server against, and then writes C{greeting}.
    """

    transport: TLSMemoryBIOProtocol

    def __init__(self, link: Link | None = None, greeting: bytes = b"") -> None:
        self.link = link
        self.greeting = greeting
        self.received = b""
        self.exported = b""
        self.name: bytes | None = None
        self.lost: BaseException | None = None

    def handshakeCompleted(self) -> None:
        """Check the other end, and only then write."""
        connection = self.transport.getHandle()
        try:
            if self.link is None:
                check_protocol(connection)
            else:
                verify_peer(connection, self.link)
        except PeerRejected:
            self.transport.failVerification(Failure())
            return
        self.exported = exporter(connection)
        self.name = connection.get_servername()
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Keep the reason."""
        self.lost = reason.value


class PeerFactory(Factory):
    """Hands out one peer, or none."""

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer

    def buildProtocol(self, addr: IAddress | None) -> Peer | None:
        """The peer."""
        return self.peer


@dataclass
class Pair:
    """Both ends."""

    client: Peer
    server: Peer


class Creator(ClientCreator):
    """A dialer that is not quite ours."""

    def __init__(self, link: Link, context: SSL.Context) -> None:
        super().__init__(link, LABEL)
        self._context = context


def connected(
    creator: ClientCreator, server: ServerCreator | ServerCertificate, link: Link
) -> Pair:
    """A client and a server after as much of a handshake as they want."""
    if isinstance(server, ServerCertificate):
        server = ServerCreator(server)
    pair = Peer(link, b"client's first"), Peer(greeting=b"server's first")
    near, far = wrapped(creator, pair[0]), wrapped(server, pair[1])
    connect(far, FakeTransport(far, isServer=True), near, FakeTransport(near, isServer=False))
    return Pair(*pair)


def wrapped(creator: ClientCreator | ServerCreator, peer: Peer) -> TLSMemoryBIOProtocol:
    """A peer in TLS, not connected yet."""
    end = TLSFactory(creator, PeerFactory(peer), Clock()).buildProtocol(ADDRESS)
    assert end is not None
    return end


class TLSTestCase(SynchronousTestCase):
    """A server with a certificate of its own, and its link."""

    def setUp(self) -> None:
        self.certificate = check_pair(*make_certificate())
        self.link = self.linked(self.certificate.pin)

    def linked(self, *pins: bytes, host: str = "vps.example") -> Link:
        """A link with those pins, or with ca."""
        return Link("laptop", SECRET, host, 8443, pins, ca=not pins)

    def assertSentence(self, error: BaseException | None, words: str) -> None:
        """The failure becomes one sentence that has the words and no secret."""
        assert error is not None
        sentence = tls_sentence(error, self.link.address)
        self.assertIn(words, sentence)
        self.assertIn("vps.example:8443", sentence)
        self.assertNotIn("\n", sentence)
        self.assertNotIn("marked", sentence)
        self.assertNotIn(encode32(SECRET)[:16], sentence)


class PinTests(TLSTestCase):
    """A server that is known by its key."""

    def test_the_right_key(self) -> None:
        """Both ends complete, know the same exporter value, and talk."""
        pair = connected(ClientCreator(self.link, LABEL), self.certificate, self.link)
        self.assertEqual(pair.client.received, b"server's first")
        self.assertEqual(pair.server.received, b"client's first")
        self.assertEqual(len(pair.client.exported), 32)
        self.assertEqual(pair.client.exported, pair.server.exported)

    def test_exporter_is_of_one_connection(self) -> None:
        """No two connections share their exporter value."""
        creator = ClientCreator(self.link, LABEL)
        first = connected(creator, self.certificate, self.link)
        second = connected(creator, self.certificate, self.link)
        self.assertNotEqual(first.client.exported, second.client.exported)

    def test_server_sees_the_label(self) -> None:
        """The name sent is the session's label, whatever the server is called."""
        pair = connected(ClientCreator(self.link, LABEL), self.certificate, self.link)
        self.assertEqual(pair.server.name, b"abcdefgh234567ij.session.stripetwist")

    def test_one_of_two_pins(self) -> None:
        """While a server changes its key, either pin will do."""
        link = self.linked(bytes(32), self.certificate.pin)
        pair = connected(ClientCreator(link, LABEL), self.certificate, link)
        self.assertEqual(pair.server.received, b"client's first")

    def test_another_key(self) -> None:
        """A server with another key gets not one byte, and the client's reason is a sentence."""
        other = check_pair(*make_certificate())
        pair = connected(ClientCreator(self.link, LABEL), other, self.link)
        self.assertEqual(pair.server.received, b"")
        self.assertEqual(pair.client.received, b"")
        self.assertIsInstance(pair.client.lost, PeerRejected)
        self.assertSentence(pair.client.lost, "not the server of this link")
        self.assertIsNotNone(pair.server.lost)

    def test_dates_and_names_are_ignored(self) -> None:
        """With a pin neither an expired certificate nor its name matters."""
        expired = Authority().certificate([x509.DNSName("else.where")], datetime(2021, 1, 1))
        link = self.linked(expired.pin)
        pair = connected(ClientCreator(link, LABEL), expired, link)
        self.assertEqual(pair.server.received, b"client's first")

    def test_no_certificate(self) -> None:
        """A connection without a certificate proves nothing."""

        class Empty:
            """A connection that completed, impossibly, without any."""

            def get_alpn_proto_negotiated(self) -> bytes:
                return ALPN

            def get_peer_certificate(self, as_cryptography: bool) -> None:
                return None

        error = self.assertRaises(PeerRejected, verify_peer, Empty(), self.link)
        self.assertSentence(error, "no certificate")


class AuthorityTests(TLSTestCase):
    """A server that an authority vouches for."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.link = self.linked()

    def dialed(self, certificate: ServerCertificate, link: Link, trusted: bool = True) -> Pair:
        """Dial a server, trusting the authority or not."""
        roots = [self.authority.root] if trusted else []
        return connected(ClientCreator(link, LABEL, roots), certificate, link)

    def test_the_right_name(self) -> None:
        """A certificate for the link's host will do; the SNI is another name."""
        certificate = self.authority.certificate([x509.DNSName("vps.example")])
        pair = self.dialed(certificate, self.link)
        self.assertEqual(pair.server.received, b"client's first")
        self.assertEqual(pair.client.exported, pair.server.exported)

    def test_the_right_address(self) -> None:
        """Links to addresses want certificates for addresses, IPv4 and IPv6."""
        for host in ("192.0.2.7", "2001:db8::7"):
            link = self.linked(host=host)
            certificate = self.authority.certificate([x509.IPAddress(ip_address(host))])
            self.assertEqual(self.dialed(certificate, link).server.received, b"client's first")
            named = self.authority.certificate([x509.DNSName("vps.example")])
            self.assertEqual(self.dialed(named, link).server.received, b"")

    def test_another_name(self) -> None:
        """A good certificate of somebody else gets not one byte, common name or not."""
        for name in ("other.example", f"{LABEL}.session.stripetwist", "*.vps.example"):
            certificate = self.authority.certificate([x509.DNSName(name)])
            pair = self.dialed(certificate, self.link)
            self.assertEqual(pair.server.received, b"")
            self.assertIsInstance(pair.client.lost, PeerRejected)
            self.assertSentence(pair.client.lost, "another name")

    def test_unknown_authority(self) -> None:
        """A chain that leads to nobody we trust breaks the handshake."""
        certificate = self.authority.certificate([x509.DNSName("vps.example")])
        pair = self.dialed(certificate, self.link, trusted=False)
        self.assertEqual(pair.server.received, b"")
        self.assertSentence(pair.client.lost, "no trusted authority")

    def test_expired(self) -> None:
        """An expired certificate breaks the handshake."""
        certificate = self.authority.certificate(
            [x509.DNSName("vps.example")], datetime(2021, 1, 1)
        )
        pair = self.dialed(certificate, self.link)
        self.assertEqual(pair.server.received, b"")
        self.assertSentence(pair.client.lost, "expired")

    def test_self_signed(self) -> None:
        """Our own certificates need a pin."""
        self.assertEqual(self.dialed(self.certificate, self.link).server.received, b"")

    def test_context_must_verify(self) -> None:
        """A connection whose chain nobody checked is never taken for a verified one."""
        certificate = self.authority.certificate([x509.DNSName("vps.example")])
        pinned = self.linked(certificate.pin)
        pair = connected(ClientCreator(pinned, LABEL), certificate, pinned)
        handle = pair.client.transport.getHandle()
        self.assertRaises(UsageViolation, verify_peer, handle, self.link)

    def test_service_identity_missing(self) -> None:
        """Without the package that compares names no client starts."""
        with patch.dict(sys.modules, {"service_identity.cryptography": None}):
            self.assertRaises(StartupError, require_service_identity)
            error = self.assertRaises(StartupError, ClientCreator, self.link, LABEL)
        self.assertIn("service-identity", str(error)[:80])
        require_service_identity()


class StrangerTests(TLSTestCase):
    """Dialers and servers that are not ours."""

    def dialed(self, oldest: int, newest: int, protocols: list[bytes]) -> Pair:
        """Dial our server with another client."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(oldest)
        context.set_max_proto_version(newest)
        if protocols:
            context.set_alpn_protos(protocols)
        return connected(Creator(self.link, context), self.certificate, self.link)

    def test_older_tls(self) -> None:
        """TLS 1.2 and older are refused during the handshake."""
        for newest in (SSL.TLS1_2_VERSION, SSL.TLS1_1_VERSION):
            pair = self.dialed(0, newest, [ALPN])
            self.assertIsInstance(pair.server.lost, SSL.Error)
            self.assertEqual((pair.server.exported, pair.server.received), (b"", b""))
            self.assertIsInstance(pair.client.lost, SSL.Error)

    def test_newest_tls_is_enough(self) -> None:
        """A dialer that also knows older versions gets TLS 1.3."""
        pair = self.dialed(SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION, [b"h2", ALPN])
        self.assertEqual(pair.server.received, b"client's first")

    def test_other_protocols(self) -> None:
        """A browser is refused during the handshake, before the certificate is shown."""
        pair = self.dialed(SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION, [b"h2", b"http/1.1"])
        self.assertIsInstance(pair.server.lost, SSL.Error)
        self.assertSentence(pair.client.lost, "not stripetwist")
        self.assertEqual(pair.server.exported, b"")

    def test_no_protocol(self) -> None:
        """A dialer that names no protocol is refused before it can say anything."""
        pair = self.dialed(SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION, [])
        self.assertIsInstance(pair.server.lost, PeerRejected)
        self.assertEqual((pair.server.exported, pair.server.received), (b"", b""))
        self.assertEqual(pair.client.received, b"")

    def test_a_failed_handshake_leaves_the_next_alone(self) -> None:
        """One stranger's refusal does not show on another connection of the same server."""
        server = ServerCreator(self.certificate)
        for protocols, greeting in (([b"h2"], b""), ([ALPN], b"client's first"), ([b"h2"], b"")):
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_alpn_protos(protocols)
            pair = connected(Creator(self.link, context), server, self.link)
            self.assertEqual(pair.server.received, greeting)

    def test_server_of_something_else(self) -> None:
        """Garbage instead of a handshake is a sentence that says to check the port."""
        for answer, words in (
            (b"SSH-2.0-OpenSSH_9.2\r\n", "TLS"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS"),
            (b"\xff" * 100, "TLS"),
            (b"", "closed"),
        ):
            peer = Peer(self.link)
            end = wrapped(ClientCreator(self.link, LABEL), peer)
            end.makeConnection(FakeTransport(end, isServer=False))
            if answer:
                end.dataReceived(answer)
            end.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(peer.received, b"")
            self.assertSentence(peer.lost, words)


class FactoryTests(TLSTestCase):
    """TLS around other factories."""

    def test_writes_at_once(self) -> None:
        """No layer gathers what is written for a later turn."""
        pair = connected(ClientCreator(self.link, LABEL), self.certificate, self.link)
        for end in (pair.client, pair.server):
            pieces = self.pieces_of(end)
            end.transport.write(b"a")
            end.transport.write(b"b")
            self.assertEqual(len(pieces), 2)

    def pieces_of(self, end: Peer) -> list[bytes]:
        """What it writes from now on, in the pieces that the transport below gets."""
        pieces: list[bytes] = []
        below: Any = end.transport.transport
        below.write = pieces.append
        return pieces

    def test_declined(self) -> None:
        """A factory that declines a connection has it declined."""
        factory = TLSFactory(ServerCreator(self.certificate), PeerFactory(None), Clock())
        self.assertIsNone(factory.buildProtocol(ADDRESS))

    def test_renewed(self) -> None:
        """After a renewal new connections meet the new certificate."""
        server = ServerCreator(self.certificate)
        fresh = check_pair(*make_certificate())
        server.renew(fresh)
        self.assertRaises(StartupError, server.renew, ServerCertificate(b"", b"", b""))
        end = wrapped(server, Peer())
        end.makeConnection(FakeTransport(end, isServer=True))
        shown = end.getHandle().get_certificate(as_cryptography=True)
        self.assertEqual(shown.public_bytes(serialization.Encoding.PEM), fresh.cert_pem)

    def test_context_settings(self) -> None:
        """Nothing of a connection is kept for another one."""
        context = server_context(self.certificate.key_pem, self.certificate.cert_pem)
        self.assertEqual(context.get_session_cache_mode(), SSL.SESS_CACHE_OFF)
        wanted = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
        self.assertEqual(context.set_options(0) & wanted, wanted)

    def test_unusable_pair(self) -> None:
        """A key and a certificate that do not fit are a sentence, without either."""
        key, cert = make_certificate()[0], make_certificate()[1]
        error = self.assertRaises(StartupError, server_context, key, cert)
        self.assertNotIn("BEGIN", str(error))
        self.assertIn("TLS", str(error)[:80])


class LabelTests(SynchronousTestCase):
    """Routing labels."""

    def test_a_dns_label(self) -> None:
        """80 random bits become 16 characters that any host name may have."""
        asked: list[int] = []

        def entropy(size: int) -> bytes:
            asked.append(size)
            return b"\xff" * size

        self.assertEqual(session_label(entropy), "7" * 16)
        self.assertEqual(asked, [10])


class SentenceTests(SynchronousTestCase):
    """What is said of errors that no handshake here brings about."""

    def test_unknown_errors(self) -> None:
        """An error without a reason, or with an unknown one, is still a sentence."""
        for error in (
            SSL.Error(),
            SSL.Error([]),
            SSL.SysCallError(-1, "Unexpected EOF"),
            SSL.Error([("SSL routines", "", "some\nthing \x1b[31mnew")]),
        ):
            sentence = tls_sentence(error, "vps.example:8443")
            self.assertIn("vps.example:8443", sentence[:80])
            self.assertTrue(sentence.isprintable())
