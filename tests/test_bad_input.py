"""Nonsense on both open ports: one closed connection, one line, nobody else notices."""

import errno
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from support import socks, wire
from support.crowd import crowd
from support.ports import LOOPBACK
from support.processes import Process
from support.targets import Echo
from support.waiting import wait_still, wait_until
from support.workshop import Pair

MIB = 1 << 20
GARBAGE = random.Random(6).randbytes(5000)


class Bystander:
    """A stream of somebody else's, asked again and again whether it still works."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._echo = Echo()
        self._sock = socks.connect(pair.client.proxy, self._echo.port, timeout=1)

    def ask(self) -> None:
        """It echoes within a second."""
        word = os.urandom(100)
        self._sock.sendall(word)
        assert socks.read_exactly(self._sock, 100) == word

    def close(self) -> None:
        """End it."""
        self._sock.close()
        self._echo.close()


@pytest.fixture(scope="module")
def standing(shared: Pair) -> Iterator[Bystander]:
    """One bystander for the module."""
    bystander = Bystander(shared)
    yield bystander
    bystander.close()


@pytest.fixture(autouse=True)
def bystander(standing: Bystander) -> Iterator[Bystander]:
    """After each test the bystander is asked, and the descriptors are counted."""
    standing.ask()
    before = [process.fds for process in standing.pair]
    yield standing
    standing.ask()
    for process, count in zip(standing.pair, before, strict=True):
        wait_until(lambda p=process, c=count: p.fds <= c, 10, "the descriptors to go")


def lines_after(process: Process, deed: Callable[[], object]) -> list[str]:
    """What the process logs because of a deed."""
    wait_still(lambda: len(process.lines), 0.2, 5, "the log")
    since = len(process.lines)
    deed()
    wait_still(lambda: len(process.lines), 0.3, 5, "the log")
    return process.lines[since:]


def say(port: int, data: bytes, end: bool = False) -> bytes:
    """Send bytes to a port; what comes back until it closes."""
    heard = b""
    with socket.create_connection((LOOPBACK, port), timeout=15) as sock:
        try:
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                heard += part
        except ConnectionError:
            pass
        except OSError as error:
            # A reset that has come already leaves nothing to shut down.
            if error.errno != errno.ENOTCONN:
                raise
    return heard


def client_hello() -> bytes:
    """The first flight of an honest TLS client."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="x.session.stripetwist")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class TestServerPort:
    @pytest.mark.parametrize(
        "data",
        [
            GARBAGE,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x05\x01\x00",
            b"\xff" * 100,
            b"\x16\x03\x01\xff\xff" + bytes(70000),
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        ],
        ids=["random", "http", "ssh", "socks", "ones", "huge-record", "proxy-header"],
    )
    def test_what_is_no_tls(self, shared: Pair, data: bytes) -> None:
        """Closed with at most a TLS alert, and one line."""
        heard: list[bytes] = []
        lines = lines_after(
            shared.server, lambda: heard.append(say(shared.server.port, data, end=True))
        )
        assert len(heard[0]) <= 7
        assert len(lines) == 1, lines

    def test_old_tls_is_refused(self, shared: Pair) -> None:
        """TLS 1.2 gets no further than an alert."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        address = (LOOPBACK, shared.server.port)
        with socket.create_connection(address) as sock, pytest.raises(ssl.SSLError):
            context.wrap_socket(sock)

    def test_a_client_hello_cut_anywhere(self, shared: Pair) -> None:
        """Whatever part of it comes before the end, the server only closes."""
        whole = client_hello()
        for size in range(1, len(whole), 23):
            assert len(say(shared.server.port, whole[:size], end=True)) <= 7

    @pytest.mark.parametrize(
        "data",
        [
            GARBAGE,
            wire.hello(wire.HELLO, b""),
            wire.MAGIC + b"\x01\x01\x01\x00" + (4097).to_bytes(4, "big") + bytes(4097),
            wire.MAGIC + b"\x01\x01\x01\x00" + (2**32 - 1).to_bytes(4, "big"),
            wire.hello(wire.HELLO, bytes(100)),
            wire.hello(wire.HELLO, wire.tlv(wire.MODE, b"\x07")),
            wire.hello(wire.HELLO, wire.tlv(0x9999, b"critical")),
            wire.hello(wire.CONFIRM, wire.tlv(wire.MAC, bytes(32))),
            wire.frame(wire.PING) * 1000,
        ],
        ids=[
            "random",
            "empty-hello",
            "4097-bytes",
            "4-GiB",
            "zeros",
            "bad-mode",
            "critical-item",
            "confirm-first",
            "frames-first",
        ],
    )
    def test_no_hello_inside_tls(self, shared: Pair, data: bytes) -> None:
        """Refused or closed before anything is kept, with one line."""

        def deed() -> None:
            with wire.Peer(shared.server.port) as peer:
                # It may close on the first bytes, before the last are sent.
                with suppress(wire.ClosedError):
                    peer.send(data)
                assert peer.rest()[:4] in (b"", wire.MAGIC)

        lines = lines_after(shared.server, deed)
        assert len(lines) == 1, lines

    @pytest.mark.parametrize("name", [b"", b"x" * 33, b"a\r\nb", b"../../x", b"\x00", b"\x1b[31m"])
    def test_key_ids_that_are_none(self, shared: Pair, name: bytes) -> None:
        """Refused, and escaped in the log."""

        def deed() -> None:
            with wire.Peer(shared.server.port) as peer:
                peer.send(peer.greeting(name.decode()))
                peer.send(wire.hello(wire.CONFIRM, wire.tlv(wire.MAC, bytes(32))))
                peer.rest()

        lines = lines_after(shared.server, deed)
        assert len(lines) == 1 and "\x1b" not in lines[0] and "\x00" not in lines[0]

    def test_a_hello_cut_anywhere(self, shared: Pair) -> None:
        """An honest hello that ends early, at many places, leaves nothing."""
        key_id = wire.Link.parse(shared.server.link).key_id
        for part in range(1, 12):
            with wire.Peer(shared.server.port) as peer:
                whole = peer.greeting(key_id)
                peer.send(whole[: len(whole) * part // 12])

    @pytest.mark.parametrize(
        "data",
        [
            wire.frame(0x7F),
            wire.FRAME.pack(wire.DATA, 0, 0, 2**32 - 1, 1, 0),
            wire.FRAME.pack(wire.PING, 0, 0, 5000, 0, 0),
            wire.frame(wire.ACK, offset=2**63),
            wire.frame(wire.DATA, b"x" * 100, stream=1, offset=2**62),
            wire.frame(wire.CREDIT, b"odd"),
            wire.frame(wire.DATA, b"x", stream=2),
            GARBAGE,
        ],
        ids=[
            "unknown-frame",
            "4-GiB-data",
            "long-ping",
            "ack-of-unsent",
            "beyond-credit",
            "odd-credit",
            "wrong-parity",
            "random",
        ],
    )
    def test_nonsense_of_a_peer_with_a_key(self, shared: Pair, data: bytes) -> None:
        """Its subflow or its session ends with one line; nobody else's does."""

        def deed() -> None:
            with wire.Peer(shared.server.port) as peer:
                peer.join_in(wire.Link.parse(shared.server.link))
                peer.send(data)
                for _ in peer.frames():
                    pass

        lines = lines_after(shared.server, deed)
        assert 1 <= len(lines) <= 3, lines

    def test_an_unknown_frame_that_may_be_skipped(self, shared: Pair) -> None:
        """Above 0x80 it is passed over, and what follows is heard."""
        with wire.Peer(shared.server.port) as peer:
            peer.join_in(wire.Link.parse(shared.server.link))
            peer.send(wire.frame(0xC3, b"new") + wire.frame(wire.PING, offset=1))
            assert wire.PONG in (kind for kind, _ in peer.frames())

    def test_a_flood_of_pings_is_answered_within_bounds(self, shared: Pair) -> None:
        """A peer that never reads gets no queue of answers."""
        before = shared.server.rss
        with wire.Peer(shared.server.port) as peer:
            peer.join_in(wire.Link.parse(shared.server.link))
            for _ in range(100):
                peer.send(wire.frame(wire.PING) * 1000)
        assert shared.server.rss < before + 16 * MIB


