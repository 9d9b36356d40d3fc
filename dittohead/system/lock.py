"""The lock that keeps a second daemon (or a command that changes the store) out of a root."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from dittohead.model.errors import DittoheadError
from dittohead.system.files import make_way


class Locked(DittoheadError):
    """Another process holds the root."""

    exit_status = os.EX_TEMPFAIL


#: Seconds between two tries for a lock that is taken.
_AGAIN_S = 0.05


class Lock:
    """The lock of a root, that this process holds."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd

    def renew(self) -> bool:
        """Take the lock again where its file was deleted or replaced; return whether it was. Blocking.

        Anyone who deletes the file lets a second daemon in: it would hold another file of the name.

        Raises: Locked: another process has it by now; OSError: state/ is not there, or the disk is full.
        """
        try:
            if _same(self._fd, os.lstat(self._path)):
                return False
        except FileNotFoundError:
            if not self._path.parent.is_dir():
                raise
        fd = _locked(self._path, 0)
        self.close()
        self._fd = fd
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


@contextlib.contextmanager
def held(state: Path, *, patience_s: float = 0.0) -> Iterator[Lock]:
    """Hold the root's lock; the kernel lets go of it when the process ends, however it ends.

    Blocking while it waits.

    Args:
        patience_s: how long another holder is waited for.

    Raises: Locked: another process holds it; OSError.
    """
    lock = Lock(state / "lock", _locked(state / "lock", patience_s))
    try:
        yield lock
    finally:
        lock.close()


def _locked(path: Path, patience_s: float) -> int:
    """Return the lock's file, open and locked, with our process in it. Raises: Locked, OSError."""
    tries = int(patience_s / _AGAIN_S)
    while True:
        make_way(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            if _taken(fd):
                if _is_still(path, fd):  # not deleted between the two: nobody else can have it
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, str(os.getpid()).encode(), 0)
                    return fd
            elif tries <= 0:
                raise _locked_out(path, fd)
            else:
                time.sleep(_AGAIN_S)
            tries -= 1
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _locked_out(path: Path, fd: int) -> Locked:
    holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
    return Locked(
        f"another dittohead works on this root (process {holder})",
        where=str(path),
        hint="Stop that one first: systemctl stop dittohead",
    )


def _is_still(path: Path, fd: int) -> bool:
    try:
        return _same(fd, os.lstat(path))
    except FileNotFoundError:
        return False


def _same(fd: int, status: os.stat_result) -> bool:
    ours = os.fstat(fd)
    return (ours.st_dev, ours.st_ino) == (status.st_dev, status.st_ino)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(state: Path) -> bool:
    """Tell whether a daemon runs on this root. Takes nothing away from it."""
    try:
        fd = os.open(state / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link: no daemon holds such a thing
            return False
        raise
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
