"""A folder uploaded through the page: received as .NAME, piece by piece, durable, renamed to NAME.

The uploader's protocol, as everywhere: what is broken off stays dotted, is left alone by the daemon, and can
be taken up or given up. Everything here blocks and runs in threads.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dittohead.admin.admission import taker
from dittohead.config.loader import Config, Pipeline
from dittohead.config.settings import Drop
from dittohead.engine.claim import wanted
from dittohead.folders import sidecar
from dittohead.folders.stations import NAME_MAX
from dittohead.model.errors import ItemError, Unreadable
from dittohead.model.text import counted, visible
from dittohead.system import disk_space, files, own_files
from dittohead.system.files import MAX_DEPTH, MAX_PATH
from dittohead.system.users import owner

_OPEN = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Of directories. Without a mode, a default ACL of the inbox would let other uploaders write here.
_MODE = 0o755

_ID = re.compile(r"[0-9a-f]{32}")

#: Uploads whose lists of files are kept in memory.
_KNOWN = 16


def checked_path(path: str) -> str:
    """Return a file's path within its folder, as it can be made there. Raises: ItemError."""
    parts = path.split("/")
    for part in parts:
        _check_part(part, path, room=NAME_MAX)
    if len(parts) > MAX_DEPTH or len(path.encode()) > MAX_PATH:
        raise _no_path(path[:120], "is nested too deeply, or too long")
    return path


def _check_part(part: str, path: str, room: int) -> None:
    try:
        length = len(part.encode())
    except UnicodeEncodeError:
        raise _no_path(path, "is not UTF-8 text") from None
    if part in ("", ".", ".."):
        raise _no_path(path, "has an empty part, or one of dots alone")
    if "\0" in part:
        raise _no_path(path, "holds a NUL")
    if "\\" in part:
        raise _no_path(path, "holds a backslash, as paths of Windows do")
    if length > room:
        raise _no_path(path, f"has a part of more than {room} bytes")


def _no_path(path: str, why: str) -> ItemError:
    return ItemError(f"this name {why}", where=visible(path), hint="Rename it, then upload the folder again")


def checked_files(listed: Iterable[tuple[str, int]], bounds: Drop) -> dict[str, int]:
    """Return the sizes of a folder's files by path. Raises: ItemError."""
    found: dict[str, int] = {}
    total = 0
    for path, size in listed:
        if checked_path(path) in found:
            raise ItemError("two files have this name", where=visible(path))
        found[path] = size
        total += size
        if len(found) > bounds.most_files:
            raise ItemError(f"there are more than {bounds.most_files:,} files", hint=_LESS)
        if size < 0 or total > bounds.most_bytes:
            raise ItemError(f"there are more than {bounds.most_bytes:,} bytes", hint=_LESS)
    if not found:
        raise ItemError("there are no files", hint="Choose files, or a folder that holds some")
    for path in found:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in found:
                raise ItemError("this is a file and a folder at once", where=visible(parent))
    return found


_LESS = "Put it into the inbox by other means, or see http: {drop: ...} in config.yaml"


def fitting(config: Config, name: str, purposes: Sequence[str]) -> Pipeline:
    """Return the pipeline that a folder of this name goes through.

    Args:
        name: the folder's name.
        purposes: what it is to be used for, of those that the pipeline knows; empty for nothing special.

    Raises: ItemError: there is none, it does not know a purpose, or it takes folders of others only.
    """
    pipeline, groups = taker(config, name)
    wanted(pipeline, groups, None)
    unknown = sorted(set(purposes) - pipeline.purposes)
    if unknown:
        raise ItemError(f"the pipeline {pipeline.name} has nothing for {', '.join(unknown)}")
    admitted = pipeline.settings.uploaders
    if admitted and not owner(os.geteuid()).may_use(admitted):
        raise ItemError(
            f"the pipeline {pipeline.name} takes folders of {', '.join(admitted)} alone",
            hint="What comes through this page is the daemon's own; put it into the inbox by other means",
        )
    return pipeline


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """One folder on its way in."""

    id: str
    name: str
    who: str
    ino: int  #: of .NAME
    files: dict[str, int]  #: path -> bytes
    purposes: list[str]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(self.files.values())


