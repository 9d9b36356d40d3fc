"""What the benchmarks share: a daemon process, its costs, and rows of the table."""

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DITTOHEAD = [sys.executable, "-m", "dittohead"]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    ours: str
    peer: str
    ratio: str
    goal: str
    holds: bool | None  #: None: for information


class Daemon:
    """A real daemon on a root of its own."""

    def __init__(self, root: Path, config: str) -> None:
        self.root = root
        root.mkdir(parents=True)
        (root / "config.yaml").write_text("root: .\nspace: {floor: 0}\n" + textwrap.dedent(config))
        self.log = open(root / "daemon.log", "wb")  # noqa: SIM115  # closed by stop
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*DITTOHEAD, "--config", str(self.root / "config.yaml"), "run"], stdout=self.log, stderr=self.log
        )
        self.until(lambda: b"watch.armed" in (self.root / "daemon.log").read_bytes())

    def until(self, check: object, timeout_s: float = 600, pause_s: float = 0.005) -> None:
        end = time.monotonic() + timeout_s
        while not check():  # type: ignore[operator]  # a callable
            if time.monotonic() > end or (self.process and self.process.poll() is not None):
                raise SystemExit((self.root / "daemon.log").read_text()[-2000:])
            time.sleep(pause_s)

    def cpu_seconds(self) -> float:
        """CPU of the daemon itself and of the children it has reaped."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(fields[i]) for i in (11, 12)) / _TICKS

    def rss_mb(self, what: str = "VmRSS") -> float:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()

    def done(self) -> int:
        return len(os.listdir(self.root / "done"))


@contextlib.contextmanager
def daemon(base: Path, name: str, config: str) -> Iterator[Daemon]:
    """Run a daemon while inside."""
    made = Daemon(base / name, config)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def workplace(where: str | None) -> Iterator[Path]:
    """A directory on a real disk, removed at the end."""
    base = Path(tempfile.mkdtemp(prefix="dittohead-bench-", dir=where or "/var/tmp"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def folders(base: Path, count: int, files: int = 10, size: int = 2000) -> Path:
    """Make folders of small files; return their parent."""
    base.mkdir(parents=True)
    for i in range(count):
        folder = base / f"f{i:05}"
        folder.mkdir()
        for j in range(files):
            (folder / f"{j}.txt").write_bytes(bytes([j % 251]) * size)
    return base


def median(values: list[float]) -> float:
    return statistics.median(values)


def steps_seconds(root: Path, name: str) -> dict[str, float]:
    """Return the seconds of each step of a job."""
    said = subprocess.check_output(
        [*DITTOHEAD, "--config", str(root / "config.yaml"), "show", name, "--json"], text=True
    )
    return {step["name"]: step.get("seconds", 0.0) for step in json.loads(said)["all_steps"]}
