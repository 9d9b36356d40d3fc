"""The uploader's protocol, done right: copy as .NAME, make durable, rename to NAME."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dittohead.folders import sidecar
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.model.text import display, is_utf8
from dittohead.system import attributes, files
from dittohead.system.attributes import PathCounts

_BLOCK = 4 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: That a file system has no such attributes, or no room for so large ones: ENOSPC says that here of a disk
#: with much room, too. Source: ext4, whose attributes of a file fill at most a block.
_CANNOT_HOLD = {errno.ENOTSUP, errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EPERM, errno.EACCES}


class Upload:
    """One folder on its way into an inbox.

    Raises: DittoheadError: the source holds what the daemon would refuse, or the name is taken.
    """

    def __init__(
        self, source: Path, inbox: Path, name: str | None = None, purposes: Sequence[str] = ()
    ) -> None:
        self.source = source.absolute()
        self.purposes = purposes  #: what the folder is to ask for, by a side-car
        self.name = name or os.path.basename(os.path.realpath(self.source))
        self.inbox = os.fsencode(inbox)
        self.files = self.size = 0
        self._links: dict[tuple[int, int], bytes] = {}  #: the copy of each file with further names
        self._bare, self._unlisted = PathCounts(), PathCounts()
        self._has_default = attributes.ACLS[1] in attributes.listed(self.inbox)
        # In another's inbox, a list of the uploader's could keep the daemon out.
        self._takes_lists = not self._has_default and os.stat(self.inbox).st_uid == os.geteuid()
        self._check_name()
        self.hidden = os.path.join(self.inbox, b"." + os.fsencode(self.name))
        self.visible = os.path.join(self.inbox, os.fsencode(self.name))
        self._measure()
        for path in (self.visible, self.hidden):
            if os.path.lexists(path):
                raise DittoheadError(
                    "this name is in the inbox already",
                    where=os.fsdecode(path),
                    hint="Give another with --name, or remove it if it is an upload that was given up",
                )

    def _check_name(self) -> None:
        if not self.name or self.name.startswith(".") or "/" in self.name:
            raise DittoheadError(
                f'"{self.name}" is not a name for a folder in the inbox',
                hint="Give another with --name; it must not begin with a dot",
            )
        if not is_utf8(os.fsencode(self.name)):
            raise DittoheadError(
                "the folder's name is not UTF-8 text",
                where=display(os.fsencode(self.name)),
                hint="Give another with --name",
            )

    def _measure(self) -> None:
        if not os.path.lexists(self.source):
            raise DittoheadError("there is no such file or directory", where=str(self.source))
        if self.source.is_file() and not self.source.is_symlink():
            self.files, self.size = 1, self.source.stat().st_size
            return
        if self.source.is_symlink():
            hint = f"Give what it stands for: {os.path.realpath(self.source)}"
            raise DittoheadError("this is a link", where=str(self.source), hint=hint)
        if not self.source.is_dir():
            raise DittoheadError("this is neither a directory nor a plain file", where=str(self.source))
        for found in files.walk(self.source):
            if found.is_empty_dir:
                continue
            if found.kind != "file":
                raise ItemError(
                    f"this is a {found.kind}; only plain files and directories can be taken",
                    where=str(self.source / os.fsdecode(found.path)),
                    hint="Replace it by a copy of what it stands for, or delete it",
                )
            if self.purposes and found.path == os.fsencode(sidecar.NAME):
                raise ItemError(
                    "the folder says already what it is for",
                    where=str(self.source / sidecar.NAME),
                    hint="Take the file out, or drop the folder without --for",
                )
            self.files += 1
            self.size += found.status.st_size
        if not self.files:
            raise DittoheadError("the folder holds no files", where=str(self.source))

    def copy(self, progress: Callable[[int], None]) -> None:
        """Copy everything as .NAME, with times, modes, attributes and hard links; make it durable. Blocking.

        Args:
            progress: is given the number of bytes copied since its last call.

        Raises: ItemError: a file changed meanwhile; OSError; what was copied stays, dotted, and is never
            touched by the daemon.
        """
        os.mkdir(self.hidden)
        if self.source.is_file():
            fd, _ = files.open_regular(os.fsencode(self.source))
            self._file(fd, os.path.join(self.hidden, os.fsencode(self.source.name)), progress)
        else:
            for found in files.walk(self.source):
                destination = os.path.join(self.hidden, found.path)
                os.makedirs(
                    destination if found.is_empty_dir else os.path.dirname(destination), exist_ok=True
                )
                if not found.is_empty_dir:
                    fd, _ = files.open_regular(found.name, found.dir_fd)
                    self._file(fd, destination, progress)
        if self.purposes:
            with open(os.path.join(self.hidden, os.fsencode(sidecar.NAME)), "xb") as file:
                file.write(sidecar.text(self.purposes))
        if not self.source.is_file():
            self._folders()
        self._hand_over()
        files.sync_filesystem(self.hidden)  # the inbox itself may be closed to anyone who only uploads

    @property
    def not_kept(self) -> str:
        """What of the source is not in the copy, in words; "" when there is nothing."""
        parts = []
        if self._bare:
            parts.append(f"extended attributes of {self._bare} (the inbox's file system does not take them)")
        if self._unlisted:
            parts.append(f"access control lists of {self._unlisted} (the inbox's own rights hold)")
        return ", ".join(parts)

    def _file(self, fd: int, destination: bytes, progress: Callable[[int], None]) -> None:
        with open(fd, "rb", buffering=0) as source:
            status = os.fstat(fd)
            known = self._links.get((status.st_dev, status.st_ino))
            if known is not None:
                os.link(known, destination)
                progress(status.st_size)
                return
            with open(destination, "xb", buffering=0) as copy:
                _content(source.fileno(), copy.fileno(), status.st_size, progress)
                if os.fstat(fd).st_size != status.st_size:
                    raise ItemError(
                        "this changed while it was copied",
                        where=os.fsdecode(destination[len(self.hidden) + 1 :]),
                        hint=f"Remove {os.fsdecode(self.hidden)}, and try again when nobody writes to it",
                    )
                self._besides(fd, copy.fileno(), status, is_dir=False)
        if status.st_nlink > 1:
            self._links[status.st_dev, status.st_ino] = destination

    def _folders(self) -> None:
        """Give the copied folders what the original ones have, when nothing is put into them any more."""
        root = os.fsencode(self.source)
        for folder, _, _ in os.walk(self.hidden, topdown=False):
            original = os.path.join(root, os.path.relpath(folder, self.hidden))
            here, there = os.open(original, _FOLDER), os.open(folder, _FOLDER)
            try:
                self._besides(here, there, os.fstat(here), is_dir=True)
            finally:
                os.close(here)
                os.close(there)

    def _besides(self, here: int, there: int, status: os.stat_result, *, is_dir: bool) -> None:
        """Give a copy its original's attributes, access control list, mode and times, in this order."""
        names = attributes.listed(here)
        if not _carried(here, there, attributes.data(names, private=os.geteuid() == 0)):
            self._bare.add(is_dir=is_dir)
        lists = attributes.acls(names)
        if lists and not (self._takes_lists and _carried(here, there, lists)):
            self._unlisted.add(is_dir=is_dir)
        # Its owner must be able to hand it over. Whose program runs as whom is not copied with a file.
        mode = stat.S_IMODE(status.st_mode) & 0o777 | (0o700 if is_dir else 0o400)
        given = stat.S_IMODE(os.fstat(there).st_mode)
        mode |= given & stat.S_ISGID if is_dir else 0
        mode |= given & stat.S_IRWXG if self._has_default else 0  # what the inbox's own list gives
        os.fchmod(there, mode)
        os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _hand_over(self) -> None:
        """Let the inbox's group move and read it, where the inbox is another user's."""
        if os.stat(self.inbox).st_uid == os.geteuid():
            return
        for parent, _, names in os.walk(self.hidden):
            os.chmod(parent, stat.S_IMODE(os.lstat(parent).st_mode) | stat.S_IRWXG)  # noqa: S103  # the inbox's group is the daemon
            for name in names:
                path = os.path.join(parent, name)
                os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) | stat.S_IRGRP)

    def publish(self) -> None:
        """Rename .NAME to NAME: from now on it is the daemon's.

        Raises: DittoheadError: the name was taken meanwhile; the copy stays as .NAME.
        """
        folder = os.open(self.hidden, _FOLDER)  # by its name it may be gone as soon as it has the new one
        try:
            self._rename()
            try:
                files.fsync_dir(self.inbox)
            except PermissionError:  # an inbox of mode 3773 is closed to others: all of its file system, then
                files.sync_filesystem(f"/proc/self/fd/{folder}")
        finally:
            os.close(folder)

    def _rename(self) -> None:
        try:
            files.give_name(self.hidden, self.visible)
        except FileExistsError as error:
            raise DittoheadError(
                "this name came into the inbox meanwhile",
                where=os.fsdecode(self.visible),
                hint=f"Rename {os.fsdecode(self.hidden)} to another name without the dot",
            ) from error


def _content(source: int, copy: int, size: int, progress: Callable[[int], None]) -> None:
    """Copy a file's data; where it has holes, the copy has them. Source: lseek(2), SEEK_DATA."""
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        progress(start - at)
        os.lseek(copy, start, os.SEEK_SET)
        at = start
        while at < end and (count := os.sendfile(copy, source, at, min(_BLOCK, end - at))):
            progress(count)
            at += count
        if at < end:  # it has become shorter: anyone who called sees that
            return
    progress(size - at)
    os.ftruncate(copy, size)


def _carried(here: int, there: int, names: Iterable[str]) -> bool:
    """Copy attributes; return whether the file system takes them. Raises: OSError."""
    try:
        for name in names:
            os.setxattr(there, name, os.getxattr(here, name))
    except OSError as error:
        if error.errno not in _CANNOT_HOLD:
            raise
        return False
    return True
