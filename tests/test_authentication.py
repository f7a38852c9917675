"""Who has no good key gets nothing and learns nothing."""

import base64
import re

import pytest
from support import socks, wire
from support.flows import how_it_ends
from support.processes import Process
from support.targets import Echo
from support.waiting import wait_still, wait_until
from support.workshop import Client, Pair, Server, Workshop


def with_secret(link: str, secret: str) -> str:
    """A link with another secret."""
    return re.sub(r"(//[^:]+:)[^@]+@", lambda match: f"{match[1]}{secret}@", link)


def other_secret() -> str:
    """A well-formed secret that is nobody's, and easy to find in a log."""
    return base64.urlsafe_b64encode(b"canary-of-a-secret-that-is-wrong").decode().rstrip("=")


def lines_about(process: Process, since: int, pattern: str) -> list[str]:
    """The lines that match, once no more of any kind come."""
    process.wait_line(pattern, since=since)
    wait_still(lambda: len(process.lines), 0.3, 5, "the log")
    return [line for line in process.lines[since:] if re.search(pattern, line)]


def refused(client: Client, port: int) -> None:
    """No stream is let through."""
    code, sock = socks.ask(client.proxy, "127.0.0.1", port)
    sock.close()
    assert code != socks.SUCCEEDED


@pytest.fixture(scope="module")
def server(shared_workshop: Workshop) -> Server:
    """A server for the module, with the most talkative log there is."""
    return shared_workshop.server("--allow", "localhost", "--log-level", "debug")


class TestWrongKeys:
    def test_a_wrong_secret(self, workshop: Workshop, server: Server, echo: Echo) -> None:
        """Nothing passes; both logs say so in a line, neither with a secret."""
        since = len(server.lines)
        file = workshop.link_file(with_secret(server.link, other_secret()))
        client = workshop.client(str(file), "--log-level", "debug")
        client.wait_line("does not accept the key")
        refused(client, echo.port)
        key_id = wire.Link.parse(server.link).key_id
        attempts = len(lines_about(server, since, rf"(?i)\bkey\b.*{key_id}|{key_id}.*\bkey\b"))
        assert 1 <= attempts <= 6
        assert echo.accepted == 0
        assert client.subflows() == [] and client.running

    def test_an_unknown_key(self, workshop: Workshop, server: Server) -> None:
        """A name that the server has never heard fares no better."""
        since = len(server.lines)
        link = server.link.replace("//" + wire.Link.parse(server.link).key_id, "//nobody")
        client = workshop.client(str(workshop.link_file(link)))
        client.wait_line("does not accept the key")
        assert lines_about(server, since, r"\bnobody\b")
        assert client.subflows() == []

    def test_a_wrong_pin(self, workshop: Workshop, server: Server) -> None:
        """A server that cannot prove itself hears nothing of the key."""
        since = len(server.lines)
        pin = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
        link = server.link.rpartition("/")[0] + "/" + pin
        client = workshop.client(str(workshop.link_file(link)))
        client.wait_line("(?i)not the server")
        wait_still(lambda: len(server.lines), 0.3, 5, "the log")
        key_id = wire.Link.parse(server.link).key_id
        assert not [line for line in server.lines[since:] if f'"{key_id}"' in line]
        assert client.subflows() == []


class TestByHand:
    def test_a_good_key_is_let_in(self, server: Server) -> None:
        """The control of what follows: the same steps with the right key get an answer."""
        with wire.Peer(server.port) as peer:
            peer.join_in(wire.Link.parse(server.link))
            peer.send(wire.frame(wire.PING, offset=7))
            assert wire.PONG in {kind for kind, _ in _until(peer, wire.PONG)}

    def answers(self, server: Server, key_id: str) -> tuple[int, int, bytes]:
        """What a dialer without the secret hears, from its hello to the close."""
        with wire.Peer(server.port) as peer:
            peer.send(peer.greeting(key_id))
            kind, answer = peer.read_hello()
            peer.send(wire.hello(wire.CONFIRM, wire.tlv(wire.MAC, bytes(32))))
            return kind, len(answer), peer.rest()

    def test_unknown_and_known_keys_look_the_same(self, server: Server) -> None:
        """The same kinds, lengths and last bytes for a name that is known and one that is not."""
        known = self.answers(server, wire.Link.parse(server.link).key_id)
        assert known[0] == wire.HELLO_ACK
        assert known[2][6:7] in (b"", bytes([wire.REJECT]))
        for name in ("nobody", "x" * 32):
            assert self.answers(server, name) == known

    def test_a_replayed_proof_is_refused(self, server: Server) -> None:
        """A hello and its proof, recorded and sent again, open nothing."""
        with wire.Peer(server.port) as peer:
            peer.join_in(wire.Link.parse(server.link))
            recorded = peer.spoken
        with wire.Peer(server.port) as again:
            again.send(recorded[0])
            assert again.read_hello()[0] == wire.HELLO_ACK
            again.send(recorded[1] + wire.frame(wire.PING))
            assert again.rest()[:4] in (b"", wire.MAGIC)

    def test_a_client_key_is_no_agent(self, server: Server) -> None:
        """The role is the key's, whatever the dialer says."""
        with wire.Peer(server.port) as peer:
            peer.send(peer.greeting(wire.Link.parse(server.link).key_id, role=wire.AGENT))
            peer.send(wire.hello(wire.CONFIRM, wire.tlv(wire.MAC, bytes(32))))
            assert not [kind for kind, _ in peer.frames() if kind == wire.PONG]

    def test_an_unknown_session_cannot_be_joined(self, server: Server) -> None:
        """A guessed session id is refused at once."""
        key_id = wire.Link.parse(server.link).key_id
        with wire.Peer(server.port) as peer:
            session = wire.tlv(wire.SESSION, bytes(range(16)))
            peer.send(peer.greeting(key_id, mode=wire.JOIN, more=session))
            assert peer.read_hello()[0] == wire.REJECT

    def test_frames_before_the_proof_get_no_answer(self, server: Server) -> None:
        """A ping instead of the proof is not answered."""
        with wire.Peer(server.port) as peer:
            peer.send(peer.greeting(wire.Link.parse(server.link).key_id))
            peer.read_hello()
            peer.send(wire.frame(wire.PING) * 20)
            assert peer.rest()[:4] in (b"", wire.MAGIC)