class Reception:
    """The folders that are being uploaded into one inbox; remembered in state/ so that a restart loses none.

    Args:
        home: where they are remembered.
    """

    def __init__(self, inbox: Path, home: Path) -> None:
        self.inbox, self.home = os.fsencode(inbox), home
        self._known: dict[str, Incoming] = {}  # a list of a hundred thousand files is not read for each

    def _hidden(self, name: str) -> bytes:
        return os.path.join(self.inbox, b"." + os.fsencode(name))

    def _record(self, id_: str) -> Path:
        return self.home / f"{id_}.json"

    def is_free(self, name: str) -> bool:
        """Tell whether neither a folder of the inbox nor an upload has this name."""
        paths = (os.path.join(self.inbox, os.fsencode(name)), self._hidden(name))
        return not any(os.path.lexists(path) for path in paths)

    def check_free(self, name: str) -> None:
        """Raises: ItemError: the name is in the inbox already."""
        if not self.is_free(name):
            raise ItemError(
                "a folder of this name is in the inbox already, or is being uploaded",
                where=visible(name),
                hint="Take up or give up that upload, or choose another name",
            )

    def begin(self, incoming: Incoming) -> Incoming:
        """Make .NAME and remember it, durably; return it with its inode. Raises: ItemError, OSError."""
        self.check_free(incoming.name)
        hidden = self._hidden(incoming.name)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.mkdir(hidden, _MODE)
        try:
            made = Incoming(**{**asdict(incoming), "ino": os.lstat(hidden).st_ino})
            files.write_durably(self._record(made.id), json.dumps(asdict(made)).encode(), 0o600)
        except BaseException:
            os.rmdir(hidden)
            raise
        return made

    def get(self, id_: str) -> Incoming | None:
        """Return an upload, None where there is none of this id, or its folder is gone."""
        if not _ID.fullmatch(id_):
            return None
        incoming = self._known.get(id_)
        if incoming is None:
            try:
                incoming = own_files.document(self._record(id_), lambda found: Incoming(**found))
            except (OSError, Unreadable):
                return None
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[id_] = incoming
        return incoming if self._is_there(incoming) else None

    def _is_there(self, incoming: Incoming) -> bool:
        try:
            status = os.lstat(self._hidden(incoming.name))
        except OSError:
            return False
        # An inode may be used again: by a folder that somebody else has made since, under the same name.
        ours = status.st_ino == incoming.ino and status.st_uid == os.geteuid()
        return stat.S_ISDIR(status.st_mode) and ours

    def all(self) -> list[Incoming]:
        """Return every upload under way, by name; forget those whose folder is gone."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.home.glob("*.json"):
                incoming = self.get(path.stem)
                if incoming is None:
                    path.unlink(missing_ok=True)
                else:
                    found.append(incoming)
        return sorted(found, key=lambda one: one.name)

    def received(self, incoming: Incoming) -> dict[str, int]:
        """Return how many bytes are there of each file of which there are any."""
        hidden = self._hidden(incoming.name)
        return {
            os.fsdecode(found.path): found.status.st_size
            for found in files.walk(hidden)
            if found.kind == "file"
        }

    @contextlib.contextmanager
    def _folder(self, incoming: Incoming) -> Iterator[int]:
        """Open .NAME, where it is still the one that was made. Raises: ItemError: it is not; OSError."""
        try:
            fd = os.open(self._hidden(incoming.name), _OPEN_DIR)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise
            raise _gone(incoming) from error
        try:
            if os.fstat(fd).st_ino != incoming.ino or not self._record(incoming.id).exists():
                raise _gone(incoming)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def opened(self, incoming: Incoming, path: str, at: int) -> Iterator[int]:
        """Open one file of an upload to write from a byte on; what the file has behind it is cut off.

        What was written is cut off again when the block raises.

        Args:
            incoming: the upload that the file belongs to.
            path: the file, relative to its folder; directories are made.
            at: offset in bytes; no more than the file has now.

        Returns: an open descriptor, which is closed when the block ends.
        Raises: ItemError: there are not so many bytes yet, or it is not under way any more; OSError.
        """
        parent, _, last = os.fsencode(path).rpartition(b"/")
        with self._folder(incoming) as folder, _made_beneath(folder, parent) as directory:
            fd = os.open(last, _OPEN, 0o644, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or os.fstat(fd).st_size < at:
                raise ItemError("there are not so many bytes of this file yet", where=visible(path))
            os.ftruncate(fd, at)
            os.lseek(fd, at, os.SEEK_SET)
            try:
                yield fd
            except BaseException:
                os.ftruncate(fd, at)
                raise
        finally:
            os.close(fd)

    def complete(self, incoming: Incoming) -> None:
        """See that everything is there, and make it durable.

        Raises: ItemError: something is missing; OSError.
        """
        if not incoming.files:
            raise ItemError(
                "this came by a form without scripts and broke off: nobody knows what is missing",
                where=visible(incoming.name),
                hint="Give it up, and upload the folder again",
            )
        with self._folder(incoming):
            there = self.received(incoming)
        for path, size in incoming.files.items():
            if there.get(path) != size:
                raise ItemError(
                    f"of this file {there.get(path, 0):,} of {size:,} bytes are here",
                    where=visible(path),
                    hint="Take the upload up again",
                )
        own = {sidecar.NAME} if incoming.purposes else set()  # from an end that did not come about
        if others := sorted(there.keys() - incoming.files.keys() - own):
            raise ItemError(
                f"{counted(len(others), 'file')} in this folder did not come by this upload",
                where=visible(others[0]),
                hint="Give it up, and upload the folder again",
            )
        if incoming.purposes:
            with self._folder(incoming) as folder:
                _put(folder, sidecar.NAME, sidecar.text(incoming.purposes))
        files.sync_filesystem(self.inbox)

    def hand_over(self, incoming: Incoming) -> None:
        """Rename .NAME to NAME, durably: from now on it is the daemon's.

        Raises: ItemError: it is gone, or the name was taken meanwhile; OSError.
        """
        if not self._is_there(incoming):
            raise _gone(incoming)
        hidden = self._hidden(incoming.name)
        visible_name = os.path.join(self.inbox, os.fsencode(incoming.name))
        try:
            files.give_name(hidden, visible_name)
        except FileExistsError as error:
            raise ItemError(
                "this name came into the inbox meanwhile",
                where=visible(incoming.name),
                hint="Finish the upload when the other folder has been taken",
            ) from error
        files.fsync_dir(self.inbox)
        self._forget(incoming)

    def _forget(self, incoming: Incoming) -> None:
        self._known.pop(incoming.id, None)
        self._record(incoming.id).unlink(missing_ok=True)

    def give_up(self, incoming: Incoming) -> None:
        """Remove what is there of it."""
        if self._is_there(incoming):
            shutil.rmtree(self._hidden(incoming.name))
        self._forget(incoming)

    def lacking(self, incoming: Sequence[Incoming], size: int, floor: int) -> int:
        """Return how many bytes the disk lacks for a new upload beside those under way; 0 or less: none.

        Args:
            incoming: the uploads under way; what they have announced and not sent yet counts.
            size: bytes of the new upload.
            floor: bytes that are to stay free.
        """
        # Of a plain form nobody knows how much is to come: more is there than was announced.
        missing = sum(max(one.size - sum(self.received(one).values()), 0) for one in incoming)
        return disk_space.lacking(self.inbox, size + missing, floor)


def _gone(incoming: Incoming) -> ItemError:
    return ItemError("this upload is not under way any more", where=visible(incoming.name))


@contextlib.contextmanager
def _made_beneath(folder: int, path: bytes) -> Iterator[int]:
    """Open a directory below an open one, made where it is not there; no link is followed.

    Raises: ItemError: a link or a file stands in its path; OSError.
    """
    fd = os.dup(folder)
    try:
        for part in path.split(b"/") if path else ():
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, _MODE, dir_fd=fd)
            try:
                inner = os.open(part, _OPEN_DIR, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise ItemError(
                    "a link or a file stands in this path", where=visible(os.fsdecode(path))
                ) from error
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _put(folder: int, name: str, data: bytes) -> None:
    """Write a new file in place of whatever has this name, a link too. Raises: OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    fd = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder
    )
    with open(fd, "wb") as file:
        file.write(data)


def listed(given: Any) -> list[tuple[str, int]]:
    """Return (path, bytes) of what a program says it will send. Raises: ItemError: it says something else."""
    try:
        found = [(file["path"], file["size"]) for file in given]
    except (TypeError, KeyError):
        found = [("", None)]
    if not all(isinstance(path, str) and type(size) is int for path, size in found):
        raise ItemError("files are required, each with path and size")
    return found
