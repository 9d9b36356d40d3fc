"""What a reader types, typed: commands of the pages in a shell with the programs they name."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner

from dittohead.cli import main
from tests.support.length import outer_environ
from tests.support.sshd import Sshd
from tests.support.wheel import program


def command(config: Path, *arguments: str) -> str:
    """Run a command of dittohead in this process, which costs a tenth of one of its own; return what it prints."""
    said = CliRunner().invoke(main, ["--config", str(config), *arguments])
    assert said.exit_code == 0, said.output
    return said.output


class Shell:
    """A place with a home and programs of its own, in which commands of a page are run."""

    def __init__(self, base: Path, config: Path | None = None) -> None:
        self.home, self.bin = base / "home", base / "bin"
        self.home.mkdir(parents=True)
        self.bin.mkdir()
        self.env = {
            **{k: v for k, v in outer_environ().items() if k not in ("COLUMNS", "LINES")},
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        if config is not None:
            self.program(
                "dittohead", f'exec {shlex.join(program())} --config {shlex.quote(str(config))} "$@"'
            )

    def program(self, name: str, text: str) -> None:
        """Put a program before those of the machine."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def sudo(self) -> None:
        """Stand in for sudo, which a machine without a person may lack: whatever user is named, it is this one."""
        self.program("sudo", 'if [ "$1" = -u ]; then shift 2; fi\nexec "$@"')

    def hosts(self, server: Sshd, *names: str) -> None:
        """Let ssh reach a server under these names, as whatever user a page says."""
        config = self.home / "ssh_config"
        config.write_text(
            f"Host {' '.join(names)}\n  HostName 127.0.0.1\n  Port {server.port}\n"
            f"  IdentityFile {server.base}/client\n  UserKnownHostsFile {server.base}/known_hosts\n"
        )
        me = getpass.getuser()
        for client in ("ssh", "sftp"):
            self.program(
                client,
                # rsync says `-l USER HOST`, people USER@HOST.
                'n=$#; before=; while [ "$n" -gt 0 ]; do a=$1; shift; n=$((n - 1)); '
                f"case $before:$a in -l:*) a={me} ;; *:*@*.example.org) a={me}@${{a#*@}} ;; esac; "
                'before=$a; set -- "$@" "$a"; done\n'
                f'exec /usr/bin/{client} -F {config} "$@"',
            )

    def run(
        self, commands: str, *, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run commands as they stand on a page, ending at the first that fails."""
        said = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.home,
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert not check or said.returncode == 0, commands + "\n" + said.stdout
        return said
