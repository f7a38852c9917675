"""C{twistd stripe-server}: the reachable end, which accepts sessions and reaches targets."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from twisted.application.service import IService
from twisted.logger import globalLogBeginner

from stripetwist import __version__
from stripetwist.core.address import Address
from stripetwist.core.dialogues import LANGUAGES
from stripetwist.core.link import UNKNOWN_HOST, Link
from stripetwist.core.target import in_brackets
from stripetwist.net.advertise import interface_of, local_address
from stripetwist.net.certificates import (
    KEPT_FILE,
    CertificateFiles,
    ServerCertificate,
    kept_certificate,
)
from stripetwist.net.files import StartupError
from stripetwist.net.ground import Ground
from stripetwist.net.instance import Instance, ground_for
from stripetwist.net.keystore import KeyStore
from stripetwist.net.links import NOBODY, holder_of, write_own_links
from stripetwist.net.logs import limit_level
from stripetwist.net.server import Server
from stripetwist.net.state import StateDirectory
from stripetwist.net.tls import ServerCreator
from stripetwist.net.userfile import UsersError
from stripetwist.options import ServerOptions
from stripetwist.server_settings import ServerSettings
from stripetwist.values import DIRECT, Forward, ProxyPort
from stripetwist.ways_in import WaysIn, open_status, status_lines

KEYS_FILE = "keys.toml"


class Options(ServerOptions):
    """See L{ServerOptions}."""


def makeService(options: Options, reactor: Any = None) -> IService:
    """
    A door for sessions, the ways out behind it, its own ports, and a control socket.

    @raise SystemExit: it cannot start; one sentence says why.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: TID251 - a tap's privilege
    try:
        return _make(options.settings, reactor)
    except (StartupError, UsersError) as error:
        raise SystemExit(str(error)) from None


def _make(settings: ServerSettings, reactor: Any) -> IService:
    limit_level(globalLogBeginner, settings.log_level)
    state = StateDirectory(settings.state, "server", os.environ)
    state.open()
    fresh = not state.has(KEPT_FILE)
    keys = KeyStore(settings.keys or state.path / KEYS_FILE, create=settings.keys is None)
    files, certificate = _certificate(settings, state)
    ground = ground_for(reactor, settings.limits(), settings.congestion)
    server = _server(reactor, ground, settings, keys, certificate, files)
    ports = [server.listen(address) for address in settings.listen]
    link = _any_link(settings, ports, certificate)
    write_own_links(state.path, keys.keys(), link)

    instance = Instance(reactor, ground, state, "server", server.snapshot)
    # The other half is for sessions: strangers at these ports are not to keep them out.
    most = instance.connections // 2
    ways_in = WaysIn(reactor, ground, settings, server.witness, most)
    ways_in.open(server.listen_locally)
    watched = open_status(reactor, ground, settings, instance, server.complaint)
    for port in watched:
        server.exit.guard.note_own(port)

    def reload() -> list[str]:
        return [*server.reload(), *ways_in.reload()]

    server.setServiceParent(instance)
    instance.serve_control({"reload": lambda _: reload(), "drain": server.drain})
    instance.watch_signals(server.leave, server.is_idle, reload)
    has_key = holder_of(state.path, "client") not in ("", NOBODY)
    status = status_lines(settings, watched)
    instance.show(_greeting(settings, state, link, fresh, has_key, status))
    return instance


def _server(
    reactor: Any,
    ground: Ground,
    settings: ServerSettings,
    keys: KeyStore,
    certificate: ServerCertificate | None,
    files: CertificateFiles | None,
) -> Server:
    creator = None if certificate is None else ServerCreator(certificate)
    server = Server(reactor, ground, keys, settings.policy(), creator)
    server.certificates = files
    server.witness.targets = settings.log_targets
    if settings.fallback == DIRECT:
        server.router.fallback = server.direct
    return server


def _certificate(
    settings: ServerSettings, state: StateDirectory
) -> tuple[CertificateFiles | None, ServerCertificate | None]:
    """The user's certificate, or the one made at the first start, or none."""
    if settings.plaintext:
        return None, None
    if settings.tls_cert is not None and settings.tls_key is not None:
        files = CertificateFiles(settings.tls_cert, settings.tls_key)
        return files, files.current
    return None, kept_certificate(state)


