"""dittohead-send against a real sshd: in this process, or as a process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dittohead_send import cli, ssh

from tests.support.sshd import Sshd
from tests.support.wheel import TOP

MANIFEST = "dittohead-manifest-sha256.txt"


class Person(ssh.Terminal):
    """Somebody at the terminal, who answers as told."""

    def __init__(self, *answers: str) -> None:
        self.is_there = True
        self.answers = list(answers)
        self.seen: list[str] = []

    def line(self, prompt: str) -> str:
        self.seen.append(prompt)
        return self.answers.pop(0)

    def secret(self, prompt: str) -> str:
        return self.line(prompt)

    def tell(self, text: str) -> None:
        self.seen.append(text)


@dataclass
class Sender:
    """Who sends, and where to."""

    server: Sshd
    inbox: Path
    here: Path  #: for the folders
    capsys: pytest.CaptureFixture[str]
    port: int = 0  #: of a proxy; 0 for the server's own
    out: str = ""
    err: str = ""
    options: list[str] = field(default_factory=list)

    def arguments(self, *folders: str | Path, to: str | None = None) -> list[str]:
        names = [str(self.here / folder) for folder in folders]
        where = f"{self.server.host}:{self.inbox}" if to is None else to
        base = self.server.base
        return [
            *names, where, "--port", str(self.port or self.server.port), "--identity", str(base / "client"),
            "--known-hosts", str(base / "known_hosts"), "--ssh-config", "none", *self.options,
        ]  # fmt: skip

    def send(self, *folders: str | Path, options: tuple[str, ...] = (), to: str | None = None) -> int:
        """Send in this process, and return the exit code."""
        with pytest.raises(SystemExit) as left:
            cli.main([*self.arguments(*folders, to=to), *options])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(left.value.code, int), left.value.code
        return left.value.code

    def results(self, *folders: str | Path, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Send with --json, and return what it says of each folder."""
        self.send(*folders, options=("--json", *options))
        return [json.loads(line) for line in self.out.splitlines()]

    def process(self, *folders: str | Path, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start it as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "dittohead_send", *self.arguments(*folders), *options],
            env={**os.environ, "PYTHONPATH": str(TOP / "send")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def names(self) -> list[str]:
        """Return what lies in the inbox."""
        return sorted(os.listdir(self.inbox))
