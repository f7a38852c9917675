"""A SOCKS5 client of few words: it returns what the proxy said, byte for byte."""

import socket
from ipaddress import ip_address

from support.ports import LOOPBACK

VERSION, CONNECT = 5, 1
NO_LOGIN, LOGIN, NOTHING_FITS = 0, 2, 255
SUCCEEDED, GENERAL, NOT_ALLOWED = 0, 1, 2
NET_UNREACHABLE, HOST_UNREACHABLE, REFUSED, TIMED_OUT = 3, 4, 5, 6


class ProxyClosedError(ConnectionError):
    """The proxy closed where an answer was due."""


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """C{size} bytes, no fewer."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ProxyClosedError(f"closed after {data.hex()!r}, {size} bytes were due")
        data += part
    return data


def dial(proxy: int, timeout: float = 60.0, buffer: int = 0) -> socket.socket:
    """
    A connection to the proxy port, with nothing said yet.

    @param buffer: bytes of receive buffer; small, so that the kernel does not hide a reader
        that has stopped.
    """
    sock = socket.socket()
    sock.settimeout(timeout)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.connect((LOOPBACK, proxy))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def request(host: str, port: int) -> bytes:
    """A CONNECT; C{host} goes as an address if it is one, else as a name."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("latin-1")
        form = bytes([3, len(name)]) + name
    else:
        form = bytes([1 if address.version == 4 else 4]) + address.packed
    return bytes([VERSION, CONNECT, 0]) + form + port.to_bytes(2, "big")


def greet(sock: socket.socket, login: tuple[str, str] | None = None) -> None:
    """Agree on a method and log in."""
    method = NO_LOGIN if login is None else LOGIN
    sock.sendall(bytes([VERSION, 1, method]))
    answer = read_exactly(sock, 2)
    if answer != bytes([VERSION, method]):
        raise ProxyClosedError(f"method {method} was answered with {answer.hex()}")
    if login is not None:
        user, password = (part.encode() for part in login)
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        answer = read_exactly(sock, 2)
        if answer != b"\x01\x00":
            raise ProxyClosedError(f"the login was answered with {answer.hex()}")


def read_reply(sock: socket.socket) -> int:
    """The code of the reply to a request, which is read whole."""
    head = read_exactly(sock, 4)
    assert head[0] == VERSION and head[2] == 0, f"malformed reply {head.hex()}"
    length = {1: 4, 4: 16}.get(head[3]) or read_exactly(sock, 1)[0]
    read_exactly(sock, length + 2)
    return head[1]


def ask(
    proxy: int,
    host: str,
    port: int,
    login: tuple[str, str] | None = None,
    timeout: float = 60.0,
    buffer: int = 0,
) -> tuple[int, socket.socket]:
    """
    Ask the proxy for a target.

    @return: the reply's code, and the socket, connected to the target if the code is 0.
    """
    sock = dial(proxy, timeout, buffer)
    try:
        greet(sock, login)
        sock.sendall(request(host, port))
        return read_reply(sock), sock
    except BaseException:
        sock.close()
        raise


def connect(proxy: int, port: int, host: str = LOOPBACK, **more: object) -> socket.socket:
    """A socket that leads through the proxy to the target; a refusal is a failure."""
    code, sock = ask(proxy, host, port, **more)  # type: ignore[arg-type]
    if code != SUCCEEDED:
        sock.close()
        raise AssertionError(f"the proxy answered {code} for {host}:{port}")
    return sock
