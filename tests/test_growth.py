"""A number of connections that follows the line, with real ones."""

import threading

import pytest
from support import socks
from support.exchange import Exchange, ask_exchange
from support.flows import receive
from support.narrow import narrow
from support.waiting import wait_until
from support.workshop import Workshop

pytestmark = pytest.mark.demanding

SIZE = 60_000_000


def test_more_where_each_is_limited(workshop: Workshop) -> None:
    """A download grows to more than the first six, both ends agree, and each byte is right."""
    server = workshop.server("--allow", "localhost")
    with narrow(server.port, 400e3, 0.02) as port, Exchange() as target:
        client = workshop.client(server, through=port, subflows="auto")
        client.wait_subflows(6)
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, down=2, size=SIZE)
            flows = []
            reader = threading.Thread(target=lambda: flows.append(receive(sock, 2)))
            reader.start()
            wait_until(lambda: len(client.subflows()) >= 12, 30, "twelve subflows")
            wait_until(lambda: len(server.subflows()) >= 12, 5, "twelve there, too")
            assert "12 connections from now on, 6 before" in client.log
            reader.join(60)
        assert [(flow.size, flow.end) for flow in flows] == [(SIZE, "whole")]
        carried = [one["rx"]["first"] for one in client.subflows()]
        assert len([size for size in carried if size > 500_000]) >= 10, carried


def test_a_server_that_takes_fewer(workshop: Workshop) -> None:
    """What was tried for nothing leaves no trace but a line in the log."""
    server = workshop.server("--allow", "localhost", "--max-subflows", "7")
    with narrow(server.port, 400e3, 0.02) as port, Exchange() as target:
        client = workshop.client(server, through=port, subflows="auto")
        client.wait_subflows(6)
        with socks.connect(client.proxy, target.port) as sock:
            ask_exchange(sock, down=2, size=SIZE // 2)
            assert receive(sock, 2).size == SIZE // 2
        assert "connections from now on" in client.log
        assert "wants fewer" not in client.log
        assert client.snapshot()["last_error"] == ""
        assert len(server.subflows()) in (6, 7)
