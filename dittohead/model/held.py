"""Why something stays in the inbox, and what somebody can do about it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dittohead.model.errors import Immovable
from dittohead.model.records import Arrival
from dittohead.model.shown import ShownHeld
from dittohead.model.text import own_group, shell_word, visible


class HeldKind(StrEnum):
    """What keeps it there. Few: they are labels of a metric."""

    IMMOVABLE = "immovable"  #: the daemon may not move it
    UNREADABLE = "unreadable"  #: it cannot be looked at
    SILENT = "silent"  #: its file system does not answer
    MOUNTED = "mounted"  #: another file system is mounted in it
    UNFINISHED = "unfinished"  #: it holds the mark of an upload under way
    WRITTEN = "written"  #: a program has a file of it open for writing
    INCOMPLETE = "incomplete"  #: something that it says it has is not there, or more is
    TOO_LARGE = "too_large"  #: there is no room for it, and no job under way will make any
    SETTLING = "settling"  #: it changed a short time ago
    NAMESAKE = "namesake"  #: an earlier folder of its name is under way
    TARGET = "target"  #: its target is paused, which is told
    SPACE = "space"  #: there will be room when jobs have ended, or that there is none is told


#: For which somebody must do something, whatever time passes.
AT_ONCE = frozenset({HeldKind.IMMOVABLE, HeldKind.UNREADABLE, HeldKind.SILENT, HeldKind.MOUNTED})

#: The same, but only when it lasts: uploads take hours.
IN_TIME = frozenset({HeldKind.UNFINISHED, HeldKind.WRITTEN, HeldKind.INCOMPLETE, HeldKind.TOO_LARGE})


@dataclass(frozen=True, kw_only=True)
class Held:
    """Why an arrival stays in the inbox for now."""

    reason: str
    kind: HeldKind = HeldKind.SETTLING
    cure: str = ""  #: what to do, without a full stop; "" where waiting is enough
    command: str = ""  #: to be typed as it is; "" where there is none
    since: float | None = None  #: since when it is as it is, seconds since the epoch; None: nobody knows
    due: str = ""  #: when it is taken, and what that hangs on: told first
    arrival: Arrival | None = None  #: which it is; None: what cannot even be looked at
    for_space: bool = False  #: the disk is too full for it now, and others are not to overtake it
    again_s: float | None = None  #: it is to be tried again after this long, and not before
    looking: bool = False  #: it is being looked at; `on_looked` tells when that has ended
    quiet: bool = False  #: as it ought to be: nobody need know

    @property
    def text(self) -> str:
        """All of it, in one line."""
        command = f"Type: {self.command}" if self.command else ""
        first = f"{self.due}: {self.reason}" if self.due else self.reason
        return ". ".join(part for part in (first, self.cure, command) if part)

    def as_dict(self) -> ShownHeld:
        """Return what is reported about it, part by part."""
        since = self.since
        if since is None and self.arrival is not None:
            since = self.arrival.seen_at
        return {
            "kind": self.kind.value,
            "due": self.due,
            "reason": self.reason,
            "cure": self.cure,
            "command": self.command,
            "since": since,
        }


def writers(path: bytes) -> str:
    """Return the command that tells which program has a file open; "" where this machine has none for it."""
    for program, command in (("fuser", "sudo fuser -v"), ("lsof", "sudo lsof")):
        if shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"):
            return f"{command} {shell_word(path)}"
    return ""


def group_may(path: bytes, gid: int | None = None) -> str:
    """Return the command that gives the daemon's group what moving and reading a folder needs.

    The folder must not become movable before all in it is ready: it would be taken in the midst of the
    command. chmod does a folder before what is in it, chgrp after it: so chgrp comes last, and where the
    group is one of ours already, the folder is taken out of it first.

    Args:
        gid: the folder's group; None where it is not known.
    """
    word, group = shell_word(path), own_group()
    is_ours = gid is None or gid in (os.getegid(), *os.getgroups())
    first = f"sudo chgrp root {word} && " if is_ours else ""
    return f"{first}sudo chmod -R g+rwX {word} && sudo chgrp -R {group} {word}"


def immovable(error: Immovable, arrival: Arrival) -> Held:
    """Return how an arrival is held that the daemon may not move."""
    return Held(
        reason=error.what,
        kind=HeldKind.IMMOVABLE,
        cure=error.cure,
        command=error.command,
        since=arrival.seen_at,
    )


def unreadable(error: OSError, path: Path) -> Held:
    """Return how a folder is held that cannot be looked at."""
    folder, cure = os.fsencode(path), "See what is the matter with it, or with the disk"
    command = f"ls -la {shell_word(folder)}"
    if error.errno in (errno.EACCES, errno.EPERM):
        cure, command = "The daemon must be able to read it", group_may(folder)
    return Held(
        reason=f"it cannot be looked at ({error.strerror})",
        kind=HeldKind.UNREADABLE,
        cure=cure,
        command=command,
    )


def mounted(point: bytes) -> Held:
    """Return how a folder is held in which something is mounted, by the mount's path."""
    return Held(
        reason=f"another file system is mounted in it, at {visible(os.fsdecode(point))}",
        kind=HeldKind.MOUNTED,
        cure="Unmount it",
        command=f"sudo umount {shell_word(point)}",
    )


def silent() -> Held:
    """Return how a folder is held whose file system does not answer."""
    return Held(
        reason="its file system does not answer",
        kind=HeldKind.SILENT,
        cure="See which file system that is, and what the kernel says of it",
        command="findmnt --list; sudo dmesg | tail",
    )


def movable(
    number: int | None,
    folder: Path,
    status: os.stat_result,
    directories: tuple[Path, Path],
    user: str,
) -> tuple[str, str]:
    """Return what to do about a folder that may not be moved from one directory to another: words, a command.

    Args:
        number: the errno of the rename.
        status: the folder's own.
        user: the daemon's, as a word of a command line.
    """
    word = shell_word(os.fsencode(folder))
    for directory in directories:
        if not os.access(directory, os.W_OK | os.X_OK):
            own = shell_word(os.fsencode(directory))
            return "This directory must be the daemon's", f"sudo chown {user} {own} && sudo chmod u+rwx {own}"
    if number == errno.EPERM and _is_sticky(directories[0], status):
        own = shell_word(os.fsencode(directories[0]))
        return "Its directory is sticky (mode +t), and not the daemon's", f"sudo chown {user} {own}"
    if number == errno.EPERM:
        return "It has an attribute that forbids it: see lsattr -d", f"sudo chattr -R -ia {word}"
    if status.st_uid == os.geteuid():
        return "Moving a directory needs write access to it", f"sudo chmod -R u+rwX {word}"
    why = (
        "Moving a directory needs write access to it (what uploaders type in docs/drop-folder.md avoids "
        "this; set-up 3 in docs/permissions.md takes any mode)"
    )
    return why, group_may(os.fsencode(folder), status.st_gid)


def _is_sticky(directory: Path, status: os.stat_result) -> bool:
    """Tell whether only its owner and the directory's may rename a thing there, and we are neither."""
    try:
        place = os.stat(directory)
    except OSError:
        return False
    return bool(place.st_mode & stat.S_ISVTX) and os.geteuid() not in (place.st_uid, status.st_uid)
