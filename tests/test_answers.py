"""What a proxy's client is told is what the target did: no sooner, and nothing else."""

import socket
import threading
import time

import pytest
from support import socks
from support.exchange import EndFirst, Exchange, ask_exchange
from support.flows import how_it_ends, receive, reset, send
from support.ports import LOOPBACK
from support.targets import AnswerAfterEnd, Banner, Echo, Hold, Refusing, Reset, Silent, Trickle
from support.timing import in_time, measures_times
from support.workshop import Pair

MIB = 1 << 20
CONNECT_TIMEOUT = 10.0


def asked(shared: Pair, host: str, port: int) -> tuple[int, float]:
    """The reply's code, and how long it took."""
    start = time.monotonic()
    code, sock = socks.ask(shared.client.proxy, host, port)
    sock.close()
    return code, time.monotonic() - start


class TestReplies:
    def test_a_refused_target(self, shared: Pair) -> None:
        """Reply 5 in under a second."""
        with Refusing() as nobody:
            code, took = asked(shared, LOOPBACK, nobody.port)
        assert code == socks.REFUSED and took < 1

    @pytest.mark.parametrize("name", ["no-such-host.invalid", "a." * 40 + "invalid"])
    def test_an_unresolvable_name(self, shared: Pair, name: str) -> None:
        """Reply 4, by the time a lookup has."""
        code, took = asked(shared, name, 80)
        assert code == socks.HOST_UNREACHABLE and took < 7

    def test_a_silent_target(self, shared: Pair) -> None:
        """Reply 6 at the time of a connect, not before."""
        with Silent() as nobody:
            code, took = asked(shared, LOOPBACK, nobody.port)
        assert code == socks.TIMED_OUT
        assert CONNECT_TIMEOUT - 1 < took < CONNECT_TIMEOUT + 3

    def test_no_success_before_the_target_answers(self, shared: Pair) -> None:
        """Nothing is said while the target is silent; when it answers, success and data."""
        with Silent() as target, socks.dial(shared.client.proxy) as sock:
            socks.greet(sock)
            sock.sendall(socks.request(LOOPBACK, target.port))
            sock.settimeout(1.5)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            target.answer()
            sock.settimeout(10)
            assert socks.read_reply(sock) == socks.SUCCEEDED
            assert socks.read_exactly(sock, 4) == b"late"

    def test_a_silent_target_delays_nobody(self, shared: Pair, echo: Echo) -> None:
        """While fifty connects hang, another is answered at once."""
        with Silent() as nobody:
            waiting = [socks.dial(shared.client.proxy) for _ in range(50)]
            for sock in waiting:
                socks.greet(sock)
                sock.sendall(socks.request(LOOPBACK, nobody.port))
            code, took = asked(shared, LOOPBACK, echo.port)
            for sock in waiting:
                sock.close()
        assert code == socks.SUCCEEDED and took < 1

    @pytest.mark.parametrize("name", ["127.1", "2130706433", "0x7f.1", "a..b", "b\x00.example"])
    def test_what_is_no_name(self, shared: Pair, name: str) -> None:
        """Reply 1 at once, with no lookup."""
        code, took = asked(shared, name, 80)
        assert code == socks.GENERAL and took < 1

    def test_own_ports_are_no_targets(self, shared: Pair) -> None:
        """The server's own port is refused though its address is allowed."""
        code, _ = asked(shared, LOOPBACK, shared.server.port)
        assert code == socks.NOT_ALLOWED

    def test_a_request_cut_short_is_taken_back(self, shared: Pair) -> None:
        """A client that leaves while its connect hangs leaves no stream."""
        with Silent() as nobody:
            sock = socks.dial(shared.client.proxy)
            socks.greet(sock)
            sock.sendall(socks.request(LOOPBACK, nobody.port))
            shared.client.wait_streams(1, 5)
            reset(sock)
            shared.client.wait_streams(0, 5)
            shared.server.wait_streams(0, 5)


