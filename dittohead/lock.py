"""The lock that keeps a second daemon (or a command that changes the store) out of a root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dittohead.errors import DittoheadError


class Locked(DittoheadError):
    """Another process holds the root."""

    exit_status = os.EX_TEMPFAIL


#: Seconds between two tries for a lock that is taken.
_AGAIN_S = 0.05


@contextlib.contextmanager
def held(state: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the root's lock; the kernel lets go of it when the process ends, however it ends.

    Blocking while it waits.

    Args:
        patience_s: how long another holder is waited for.

    Raises: Locked: another process holds it.
    """
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        tries = int(patience_s / _AGAIN_S)
        while not _taken(fd):
            if tries <= 0:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise Locked(
                    f"another dittohead works on this root (process {holder})",
                    where=str(state / "lock"),
                    hint="Stop that one first: systemctl stop dittohead",
                )
            time.sleep(_AGAIN_S)
            tries -= 1
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(state: Path) -> bool:
    """Tell whether a daemon runs on this root. Takes nothing away from it."""
    try:
        fd = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
