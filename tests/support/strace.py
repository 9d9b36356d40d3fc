"""System calls that fail on demand: strace's fault injection on a running process."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Injected:
    """What is being injected; `count` tells how many calls have failed so far."""

    log: Path

    def count(self) -> int:
        return self.log.read_text(errors="replace").count("(INJECTED)") if self.log.exists() else 0


@contextlib.contextmanager
def failing(pid: int, log: Path, *faults: str) -> Iterator[Injected]:
    """Let calls of a process fail until the block ends; a fault is "CALL:error=NAME:when=N+STEP".

    Source: strace(1), "Tampering". Skips, with the reason, where processes cannot be traced.
    """
    if shutil.which("strace") is None:
        pytest.skip("STRACE IS NOT INSTALLED: system calls that fail are left out")
    calls = ",".join(sorted({fault.split(":")[0] for fault in faults}))
    given = [f"-einject={fault}" for fault in faults]
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        ["strace", "-f", "-o", log, f"-etrace={calls}", *given, "-p", str(pid)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_traced(pid, process)
        yield Injected(log)
    finally:
        # The kernel lets go of what a killed tracer held, which goes on. Asked politely, strace waits
        # for each thread to stop, and one in vfork(2) does not until its child, stopped too, goes on.
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _wait_until_traced(pid: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"PROCESSES CANNOT BE TRACED HERE ({process.stderr.read()!r}): left out")
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        if all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks):
            return
        time.sleep(0.01)
    raise AssertionError("strace does not attach")
