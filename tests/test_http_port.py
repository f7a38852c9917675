"""Real programs that use the proxy port by HTTP and SOCKS4: curl, nc, ncat, requests."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from support.ports import LOOPBACK
from support.programs import program, run, succeed
from support.targets import Echo, Refusing
from support.web import CONTENT, Certificate, Web
from support.workshop import LOGIN, Client, Pair

SCHEMES = ["http", "socks4", "socks4a"]


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers each request with its body, and keeps its head."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.heads.append((self.requestline, dict(self.headers)))  # type: ignore[attr-defined]
        body = self._chunks() if "Transfer-Encoding" in self.headers else self._counted()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST

    def _counted(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[http.server.ThreadingHTTPServer]:
    """A web server of that kind."""
    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Mirror)
    server.heads = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def curl(client: Client, scheme: str, *more: str) -> list[str]:
    """The beginning of a command."""
    return [program("curl"), "-sS", "-x", f"{scheme}://{LOOPBACK}:{client.proxy}", *more]


class TestCurl:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_plain(self, shared: Pair, site: Path, tmp_path: Path, scheme: str) -> None:
        """A file over http, whole."""
        with Web(site) as web:
            command = curl(shared.client, scheme, f"http://localhost:{web.port}/file")
            assert succeed(command, tmp_path) == CONTENT
            assert web.requests[-1].startswith("GET /file ")

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_tls(self, shared: Pair, site: Path, tmp_path: Path, scheme: str) -> None:
        """A file over https, in a tunnel."""
        certificate = Certificate(tmp_path)
        with Web(site, certificate) as web:
            trust = ("--cacert", str(certificate.file))
            command = curl(shared.client, scheme, *trust, f"https://localhost:{web.port}/file")
            assert succeed(command, tmp_path) == CONTENT

    def test_bodies(self, shared: Pair, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        """Of known length, and in chunks; the target sees nothing of the proxy."""
        url = f"http://localhost:{mirror.server_port}/it?a=b"
        for more in (["--data-binary", "@-"], ["-T", "-"]):
            command = curl(shared.client, "http", *more, "-U", "alice:canary", url)
            assert succeed(command, tmp_path, CONTENT) == CONTENT
        for line, fields in mirror.heads:
            assert line.split()[1:] == ["/it?a=b", "HTTP/1.1"]
            assert not [name for name in fields if name.lower().startswith("proxy-")]
            assert fields["Connection"] == "close"
            assert fields["Host"] == f"localhost:{mirror.server_port}"
        assert "Transfer-Encoding" in mirror.heads[1][1]

    def test_two_pages(self, shared: Pair, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        """One after the other, each over a connection of its own."""
        url = f"http://localhost:{mirror.server_port}"
        command = curl(shared.client, "http", f"{url}/one", f"{url}/two")
        assert succeed(command, tmp_path) == b""
        assert [head[0].split()[1] for head in mirror.heads] == ["/one", "/two"]

    def test_refused(self, shared: Pair, tmp_path: Path) -> None:
        """The status says why, and the body has the sentence."""
        with Refusing() as nobody:
            url = f"http://{LOOPBACK}:{nobody.port}/"
            said = succeed(curl(shared.client, "http", "-w", "%{http_code}", url), tmp_path)
            assert b"refused" in said and said.endswith(b"502")
            tunnel = curl(shared.client, "http", "-p", "-w", "%{http_connect}", url)
            done = run(tunnel, tmp_path)
            assert (done.returncode, done.stdout) == (56, b"502")
        denied = curl(shared.client, "http", "-w", "%{http_code}", "http://192.168.1.5/")
        assert succeed(denied, tmp_path).endswith(b"403")
        own = [program("curl"), "-sS", "-w", "%{http_code}"]
        said = succeed([*own, f"http://{LOOPBACK}:{shared.client.proxy}/"], tmp_path)
        assert b"a page of the proxy" in said and said.endswith(b"400")

    def test_login(self, guarded: Client, site: Path, tmp_path: Path) -> None:
        """With the right one, for pages and for tunnels; SOCKS4 has none."""
        with Web(site) as web:
            url = f"http://{LOOPBACK}:{web.port}/file"
            for more in ([], ["-p"], ["--proxy-anyauth"]):
                command = curl(guarded, "http", *more, "-U", ":".join(LOGIN), url)
                assert succeed(command, tmp_path) == CONTENT
            for who in ([], ["-U", "alice:wrong"]):
                command = curl(guarded, "http", *who, "-w", "%{http_code}", url)
                assert succeed(command, tmp_path).endswith(b"407")
            assert run(curl(guarded, "socks4", url), tmp_path).returncode == 97


class TestNetcat:
    @pytest.mark.parametrize("kind", ["4", "connect"])
    def test_nc(self, shared: Pair, echo: Echo, tmp_path: Path, kind: str) -> None:
        """OpenBSD's nc gets back what it sends."""
        proxy = ["-X", kind, "-x", f"{LOOPBACK}:{shared.client.proxy}"]
        command = [program("nc", "netcat-openbsd"), "-N", *proxy, LOOPBACK, str(echo.port)]
        assert succeed(command, tmp_path, CONTENT) == CONTENT

    @pytest.mark.parametrize("kind", ["socks4", "http"])
    def test_ncat(self, shared: Pair, echo: Echo, tmp_path: Path, kind: str) -> None:
        """So does Nmap's ncat."""
        proxy = ["--proxy-type", kind, "--proxy", f"{LOOPBACK}:{shared.client.proxy}"]
        command = [program("ncat"), *proxy, LOOPBACK, str(echo.port)]
        assert succeed(command, tmp_path, CONTENT) == CONTENT


def test_requests(guarded: Client, mirror, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Pages and tunnels, with the login in the proxy's address."""
    login = ":".join(quote(part, safe="") for part in LOGIN)
    proxy = f"http://{login}@{LOOPBACK}:{guarded.proxy}"
    certificate = Certificate(tmp_path)
    (tmp_path / "file").write_bytes(CONTENT)
    with requests.Session() as session, Web(tmp_path, certificate) as web:
        session.trust_env = False
        session.proxies = {"http": proxy, "https": proxy}
        for word in (b"one", b"two"):
            url = f"http://localhost:{mirror.server_port}/"
            assert session.post(url, data=word, timeout=20).content == word
        url = f"https://localhost:{web.port}/file"
        assert session.get(url, verify=str(certificate.file), timeout=20).content == CONTENT
    assert not [head for head in mirror.heads if "Proxy-Authorization" in head[1]]


def test_what_follows_a_page_stays_here(shared: Pair, mirror) -> None:  # type: ignore[no-untyped-def]
    """A second request on the connection does not reach the first one's target."""
    page = f"GET http://localhost:{mirror.server_port}/%s HTTP/1.1\r\n\r\n"
    with socket.create_connection((LOOPBACK, shared.client.proxy), 20) as sock:
        sock.sendall((page % "one" + page % "two").encode())
        said = b""
        while data := sock.recv(65536):
            said += data
    assert b"\r\nConnection: close\r\n" in said
    assert said.startswith(b"HTTP/1.1 200 ") and said.count(b"HTTP/1.1") == 1
    assert [head[0].split()[1] for head in mirror.heads] == ["/one"]
