"""Targets on mounted file systems: reached by threads that are given up when a mount hangs.

A mount whose server has gone can hold anyone who touches it forever. So nothing is done there in the loop's
thread or in its pool: each call has a thread of its own, which is left behind, and the target paused, when
nothing has come of it for too long.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import TypeVar

from dittohead.model.errors import TargetError
from dittohead.system.machine_faults import FULL, GONE
from dittohead.system.threads import Hung, Stop, in_own_thread

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_FS = 0x200


async def run(work: Callable[[Stop], T], name: str, stall_s: float) -> T:
    """Run `work` in a thread of its own.

    Args:
        work: told when it is to stop; each `stop.check()` is a sign of life.
        name: what people know the target by.
        stall_s: seconds without a sign of life after which it is given up.

    Raises: TargetError: nothing came of it for too long, now or earlier, or the file system is full or at
        fault; what `work` raises.
    """
    try:
        return await in_own_thread(work, key=name, stall_s=stall_s)
    except Hung as error:
        raise TargetError(
            "the file system does not answer",
            where=name,
            hint="See whether its server and the mount are well; work goes on by itself",
        ) from error
    except OSError as error:
        if error.errno not in GONE:
            raise
        hint = sandboxed(name) if error.errno == errno.EROFS else ""
        raise TargetError(
            f"the file system cannot be used ({error.strerror})",
            where=name,
            hint=hint or "See whether its server and the mount are well; work goes on by itself",
            full=error.errno in FULL,
            apart=error.errno == errno.EDQUOT,  # one group's, of many on a disk
        ) from error


def see_mounted(point: str) -> None:
    """See that a file system is mounted. Blocking. Raises: TargetError."""
    if not os.path.ismount(point):
        raise TargetError("nothing is mounted here", where=point, hint="Mount it; work goes on by itself")


def sandboxed(path: str) -> str:
    """Return what to do about a path that may not be written where the service's unit may forbid it.

    Source: systemd.exec(5), ProtectSystem=, $INVOCATION_ID.
    """
    if "INVOCATION_ID" not in os.environ:
        return ""
    return (
        "If it is writable outside of the service, its unit forbids it. Add it: `sudo systemctl edit "
        f"dittohead`, there [Service] and ReadWritePaths={path}, then: `sudo systemctl restart dittohead` "
        "(docs/install.md#targets)"
    )


def with_umask(work: Callable[[], T], umask: int) -> T:
    """Do `work` with the umask of the programs that a step runs; only in a thread that does nothing else.

    The daemon's own lets nobody look in, which is right for what is its own.
    Source: unshare(2), CLONE_FS: the calling thread's umask is no longer that of the others.
    """
    if _libc.unshare(_CLONE_FS) == 0:
        os.umask(umask)
    return work()
