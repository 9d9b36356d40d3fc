"""(b) Folders of small files through an rsync step, verified, against a shell loop."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, folders, ratio_of, running, settle_disk

_LOOP = 'mv "$0/$1" "$2/" && rsync -a "$2/$1/" "$3/$1/"'


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Time from the first rename until all lie in done/, against mv and rsync by xargs -P4."""
    count, rounds = (60, 2) if quick else (200, 3)
    ours: dict[int, list[float]] = {4: [], 8: []}  # by the number of jobs at once
    peer: list[float] = []
    for turn in range(rounds):
        here = base / str(turn)
        folders(here / "copy", count, files=10, size=2000)
        peer.append(_peer(here))
        for jobs, found in ours.items():
            names = folders(here / f"source{jobs}", count, files=10, size=2000)
            found.append(_ours(here, names, jobs))
    theirs = f"{statistics.median(peer):.2f} s (mv + rsync, xargs -P4)"
    for jobs, found in ours.items():
        ratio = ratio_of(found, peer)
        name = f"{count} folders by rsync, verified, {jobs} jobs"
        seconds = f"{statistics.median(found):.2f} s"
        # The goal is set for as many jobs as programs; more hide what lies between the programs.
        goal, holds = ("<= 1.2", ratio <= 1.2) if jobs == 4 else ("", None)
        yield Row(name, seconds, theirs, f"{ratio:.2f}", goal, holds)


def _ours(here: Path, names: list[str], jobs: int) -> float:
    out, source = here / f"out{jobs}", here / f"source{jobs}"
    out.mkdir()
    config = f"""
        limits: {{jobs: {jobs}, rsync: 4}}
        pipelines: {{all: {{match: ".*", steps: [{{rsync: {{to: "{out}/{{name}}/"}}}}]}}}}
        """
    with running(Daemon(here / f"root{jobs}", config)) as made:
        settle_disk()
        started = time.perf_counter()
        made.drop(source, names)
        made.until(made.done(len(names)))
        return time.perf_counter() - started


def _peer(here: Path) -> float:
    for name in ("moved", "delivered"):
        (here / name).mkdir()
    settle_disk()
    started = time.perf_counter()
    line = f"ls {here}/copy | xargs -P4 -I@ sh -c '{_LOOP}' {here}/copy @ {here}/moved {here}/delivered"
    subprocess.run(line, shell=True, check=True)
    return time.perf_counter() - started
