"""The benchmarks, one function each."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, daemon, folders, median, steps_seconds
from dittohead import files, manifest
from dittohead.threads import Stop

NOOP = "pipelines: {all: {match: '.*', steps: [%s]}}\n"


class NoopDaemon(Daemon):
    """A daemon whose pipeline is steps that do nothing."""

    def __init__(self, root: Path, steps: int) -> None:
        listed = ", ".join(f"{{noop: {{name: s{i}}}}}" for i in range(steps))
        super().__init__(root, NOOP % listed)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.noop", str(self.root / "config.yaml")],
            stdout=self.log,
            stderr=self.log,
        )
        self.until(lambda: b"watch.armed" in (self.root / "daemon.log").read_bytes())


def claim(base: Path, quick: bool) -> Iterator[Row]:
    """(a) From the uploader's rename to the claim."""
    count, waits = 40 if quick else 200, []
    made = NoopDaemon(base / "claim", 1)
    made.start()
    try:
        for i in range(count):
            hidden, name = made.root / "inbox" / f".n{i}", f"n{i}"
            hidden.mkdir()
            (hidden / "a").write_bytes(b"x")
            time.sleep(random.uniform(0.05, 0.1))
            inbox = made.root / "inbox" / name
            started = time.perf_counter()
            os.rename(hidden, inbox)
            while inbox.exists():
                time.sleep(0.0002)
            waits.append((time.perf_counter() - started) * 1000)
        made.until(lambda: made.done() == count)
    finally:
        made.stop()
    waits.sort()
    middle, late = median(waits), waits[int(len(waits) * 0.99)]
    yield Row("rename to claim, median", f"{middle:.1f} ms", "", "", "< 20 ms", middle < 20)
    yield Row("rename to claim, p99", f"{late:.1f} ms", "", "", "", None)


def rsync(base: Path, quick: bool) -> Iterator[Row]:
    """(b) Folders of small files through rsync, four at once, against a shell loop."""
    count, rounds = (60, 1) if quick else (200, 3)
    ratios, ours_all, peer_all = [], [], []
    for turn in range(rounds):
        source = folders(base / f"rs{turn}", count)
        shutil.copytree(source, base / f"rp{turn}")
        config = f"""
            limits: {{jobs: 8, rsync: 4}}
            pipelines: {{all: {{match: ".*", steps: [{{rsync: {{to: "{base}/out{turn}/{{name}}/"}}}}]}}}}
            """
        (base / f"out{turn}").mkdir()
        with daemon(base, f"rd{turn}", config) as made:
            started = time.perf_counter()
            for folder in sorted(os.listdir(source)):
                os.rename(source / folder, made.root / "inbox" / folder)
            made.until(lambda made=made: made.done() == count)
            ours = time.perf_counter() - started
        (base / f"pp{turn}").mkdir()
        (base / f"po{turn}").mkdir()
        here, out = f"{base}/pp{turn}", f"{base}/po{turn}"
        loop = f'mv {base}/rp{turn}/"$1" {here}/ && rsync -rt {here}/"$1"/ {out}/"$1"/'
        started = time.perf_counter()
        subprocess.run(f"ls {base}/rp{turn} | xargs -P4 -I@ sh -c '{loop}' sh @", shell=True, check=True)
        peer = time.perf_counter() - started
        ratios.append(ours / peer)
        ours_all.append(ours)
        peer_all.append(peer)
    ratio = median(ratios)
    yield Row(
        f"{count} folders by rsync, verified",
        f"{median(ours_all):.2f} s",
        f"{median(peer_all):.2f} s (mv + rsync, xargs -P4)",
        f"{ratio:.2f}",
        "<= 1.2",
        ratio <= 1.2,
    )


