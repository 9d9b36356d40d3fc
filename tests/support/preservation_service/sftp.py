"""The way in over SFTP: a home with four directories, and what may be done there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import asyncssh

from tests.support.preservation_service.state import PreservationService


def server(service: PreservationService) -> Any:
    """Return the class of a server for asyncssh."""

    class Home(asyncssh.SFTPServer):
        def __init__(self, chan: Any) -> None:
            super().__init__(chan, chroot=os.fsencode(service.base))

        def _may(self, call: str, path: bytes, *, write: bool) -> str:
            parts = os.fsdecode(path).strip("/").removeprefix("./").split("/")
            how = service.called(f"{call} {'/'.join(parts)}")
            if how == "lost before":
                self._break()
            if write and (parts[0] != "transfer" or len(parts) != 2):
                raise asyncssh.SFTPPermissionDenied(f"{call}: only files in transfer may be written")
            return how

        def _break(self) -> None:
            self.channel.get_connection().abort()
            raise asyncssh.SFTPConnectionLost("cut")

        def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
            self._may(
                "open",
                path,
                write=bool(pflags & (asyncssh.FXF_WRITE | asyncssh.FXF_APPEND | asyncssh.FXF_CREAT)),
            )
            file = super().open(path, pflags, attrs)
            file.sftp_path = path  # type: ignore[attr-defined, union-attr]
            return file

        def open56(self, *args: Any) -> Any:
            raise asyncssh.SFTPOpUnsupported("open56")

        def write(self, file: Any, offset: int, data: bytes) -> Any:
            how = service.called("write")
            if how.startswith("bytes:"):
                super().write(file, offset, data[: int(how[6:])])
                file.flush()
                self._break()
            if how == "full":
                raise asyncssh.SFTPFailure("No space left on device")
            return super().write(file, offset, data)

        def rename(self, oldpath: bytes, newpath: bytes) -> Any:
            if self._may("rename", newpath, write=True) == "late":
                with service.lock:
                    super().rename(oldpath, newpath)
                    service.handed_over(Path(os.fsdecode(self.map_path(newpath))))
            with service.lock:  # nothing is taken before its name is known
                super().rename(oldpath, newpath)
                if not newpath.endswith(b".incomplete"):
                    service.handed_over(Path(os.fsdecode(self.map_path(newpath))))
            if service.called("renamed") == "lost after":
                self._break()

        def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
            raise asyncssh.SFTPOpUnsupported("posix-rename")

        def remove(self, path: bytes) -> Any:
            self._may("remove", path, write=not path.lstrip(b"/").startswith(b"rejected/"))
            return super().remove(path)

        def mkdir(self, path: bytes, attrs: Any) -> Any:
            raise asyncssh.SFTPPermissionDenied("mkdir")

        def scandir(self, path: bytes) -> Any:
            self._may("list", path, write=False)
            return super().scandir(path)

        def lstat(self, path: bytes) -> Any:
            self._may("stat", path, write=False)
            return super().lstat(path)

    return Home
