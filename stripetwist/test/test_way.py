"""L{stripetwist.core.way}: paths as users write them."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.way import Way

_NAMES = st.sampled_from(["", "vps.example", "relay1", "192.0.2.7", "2001:db8::7"])
_ADDRESSES = st.sampled_from(["", "10.0.0.2", "2001:db8::2"])
_CARDS = st.sampled_from(["", "wlan0", "enp0s31f6", "br-lan.7"])


class WayTests(SynchronousTestCase):
    """Text, and what it means."""

    def test_what_it_means(self) -> None:
        """Every form."""
        means = {
            "direct": Way(),
            "direct,nic=wlan0": Way(nic="wlan0"),
            "direct,bind=10.0.0.2": Way(bind="10.0.0.2"),
            "direct,bind=10.0.0.2,nic=wlan0": Way(bind="10.0.0.2", nic="wlan0"),
            "tcp://relay1": Way("relay1"),
            "tcp://relay1:443": Way("relay1", 443),
            "tcp://192.0.2.7:443,bind=10.0.0.2": Way("192.0.2.7", 443, bind="10.0.0.2"),
            "tcp://[2001:db8::7]:443": Way("2001:db8::7", 443),
            "tcp://[2001:db8::7],nic=eth0": Way("2001:db8::7", nic="eth0"),
        }
        for text, way in means.items():
            self.assertEqual(Way.parse(text), way, text)

    @given(_NAMES, st.integers(0, 65535), _ADDRESSES, _CARDS)
    def test_there_and_back(self, host: str, port: int, bind: str, nic: str) -> None:
        """What is shown can be written again."""
        way = Way(host, port if host else 0, bind, nic)
        self.assertEqual(Way.parse(str(way)), way)

    def test_nonsense(self) -> None:
        """Each is refused in words that say what to write."""
        says = {
            "": "write direct or tcp://HOST:PORT",
            "relay1:443": "write direct or tcp://HOST:PORT",
            "udp://relay1": "write direct or tcp://HOST:PORT",
            "tcp://": "no host name",
            "tcp://relay1:0": "from 1 to 65535",
            "tcp://relay1:65536": "from 1 to 65535",
            "tcp://relay1:port": "from 1 to 65535",
            "tcp://2001:db8::7:443": "in brackets",
            "tcp://a b": "no host name",
            "direct,": "may follow a comma",
            "direct,color=red": "may follow a comma",
            "direct,nic": "nic= takes",
            "direct,nic=": "nic= takes",
            "direct,nic=a/b": "nic= takes",
            "direct,nic=sixteen-letters-": "nic= takes",
            "direct,bind=here": "bind= takes",
            "direct,bind=10.0.0.1,bind=10.0.0.2": "may stand once",
        }
        for text, words in says.items():
            error = self.assertRaises(ValueError, Way.parse, text)
            self.assertIn(words, str(error), text)