def _any_link(
    settings: ServerSettings, ports: list[Any], certificate: ServerCertificate | None
) -> Link:
    """A link without a key: where the server is, and how to know it."""
    host, port = _place(settings, ports)
    by_authority = settings.tls_cert is not None
    pins = () if certificate is None or by_authority else (certificate.pin,)
    return Link(NOBODY, bytes(32), host, port, pins, by_authority, certificate is None)


def _place(settings: ServerSettings, ports: list[Any]) -> tuple[str, int]:
    """Where links say the server is."""
    first = next(host for port in ports if hasattr(host := port.getHost(), "port"))
    port, bound = first.port, first.host
    if settings.advertise is not None:
        return settings.advertise.host, settings.advertise.port or port
    if bound not in ("", "::", "0.0.0.0"):
        return bound, port
    return local_address() or UNKNOWN_HOST, port


def _greeting(
    settings: ServerSettings,
    state: StateDirectory,
    link: Link,
    fresh: bool,
    has_key: bool = True,
    status: Sequence[str] = (),
) -> list[str]:
    """What the user reads first: what it does, and what to do next."""
    where = ", ".join(_listens(address) for address in settings.listen)
    reaches = (
        "public addresses only; not private networks, not this machine, not port 25  (--allow)"
        if settings.allow == ("internet",)
        else ", ".join(settings.allow) or "nothing"
    )
    if settings.deny:
        reaches += f"; not {', '.join(settings.deny)}  (--deny)"
    folder = _from_home(state.path)
    shown_folder = folder if folder == str(state.path) else f"~/{folder}"
    return [
        f"stripetwist {'.'.join(__version__.split('.')[:2])} server",
        f"  listens     {where}, {_guarded(settings, link, fresh)}",
        f"  reaches     {reaches}",
        *_ways_in(settings),
        *status,
        f"  state       {shown_folder}      back this directory up: it is the identity",
        f"  address     {_address(settings, link)}",
        *_what_next(folder, link, has_key),
    ]


def _guarded(settings: ServerSettings, link: Link, fresh: bool) -> str:
    """What keeps others from reading along."""
    if settings.plaintext:
        return "no TLS"
    if link.ca:
        return "TLS (your certificate)"
    return f"TLS (key {'made now, kept' if fresh else 'kept from before'})"


def _what_next(folder: str, link: Link, has_key: bool) -> list[str]:
    """How the link comes to a client, and is used there."""
    if not has_key:
        return ["client.link opens nothing; stripetwist key add NAME makes a key and its link."]
    # scp knows an IPv6 address by its brackets, and a shell takes those for a pattern.
    return [
        "Next, on your own machine (the link is a password):",
        f"  scp {quote(f'you@{in_brackets(link.host)}:{folder}/client.link')} .",
        "  twistd -n --pidfile= stripe-client --server client.link",
    ]


def _from_home(folder: Path) -> str:
    """A folder as seen from the user's home, if it is there."""
    return str(folder).removeprefix(f"{Path.home()}/")


def _ways_in(settings: ServerSettings) -> list[str]:
    """Its own ports, and where what comes in there leaves."""
    lines = []
    for port in settings.socks:
        lines.append(f"  proxy       {port.listen}, {LANGUAGES}, {_leaves(port, settings)}")
    for one in settings.forwards:
        where = f"{one.listen} leads to {one.target}"
        lines.append(f"  forward     {where}, {_leaves(one, settings)}")
    return lines


def _leaves(port: ProxyPort | Forward, settings: ServerSettings) -> str:
    selector = port.exit or settings.exit
    if selector.is_server:
        return "leaves here"
    otherwise = "else here" if settings.fallback == DIRECT else "else is refused"
    return f"leaves at exit {selector}, {otherwise}"


def _listens(address: Address) -> str:
    if address.raw or address.host:
        return str(address)
    every = "IPv4 and IPv6" if socket.has_dualstack_ipv6() else "IPv4"
    return f"port {address.port} on every address, {every}"


def _address(settings: ServerSettings, link: Link) -> str:
    if settings.advertise is not None:
        port = f" port {link.port}" if settings.advertise.port else ""
        return f"{link.host}{port} (--advertise)"
    if link.host == UNKNOWN_HOST:
        return (
            "unknown: write its name over HOST in your copy of the link, or start with --advertise"
        )
    card = interface_of(link.host)
    origin = f" (from {card})" if card else ""
    return f"{link.host}{origin}                --advertise NAME if others dial another"
