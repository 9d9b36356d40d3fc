"""Faults of this machine, told from those of a folder: the one place that says which errors are which.

A disk that is full, broken or gone; too many open files; no thread, process or memory to be had: whoever
meets them is not at fault, and the same work succeeds when they have passed.
"""

from __future__ import annotations

import errno
import os

#: There is no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

#: A disk that is full, read-only, broken or gone.
DISK = FULL | {errno.EROFS, errno.EIO, errno.ESTALE, errno.EUCLEAN}

#: A file system whose server, device or mount is gone, besides.
GONE = DISK | {errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN}

#: The machine has no more of something to give. Sources: fork(2), pthread_create(3), open(2), socket(2).
_SHORT = {
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes or threads",
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOBUFS: "memory",
}

#: What CPython says where pthread_create fails. Source: Modules/_threadmodule.c.
_NO_THREAD = "can't start new thread"


def short_of(error: BaseException) -> str:
    """Return what the machine has too little of, "" where the error is none of that kind.

    Of a group of errors, that of the first which is: the others are what it brought about.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((short for one in error.exceptions if (short := short_of(one))), "")
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError):
        return _SHORT.get(error.errno or 0, "")
    return "threads" if isinstance(error, RuntimeError) and _NO_THREAD in str(error) else ""


def of_disk(error: BaseException) -> OSError | None:
    """Return the error of a disk among these, None where there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := of_disk(one))), None)
    return error if isinstance(error, OSError) and error.errno in DISK else None


def words(error: OSError) -> str:
    """Return what the system calls an error."""
    return error.strerror or os.strerror(error.errno or 0)
