"""The first command of the README: one process, and curl fetches through it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import socks
from support.programs import program, succeed
from support.targets import Echo
from support.web import CONTENT, Certificate, Web
from support.workshop import Client, Workshop


@pytest.fixture(scope="module")
def certificate(site: Path) -> Certificate:
    """The certificate of the https server."""
    return Certificate(site)


@pytest.fixture(scope="module")
def client(shared_workshop: Workshop) -> Client:
    """One client with its server side inside, for the module."""
    return shared_workshop.loopback()


@pytest.fixture(scope="module", params=["http", "https"])
def web(
    request: pytest.FixtureRequest, site: Path, certificate: Certificate
) -> Iterator[tuple[str, int]]:
    """A web server's scheme and port."""
    secure = request.param == "https"
    with Web(site, certificate if secure else None) as server:
        yield request.param, server.port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_curl_fetches(
    client: Client,
    web: tuple[str, int],
    certificate: Certificate,
    host: str,
    tmp_path: Path,
) -> None:
    """A file comes whole over http and https, by address and by name."""
    scheme, port = web
    url = f"{scheme}://{host}:{port}/file"
    proxy = f"socks5h://127.0.0.1:{client.proxy}"
    command = [program("curl"), "-sS", "--cacert", certificate.file, "-x", proxy, url]
    assert succeed(command, tmp_path) == CONTENT


def test_the_client_says_what_to_try(client: Client) -> None:
    """Its log shows the proxy port and a command that uses it."""
    client.wait_line(rf"\bproxy\b.*127\.0\.0\.1:{client.proxy}\b.*SOCKS5")
    client.wait_line(rf"\btry\b.*curl -x socks5h://127\.0\.0\.1:{client.proxy} ")


def test_six_subflows_are_up_unasked(workshop: Workshop) -> None:
    """Without any option a client prewarms six."""
    client = workshop.loopback()
    client.wait_subflows(6)


def test_loopback_needs_no_state_of_a_server(workshop: Workshop, echo: Echo) -> None:
    """Keys and certificate stay in memory: no server state, no link file."""
    client = workshop.loopback()
    with socks.connect(client.proxy, echo.port) as sock:
        sock.sendall(b"through")
        assert socks.read_exactly(sock, 7) == b"through"
    files = [path.name for path in workshop.folder.rglob("*")]
    assert not [name for name in files if name in ("keys.toml", "client.link", "server")]


def test_without_allow_loopback_is_refused_with_the_remedy(workshop: Workshop, echo: Echo) -> None:
    """A server of its own refuses this machine, and the client's log names the option."""
    server = workshop.server()
    client = workshop.client(server)
    code, sock = socks.ask(client.proxy, "127.0.0.1", echo.port)
    sock.close()
    assert code == socks.NOT_ALLOWED
    client.wait_line(r"refused.*--allow localhost")
    assert echo.accepted == 0


@pytest.mark.parametrize("host", ["localhost", "x.localhost", "10.1.2.3", "169.254.169.254"])
def test_private_targets_are_refused_by_default(
    shared_workshop: Workshop, refusing_client: Client, host: str
) -> None:
    """Names of this machine, private networks and metadata services get reply 2."""
    code, sock = socks.ask(refusing_client.proxy, host, 80)
    sock.close()
    assert code == socks.NOT_ALLOWED


@pytest.fixture(scope="module")
def refusing_client(shared_workshop: Workshop) -> Client:
    """A client of a server that has no C{--allow}."""
    return shared_workshop.client(shared_workshop.server())