class TestEnds:
    def test_the_client_ends_first(self, shared: Pair) -> None:
        """A request, its end, and a long answer that comes whole."""
        size = 10 * MIB
        with AnswerAfterEnd(7, size) as target:
            with socks.connect(shared.client.proxy, target.port) as sock:
                sock.sendall(b"question")
                sock.shutdown(socket.SHUT_WR)
                flow = receive(sock, 7)
            assert (flow.size, flow.end, target.requests) == (size, "whole", [b"question"])

    def test_the_target_ends_first(self, shared: Pair) -> None:
        """Its end comes through, and what is sent afterwards still arrives whole."""
        size = 10 * MIB
        with EndFirst() as target:
            with socks.connect(shared.client.proxy, target.port) as sock:
                assert sock.recv(1) == b""
                ask_exchange(sock, up=1)
                assert send(sock, 1, size) == size
                sock.shutdown(socket.SHUT_WR)
                assert target.wait_end(1) == "whole"
            assert target.received[1] == size

    def test_an_end_without_a_byte(self, shared: Pair) -> None:
        """A target that accepts and leaves: success, then the end."""
        with Hold() as target:
            sock = socks.connect(shared.client.proxy, target.port)
            target.let_go()
            assert sock.recv(1) == b""
            sock.close()

    def test_a_target_that_resets(self, shared: Pair) -> None:
        """What came before arrives; then a reset, never an end."""
        with (
            Reset(7, MIB) as target,
            socks.connect(shared.client.proxy, target.port) as sock,
        ):
            assert receive(sock, 7, MIB).size == MIB
            sock.sendall(b"x")
            assert how_it_ends(sock) == "reset"

    def test_two_hundred_resets_are_never_taken_for_an_end(self, shared: Pair) -> None:
        """Whichever moment the reset is noticed at."""
        with Reset(7, 1000) as target:
            for _ in range(200):
                with socks.connect(shared.client.proxy, target.port) as sock:
                    assert receive(sock, 7, 1000).size == 1000
                    sock.sendall(b"x")
                    assert how_it_ends(sock) == "reset"

    def test_a_client_that_resets(self, shared: Pair) -> None:
        """The target sees a reset within a second."""
        with Exchange() as target:
            sock = socks.connect(shared.client.proxy, target.port)
            ask_exchange(sock, up=1, down=2)
            assert receive(sock, 2, MIB).size == MIB
            reset(sock)
            assert target.wait_end(1, timeout=1) == "reset"

    def test_bytes_sent_before_the_answer(self, shared: Pair) -> None:
        """Three bytes and an end that did not wait for the reply reach the target."""
        with AnswerAfterEnd(7, 1000) as target:
            with socks.dial(shared.client.proxy) as sock:
                socks.greet(sock)
                sock.sendall(socks.request(LOOPBACK, target.port) + b"abc")
                sock.shutdown(socket.SHUT_WR)
                assert socks.read_reply(sock) == socks.SUCCEEDED
                assert receive(sock, 7).size == 1000
            assert target.requests == [b"abc"]

    def test_a_banner_comes_unasked(self, shared: Pair) -> None:
        """A server that speaks first is heard first."""
        with (
            Banner(b"220 ready\r\n") as target,
            socks.connect(shared.client.proxy, target.port) as sock,
        ):
            assert socks.read_exactly(sock, 11) == b"220 ready\r\n"

    def test_single_bytes_come_as_they_are_sent(self, shared: Pair) -> None:
        """A trickle is passed on, not saved up."""
        with (
            Trickle(b"one by one", pause=0.1) as target,
            socks.connect(shared.client.proxy, target.port) as sock,
        ):
            arrivals = []
            while sock.recv(100):
                arrivals.append(time.monotonic())
        assert len(arrivals) >= 5 and arrivals[-1] - arrivals[0] > 0.5

    @measures_times
    def test_a_thousand_round_trips(self, shared: Pair, echo: Echo) -> None:
        """A byte there, a byte back, without a stall."""
        with socks.connect(shared.client.proxy, echo.port) as sock:
            start = time.monotonic()
            for number in range(1000):
                byte = bytes([number % 256])
                sock.sendall(byte)
                assert sock.recv(1) == byte
        took = time.monotonic() - start
        in_time(took < 10, took)

    def test_many_ends_at_once(self, shared: Pair) -> None:
        """Both sides close at the same moment, again and again, and nothing stays."""
        with Exchange() as target:

            def one(number: int) -> None:
                with socks.connect(shared.client.proxy, target.port) as sock:
                    ask_exchange(sock, down=number, size=1000)
                    sock.shutdown(socket.SHUT_WR)
                    assert receive(sock, number).size == 1000

            threads = [threading.Thread(target=one, args=(n,)) for n in range(1, 101)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            # Who has all that the target sent may be ahead of the target's own end.
            for number in range(1, 101):
                target.wait_end(number, 30)
            assert len([end for end in target.ends.values() if end == "whole"]) == 101
        shared.client.wait_streams(0, 5)
        shared.server.wait_streams(0, 5)
