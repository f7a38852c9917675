"""What the commands can be told: flags, variables, files, and what is wrong with them."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import stripetwist
from stripetwist.agent_settings import AgentSettings
from stripetwist.client_settings import ClientSettings
from stripetwist.core.address import Address
from stripetwist.core.config import MIB
from stripetwist.core.link import Link
from stripetwist.core.way import Way
from stripetwist.net.files import StartupError
from stripetwist.net.listening import server_endpoint
from stripetwist.net.memory import usable_memory
from stripetwist.options import AgentOptions, ClientOptions, ServerOptions, help_text
from stripetwist.server_settings import ServerSettings
from stripetwist.sources import options_of, show
from stripetwist.values import LOOPBACK, Advertised, Forward, advertised, size

LINK = Link("laptop", bytes(range(32)), "vps.example", 8443, (bytes(32),))
OTHER = replace(LINK, host="vps2.example")


def client(*words: str, **environ: str) -> ClientSettings:
    """What the client's words and variables amount to."""
    options = ClientOptions(environ)
    options.parseOptions(list(words))
    return options.settings


def server(*words: str, **environ: str) -> ServerSettings:
    """What the server's words and variables amount to."""
    options = ServerOptions(environ)
    options.parseOptions(list(words))
    return options.settings


def agent(*words: str, **environ: str) -> AgentSettings:
    """What the agent's words and variables amount to."""
    options = AgentOptions(environ)
    options.parseOptions(list(words))
    return options.settings


def client_forwards(*texts: str) -> tuple[Forward, ...]:
    """The forwarded ports of a client."""
    return client("--server", LOOPBACK, *(f"--forward={text}" for text in texts)).forwards


class OptionsTestCase(SynchronousTestCase):
    """Expects sentences."""

    def refused(self, read: Any, *words: str, **environ: str) -> str:
        """The one sentence that these words and variables earn."""
        error = self.assertRaises(SystemExit, read, *words, **environ)
        sentence = error.code
        assert isinstance(sentence, str)
        self.assertNotIn("\n", sentence)
        return sentence

    def file(self, content: str | bytes, name: str = "x.toml") -> str:
        """The path of a file with that content."""
        path = Path(self.mktemp())
        path.mkdir()
        data = content.encode() if isinstance(content, str) else content
        (path / name).write_bytes(data)
        (path / name).chmod(0o600)
        return str(path / name)


