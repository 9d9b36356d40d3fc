"""A file in the inbox becomes a folder of the same name that holds it, and nothing is lost on the way.

    # 1 mkdir of a dotted directory  2 the file into it, replacing nothing  3 durable
    # 4 the directory gets the file's name, replacing nothing  5 durable
A crash at any moment leaves the file where it was, or alone in the dotted directory: `finish_all` goes on
with that, or takes it back. From then on it is a folder like any other.

The directory is the daemon's own, and nobody else may write to it: whose the folder is says the file in it
(`stations.owner_of`). Who may read the file may enter the directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

from dittohead.folders.stations import Stations, refusal
from dittohead.model.errors import Immovable
from dittohead.model.records import Arrival
from dittohead.model.states import Station
from dittohead.model.text import counted, display, own_group, shell_word
from dittohead.system import fail_points
from dittohead.system.files import fsync_dir, give_name, rename_noreplace
from dittohead.system.users import owner

#: How the dotted directories are called. A name of its own, as `.NAME` may be somebody's upload.
_HIDDEN = b".dittohead-file-"


def fault(stations: Stations, name: bytes) -> Immovable | None:
    """Return why a file of the inbox cannot become a folder as it is; None where it can. Blocking, but short.

    Raises: OSError: it cannot be looked at.
    """
    path = stations.folder(Station.INBOX, name)
    status = os.lstat(path)
    word = shell_word(os.fsencode(path))
    where = display(os.fsencode(path))
    if stations.is_reason(path):
        what = "this was written beside a folder in failed/, to say why it is there"
        return Immovable(what, where=where, cure="Remove it", command=f"sudo rm -i {word}")
    if status.st_nlink != 1:
        what = (
            f"this file has {counted(status.st_nlink, 'name')} (hard links), and could be changed by another"
        )
        cure = "Put a copy in its place"
        copy = shell_word(os.fsencode(path.with_name(f".{path.name}")))
        command = f"sudo cp -p --no-preserve=links {word} {copy} && sudo mv {copy} {word}"
        return Immovable(what, where=where, cure=cure, command=command)
    if not os.access(path, os.R_OK, effective_ids=True):
        mode, user = stat.S_IMODE(status.st_mode), owner(status.st_uid).user
        what = f"the daemon may not read this file: mode {mode:04o}, owner {user}"
        command = f"sudo chgrp {own_group()} {word} && sudo chmod g+r {word}"
        return Immovable(what, where=where, cure="Let the daemon's group read it", command=command)
    return None


def wrap(stations: Stations, arrival: Arrival) -> bool:
    """Make a folder of a file in the inbox, durably. Blocking: four fsyncs.

    Returns: False where the file has gone, or another has its name now; that is left alone.
    Raises: StationError: it may not be moved; StationMissing; OSError.
    """
    inbox = stations.path(Station.INBOX)
    hidden = os.path.join(os.fsencode(inbox), _HIDDEN + uuid.uuid4().hex.encode())
    here, there = stations.folder(Station.INBOX, arrival.folder), os.path.join(hidden, arrival.folder)
    with stations.wrapping:
        try:
            os.mkdir(hidden, 0o700)
        except FileNotFoundError as error:
            raise stations.missing(Station.INBOX) from error
        except PermissionError as error:
            raise refusal(error, here, inbox) from error
        fsync_dir(inbox)
        fail_points.point("wrap.made")
        try:
            rename_noreplace(os.fsencode(here), there)
        except OSError as error:
            os.rmdir(hidden)
            if isinstance(error, FileNotFoundError):
                return False
            raise refusal(error, here, inbox) from error
        fail_points.point("wrap.moved")
        return _finish(inbox, hidden, arrival.ino)


def finish_all(stations: Stations) -> int:
    """Go on where a crash, or a name that was taken, has left files on their way; return how many. Blocking.

    Raises: OSError: the inbox cannot be read.
    """
    inbox, count = stations.path(Station.INBOX), 0
    with stations.wrapping, os.scandir(os.fsencode(inbox)) as entries:
        for entry in [one for one in entries if one.name.startswith(_HIDDEN)]:
            with contextlib.suppress(OSError):  # one that cannot be helped on holds up no other
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    count += _finish(inbox, entry.path)
    return count


def _finish(inbox: Path, hidden: bytes, ino: int | None = None) -> bool:
    """Give a dotted directory its file's name; return whether it has it.

    What is not the file that was meant goes back. Where the name is taken it waits until that is free.

    Args:
        ino: of the file that was meant; None: whichever it holds.
    """
    names = os.listdir(hidden)
    if not names:
        os.rmdir(hidden)
    if len(names) != 1:  # nobody but the daemon's own user can have put more into it
        return False
    path = os.path.join(hidden, names[0])
    status, name = os.lstat(path), os.path.join(os.fsencode(inbox), names[0])
    fsync_dir(hidden)
    fsync_dir(inbox)
    fail_points.point("wrap.durable")
    is_it = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and ino in (None, status.st_ino)
    with contextlib.suppress(FileExistsError):
        if not is_it:
            rename_noreplace(path, name)
            os.rmdir(hidden)
        else:
            _open_to_readers(hidden, status)
            give_name(hidden, name)
            fail_points.point("wrap.named")
        fsync_dir(inbox)
        return is_it
    return False


def _open_to_readers(hidden: bytes, status: os.stat_result) -> None:
    """Let those enter a directory who may read its file."""
    with contextlib.suppress(OSError):  # not a member of that group
        os.chown(hidden, -1, status.st_gid)
    shown = status.st_mode & 0o044
    os.chmod(hidden, 0o700 | shown | shown >> 2)
