"""
The README's recipes, run as they are written there.

Your machine, the server, and a relay or proxy are network namespaces with the addresses that
the README gives them; a fourth one routes between them.
"""

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.machines import Machine
from support.places import need_namespaces
from support.processes import Process
from support.programs import program
from support.readme import README, block_after
from support.timing import in_time, measures_times

MIB = 1 << 20
CARDS = {"direct": "192.168.1.10", "direct,nic=wwan0": "100.64.7.20"}
HOSTS = "127.0.0.1 localhost\n198.51.100.10 relay.example proxy.example\n"


def recipe(text: str) -> str:
    """The commands that follow that line."""
    return block_after(text, README.read_text()).replace("\\\n", "").rstrip()


class Ground:
    """
    Four machines.

    @ivar near: yours, with two cards.
    @ivar far: the server.
    @ivar relay: a third one, that both can reach.
    @ivar middle: what routes between them.
    @ivar ours: the processes of stripetwist.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        made = []
        self.ours: list[Process] = []
        for name in ("middle", "relay", "far", "near"):
            made.append(Machine(folder, name))
            stack.callback(made[-1].close)
        self.middle, self.relay, self.far, self.near = made
        self.near.cable("eth0", self.middle, "near0", "192.168.1.10")
        self.near.cable("wwan0", self.middle, "near1", "100.64.7.20")
        self.far.cable("eth0", self.middle, "far0", "203.0.113.7")
        self.relay.cable("eth0", self.middle, "relay0", "198.51.100.10")
        self.middle.run("echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.near.run("ip route add default via 192.168.1.1")
        self.near.run("ip route add default via 100.64.7.1 dev wwan0 metric 100")
        self.far.run("ip route add default via 203.0.113.1")
        self.relay.run("ip route add default via 198.51.100.1")
        self.near.file("/etc/hosts", HOSTS)

    def server(self, command: str) -> Process:
        """The server, and its link on the near machine, with the address that stands for one."""
        server = self.far.start(command)
        self.ours.append(server)
        server.wait_line(r"Next, on your own machine")
        link = self.far.home / ".local/state/stripetwist/server/client.link"
        mine = self.near.home / "client.link"
        mine.touch(0o600)
        mine.write_text(link.read_text().replace("@HOST", "@203.0.113.7"))
        return server

    def client(self, command: str, *paths: str) -> Process:
        """The client, once it has subflows on those paths."""
        client = self.near.start(command)
        self.ours.append(client)
        for path in paths:
            client.wait_line(rf"path +{re.escape(path)}, [1-9] of . subflows?")
        return client

    def hole(self, address: str, but: str = "0.0.0.0") -> None:
        """Have all vanish on its way that comes from there or goes there, but for one end."""
        self.middle.run(
            "nft add table ip hole\n"
            "nft add chain ip hole forward '{ type filter hook forward priority 0; }'\n"
            f"nft add rule ip hole forward ip saddr {address} ip daddr != {but} counter drop\n"
            f"nft add rule ip hole forward ip daddr {address} ip saddr != {but} counter drop\n"
        )

    def mend(self) -> int:
        """Let it through again; how many packets had vanished."""
        counts = re.findall(r"packets (\d+)", self.middle.run("nft list table ip hole"))
        self.middle.run("nft delete table ip hole")
        return sum(map(int, counts))


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """The machines, where there can be any."""
    need_namespaces()
    program("nft", "nftables")
    with ExitStack() as stack:
        made = Ground(tmp_path, stack)
        yield made
    assert not [line for one in made.ours for line in one.noise()]


def through_the_tunnel(ground: Ground) -> None:
    """Pings and a download between the inner addresses go on while each path dies in turn."""
    data = os.urandom(32 * MIB)
    (ground.far.home / "file").write_bytes(data)
    ground.near.run("timeout 30 sh -c 'until ping -c 1 -W 1 10.9.0.1; do sleep 0.2; done'")
    ground.far.start("python3 -m http.server --bind 10.9.0.1 8000")
    ping = ground.near.start("ping -n -D -i 0.05 -c 160 10.9.0.1")
    again = "--retry 9 --retry-connrefused --retry-delay 1"
    url = "http://10.9.0.1:8000/file"
    curl = ground.near.start(f"curl -sS {again} --limit-rate 4M -o copy {url}")
    vanished = []
    for address in CARDS.values():
        time.sleep(1)
        ground.hole(address)
        time.sleep(2)
        vanished.append(ground.mend())
    assert curl.wait(60) == 0, curl.log
    copy = (ground.near.home / "copy").read_bytes()
    assert hashlib.sha256(copy).digest() == hashlib.sha256(data).digest()
    ping.wait(30)
    times = [float(one) for one in re.findall(r"\[([\d.]+)\] \d+ bytes", ping.log)]
    gap = max(b - a for a, b in itertools.pairwise(times))
    print(*re.findall(r"\d+ packets.*|rtt.*", ping.log), f"longest gap {gap:.2f} s", sep="; ")
    print("packets that vanished with each path:", *vanished)
    assert max(vanished) > 10
    assert len(times) > 120
    assert gap < 1.5


def test_wireguard(ground: Ground) -> None:
    """All traffic of a machine through it, but for the session's own."""
    program("wg-quick", "wireguard-tools")
    program("wireguard-go")
    ours, theirs = (ground.near.run("wg genkey").strip() for _ in range(2))
    our_name, their_name = (ground.near.run(f"echo {key} | wg pubkey") for key in (ours, theirs))
    ground.far.file(
        "/run/wg0.conf",
        f"[Interface]\nPrivateKey = {theirs}\nAddress = 10.9.0.1/24\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {our_name}\nAllowedIPs = 10.9.0.2/32\n",
    )
    ground.far.run("wg-quick up /run/wg0.conf")
    settings = recipe("``wg-quick`` takes that of loopback")
    settings = settings.replace("YOUR-KEY", ours).replace("ITS-KEY", their_name)
    ground.near.file("/run/wg0.conf", settings)
    ground.server(recipe("with ``ListenPort = 51820``"))
    ground.client(recipe("with a path for each card"), *CARDS)
    ground.near.run("wg-quick up /run/wg0.conf")
    assert "dev wg0" in ground.near.run("ip route get 8.8.8.8")
    through_the_tunnel(ground)


