"""The words: stations, states, and the frozen records that pass between the rooms."""

from __future__ import annotations

import grp
import os
import shlex
import textwrap
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NewType
from urllib.parse import quote_from_bytes

JobId = NewType("JobId", str)

#: The version of the receipt's and the JSON outputs' shape.
SCHEMA = "dittohead/1"


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
#: States in which the job is over.
TERMINAL = frozenset({JobState.DONE, JobState.FAILED})


class Outcome(StrEnum):
    """What has become of a failed job, beside its state; a failure without one waits for somebody."""

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
    """What has become of an item that was seen upstream, in the version seen last."""

    SEEN = "seen"  # to be fetched
    FETCHING = "fetching"
    DROPPED = "dropped"  # in the inbox, or its job is under way
    DONE = "done"
    FAILED = "failed"  # its job failed
    REFUSED = "refused"  # never fetched, with the reason
    GONE = "gone"  # no longer there when it was to be fetched


class DropState(StrEnum):
    """What has become of a folder that a source drops into the inbox."""

    FETCHING = "fetching"
    DROPPED = "dropped"
    DONE = "done"
    FAILED = "failed"
    VOID = "void"  # nothing was left to drop


class EventType(StrEnum):
    """PREMIS event types used in receipts.

    Source: PREMIS 3 eventType vocabulary, id.loc.gov/vocabulary/preservation/eventType.
    """

    INGESTION_START = "ingestion start"
    INGESTION_END = "ingestion end"
    DIGEST = "message digest calculation"
    FIXITY = "fixity check"
    VALIDATION = "validation"
    MIGRATION = "migration"
    REPLICATION = "replication"
    EXECUTION = "execution"
    METADATA = "metadata modification"
    DELETION = "deletion"
    TRANSFER = "transfer"
    DECRYPTION = "decryption"
    UNPACKING = "unpacking"
    PACKING = "packing"
    RENAMING = "filename change"
    MODIFICATION = "modification"


