"""
A name server of twisted.names, as a process: C{python names.py ADDRESS PORT}.

C{www.example.test} has an address, C{long.example.test} an answer that fills a large datagram.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESS = "192.0.2.80"
LONG = 3000


def command(address: str, port: int) -> list[str]:
    """What starts it; it writes a line once it answers."""
    return [sys.executable, str(Path(__file__)), address, str(port)]


@contextmanager
def name_server(address: str, port: int) -> Iterator[None]:
    """One that runs, until it is no longer wanted."""
    with subprocess.Popen(command(address, port), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def _zone() -> Any:
    from twisted.names import authority, dns

    class Zone(authority.FileAuthority):
        """The one zone, which comes from no file."""

        def loadFile(self, filename: str) -> None:
            """See L{authority.FileAuthority}."""
            soa = dns.Record_SOA("ns.example.test", "who.example.test", 1, 60, 60, 60, 60)
            self.soa = (b"example.test", soa)
            self.records = {
                b"example.test": [soa],
                b"www.example.test": [dns.Record_A(ADDRESS, 60)],
                b"long.example.test": [dns.Record_TXT(*[b"x" * 250] * (LONG // 250), ttl=60)],
            }

    return Zone("")


def main(address: str, port: str) -> None:
    """Answer until killed."""
    from twisted.internet import reactor
    from twisted.names import dns, server

    factory = server.DNSServerFactory(authorities=[_zone()])
    protocol = dns.DNSDatagramProtocol(factory)
    running: Any = reactor
    running.listenUDP(int(port), protocol, address, maxPacketSize=65535)
    print("ready", flush=True)
    running.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
