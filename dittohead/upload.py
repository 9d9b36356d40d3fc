"""The uploader's protocol, done right: copy as .NAME, make durable, rename to NAME."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from dittohead import files, sidecar
from dittohead.errors import DittoheadError, ItemError

_BLOCK = 4 << 20


class Upload:
    """One folder on its way into an inbox.

    Raises: DittoheadError: the source holds what the daemon would refuse, or the name is taken.
    """

    def __init__(
        self, source: Path, inbox: Path, name: str | None = None, purposes: Sequence[str] = ()
    ) -> None:
        self.source = source.absolute()
        self.purposes = purposes  #: what the folder is to ask for, by a side-car
        self.name = name or self.source.resolve().name
        self.inbox = os.fsencode(inbox)
        self.files = self.size = 0
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
                f'"{self.name}" is no name for a folder in the inbox',
                hint="Give another with --name; it must not begin with a dot",
            )

    def _measure(self) -> None:
        if not os.path.lexists(self.source):
            raise DittoheadError("there is no such file or directory", where=str(self.source))
        if self.source.is_file() and not self.source.is_symlink():
            self.files, self.size = 1, self.source.stat().st_size
            return
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

    def copy(self, progress: Callable[[int], None]) -> None:
        """Copy everything as .NAME and make it durable. Blocking.

        Args:
            progress: is given the number of bytes copied since its last call.

        Raises: OSError; what was copied stays, dotted, and is never touched by the daemon.
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
        self._hand_over()
        files.sync_filesystem(self.inbox)

    def _file(self, fd: int, destination: bytes, progress: Callable[[int], None]) -> None:
        with open(fd, "rb", buffering=0) as source, open(destination, "xb", buffering=0) as copy:
            while True:
                count = os.sendfile(copy.fileno(), source.fileno(), None, _BLOCK)
                if count == 0:
                    break
                progress(count)
            status = os.fstat(source.fileno())
            os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))

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
        try:
            files.rename_noreplace(self.hidden, self.visible)
        except FileExistsError as error:
            raise DittoheadError(
                "this name came into the inbox meanwhile",
                where=os.fsdecode(self.visible),
                hint=f"Rename {os.fsdecode(self.hidden)} to another name without the dot",
            ) from error
        files.fsync_dir(self.inbox)
