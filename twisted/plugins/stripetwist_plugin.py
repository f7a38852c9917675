"""The twistd commands of stripetwist; strings only, since every twistd run reads this file."""

from twisted.application.service import ServiceMaker

stripeClient = ServiceMaker(
    "stripetwist client",
    "stripetwist.client_tap",
    "A local SOCKS5 port whose streams are striped over many connections to a server.",
    "stripe-client",
)

stripeServer = ServiceMaker(
    "stripetwist server",
    "stripetwist.server_tap",
    "The reachable end: accepts striped sessions, reaches the targets they ask for.",
    "stripe-server",
)

stripeAgent = ServiceMaker(
    "stripetwist agent",
    "stripetwist.agent_tap",
    "An exit that dials a server and reaches targets from where it stands.",
    "stripe-agent",
)
