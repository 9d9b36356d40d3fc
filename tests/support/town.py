"""A machine with the installed service and the people of the documents: each types as who they are, where they are.

`ann` administers the machine, and is not root; `alice` has an account on it; `away` is Alice at her own computer,
who reaches it by ssh as ingest.example.org. Homes are closed to others, and everybody types in their own.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.boot import Machine, machine
from tests.support.wheel import copy, installed, site_of

PEOPLE = ("ann", "alice", "away")

#: Runs a program as another user, for the stand-in of sudo: a copy of setpriv that is setuid root.
_RAISE = "usr/local/lib/raise"

#: As sudo does it; anyone who is not Ann is refused. `sudoedit` runs what EDITOR says.
_SUDO = f"""#!/bin/sh
[ "$(id -un)" = ann ] || [ "$(id -un)" = root ] || {{ echo "$(id -un) is not in the sudoers file." >&2; exit 1; }}
user=root
if [ "$1" = -u ]; then user=$2; shift 2; fi
home=$(getent passwd "$user" | cut -d: -f6)
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec /{_RAISE} --reuid="$user" --regid="$(id -g "$user")" --init-groups env HOME="$home" "$@"
"""


class Town:
    """The machine, and who types there."""

    def __init__(self, there: Machine, port: int) -> None:
        self.there, self.port = there, port
        self.files = there.files

    def types(
        self, who: str, commands: str, *, check: bool = True, cwd: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Type commands as a person in their home, ending at the first that fails; return what is printed."""
        if "reload ssh" in commands:
            with self.sshd_read_again():
                return self._types(who, commands, check=check, cwd=cwd, **env)
        return self._types(who, commands, check=check, cwd=cwd, **env)

    @contextlib.contextmanager
    def sshd_read_again(self) -> Iterator[None]:
        """Wait, after a reload of sshd, until it listens again.

        The reload only sends it a signal: who connects at once may still be served by the old configuration, or
        be refused.
        """
        before = self._listened()
        yield
        self.there.until(lambda: self._listened() > before)

    def _listened(self) -> int:
        said = self.there.run("journalctl", "-u", "ssh", "-o", "cat", "--no-pager").stdout
        return said.count("Server listening on ")

    def _types(
        self, who: str, commands: str, *, check: bool, cwd: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        home = f"/home/{who}"
        known = {"HOME": home, "USER": who, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **env}
        said = self.there.run(
            *["runuser", "-u", who, "--", "env", "-i", "-C", cwd or home],
            *[f"{key}={value}" for key, value in known.items()],
            *["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{commands}"],
            check=False,
        )
        assert not check or said.returncode == 0, f"{who} types: {commands}\n{said.stdout}"
        return said

    def tree(self, who: str, name: str, files: dict[str, bytes], mode: int = 0o644) -> None:
        """Put a folder into somebody's home, as theirs, its directories 0755."""
        for file, data in files.items():
            path = self.files / "home" / who / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
        self.there.run("chown", "-R", f"{who}:{who}", f"/home/{who}/{name}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine, as root."""
        place = self.files / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def mode(self, path: str) -> str:
        """Return "mode owner group" of something."""
        return self.there.run("stat", "-c", "%a %U %G", path).stdout.strip()

    def arrived(self, name: str, station: str = "done") -> None:
        """Wait until a folder lies in a station."""
        self.there.until(lambda: (self.files / "srv/dittohead" / station / name).is_dir())


@contextlib.contextmanager
def town(base: Path) -> Iterator[Town]:
    """Build it until the block ends; skips, with the reason, where that cannot be done."""
    python = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path="/usr/bin")
    if python is None:
        pytest.skip("THE DISTRIBUTION HAS NO PYTHON OF THIS VERSION: the service cannot be installed")
    packages = {Path(sysconfig.get_path("purelib")): "/opt/packages"}
    with machine(base, packages) as there:
        _install(there, python)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            made = Town(there, sock.getsockname()[1])
        _settle(made)
        yield made


def _install(there: Machine, python: str) -> None:
    """Do what `make install` does, without asking the network for what the tests have already."""
    copy(there.files / "usr/src/dittohead")
    there.run("env", "PYTHON=/none", "/usr/src/dittohead/tools/install", "--files-only")
    there.run(python, "-m", "venv", "--without-pip", "/opt/dittohead")
    place = site_of(Path("/opt/dittohead"))
    target = there.files / str(place).lstrip("/")
    shutil.copytree(site_of(installed()), target, dirs_exist_ok=True)
    (target / "tests-packages.pth").write_text("/opt/packages\n")
    program = there.files / "opt/dittohead/bin/dittohead"
    program.write_text("#!/opt/dittohead/bin/python\nfrom dittohead.cli import main\nmain()\n")
    program.chmod(0o755)
    there.run("ln", "-sf", "/opt/dittohead/bin/dittohead", "/usr/local/bin/dittohead")
    there.run("systemd-sysusers", "dittohead.conf")
    there.run("systemd-tmpfiles", "--create", "dittohead.conf")
    there.run("systemctl", "daemon-reload")


def _settle(made: Town) -> None:
    """Make the people, their sudo, and a door for ssh."""
    there, files = made.there, made.files
    for name in PEOPLE:
        there.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        there.run("chmod", "700", f"/home/{name}")
    shutil.copy("/usr/bin/setpriv", files / _RAISE)
    (files / _RAISE).chmod(0o4755)
    made.write("/usr/local/bin/sudo", _SUDO, 0o755)
    made.write(
        "/usr/local/bin/sudoedit",
        '#!/bin/sh\nexec sudo env EDITOR="$EDITOR" sh -c \'eval "$EDITOR \\"\\$1\\""\' - "$1"\n',
        0o755,
    )
    made.write("/etc/ssh/sshd_config.d/00-tests.conf", f"ListenAddress 127.0.0.1\nPort {made.port}\n")
    there.run("ssh-keygen", "-A")
    (files / "etc/systemd/system/ssh.service").unlink()
    there.run("systemctl", "daemon-reload")
    there.run("systemctl", "start", "ssh")
    key = (files / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    made.types(
        "away",
        "mkdir -m 700 .ssh && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519 && cp .ssh/id_ed25519.pub alice.pub",
    )
    made.write("/home/away/.ssh/known_hosts", f"[127.0.0.1]:{made.port} {key[0]} {key[1]}\n")
    made.write("/home/away/.ssh/config", f"Host *.example.org\n  HostName 127.0.0.1\n  Port {made.port}\n")
    there.run("chown", "-R", "away:away", "/home/away/.ssh")
    there.run("cp", "/home/away/alice.pub", "/home/ann/")
    there.run("chown", "ann:ann", "/home/ann/alice.pub")
    there.run("install", "-d", "-m", "700", "-o", "alice", "-g", "alice", "/home/alice/.ssh")
    there.run(
        "install",
        "-o",
        "alice",
        "-g",
        "alice",
        "-m",
        "600",
        "/home/away/alice.pub",
        "/home/alice/.ssh/authorized_keys",
    )
