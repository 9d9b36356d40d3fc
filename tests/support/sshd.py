"""A real sshd on loopback: its own keys, config and port, started for the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port


@dataclass
class Sshd:
    """A running server; `options` is what an rsync step needs to reach it."""

    base: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    @property
    def options(self) -> dict[str, object]:
        return {
            "port": self.port,
            "identity": str(self.base / "client"),
            "known_hosts": str(self.base / "known_hosts"),
            "connect_timeout": 5,
        }

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@contextlib.contextmanager
def sshd(base: Path) -> Iterator[Sshd]:
    """Run a server until the block ends."""
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert program is not None, "sshd is missing: tools/setup test"
    base.mkdir(parents=True, mode=0o700)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd separates its privileges
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", base / name], check=True)
    shutil.copy(base / "client.pub", base / "authorized_keys")
    port = free_port()
    key = (base / "host.pub").read_text().split()
    (base / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    config = base / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {base}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {base}/authorized_keys\nPasswordAuthentication no\nStrictModes no\n"
        "PermitRootLogin prohibit-password\nMaxStartups 50\nSubsystem sftp internal-sftp\n"
    )
    _ask_for_no_penalties(program, config)
    with open(base / "log", "wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log)
    server = Sshd(base, port, process)
    try:
        _wait_for(port, process)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def _ask_for_no_penalties(program: str, config: Path) -> None:
    """Have the server of OpenSSH 9.8 and newer talk to an address that has failed to log in some times."""
    option = "PerSourcePenalties no\n"
    said = subprocess.run(
        [program, "-t", "-f", config, "-o", option.strip().replace(" ", "=")],
        check=False,
        capture_output=True,
    )
    if said.returncode == 0:
        config.write_text(config.read_text() + option)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, "sshd did not start"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            if sock.recv(4) == b"SSH-":
                return
        time.sleep(0.01)
    raise AssertionError("sshd does not answer")
