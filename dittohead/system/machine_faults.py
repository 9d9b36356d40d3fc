"""Faults of this machine, told from those of a folder: the one place that says which errors are which.

A disk that is full, broken or gone; too many open files; no thread, process or memory available: anyone who
meets them is not at fault, and the same work succeeds when they have passed.
"""

from __future__ import annotations

import errno
import os
import re

from dittohead.model.errors import MachineShort

#: There is no room: of all disk errors those that room helps.
FULL = frozenset(
    {
        errno.ENOSPC,  # the file system is full
        errno.EDQUOT,  # a user's, a group's or a project's share of it is
    }
)

#: A disk at fault, by what sockets never say: true of whatever a worker raises, whose errors may also be
#: those of a connection to somewhere else.
DISK = FULL | {
    errno.EROFS,  # mounted read-only, as ext4 does by itself when it finds itself damaged
    errno.EIO,  # it cannot be read or written; of NFS, a soft mount that gave up
    errno.ESTALE,  # NFS: what the handle stands for is no longer there
    errno.EUCLEAN,  # its structure is damaged: fsck is needed
}

#: What file systems say, and sockets too, whose server, device or mount is away.
_AWAY = frozenset(
    {
        errno.ENODEV,  # the device was taken out
        errno.ENOTCONN,  # FUSE: the program behind it has ended
        errno.ESHUTDOWN,  # the connection to it was closed
        errno.ETIMEDOUT,  # NFS, CIFS: it does not answer
        errno.EHOSTDOWN,  # CIFS: it is not there
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EREMOTEIO,  # NFS, 9P: its own disk is at fault
    }
)

#: A file system at fault, where it is known that the error comes from one.
GONE = DISK | _AWAY

#: The process, or the whole system, has no descriptor left. Source: open(2).
NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})

#: The machine has no more of something to give. Sources: fork(2), pthread_create(3), open(2), socket(2).
_SHORT = {
    errno.ENOMEM: "memory",
    errno.EAGAIN: "processes or threads",
    errno.ENOBUFS: "memory",
    **dict.fromkeys(NO_FILES, "open files"),
}

#: What may go away by itself while the daemon starts: all of these, and an address that another program
#: still holds, or that the network has yet to bring.
PASSING = GONE | _SHORT.keys() | {errno.EADDRINUSE, errno.EADDRNOTAVAIL}

#: The last words of programs that could not get something. Sources: strerror(3); dash, jobs.c; CPython.
_SAID = (
    (re.compile(r"(Cannot fork|Resource temporarily unavailable)( \(11\))?$"), "processes or threads"),
    (re.compile(r"can't start new thread$"), "threads"),
    (re.compile(r"(Cannot allocate memory( \(12\))?|MemoryError)$"), "memory"),
    (re.compile(r"Too many open files( in system)?( \(2[34]\))?$"), "open files"),
)

#: What CPython says where pthread_create fails. Source: Modules/_threadmodule.c.
_NO_THREAD = "can't start new thread"


def short_of(error: BaseException) -> str:
    """Return what the machine has too little of, "" where the error is none of that kind.

    Of a group of errors, that of the first which is: the others are what it brought about.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((short for one in error.exceptions if (short := short_of(one))), "")
    if isinstance(error, MachineShort):
        return error.of
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError):
        return _SHORT.get(error.errno or 0, "")
    return "threads" if isinstance(error, RuntimeError) and _NO_THREAD in str(error) else ""


def said_in(line: str) -> str:
    """Return what a program says the machine has too little of, "" where it says no such thing."""
    return next((short for pattern, short in _SAID if pattern.search(line)), "")


def of_disk(error: BaseException) -> OSError | None:
    """Return the error of a disk among these, None where there is none."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for one in error.exceptions if (found := of_disk(one))), None)
    return error if isinstance(error, OSError) and error.errno in DISK else None


def words(error: OSError) -> str:
    """Return what the system calls an error."""
    return error.strerror or os.strerror(error.errno or 0)
