"""(d) The manifest's speed against hashlib alone on one core."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Row, ratio_of
from dittohead.folders import manifest
from dittohead.system.threads import Stop

_SIZE = 64 << 20


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Hash 1 GiB of large files, warm, and then many small ones."""
    big, small = base / "big", base / "small"
    _large(big, 4 if quick else 16)
    names = _small(small, 5_000 if quick else 20_000)
    yield _compare("manifest of 64 MiB files", big, base / "m", 5 if quick else 3, goal=0.9)
    yield _compare(f"manifest of {names:,} small files", small, base / "m", 3, goal=None)


def _large(root: Path, count: int) -> None:
    root.mkdir()
    block = os.urandom(1 << 20) * (_SIZE >> 20)
    for i in range(count):
        (root / f"{i:02}").write_bytes(block)


def _small(root: Path, count: int) -> int:
    for i in range(count):
        if i % 1000 == 0:
            (root / f"{i // 1000:03}").mkdir(parents=True)
        (root / f"{i // 1000:03}" / f"{i % 1000:03}").write_bytes(b"%d" % i * 200)
    return count


def _compare(name: str, root: Path, out: Path, rounds: int, *, goal: float | None) -> Row:
    ours: list[float] = []
    peer: list[float] = []
    _alone(root)  # warm
    for _ in range(rounds):
        peer.append(_alone(root))
        started = time.perf_counter()
        size = manifest.take(root, out, stop=Stop()).size
        ours.append(size / (time.perf_counter() - started) / 1e6)
    ratio = ratio_of(ours, peer)
    return Row(
        name,
        f"{statistics.median(ours):,.0f} MB/s",
        f"{statistics.median(peer):,.0f} MB/s (hashlib, one core)",
        f"{ratio:.2f} of its speed",
        "" if goal is None else f">= {goal}",
        None if goal is None else ratio >= goal,
    )


def _alone(root: Path) -> float:
    """Return the MB/s of nothing but open, read, hash."""
    size = 0
    started = time.perf_counter()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")
            size += file.tell()
    return size / (time.perf_counter() - started) / 1e6
