"""The daemon with its fault points armed: `python -m tests.support.mortal [ARGUMENTS OF dittohead]`.

MORTAL_DIES="POINT:N:HOW" lets it die when it reaches POINT for the Nth time; HOW is
    kill     the daemon alone, at once; what it started lives on
    group    the daemon and everything it started
    power    the power fails: the file system MORTAL_DISK loses what is not on disk, then as group
MORTAL_REACHED names a file to which each point is added when it is first reached.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import threading
from collections import Counter
from pathlib import Path

from dittohead.system import fail_points, process

#: Source: Linux, fs/ext4/ext4.h and fs/xfs/libxfs/xfs_fs.h: EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32).
_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING_THE_LOG = struct.pack("I", 2)


def cut_power(disk: Path) -> None:
    """Let an ext4 or xfs file system lose all that it has not made durable, and take nothing more."""
    fd = os.open(disk, os.O_RDONLY)
    fcntl.ioctl(fd, _SHUTDOWN, _WITHOUT_FLUSHING_THE_LOG)


def arm(dies: str, reached: str) -> None:
    """Put a counting, deadly function in the place of the one that does nothing."""
    wanted, number, how = dies.split(":") if dies else ("", "0", "")
    seen: Counter[str] = Counter()
    lock = threading.Lock()
    root = Path(os.environ["MORTAL_ROOT"])

    def point(name: str) -> None:
        with lock:
            seen[name] += 1
            if reached and seen[name] == 1:
                with open(reached, "a") as file:
                    file.write(name + "\n")
            if name != wanted or seen[name] != int(number):
                return
            if how != "kill":
                process.sweep(root)
            if how == "power":
                cut_power(Path(os.environ["MORTAL_DISK"]))
            os.kill(os.getpid(), signal.SIGKILL)

    fail_points.point = point


def main() -> None:
    """Arm the fail points as the environment says, and run the command line."""
    arm(os.environ.get("MORTAL_DIES", ""), os.environ.get("MORTAL_REACHED", ""))
    from dittohead.cli import main
    from dittohead.store import outbox

    outbox.MANY = 1_000_000  # each notice by itself, however many: they are counted one by one
    main()


if __name__ == "__main__":
    main()
