"""Say what went wrong, where, and what to do next: the exception tree.

DittoheadError                 what / where / hint, printed "where: what. hint"
├── ConfigError                config.yaml is wrong; the daemon does not start (exit status 78)
├── StoreError                 the store cannot be read or written
├── StationError               a folder cannot be moved between stations
│   ├── NameTaken              the wanted name exists already; nothing was replaced
│   ├── Immovable              the daemon may not move it: the error says what to type
│   └── StationMissing         a station, or the root, is not there: what needs it waits
├── Unreadable                 a file of the daemon's own is damaged
├── Superseded                 another run of this job took over; this one must stop at once
└── StepError                  a step did not succeed; the class says what happens next
    ├── ItemError              this folder is at fault: to failed/ with the reason
    │   ├── ClosedError        the daemon may not read something in it
    │   └── ChangedError       it is not what it was at the claim: only a new job can do it
    ├── TransientError         try again after a back-off
    │   └── MachineShort       this machine has too little of something; the wait counts as no try
    └── TargetError            an outside place is down or full: it is paused, its jobs wait
        └── SourceStopped      a source may not go on before a person has done something

NoSuchJob stands apart: what was asked for is not there, and nothing went wrong.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence


class DittoheadError(Exception):
    """An error a person can act on.

    Args:
        what: one plain statement, without a full stop.
        where: a path, a URI or `config.yaml:LINE:COLUMN`; empty when there is no such place.
        hint: the next action, a command where there is one.
    """

    kind = "item"  #: what a failure is called that a job keeps of it
    files: Sequence[str] = ()  #: paths of those in the folder that are at fault, the first few
    good = False  #: those files are as they should be: other settings help

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        # Names on disk may hold bytes that are not text: what reaches a receipt, the store or a
        # terminal must be.
        self.what, self.where, self.hint = storable(what), storable(_on_one_line(where)), storable(hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.hint}" if self.hint else text


def _on_one_line(where: str) -> str:
    """Return a place with what would break its line as an escape: a name may hold it."""
    return "".join(repr(c)[1:-1] if c.splitlines() == [""] else c for c in where)


def storable(text: str) -> str:
    """Return text that can be stored and sent: what is not a character is made visible, as its escape.

    That are bytes of names that are not UTF-8, halves of characters (as JSON can write them), and NUL, which
    PostgreSQL does not take.
    """
    if text.isascii() and "\0" not in text:
        return text
    text = "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


class ConfigError(DittoheadError):
    """The configuration cannot be used; `problems` holds every finding, not only the first."""

    exit_status = os.EX_CONFIG

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        hint: str = "",
        problems: tuple[DittoheadError, ...] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.problems = problems or (self,)

    def __str__(self) -> str:
        if self.problems == (self,):
            return super().__str__()
        return "\n".join(str(problem) for problem in self.problems)


class StoreError(DittoheadError):
    """The store cannot be opened, read or written.

    Args:
        passing: it may well go away by itself (a full disk, a database that restarts).
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", passing: bool = False) -> None:
        super().__init__(what, where=where, hint=hint)
        self.passing = passing


class StationError(DittoheadError):
    """A folder cannot be moved between the stations."""


class NameTaken(StationError):
    """The wanted name exists at the destination; nothing was replaced."""


class Immovable(StationError):
    """The daemon may not move a folder.

    Args:
        cure: what to do, in words.
        command: what to type so that it may.
    """

    def __init__(self, what: str, *, where: str, cure: str, command: str) -> None:
        super().__init__(what, where=where, hint=f"{cure}. Type: {command}")
        self.cure, self.command = cure, command


class StationMissing(StationError):
    """A station, or the root itself, is not there; no folder was moved."""


class Unreadable(DittoheadError, ValueError):
    """A file that the daemon wrote itself is damaged, or something else lies in its place."""


class Superseded(DittoheadError):
    """The job's fencing token no longer holds: a later run owns the job."""


class StepError(DittoheadError):
    """A step did not succeed."""


class ItemError(StepError):
    """This folder is at fault, or can only be corrected by a person: it goes to failed/."""


class ClosedError(ItemError):
    """The daemon may not read something in the folder; `where` is its path there."""


class ChangedError(ItemError):
    """The folder is not what it was at the claim: trying again can only fail, a new job may do it."""

    kind = "changed"


class TransientError(StepError):
    """A temporary fault: the step is tried again.

    Args:
        retry_after_s: seconds the remote system asked for (`Retry-After`), of which a day at most is waited;
            None leaves it to the policy.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.retry_after_s = retry_after_s


class MachineShort(TransientError):
    """This machine has no more threads, processes, open files or memory: no fault of this folder.

    Args:
        of: what there is too little of.
    """

    def __init__(self, what: str, *, of: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.of = of


class TargetError(StepError):
    """An outside place is down, full or refuses us: no fault of this folder.

    The worker's `target()` for the step is paused; its jobs wait and go on by themselves.

    Args:
        full: it has no room.
        apart: only what the worker's `room()` names has none; everything else of the target is well.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", full: bool = False, apart: bool = False
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.full, self.apart = full, apart


class SourceStopped(TargetError):
    """A source is let in no more: all of it stops, people are told once, and nothing is tried in a loop.

    Args:
        hint: the command that helps.
        over: tells whether a person has done it; asked now and then, so it must be quick.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", over: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.over = over


class NoSuchJob(LookupError):
    """No job, or more than one, fits what was given; the message is for people."""


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single error of a group, however deep: what a group of tasks failed of."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def ungrouped(*kinds: type[Exception]) -> Iterator[None]:
    """Raise the first error of these kinds by itself, where a group of tasks ends with nothing else.

    Put it around a TaskGroup. `except*` does not do that before Python 3.11.4 (Debian 12 has 3.11.2): what
    such a clause raises arrives in a group again, and a temporary fault would be a defect.
    Source: Python's changelog, 3.11.4, gh-103590.
    """
    try:
        yield
    except BaseExceptionGroup as errors:
        if errors.split(kinds)[1] is not None:
            raise
        raise first_of(errors) from None