class FlagTests(OptionsTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """Without options, everything is as the documents say."""
        found = client("--server", "loopback:")
        self.assertEqual(found.servers, (LOOPBACK,))
        self.assertEqual(str(found.socks), "127.0.0.1:1080")
        self.assertEqual((found.subflows, found.sources, found.optimistic), (None, (), False))
        self.assertEqual((found.log_level, found.log_targets), ("info", False))
        self.assertEqual(server().listen, (Address("", 8443),))
        self.assertEqual((server().allow, server().deny), (("internet",), ()))
        self.assertEqual((server().max_subflows, server().plaintext), (64, False))

    def test_values_are_read(self) -> None:
        """Each as its own kind of thing, with and without an equals sign."""
        found = client(
            "--server=loopback:", "--socks", ":1080", "--from=10.0.0.0/8", "--from", "::1",
            "--subflows", "8", "--optimistic", "--max-memory=64M", "--session-timeout", "90.5",
            "--log-level", "debug", "--log-targets",
        )  # fmt: skip
        self.assertEqual(found.socks, Address("", 1080))
        self.assertEqual(found.sources, (ip_network("10.0.0.0/8"), ip_network("::1")))
        self.assertEqual((found.subflows, found.max_memory), (8, 64 * MIB))
        self.assertEqual((found.session_timeout, found.log_level), (90.5, "debug"))
        self.assertTrue(found.optimistic and found.log_targets)

    def test_what_is_reached_is_no_warning(self) -> None:
        """A log of worse things only does not have it, and so is refused beside it."""
        agents = ("--server", LINK.format(), "--allow", "lan")
        for read, words in ((client, ("--server", LOOPBACK)), (server, ()), (agent, agents)):
            sentence = self.refused(read, *words, "--log-targets", "--log-level", "warn")
            self.assertEqual(
                sentence, "--log-targets is of no use with --log-level warn; leave one out"
            )

    def test_ways_in_and_out(self) -> None:
        """A client leaves at its server, the server's own ports at any agent."""
        self.assertEqual(
            (str(client("--server", LOOPBACK).exit), client_forwards()), ("server", ())
        )
        self.assertEqual((server().socks, server().forwards), ((), ()))
        self.assertEqual((str(server().exit), server().fallback), ("any", "refuse"))
        found = server(
            "--socks", "1080", "--exit", "site=berlin", "--fallback", "direct",
            "--forward", "2222=Host.example:22", "--forward", ":8080=[::1]:80",
            "--forward", "unix:/run/x=10.0.0.1:5432",
        )  # fmt: skip
        self.assertEqual([str(one) for one in found.socks], ["127.0.0.1:1080"])
        self.assertEqual(str(found.exit), "site=berlin")
        self.assertEqual(found.fallback, "direct")
        shown = ["127.0.0.1:2222=host.example:22", ":8080=[::1]:80", "unix:/run/x=10.0.0.1:5432"]
        self.assertEqual([str(one) for one in found.forwards], shown)
        self.assertEqual(client_forwards(*shown), found.forwards)

    def test_bad_ways_in_and_out(self) -> None:
        """Each with what to write."""
        for text in ("2222", "2222=host", "host:22", "=host:22", "2222=host:0", "0=a:1",
                     "2222=a b:1", "2222=::1:22", "2222=host:70000", "2222=host:x"):  # fmt: skip
            sentence = self.refused(server, "--forward", text)
            self.assertIn(f"--forward {text}: ", sentence)
        self.assertIn("LABEL=VALUE", self.refused(server, "--exit", "Attic"))
        self.assertIn("write refuse or direct", self.refused(server, "--fallback", "always"))
        self.assertIn("an option of stripe-server", self.refused(client, "--fallback", "direct"))

    def test_a_repeated_option_replaces_the_default(self) -> None:
        """Nothing is allowed beside what is listed."""
        found = server("--allow", "lan", "--allow", "1.2.3.4:22", "--deny", "*.example.org")
        self.assertEqual(found.allow, ("lan", "1.2.3.4:22"))
        self.assertEqual(found.deny, ("*.example.org",))

    def test_values_are_there_by_name_too(self) -> None:
        """As Twisted has it."""
        options = ServerOptions({})
        options.parseOptions(["--max-subflows", "3"])
        self.assertEqual(options["max-subflows"], 3)
        self.assertIs(options["tls-cert"], None)

    def test_limits_follow_the_options(self) -> None:
        """The others stay as they are."""
        limits = client(
            "--server", "loopback:", "--subflows", "9", "--max-memory", "1G",
            "--session-timeout", "30",
        ).limits()  # fmt: skip
        self.assertEqual((limits.subflows, limits.max_memory), (9, 1024 * MIB))
        self.assertEqual((limits.session_timeout, limits.max_subflows), (30.0, 64))
        self.assertEqual(server("--max-subflows", "5").limits().max_subflows, 5)
        self.assertTrue(0 < server().limits().max_memory <= 256 * MIB)

    def test_an_unknown_option_comes_with_a_guess(self) -> None:
        """Or with the way to the list."""
        self.assertEqual(
            self.refused(client, "--sokcs", "1"), "unknown option --sokcs; did you mean --socks?"
        )
        self.assertIn("--help lists", self.refused(client, "--frobnicate"))
        self.assertIn("did you mean --help?", self.refused(client, "-h"))
        self.assertIn("unknown option --", self.refused(client, "--"))

    def test_abbreviations_are_refused(self) -> None:
        """They would change their meaning with the next option."""
        for word in ("--serv", "--serv=x", "--opt"):
            self.assertIn("did you mean --", self.refused(client, word, "loopback:"))

    def test_an_option_of_another_command_is_named_as_such(self) -> None:
        """Rather than as a typing error."""
        sentence = self.refused(client, "--listen", "1")
        self.assertEqual(sentence, "--listen is an option of stripe-server, not of stripe-client")

    def test_a_misplaced_option_of_twistd_is_named(self) -> None:
        """With where it belongs."""
        for word in ("-n", "--nodaemon", "--pidfile="):
            sentence = self.refused(client, word)
            self.assertTrue(sentence.endswith(": twistd -n --pidfile= stripe-client ..."))
            self.assertIn("belongs before stripe-client", sentence)
        self.assertIn("twistd -n --pidfile= -y stripe-server", self.refused(server, "-y", "x.tac"))
        self.assertIn("--logfile belongs before", self.refused(server, "--logfile=x"))

    def test_values_must_be_there_and_flags_have_none(self) -> None:
        """A forgotten value does not swallow the next option."""
        self.assertIn("--users FILE", self.refused(client, "--users"))
        self.assertIn("--users FILE", self.refused(client, "--users", "--from", "::1"))
        self.assertIn("takes no value", self.refused(client, "--optimistic=no"))
        self.assertIn("twice", self.refused(client, "--socks", "1", "--socks", "2"))
        self.assertIn("client.link stands alone", self.refused(client, "client.link"))
        self.assertIn("it is empty", self.refused(client, "--users="))

    def test_bad_numbers_name_their_option(self) -> None:
        """Negative, no number, huge: J02."""
        for value in ("-1", "nan", "inf", "1e9", "0x10", "", "1_000", "9" * 400, "٣"):
            for name in ("max-memory", "session-timeout", "subflows"):
                sentence = self.refused(client, "--server", "loopback:", f"--{name}={value}")
                self.assertIn(f"--{name}", sentence[:80])
        self.assertIn("64", self.refused(server, "--max-subflows", "65"))
        self.assertIn("did you mean warn?", self.refused(client, "--log-level", "warning"))

    def test_filler_says_all_that_may_be_written(self) -> None:
        """Words for on and off are guessed by many, and sizes that are too small."""
        right = "write auto, off, or a size from 256K, such as 2M"
        for word in ("on", "OFF", "0", "1", "100K"):
            self.assertIn(right, self.refused(client, "--prewarm", word))
        self.assertEqual(server("--prewarm", "256K").limits().prewarm, 256 * 1024)

    def test_bad_networks_say_what_was_meant(self) -> None:
        """Bits beyond the prefix are a mistake in one or the other."""
        self.assertIn("write 10.0.0.0/8", self.refused(client, "--from", "10.1.0.0/8"))
        self.assertIn("such as 192.168.0.0/16", self.refused(client, "--from", "home"))

    def test_help_and_version_stand_alone(self) -> None:
        """They end at once, whatever else is wrong."""
        for options in (ClientOptions({}), ServerOptions({}), AgentOptions({})):
            for word, words in (("--help", "Examples:"), ("--version", stripetwist.__version__)):
                out = io.StringIO()
                with patch("sys.stdout", out):
                    error = self.assertRaises(SystemExit, options.parseOptions, ["--x", word])
                self.assertEqual(error.code, 0)
                self.assertIn(words, out.getvalue())

    def test_closed_streams_go_nowhere(self) -> None:
        """Printing is harmless then: J14."""
        with patch("sys.stdout", None), patch("sys.stdin", None):
            server()
            self.assertEqual((sys.stdout.name, sys.stdin.name), (os.devnull, os.devnull))
            sys.stdout.close()
            sys.stdin.close()

    def test_help_fits_a_terminal_and_has_every_option(self) -> None:
        """With three examples before them."""
        for options in (ClientOptions({}), ServerOptions({}), AgentOptions({})):
            text = help_text(options)
            self.assertLess(max(map(len, text.splitlines())), 81)
            self.assertLess(text.index("Examples:"), text.index("Options:"))
            self.assertEqual(text.count(f"twistd -n --pidfile= {options.role}"), 4)
            for name in options_of(options.kind):
                self.assertIn(f"  --{name}", text)
            self.assertEqual(options.getUsage(), text)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(alphabet="-=:./0aeorstv", max_size=12), max_size=4))
    def test_any_words_are_settings_or_a_sentence(self, words: list[str]) -> None:
        """Nothing else comes out."""
        with patch("sys.stdout", io.StringIO()):
            try:
                found = server(*words)
            except SystemExit as error:
                self.assertTrue(error.code)
            else:
                self.assertIsInstance(found, ServerSettings)


