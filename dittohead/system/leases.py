"""Whether a program on this machine has a file open for writing: the kernel tells by a read lease."""

from __future__ import annotations

import fcntl
import os
import signal
import stat

from dittohead.system import capabilities
from dittohead.system.files import FoundName

#: What changed in this time before a look may still be written by somebody who pauses. Seconds.
WRITERS_S = 3600.0

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def written(found: FoundName) -> bool:
    """Tell whether somebody on this machine has a file open for writing, as far as that can be known."""
    return may_lease(found.status) and has_writer(found.name, found.dir_fd)


def may_lease(status: os.stat_result) -> bool:
    """Tell whether this process may ask who writes to a file: its own, or anybody's with CAP_LEASE."""
    return stat.S_ISREG(status.st_mode) and (
        status.st_uid == os.geteuid() or capabilities.has(capabilities.LEASE)
    )


def has_writer(name: bytes, dir_fd: int) -> bool:
    """Tell whether somebody has a regular file open for writing, or mapped so that it can be written.

    Costs as much as two more stats. What cannot be known (it may not be read, or its file system knows
    no leases) is False.

    Source: fcntl(2), F_SETLEASE: a read lease is refused (EAGAIN) while the file is open for writing.
    """
    try:
        fd = os.open(name, _OPEN, dir_fd=dir_fd)
    except BlockingIOError:  # another program holds a lease itself, as Samba does for its clients
        return True
    except OSError:
        return False
    try:
        # Anyone who opens it in exactly this moment breaks the lease, and we are sent a signal: by default
        # one that ends the process, so one that is ignored by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
