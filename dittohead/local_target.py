"""A target on a mounted file system: what lies there, read by threads that are given up when it hangs.

A mount whose server has gone can hold whoever touches it for ever. So nothing here is done in the
loop's thread or in its pool: each look has a thread of its own, which is left behind, and the target
paused, when nothing has come of it for too long.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from dittohead import files
from dittohead.errors import ItemError, TargetError
from dittohead.model import Entry
from dittohead.threads import Hung, Stop, in_own_thread
from dittohead.worker import Inputs

T = TypeVar("T")

#: Writing back what was delivered may take long without any sign of life in between.
_SYNC_LEAST_S = 600.0
#: What is no folder's fault, but the file system's.
_GONE = {
    errno.EIO,
    errno.ENODEV,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
}
#: Of those, that there is no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Names of files shown at most.
SHOWN = 5
#: What rsync calls a file it is writing. Source: rsync(1), --temp-dir; receiver.c, get_tmpname.
_TEMPORARY = re.compile(rb"\.(?P<name>.+)\.[A-Za-z0-9]{6}", re.DOTALL)
#: A name longer than this is cut in that.
_CUT_FROM = 200


class LocalTarget:
    """One directory to deliver to."""

    def __init__(self, path: str, *, mount: str | None, stall_s: float) -> None:
        self.path, self.mount, self._stall_s = path, mount, stall_s
        self.name = mount or path  #: what people know it by

    async def look(self, work: Callable[[Stop], T], stall_s: float | None = None) -> T:
        """Run `work` in a thread of its own.

        Raises: TargetError: nothing came of it for too long, now or earlier; what `work` raises.
        """
        try:
            return await in_own_thread(work, key=self.name, stall_s=stall_s or self._stall_s)
        except Hung as error:
            raise TargetError(
                "the file system does not answer",
                where=self.name,
                hint="See whether its server and the mount are well; work goes on by itself",
            ) from error
        except OSError as error:
            if error.errno not in _GONE:
                raise
            raise TargetError(
                f"the file system cannot be used ({error.strerror})",
                where=self.name,
                hint="See whether its server and the mount are well; work goes on by itself",
                full=error.errno in FULL,
            ) from error

    async def check(self, *, mkpath: bool, job: str) -> None:
        """See that the place can be delivered to.

        Raises: TargetError: its mount is gone or hangs; ItemError: its parent does not exist.
        """
        await self.look(lambda stop: self._check(mkpath=mkpath, job=job))

    def _check(self, *, mkpath: bool, job: str) -> None:
        if self.mount and not os.path.ismount(self.mount):
            raise TargetError(
                "nothing is mounted here", where=self.mount, hint="Mount it; work goes on by itself"
            )
        parent = os.path.dirname(self.path)
        if _is_dir(parent) or mkpath:
            return
        raise ItemError(
            "the target folder does not exist",
            where=parent,
            hint="Check the folder's name; or make it, then: "
            f"dittohead retry {job}; or set mkpath: true, have the daemon read config.yaml again, then: "
            f"dittohead rerun {job}",
        )

    async def conflicts(self, source: Inputs) -> list[str] | None:
        """Return what lies there under our names and is something else, a few of many.

        Returns: None when there is nothing at all.
        """

        def work(stop: Stop) -> list[str] | None:
            try:
                os.lstat(self.path)
            except FileNotFoundError:
                return None
            found = []
            for entry in source.entries():
                stop.check()
                if not entry.is_dir and not _same_or_absent(self.path, entry, stop):
                    found.append(os.fsdecode(entry.path))
                    if len(found) > SHOWN:
                        break
            return found

        return await self.look(work)

    async def read_back(
        self, source: Inputs, good: Callable[[Entry], None], since: float
    ) -> tuple[list[str], os.statvfs_result]:
        """Make what was delivered durable, read it all, call `good` for what is as in the manifest.

        Then remove what a killed rsync of an earlier try had half written: files named as rsync names
        them for files of ours, closed to others as rsync keeps them, written `since` (seconds since the
        epoch) the claim, and holding nothing but the beginning of our file.

        Returns: the names of what is not, and the file system's state.
        """
        # Written data first goes to disk as a whole: one call, not one for each file.
        await self.look(lambda stop: files.sync_filesystem(self.path), max(_SYNC_LEAST_S, 10 * self._stall_s))

        def work(stop: Stop) -> tuple[list[str], os.statvfs_result]:
            wrong = _differing(source, self.path, stop, good)
            if not wrong:
                _remove_leftovers(self.path, source, since, stop)
            return wrong, os.statvfs(self.path)

        return await self.look(work)


def _is_dir(path: str) -> bool:
    """Tell whether it is a directory; unlike os.path's, lets other troubles through."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _same_or_absent(place: str, entry: Entry, stop: Stop) -> bool:
    try:
        with files.opened_beneath(os.fsencode(place), entry.path) as fd:
            if os.fstat(fd).st_size != entry.size:
                return False
            return files.sha256_fd(fd, files.hash_buffer(), lambda n: stop.check())[0] == entry.sha256
    except FileNotFoundError:
        return True
    except ItemError:
        return False


