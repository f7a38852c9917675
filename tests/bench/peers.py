"""What is measured beside each other: how each is started in a lab, and what it needs."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.flows import IPPROTO_MPTCP, Address
from bench.links import Lab
from bench.places import BenchError

PROXY_PORT = 1080
SERVER_PORT = 8443
UDP_PORT = 7001
NEAR_UDP_PORT = 7002
COMMAND = [sys.executable, "-c", "from stripetwist.cli import main; main()"]
_PATIENCE = 20.0

Process = subprocess.Popen[str]


@dataclass
class Running:
    """
    A peer that has been started.

    @ivar proxy: the SOCKS5 port to use at the near end; C{None}: connect to the target.
    @ivar udp: where datagrams for the target go; C{None}: to the target.
    @ivar processes: its processes, C{client} and C{server}, as far as it has these.
    """

    proxy: Address | None = None
    udp: Address | None = None
    mptcp: bool = False
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        """Of its processes."""
        return [process.pid for process in self.processes.values()]


@dataclass(frozen=True)
class Peer:
    """
    Something to measure.

    @ivar start: starts it, given itself, the lab and a folder for its files.
    @ivar programs: what has to be installed, each with where it comes from.
    @ivar subflows: over how many connections it stripes, where it does; a number, or auto.
    @ivar udp_copies: how often it sends each datagram; 0 if it is not to carry any.
    @ivar by_proxies: whether its second and third path lead over a SOCKS and an HTTP proxy.
    @ivar prewarm: how much filler it sends, where it does.
    """

    name: str
    start: Callable[["Peer", Lab, Path], Running]
    programs: tuple[tuple[str, str], ...] = ()
    subflows: str = ""
    udp_copies: int = 0
    by_proxies: bool = False
    prewarm: str = "auto"

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.name} x{self.subflows}" if self.subflows else self.name

    def missing(self) -> str:
        """What it lacks here, as a sentence; nothing if it can be measured."""
        for program, source in self.programs:
            if not find(program):
                return f"{self.name} is left out: there is no {program} ({source})"
        if self.name == "mptcp" and not _has_mptcp():
            return "mptcp is left out: this kernel, or its ip, has no MPTCP"
        return ""


def find(program: str) -> str:
    """Where a program is, or nothing; beside this Python first."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program) or ""


