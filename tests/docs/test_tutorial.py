"""The tutorial, typed from its first line to the service, which tests/real/test_boot.py installs on a real systemd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.system.process import sweep
from tests.docs.console import Terminal, fits, session
from tests.docs.pages import DOCS, TOP, blocks
from tests.real import test_boot
from tests.support.length import outer_environ

# Some thirty programs, each started as a reader would: the machine may be busy.
pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = DOCS / "tutorial.md"


class Reader:
    """A newcomer with an empty home, one terminal to type in, and a second one for the daemon."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        plain = {
            k: v
            for k, v in outer_environ().items()
            if k not in ("COLUMNS", "LINES", "VIRTUAL_ENV", "MAKEFLAGS")
        }
        self.env = {**plain, "HOME": str(home)}
        # The address of the page leads to this checkout.
        (home / ".gitconfig").write_text(
            f'[url "file://{TOP}"]\n\tinsteadOf = https://git.example.org/dittohead.git\n[safe]\n\tdirectory = *\n'
        )
        self.terminal = Terminal(self.env, home)
        self.second: subprocess.Popen[bytes] | None = None

    def furnish(self, what: str = "run") -> None:
        """Put the tests' Python packages where `tools/setup` would install them from the network."""
        venv = self.home / "dittohead" / ".venv"
        venv.mkdir()
        there = Path(sys.executable).parent.parent
        for name in ("bin", "lib"):
            (venv / name).symlink_to(there / name)
        # As if it had been made and filled here: tools/setup looks.
        made = (there / "pyvenv.cfg").read_text()
        (venv / "pyvenv.cfg").write_text(made.replace(str(there), str(venv)))
        asked = subprocess.check_output(
            "cat pyproject.toml requirements.txt | cksum", shell=True, cwd=venv.parent
        )
        (venv / f".setup-{what}").write_bytes(asked)

    def run(self, command: str) -> None:
        """Type a command in the second terminal, and see that it has begun."""
        if self.second is not None:
            assert self.second.wait(20) == -signal.SIGKILL
        log = self.home / "log"
        with open(log, "wb") as out:
            self.second = subprocess.Popen(
                ["bash", "-c", command.replace("&& ", "&& exec ", 1)], env=self.env, stdout=out, stderr=out
            )
        while b"watch.armed" not in log.read_bytes():
            assert self.second.poll() is None, log.read_text()

    def close(self) -> None:
        self.terminal.close()
        if self.second is not None and self.second.poll() is None:
            self.second.kill()
            self.second.wait()
        sweep(self.home / "drop")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "home")
    yield made
    made.close()


def test_every_command_shows_what_the_page_shows(reader: Reader) -> None:
    """In order, as typed."""
    for typed in session(PAGE):
        if typed.command.endswith("dittohead run"):
            reader.run(typed.command)
        else:
            status = reader.terminal.follow(typed)
            failed = any("failed:" in line for line in typed.shown)
            assert status == (os.EX_DATAERR if failed else 0), typed.command
        if typed.command.startswith("git clone"):
            reader.furnish()
    views = reader.home / "drop" / "delivered" / "hale" / "hale-views" / "originals"
    assert shutil.which("dittohead", path=str(reader.home / "dittohead" / ".venv" / "bin"))
    for path in (reader.home / "scans" / "hale-views").iterdir():
        assert (views / path.name).read_bytes() == path.read_bytes()


def test_the_service_is_that_of_the_page_on_installing() -> None:
    """The only commands that are not typed here: a machine with a real systemd runs `make install`."""
    (service,) = (block.text for block in blocks(PAGE) if block.language == "sh")
    installing = "\n".join(block.text for block in blocks(DOCS / "install.md"))
    for line in service.splitlines():
        assert line == "cd ~/dittohead" or line in installing, line
    assert test_boot.booted.__doc__ is not None
    assert "`make install` was run" in test_boot.booted.__doc__


def test_what_is_not_shown_does_not_fit() -> None:
    """The comparison can fail."""
    assert fits(["a ... c", "...", "d"], "a  b   c\nx\ny\n\nd\n")
    assert not fits(["a"], "a\nb\n")
    assert not fits(["a", "b"], "a\n")
    assert not fits(["ok ..."], "bad 1\n")
