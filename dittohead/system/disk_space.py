"""How much a file system holds and has free, and whether more fits beside what is to stay free."""

from __future__ import annotations

import os
from pathlib import Path

#: What readers are shown of free space is in such steps, so that it does not change all the time: 16 MiB.
_STEP = 1 << 24


def free(path: Path | str | bytes) -> int:
    """Return the bytes that a user who is not root may still write where a path lies. Raises: OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def capacity(path: Path | str | bytes) -> int:
    """Return the bytes of the file system where a path lies, free or not. Raises: OSError."""
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def used(path: Path | str | bytes) -> tuple[float, int]:
    """Return (share, bytes) of the file system where a path lies: what is used of it, 0 to 1, and its size.

    What is reserved for root counts as used, as `df` counts it. Raises: OSError.
    """
    status = os.statvfs(path)
    return 1 - status.f_bavail / max(status.f_blocks, 1), status.f_blocks * status.f_frsize


def lacking(path: Path | str | bytes, needed: int, floor: float) -> int:
    """Return by how many bytes a file system is too full; 0 or less where it is not. Raises: OSError.

    Args:
        path: where is to be written.
        needed: bytes that are to come, those promised to others among them.
        floor: bytes that are to stay free then.
    """
    return needed + int(floor) - free(path)


def in_steps(count: int) -> int:
    """Return free bytes as they are shown: rounded down to 16 MiB."""
    return count // _STEP * _STEP
