"""Which mount a path lies on, from the kernel's list alone: a mount that hangs is not touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The kernel's list. Source: proc(5).
_MOUNTS = Path("/proc/self/mountinfo")

_OCTAL = re.compile(rb"\\([0-7]{3})")


#: File systems whose changes by other hosts (or by their server) inotify never reports.
#: Source: inotify(7), "NOTES": "Inotify reports only events that a user-space program triggers
#: through the filesystem API" on this host.
NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """One mount."""

    point: str
    kind: str  #: the file system's type, such as "ext4", "nfs4" or "fuse.sshfs"


def awaited(path: str | Path, fstab: Path = Path("/etc/fstab")) -> str | None:
    """Return where a file system that is to hold a path is not mounted yet; None where all are.

    Source: fstab(5); what is `noauto` is mounted by hand, and is not awaited. Nor is "/", without which
    nothing runs: in a chroot it is not a mount point.
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
        point = os.path.normpath(_unescaped(os.fsencode(fields[1])))
        inside = point.startswith("/") and (wanted + "/").startswith(point.rstrip("/") + "/")
        if inside and point != "/" and mount_of(point).point != point:
            return point
    return None


def _unescaped(point: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), point))


def _points(listed: bytes) -> Iterator[tuple[str, str]]:
    """Yield (mount point, type) of every mount, in the order they were made.

    Source: proc(5), /proc/PID/mountinfo; spaces and such in a mount point are octal escapes.
    """
    # The kernel escapes space, tab, newline and backslash, and no other of what Python treats as white space.
    for line in listed.removesuffix(b"\n").split(b"\n"):
        before, _, after = line.partition(b" - ")
        yield _unescaped(before.split(b" ")[4]), os.fsdecode(after.split(b" ")[0])


def mounts_beneath(directory: str | Path) -> dict[bytes, bytes]:
    """Return {name of an entry of a directory: the path of a mount on it or inside it}.

    The directory's own links are resolved; what is mounted is not touched.
    """
    prefix = os.path.join(os.path.realpath(directory), "")
    listed = _MOUNTS.read_bytes()
    # At every look at the inbox; nearly always nothing is mounted there, and a search is enough to see it.
    if re.fullmatch(r"[\w/.+-]*", prefix) and os.fsencode(prefix) not in listed:
        return {}
    return {
        os.fsencode(point[len(prefix) :].split("/", 1)[0]): os.fsencode(point)
        for point, _ in _points(listed)
        if point.startswith(prefix)
    }


def mount_of(path: str | Path) -> Mount:
    """Return the mount that holds an absolute path, links in it not followed."""
    wanted = os.path.normpath(path)
    best = Mount(point="", kind="unknown")
    for point, kind in _points(_MOUNTS.read_bytes()):
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.point):  # a later one covers an earlier one
            best = Mount(point=point, kind=kind)
    return best


def filesystem_type(path: Path) -> str:
    """Return the type of the file system that holds `path`, such as "ext4", "nfs4" or "fuse.sshfs"."""
    return mount_of(os.path.realpath(path)).kind


def needs_polling(kind: str) -> bool:
    """Tell whether a file system type sends no events for what others do in it."""
    return kind in NETWORK or kind.startswith("fuse")