def _has_mptcp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return False
    command = ["ip", "mptcp", "endpoint", "show"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _start_direct(peer: Peer, lab: Lab, folder: Path) -> Running:
    """The target itself, over the first link."""
    return Running()


def _start_mptcp(peer: Peer, lab: Lab, folder: Path) -> Running:
    """The target itself; the kernel adds a subflow on each other link."""
    for place in (lab.near, lab.far):
        place.shell("ip mptcp limits set subflow 8 add_addr_accepted 8")
    for number in range(1, len(lab.lines)):
        lab.near.shell(f"ip mptcp endpoint add {lab.near_address(number)} dev near{number} subflow")
    return Running(mptcp=True)


def _start_microsocks(peer: Peer, lab: Lab, folder: Path) -> Running:
    """A proxy at the far end, dialed over the first link."""
    address = (lab.far_address(), PROXY_PORT)
    command = [find("microsocks"), "-i", address[0], "-p", str(address[1])]
    return _far_proxy(lab, folder, address, command)


def _start_pproxy(peer: Peer, lab: Lab, folder: Path) -> Running:
    """A proxy in Python at the far end, dialed over the first link."""
    address = (lab.far_address(), PROXY_PORT)
    command = [find("pproxy"), "-l", f"socks5://{address[0]}:{address[1]}"]
    return _far_proxy(lab, folder, address, command)


def _far_proxy(lab: Lab, folder: Path, address: Address, command: list[str]) -> Running:
    server = _launch(lab, "server", command, folder)
    return Running(address, processes={"server": server})


_SSHD = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PidFile none
UseDNS no
"""


def _start_ssh(peer: Peer, lab: Lab, folder: Path) -> Running:
    """One connection, over the first link, with the quickest of its ciphers."""
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    settings = folder / "sshd_config"
    settings.write_text(_SSHD.format(folder=folder))
    host, port = lab.far_address(), str(SERVER_PORT)
    command = [find("sshd"), "-D", "-e", "-f", str(settings), "-p", port]
    server = _launch(lab, "server", [*command, "-o", f"ListenAddress={host}"], folder)
    _wait_listening(server, SERVER_PORT, folder / "server.log")
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"]
    command = [find("ssh"), "-F", "none", "-N", "-D", f"127.0.0.1:{PROXY_PORT}", "-p", port]
    command += ["-c", "aes128-gcm@openssh.com", "-i", str(folder / "user")]
    command += [word for option in options for word in ("-o", option)]
    client = _launch(lab, "client", [*command, f"root@{host}"], folder)
    return Running(("127.0.0.1", PROXY_PORT), processes={"client": client, "server": server})


def _start_stripetwist(peer: Peer, lab: Lab, folder: Path) -> Running:
    """All links, the subflows spread over them."""
    server = _start_our_server(lab, folder, "--allow", "all")
    words = ["--socks", str(PROXY_PORT), "--subflows", peer.subflows]
    words += ["--prewarm", peer.prewarm]
    for number in range(len(lab.lines) if len(lab.lines) > 1 else 0):
        way = f"tcp://{lab.far_address(number)}:{SERVER_PORT}"
        if peer.by_proxies:
            way = _start_way(lab, folder, number)
        words += ["--path", f"{way},bind={lab.near_address(number)}"]
    udp = None
    if peer.udp_copies:
        udp = ("127.0.0.1", NEAR_UDP_PORT)
        words += ["--udp", f"{NEAR_UDP_PORT}={lab.far_address()}:{UDP_PORT}"]
        words += ["--udp-copies", str(peer.udp_copies)]
    client = _launch(lab, "client", [*_ours(lab, folder, "client"), *words], folder)
    proxy = ("127.0.0.1", PROXY_PORT)
    return Running(proxy, udp, processes={"client": client, "server": server})


def _start_way(lab: Lab, folder: Path, number: int) -> str:
    """The first three links each lead to the server in a way of their own; as a path."""
    host, port = lab.far_address(number), PROXY_PORT
    if number == 0:
        return "direct"
    if number == 1:
        name, command = "socks", [find("microsocks"), "-i", host, "-p", str(port)]
    else:
        settings = folder / "tinyproxy.conf"
        settings.write_text(f"Port {port}\nListen {host}\nTimeout 600\nMaxClients 100\n")
        name, command = "http", [find("tinyproxy"), "-d", "-c", str(settings)]
    with open(folder / f"{name}.log", "w") as log:
        proxy = lab.far.start(command, log, folder)
    _wait_listening(proxy, port, folder / f"{name}.log")
    return f"{name}://{host}:{port}"


def _start_tunnel(peer: Peer, lab: Lab, folder: Path) -> Running:
    """One connection on each link, dropped datagrams where all are busy."""
    command = [sys.executable, "-m", "bench.tunnel"]
    target = f"{lab.far_address()}:{UDP_PORT}"
    server = _launch(lab, "server", [*command, "far", str(SERVER_PORT), target], folder)
    _wait_listening(server, SERVER_PORT, folder / "server.log")
    ways = [
        f"{lab.near_address(number)}={lab.far_address(number)}:{SERVER_PORT}"
        for number in range(len(lab.lines))
    ]
    client = _launch(lab, "client", [*command, "near", str(NEAR_UDP_PORT), *ways], folder)
    udp = ("127.0.0.1", NEAR_UDP_PORT)
    return Running(udp=udp, processes={"client": client, "server": server})


def _start_agent(peer: Peer, lab: Lab, folder: Path) -> Running:
    """At the near end, for a proxy port at the far end; a byte goes over the link and back."""
    proxy = (lab.far_address(), PROXY_PORT)
    words = ["--socks", f"{proxy[0]}:{proxy[1]}", "--from", f"{lab.near_address()}/32"]
    server = _start_our_server(lab, folder, *words, "--exit", "any")
    words = ["--allow", "all", "--subflows", peer.subflows]
    agent = _launch(lab, "client", [*_ours(lab, folder, "agent"), *words], folder)
    return Running(proxy, processes={"client": agent, "server": server})


def _start_our_server(lab: Lab, folder: Path, *words: str) -> Process:
    where = ["--listen", str(SERVER_PORT), "--advertise", f"{lab.far_address()}:{SERVER_PORT}"]
    server = _launch(lab, "server", [*_ours(lab, folder, "server"), *where, *words], folder)
    _wait_listening(server, SERVER_PORT, folder / "server.log")
    return server


def _ours(lab: Lab, folder: Path, role: str) -> list[str]:
    """The beginning of a command line."""
    command = [*COMMAND, role, "--congestion", lab.near.congestion, "--state", str(folder / role)]
    link = folder / "server" / "server" / f"{role}.link"
    return command if role == "server" else [*command, "--server", str(link)]


def _launch(lab: Lab, role: str, command: list[str], folder: Path) -> Process:
    place = lab.near if role == "client" else lab.far
    with open(folder / f"{role}.log", "w") as log:
        return place.start(command, log, folder)


def _wait_listening(process: Process, port: int, log: Path) -> None:
    """Until something in the process's namespace listens there."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        tables = [Path(f"/proc/{process.pid}/net/{name}") for name in ("tcp", "tcp6")]
        rows = [row.split() for t in tables if t.exists() for row in t.read_text().splitlines()]
        if any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows):
            return
        time.sleep(0.05)
    raise BenchError(f"nothing listens on port {port}: {log.read_text()[-500:]}")