class Use(StrEnum):
    """What a location is there for, when it is no plain copy of a file."""

    RECORD = "record"  # where it is described: an archival or digital object
    PAGE = "page"  # where the public looks at it
    THUMBNAIL = "thumbnail"
    MANIFEST = "manifest"  # a IIIF Presentation manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """An undotted directory found in the inbox."""

    folder: bytes  #: its name in the inbox, as the kernel gives it
    dev: int  #: st_dev
    ino: int  #: st_ino
    uid: int  #: owner's numeric user id
    seen_at: float  #: when a scan first saw it, seconds since the epoch
    renamed: bool = False  #: it was seen to get this name from a dotted one


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file (or empty directory) of a manifest."""

    path: bytes  #: relative to the folder, as the kernel gives it
    size: int  #: bytes; 0 for a directory
    sha256: str  #: 64 lower-case hex digits; "" for a directory
    mtime_ns: int = 0
    ctime_ns: int = 0
    ino: int = 0
    is_dir: bool = False
    is_ignored: bool = False  #: no step is given it, by the pipeline's `ignore`


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One file a step made in `work/<job id>/<step>/`."""

    path: bytes  #: relative to the step's work directory
    size: int  #: bytes
    sha256: str
    source: bytes = b""  #: the input's relative path it was made from; b"" for none or many
    detail: dict[str, Any] = field(default_factory=dict)  #: facts worth a place in the receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """One file or record at a place outside, and how it was checked there."""

    uri: str  #: of the file: file:///..., rsync://..., s3://...; of a record or page: https://...
    path: bytes  #: relative path of the input it is a copy of; b"" for none or many
    size: int  #: bytes; 0 for what is no file
    sha256: str  #: of a record, of its content as the worker defines it
    verified_by: str  #: such as "sha256 read-back" or "rsync --checksum"
    checksum: str = ""  #: the place's own, as "CRC64NVME:BASE64"; "" where it has none
    version: str = ""  #: the version's id where the place keeps versions
    use: str = ""  #: "" for a copy of a file; else what people use it for: see `Use`


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a job, in PREMIS terms."""

    type: EventType
    outcome: str  #: "success", "warning" or "failure"
    detail: str
    agent: str  #: program and version
    step: str = ""
    at: datetime = field(default_factory=lambda: utcnow())


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRow:
    """One step of a job, as the store knows it."""

    position: int
    name: str
    worker: str
    state: StepState
    attempts: int  #: tries since the step last began afresh
    started_at: datetime | None
    finished_at: datetime | None
    saved: dict[str, Any]  #: what the worker saved for its next try
    result: dict[str, Any]  #: totals: detail, outputs, locations, bytes
    error: str
    wake_at: datetime | None = None  #: not to be tried before
    target: str = ""  #: that was paused when it was last tried
    crashes: int = 0  #: deaths of the daemon that it has met since it last came to an end of any kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One passage of one arrival through one pipeline."""

    id: JobId
    name: str  #: the original name, for people (see `display`)
    folder: bytes  #: its present name at `station`
    station: Station  #: where the folder was last put
    dev: int
    ino: int
    uid: int
    pipeline: str
    definition: dict[str, Any]  #: the pipeline as it was at the claim
    values: dict[str, str]  #: the match's named groups
    state: JobState
    reason: str  #: why it waits, is paused, frozen or failed; "" otherwise
    error: dict[str, Any] | None  #: {what, where, hint, kind, step} of a failure
    token: int  #: fencing token: the number of the run that owns it
    wake_at: datetime | None
    target: str  #: the paused target it waits for
    files: int
    size: int
    claimed_at: datetime
    finished_at: datetime | None
    host: str
    outcome: Outcome = Outcome.NONE
    batch: str = ""  #: id of the batch it came with; "" for a folder that was dropped by itself


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One passage of a dropped collection: a job for each of its folders."""

    id: str
    name: str  #: of the collection, as it was dropped
    folder: bytes  #: its name in processing/
    dev: int
    ino: int
    uid: int
    pipeline: str
    claimed_at: datetime
    whole: bool  #: each of its folders has its job
    #: what was told last: `done` or `failed`; `again` when one that failed goes on; "" before its end
    told: str


def collection_of(folder: bytes) -> bytes:
    """Return the collection that a folder lies in, by its path below a station; b"" where it lies in none."""
    head, slash, _ = folder.rpartition(b"/")
    return head if slash else b""


def utcnow() -> datetime:
    """Return the present moment, aware, UTC."""
    return datetime.now(UTC)


def display(name: bytes) -> str:
    """Return a name for people: UTF-8 text, or percent-encoded when it is not UTF-8."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name, safe="/ ")


def visible(text: str, *, but: str = "") -> str:
    """Return text without control characters and lone surrogates, each shown as an escape.

    A line break in a name would forge lines of a mail or a reason, an escape sequence would write to a
    reader's terminal, and a lone surrogate (a byte that is not UTF-8) cannot be stored or sent at all.
    """
    return "".join(c if c.isprintable() or c in but else repr(c)[1:-1] for c in text)


def short(text: str) -> str:
    """Return a server's words as one line that fits a reason, a receipt and a mail."""
    return textwrap.shorten(visible(" ".join(text.split())), 300, placeholder=" ...")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun for people, as "1 file" or "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def own_group() -> str:
    """Return the name of the daemon's group, as a word of a command line; its number where it has none."""
    try:
        return shell_word(os.fsencode(grp.getgrgid(os.getegid()).gr_name))
    except KeyError:
        return str(os.getegid())


def shell_word(path: bytes) -> str:
    """Return a path as one word of a shell's command line, exact to the byte, in printable text.

    Source: POSIX.1-2024, 2.2.4 "Dollar-Single-Quotes"; bash, zsh and ksh have long had them.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return shlex.quote(text)
    # Three octal digits: a hexadecimal escape would swallow digits that follow it.
    shown = "".join(
        c if c.isprintable() and c not in "\\'" else "".join(f"\\{byte:03o}" for byte in os.fsencode(c))
        for c in text
    )
    return f"$'{shown}'"


def is_utf8(name: bytes) -> bool:
    """Tell whether the name can be written as text."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def rfc3339(moment: datetime | None) -> str | None:
    """Return the moment as RFC 3339 in UTC with milliseconds, or None."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def host_name() -> str:
    """Return this host's name, as receipts give it."""
    return os.uname().nodename
