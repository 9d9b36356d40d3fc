"""Which mount a path lies on, from the kernel's list alone: a mount that hangs is not touched."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One mount."""

    point: str
    kind: str  #: the file system's type, such as "ext4", "nfs4" or "fuse.sshfs"


def awaited(path: str | Path, fstab: Path = Path("/etc/fstab")) -> str | None:
    """Return where a file system that is to hold a path is not mounted yet; None where all are.

    Source: fstab(5); what is `noauto` is mounted by hand, and is not awaited.
    """
    wanted = os.path.normpath(path)
    try:
        lines = fstab.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or fields[0].startswith("#") or "noauto" in fields[3].split(","):
            continue
        point = os.path.normpath(_unescaped(fields[1]))
        inside = point.startswith("/") and (wanted + "/").startswith(point.rstrip("/") + "/")
        if inside and mount_of(point).point != point:
            return point
    return None


def _unescaped(point: str) -> str:
    return os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), os.fsencode(point)))


def mount_of(path: str | Path) -> Mount:
    """Return the mount that holds an absolute path, links in it not followed.

    Source: proc(5), /proc/PID/mountinfo; spaces and such in a mount point are octal escapes.
    """
    wanted = os.path.normpath(path)
    best = Mount(point="", kind="unknown")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            point = _unescaped(before.split()[4])
            inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best.point):  # a later one covers an earlier one
                best = Mount(point=point, kind=after.split()[0])
    return best
