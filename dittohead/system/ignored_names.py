"""Names in the inbox that are ignored: what file systems, file servers and desktops put into any directory.

Neither folders to take nor uploads, and nothing that anybody must do something about.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Stands in a list for the names that are there by default.
DEFAULT = "default"

#: Dotted files, such as `._a.tif` of macOS, need not stand here: no dotted file is looked at.
NAMES = (
    "lost+found",  # ext2 to ext4. Source: mklost+found(8)
    "aquota.user",
    "aquota.group",  # Source: quotacheck(8)
    ".snapshot",  # NetApp, Isilon, Qumulo
    ".snapshots",  # snapper, Spectrum Scale
    ".snap",  # CephFS
    ".zfs",
    ".glusterfs",
    ".nfs[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*",  # deleted, and still open. Source: Linux, fs/nfs/unlink.c
    "@eaDir",  # Synology
    "@tmp",
    "@sharebin",
    "#recycle",
    "#snapshot",
    "@Recycle",  # QNAP
    "@Recently-Snapshot",
    ".@__thumb",
    ".recycle",  # Samba. Source: vfs_recycle(8)
    ".stfolder",  # Syncthing
    ".stversions",
    ".stignore",
    ".sync",  # Resilio
    ".owncloudsync.log",
    ".Trash",  # freedesktop.org, "Trash specification"
    ".Trash-*",
    ".Trashes",  # macOS
    ".DS_Store",
    ".fseventsd",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".DocumentRevisions-V100",
    ".AppleDouble",  # netatalk
    ".AppleDB",
    ".AppleDesktop",
    "Network Trash Folder",
    "Temporary Items",
    "System Volume Information",  # Windows
    "$RECYCLE.BIN",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
)


@dataclass(frozen=True)
class IgnoredNames:
    """The names of one configuration; upper and lower case are the same."""

    plain: frozenset[bytes]  #: in lower case
    patterns: re.Pattern[bytes] | None

    def __contains__(self, name: bytes) -> bool:
        """Tell whether a name is ignored. Cheap: it is asked of every name at every look."""
        if name.lower() in self.plain:
            return True
        return self.patterns is not None and self.patterns.fullmatch(name) is not None


@functools.lru_cache(maxsize=16)
def ignored_names(given: Sequence[str]) -> IgnoredNames:
    """Return the names that a list (a tuple) stands for: names and patterns, and `default`."""
    listed = [name for one in given for name in (NAMES if one == DEFAULT else (one,))]
    patterns = [os.fsencode(fnmatch.translate(one)) for one in listed if _is_pattern(one)]
    return IgnoredNames(
        plain=frozenset(os.fsencode(one).lower() for one in listed if not _is_pattern(one)),
        patterns=re.compile(b"|".join(patterns), re.IGNORECASE) if patterns else None,
    )


def fault(name: str, given: Sequence[str] = (DEFAULT,)) -> str:
    """Return why a folder cannot have this name; "" when it can."""
    if os.fsencode(name) not in ignored_names(tuple(given)):
        return ""
    return f'a folder called "{name}" is never taken: see watch: {{ignore: ...}} in config.yaml'


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")