def _until(peer: wire.Peer, last: int) -> list[tuple[int, bytes]]:
    found = []
    for kind, payload in peer.frames():
        found.append((kind, payload))
        if kind == last:
            break
    return found


class TestRevoked:
    def test_a_revoked_key_ends_within_five_seconds(self, workshop: Workshop, echo: Echo) -> None:
        """Its streams break, new ones are refused, and another key's go on."""
        server = workshop.server("--allow", "localhost")
        second = add_key(workshop, server, "second")
        pair = Pair(server, workshop.client(server))
        other = workshop.client(str(workshop.link_file(second)))
        mine = socks.connect(pair.client.proxy, echo.port)
        theirs = socks.connect(other.proxy, echo.port)
        since = len(server.lines)
        name = wire.Link.parse(server.link).key_id
        done = workshop.command("key", "revoke", name, "--state", str(server.state))
        assert done.returncode == 0, done.stderr
        mine.settimeout(6)
        assert how_it_ends(mine) == "reset"
        assert 1 <= len(lines_about(server, since, "(?i)revoked")) <= 2
        came = echo.accepted
        refused(pair.client, echo.port)
        assert echo.accepted == came
        theirs.sendall(b"still")
        assert socks.read_exactly(theirs, 5) == b"still"
        mine.close()
        theirs.close()

    def test_a_key_added_while_it_runs_is_let_in(self, workshop: Workshop, echo: Echo) -> None:
        """At once: whoever is refused tries again half a minute later."""
        server = workshop.server("--allow", "localhost")
        link = add_key(workshop, server, "late")
        client = workshop.client(str(workshop.link_file(link)))
        client.wait_subflows(6)
        with socks.connect(client.proxy, echo.port) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"


def add_key(workshop: Workshop, server: Server, name: str) -> str:
    """Add a client's key to a running server; the key's link."""
    state = ("--state", str(server.state))
    done = workshop.command("key", "add", name, *state)
    assert done.returncode == 0, done.stderr
    shown = workshop.command("key", "show", name, *state).stdout.decode()
    link = re.search(r"stripetwist://\S+", shown)
    assert link, shown
    assert lets_in(link[0])
    return link[0]


def lets_in(link: str) -> bool:
    """Whether the server of that link knows its key now."""
    parts = wire.Link.parse(link)
    with wire.Peer(parts.port) as peer:
        try:
            peer.join_in(parts)
        except AssertionError:
            return False
        peer.send(wire.frame(wire.PING))
        return wire.PONG in {kind for kind, _ in _until(peer, wire.PONG)}


class TestCanary:
    def test_no_secret_leaves_by_log_or_snapshot(self, workshop: Workshop, echo: Echo) -> None:
        """At the most talkative level, with wrong logins and a link in the environment."""
        server = workshop.server("--allow", "localhost", "--log-level", "debug")
        right, wrong = "canary-right", workshop.secret("canary-wrong")
        users = workshop.users("ann", right)
        assert right not in users.read_text()
        link = workshop.link_file(server.link).read_text().strip()
        client = workshop.client(
            str(workshop.link_file(link)), "--users", str(users), "--log-level", "debug"
        )
        client.wait_subflows(6)
        with socks.connect(client.proxy, echo.port, login=("ann", right)) as sock:
            sock.sendall(b"hello")
            assert socks.read_exactly(sock, 5) == b"hello"
        for login in (("ann", wrong), (wrong, wrong), ("bob", right)):
            with pytest.raises(socks.ProxyClosedError):
                socks.ask(client.proxy, "127.0.0.1", echo.port, login=login)
        bad = socks.dial(client.proxy)
        bad.sendall(b"\x05\x01\x02\x09" + wrong.encode() + b"\r\n")
        bad.close()
        for process in (server, client):
            process.snapshot()
        wait_until(lambda: len(client.lines) > 3, 5, "a log worth searching")

    def test_files_with_secrets_are_the_owners(self, server: Server) -> None:
        """Whatever the umask, nobody else can read them."""
        files = [path for path in (server.state / "server").rglob("*") if path.is_file()]
        assert {"keys.toml", "client.link", "agent.link"} <= {path.name for path in files}
        assert [path.name for path in files if path.stat().st_mode & 0o077] == []
        assert (server.state / "server").stat().st_mode & 0o077 == 0
