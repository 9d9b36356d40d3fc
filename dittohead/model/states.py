"""States of jobs, steps, items, drops and notices; what may be asked for; and the four stations."""

from __future__ import annotations

from enum import StrEnum


class Station(StrEnum):
    """One of the four directories under the root that hold people's folders."""

    INBOX = "inbox"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"


class JobState(StrEnum):
    """What a job is doing now."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FROZEN = "frozen"
    DONE = "done"
    FAILED = "failed"


#: States in which the folder belongs in processing/.
ACTIVE = frozenset({JobState.WAITING, JobState.RUNNING, JobState.PAUSED, JobState.FROZEN})
#: States in which the job has ended.
TERMINAL = frozenset({JobState.DONE, JobState.FAILED})


class Outcome(StrEnum):
    """What happened to a failed job, beside its state; a failure without one waits for somebody."""

    NONE = ""
    CANCELLED = "cancelled"  #: somebody ended it
    DISMISSED = "dismissed"  #: somebody said that nothing more is to be done
    GONE = "gone"  #: its folder is no longer in failed/


class StepState(StrEnum):
    """How far one step of a job is."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class ItemState(StrEnum):
    """What happened to an item that was seen upstream, in the version seen last."""

    SEEN = "seen"  # to be fetched
    FETCHING = "fetching"
    DROPPED = "dropped"  # in the inbox, or its job is under way
    DONE = "done"
    FAILED = "failed"  # its job failed
    REFUSED = "refused"  # never fetched, with the reason
    GONE = "gone"  # no longer there when it was to be fetched


class DropState(StrEnum):
    """What happened to a folder that a source drops into the inbox."""

    FETCHING = "fetching"
    DROPPED = "dropped"
    DONE = "done"
    FAILED = "failed"
    VOID = "void"  # nothing was left to drop


class Fixity(StrEnum):
    """What the latest check of an ended job has found: its copies compared with its receipt."""

    GOOD = "good"  #: all is as the receipt says
    WRONG = "wrong"  #: something is missing or differs
    UNKNOWN = "unknown"  #: something could not be looked at


class NoticeState(StrEnum):
    """How far a notice in the outbox is."""

    DUE = "due"  #: is sent at its moment
    HELD = "held"  #: waits for the gathered notice that is to list it
    PARKED = "parked"  #: its receiver is disabled
    GATHERED = "gathered"  #: was sent as a part of another
    SENT = "sent"
    GIVEN_UP = "given_up"


#: States of notices that may still be sent.
PENDING = frozenset({NoticeState.DUE, NoticeState.HELD, NoticeState.PARKED})


class Action(StrEnum):
    """What people may ask the daemon for."""

    RETRY = "retry"  #: a failed job, from the step that failed
    RERUN = "rerun"  #: a job that has ended, from its first step
    RENAME = "rename"  #: a failed folder
    REPLACE = "replace"  #: one file of a failed folder
    FREEZE = "freeze"
    THAW = "thaw"
    CANCEL = "cancel"
    DISMISS = "dismiss"
    DELETE = "delete"  #: remove an ended job's folder
    APPROVE = "approve"  #: that somebody else has it removed
    KEEP = "keep"  #: do not remove it
    POKE = "poke"  #: try now what waits
    UNDONE = "undone"  #: record what `undo` has done
    DROP = "drop"  #: a folder was uploaded through the page; the row is the record
    RESUME = "resume"  #: a paused target
    RETRY_BATCH = "retry-batch"
    SYNC = "sync"  #: a source
    RESET = "reset"
    SOURCE_PAUSE = "source-pause"
    SOURCE_RESUME = "source-resume"
    SOURCE_TELL = "source-tell"
    SOURCE_HOLD = "source-hold"  #: an entry on the board
    SOURCE_THAW = "source-thaw"
    SOURCE_REFETCH = "source-refetch"
    SOURCE_CHECK = "source-check"
    NOTIFY_TEST = "notify-test"
    NOTIFY_ENABLE = "notify-enable"
