"""(a) How long an uploader's rename waits for its claim, against a bare inotify loop."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, folders, running

_CONFIG = """
    pipelines: {all: {match: ".*", steps: [{command: {argv: [/bin/true]}}]}}
    """

#: The least that can be done: one thread, blocked in read(2), renaming what it is told of.
_BARE = """
import ctypes, os, sys
inbox, done = sys.argv[1:]
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
libc.inotify_add_watch(fd, os.fsencode(inbox), 0x80)
print("ready", flush=True)
while os.read(fd, 4096):
    for name in os.listdir(inbox):
        if not name.startswith("."):
            os.rename(f"{inbox}/{name}", f"{done}/{name}")
            for place in (done, inbox):
                opened = os.open(place, os.O_RDONLY)
                os.fsync(opened)
                os.close(opened)
"""


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Drop folders one at a time, after random gaps, and wait for each to leave the inbox."""
    count = 30 if quick else 150
    (base / "peer/inbox").mkdir(parents=True)
    (base / "peer/done").mkdir()
    bare = subprocess.Popen(
        [sys.executable, "-c", _BARE, base / "peer/inbox", base / "peer/done"], stdout=subprocess.PIPE
    )
    try:
        assert bare.stdout is not None
        bare.stdout.readline()
        with running(Daemon(base / "ours", _CONFIG)) as made:
            time.sleep(0.5)
            ours, peer = _drops(made.root, base / "peer", count)
            made.until(made.done(count))
    finally:
        bare.kill()
        bare.wait()
    middle = statistics.median(ours)
    yield Row(
        "rename to claim, median",
        f"{middle:.1f} ms",
        f"{statistics.median(peer):.1f} ms (bare inotify loop)",
        f"{middle / statistics.median(peer):.0f}",
        "< 20 ms",
        middle < 20,
    )
    yield Row("rename to claim, p99", f"{_late(ours):.1f} ms", f"{_late(peer):.1f} ms")


def _drops(ours: Path, peer: Path, count: int) -> tuple[list[float], list[float]]:
    waits: tuple[list[float], list[float]] = ([], [])
    for root in (ours, peer):
        names = folders(root / "made", count)
    for name in names:
        for root, found in zip((ours, peer), waits, strict=True):
            time.sleep(random.uniform(0.06, 0.16))
            found.append(_drop(root / "made" / name, root / "inbox" / name))
    return waits


def _drop(made: Path, place: Path) -> float:
    """Return the milliseconds from the rename until the name is gone from the inbox."""
    ready = os.fsencode(place)
    os.rename(made, ready)
    started = time.perf_counter()
    while os.path.lexists(ready):  # gone from here is there in processing/: one rename
        time.sleep(0.00005)
    return (time.perf_counter() - started) * 1000


def _late(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
