"""(b) Folders of small files through an rsync step, verified, against a shell loop."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, folders, ratio_of, running, settle_disk

_LOOP = 'mv "$0/$1" "$2/" && rsync -a "$2/$1/" "$3/$1/"'


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Time from the first rename until all lie in done/, against mv and rsync by xargs -P4."""
    count, rounds = (60, 3) if quick else (200, 3)
    ours: list[float] = []
    peer: list[float] = []
    for turn in range(rounds):
        here = base / str(turn)
        names = folders(here / "source", count, files=10, size=2000)
        shutil.copytree(here / "source", here / "copy")
        peer.append(_peer(here))
        ours.append(_ours(here, names))
    ratio = ratio_of(ours, peer)
    yield Row(
        f"{count} folders of 10 files by rsync, verified",
        f"{statistics.median(ours):.2f} s",
        f"{statistics.median(peer):.2f} s (mv + rsync, xargs -P4)",
        f"{ratio:.2f}",
        "<= 1.2",
        ratio <= 1.2,
    )


def _ours(here: Path, names: list[str]) -> float:
    (here / "out").mkdir()
    config = f"""
        limits: {{jobs: 4, rsync: 4}}
        pipelines: {{all: {{match: ".*", steps: [{{rsync: {{to: "{here}/out/{{name}}/"}}}}]}}}}
        """
    with running(Daemon(here / "root", config)) as made:
        settle_disk()
        started = time.perf_counter()
        made.drop(here / "source", names)
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
