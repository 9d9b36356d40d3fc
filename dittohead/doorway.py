"""Where the daemon's own socket lies, and how it is reached in a root however deep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

#: The name of the socket in state/, and of what is bound to it.
OWN_SOCKET = "api.sock"


@contextlib.contextmanager
def near(state: Path) -> Iterator[None]:
    """Be in a directory for a moment: a socket's path has 107 bytes at most, and a root may lie deeper."""
    before = _here()
    try:
        os.chdir(state)
        try:
            yield
        finally:
            os.fchdir(before)
    finally:
        os.close(before)


def _here() -> int:
    """Open the present directory to return to it.

    One that is closed to this user, as with `sudo -u` in one's own home, is as good as /: nothing is found by
    a relative path there.
    """
    try:
        return os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
