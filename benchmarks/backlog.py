"""(g) The cost of a folder with few and with very many waiting; a folder of very many files."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import NoopDaemon, Row, folders, running, settle_disk, settled

_WARM = 20  #: folders that go first, uncounted


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Drop all at once; CPU of the daemon's process and time from then on, for each folder."""
    sizes = (100, 500, 2_000) if quick else (100, 1_000, 10_000)
    costs: list[float] = []
    for count in sizes:
        found = [_cost(base / f"{count}-{turn}", count) for turn in range(3 if count <= 100 else 1)]
        cpu, wall = (statistics.median(values) for values in zip(*found, strict=True))
        costs.append(cpu)
        yield Row(f"CPU a folder, {count:,} waiting", f"{cpu:.1f} ms", f"{wall:.1f} ms elapsed")
    flat = costs[-1] / costs[0]
    yield Row("  most against fewest", "", "", f"{flat:.2f}", "flat: <= 1.5", flat <= 1.5)
    yield from _many_files(base, 20_000 if quick else 200_000)


def _cost(here: Path, count: int) -> tuple[float, float]:
    """Return (CPU, elapsed) milliseconds a folder."""
    names = folders(here / "source", count + _WARM)
    with running(NoopDaemon(here / "root")) as made:
        made.drop(here / "source", names[:_WARM])
        made.until(made.done(_WARM))
        settle_disk()
        before, started = made.cpu_seconds(), time.perf_counter()
        made.drop(here / "source", names[_WARM:])
        made.until(made.done(len(names)), pause_s=0.02)
        wall = time.perf_counter() - started
        cpu = made.cpu_seconds() - before
    return cpu / count * 1000, wall / count * 1000


def _many_files(base: Path, count: int) -> Iterator[Row]:
    """Manifest, recheck and receipt of one folder, and what memory they take."""
    folder = base / "many"
    for i in range(count // 1000):
        (folder / f"{i:03}").mkdir(parents=True)
        for j in range(1000):
            with open(folder / f"{i:03}" / f"{j:03}", "wb") as file:
                file.write(b"%d" % j)
    with running(NoopDaemon(base / "manyroot")) as made:
        settle_disk()
        settled()
        before, started = made.memory_mb(), time.perf_counter()
        os.rename(folder, made.root / "inbox/many")
        made.until(made.done(1), pause_s=0.02)
        seconds = time.perf_counter() - started
        peak = made.memory_mb("VmHWM")
    yield Row(f"one folder of {count:,} files", f"{seconds / count * 1000:.3f} s for 1,000 files")
    grown = peak - before
    yield Row("  its memory at most", f"{peak:.0f} MB", f"{grown:+.0f} MB", "", "+ < 60 MB", grown < 60)