class ServerOptionTests(OptionsTestCase):
    """What C{--server} takes."""

    def test_a_link_is_read(self) -> None:
        """It is all that the client needs."""
        self.assertEqual(client("--server", LINK.format()).links(), [LINK])

    def test_a_file_is_named_by_its_whole_path(self) -> None:
        """A daemon may leave the directory; what it holds is read when asked for."""
        path = self.file(LINK.format() + "\n", "client.link")
        found = client("--server", path)
        self.assertEqual(found.servers, (Path(path).absolute(),))
        self.assertEqual(found.links(), [LINK])

    def test_several(self) -> None:
        """In their order; in the environment a comma belongs to a link."""
        two = replace(OTHER, pins=(bytes(32), b"1" * 32))
        words = ("--server", two.format(), "--server", LINK.format())
        self.assertEqual(client(*words).links(), [two, LINK])
        given = f"{two.format()} {LINK.format()}"
        self.assertEqual(client(STRIPETWIST_SERVER=given).links(), [two, LINK])
        path = self.file(f'server = ["{LINK.format()}", "loopback:"]\n')
        Path(path).chmod(0o600)
        self.assertIn("give it alone", self.refused(client, "--config", path))
        relay = ("--path", "direct", "--path", "tcp://relay.example")
        sentence = self.refused(client, *words, *relay)
        self.assertIn("--path tcp://relay.example leads to one server, and 2 are", sentence)
        self.assertEqual(self.refused(agent, "--allow", "lan", *words, *relay), sentence)
        client(*words[:2], *relay)

    def test_paths_that_make_no_sense_together(self) -> None:
        """Each stands once, and together they have no more subflows than a session may."""
        here = ("--server", LINK.format())

        def words(*paths: str) -> list[str]:
            return [*here, *(word for path in paths for word in ("--path", path))]

        relay = "tcp://relay.example,nic=eth0"
        sentence = "--path tcp://relay.example,nic=eth0 stands twice; leave one out"
        for role, more in ((client, ()), (agent, ("--allow", "lan"))):
            self.assertEqual(self.refused(role, *more, *words(relay, "direct", relay)), sentence)
        for one, other in (
            ("tcp://RELAY.example.:443", "tcp://relay.example:443"),
            ("socks://proxy", "socks://proxy:1080"),
            ("tcp://[2001:db8::7]", "tcp://[2001:DB8:0::7]"),
            ("direct,rate=20M", "direct,rate=20000K,role=primary"),
        ):
            self.assertIn(" stands twice; ", self.refused(client, *words(one, other)))
        for role, more in ((client, ()), (agent, ("--allow", "lan"))):
            found = role(*more, *words("tcp://relay.example", "tcp://relay.example:8443"))
            error = self.assertRaises(StartupError, found.links)
            sentence = "tcp://relay.example and tcp://relay.example:8443 are one path"
            self.assertEqual(str(error), f"--path {sentence}; leave one out")
        proxies = ("socks://a:b@proxy", "socks://c:d@proxy", "direct", "direct,nic=eth0")
        client(*words(*proxies))
        self.assertNotIn("b@", self.refused(client, *words(*proxies, proxies[0])))
        many = words("direct,subflows=40", "direct,nic=eth0,subflows=24", "direct,nic=eth1")
        self.assertEqual(
            self.refused(client, *many),
            "--path asks for 65 connections in all, and a session has 64 at most; "
            "give some of them fewer by ,subflows=N",
        )
        # A backup has its share too once no other is left.
        backup = "direct,nic=eth0,role=backup,subflows="
        self.assertIn(
            "for 123 con", self.refused(client, *words("direct,subflows=63", f"{backup}60"))
        )
        client(*words("direct,subflows=63", f"{backup}1"))

    def test_which_of_several_is_wrong(self) -> None:
        """By its number, since there may be a password in it."""
        here, bad = ("--server", LINK.format()), "direct,nic=a/b"
        why = 'nic= takes the name of a network card, not "a/b"'
        self.assertEqual(self.refused(client, *here, "--path", bad), f"--path: {why}")
        self.assertEqual(
            self.refused(client, *here, "--path", "direct", "--path", bad, "--path", "direct"),
            f"--path, number 2 of 3: {why}",
        )
        variable = self.refused(client, *here, STRIPETWIST_PATH=f"direct {bad}")
        self.assertEqual(variable, f"STRIPETWIST_PATH, number 2 of 2: {why}")

    def test_loopback_has_no_link(self) -> None:
        """The server runs in this process."""
        self.assertEqual(client("--server", "loopback:").links(), [])

    def test_without_a_server_the_sentence_says_how(self) -> None:
        """All three ways, and the trial."""
        sentence = self.refused(client)
        for words in ("--server", "$STRIPETWIST_SERVER", "loopback:"):
            self.assertIn(words, sentence)

    def test_what_is_neither_is_refused(self) -> None:
        """With what was probably meant."""
        self.assertIn("with its colon", self.refused(client, "--server", "loopback"))
        sentence = self.refused(client, "--server", "vps.example:8443")
        self.assertIn(f"there is no file vps.example:8443 in {os.getcwd()};", sentence)
        sentence = self.refused(client, "--server", "/nowhere/client.link")
        self.assertIn("there is no file /nowhere/client.link;", sentence)

    def test_no_sentence_and_no_repr_shows_the_secret(self) -> None:
        """Wherever a link, or a piece of one, may stand by mistake."""
        link = LINK.format()
        secret = link.split(":")[2].partition("@")[0]
        path = self.file(f'server = "{link[:-9]}"\n')
        sentences = [
            self.refused(client, link),
            self.refused(client, "--socks", link),
            self.refused(client, f"--{link}"),
            self.refused(client, "--server", link[:-9]),
            self.refused(client, "--server", link.replace("://", ":")),
            self.refused(client, "--server", f"laptop:{secret}"),
            self.refused(client, STRIPETWIST_SERVER=link[:-9]),
            self.refused(client, "--config", path),
            repr(client("--server", link)),
            show(secret),
        ]
        sentences += self.wrong_paths("a-" + secret[:20], "b-" + secret[20:])
        for sentence in sentences:
            self.assertNotIn(secret, sentence)
            self.assertNotIn(secret[:40], sentence)
            self.assertNotIn("a-" + secret[:20], sentence)
            self.assertNotIn("b-" + secret[20:], sentence)

    def test_paths_in_a_variable(self) -> None:
        """Between spaces, since what belongs to a path stands behind commas."""
        texts = ("socks://h:1080,role=backup", "direct,bind=127.0.0.1,rate=2M")
        environ = {
            "STRIPETWIST_SERVER": LINK.format(),
            "STRIPETWIST_ALLOW": "internet",
            "STRIPETWIST_PATH": "\n".join(texts),
        }
        for role in (client, agent):
            self.assertEqual(role(**environ).paths, tuple(map(Way.parse, texts)))

    def wrong_paths(self, start: str, end: str) -> list[str]:
        """What is said where a proxy's password stands in a path; right, wrong, and cut."""
        path = f"http://me:{start}{end}@proxy"
        return [
            repr(client("--server", "loopback:", "--path", path)),
            self.refused(client, "--path", f"{path}:none"),
            self.refused(client, "--path", f"http://me:{start},{end}@proxy"),
            self.refused(client, "--path", f"http://me:1,{start}{end}@proxy"),
            self.refused(client, "--path", f"http:me:{start}{end}"),
            self.refused(client, f"{start}{end}@proxy"),
            self.refused(client, STRIPETWIST_PATH=f"http://me:1 {start} {end}@proxy"),
            self.refused(client, "--config", self.file(f'path = ["{path}:none"]\n')),
        ]


