"""A server and a client at the two ends of a lab, both as processes."""

from pathlib import Path

from bench.links import Lab
from bench.peers import COMMAND, PROXY_PORT, SERVER_PORT
from bench.places import Place

from support.waiting import wait_until


def start_ends(lab: Lab, folder: Path, *options: str) -> Path:
    """
    Start both, the client with these options; files of theirs are kept in that folder.

    @return: the client's log.
    """
    address = f"{lab.far_address()}:{SERVER_PORT}"
    words = ["server", "--state", str(folder / "far"), "--allow", "all"]
    _start(lab.far, folder, *words, "--listen", str(SERVER_PORT), "--advertise", address)
    link = folder / "far" / "server" / "client.link"
    wait_until(link.exists, 20, "the link")
    words = ["client", "--server", str(link), "--state", str(folder / "near")]
    return _start(lab.near, folder, *words, "--socks", str(PROXY_PORT), *options)


def _start(place: Place, folder: Path, *words: str) -> Path:
    path = folder / f"{words[0]}.log"
    with open(path, "w") as log:
        place.start([*COMMAND, *words], log, folder)
    return path
