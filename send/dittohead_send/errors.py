"""Errors: what, where, what to do next; and the exit code of each kind.

SendError      the folder cannot be sent as things are: said, and the next folder follows
ConnectionGone the connection broke: connect again, and continue where it stopped
"""

from __future__ import annotations

# Exit codes, the same on all systems. Source: sysexits.h, which Windows does not have.
OK = 0
USAGE = 64
DATA = 65  # the folder holds what cannot be sent, or its job failed
NO_INPUT = 66  # no such folder here
UNAVAILABLE = 69  # the server cannot be reached, or has no such directory
EXISTS = 73  # the name is taken in the inbox
IO = 74  # a file here cannot be read
TEMPORARY = 75  # broken off, or the disk is full: the same command continues
HOST_KEY = 76  # the server is not known, or not the one that is known
NO_PERMISSION = 77  # login refused, or no right to write there
INTERRUPTED = 130


class SendError(Exception):
    """Something that a person has to act on.

    Args:
        what: one plain statement, without a full stop.
        where: a path, an address, or "".
        hint: the next action.
        status: the exit code.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", status: int = DATA) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.status = status

    def __str__(self) -> str:
        said = f"{self.where}: {self.what}" if self.where else self.what
        return f"{said}. {self.hint}" if self.hint else said


class ConnectionGone(Exception):
    """The connection broke. What was confirmed stays, and sending continues after it."""
