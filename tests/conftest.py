"""
Fixtures of the real-process tests.

C{workshop} makes servers and clients and looks through their logs when the test is over;
C{shared} is one pair for all tests of a module, for those that leave nothing behind.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.links import compile_emulator
from support.places import need_namespaces
from support.programs import program
from support.relay import Relay
from support.targets import Echo
from support.web import CONTENT
from support.workshop import LOGIN, Client, Pair, Workshop

DESCRIPTORS = 16384


def pytest_configure() -> None:
    """Thousands of streams need thousands of descriptors on this side too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has all demanding tests, and begins with them; others keep files together."""
    for item in items:
        is_demanding = item.get_closest_marker("demanding")
        item.add_marker(pytest.mark.xdist_group("demanding" if is_demanding else item.path.name))
    items.sort(key=lambda item: not item.get_closest_marker("demanding"))


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Makes processes; ends and examines them."""
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair(workshop: Workshop) -> Pair:
    """A server that may reach loopback and a client with six subflows, as two processes."""
    return workshop.pair()


@pytest.fixture(scope="module")
def shared_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A workshop for all tests of a module."""
    made = Workshop(tmp_path_factory.mktemp("shared"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(shared_workshop: Workshop) -> Pair:
    """One pair for all tests of a module."""
    return shared_workshop.pair()


@pytest.fixture(scope="module")
def guarded(shared_workshop: Workshop, shared: Pair) -> Client:
    """A client of that server whose proxy port asks for C{LOGIN}."""
    return shared_workshop.client(shared.server, "--users", str(shared_workshop.users(*LOGIN)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with C{CONTENT} in a file."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "file").write_bytes(CONTENT)
    return folder


@pytest.fixture
def relay() -> Iterator[Callable[[int], Relay]]:
    """Makes fault relays in front of a server's port."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(Relay(port))


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The link emulator, where there can be links."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    need_namespaces()
    program("cc", "gcc libc6-dev")
    return compile_emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A target that echoes."""
    with Echo() as target:
        yield target
