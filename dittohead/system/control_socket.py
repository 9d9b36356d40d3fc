"""Where the daemon's own socket lies, and how it is reached in a root however deep."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

#: The name of the socket in state/, and of what is bound to it.
OWN_SOCKET = "api.sock"

#: The header of every answer by it: the SHA-256 of the configuration that the daemon goes by.
CONFIGURATION = "Dittohead-Configuration"

#: A daemon that lives takes a connection at once.
CONNECT_S = 10.0


def state_of(root: Path) -> Path:
    """Return where what the daemon itself keeps lies below a root: store, lock and socket."""
    return root / "state"


class Reachable(Enum):
    """What happens to somebody who wants to ask the daemon of a root."""

    OPEN = "it listens"
    SILENT = "it does not run, or does not answer"
    BARRED = "this user may not ask it"


def reach(state: Path) -> Reachable:
    """Connect to a daemon's own socket, and let it go again."""
    try:
        connect(state).close()
    except PermissionError:
        return Reachable.BARRED
    except OSError:  # not there, refused, too busy to take it
        return Reachable.SILENT
    return Reachable.OPEN


def connect(state: Path) -> socket.socket:
    """Connect to a daemon's own socket. Raises: OSError: nobody listens, or this user may not."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(CONNECT_S)
        with near(state):
            found.connect(OWN_SOCKET)
    except OSError:
        found.close()
        raise
    return found


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
