"""An HTTP/3 server and a request to it, by aioquic, the request through a proxy port."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.associate import Associate, unwrap, wrap
from support.ports import LOOPBACK

NAME = "localhost"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for C{NAME}, and its key, in files."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    files = folder / "quic.pem", folder / "quic.key"
    form = serialization.Encoding.PEM
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(form))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(form, *plain))
    return files


class Talk(QuicConnectionProtocol):
    """One end of a connection that carries HTTP/3."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.http = H3Connection(self._quic)

    def quic_event_received(self, event: Any) -> None:
        """See L{QuicConnectionProtocol}."""
        for one in self.http.handle_event(event):
            self.happened(one)
        self.transmit()

    def happened(self, event: Any) -> None:
        """Something of HTTP's."""


class Answering(Talk):
    """The server's end: the path of a request is how many bytes are wanted."""

    def happened(self, event: Any) -> None:
        """See L{Talk.happened}."""
        if isinstance(event, HeadersReceived):
            size = int(dict(event.headers)[b":path"].strip(b"/"))
            self.http.send_headers(event.stream_id, [(b":status", b"200")])
            self.http.send_data(event.stream_id, body(size), end_stream=True)


class Asking(Talk):
    """The client's end of one request, whose datagrams are wrapped."""

    def __init__(self, program: Associate, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self._program = program
        self.data = b""
        self.whole = asyncio.get_running_loop().create_future()

    def happened(self, event: Any) -> None:
        """See L{Talk.happened}."""
        if isinstance(event, DataReceived):
            self.data += event.data
        if getattr(event, "stream_ended", False):
            self.whole.set_result(self.data)

    def connection_made(self, transport: Any) -> None:
        """Send by way of the proxy port."""
        super().connection_made(Wrapped(transport, self._program))

    def datagram_received(self, data: Any, addr: Any) -> None:
        """One has come back from there."""
        super().datagram_received(*unwrap(data))


class Wrapped(asyncio.DatagramTransport):
    """A transport whose datagrams go to the proxy port's socket, with a header."""

    def __init__(self, transport: asyncio.DatagramTransport, program: Associate) -> None:
        super().__init__()
        self._transport, self._program = transport, program

    def sendto(self, data: Any, addr: Any = None) -> None:
        """See L{asyncio.DatagramTransport}."""
        self._transport.sendto(wrap(data, *addr[:2]), self._program.relay)

    def close(self) -> None:
        """See L{asyncio.DatagramTransport}."""
        self._transport.close()


def body(size: int) -> bytes:
    """What is answered."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4))


@contextmanager
def http3_server(port: int, folder: Path) -> Iterator[None]:
    """One that answers on loopback, in a thread."""
    settings = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False)
    settings.load_cert_chain(*make_certificate(folder))
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def run() -> None:
        await serve(LOOPBACK, port, configuration=settings, create_protocol=Answering)
        ready.set()
        await asyncio.Event().wait()

    def turn() -> None:
        task = loop.create_task(run())
        over.append(task)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    over: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over[0].cancel)
        thread.join()


async def request(program: Associate, port: int, folder: Path, size: int) -> bytes:
    """The answer to one request for so many bytes."""
    settings = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=NAME)
    settings.load_verify_locations(str(folder / "quic.pem"))
    loop = asyncio.get_running_loop()
    _, made = await loop.create_datagram_endpoint(
        lambda: Asking(program, QuicConnection(configuration=settings)), sock=program.socket
    )
    made.connect((LOOPBACK, port))
    await made.wait_connected()
    stream_id = made._quic.get_next_available_stream_id()
    names = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", NAME.encode()))
    made.http.send_headers(stream_id, [*names, (b":path", b"/%d" % size)], end_stream=True)
    made.transmit()
    data: bytes = await made.whole
    made.close()
    await made.wait_closed()
    return data
