"""Real programs: found or told to be missing, and run to their end."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def program(name: str, package: str = "") -> str:
    """
    Where a real program is.

    Without it the test is skipped; in CI, where all of them are installed, it fails.
    """
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is not None:
        return found
    reason = f"the program {name} is not installed (Debian: apt install {package or name})"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """An environment without proxies, our own variables or the user's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith(("STRIPETWIST_", "GIT_", "XDG_", "PYTHON", "STATE_DIRECTORY"))
        and name not in ("UDPLOC", "UDPREM", "SERVICE")
    }
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", **more}


def run(
    command: Sequence[str | Path],
    home: Path,
    stdin: bytes = b"",
    timeout: float = 60.0,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with its output kept."""
    return subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        cwd=home,
        env=plain_environment(home, **environment),
        check=False,
    )


def succeed(
    command: Sequence[str | Path],
    home: Path,
    stdin: bytes = b"",
    timeout: float = 60.0,
    **environment: str,
) -> bytes:
    """Run a program that must succeed; what it wrote to its standard output."""
    done = run(command, home, stdin, timeout, **environment)
    assert done.returncode == 0, (
        f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
    )
    return done.stdout
