"""Real proxy programs on loopback, for paths that lead through them."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ports import LOOPBACK, free_port, listening
from support.programs import plain_environment, program, succeed
from support.ssh import ssh, sshd
from support.waiting import wait_until

USER, PASSWORD = "carol", "kept-to-herself"


@dataclass(frozen=True)
class Proxy:
    """
    A proxy that runs.

    @ivar scheme: how paths name its kind.
    @ivar port: where it listens.
    @ivar host: at which address.
    """

    scheme: str
    port: int
    host: str = LOOPBACK

    def path(self, login: str = "") -> str:
        """The path that leads through it; the login is C{USER:PASSWORD}."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{'@' * bool(login)}{host}:{self.port}"


@contextmanager
def running(command: Sequence[str | Path], folder: Path, proxy: Proxy) -> Iterator[Proxy]:
    """That command, from when the proxy's port is open until the block ends."""
    log = folder / f"{Path(command[0]).name}-{proxy.port}.log"
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env=plain_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: proxy.port in listening(process.pid) or process.poll() is not None,
            10,
            f"{command[0]} to listen",
        )
        assert process.poll() is None, log.read_text(errors="replace")
        yield proxy
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def microsocks(folder: Path, login: bool = False, host: str = LOOPBACK) -> Iterator[Proxy]:
    """SOCKS5 that takes one message per read, so that nothing may be sent ahead."""
    port = free_port()
    command = [program("microsocks"), "-i", host, "-p", str(port)]
    command += ["-u", USER, "-P", PASSWORD] * login
    with running(command, folder, Proxy("socks", port, host)) as proxy:
        yield proxy


@contextmanager
def danted(folder: Path) -> Iterator[Proxy]:
    """SOCKS5 with a login, which is that of a user of the system: one that only it sees."""
    daemon = program("danted", "dante-server")
    openssl, unshare = program("openssl"), program("unshare", "util-linux")
    if os.getuid() != 0:
        pytest.skip("danted's users are those of the system, which only root can feign")
    port = free_port()
    hashed = succeed([openssl, "passwd", "-6", "-stdin"], folder, PASSWORD.encode())
    _with_line("/etc/passwd", folder / "passwd", f"{USER}:x:4242:65534::/nonexistent:/bin/false")
    _with_line("/etc/shadow", folder / "shadow", f"{USER}:{hashed.decode().strip()}:19000::::::")
    settings = folder / "danted.conf"
    settings.write_text(
        f"internal: {LOOPBACK} port = {port}\nexternal: lo\nlogoutput: stderr\n"
        "socksmethod: username\nclientmethod: none\n"
        "user.privileged: root\nuser.unprivileged: nobody\n"
        f"client pass {{ from: {LOOPBACK}/32 to: 0/0 }}\n"
        f"socks pass {{ from: {LOOPBACK}/32 to: 0/0 }}\n"
    )
    script = "mount --bind passwd /etc/passwd && mount --bind shadow /etc/shadow && exec "
    script += f"{daemon} -f {settings} -p {folder}/danted.pid"
    command = [unshare, "--mount", "sh", "-c", script]
    with running(command, folder, Proxy("socks", port)) as proxy:
        yield proxy


def _with_line(source: str, copy: Path, line: str) -> None:
    """That file, and one line more."""
    copy.write_text(f"{Path(source).read_text().rstrip()}\n{line}\n")
    copy.chmod(0o600 if "shadow" in source else 0o644)


@contextmanager
def ssh_proxy(folder: Path) -> Iterator[Proxy]:
    """C{ssh -D}, through an OpenSSH server that runs for it."""
    port = free_port()
    with sshd(folder) as ssh_port:
        *options, where = ssh(folder, ssh_port)
        command = [*options, "-N", "-D", f"{LOOPBACK}:{port}", where]
        with running(command, folder, Proxy("socks", port)) as proxy:
            yield proxy


@contextmanager
def tinyproxy(folder: Path, connect_port: int = 0, login: bool = False) -> Iterator[Proxy]:
    """HTTP; CONNECT to one port only, if that is given."""
    port = free_port()
    settings = folder / f"tinyproxy-{port}.conf"
    lines = [f"Port {port}", f"Listen {LOOPBACK}", "Timeout 600", "MaxClients 100"]
    lines += [f"ConnectPort {connect_port}"] * bool(connect_port)
    lines += [f"BasicAuth {USER} {PASSWORD}"] * login
    settings.write_text("\n".join(lines) + "\n")
    command = [program("tinyproxy", "tinyproxy-bin"), "-d", "-c", settings]
    with running(command, folder, Proxy("http", port)) as proxy:
        yield proxy


@contextmanager
def ncat(folder: Path, login: bool = False) -> Iterator[Proxy]:
    """HTTP by Nmap's ncat."""
    port = free_port()
    command = [program("ncat"), "-l", LOOPBACK, str(port), "--proxy-type", "http"]
    command += ["--proxy-auth", f"{USER}:{PASSWORD}"] * login
    with running(command, folder, Proxy("http", port)) as proxy:
        yield proxy
