"""Notes of what is done outside, as JSON lines in a file that grows: durable before it is done."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dittohead.model.errors import TargetError
from dittohead.system import own_files
from dittohead.system.files import fsync_dir


class IntentLog:
    """A file of JSON lines; each try that adds to it begins with the head, which says whose it is.

    Blocking. One thread at a time.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self._path, self._head = path, head
        self._file: IO[bytes] | None = None
        self._torn = False  #: the last line may be a half one
        self._begun = False  #: the head is there

    def write(self, lines: Sequence[Mapping[str, Any]], *, durable: bool) -> None:
        """Add lines, whole; with `durable` they are on disk on return, and so is the file's name.

        Raises: OSError: some may be there, the last by half; what is written next stands apart from it.
            TargetError: the file may not be written.
        """
        file = self._opened()
        # A line break first: the last line may be a crash's half.
        data = b"\n" if self._torn else b""
        data += b"".join(_line(one) for one in (lines if self._begun else [self._head, *lines]))
        self._torn = True
        rest = memoryview(data)
        while rest:  # a disk that fills up takes a part first
            rest = rest[file.write(rest) :]
        if durable:
            os.fsync(file.fileno())
        self._torn, self._begun = False, True

    def _opened(self) -> IO[bytes]:
        if self._file is not None:
            return self._file
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = own_files.extended(self._path)
        except PermissionError as error:
            raise TargetError(
                "what is done outside cannot be noted, so nothing is done",
                where=str(self._path),
                hint="Give that directory and what is in it to the daemon's user",
            ) from error
        try:
            # 1 names  2 lines: a line that is durable can be found.
            fsync_dir(self._path.parent.parent)
            fsync_dir(self._path.parent)
            self._torn = os.fstat(file.fileno()).st_size > 0
        except BaseException:
            file.close()
            raise
        self._file = file
        return file

    def close(self) -> None:
        """Finish."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the notes of a file, but no half line of a crash; none when there is no file. Blocking.

    Raises: Unreadable: what lies there is no file that can be read.
    """
    with contextlib.suppress(FileNotFoundError):
        for line in own_files.lines(path):
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(fields, dict):
                yield fields
