"""What pip installs: all of the package, its plugins, its scripts and its man pages."""

import zipfile
from pathlib import Path

import pytest
from support.installed import ROOT, Installation, build_wheel, copy_tree
from support.programs import program, run

PLUGINS = ("stripe-agent", "stripe-client", "stripe-server")
PAGES = ("man1/stripe-agent.1", "man1/stripe-client.1", "man1/stripe-server.1")
PAGES += ("man1/stripetwist.1", "man7/stripetwist-wire.7")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_tree(folder / "tree"), folder / "dist")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installation:
    """That wheel installed, away from the tree."""
    made = Installation(tmp_path_factory.mktemp("installed") / "venv")
    made.install(wheel)
    return made


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A copy of the tree installed with C{-e}."""
    folder = tmp_path_factory.mktemp("editable")
    made = Installation(folder / "venv")
    made.install("-e", copy_tree(folder / "tree"))
    return made


@pytest.fixture(params=["installed", "editable"])
def either(request: pytest.FixtureRequest) -> Installation:
    """Each way of installing."""
    way: Installation = request.getfixturevalue(request.param)
    return way


def modules(files: list[str]) -> set[str]:
    """What a package is made of: its modules and the files that go with them."""
    keep = (file for file in files if "__pycache__" not in file and not file.endswith(".pyc"))
    return {file for file in keep if not file.endswith("dropin.cache")}


def test_the_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    """Every module and data file, the plugin, and nothing of the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if "-info/" not in name]
    packed = modules([name for name in names if ".data/" not in name])
    tree = [path for top in ("stripetwist", "twisted") for path in (ROOT / top).rglob("*")]
    assert packed == modules([str(p.relative_to(ROOT)) for p in tree if p.is_file()])


def test_every_module_can_be_imported(installed: Installation) -> None:
    """From the installed files, not from this tree."""
    script = (
        "import importlib, pkgutil, stripetwist; print(stripetwist.__file__)\n"
        "for m in pkgutil.walk_packages(stripetwist.__path__, 'stripetwist.'):\n"
        "    importlib.import_module(m.name)\n"
        "    print(m.name)"
    )
    where, *names = installed.ask(script).split()
    assert where.startswith(str(installed.site))
    assert len(names) > 20


def test_twistd_lists_the_plugins(either: Installation) -> None:
    """Both, each with a line of what it is."""
    listed = either.twistd("--help")
    for name in PLUGINS:
        assert any(line.split()[:1] == [name] and line.split()[1:] for line in listed.splitlines())


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_explains_itself(either: Installation, name: str) -> None:
    """Its help comes, with its options and its own version."""
    assert "--state" in either.twistd(name, "--help")
    version = either.ask("import stripetwist; print(stripetwist.__version__)").strip()
    assert version in either.twistd(name, "--version")


def test_the_script_is_there(either: Installation) -> None:
    """C{stripetwist} runs and knows its version."""
    done = run([either.python.parent / "stripetwist", "--version"], either.python.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_man_pages_are_there(installed: Installation, page: str) -> None:
    """Where man finds them, and it can show them."""
    file = installed.python.parents[1] / "share" / "man" / page
    done = run([program("man", "man-db"), "-l", file], file.parent, MANROFFOPT="-ww")
    assert done.returncode == 0 and file.stem.encode() in done.stdout.lower()
    assert done.stderr == b""


def test_the_package_says_it_is_typed(installed: Installation) -> None:
    """The marker that type checkers look for."""
    assert (installed.site / "stripetwist" / "py.typed").is_file()


def test_unit_tests_are_found_where_it_is_installed(installed: Installation) -> None:
    """C{trial stripetwist} finds them by name."""
    script = (
        "from twisted.trial.runner import TestLoader\n"
        "print(TestLoader().loadByName('stripetwist', recurse=True).countTestCases())"
    )
    assert int(installed.ask(script)) > 100