class TogetherTests(OptionsTestCase):
    """Values that make no sense with others: J09, J10."""

    def test_a_public_proxy_port_needs_users_or_sources(self) -> None:
        """However the address is written."""
        for where in (":1", "0.0.0.0:1", "[::]:1", "vps.example:1", "tcp:1", "192.168.0.1:1"):
            sentence = self.refused(client, "--server", "loopback:", "--socks", where)
            self.assertIn("say who may use it with --users FILE or --from CIDR", sentence)
            client("--server", "loopback:", "--socks", where, "--from", "10.0.0.0/8")
            client("--server", "loopback:", "--socks", where, "--users", "x")
            self.assertEqual(self.refused(server, "--socks", where), sentence)
            server("--socks", where, "--from", "10.0.0.0/8")
        for where in ("0", "0:1", "0.0.0.0"):
            self.refused(client, "--server", "loopback:", "--socks", where)

    def test_a_local_proxy_port_needs_nobody(self) -> None:
        """Nor does a Unix socket."""
        for where in ("1081", "localhost:1081", "[::1]:1081", "unix:/run/x"):
            client("--server", "loopback:", "--socks", where)

    def test_a_public_port_in_a_file_needs_users_too(self) -> None:
        """An empty list of sources is none."""
        path = self.file('server = "loopback:"\nsocks = ":1080"\nfrom = []\n')
        self.assertIn("--users", self.refused(client, "--config", path))

    def test_plaintext_stays_on_this_machine(self) -> None:
        """The default port does not."""
        for words in ((), ("--listen", "127.0.0.1:1", "--listen", "2"), ("--listen", "tcp:1")):
            sentence = self.refused(server, "--plaintext", *words)
            self.assertIn("could be reached from other machines", sentence)
        server("--plaintext", "--listen", "127.0.0.1:1", "--listen", "unix:/x")
        self.assertIn("twice", self.refused(server, "--listen", "7", "--listen", ":7"))
        sentence = self.refused(server, "--plaintext", "--listen", "[::1]:1", "--advertise", "a.b")
        self.assertIn("--advertise", sentence)

    def test_a_port_stands_once(self) -> None:
        """Whichever options name it; the system's own choice is another each time."""
        here = ("--server", LOOPBACK)
        words = ("--socks", "7", "--forward", "7=a.example:1")
        for role, all_words in ((client, (*here, *words)), (server, words)):
            self.assertEqual(
                self.refused(role, *all_words),
                "port 7 stands twice, in --socks and --forward; change one, or leave it out",
            )
        for one, other in (("7", ":7"), ("unix:/x", "unix:/x"), ("localhost:7", "127.0.0.1:7")):
            both = (*here, "--users", "x", "--status", one, "--socks", other)
            self.assertIn("--socks and --status", self.refused(client, *both))
        client(*here, "--status", "8", "--udp", "8=a.example:1")
        self.assertIn("--listen and --socks", self.refused(server, "--socks", "8443"))
        udp = ("--udp", "7=a.example:1", "--udp", "7=b.example:1")
        self.assertIn("port 7 stands twice in --udp; ", self.refused(client, *here, *udp))
        for one, other in (("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:7", "7"), ("7", "unix:/7")):
            client(*here, "--socks", one, "--status", other)

    def test_what_only_ports_of_its_own_heed(self) -> None:
        """A server without any refuses it, lest somebody believe that clients are meant."""
        forward = ("--forward", "7=a.example:1")
        for name, value in (
            ("exit", "attic"),
            ("fallback", "direct"),
            ("from", "10.0.0.0/8"),
            ("users", "x"),
        ):
            words = (f"--{name}", value)
            ports = "--socks" if name == "users" else "--socks or --forward"
            self.assertEqual(
                self.refused(server, *words),
                f"--{name} says nothing of clients, only of the server's own ports; "
                f"add {ports}, or leave it out",
            )
            server(*words, "--socks", "1080")
            if name != "users":
                server(*words, *forward)
        self.assertIn("--socks, or leave it out", self.refused(server, "--users", "x", *forward))

    def test_copies_of_no_datagrams(self) -> None:
        """They are those of UDP ports."""
        here = ("--server", LOOPBACK, "--udp-copies", "2")
        self.assertEqual(
            self.refused(client, *here), "--udp-copies is of no use without --udp LISTEN=HOST:PORT"
        )
        client(*here, "--udp", "7=a.example:1")

    def test_a_server_stands_once(self) -> None:
        """As a link or in a file; another key of the same server is another."""
        file, other = self.file(LINK.format(), "a.link"), replace(LINK, key_id="other")
        found = client("--server", LINK.format(), "--server", file)
        error = self.assertRaises(StartupError, found.links)
        self.assertEqual(str(error), f"--server {LINK.address} is given twice; leave one out")
        client("--server", LINK.format(), "--server", other.format()).links()

    def test_a_server_can_be_dialed(self) -> None:
        """No link leads to a Unix socket, so there has to be a port besides."""
        self.assertIn("no link", self.refused(server, "--listen", "unix:/x"))

    def test_certificate_and_key_come_together(self) -> None:
        """Each asks for the other, and plaintext for neither."""
        self.assertIn("needs --tls-key", self.refused(server, "--tls-cert", "x"))
        self.assertIn("needs --tls-cert", self.refused(server, "--tls-key", "x"))
        words = ("--tls-key", "x", "--tls-cert", "y")
        self.assertEqual(server(*words).tls_key, Path("x").absolute())
        self.assertIn("--plaintext", self.refused(server, "--plaintext", *words))

    def test_items_that_allow_nothing_are_refused(self) -> None:
        """So are those that nobody understands."""
        self.assertIn("--allow", self.refused(server, "--allow", "169.254.0.0/16"))
        self.assertIn("--deny", self.refused(server, "--deny", "300.1.1.1"))


