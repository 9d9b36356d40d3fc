"""Read the daemon's own files under the root: nothing is waited for, and nothing in them is believed.

An editor, a fault of the disk or another program may have changed any of them. A FIFO in a file's place
would hold its reader forever, a line without an end would fill the memory.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from dittohead.model.errors import Unreadable

T = TypeVar("T")

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

#: The longest line of a list that is accepted. The longest that are written have some kilobytes.
LINE_MOST = 1 << 23

#: What opening or reading raises where the file itself is wrong, and not the disk.
_WRONG = {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}

#: What turning JSON into what it is to mean raises where it means something else.
_MEANINGLESS = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def opened(path: Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises: Unreadable: something else lies there, or it may not be read; FileNotFoundError, OSError.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _WRONG:
            raise Unreadable(f"it cannot be read ({error.strerror})", where=str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unreadable("it is not a regular file", where=str(path))
    return open(fd, "rb")


def extended(path: Path) -> IO[bytes]:
    """Open a file to add to it, unbuffered; it is made where there is none.

    Raises: PermissionError, OSError; Unreadable: something else lies there.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o640)
    except PermissionError:
        raise
    except OSError as error:
        if error.errno in _WRONG:
            raise Unreadable(f"it cannot be written ({error.strerror})", where=str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Unreadable("it is not a regular file", where=str(path))
    return open(fd, "ab", buffering=0)


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file. Raises: Unreadable: a line has no end; as `opened`."""
    with opened(path) as file:
        number = 0
        while line := file.readline(LINE_MOST):
            number += 1
            if len(line) == LINE_MOST and not line.endswith(b"\n"):
                raise Unreadable(f"line {number} has no end", where=str(path))
            yield line


def records(path: Path, make: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """Yield what each line, a JSON object, stands for. Raises: Unreadable, with the line; as `opened`."""
    for number, line in enumerate(lines(path), 1):
        try:
            made = make(json.loads(line))
        except _MEANINGLESS as error:
            text = f"line {number} is damaged ({type(error).__name__})"
            raise Unreadable(text, where=str(path)) from error
        yield made


def document(path: Path, make: Callable[[Any], T]) -> T:
    """Return what a file that is one JSON document stands for. Raises: Unreadable; as `opened`."""
    with opened(path) as file:
        try:
            return make(json.loads(file.read()))
        except _MEANINGLESS as error:
            raise Unreadable(f"it is damaged ({type(error).__name__})", where=str(path)) from error


def text(value: Any) -> str:
    """Return a value that must be text. Raises: TypeError."""
    if not isinstance(value, str):
        raise TypeError("this must be text")
    return value


def size(value: Any) -> int:
    """Return a value that must be a number of bytes, or the like. Raises: TypeError, ValueError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("this must be a whole number")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Return a value that must be an object with keys. Raises: TypeError."""
    if not isinstance(value, dict):
        raise TypeError("this must be an object with keys")
    return value
