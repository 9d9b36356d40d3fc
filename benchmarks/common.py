"""What the benchmarks share: a daemon process and what it costs, peers, and rows of the table."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DITTOHEAD = [sys.executable, "-m", "dittohead"]
_TICKS = os.sysconf("SC_CLK_TCK")
_NOOP = "limits: {jobs: 8}\npipelines: {all: {match: '.*', steps: [%s]}}\n"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    ours: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    holds: bool | None = None  #: None: for information


class Daemon:
    """A real daemon process on a root of its own."""

    command: Sequence[str] = DITTOHEAD

    def __init__(self, root: Path, config: str) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.log = root / "daemon.log"
        root.mkdir(parents=True, exist_ok=True)
        self.config.write_text("root: .\nspace: {floor: 0}\n" + textwrap.dedent(config))
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self._argv(), stdout=log, stderr=log)
        self.until(lambda: b"watch.armed" in self.log.read_bytes())

    def _argv(self) -> list[str]:
        return [*DITTOHEAD, "--config", str(self.config), "run"]

    def until(self, check: Callable[[], bool], timeout_s: float = 200, pause_s: float = 0.005) -> None:
        """Wait until a condition holds; if it never does, end with the daemon's log."""
        end = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(self.log.read_text()[-2000:])
            time.sleep(pause_s)

    def done(self, count: int) -> Callable[[], bool]:
        """Return a check that this many folders lie in done/."""
        return lambda: len(os.listdir(self.root / "done")) >= count

    def drop(self, source: Path, names: Sequence[str]) -> None:
        """Rename ready folders into the inbox, one after another, as fast as that goes."""
        for name in names:
            os.rename(source / name, self.root / "inbox" / name)

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the daemon's own process, children not counted."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Return the resident memory, or with "VmHWM" the most there was."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        """End it in good order."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class NoopDaemon(Daemon):
    """A daemon whose pipeline is steps that do nothing, in its own process."""

    def __init__(self, root: Path, steps: int = 1) -> None:
        super().__init__(root, _NOOP % ", ".join(f"{{noop: {{name: s{i}}}}}" for i in range(steps)))

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.noop", str(self.config)]


@contextlib.contextmanager
def running(made: Daemon) -> Iterator[Daemon]:
    """Stop the daemon when the block ends."""
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def workplace(where: str | None) -> Iterator[Path]:
    """Make a directory on a real disk, removed at the end."""
    base = Path(tempfile.mkdtemp(prefix="dittohead-bench-", dir=where or "/var/tmp"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def folders(base: Path, count: int, files: int = 1, size: int = 10) -> list[str]:
    """Make folders of small files below `base`, wait until they have settled; return their names."""
    names = [f"f{i:05}" for i in range(count)]
    for name in names:
        (base / name).mkdir(parents=True)
        for j in range(files):
            (base / name / f"{j}.txt").write_bytes(bytes([j % 251]) * size)
    settled()
    return names


def settled() -> None:
    """Let what was just made grow older than `watch: {settle: 2s}`, as most of what is uploaded is."""
    time.sleep(2.1)


def settle_disk() -> None:
    """Write out what earlier parts left, so that the next one does not pay for it."""
    os.sync()
    time.sleep(0.2)


def shown(root: Path, name: str) -> dict[str, Any]:
    """Return what `dittohead show --json` says of a job."""
    config = str(root / "config.yaml")
    said = subprocess.check_output([*DITTOHEAD, "--config", config, "show", name, "--json"], text=True)
    found: dict[str, Any] = json.loads(said)
    return found


def ratio_of(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Return the median of the ratios of pairs measured one after another."""
    return statistics.median(a / b for a, b in zip(ours, peer, strict=True))
