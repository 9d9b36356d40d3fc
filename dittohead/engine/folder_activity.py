"""What happens in a folder in the inbox: how new what it holds is, and whether somebody still writes to it.

One walk that reads no content; it measures the folder as well.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dittohead.model.errors import ItemError
from dittohead.system import files, leases
from dittohead.system.leases import WRITERS_S
from dittohead.system.threads import Stop

#: Stands in a list of patterns for rsync's mark of a file that `--partial` kept: last changed at the epoch.
#: Source: rsync, cleanup.c: "Setting the time to something really old also helps it to stand out as
#: unfinished".
EPOCH = "mtime=0"

#: Stands in a list of patterns for those that are there by default.
DEFAULT = "default"

#: Six characters as mkstemp(3) makes them.
_RANDOM = "XXXXXX"

#: What programs call files that they have not finished.
PARTIAL = (
    ".*.XXXXXX",  # rsync, receiver.c: get_tmpname
    ".~tmp~",  # rsync --delay-updates
    ".rsync-partial",  # rsync --partial-dir, as its manual names it
    EPOCH,
    "*.filepart",  # WinSCP
    "*.part",  # Nextcloud, KDE, Firefox
    "*.partial",  # rclone, aria2 front ends, Internet Explorer
    "*.crdownload",  # Chromium
    "*.download",  # Safari
    "*.aria2",
    ".in.*",  # lftp, xfer:use-temp-file
    "*.lftp",
    "*.lftp-pget-status",
    ".syncthing.*.tmp",
    "~syncthing~*.tmp",
    "*.!sync",  # Resilio
    "~$*",  # Microsoft Office: who has the document open
    ".~lock.*#",  # LibreOffice: the same
    ".nfs[0-9a-f]*",  # deleted, and still open at a client. Source: Linux, fs/nfs/unlink.c
    ".smbdelete*",
    ".fuse_hidden*",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderActivity:
    """What one walk through a folder found."""

    size: int  #: bytes of the folder's files
    newest_ns: int  #: the newest ctime of what lies inside; the folder's own when it is empty
    own_ns: int  #: the folder's own ctime: the rename that gave it its name changes only this
    filled_ns: int = -1  #: the folder's own mtime: when a name was last put into it, or taken from it
    is_empty: bool
    trace: int  #: names, sizes, mtimes and ctimes of all that lies inside, as one number
    content: int = 0  #: the same without ctimes: modes, owners, groups and access lists do not change it
    mark: str = ""  #: a name inside that stands for an upload under way
    is_cut: bool = False  #: the mark is a file that rsync left truncated
    writer: str = ""  #: a file inside that a program on this machine has open for writing
    error: ItemError | None = None  #: why it could not be walked to the end
    is_file: bool = False  #: it is a file, of which a folder is still to be made

    @property
    def written_in_place(self) -> bool:
        """Whether something may have changed inside after the folder got its name.

        Where the last that happened to the folder itself is that something was put into it, no rename came
        after: at best in the same step of the clock, which tells nothing.
        """
        return self.is_empty or self.newest_ns > self.own_ns or self.filled_ns == self.own_ns


@functools.lru_cache(maxsize=64)
def expanded(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of patterns with the defaults in place of the word that stands for them."""
    return tuple(p for given in patterns for p in (PARTIAL if given == DEFAULT else (given,)))


@functools.lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[bytes] | None:
    found = [
        fnmatch.translate(pattern).replace(_RANDOM, "[A-Za-z0-9]{6}").encode("utf-8", "surrogateescape")
        for pattern in patterns
        if pattern != EPOCH
    ]
    return re.compile(b"|".join(found), re.IGNORECASE) if found else None


def read_activity(folder: Path, partial: Sequence[str], *, stop: Stop, now_ns: int) -> FolderActivity:
    """Walk through a folder once. Blocking: to be run in a thread that may be left behind.

    Args:
        partial: names of what is unfinished, `expanded`.
        now_ns: writers are searched for in what changed lately, before this.

    Raises: OSError: it cannot be read. Stopped.
    """
    own = os.lstat(folder)
    seen = _Seen(tuple(partial), now_ns)
    error = None
    try:
        for found in files.walk(folder, directories=True):
            stop.check()
            seen.add(found)
    except ItemError as met:
        error = met
        seen.trace, seen.content = hash((seen.trace, str(met))), hash((seen.content, str(met)))
    return FolderActivity(
        size=seen.size,
        newest_ns=seen.newest_ns or own.st_ctime_ns,
        own_ns=own.st_ctime_ns,
        filled_ns=own.st_mtime_ns,
        is_empty=seen.newest_ns == 0,
        trace=seen.trace,
        content=seen.content,
        mark=os.fsdecode(seen.mark),
        is_cut=seen.is_cut,
        writer=os.fsdecode(seen.writer),
        error=error,
    )


def read_file_activity(inbox: Path, name: bytes, partial: Sequence[str], *, now_ns: int) -> FolderActivity:
    """Look at a file in the inbox as at a folder: its own times say the same. Blocking.

    Writing sets both its times at once; a rename, or setting its time, changes the ctime alone and so comes
    after the last that was written.

    Args:
        partial: names of what is unfinished, `expanded`.
        now_ns: as for `read_activity`.

    Raises: OSError: it cannot be looked at.
    """
    own = os.lstat(os.path.join(os.fsencode(inbox), name))
    seen = _Seen(tuple(partial), now_ns)
    for found in files.walk_one(inbox, name):
        seen.add(found)
    return FolderActivity(
        size=seen.size,
        newest_ns=own.st_ctime_ns,
        own_ns=own.st_ctime_ns,
        filled_ns=own.st_mtime_ns,
        is_empty=own.st_size == 0,
        trace=seen.trace,
        content=seen.content,
        mark=os.fsdecode(seen.mark),
        is_cut=seen.is_cut,
        writer=os.fsdecode(seen.writer),
        is_file=True,
    )


class _Seen:
    """Sums up a walk."""

    def __init__(self, partial: tuple[str, ...], now_ns: int) -> None:
        self.size = self.newest_ns = self.trace = self.content = 0
        self.mark = self.writer = b""
        self.is_cut = False
        self._pattern, self._epoch = _compiled(partial), EPOCH in partial
        self._since_ns = now_ns - int(WRITERS_S * 1e9)

    def add(self, found: files.FoundName) -> None:
        status = found.status
        ctime_ns, mtime_ns = status.st_ctime_ns, status.st_mtime_ns
        self.newest_ns = max(self.newest_ns, ctime_ns)
        self.content = hash((self.content, found.path, status.st_ino, status.st_size, mtime_ns))
        self.trace = hash((self.trace, self.content, ctime_ns))
        is_file = found.kind == "file"
        if is_file:
            self.size += status.st_size
        if self.mark:
            return  # one is enough
        if self._pattern is not None and self._pattern.fullmatch(found.name):
            self.mark = found.path
        elif is_file and self._epoch and 0 <= mtime_ns < 1_000_000_000:
            self.mark, self.is_cut = found.path, True
        elif is_file and ctime_ns >= self._since_ns and not self.writer and leases.written(found):
            self.writer = found.path
