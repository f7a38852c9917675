"""TLS 1.3 between peers: contexts, connections, and the proof of who the server is."""

import base64
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from stripetwist.core.errors import StripetwistError, UsageViolation, printable
from stripetwist.core.link import Link
from stripetwist.core.target import parse_host
from stripetwist.net.certificates import ServerCertificate, load_chain, load_key, spki_pin
from stripetwist.net.files import StartupError
from stripetwist.net.records import BatchTLS, write_slices_whole

ALPN = b"stripetwist/1"
EXPORTER_LABEL = b"EXPORTER-stripetwist-v1"
EXPORTER_SIZE = 32
SNI_SUFFIX = ".session.stripetwist"
LABEL_BYTES = 10


class PeerRejected(StripetwistError):
    """
    The other end of a TLS connection is not who it has to be.

    @ivar sentence: why, for a person.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def _context() -> SSL.Context:
    """What both ends have in common: TLS 1.3, and nothing that outlives a connection."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection gives its record buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    write_slices_whole(context)
    return context


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """Agree on our protocol; a dialer that offers others only wants somebody else."""
    if ALPN in offered:
        return ALPN
    # pyOpenSSL turns any exception into an alert; Twisted knows this kind as a failed handshake.
    raise SSL.Error([("stripetwist", "", "no application protocol in common")])


def server_context(key_pem: bytes, cert_pem: bytes) -> SSL.Context:
    """
    The context of a server that proves itself by that key and certificate.

    @raise StartupError: OpenSSL does not want them.
    """
    context = _context()
    try:
        own, *between = load_chain(cert_pem)
        context.use_certificate(own)
        for certificate in between:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(load_key(key_pem))
        context.check_privatekey()
    except (ValueError, SSL.Error) as error:
        problem = _reason(error) if isinstance(error, SSL.Error) else str(error)
    else:
        context.set_alpn_select_callback(_select_protocol)
        return context
    raise StartupError(f"the TLS certificate or key cannot be used: {problem}")


@implementer(IOpenSSLServerConnectionCreator)
class ServerCreator:
    """Makes the server end of each TLS connection, with the certificate of the day."""

    def __init__(self, certificate: ServerCertificate) -> None:
        """
        @raise StartupError: as L{server_context}.
        """
        self._context = server_context(certificate.key_pem, certificate.cert_pem)

    def renew(self, certificate: ServerCertificate) -> None:
        """
        Use another certificate from the next connection on.

        @raise StartupError: as L{server_context}; the old one stays.
        """
        self._context = server_context(certificate.key_pem, certificate.cert_pem)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See L{IOpenSSLServerConnectionCreator}."""
        return SSL.Connection(self._context, None)


@implementer(IOpenSSLClientConnectionCreator)
class ClientCreator:
    """
    Makes the client end of each TLS connection of one session.

    The name that it sends (SNI) is a label that keeps a session's subflows together in load
    balancers; who the server is gets decided by L{verify_peer}, and by the context
    where an authority has to vouch for it.
    """

    def __init__(self, link: Link, label: str, roots: Iterable[x509.Certificate] = ()) -> None:
        """
        @param label: the session's, as made by L{session_label}.
        @param roots: authorities to trust besides the platform's.
        @raise StartupError: service-identity is missing.
        """
        require_service_identity()
        self._name = (label + SNI_SUFFIX).encode("ascii")
        self._context = _context()
        self._context.set_alpn_protos([ALPN])
        if link.ca:
            self._verify_chain(roots)

    def _verify_chain(self, roots: Iterable[x509.Certificate]) -> None:
        """Have OpenSSL break off unless the chain leads to a trusted authority."""
        try:
            self._context.set_default_verify_paths()
        except SSL.Error as error:
            problem = _reason(error)
            raise StartupError(
                f"the system's trusted certificates do not load: {problem}"
            ) from None
        store = self._context.get_cert_store()
        for root in roots:
            if store is not None:
                store.add_cert(X509.from_cryptography(root))
        self._context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._name)
        return connection


class TLSFactory(TLSMemoryBIOFactory):
    """
    Puts TLS around the protocols of another factory.

    What is written goes out at once: Twisted's own default gathers small writes for one
    reactor turn, and copies each for it.
    """

    protocol: type[TLSMemoryBIOProtocol] = BatchTLS

    def __init__(
        self,
        creator: ClientCreator | ServerCreator,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
    ) -> None:
        """
        @param creator: makes the connections, and decides which end they are.
        """
        super().__init__(creator, isinstance(creator, ClientCreator), wrapped, clock)

    def buildProtocol(  # type: ignore[override]  # IProtocolFactory allows None
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        """A TLS protocol, unless the wrapped factory declines the connection."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