def carries(ground: Ground, client: Process, path: str) -> None:
    """All subflows are on that path, and a page of the server's own machine comes over it."""
    (ground.far.home / "page").write_text("content")
    ground.far.start("python3 -m http.server --bind 127.0.0.1 8000")
    again = "--retry 9 --retry-all-errors --retry-delay 1"
    url = "http://localhost:8000/page"
    page = ground.near.run(f"curl -sS {again} -x socks5h://127.0.0.1:1080 {url}")
    assert page == "content"
    assert {one["path"] for one in client.subflows()} == {path}


ON_YOURS = "and on your machine::"
PROXIED = "http://proxy.example:3128"
RELAYED = "tcp://relay.example:8443"


def test_a_relay_by_nft(ground: Ground) -> None:
    """The relay's kernel passes everything on."""
    ground.relay.run(recipe("by the kernel, as root"))
    ground.server("twistd -n --pidfile= stripe-server --allow localhost")
    carries(ground, ground.client(recipe(ON_YOURS), RELAYED), RELAYED)


def test_a_relay_by_socat(ground: Ground) -> None:
    """A program there does."""
    program("socat")
    ground.relay.start(recipe("or by a program::"))
    ground.server("twistd -n --pidfile= stripe-server --allow localhost")
    carries(ground, ground.client(recipe(ON_YOURS), RELAYED), RELAYED)


def test_a_relay_by_xinetd(ground: Ground) -> None:
    """The daemon there that has it in its settings does."""
    daemon = program("xinetd")
    ground.relay.file("/run/stripetwist", recipe("or by ``xinetd``"))
    ground.relay.start(f"{daemon} -dontfork -f /run/stripetwist")
    ground.server("twistd -n --pidfile= stripe-server --allow localhost")
    carries(ground, ground.client(recipe(ON_YOURS), RELAYED), RELAYED)


