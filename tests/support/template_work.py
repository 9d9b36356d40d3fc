"""What forks of a template do in tests/test_template.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

seen: list[str] = []
warmed: list[str] = []


def warm() -> None:
    warmed.append("once")


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "count":
        print("seen", len(seen), len(warmed), os.getpid(), os.getppid(), flush=True)
        seen.append(what)
    elif what == "read":
        print(os.pread(int(rest[0]), 100, 0).decode(), flush=True)
    elif what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    else:
        other = subprocess.Popen(["sleep", "1000"])
        print(os.getpid(), other.pid, flush=True)
        time.sleep(1000)