def _differing(source: Inputs, place: str, stop: Stop, good: Callable[[Entry], None]) -> list[str]:
    buffer = files.hash_buffer()
    wrong = []
    for entry in source.entries():
        stop.check()
        if entry.is_dir:
            wrong += [] if _is_dir_beneath(place, entry.path) else [os.fsdecode(entry.path)]
            continue
        try:
            with files.opened_beneath(os.fsencode(place), entry.path) as fd:
                digest, _ = files.sha256_fd(fd, buffer, lambda n: stop.check())
        except (FileNotFoundError, ItemError):
            digest = "missing"
        stop.check()  # left behind, it must not speak any more
        if digest == entry.sha256:
            good(entry)
        else:
            wrong.append(os.fsdecode(entry.path))
    return wrong


def _is_dir_beneath(place: str, path: bytes) -> bool:
    try:
        with files.directory_beneath(os.fsencode(place), path):
            return True
    except (FileNotFoundError, ItemError):
        return False


def _remove_leftovers(place: str, source: Inputs, since: float, stop: Stop) -> int:
    # Names are kept only for directories where there is something like a leftover, which is rare.
    suspects: dict[bytes, list[bytes]] = {}
    seen: set[bytes] = set()
    for entry in source.entries():
        stop.check()
        parent = os.path.dirname(entry.path)
        if parent not in seen:
            seen.add(parent)
            if found := _alike(place, parent):
                suspects[parent] = found
    ours: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for entry in source.entries() if suspects else ():
        parent, name = os.path.split(entry.path)
        if parent in suspects:
            ours[parent].add(name)
    count = 0
    for parent, found in suspects.items():
        stop.check()
        with files.directory_beneath(os.fsencode(place), parent) as fd:
            for name in found:
                whole = _whose(name, ours[parent])
                path = os.path.join(parent, whole) if whole else b""
                if path and _is_beginning(name, fd, os.fsencode(source.root), path):
                    count += files.remove_if_written_since(name, fd, since)
    return count


def _alike(place: str, parent: bytes) -> list[bytes]:
    """Return the names in a directory that look like those of rsync's temporary files."""
    try:
        with (
            files.directory_beneath(os.fsencode(place), parent) as fd,
            os.scandir(fd) as entries,
        ):
            return [name for e in entries if _TEMPORARY.fullmatch(name := os.fsencode(e.name))]
    except (FileNotFoundError, ItemError):
        return []


def _whose(found: bytes, names: set[bytes]) -> bytes:
    """Return the file of ours that rsync would give such a temporary name; b"" when there is none."""
    match = _TEMPORARY.fullmatch(found)
    if match is None or found in names:
        return b""
    name = match["name"]
    if name in names:
        return name
    alike = [full for full in names if full.startswith(name)] if len(name) > _CUT_FROM else []
    return alike[0] if len(alike) == 1 else b""


def _is_beginning(name: bytes, dir_fd: int, root: bytes, path: bytes) -> bool:
    """Tell whether a file holds what one of ours begins with, and is closed to all but its owner."""
    try:
        fd, status = files.open_regular(name, dir_fd)
    except (OSError, ItemError):
        return False
    try:
        if status.st_mode & 0o077:  # rsync opens a file to others when it is whole
            return False
        with files.opened_beneath(root, path) as own:
            while part := os.read(fd, 1 << 20):
                if os.pread(own, len(part), os.lseek(fd, 0, os.SEEK_CUR) - len(part)) != part:
                    return False
        return True
    except (OSError, ItemError):
        return False
    finally:
        os.close(fd)
