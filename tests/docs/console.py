"""Console sessions of a page: what stands behind `$` is typed, what stands below it is to be seen."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import Block, blocks

#: Commands that change nothing: typed again until they show what the page shows ("a moment later").
LOOKING = re.compile(r"^(ls|cat|dittohead (list|show|status|verify))\b")


@dataclass(frozen=True)
class Typed:
    """One command with what is shown below it."""

    block: Block
    command: str
    shown: list[str]  #: lines; "..." stands for anything, alone on a line for any lines


def session(page: Path) -> Iterator[Typed]:
    """Yield the commands of a page's console blocks, in order."""
    for block in blocks(page):
        if block.language != "console":
            continue
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, *shown = part.rstrip("\n").split("\n")
            yield Typed(block, command, shown)


def fits(shown: list[str], printed: str) -> bool:
    """Tell whether what was printed is what the page shows; blank lines do not count."""
    pattern = ""
    for line in filter(None, (line.rstrip() for line in shown)):
        if line == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            # Columns are as wide as the longest word in them.
            words = [r"[^\n]*".join(map(re.escape, word.split("..."))) for word in line.split()]
            pattern += r"[ ]*" + r"[ ]+".join(words) + r"[ ]*\n"
    seen = "".join(f"{line}\n" for line in printed.splitlines() if line.strip())
    return re.fullmatch(pattern, seen) is not None


class Terminal:
    """A shell that remembers where it is and what it was told."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(env),
            cwd=cwd,
        )

    def type(self, command: str) -> tuple[str, int]:
        """Type a command and return what it prints, and its exit status."""
        mark = f"--typed-{os.urandom(8).hex()}--"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command} </dev/null\nprintf '\\n{mark}%s\\n' $?\n")
        self._shell.stdin.flush()
        printed = ""
        for line in self._shell.stdout:
            if line.startswith(mark):
                return printed, int(line.removeprefix(mark))
            printed += line
        raise AssertionError(f"the shell ended at: {command}\n{printed}")

    def close(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(20)
        assert self._shell.stdout is not None
        self._shell.stdout.close()

    def follow(self, typed: Typed, timeout_s: float = 60) -> int:
        """Type a command of a page and see what the page shows; return its exit status."""
        end = time.monotonic() + timeout_s
        while True:
            printed, status = self.type(typed.command)
            if fits(typed.shown, printed) or (not typed.shown and status == 0):
                return status
            again = LOOKING.match(typed.command) and time.monotonic() < end
            assert again, (
                f"{typed.block.place}: $ {typed.command}\nis to show:\n"
                + "\n".join(typed.shown)
                + f"\nit shows:\n{printed}"
            )
            time.sleep(0.1)
