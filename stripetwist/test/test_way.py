"""L{stripetwist.core.way}: paths as users write them."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.way import PathRole, Via, Way

_NAMES = st.sampled_from(["vps.example", "relay1", "192.0.2.7", "2001:db8::7"])
_ADDRESSES = st.sampled_from(["", "10.0.0.2", "2001:db8::2"])
_CARDS = st.sampled_from(["", "wlan0", "enp0s31f6", "br-lan.7"])
_DIRECT = st.just(("", 0, Via.DIRECT))
_RELAYS = st.tuples(_NAMES, st.integers(0, 65535), st.just(Via.RELAY))
_PROXIES = st.tuples(_NAMES, st.integers(1, 65535), st.sampled_from([Via.SOCKS, Via.HTTP]))


class WayTests(SynchronousTestCase):
    """Text, and what it means."""

    def test_what_it_means(self) -> None:
        """Every form."""
        relay, socks, http = Via.RELAY, Via.SOCKS, Via.HTTP
        means = {
            "direct": Way(),
            "direct,nic=wlan0": Way(nic="wlan0"),
            "direct,bind=10.0.0.2": Way(bind="10.0.0.2"),
            "direct,bind=10.0.0.2,nic=wlan0": Way(bind="10.0.0.2", nic="wlan0"),
            "direct,role=backup": Way(role=PathRole.BACKUP),
            "direct,role=overflow,subflows=2": Way(role=PathRole.OVERFLOW, subflows=2),
            "direct,rate=20M": Way(rate=2_500_000),
            "direct,rate=1.5M": Way(rate=187_500),
            "direct,rate=500K": Way(rate=62_500),
            "tcp://relay1": Way("relay1", via=relay),
            "tcp://relay1:443": Way("relay1", 443, via=relay),
            "tcp://192.0.2.7:443,bind=10.0.0.2": Way("192.0.2.7", 443, "10.0.0.2", via=relay),
            "tcp://[2001:db8::7]:443": Way("2001:db8::7", 443, via=relay),
            "tcp://[2001:db8::7],nic=eth0": Way("2001:db8::7", nic="eth0", via=relay),
            "socks://proxy": Way("proxy", 1080, via=socks),
            "socks://me:pass@proxy": Way("proxy", 1080, via=socks, user=b"me", password=b"pass"),
            "http://proxy": Way("proxy", 8080, via=http),
            "http://m%40e:a%3Ab%2C%2540@[::1]:3128,role=backup": Way(
                "::1", 3128, "", "", http, b"m@e", b"a:b,%40", PathRole.BACKUP
            ),
        }
        for text, way in means.items():
            self.assertEqual(Way.parse(text), way, text)

    @given(
        st.one_of(_DIRECT, _RELAYS, _PROXIES),
        _ADDRESSES,
        _CARDS,
        st.sampled_from(PathRole),
        st.integers(0, 64),
        st.one_of(st.just(0), st.integers(1_000, 10**10)),
    )
    def test_there_and_back(
        self,
        place: tuple[str, int, Via],
        bind: str,
        nic: str,
        role: PathRole,
        subflows: int,
        rate: int,
    ) -> None:
        """What is shown can be written again."""
        host, port, via = place
        rate = rate // 125 * 125
        way = Way(host, port, bind, nic, via, role=role, subflows=subflows, rate=rate)
        self.assertEqual(Way.parse(str(way)), way)

    def test_no_password_is_shown(self) -> None:
        """Neither where paths are shown to people, nor in a traceback."""
        way = Way.parse("socks://someone:secret@proxy:99")
        self.assertEqual(str(way), "socks://proxy:99")
        self.assertNotIn("secret", repr(way))

    def test_nonsense(self) -> None:
        """Each is refused in words that say what to write."""
        says = {
            "": "write direct, tcp://HOST:PORT",
            "relay1:443": "write direct, tcp://HOST:PORT",
            "udp://relay1": "write direct, tcp://HOST:PORT",
            "direct://relay1": "write direct, tcp://HOST:PORT",
            "tcp://": "no host name",
            "tcp://relay1:0": "from 1 to 65535",
            "tcp://relay1:65536": "from 1 to 65535",
            "tcp://relay1:port": "from 1 to 65535",
            "tcp://2001:db8::7:443": "in brackets",
            "tcp://a b": "no host name",
            "tcp://me:secret@relay1": "asks for no password",
            "socks://me@proxy": "USER:PASSWORD",
            "socks://:secret@proxy": "USER:PASSWORD",
            "socks://me:@proxy": "USER:PASSWORD",
            "socks://a%3Ab:secret@proxy": "USER:PASSWORD",
            "socks://me:1,secret@proxy": "written %2C",
            "socks://me:1,role=secret@proxy": "written %2C",
            "socks://me:1,secret": "may follow a comma",
            "http://me:" + 256 * "x" + "@proxy": "USER:PASSWORD",
            "direct,": "may follow a comma",
            "direct,color=red": "may follow a comma",
            "direct,nic": "nic= takes",
            "direct,nic=": "nic= takes",
            "direct,nic=a/b": "nic= takes",
            "direct,nic=sixteen-letters-": "nic= takes",
            "direct,bind=here": "bind= takes",
            "direct,bind=10.0.0.1,bind=10.0.0.2": "may stand once",
            "direct,role=spare": "role= takes",
            "direct,subflows=0": "subflows= takes",
            "direct,subflows=65": "subflows= takes",
            "direct,rate=20": "rate= takes",
            "direct,rate=1K": "rate= takes",
        }
        for text, words in says.items():
            error = self.assertRaises(ValueError, Way.parse, text)
            self.assertIn(words, str(error), text)
            self.assertNotIn("secret", str(error))
