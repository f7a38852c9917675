"""The tools of these tests, tested: faults happen, and what is wrong is found."""

import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import PIECE, how_it_ends, receive, reset, send
from support.payload import Checker, PayloadError, Source
from support.ports import LOOPBACK, free_port, listening
from support.processes import Process
from support.programs import plain_environment, run
from support.relay import NoFaultError, Relay
from support.targets import AnswerAfterEnd, Banner, Echo, Hold, Refusing, Reset, Silent, Trickle
from support.timing import in_time, measures_times
from support.waiting import wait_until
from support.web import Certificate, Web
from support.workshop import Workshop

MIB = 1 << 20


def direct(port: int) -> socket.socket:
    """A connection with no proxy in between."""
    return socket.create_connection((LOOPBACK, port), timeout=20)


@pytest.fixture
def relayed(relay: Callable[[int], Relay], echo: Echo) -> Iterator[tuple[Relay, socket.socket]]:
    """A relay in front of an echo, and a connection through it."""
    middle = relay(echo.port)
    with direct(middle.port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        yield middle, sock


class TestPayload:
    def test_any_cut_of_the_payload_passes(self) -> None:
        """Pieces of any size, not those it was made in, are verified."""
        cuts = random.Random(1)
        whole = b"".join(Source(9).blocks(3 * MIB))
        checker, at = Checker(9), 0
        while at < len(whole):
            size = cuts.choice((1, 15, 4095, 4096, 4097, 100_000))
            checker.feed(whole[at : at + size])
            at += size
        assert checker.offset == len(whole) == 3 * MIB

    def test_it_is_a_stream_id_and_a_counter(self) -> None:
        """Each 16 bytes say whose they are and where they belong, far into a stream too."""
        source = Source(5)
        source.offset = 70 << 30
        words = [int.from_bytes(source.read(8), "little") for _ in range(4)]
        assert words == [5, (70 << 30) // 16, 5, (70 << 30) // 16 + 1]

    def test_a_flipped_bit_is_found(self) -> None:
        """One wrong bit in a mebibyte, at any place, is named by its offset."""
        whole = bytearray(Source(1).read(MIB))
        for at in (0, 1, 4095, 4096, 777_777, MIB - 1):
            whole[at] ^= 1
            with pytest.raises(PayloadError, match=f"byte {at} is wrong"):
                Checker(1).feed(bytes(whole))
            whole[at] ^= 1

    def test_bytes_of_another_place_are_found(self) -> None:
        """A page that stands where another belongs is named by both."""
        whole = Source(3).read(3 * 4096)
        with pytest.raises(PayloadError, match=r"stream 3: byte 4\d+ .*stream 3, offset 8192"):
            Checker(3).feed(whole[:4096] + whole[8192:])

    def test_bytes_of_another_stream_are_found(self) -> None:
        """What belongs to another stream is named by its id."""
        with pytest.raises(PayloadError, match=r"stream 4: byte 0 .*stream 5, offset 0"):
            Checker(4).feed(Source(5).read(4096))

    def test_it_is_fast_enough(self) -> None:
        """Making and checking together cost less than what they measure."""
        start = time.process_time()
        checker = Checker(1)
        for block in Source(1).blocks(128 * MIB):
            checker.feed(block)
        assert 128 * MIB / (time.process_time() - start) > 250e6


class TestTargets:
    def test_an_exchange_goes_both_ways_and_ends(self) -> None:
        """Both streams are verified, and both sides see a clean end."""
        with Exchange() as target, direct(target.port) as sock:
            ask_exchange(sock, up=1, down=2, size=3 * MIB)
            sender = threading.Thread(target=lambda: send(sock, 1, MIB))
            sender.start()
            flow = receive(sock, 2, 3 * MIB)
            sender.join()
            sock.shutdown(socket.SHUT_WR)
            assert (flow.size, how_it_ends(sock)) == (3 * MIB, "whole")
            assert target.wait_end(1) == "whole"
            assert (target.received[1], target.sent[2]) == (MIB, 3 * MIB)

    def test_an_exchange_tells_a_reset_from_an_end(self) -> None:
        """A client that resets is not taken for one that is done."""
        with Exchange() as target:
            sock = direct(target.port)
            ask_exchange(sock, up=1, down=2)
            receive(sock, 2, MIB)
            reset(sock)
            assert target.wait_end(1) == "reset"

    def test_an_exchange_finds_wrong_bytes(self) -> None:
        """A wrong byte is raised when the target closes."""
        with pytest.raises(PayloadError), Exchange() as target, direct(target.port) as sock:
            ask_exchange(sock, up=1)
            sock.sendall(Source(2).read(4096))
            sock.shutdown(socket.SHUT_WR)
            target.wait_end(1)

    def test_a_rate_is_kept(self) -> None:
        """A paced stream takes its time, without long gaps."""
        with Exchange() as target, direct(target.port) as sock:
            ask_exchange(sock, down=2, size=2 * MIB, rate=4 * MIB)
            flow = receive(sock, 2, 2 * MIB)
            assert 0.3 < flow.seconds < 1.5 and flow.longest_gap < 0.4

    def test_an_answer_waits_for_the_end(self) -> None:
        """Nothing comes before the half-close, all of it after."""
        with AnswerAfterEnd(7, MIB) as target, direct(target.port) as sock:
            sock.sendall(b"question")
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(20)
            sock.shutdown(socket.SHUT_WR)
            assert (receive(sock, 7).size, target.requests) == (MIB, [b"question"])

    def test_a_reset_is_a_reset(self) -> None:
        """The payload comes, then the connection breaks."""
        with Reset(7, 1000) as target, direct(target.port) as sock:
            assert receive(sock, 7, 1000).size == 1000
            sock.sendall(b"x")
            assert how_it_ends(sock) == "reset"

    def test_banner_and_trickle_speak_first(self) -> None:
        """Both talk without being talked to."""
        with Banner(b"hi\n") as target, direct(target.port) as sock:
            assert sock.recv(10) == b"hi\n"
        with Trickle(b"slowly") as target, direct(target.port) as sock:
            assert socks.read_exactly(sock, 6) == b"slowly"

    def test_hold_holds(self) -> None:
        """What is held neither reads nor ends until it is let go."""
        with Hold() as target, direct(target.port) as sock:
            sock.setblocking(False)
            sent = 0
            with pytest.raises(BlockingIOError):
                while sent < 100 * MIB:
                    sent += sock.send(bytes(PIECE))
            sock.settimeout(20)
            target.let_go()
            assert how_it_ends(sock) == "reset"

    def test_a_silent_port_answers_late(self) -> None:
        """A connect to it hangs until it answers."""
        with Silent() as target:
            done: list[bytes] = []
            thread = threading.Thread(target=lambda: done.append(direct(target.port).recv(4)))
            thread.start()
            thread.join(0.3)
            assert not done
            target.answer()
            thread.join(10)
            assert done == [b"late"]

    def test_a_refusing_port_refuses(self) -> None:
        """A connect fails at once."""
        with Refusing() as target, pytest.raises(ConnectionRefusedError):
            direct(target.port)

    def test_a_free_port_is_not_given_twice(self) -> None:
        """Many are taken and none comes again."""
        ports = [free_port() for _ in range(200)]
        assert len(set(ports)) == 200

    def test_web_servers_serve_files(self, tmp_path: Path) -> None:
        """Over http as over https."""
        (tmp_path / "file").write_bytes(b"content")
        certificate = Certificate(tmp_path)
        with Web(tmp_path) as plain, Web(tmp_path, certificate) as secure:
            http = requests.get(f"http://{LOOPBACK}:{plain.port}/file", timeout=10)
            https = requests.get(
                f"https://localhost:{secure.port}/file", timeout=10, verify=str(certificate.file)
            )
        assert http.content == https.content == b"content"
        assert plain.requests == ["GET /file HTTP/1.1"]


class TestRelay:
    def test_it_carries_both_ways_and_ends(self, relay: Callable[[int], Relay]) -> None:
        """Payload, counts and half-close pass."""
        with AnswerAfterEnd(7, 5 * MIB) as target:
            middle = relay(target.port)
            with direct(middle.port) as sock:
                send(sock, 1, MIB)
                sock.shutdown(socket.SHUT_WR)
                flow = receive(sock, 7)
        assert (flow.size, flow.end) == (5 * MIB, "whole")
        assert (middle.links[0].up.carried, middle.links[0].down.carried) == (MIB, 5 * MIB)
        wait_until(lambda: not middle.alive, 5, "the link's end")

    def test_it_is_fast(self, relay: Callable[[int], Relay]) -> None:
        """It carries a good part of what goes without it, so that it is never what is measured."""
        rates = []
        with Exchange() as target:
            middle = relay(target.port)
            for port in (target.port, middle.port):
                with direct(port) as sock:
                    ask_exchange(sock, down=2, size=200 * MIB)
                    flow = receive(sock, 2)
                assert flow.size == 200 * MIB
                rates.append(flow.rate)
        assert rates[1] > 0.2 * rates[0]

    def test_a_cut_resets_both_ends(self, relay: Callable[[int], Relay]) -> None:
        """Client and server see a reset, and the cut is counted."""
        with Exchange() as target:
            middle = relay(target.port)
            with direct(middle.port) as sock:
                ask_exchange(sock, up=1, down=2)
                receive(sock, 2, MIB)
                link = middle.cut()
                assert how_it_ends(sock) == "reset"
                assert target.wait_end(1) == "reset"
        assert (middle.cuts, link.alive, middle.alive) == (1, False, [])

    def test_a_fault_without_a_link_fails(self, relay: Callable[[int], Relay], echo: Echo) -> None:
        """A test cannot pass because its fault found nothing to break."""
        middle = relay(echo.port)
        for fault in (middle.cut, middle.cut_all, middle.stall, middle.blackhole, middle.corrupt):
            with pytest.raises(NoFaultError):
                fault()
        assert middle.cuts == 0

    def test_all_are_cut(self, relay: Callable[[int], Relay], echo: Echo) -> None:
        """Every link breaks, and their number is told."""
        middle = relay(echo.port)
        socks_ = [direct(middle.port) for _ in range(5)]
        wait_until(lambda: len(middle.alive) == 5, 5, "five links")
        assert middle.cut_all() == 5 == middle.cuts
        for sock in socks_:
            assert how_it_ends(sock) == "reset"
            sock.close()

    def test_it_refuses_and_accepts_again(self, relayed: tuple[Relay, socket.socket]) -> None:
        """Refusing concerns new connections only, and is over when told."""
        middle, sock = relayed
        middle.refuse()
        with pytest.raises(ConnectionRefusedError):
            direct(middle.port)
        sock.sendall(b"still here")
        assert socks.read_exactly(sock, 10) == b"still here"
        middle.accept()
        with direct(middle.port) as again:
            again.sendall(b"back")
            assert again.recv(4) == b"back"

    def test_a_stall_holds_and_a_resume_loses_nothing(
        self, relayed: tuple[Relay, socket.socket]
    ) -> None:
        """Nothing passes while stalled, all of it afterwards."""
        middle, sock = relayed
        link = middle.stall()
        sock.sendall(b"held")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        middle.resume(link)
        sock.settimeout(20)
        assert socks.read_exactly(sock, 4) == b"held"

    def test_a_black_hole_swallows(self, relayed: tuple[Relay, socket.socket]) -> None:
        """What is sent is taken and never arrives."""
        middle, sock = relayed
        link = middle.blackhole()
        sock.sendall(bytes(1000))
        wait_until(lambda: link.up.swallowed == 1000, 5, "the bytes to vanish")
        assert (link.up.carried, link.alive) == (5, True)

    def test_slices_are_single_bytes(self, relayed: tuple[Relay, socket.socket]) -> None:
        """A sliced link carries all, in far more pieces."""
        middle, sock = relayed
        link = middle.slice()
        text = bytes(range(256)) * 4
        sock.sendall(text)
        assert socks.read_exactly(sock, len(text)) == text
        assert link.up.carried == 5 + len(text)

    def test_corruption_is_found(self, relay: Callable[[int], Relay]) -> None:
        """One bit is flipped and the checker sees it."""
        checker = Checker(2)
        with Exchange() as target:
            middle = relay(target.port)
            with direct(middle.port) as sock:
                ask_exchange(sock, down=2)
                checker.feed(sock.recv(PIECE))
                link = middle.corrupt()
                with pytest.raises(PayloadError):
                    while checker.offset < 100 * MIB:
                        checker.feed(sock.recv(PIECE))
        assert link.down.corrupted == 1

    @measures_times
    def test_a_rate_bounds_it(self, relay: Callable[[int], Relay]) -> None:
        """All links together carry what is allowed, not more and not much less."""
        with Exchange() as target:
            middle = relay(target.port)
            middle.rate(4e6)
            with direct(middle.port) as sock:
                ask_exchange(sock, down=2, size=4_000_000)
                start = time.monotonic()
                assert receive(sock, 2).size == 4_000_000
        took = time.monotonic() - start
        assert took > 0.8
        in_time(took < 2, took)

    def test_a_dead_server_resets_the_client(self, relay: Callable[[int], Relay]) -> None:
        """Where nobody listens behind it, the relay does not pretend."""
        with Refusing() as nobody:
            middle = relay(nobody.port)
            with pytest.raises(ConnectionResetError), direct(middle.port) as sock:
                sock.recv(1)
        assert (len(middle.misses), middle.connects) == (1, [])


class TestProcesses:
    def start(self, tmp_path: Path, script: str) -> Process:
        """A Python process instead of a stripetwist."""
        command = [sys.executable, "-uc", script]
        return Process(command, tmp_path, tmp_path, plain_environment(tmp_path))

    def test_lines_are_waited_for(self, tmp_path: Path) -> None:
        """A line is found when it comes, and its groups with it."""
        process = self.start(tmp_path, "import time; time.sleep(.1); print('port 17')")
        assert process.wait_line(r"port (\d+)")[1] == "17"
        assert process.wait() == 0

    def test_a_line_that_never_comes_fails_with_the_log(self, tmp_path: Path) -> None:
        """The end of the process ends the waiting."""
        process = self.start(tmp_path, "print('something else')")
        with pytest.raises(AssertionError, match="something else"):
            process.wait_line("never", timeout=20)

    def test_a_listener_is_noticed(self, tmp_path: Path) -> None:
        """By the kernel's tables: nothing is connected to."""
        port = free_port()
        script = f"import socket; s = socket.create_server(('', {port})); s.accept()"
        process = self.start(tmp_path, script)
        process.wait_listening(port)
        assert process.rss > 5 * MIB and process.fds >= 4 and process.cpu < 5
        assert process.running
        process.kill()
        assert not process.running

    def test_a_process_that_ended_is_not_waited_for(self, tmp_path: Path) -> None:
        """It is said at once what it wrote."""
        process = self.start(tmp_path, "print('cannot')")
        with pytest.raises((AssertionError, FileNotFoundError)):
            process.wait_listening(1, timeout=20)

    def test_term_ends_it(self, tmp_path: Path) -> None:
        """Its exit code is returned."""
        assert self.start(tmp_path, "import time; time.sleep(99)").terminate() == -15

    def test_a_control_socket_is_found_and_asked(self, tmp_path: Path) -> None:
        """The answer is parsed and kept."""
        script = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.bind('c.sock'); s.listen();"
            'c, _ = s.accept(); print(c.recv(99)); c.sendall(b\'{"ok": true, "result": 7}\\n\')'
        )
        process = self.start(tmp_path, script)
        assert process.snapshot() == 7
        assert process.wait_line("status")
        assert process.snapshots == ['{"ok": true, "result": 7}']

    def test_a_log_with_a_traceback_fails_the_test(self, tmp_path: Path) -> None:
        """The workshop raises what it finds when it closes."""
        workshop = Workshop(tmp_path)
        process = workshop._start(Process, [sys.executable, "-uc", "raise ValueError('odd')"])
        process.wait()
        with pytest.raises(AssertionError, match=r"traceback(.|\n)*odd"):
            workshop.close()

    def test_a_log_with_a_secret_fails_the_test(self, tmp_path: Path) -> None:
        """A marked text is found wherever it stands in a log."""
        workshop = Workshop(tmp_path)
        canary = workshop.secret("canary-4711")
        process = workshop._start(Process, [sys.executable, "-uc", f"print('my {canary}!')"])
        process.wait()
        with pytest.raises(AssertionError, match="a secret stands in a log"):
            workshop.close()

    def test_a_quiet_log_passes(self, tmp_path: Path) -> None:
        """What is in order is left alone, and what runs is ended."""
        workshop = Workshop(tmp_path)
        process = workshop._start(Process, [sys.executable, "-uc", "import time; time.sleep(99)"])
        workshop.close()
        assert not process.running


class TestPorts:
    def test_only_own_listeners_are_told(self, echo: Echo) -> None:
        """Another process's listeners are not ours."""
        assert echo.port in listening(os.getpid())
        assert echo.port not in listening(os.getppid())


@pytest.mark.parametrize(
    ("verdict", "runs"),
    [("in_time(True, 0)", 1), ("in_time(False, 'late')", 3), ("assert 'a byte' == 'wrong'", 1)],
)
def test_only_what_is_late_is_measured_again(tmp_path: Path, verdict: str, runs: int) -> None:
    """What is wrong is wrong at the first time."""
    count = tmp_path / "count"
    (tmp_path / "test_it.py").write_text(f"""\
from support.timing import in_time, measures_times

@measures_times
def test_it():
    with open({str(count)!r}, "a") as count:
        count.write(".")
    {verdict}
""")
    (tmp_path / "pytest.ini").touch()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = run(words, tmp_path, PYTHONPATH=str(Path(__file__).parent))
    assert count.read_text() == "." * runs, done.stdout.decode()
    assert (done.returncode == 0) == ("True" in verdict)
