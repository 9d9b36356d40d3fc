"""(f) Files to an S3 store on loopback, each verified, against s5cmd and rclone."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Daemon, Row, ratio_of, running, settle_disk, shown
from tests.support.rclone import ACCESS, SECRET, Rclone, program, rclone

_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
_S5CMD = [str(Path(sys.executable).parent / "s5cmd")]


@dataclass(frozen=True)
class Work:
    """A folder to be sent."""

    name: str
    count: int
    size: int  #: bytes of each file

    def make(self, folder: Path) -> None:
        """Write the files, none like another."""
        folder.mkdir(parents=True)
        for i in range(self.count):
            with open(folder / f"{i:05}.bin", "wb") as file:
                for at in range(0, self.size, 1 << 20):
                    file.write(os.urandom(min(1 << 20, self.size - at)))


class WatchedDaemon(Daemon):
    """A daemon that notes how long its loop stands still."""

    def _argv(self) -> list[str]:
        notes = str(self.root / "stalls")
        return [sys.executable, "-m", "benchmarks.stalls", str(self.config), notes]


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Time the step, and the programs' whole run, in turns."""
    os.environ |= _KEYS
    works = [Work("1,000 files of 100 kB", 1000, 100_000), Work("a file of 1 GB", 1, 1_000_000_000)]
    if quick:
        works = [Work("300 files of 100 kB", 300, 100_000), Work("a file of 200 MB", 1, 200_000_000)]
    with rclone(base / "store", cache="1h") as store:
        for work in works:
            yield from _up(base / "up", store, work, rounds=2 if quick else 3)


def _up(base: Path, store: Rclone, work: Work, rounds: int) -> Iterator[Row]:
    source = base / "source"
    work.make(source)
    ours, peers = [], {"s5cmd": [], "rclone": []}  # type: ignore[var-annotated]
    memory = stall = 0.0
    for turn in range(rounds):
        for peer, found in peers.items():
            with _bucket(store) as bucket:
                found.append(_program(peer, store, str(source), bucket))
        with _bucket(store) as bucket:
            seconds, most, late = _ours(base / str(turn), source, store, bucket)
            ours.append(seconds)
            memory, stall = max(memory, most), max(stall, late)
    best = min(peers, key=lambda peer: statistics.median(peers[peer]))
    ratio = 1 / ratio_of(ours, peers[best])
    theirs = ", ".join(f"{statistics.median(found):.2f} s ({peer})" for peer, found in peers.items())
    name = f"{work.name} to S3, verified"
    said = f"{ratio:.2f} of {best}'s speed"
    yield Row(name, f"{statistics.median(ours):.2f} s", theirs, said, ">= 0.8", ratio >= 0.8)
    yield Row("  the most memory", f"{memory:.0f} MB", "", "", "< 200 MB", memory < 200)
    yield Row("  the longest stall of the loop", f"{stall * 1000:.0f} ms", "", "", "< 20 ms", stall < 0.02)
    shutil.rmtree(base)


@contextlib.contextmanager
def _bucket(store: Rclone) -> Iterator[str]:
    """Make an empty bucket; what is sent there is removed, and not written out at somebody's cost."""
    path = store.base / f"bench-{time.monotonic_ns()}"
    subprocess.run(
        [*_S5CMD, "--endpoint-url", store.url, "mb", f"s3://{path.name}"], check=True, capture_output=True
    )
    settle_disk()
    try:
        yield path.name
    finally:
        shutil.rmtree(path)


def _program(peer: str, store: Rclone, source: str, bucket: str) -> float:
    if peer == "s5cmd":
        argv = [*_S5CMD, "--endpoint-url", store.url, "cp", f"{source}/", f"s3://{bucket}/"]
    else:
        remote = f":s3,provider=Other,env_auth=true,endpoint='{store.url}':{bucket}"
        argv = [program(), "copy", source, remote, "--transfers", "16"]
    started = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - started


def _ours(root: Path, source: Path, store: Rclone, bucket: str) -> tuple[float, float, float]:
    """Return the step's seconds, the most memory in MB, and the longest stall in seconds."""
    config = f"""
        pipelines:
          all: {{match: ".*", steps: [upload: {{bucket: {bucket}, endpoint_url: "{store.url}"}}]}}
        """
    with running(WatchedDaemon(root, config)) as made:
        shutil.copytree(source, root / "inbox/.x", copy_function=os.link)
        os.rename(root / "inbox/.x", root / "inbox/x")
        made.until(made.done(1), pause_s=0.02)
        step = next(s["seconds"] for s in shown(root, "x")["all_steps"] if s["name"] == "upload")
        memory = made.memory_mb("VmHWM")
    lates = [float(line) for line in (root / "stalls").read_text().split()]
    shutil.rmtree(root)
    return step, memory, max(lates)