class AgentOptionTests(OptionsTestCase):
    """What an agent is told, and what it has to be."""

    words = ("--server", LINK.format(), "--allow", "lan")

    def test_values_are_read(self) -> None:
        """Those of its own, and those that it shares."""
        found = agent(
            *self.words, "--server", self.file(OTHER.format(), "b.link"), "--name", "attic",
            "--label", "site=home", "--label", "os=linux", "--capacity", "100", "--weight", "7",
            "--subflows", "2", "--path", "direct,bind=192.0.2.7", "--deny", "192.168.0.1",
        )  # fmt: skip
        self.assertEqual(found.links(), [LINK, OTHER])
        self.assertEqual(found.labels, (("site", "home"), ("os", "linux")))
        self.assertEqual((found.name, found.capacity, found.weight), ("attic", 100, 7))
        self.assertEqual((found.limits().subflows, found.limits().grow_most), (2, 2))
        self.assertEqual((found.allow, found.deny), (("lan",), ("192.168.0.1",)))
        self.assertEqual((agent(*self.words).name, agent(*self.words).capacity), (None, None))

    def test_what_is_missing_is_named(self) -> None:
        """A server, and what may be reached; there is no default for either."""
        self.assertIn("--server LINK or FILE", self.refused(agent, "--allow", "lan"))
        self.assertIn("--allow is missing", self.refused(agent, *self.words[:2]))
        sentence = self.refused(agent, "--allow", "lan", "--server", "loopback:")
        self.assertIn("give an agent's link", sentence)

    def test_values_that_are_none(self) -> None:
        """Names that are reserved, labels without a value, twice the same key."""
        for name in ("server", "any", "Attic", "a.b", "x" * 64):
            self.assertIn("1 to 63", self.refused(agent, *self.words, "--name", name))
        for label in ("site", "=x", "site=", "Site=x", "a=b=c"):
            self.assertIn("KEY=VALUE", self.refused(agent, *self.words, "--label", label))
        twice = ("--label", "a=b", "--label", "a=c")
        self.assertIn("KEY twice", self.refused(agent, *self.words, *twice))
        many = [word for number in range(17) for word in ("--label", f"k{number}=v")]
        self.assertIn("17 times", self.refused(agent, *self.words, *many))
        self.assertIn("1 to 1000", self.refused(agent, *self.words, "--weight", "0"))
        self.assertIn("--allow", self.refused(agent, *self.words, "--allow", "169.254.0.0/16"))

    def test_options_of_others(self) -> None:
        """Those of a client are not an agent's, and the other way round."""
        sentence = self.refused(agent, *self.words, "--socks", "1080")
        self.assertIn("--socks is an option of stripe-client", sentence)
        self.assertIn("stripe-agent", self.refused(client, "--weight", "3"))

    def test_no_secret_is_shown(self) -> None:
        """Neither in a sentence nor in a repr."""
        secret = LINK.format().split(":")[2].partition("@")[0]
        cut = LINK.format()[:-9]
        for text in (repr(agent(*self.words)), self.refused(agent, "--server", cut)):
            self.assertNotIn(secret, text)


