"""Validating bags, against sha512sum and bagit.py, the usual library; and the memory of a million files."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bagit

from benchmarks.common import Row, ratio_of
from dittohead.contract.worker import Inputs
from dittohead.model.records import Entry
from dittohead.workers.bag.options import BagOptions
from dittohead.workers.bag.worker import BagWorker
from tests.support.clamd import fake_clamd
from tests.support.context import LoneContext, source_of
from tests.support.daemon import site

_MB = 1_000_000


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Validate a bag of large files and one of small ones, by SHA-512, which the claim has not taken."""
    for name, files, size in (
        ("large", 6 if quick else 20, 50 * _MB),
        ("small", 3000 if quick else 10_000, 20_000),
    ):
        yield from _speed(base, name, files, size, turns=3 if quick else 5)
    yield _memory(base, 100_000 if quick else 1_000_000)
    yield _whole(base, 1000 if quick else 10_000)


def _speed(base: Path, name: str, files: int, size: int, turns: int) -> Iterator[Row]:
    root = base / name
    root.mkdir()
    data, draw = random.Random(1).randbytes(size), random.Random(2)
    for number in range(files):
        begin = draw.randrange(size)
        (root / f"{number:06}.bin").write_bytes(data[begin:] + data[:begin])
    bagit.make_bag(str(root), checksums=["sha512"], processes=1)
    source = source_of(root)
    ours, plain, library = [], [], []
    for turn in range(turns):
        context = LoneContext(base, root, source=source, job_id=f"01J{name.upper():0<6}{turn:017}")
        started = time.perf_counter()
        asyncio.run(_check(context))
        ours.append(source.size / (time.perf_counter() - started) / _MB)
        started = time.perf_counter()
        subprocess.run(["sha512sum", "--quiet", "-c", "manifest-sha512.txt"], cwd=root, check=True)
        plain.append(source.size / (time.perf_counter() - started) / _MB)
        started = time.perf_counter()
        bagit.Bag(str(root)).validate(processes=1)
        library.append(source.size / (time.perf_counter() - started) / _MB)
    ratio = ratio_of(ours[1:], plain[1:])  # the first is for the page cache
    yield Row(
        f"a bag of {files:,} {name} files, {source.size / _MB:,.0f} MB, validated by SHA-512",
        f"{statistics.median(ours):,.0f} MB/s",
        f"{statistics.median(plain):,.0f} MB/s (sha512sum -c)",
        f"{ratio:.2f} of its speed",
        ">= 0.9",
        ratio >= 0.9,
    )
    ratio = ratio_of(ours[1:], library[1:])
    yield Row(
        "  against bagit.py",
        "",
        f"{statistics.median(library):,.0f} MB/s",
        f"{ratio:.1f} times its speed",
        ">= 2",
        ratio >= 2,
    )


async def _check(context: LoneContext) -> None:
    await BagWorker().run(context, BagOptions(check=True))


def _memory(base: Path, files: int) -> Row:
    child = [sys.executable, "-m", "benchmarks.bags", str(base), str(files)]
    said = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
    grown, seconds = int(said[0]), float(said[1])
    return Row(
        f"memory that a bag of {files:,} files takes beside the program's own",
        f"{grown / 2**20:,.0f} MiB, {seconds:,.0f} s",
        goal="< 300 MiB",
        holds=grown < 300 << 20,
    )


_PIPELINE = """
root: .
pipelines:
  received:
    match: ".*"
    steps:
      - bag: {check: true}
      - scan: {clamd: "CLAMD"}
      - identify: {}
      - package: {form: folder, formats: identify}
      - ocfl: {from: package, root: OCFL}
"""


def _whole(base: Path, files: int) -> Row:
    """A bag from its arrival to its verified object, by a daemon; beside one copy of it and its digests."""
    made = base / "whole"
    made.mkdir()
    for number in range(files):
        (made / f"{number:06}.txt").write_text(f"page {number}\n" * 20)
    bagit.make_bag(str(made), checksums=["sha256"], processes=1)
    started = time.perf_counter()
    copy = base / "copy"
    subprocess.run(["cp", "-r", str(made), str(copy)], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "manifest-sha256.txt"], cwd=copy, check=True)
    subprocess.run(["sync", "-f", str(copy)], check=True)
    plain = time.perf_counter() - started
    (base / "ocfl").mkdir()
    with fake_clamd(base) as clamd:
        text = _PIPELINE.replace("CLAMD", clamd.address).replace("OCFL", str(base / "ocfl"))
        with site(base / "root", text) as here:
            here.start()
            made.rename(here.root / "inbox" / ".bag")
            started = time.perf_counter()
            (here.root / "inbox" / ".bag").rename(here.root / "inbox" / "bag")
            here.until((here.root / "done" / "bag").exists, timeout_s=1800)
            ours = time.perf_counter() - started
    return Row(
        f"a bag of {files:,} small files received, scanned, identified, described and stored in OCFL",
        f"{ours:,.1f} s",
        f"{plain:,.1f} s (cp -r, sha256sum -c, sync)",
        f"{ours / plain:.0f} times its time",
        "< 120 s",
        ours * 10_000 / files < 120,
    )


def _alone(base: Path, files: int) -> None:
    """In a process of its own: validate a bag of so many files by SHA-256, which the claim has taken."""
    root = base / "many"
    (root / "data").mkdir(parents=True)
    digest = hashlib.sha256(b"x").hexdigest()
    with open(root / "manifest-sha256.txt", "w") as out:
        out.writelines(f"{digest}  data/{number // 1000:04}/{number:07}\n" for number in range(files))
    (root / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    tags = [entry for entry in source_of(root).entries() if not entry.is_dir]

    def entries() -> Iterator[Entry]:
        yield tags[0]
        for number in range(files):
            yield Entry(path=b"data/%04d/%07d" % (number // 1000, number), size=1, sha256=digest)
        yield tags[1]

    source = Inputs(root=root, entries=entries, files=files + 2, size=files)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    asyncio.run(_check(LoneContext(base, root, source=source)))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024, time.perf_counter() - started)


if __name__ == "__main__":
    _alone(Path(sys.argv[1]), int(sys.argv[2]))
