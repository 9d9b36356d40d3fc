"""A mount that never answers: a FUSE file system whose server says nothing, and can then be gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


@dataclass
class Mount:
    """A hung mount; `leave` lets its server die, `unmount` takes it away."""

    point: Path
    fd: int

    def leave(self) -> None:
        """End the server: anyone who hangs gets ENOTCONN, as does everyone after."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def unmount(self) -> None:
        """Take it away, whatever still uses it."""
        _libc.umount2(os.fsencode(self.point), _MNT_DETACH)


@contextlib.contextmanager
def hung_mount(point: Path) -> Iterator[Mount]:
    """Mount it over a directory until the block ends. Source: fuse(4)."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("NEEDS ROOT AND /dev/fuse for a mount that hangs: left out")
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _libc.mount(b"silent", os.fsencode(point), b"fuse", 0, options) != 0:
        said = os.strerror(ctypes.get_errno())
        os.close(fd)
        pytest.skip(f"FUSE CANNOT BE MOUNTED HERE ({said}): left out")
    made = Mount(point, fd)
    try:
        yield made
    finally:
        made.leave()
        made.unmount()