class EnvironmentTests(OptionsTestCase):
    """Variables."""

    def test_variables_are_read(self) -> None:
        """Lists by commas or spaces, flags by words."""
        found = client(
            STRIPETWIST_SERVER="loopback:",
            STRIPETWIST_FROM="10.0.0.0/8, ::1",
            STRIPETWIST_OPTIMISTIC="yes",
            STRIPETWIST_LOG_TARGETS="0",
            STRIPETWIST_MAX_MEMORY="1M",
            HOME="/nowhere",
        )
        self.assertEqual(found.sources, (ip_network("10.0.0.0/8"), ip_network("::1")))
        self.assertEqual((found.optimistic, found.log_targets), (True, False))
        self.assertEqual(found.max_memory, MIB)

    def test_every_option_has_a_variable(self) -> None:
        """Documented, and really read: J03."""
        for read, kind in ((client, ClientSettings), (server, ServerSettings)):
            for name in options_of(kind):
                variable = "STRIPETWIST_" + name.upper().replace("-", "_")
                sentence = self.refused(read, **{variable: "\0"})
                self.assertIn(variable, sentence[:80])

    def test_unknown_variables_come_with_a_guess(self) -> None:
        """A typing error must not turn a lock off without a word."""
        self.assertEqual(
            self.refused(client, STRIPETWIST_USER="x"),
            "unknown variable STRIPETWIST_USER; did you mean STRIPETWIST_USERS?",
        )

    def test_empty_variables_are_refused(self) -> None:
        """Who sets one to nothing did not mean the default."""
        self.assertIn("STRIPETWIST_USERS is empty", self.refused(client, STRIPETWIST_USERS=" "))

    def test_variables_of_another_command_are_left_to_it(self) -> None:
        """One environment serves client and server."""
        self.assertEqual(client(STRIPETWIST_LISTEN="x", STRIPETWIST_SERVER=LOOPBACK).users, None)
        self.assertEqual(server(STRIPETWIST_SERVER="x").keys, None)


