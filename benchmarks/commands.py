"""What commands cost that ask the running daemon: people wait for them, and scripts call them in loops."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.common import DITTOHEAD, Daemon, Row, folders, ratio_of, running

_CONFIG = """
    pipelines: {all: {match: ".*", steps: [{command: {argv: [/bin/true]}}]}}
    """
_COMPLETING = {
    "_DITTOHEAD_COMPLETE": "bash_complete",
    "COMP_WORDS": "dittohead st",
    "COMP_CWORD": "1",
}

#: Each with the most that it may cost: CPU, as a multiple of a bare Python's.
_ASKED: Sequence[tuple[str, Sequence[str], Mapping[str, str], float]] = (
    ("--version", ["--version"], {}, 4),
    ("--help", ["--help"], {}, 4),
    ("completion", [], _COMPLETING, 5),
    ("status", ["status"], {}, 8),
    ("list", ["list"], {}, 8),
    ("show", ["show", "f00000"], {}, 8),
)


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Run each in turns with a Python that does nothing."""
    turns = 5 if quick else 15
    with running(Daemon(base / "root", _CONFIG)) as made:
        made.drop(base / "ready", folders(base / "ready", 10))
        made.until(made.done(10))
        for name, arguments, env, goal in _ASKED:
            command = [*DITTOHEAD, "--config", str(made.config), *arguments]
            pairs = [(_cpu(command, env), _cpu([sys.executable, "-c", "pass"], {})) for _ in range(turns)]
            ours, peer = zip(*pairs, strict=True)
            ratio = ratio_of(ours, peer)
            yield Row(
                f"{name}, CPU",
                f"{min(ours) * 1000:.0f} ms",
                f"{min(peer) * 1000:.0f} ms (python -c pass)",
                f"{ratio:.1f}",
                f"<= {goal:g}",
                holds=ratio <= goal,
            )


def _cpu(command: Sequence[str], env: Mapping[str, str]) -> float:
    """Run a command; return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
