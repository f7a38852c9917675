"""Real programs through the proxy: curl, nc, ncat, ssh, git, PySocks and requests."""

import base64
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
import socks as pysocks
from support.payload import Source
from support.ports import LOOPBACK
from support.programs import program, run, succeed
from support.ssh import ssh, sshd
from support.targets import AnswerAfterEnd, Echo
from support.web import CONTENT, Web
from support.workshop import BIN, LOGIN, Client, Pair, Workshop

SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def web(site: Path) -> Iterator[Web]:
    """That folder over http."""
    with Web(site) as server:
        yield server


class TestCurl:
    @pytest.mark.parametrize("scheme", ["socks5h", "socks5"])
    def test_fetch(self, shared: Pair, web: Web, tmp_path: Path, scheme: str) -> None:
        """Names resolved here or there, the file is whole."""
        proxy = f"{scheme}://{LOOPBACK}:{shared.client.proxy}"
        command = [program("curl"), "-sS", "-x", proxy, f"http://localhost:{web.port}/file"]
        assert succeed(command, tmp_path) == CONTENT

    def test_twenty_at_once(self, shared: Pair, web: Web, tmp_path: Path) -> None:
        """Twenty parallel transfers are all whole."""
        proxy = f"socks5h://{LOOPBACK}:{shared.client.proxy}"
        url = f"http://{LOOPBACK}:{web.port}/file?[1-20]"
        flags = ["-sS", "-Z", "--parallel-max", "20"]
        succeed([program("curl"), *flags, "-x", proxy, url, "-o", "out#1"], tmp_path)
        assert [(tmp_path / f"out{i}").read_bytes() == CONTENT for i in range(1, 21)] == [True] * 20

    def test_login(self, guarded: Client, web: Web, tmp_path: Path) -> None:
        """With the right password it works, otherwise curl says that it was not let in."""
        url = f"http://{LOOPBACK}:{web.port}/file"
        base = [program("curl"), "-sS", "--socks5-hostname", f"{LOOPBACK}:{guarded.proxy}", url]
        assert succeed([*base, "-U", ":".join(LOGIN)], tmp_path) == CONTENT
        for wrong in (["-U", "alice:wrong"], ["-U", "bob:wrong"], []):
            assert run([*base, *wrong], tmp_path).returncode == 97


class TestNetcat:
    def test_nc(self, shared: Pair, echo: Echo, tmp_path: Path) -> None:
        """OpenBSD's nc gets back what it sends."""
        proxy = ["-X", "5", "-x", f"{LOOPBACK}:{shared.client.proxy}"]
        command = [program("nc", "netcat-openbsd"), "-N", *proxy, LOOPBACK, str(echo.port)]
        assert succeed(command, tmp_path, CONTENT) == CONTENT

    def test_ncat(self, shared: Pair, echo: Echo, tmp_path: Path) -> None:
        """So does Nmap's ncat."""
        proxy = ["--proxy-type", "socks5", "--proxy", f"{LOOPBACK}:{shared.client.proxy}"]
        command = [program("ncat"), *proxy, LOOPBACK, str(echo.port)]
        assert succeed(command, tmp_path, CONTENT) == CONTENT

    def test_ncat_with_login(self, guarded: Client, echo: Echo, tmp_path: Path) -> None:
        """With the right login it is let through, with a wrong one it is not."""
        proxy = ["--proxy-type", "socks5", "--proxy", f"{LOOPBACK}:{guarded.proxy}"]
        base = [program("ncat"), *proxy]
        target = [LOOPBACK, str(echo.port)]
        right = [*base, "--proxy-auth", ":".join(LOGIN), *target]
        wrong = [*base, "--proxy-auth", "alice:wrong", *target]
        assert succeed(right, tmp_path, CONTENT) == CONTENT
        came = echo.accepted
        assert run(wrong, tmp_path, b"hello").stdout == b""
        assert run([*base, *target], tmp_path, b"hello").stdout == b""
        assert echo.accepted == came

    def test_ncat_half_closes(self, shared: Pair, tmp_path: Path) -> None:
        """Request, end, and then a long answer comes back whole."""
        size = 10_000_000
        with AnswerAfterEnd(7, size) as target:
            proxy = ["--proxy-type", "socks5", "--proxy", f"{LOOPBACK}:{shared.client.proxy}"]
            command = [program("ncat"), *proxy, LOOPBACK, str(target.port)]
            assert succeed(command, tmp_path, b"the question") == Source(7).read(size)
            assert target.requests == [b"the question"]


def test_ssh_proxy_command(shared: Pair, tmp_path: Path) -> None:
    """A login by ProxyCommand; megabytes go in and out of a remote command."""
    nc = program("nc", "netcat-openbsd")
    with sshd(tmp_path) as port:
        proxy = f"{nc} -X 5 -x {LOOPBACK}:{shared.client.proxy} %h %p"
        base = ssh(tmp_path, port, ProxyCommand=proxy)
        assert succeed([*base, "cat"], tmp_path, CONTENT) == CONTENT
        assert succeed([*base, "sha256sum"], tmp_path, CONTENT).split()[0].decode() == SHA256