def convert(base: Path, quick: bool) -> Iterator[Row]:
    """(c) Images of 6000x8000 against the vips program, two at once."""
    count = 4 if quick else 16
    source = base / "images"
    source.mkdir()
    for i in range(2):
        subprocess.run(
            ["vips", "perlin", "p.v", "6000", "8000", "--uchar", "--seed", str(i)], cwd=base, check=True
        )
        subprocess.run(["vips", "bandjoin", "p.v p.v p.v", "j.v"], cwd=base, check=True)
        subprocess.run(
            ["vips", "copy", "j.v", f"src{i}.tif", "--interpretation", "srgb"], cwd=base, check=True
        )
    for i in range(count):
        os.link(base / f"src{i % 2}.tif", source / f"{i:02}.tif")
    peer = _peer_convert(base, source)
    for verify, goal, test in ((False, ">= 1.0 of its speed", 1.0), (True, "<= 1.5 of its time", 1.5)):
        config = f"""
            limits: {{convert: 2}}
            pipelines: {{all: {{match: ".*", steps: [{{convert: {{verify: {str(verify).lower()}}}}}]}}}}
            """
        with daemon(base, f"cv{verify}", config) as made:
            shutil.copytree(source, made.root / "inbox" / ".x", copy_function=os.link)
            os.rename(made.root / "inbox" / ".x", made.root / "inbox" / "x")
            made.until(lambda made=made: made.done() == 1, pause_s=0.05)
            ours = steps_seconds(made.root, "x")["convert"]
        ratio = ours / peer
        said = f"{peer / ours:.2f} of its speed" if not verify else f"{ratio:.2f} of its time"
        name = f"{count} images, " + ("every level read back" if verify else "unverified")
        yield Row(name, f"{ours:.2f} s", f"{peer:.2f} s (vips, xargs -P2)", said, goal, ratio <= test)


def _peer_convert(base: Path, source: Path) -> float:
    (base / "po").mkdir(exist_ok=True)
    flags = "--tile --pyramid --compression jpeg --Q 85 --tile-width 256 --tile-height 256"
    line = f"ls {source} | xargs -P2 -I@ vips tiffsave {source}/@ {base}/po/@ {flags}"
    started = time.perf_counter()
    subprocess.run(line, shell=True, check=True)
    return time.perf_counter() - started


def hashing(base: Path, quick: bool) -> Iterator[Row]:
    """(d) The manifest's speed against hashlib alone."""
    size, count = 64 << 20, 4 if quick else 16
    root = base / "big"
    root.mkdir()
    block = os.urandom(1 << 20) * 64
    for i in range(count):
        (root / f"{i:02}").write_bytes(block)
    ours, peer = [], []
    for _ in range(3):
        started = time.perf_counter()
        manifest.take(root, base / "m", stop=Stop())
        ours.append(size * count / (time.perf_counter() - started) / 1e6)
        started = time.perf_counter()
        for path in sorted(root.iterdir()):
            with open(path, "rb") as file:
                hashlib.file_digest(file, "sha256")
        peer.append(size * count / (time.perf_counter() - started) / 1e6)
    ratio = median([a / b for a, b in zip(ours, peer, strict=True)])
    yield Row(
        "manifest of large files",
        f"{median(ours):,.0f} MB/s",
        f"{median(peer):,.0f} MB/s (hashlib, one core)",
        f"{ratio:.2f}",
        ">= 0.9",
        ratio >= 0.9,
    )


def engine(base: Path, quick: bool) -> Iterator[Row]:
    """(e) A folder through five steps that do nothing, against bare transactions and renames."""
    count = 100 if quick else 400
    source = folders(base / "es", count, files=1, size=10)
    made = NoopDaemon(base / "ed", 5)
    made.start()
    try:
        before, started = made.cpu_seconds(), time.perf_counter()
        for folder in sorted(os.listdir(source)):
            os.rename(source / folder, made.root / "inbox" / folder)
        made.until(lambda: made.done() == count)
        ours = (time.perf_counter() - started) / count * 1000
        cpu = (made.cpu_seconds() - before) / count * 1000
    finally:
        made.stop()
    peer, floor = _floor(base, count)
    yield Row(
        "five no-op steps, CPU per folder",
        f"{cpu:.1f} ms",
        f"{floor:.1f} ms (bare SQLite, files, renames)",
        f"{cpu / floor:.1f}",
        "< 10 ms, or floor + 20 %",
        cpu < max(10.0, floor * 1.2),
    )
    yield Row(
        "five no-op steps, time per folder",
        f"{ours:.1f} ms",
        f"{peer:.1f} ms",
        f"{ours / peer:.1f}",
        "",
        None,
    )