class FileTests(OptionsTestCase):
    """The configuration file."""

    def test_every_kind_of_value(self) -> None:
        """Numbers may be numbers, lists may be lists."""
        found = server(
            "--config",
            self.file(
                'listen = [8443, ":9"]\nallow = "lan"\nmax-subflows = 7\nmax-memory = "2M"\n'
                "session-timeout = 5\nlog-targets = true\n"
            ),
        )
        self.assertEqual(found.listen, (Address("", 8443), Address("", 9)))
        self.assertEqual((found.allow, found.max_subflows), (("lan",), 7))
        self.assertEqual((found.max_memory, found.session_timeout), (2 * MIB, 5.0))
        self.assertTrue(found.log_targets)

    def test_tables(self) -> None:
        """Several ports, each with an exit of its own, beside those that are texts."""
        texts = [":1080,exit=attic", "127.0.0.1:1081"]
        path = self.file(
            'from = ["10.0.0.0/8"]\n[[socks]]\nlisten = ":1080"\nexit = "attic"\n'
            "[[socks]]\nlisten = 1081\n"
            '[[forward]]\nlisten = 8080\nto = "printer.lan:80"\nexit = "site=berlin"\n'
        )
        found = server("--config", path)
        self.assertEqual([str(one) for one in found.socks], texts)
        forwards = ["127.0.0.1:8080=printer.lan:80,exit=site=berlin"]
        self.assertEqual([str(one) for one in found.forwards], forwards)
        words = [f"--socks={text}" for text in texts] + [f"--forward={text}" for text in forwards]
        same = server("--from", "10.0.0.0/8", *words)
        self.assertEqual((same.socks, same.forwards), (found.socks, found.forwards))
        self.assertEqual(server("--config", self.file("[socks]\nlisten = 1")).socks[0].exit, None)

    def test_wrong_tables(self) -> None:
        """Each with what is wrong in it."""
        for content, words in (
            (
                '[[forward]]\nlisten = 1\nto = "a:1"\nexti = "b"',
                "forward: exti is unknown; did you",
            ),
            ('[[forward]]\nto = "a:1"', "forward: listen is missing; write listen = VALUE there"),
            ("[[forward]]\nlisten = 1", "forward: to is missing; write to = VALUE there"),
            ('[[socks]]\nexit = "b"', "socks: listen is missing"),
            ('[[socks]]\nlisten = 1\nexit = "B"', "socks = 1,exit=B: an exit is any"),
            ("[[socks]]\nlisten = 1.5", "socks has the wrong type"),
            ('[[allow]]\nlisten = "x"', "allow has the wrong type"),
        ):
            self.assertIn(words, self.refused(server, "--config", self.file(content)))

    def test_flag_then_variable_then_file(self) -> None:
        """Each outranks the next, lists as a whole."""
        path = self.file('allow = ["lan"]\nmax-subflows = 1\nsession-timeout = 1\n')
        environ = {"STRIPETWIST_CONFIG": path, "STRIPETWIST_MAX_SUBFLOWS": "2"}
        found = server("--allow", "all", **environ)
        self.assertEqual((found.allow, found.max_subflows), (("all",), 2))
        self.assertEqual(found.session_timeout, 1.0)
        self.assertEqual(server("--max-subflows=3", **environ).max_subflows, 3)

    def test_a_number_of_subflows_is_that_number(self) -> None:
        """It never grows; only auto does."""
        for words, counts in (
            (("--subflows", "1"), (1, 1)),
            (("--subflows", "40"), (40, 40)),
            (("--subflows", "auto"), (6, 32)),
            ((), (6, 32)),
        ):
            limits = client("--server", "loopback:", *words).limits()
            self.assertEqual((limits.subflows, limits.grow_most), counts)

    def test_wrong_content_names_the_key(self) -> None:
        """Unknown, of the wrong type, twice, out of range: J02."""
        cases = {
            "alow = 'lan'": "x.toml: alow is unknown; did you mean allow?",
            "max_memory = 1": "did you mean max-memory?",
            "config = 'y.toml'": "config cannot stand in a file; say --config FILE",
            "server = 'x'": "server is an option of stripe-client",
            "max-subflows = true": "max-subflows has the wrong type; write a number",
            "max-subflows = 1.5": "max-subflows has the wrong type",
            "max-subflows = -1": "max-subflows = -1: write a whole number",
            "session-timeout = nan": "session-timeout = nan: write",
            "session-timeout = inf": "session-timeout = inf: write",
            "session-timeout = 1e400": "session-timeout = inf: write",
            "max-memory = 99999999999999999999": "max-memory = 99999999999999999999: it is no",
            "plaintext = 1": "plaintext has the wrong type; write true or false",
            "keys = ['a']": "keys has the wrong type; write a text",
            "allow = [['lan']]": "allow has the wrong type; write a text, or a list",
            "deny = 2000-01-01": "deny has the wrong type",
            "[listen]\nx = 1": "listen has the wrong type",
            "keys = 'a'\nkeys = 'b'": "x.toml gives keys twice (line 2)",
            'keys = "a\\u0000"': "zero byte",
            "keys": "x.toml is no TOML at line 1",
            "keys = ''": "keys: it is empty",
            "x = " + "9" * 5000: "x.toml is no TOML",
            "x = " + "[" * 5000: "x.toml is no TOML",
        }
        for content, words in cases.items():
            self.assertIn(words, self.refused(server, "--config", self.file(content)))
        self.assertIn("is no TOML", self.refused(server, "--config", self.file(b"\xff\xfe")))

    def test_what_is_no_file_is_refused_at_once(self) -> None:
        """A FIFO is not waited for, and nothing is read without end."""
        fifo = self.mktemp()
        os.mkfifo(fifo)
        for path in (fifo, "/", "/dev/zero", "/nowhere/x.toml", self.file(b"#" * 2_000_000)):
            self.assertIn("configuration file", self.refused(server, "--config", path))

    def test_a_secret_in_a_file_is_for_this_user_alone(self) -> None:
        """Any other file may be open."""
        path = self.file(f'server = "{LINK.format()}"\n')
        self.assertEqual(client("--config", path).links(), [LINK])
        os.chmod(path, 0o644)
        self.assertIn("chmod 600", self.refused(client, "--config", path))
        path = self.file('server = "loopback:"\npath = "http://me:own@proxy"\n')
        client("--config", path)
        os.chmod(path, 0o644)
        self.assertIn("holds a proxy's password", self.refused(client, "--config", path))
        path = self.file('server = "loopback:"\n')
        os.chmod(path, 0o644)
        client("--config", path)