def test_git_clone(shared: Pair, tmp_path: Path) -> None:
    """A repository is cloned over http, and its content is what was committed."""
    git = program("git")
    who = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_CONFIG_GLOBAL": "/dev/null"}
    who |= {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    origin = tmp_path / "origin"
    succeed([git, "init", "-q", origin], tmp_path, **who)
    (origin / "file").write_bytes(CONTENT)
    succeed([git, "-C", origin, "add", "file"], tmp_path, **who)
    succeed([git, "-C", origin, "commit", "-q", "-m", "content"], tmp_path, **who)
    served = tmp_path / "www" / "it.git"
    succeed([git, "clone", "-q", "--bare", origin, served], tmp_path, **who)
    succeed([git, "-C", served, "update-server-info"], tmp_path, **who)
    with Web(tmp_path / "www") as web:
        proxy = f"http.proxy=socks5h://{LOOPBACK}:{shared.client.proxy}"
        url = f"http://{LOOPBACK}:{web.port}/it.git"
        succeed([git, "-c", proxy, "clone", "-q", url, "copy"], tmp_path, **who)
        assert web.requests
    assert (tmp_path / "copy" / "file").read_bytes() == CONTENT


class TestPython:
    def test_pysocks(self, shared: Pair, echo: Echo) -> None:
        """A plain socket of PySocks."""
        with pysocks.socksocket() as sock:
            sock.set_proxy(pysocks.SOCKS5, LOOPBACK, shared.client.proxy)
            sock.settimeout(20)
            sock.connect((LOOPBACK, echo.port))
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"

    def test_requests(self, shared: Pair, web: Web) -> None:
        """A session of requests fetches twice over one connection."""
        proxy = f"socks5h://{LOOPBACK}:{shared.client.proxy}"
        with requests.Session() as session:
            session.trust_env = False
            session.proxies = {"http": proxy}
            for _ in range(2):
                url = f"http://localhost:{web.port}/file"
                assert session.get(url, timeout=20).content == CONTENT

    def test_requests_with_login(self, guarded: Client, web: Web) -> None:
        """The login stands in the proxy's address."""
        with requests.Session() as session:
            session.trust_env = False
            login = ":".join(quote(part, safe="") for part in LOGIN)
            session.proxies = {"http": f"socks5h://{login}@{LOOPBACK}:{guarded.proxy}"}
            url = f"http://{LOOPBACK}:{web.port}/file"
            assert session.get(url, timeout=20).content == CONTENT


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("trust", ["authority", "pin"])
def test_a_certificate_of_openssl(
    workshop: Workshop, echo: Echo, tmp_path: Path, kind: str, trust: str
) -> None:
    """A server runs with what C{openssl req} made, trusted by authority or by pin."""
    cert, key = make_certificate(tmp_path, kind)
    server = workshop.server("--allow", "localhost", "--tls-cert", str(cert), "--tls-key", str(key))
    assert server.link.endswith("/ca")
    if trust == "pin":
        link, environment = server.link.removesuffix("ca") + pin_of(cert, tmp_path), {}
    else:
        link, environment = server.link, {"SSL_CERT_FILE": str(cert)}
    client = workshop.client(str(workshop.link_file(link)), **environment)
    client.wait_subflows(6)
    command = [program("curl"), "-sS", "-x", f"socks5h://{LOOPBACK}:{client.proxy}"]
    with Web(tmp_path) as web:
        got = succeed([*command, f"http://{LOOPBACK}:{web.port}/{cert.name}"], tmp_path)
    assert got == cert.read_bytes()


def make_certificate(folder: Path, kind: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key, by the openssl command."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    algorithm = {
        "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
        "rsa": ["-newkey", "rsa:2048"],
    }[kind]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", key, "-out", cert]
    command = [program("openssl"), "req", "-x509", *algorithm, "-nodes", "-days", "30"]
    succeed([*command, *name, *files], folder)
    key.chmod(0o600)
    return cert, key


def pin_of(cert: Path, folder: Path) -> str:
    """The pin of a certificate's public key, by the openssl command too."""
    openssl = program("openssl")
    public = succeed([openssl, "x509", "-in", cert, "-pubkey", "-noout"], folder)
    der = succeed([openssl, "pkey", "-pubin", "-outform", "der"], folder, public)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def test_the_console_script_is_the_same(workshop: Workshop, echo: Echo, tmp_path: Path) -> None:
    """C{stripetwist server} and C{stripetwist client} do what the plugins do."""
    assert shutil.which("stripetwist", path=str(BIN))
    server = workshop.server("--allow", "localhost", style="console")
    client = workshop.client(server, style="console")
    proxy = ["-X", "5", "-x", f"{LOOPBACK}:{client.proxy}"]
    command = [program("nc", "netcat-openbsd"), "-N", *proxy, LOOPBACK, str(echo.port)]
    assert succeed(command, tmp_path, b"hello") == b"hello"
    assert client.terminate() in (0, -15, 143)
    assert server.terminate() in (0, -15, 143)