def session_label(entropy: Callable[[int], bytes]) -> str:
    """A new session's label: 80 random bits that can stand in a DNS name."""
    return base64.b32encode(entropy(LABEL_BYTES)).decode("ascii").lower()


def exporter(connection: SSL.Connection) -> bytes:
    """32 bytes that only the two ends of this very TLS connection know."""
    return connection.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE)


def check_protocol(connection: SSL.Connection) -> None:
    """
    Refuse a dialer that has not asked for our protocol; for the server's C{handshakeCompleted}.

    A filter against strangers that came by, no proof of anything.

    @raise PeerRejected: it has not.
    """
    if connection.get_alpn_proto_negotiated() != ALPN:
        raise PeerRejected("a dialer completed TLS without asking for stripetwist")


def verify_peer(connection: SSL.Connection, link: Link) -> None:
    """
    Make sure that the other end is the link's server.

    To be called in C{handshakeCompleted}, before the first byte is written: an exception in
    a callback of OpenSSL has been known to go unnoticed, one here cannot.

    @raise PeerRejected: it is another one, or proves nothing.
    """
    if connection.get_alpn_proto_negotiated() != ALPN:
        raise PeerRejected(f"{link.address} speaks TLS but not stripetwist; check host and port")
    certificate = _peer_certificate(connection)
    if certificate is None:
        raise PeerRejected(f"{link.address} showed no certificate that can be read")
    if link.ca:
        if not connection.get_verify_mode() & SSL.VERIFY_PEER:
            raise UsageViolation("this connection was not made for a link with ca")
        _verify_name(certificate, link)
    elif _pin(certificate) not in link.pins:
        raise PeerRejected(
            f"{link.address} is not the server of this link, its key is another; if it was set "
            "up anew fetch a new link, otherwise somebody else answers in its place"
        )


def _peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    """The other end's own certificate, if it can be parsed."""
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except (ValueError, UnsupportedAlgorithm):
        return None


def _pin(certificate: x509.Certificate) -> bytes | None:
    """The certificate's pin; C{None}, which is in no link, if it can have none."""
    try:
        return spki_pin(certificate)
    except ValueError:
        return None


def require_service_identity() -> None:
    """
    Make sure that certificates can be checked against names.

    Without the package Twisted itself would fall back to comparing common names.

    @raise StartupError: they cannot.
    """
    try:
        import service_identity.cryptography  # noqa: F401 - is it there?
    except ImportError:
        problem = "the package service-identity does not load; install it beside stripetwist"
    else:
        return
    raise StartupError(problem)


def _verify_name(certificate: x509.Certificate, link: Link) -> None:
    """Make sure that a certificate, already vouched for, is for the link's host."""
    from service_identity import CertificateError, VerificationError
    from service_identity.cryptography import (
        verify_certificate_hostname,
        verify_certificate_ip_address,
    )

    host = parse_host(link.host)
    try:
        if isinstance(host, IPv4Address | IPv6Address):
            verify_certificate_ip_address(certificate, str(host))
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        pass
    else:
        return
    raise PeerRejected(
        f"the certificate of {link.address} is for another name; "
        "write the name that it is for into the link"
    )


_SENTENCES = (
    (
        "certificate verify failed",
        "has a certificate that no trusted authority vouches for, or an "
        "expired one; renew it, or use a link with a pin",
    ),
    ("no application protocol", "speaks TLS but not stripetwist; check host and port"),
    ("protocol version", "does not speak TLS 1.3; check host and port"),
    ("unsupported protocol", "does not speak TLS 1.3; check host and port"),
    ("wrong version number", "does not speak TLS; check host and port"),
    ("packet length too long", "does not speak TLS; check host and port"),
)


def tls_sentence(error: BaseException, address: str) -> str:
    """
    What a failed handshake means, for a person.

    @param error: what C{connectionLost} or L{verify_peer} came with.
    @param address: the server's, as it may be shown.
    """
    if isinstance(error, PeerRejected):
        return error.sentence
    if not isinstance(error, SSL.Error):
        return f"{address} closed the connection before TLS was ready; check host and port"
    reason = _reason(error)
    for part, meaning in _SENTENCES:
        if part in reason:
            return f"{address} {meaning}"
    return f"{address} and we could not agree on TLS ({reason})"


def _reason(error: SSL.Error) -> str:
    """What OpenSSL says of an error."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return printable(str(queue[-1][-1]), 80)
    return "no reason given"