class ValueTests(OptionsTestCase):
    """Single values."""

    def test_sizes(self) -> None:
        """With the units that people write."""
        for text, value in (("262144", 262144), ("32M", 32 * MIB), ("1g", 1024 * MIB),
                            ("512 KiB", 524288), ("300kb", 300 * 1024)):  # fmt: skip
            self.assertEqual(size(text), value)
        for text in ("1", "2000G", "1.5G", "M", "64X", "1T"):
            self.assertRaises(ValueError, size, text)

    def test_advertised_hosts(self) -> None:
        """With a port or without; an IPv6 address needs brackets only with one."""
        for text, host, port in (
            ("vps.example", "vps.example", None),
            ("1.2.3.4:443", "1.2.3.4", 443),
            ("[::1]:443", "::1", 443),
            ("[::1]", "::1", None),
            ("2001:db8::1", "2001:db8::1", None),
        ):
            self.assertEqual(advertised(text), Advertised(host, port))
        for text in ("", "a b", "x:0", "x:y", "x:70000", "[x]:1", "1.2.3"):
            self.assertRaises(ValueError, advertised, text)

    def test_memory_is_that_of_the_smallest_group(self) -> None:
        """Ours, or one around it; elsewhere that of the machine."""
        root = Path(self.mktemp())
        machine = usable_memory(root)
        self.assertGreater(machine, MIB)
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text("1:cpu:/x\n0::/a/b\n")
        self.assertEqual(usable_memory(root), machine)
        group = root / "sys/fs/cgroup/a/b"
        group.mkdir(parents=True)
        (group / "memory.max").write_text("max\n")
        self.assertEqual(usable_memory(root), machine)
        (group.parent / "memory.max").write_text("1048576\n")
        self.assertEqual(usable_memory(root), MIB)

    def test_endpoints_that_twisted_does_not_know_are_refused(self) -> None:
        """In a sentence, whatever the parser raises."""
        for text in ("onion:80:x=1", "tcp:x", "tcp:80:colour=red", "systemd:domain=X:index=0"):
            error = self.assertRaises(
                StartupError, server_endpoint, None, Address(raw=text), "--listen"
            )
            self.assertIn(f"--listen {text}", str(error))
        self.assertTrue(server_endpoint(None, Address.parse("127.0.0.1:1"), "--listen"))


class TwistdTests(OptionsTestCase):
    """How twistd itself takes it."""

    def test_a_refusal_is_one_sentence_and_exit_code_1(self) -> None:
        """With and without C{-n}: no help text, no log, no traceback."""
        folder = Path(self.mktemp()).absolute()
        (folder / "twisted/plugins").mkdir(parents=True)
        (folder / "probe_tap.py").write_text("from stripetwist.options import *\n"
                                             "Options = ServerOptions\n")  # fmt: skip
        (folder / "twisted/plugins/probe_plugin.py").write_text(
            "from twisted.application.service import ServiceMaker\n"
            "probe = ServiceMaker('probe', 'probe_tap', 'a probe', 'stripe-probe')\n"
        )
        root = Path(stripetwist.__file__).parent.parent
        run = "from twisted.scripts.twistd import run; run()"
        environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{root}"}
        for before in (["-n", "--pidfile="], []):
            done = subprocess.run(
                [sys.executable, "-c", run, *before, "stripe-probe", "--listne", "1"],
                cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            self.assertEqual(done.stderr, "unknown option --listne; did you mean --listen?\n")
            self.assertEqual((done.stdout, done.returncode), ("", 1))


class StatusPortTests(OptionsTestCase):
    """The status port, which all commands have."""

    def test_for_this_machine(self) -> None:
        """By a port alone, or anything local; nowhere if nothing is said."""
        own = ("--server", LINK.format(), "--allow", "lan")
        for read, words in ((client, ("--server", LOOPBACK)), (server, ()), (agent, own)):
            self.assertIsNone(read(*words).status)
            self.assertEqual(str(read(*words, "--status", "8888").status), "127.0.0.1:8888")
            for place in ("[::1]:8888", "unix:/run/status"):
                self.assertEqual(str(read(*words, "--status", place).status), place)

    def test_for_others(self) -> None:
        """It needs users."""
        own = ("--server", LINK.format(), "--allow", "lan")
        for read, words in ((client, ("--server", LOOPBACK)), (server, ()), (agent, own)):
            sentence = self.refused(read, *words, "--status", ":8888")
            self.assertEqual(
                sentence,
                "--status :8888 is open to other machines; "
                "say who may see it with --status-users FILE",
            )
            found = read(*words, "--status", ":8888", "--status-users", "/x")
            self.assertEqual(found.status_users, Path("/x"))
            self.assertIn("--status ADDRESS", self.refused(read, *words, "--status-users", "/x"))
