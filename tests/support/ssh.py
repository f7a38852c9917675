"""An OpenSSH server of the test's own, and the words that log in there."""

import getpass
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.ports import LOOPBACK, free_port
from support.programs import plain_environment, program, succeed
from support.waiting import wait_until


@contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """An OpenSSH server on loopback that lets in the key in that folder."""
    daemon, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    for name in ("host_key", "user_key"):
        succeed([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], folder)
    port = free_port()
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress {LOOPBACK}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [daemon, "-D", "-e", "-f", settings],
        stderr=(folder / "sshd.log").open("wb"),
        env=plain_environment(folder),
    )
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, 10, "sshd")
        assert process.poll() is None, (folder / "sshd.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def ssh(folder: Path, port: int, **more: str) -> list[str]:
    """The command that logs in at that port with the key in that folder."""
    options = {
        "IdentityFile": f"{folder}/user_key",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        **more,
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    client = program("ssh", "openssh-client")
    return [client, "-F", "none", *flags, "-p", str(port), f"{getpass.getuser()}@{LOOPBACK}"]