def test_a_proxy_with_login(ground: Ground) -> None:
    """The only way out is a proxy that wants a password and leads to port 443 only."""
    daemon = program("tinyproxy", "tinyproxy-bin")
    ground.relay.file(
        "/run/tinyproxy.conf",
        "Port 3128\nTimeout 600\nConnectPort 443\nBasicAuth alice correct-horse\n",
    )
    ground.relay.start(f"{daemon} -d -c /run/tinyproxy.conf")
    ground.hole("192.168.1.10", but="198.51.100.10")
    ground.server(recipe("that port as root or with") + " --allow localhost")
    settings = ground.near.home / "client.toml"
    settings.touch(0o600)
    settings.write_text(recipe("of mode 600 keeps the password"))
    client = ground.client(recipe("and is named to the client"), PROXIED)
    carries(ground, client, PROXIED)
    assert "horse" not in client.log + "".join(client.snapshots)


def test_vtun(ground: Ground) -> None:
    """Over UDP, with either end of it bound where the other looks for it."""
    daemon = program("vtund", "vtun")
    for machine, text in ((ground.far, "reads it::"), (ground.near, "and that of your machine")):
        (machine.home / "vtund.conf").write_text(recipe(text) + "\n")
    ground.far.start(f"{daemon} -n -s -f vtund.conf")
    server = ground.server(recipe("in the table of your key"))
    keys = ground.far.home / ".local/state/stripetwist/server/keys.toml"
    keys.write_text(
        re.sub(r"(\[keys.client-1\]\n)", r'\1udp_bind = ["127.0.0.1:5002"]\n', keys.read_text())
    )
    assert server.ask(command="reload")["ok"]
    paths = " ".join(f"--path {path}" for path in CARDS)
    ground.client(f"{recipe('where both ends of the tunnel are')} {paths}", *CARDS)
    ground.near.start(f"{daemon} -n -f vtund.conf tunnel 127.0.0.1")
    through_the_tunnel(ground)


def with_sshd(ground: Ground) -> None:
    """An OpenSSH server on the far machine, and a user on the near one whom it lets in."""
    daemon, key = program("sshd", "openssh-server"), f"{ground.near.home}/key"
    ground.near.run(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
    ground.near.file(
        "/etc/ssh/ssh_config",
        f"IdentityFile {key}\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n",
    )
    ground.far.file("/etc/hosts", "127.0.0.1 localhost host.example.com\n")
    ground.far.run("mkdir /run/sshd; ssh-keygen -q -N '' -f host_key")
    # The user's home is that of the machine, not the one in /etc/passwd.
    (ground.far.home / "sshd_config").write_text(
        f"HostKey {ground.far.home}/host_key\nAuthorizedKeysFile {key}.pub\nStrictModes no\n"
        "UsePAM no\nPermitRootLogin prohibit-password\nPidFile none\n"
        f'ForceCommand cd {ground.far.home} && eval "$SSH_ORIGINAL_COMMAND"\n'
    )
    ground.far.start(f"{daemon} -D -e -f {ground.far.home}/sshd_config")


def test_rsync(ground: Ground) -> None:
    """A folder, through the proxy port and through a forwarded one."""
    program("rsync")
    program("nc", "netcat-openbsd")
    with_sshd(ground)
    data = os.urandom(3 * MIB)
    (ground.near.home / "folder").mkdir()
    (ground.near.home / "folder" / "file").write_bytes(data)
    ground.server("twistd -n --pidfile= stripe-server --allow localhost:22")
    command = "twistd -n --pidfile= stripe-client --server client.link"
    ground.client(f"{command} --forward 2222=host.example.com:22 --path direct", "direct")
    for text in ("through the proxy port of a client", "for a target that stays the same"):
        ground.near.run(recipe(text))
        assert (ground.far.home / "copy" / "file").read_bytes() == data
        ground.far.run("rm -r copy")


@measures_times
def test_iperf3(ground: Ground) -> None:
    """Datagrams, and the connection that controls them."""
    program("iperf3")
    ground.far.start("iperf3 -s")
    ground.server("twistd -n --pidfile= stripe-server --allow localhost:5201")
    command = recipe("With ``iperf3 -s`` beside the server")
    ground.client(f"{command} --path direct", "direct")
    said = ground.near.run(f"{recipe('for ten seconds of 20 Mbit/s')} -t 3")
    print(said)
    found = re.search(r"(\d+)/(\d+) \([\d.e-]+%\) +receiver", said)
    assert found is not None
    assert int(found[2]) > 5000
    in_time(int(found[1]) < 0.02 * int(found[2]), said)
