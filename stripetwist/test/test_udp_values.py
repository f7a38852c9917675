"""L{stripetwist.udp_values}: UDP forwards, as users of two programs write them."""

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.target import Target
from stripetwist.options import ClientOptions
from stripetwist.udp_values import socktopus_sides, udp_port


class UdpPortTests(SynchronousTestCase):
    """The option's value."""

    def test_forward(self) -> None:
        """A port alone means this machine only, for whoever sends."""
        one = udp_port("51820=vpn.example:51821")
        self.assertEqual("127.0.0.1:51820=vpn.example:51821", str(one))
        self.assertEqual((None, None), (one.program, one.bind))

    def test_sides(self) -> None:
        """Four fields on each side: what to bind, and where to send."""
        one = udp_port("localhost:5000:127.0.0.1:5001=[::1]:6000:vpn.example:6001")
        self.assertEqual(("127.0.0.1", 5000), (one.listen.host, one.listen.port))
        self.assertEqual(Target.of("127.0.0.1", 5001), one.program)
        self.assertEqual(Target.of("::1", 6000), one.bind)
        self.assertEqual(Target.of("vpn.example", 6001), one.target)

    def test_wrong(self) -> None:
        """What is wrong is said before the start."""
        for text in (
            "51820",
            "51820=host",
            "51820=a:1:b:2",
            "a:1:b:2=localhost:1:c:2",
            "localhost:1:localhost:2=localhost:0:c:2",
            "unix:/x=host:1",
            "[::]:1:127.0.0.1:2=localhost:3:c:4",
            "localhost:1:[::1]:2=localhost:3:c:4",
            "1=host:1,exit=attic",
        ):
            with self.assertRaises(ValueError, msg=text):
                udp_port(text)
        for text in ("x", "51820=host", "unix:/x=host:1"):
            error = self.assertRaises(ValueError, udp_port, text)
            self.assertIn("51820=127.0.0.1:51820, or socktopus' host:serv:rhost", str(error))


class OpenToOthersTests(SynchronousTestCase):
    """Who may use a UDP port."""

    def complaint(self, *words: str) -> str:
        """What a client says to those words."""
        options = ClientOptions({})
        options.parseOptions(["--server", "loopback:", *words])
        return options.settings.complaint()

    def test_everybody(self) -> None:
        """Beyond this machine nobody may without a word on who."""
        for listen in (":5353", "0.0.0.0:5353", "192.0.2.1:5353", "[::]:5353"):
            with self.assertRaises(SystemExit) as caught:
                self.complaint("--udp", f"{listen}=1.1.1.1:53")
            self.assertIn("is open to other machines; say who may", str(caught.exception))

    def test_somebody(self) -> None:
        """This machine, some networks, or one program."""
        for words in (
            ("--udp", "5353=1.1.1.1:53"),
            ("--udp", ":5353=1.1.1.1:53", "--from", "192.0.2.0/24"),
            ("--udp", "192.0.2.1:5353:192.0.2.2:9=192.0.2.3:1:1.1.1.1:53"),
        ):
            self.assertEqual("", self.complaint(*words))


class SidesTests(SynchronousTestCase):
    """The variables of socktopus."""

    def test_fields_from_the_right(self) -> None:
        """What is left out is localhost and 23461."""
        self.assertEqual("", socktopus_sides({}))
        self.assertEqual(
            "localhost:23461:localhost:5001=localhost:23461:[::1]:7",
            socktopus_sides({"UDPLOC": "5001", "UDPREM": "[::1]:7"}),
        )

    def test_as_the_option(self) -> None:
        """A client reads them; its own option and variable go before them."""
        variables = {"STRIPETWIST_SERVER": "loopback:", "UDPREM": "7"}
        options = ClientOptions(variables)
        options.parseOptions([])
        (one,) = options.settings.udp
        self.assertEqual(Target.of("localhost", 7), one.target)
        options = ClientOptions(variables)
        options.parseOptions(["--udp", "5=host:6"])
        self.assertEqual("127.0.0.1:5=host:6", str(options.settings.udp[0]))
