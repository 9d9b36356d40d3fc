"""(f) What a daemon costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, running

_CONFIG = """
    pipelines: {all: {match: ".*", steps: [{command: {argv: [/bin/true]}}]}}
    """


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Read its CPU time and memory from /proc over some seconds."""
    span = 10 if quick else 20
    with running(Daemon(base / "root", _CONFIG)) as made:
        time.sleep(3)
        before = made.cpu_seconds()
        time.sleep(span)
        percent = (made.cpu_seconds() - before) / span * 100
        memory = made.memory_mb()
    yield Row("idle, of one core", f"{percent:.2f} %", goal="< 0.5 %", holds=percent < 0.5)
    yield Row("idle, resident memory", f"{memory:.0f} MB", goal="< 100 MB", holds=memory < 100)