class TestProxyPort:
    @pytest.mark.parametrize(
        "data",
        [b"\x00" * 20, b"\x06\x01\x00", b"\xff" * 50, b"\x16\x03\x01\x02\x00\x01", GARBAGE[:1000]],
        ids=["zeros", "six", "ones", "tls", "random"],
    )
    def test_another_protocol(self, shared: Pair, data: bytes) -> None:
        """Closed without a byte, and at most one line."""
        assert data[0] not in (4, 5)
        heard: list[bytes] = []
        lines = lines_after(shared.client, lambda: heard.append(say(shared.client.proxy, data)))
        assert heard == [b""]
        assert len(lines) <= 1, lines

    @pytest.mark.parametrize(
        ("data", "answer"),
        [
            (b"\x05\x00", b"\x05\xff"),
            (b"\x05\x01\x01", b"\x05\xff"),
            (b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07"),
            (b"\x05\x01\x00\x05\x01\x00\x09\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x08"),
            (b"\x05\x01\x00\x04\x01\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x01"),
            (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00\x05\x01"),
            (b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", b"\x05\x00\x05\x01"),
        ],
        ids=["no-method", "gssapi", "bind", "form-9", "version-4", "empty-name", "port-0"],
    )
    def test_requests_that_cannot_be(self, shared: Pair, data: bytes, answer: bytes) -> None:
        """The reply that fits, then the end."""
        assert say(shared.client.proxy, data).startswith(answer)

    def test_requests_cut_anywhere(self, shared: Pair, bystander: Bystander) -> None:
        """Half a request and an end, at each place: closed, nothing opened."""
        whole = b"\x05\x01\x00" + socks.request("localhost", 9)
        opened = shared.client.snapshot()["sessions"][0]["streams"]["opened"]
        for size in range(1, len(whole)):
            assert say(shared.client.proxy, whole[:size], end=True) in (b"", b"\x05\x00")
        assert shared.client.snapshot()["sessions"][0]["streams"]["opened"] == opened

    def test_megabytes_after_a_refusal(self, shared: Pair) -> None:
        """What follows a refusal is thrown away, not kept."""
        before = shared.client.rss
        assert say(shared.client.proxy, b"\x05\x01\x01" + bytes(8 * MIB))[:2] in (b"", b"\x05\xff")
        assert shared.client.rss < before + 4 * MIB


def dribble(port: int, data: bytes) -> float:
    """Send a byte a second; how long the port puts up with it."""
    start = time.monotonic()
    with socket.create_connection((LOOPBACK, port), timeout=1) as sock:
        for at in range(30):
            try:
                sock.sendall(data[at : at + 1])
                if not sock.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    return time.monotonic() - start


def silence_inside_tls(port: int) -> float:
    """Say nothing after the handshake; how long that is put up with."""
    start = time.monotonic()
    with wire.Peer(port, timeout=20) as peer:
        peer.rest()
    return time.monotonic() - start


def test_a_byte_a_second_and_silence(shared: Pair) -> None:
    """All at once: each is closed at its time by the wall, however it dribbles."""
    server, proxy = shared.server.port, shared.client.proxy
    slow = client_hello()
    works: dict[str, tuple[Callable[[], float], float]] = {
        "silence at the server": (lambda: dribble(server, b""), 10),
        "a byte a second at the server": (lambda: dribble(server, slow), 10),
        "silence inside TLS": (lambda: silence_inside_tls(server), 5),
        "silence at the proxy": (lambda: dribble(proxy, b""), 10),
        "a byte a second at the proxy": (lambda: dribble(proxy, b"\x05" + b"\xff" * 30), 10),
    }
    took: dict[str, float] = {}
    threads = [
        threading.Thread(target=lambda n=name, w=work: took.__setitem__(n, w()))
        for name, (work, _) in works.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    wrong = {
        name: took.get(name)
        for name, (_, limit) in works.items()
        if not limit - 1 < took.get(name, 0) < limit + 3
    }
    assert wrong == {}


def test_five_hundred_bad_connections_leave_nothing(shared: Pair) -> None:
    """No memory, no descriptor; a line each, and not more."""
    before = [process.rss for process in shared]
    lines = [len(process.lines) for process in shared]

    def one(number: int) -> None:
        for _ in range(10):
            say(shared.server.port, GARBAGE[number : number + 1000], end=True)
            say(shared.client.proxy, b"\x07" + GARBAGE[number : number + 1000], end=True)

    crowd(one, range(50), 60)
    for process, rss, count in zip(shared, before, lines, strict=True):
        assert process.rss < rss + 8 * MIB
        assert len(process.lines) - count <= 510


def test_silent_strangers_disturb_no_stream(shared: Pair, bystander: Bystander) -> None:
    """While as many as one source may have say nothing, streams go on."""
    silent = [socket.create_connection((LOOPBACK, shared.server.port)) for _ in range(64)]
    for _ in range(20):
        bystander.ask()
    for sock in silent:
        sock.close()
