"""The package installed somewhere else, from a copy of this tree."""

import os
import shutil
import sys
from pathlib import Path

import OpenSSL

import twisted
from support.programs import run, succeed

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".*", "build", "dist", "*.egg-info", "__pycache__", "_trial_temp*", "dropin.cache")


def copy_tree(to: Path) -> Path:
    """This tree without what tools leave in it."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return to


class Installation:
    """
    A virtual environment that borrows the packages we depend on from the running one.

    Only their folder is put on its path: what is installed editable there, this very
    package included, is not seen.

    @ivar site: its own site-packages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._home = folder.parent
        succeed([sys.executable, "-m", "venv", "--without-pip", folder], self._home)
        self.site = next(folder.glob("lib/python*/site-packages"))
        borrowed = {Path(module.__file__ or "").parents[1] for module in (twisted, OpenSSL)}
        lines = sorted(f"{folder}\n" for folder in borrowed)
        (self.site / "borrowed.pth").write_text("".join(lines))

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self._folder / "bin" / "python"

    def install(self, *what: str | Path) -> None:
        """Install without dependencies."""
        flags = ["--no-deps", "--quiet", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
        succeed([*pip, *flags, *what], self._home, timeout=300, HOME=os.environ["HOME"])

    def twistd(self, *words: str) -> str:
        """What C{twistd} says there, both streams."""
        script = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
        done = run([self.python, "-P", "-c", script, *words], self._home)
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr).decode()

    def ask(self, script: str) -> str:
        """The output of a Python script there."""
        return succeed([self.python, "-P", "-c", script], self._home).decode()


def build_wheel(tree: Path, to: Path) -> Path:
    """A wheel of that tree."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", to, tree]
    succeed(pip, to.parent, timeout=300, HOME=os.environ["HOME"])
    (wheel,) = to.glob("*.whl")
    return wheel