def _start_nothing(peer: Peer, lab: Lab, folder: Path) -> Running:
    """iperf3 is a load as well as a peer; the stage runs it."""
    return Running()


_PROXIES = (("microsocks", "apt install microsocks"), ("tinyproxy", "apt install tinyproxy-bin"))

PEERS = {
    peer.name: peer
    for peer in (
        Peer("direct", _start_direct),
        Peer("plain", _start_direct, subflows="1"),
        Peer("iperf3", _start_nothing, (("iperf3", "apt install iperf3"),), subflows="1"),
        Peer("mptcp", _start_mptcp),
        Peer("microsocks", _start_microsocks, (("microsocks", "apt install microsocks"),)),
        Peer("pproxy", _start_pproxy, (("pproxy", "pip install pproxy"),)),
        Peer(
            "ssh",
            _start_ssh,
            (
                ("ssh", "apt install openssh-client"),
                ("ssh-keygen", "apt install openssh-client"),
                ("sshd", "apt install openssh-server"),
            ),
        ),
        Peer("stripetwist", _start_stripetwist, subflows="1"),
        Peer("agent", _start_agent, subflows="1"),
        Peer("stripetwist --udp", _start_stripetwist, subflows="1", udp_copies=1),
        Peer("stripetwist --udp-copies 2", _start_stripetwist, subflows="1", udp_copies=2),
        Peer("stripetwist by proxies", _start_stripetwist, _PROXIES, "1", by_proxies=True),
        Peer(
            "stripetwist --udp by proxies",
            _start_stripetwist,
            _PROXIES,
            subflows="1",
            udp_copies=1,
            by_proxies=True,
        ),
        Peer("tunnel", _start_tunnel),
    )
}


def choose(names: list[str], subflows: list[str]) -> list[Peer]:
    """These peers, those that stripe once for each number of connections; auto is ours alone."""
    if not all(count == "auto" or count in map(str, range(1, 65)) for count in subflows):
        said = ",".join(subflows)
        raise BenchError(f"--subflows {said}: give numbers from 1 to 64, or auto, as in 6,auto")
    chosen = []
    for name in names:
        if name not in PEERS:
            raise BenchError(f"there is no peer {name}; there are {', '.join(PEERS)}")
        peer = PEERS[name]
        counts = subflows if peer.subflows else [""]
        if name in ("iperf3", "plain"):
            counts = [count for count in counts if count != "auto"]
        chosen += [replace(peer, subflows=count) for count in counts]
    return chosen