def _floor(base: Path, count: int) -> tuple[float, float]:
    """Return (wall, CPU) ms per folder of what any durable engine must do: 10 commits, 4 files, 2 renames."""
    work = base / "floor"
    for name in ("a", "b", "c"):
        (work / name).mkdir(parents=True)
    connection = sqlite3.connect(work / "db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b, c);")
    started, cpu = time.perf_counter(), time.process_time()
    for i in range(count):
        name = f"{i}".encode()
        os.mkdir(os.path.join(os.fsencode(work), b"a", name))
        _move(work, "a", "b", name)
        for _ in range(10):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (?, ?, ?)", (i, "x" * 200, "y"))
            connection.execute("UPDATE t SET b = 'z' WHERE rowid = ?", (i + 1,))
            connection.execute("COMMIT")
        for part in ("m", "r"):
            files.write_durably(work / "c" / f"{i}.{part}", b"x" * 500)
        _move(work, "b", "a", name)
    connection.close()
    return (time.perf_counter() - started) / count * 1000, (time.process_time() - cpu) / count * 1000


def _move(work: Path, source: str, to: str, name: bytes) -> None:
    here, there = os.fsencode(work / source), os.fsencode(work / to)
    files.rename_noreplace(os.path.join(here, name), os.path.join(there, name))
    files.fsync_dir(there)
    files.fsync_dir(here)


def idle(base: Path, quick: bool) -> Iterator[Row]:
    """(f) A daemon with nothing to do."""
    span = 8 if quick else 30
    with daemon(
        base, "idle", 'pipelines: {all: {match: ".*", steps: [{command: {argv: ["true"]}}]}}'
    ) as made:
        time.sleep(4)
        before = made.cpu_seconds()
        time.sleep(span)
        percent = (made.cpu_seconds() - before) / span * 100
        rss = made.rss_mb()
    yield Row("idle, part of one core", f"{percent:.2f} %", "", "", "< 0.5 %", percent < 0.5)
    yield Row("idle, resident memory", f"{rss:.0f} MB", "", "", "< 100 MB", rss < 100)


def backlog(base: Path, quick: bool) -> Iterator[Row]:
    """(g) Cost per folder with more and more of them waiting; one folder with very many files."""
    sizes = (100, 500, 2000) if quick else (100, 1000, 10_000)
    costs = []
    for count in sizes:
        source = folders(base / f"bs{count}", count, files=1, size=10)
        made = NoopDaemon(base / f"bd{count}", 1)
        inbox = made.root / "inbox"
        os.rename(source, inbox)
        made.start()
        try:
            before, started = 0.0, time.perf_counter()
            made.until(lambda made=made, count=count: made.done() == count, pause_s=0.05)
            cpu = (made.cpu_seconds() - before) / count * 1000
            wall = (time.perf_counter() - started) / count * 1000
        finally:
            made.stop()
        costs.append(cpu)
        yield Row(
            f"CPU per folder, {count:,} waiting", f"{cpu:.1f} ms", f"{wall:.1f} ms elapsed", "", "", None
        )
    flat = (costs[-1] * sizes[-1] - costs[0] * sizes[0]) / (sizes[-1] - sizes[0]) / costs[1]
    yield Row("per folder, most against fewer", "", "", f"{flat:.2f}", "flat: <= 1.3", flat <= 1.3)
    yield from _many_files(base, 20_000 if quick else 200_000)


def _many_files(base: Path, count: int) -> Iterator[Row]:
    folder = base / "many"
    for i in range(count // 1000):
        (folder / f"{i:03}").mkdir(parents=True)
        for j in range(1000):
            with open(folder / f"{i:03}" / f"{j:03}", "wb") as file:
                file.write(b"%d" % j)
    made = NoopDaemon(base / "manyd", 1)
    made.start()
    try:
        small = made.rss_mb()
        started = time.perf_counter()
        os.rename(folder, made.root / "inbox" / "many")
        made.until(lambda: made.done() == 1, pause_s=0.05)
        seconds = time.perf_counter() - started
        grown = made.rss_mb("VmHWM") - small
    finally:
        made.stop()
    per = seconds / count * 1_000_000
    yield Row(
        f"one folder of {count:,} files",
        f"{per:.0f} us a file",
        f"+{grown:.0f} MB",
        "",
        "memory flat",
        grown < 60,
    )


ALL: dict[str, Callable[[Path, bool], Iterator[Row]]] = {
    "claim": claim,
    "rsync": rsync,
    "convert": convert,
    "manifest": hashing,
    "engine": engine,
    "idle": idle,
    "backlog": backlog,
}
