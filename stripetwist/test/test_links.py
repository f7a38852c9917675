"""The links of a server's state folder."""

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stripetwist.core.link import Link
from stripetwist.net.files import StartupError
from stripetwist.net.keyfile import Key
from stripetwist.net.links import (
    forget_link,
    holder_of,
    link_of,
    link_path,
    own_link,
    write_link,
    write_own_links,
)

LINK = Link("client-1", bytes(range(32)), "vps.example", 8443, (bytes(32),))


class LinksTests(SynchronousTestCase):
    """Written, found and made after the model of one that is there."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def test_a_link_is_written_for_this_user_alone(self) -> None:
        """And read back."""
        path = write_link(self.folder, "client", LINK)
        self.assertEqual(path, link_path(self.folder, "client"))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(own_link(self.folder), LINK)

    def test_the_agent_link_will_do_too(self) -> None:
        """Both lead to the same server."""
        write_link(self.folder, "agent", LINK)
        self.assertEqual(own_link(self.folder), LINK)

    def test_a_link_without_an_address_is_a_model_as_well(self) -> None:
        """A server that does not know its address writes HOST."""
        link = Link("client-1", bytes(32), "HOST", 8443, (), True)
        write_link(self.folder, "client", link)
        self.assertEqual(own_link(self.folder), link)

    def test_a_further_key_leads_to_the_same_server(self) -> None:
        """Only key and secret differ."""
        link = link_of(Key("laptop", bytes(32), "client"), LINK)
        self.assertEqual((link.key_id, link.secret), ("laptop", bytes(32)))
        self.assertEqual((link.address, link.pins), (LINK.address, LINK.pins))

    def test_an_own_link_goes_to_no_other_person(self) -> None:
        """It keeps its key; with that gone it is one of a like name's, or opens nothing."""
        names = ("alice", "client-1", "client-2")
        alice, first, second = (
            Key(name, bytes([n]) * 32, "client") for n, name in enumerate(names, 1)
        )
        agent = Key("agent-1", bytes([4]) * 32, "agent")
        for keys, holds in (
            ([first, second, agent], first),
            ([alice, first, second, agent], first),
            ([alice, second, agent], second),
            ([alice, agent], None),
            ([alice, first, agent], first),
            ([agent], None),
        ):
            write_own_links(self.folder, keys, LINK)
            found = own_link(self.folder)
            expected = ("nobody", bytes(32)) if holds is None else (holds.id, holds.secret)
            self.assertEqual((found.key_id, found.secret), expected)
            self.assertEqual(found.address, LINK.address)
        self.assertFalse(link_path(self.folder, "alice").exists())

    def test_an_own_link_is_of_whatever_key_there_is_at_first(self) -> None:
        """Where the user has made the keys; and it stays with that."""
        keys = [Key(name, bytes([n]) * 32, "client") for n, name in enumerate("ab", 1)]
        write_own_links(self.folder, keys, LINK)
        write_own_links(self.folder, keys, LINK)
        self.assertEqual(holder_of(self.folder, "client"), "a")
        self.assertEqual(holder_of(self.folder, "agent"), "")

    def test_no_link_yet(self) -> None:
        """The sentence says who writes it."""
        error = self.assertRaises(StartupError, own_link, self.folder)
        self.assertIn("start stripe-server once", str(error))

    def test_a_broken_link_is_not_quoted(self) -> None:
        """Whatever of it is left may be the secret."""
        path = write_link(self.folder, "client", LINK)
        path.write_text(LINK.format()[:60])
        error = self.assertRaises(StartupError, own_link, self.folder)
        self.assertIn("client.link", str(error))
        self.assertNotIn(LINK.format()[24:50], str(error))

    def test_a_link_is_forgotten(self) -> None:
        """The second time nothing happens."""
        path = write_link(self.folder, "laptop", LINK)
        forget_link(self.folder, "laptop")
        forget_link(self.folder, "laptop")
        self.assertFalse(path.exists())
