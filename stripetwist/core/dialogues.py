"""The languages of a proxy port, told apart by a client's first byte."""

from stripetwist.core import socks4
from stripetwist.core.http_proxy import HttpDialogue
from stripetwist.core.socks4 import Socks4Dialogue
from stripetwist.core.socks5 import Dialogue

AnyDialogue = Dialogue | Socks4Dialogue | HttpDialogue

LANGUAGES = "SOCKS5, SOCKS4, HTTP"

_TLS = 0x16


def dialogue_for(first: int, login: bool, udp: bool = False) -> AnyDialogue:
    """
    The dialogue that a client begins by this byte; one in SOCKS5 where it is none of them.

    @param login: whether clients must say who they are.
    @param udp: whether they may ask for datagrams, where the language knows these.
    """
    if first == socks4.VERSION:
        return Socks4Dialogue(login)
    if ord("A") <= first <= ord("Z"):
        return HttpDialogue(login)
    return Dialogue(login, udp)


def unserved(first: int) -> str:
    """What to say of a client that speaks none of them."""
    if first == _TLS:
        return "it speaks TLS, and the way to this port is plain; write http:// or socks5h:// there"
    return f"it speaks none of {LANGUAGES}; write socks5h:// there"
