"""L{stripetwist.net.dial_errors}: why a dial came to nothing."""

import errno

from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stripetwist.net.dial_errors import connect_sentence


class ConnectTests(SynchronousTestCase):
    """One sentence, and nothing of Twisted's in it."""

    def test_each(self) -> None:
        """What is known, and what to do."""
        done = Failure(ConnectionDone())
        for error, said in (
            (ConnectBindError(), "cannot be dialed from an address that this machine lacks"),
            (ConnectionRefusedError(), "refuses connections: start the server there"),
            (TimeoutError(), "does not answer: check the address"),
            (ConnectError(errno.EHOSTUNREACH), "cannot be reached: no route to host"),
            (ConnectError(string=done), "cannot be reached: something on the way turns"),
        ):
            sentence = connect_sentence(Failure(error), "vps:8443")
            self.assertIn(f"vps:8443 {said}", sentence)
            self.assertNotIn("Failure", sentence)
