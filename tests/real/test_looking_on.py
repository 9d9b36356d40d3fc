"""Looking on from a terminal: what steps print, and the status as it changes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.wheel import program

pytestmark = pytest.mark.service

CONFIG = r"""
root: .
space: {floor: 0}
pipelines:
  talks:
    match: ".*"
    steps:
      - checksum: {}
      - command: {name: first, argv: [sh, -c, 'printf "ein [bold] \033[2Jü\n"; echo more']}
      - command: {name: held, argv: [sh, -c, 'echo begun; while ! test -e GATE; do sleep 0.05; done; echo ended']}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG.replace("GATE", str(tmp_path / "gate"))) as made:
        made.start()
        yield made


def test_what_steps_print_is_shown_and_followed(here: Site, tmp_path: Path) -> None:
    """Under each step's name; markup and escape sequences of programs do nothing to the reader's terminal."""
    here.drop("x", {"a": "1"})
    here.until(lambda: "begun" in here.run("logs", "x", check=False).stdout)
    assert here.run("logs", "x", "--step", "first").stdout == "first\nein [bold] \\x1b[2Jü\nmore\n"
    with subprocess.Popen(
        [*program(), "--config", str(here.config), "logs", "x", "--step", "held", "-f"],
        stdout=subprocess.PIPE,
        text=True,
        env=here.env | {"PYTHONUNBUFFERED": "1"},
    ) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)] == ["held\n", "begun\n"]
        (tmp_path / "gate").touch()
        assert follower.stdout.read() == "ended\n"
        assert follower.wait(20) == 0
    assert here.run("logs", "x", "--step", "held").stdout == "held\nbegun\nended\n"
    told = [json.loads(line) for line in here.run("logs", "x", "--json").stdout.splitlines()]
    assert [(line["step"], line["line"]) for line in told] == [
        ("first", "ein [bold] \x1b[2Jü"),
        ("first", "more"),
        ("held", "begun"),
        ("held", "ended"),
    ]


def test_what_is_not_there_is_said(here: Site) -> None:
    """A step that prints nothing, a step there is none of, a job there is none of."""
    here.drop("x", {"a": "1"})
    here.until(lambda: "begun" in here.run("logs", "x", check=False).stdout)
    nothing = here.run("logs", "x", "--step", "checksum", check=False)
    assert (nothing.returncode, nothing.stdout) == (69, "")
    assert "nothing that the steps of x printed is kept" in nothing.stderr
    assert "there are: checksum, first, held" in here.run("logs", "x", "--step", "no", check=False).stderr
    assert here.run("logs", "nobody", check=False).returncode == 66


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, here: Site, *arguments: str, columns: int = 100, **env: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
            os.execvpe(program()[0], [*program(), "--config", str(here.config), *arguments], here.env | env)
        self.resize(columns)
        self.text, self.seen = "", 0

    def resize(self, columns: int) -> None:
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def until(self, pattern: str, timeout_s: float = 90) -> str:
        """Read until what has come since the last time fits; return it, to the end of what fits."""
        end, begin = time.monotonic() + timeout_s, self.seen
        while not (found := re.search(pattern, self.text[begin:], re.DOTALL)):
            left = end - time.monotonic()
            assert left > 0, self.text[-2000:]
            if select.select([self.fd], [], [], left)[0]:
                self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
        self.seen = begin + found.end()
        return self.text[begin : self.seen]

    def end(self) -> int:
        os.kill(self.pid, signal.SIGINT)
        while True:
            try:
                os.read(self.fd, 65536)
            except OSError:
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_status_is_shown_as_it_changes(here: Site, tmp_path: Path) -> None:
    """In place; at the terminal's present width; until Ctrl-C."""
    watching = Terminal(here, "status", "--watch", TERM="xterm-256color")
    watching.until("none yet")
    here.drop("x", {"a": "1"})
    watching.until(r"running.*x .*step 3 of 3 \(held\)")
    watching.resize(60)
    (tmp_path / "gate").touch()
    assert "\x1b[" in watching.until("1 done")
    assert watching.end() == 130


def test_without_colour_it_is_the_same(here: Site) -> None:
    """NO_COLOR is respected; where it is not a terminal, the command says what there is instead."""
    watching = Terminal(here, "status", "--watch", TERM="xterm-256color", NO_COLOR="1")
    text = watching.until("none yet")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)
    watching.end()
    refused = here.run("status", "--watch", check=False)
    assert refused.returncode == 64
    assert "--json" in refused.stderr
