"""The frozen records that pass between the packages: entries, outputs, locations, steps, jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from dittohead.model.definition import Failure, JobDefinition, StepTotals
from dittohead.model.states import JobState, Outcome, Station, StepState

JobId = NewType("JobId", str)

#: The version of the receipt's and the JSON outputs' shape.
SCHEMA = "dittohead/1"


class Use(StrEnum):
    """What a location is there for, when it is not a plain copy of a file."""

    RECORD = "record"  # where it is described: an archival or digital object
    PAGE = "page"  # where the public looks at it
    THUMBNAIL = "thumbnail"
    MANIFEST = "manifest"  # a IIIF Presentation manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """An undotted directory found in the inbox, or a file that will become one."""

    folder: bytes  #: its name in the inbox, as the kernel gives it
    dev: int  #: st_dev
    ino: int  #: st_ino
    uid: int  #: owner's numeric user id
    seen_at: float  #: when a scan first saw it, seconds since the epoch
    renamed: bool = False  #: it was seen to get this name from a dotted one
    is_file: bool = False  #: a folder is made of it before it is taken


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
    size: int  #: bytes; 0 for what is not a file
    sha256: str  #: of a record, of its content as the worker defines it
    verified_by: str  #: such as "sha256 read-back" or "rsync --checksum"
    checksum: str = ""  #: the place's own, as "CRC64NVME:BASE64"; "" where it has none
    version: str = ""  #: the version's id where the place keeps versions
    use: str = ""  #: "" for a copy of a file; otherwise what people use it for: see `Use`


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
    result: StepTotals
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
    definition: JobDefinition  #: the pipeline as it was at the claim
    values: dict[str, str]  #: the match's named groups
    state: JobState
    reason: str  #: why it waits, is paused, frozen or failed; "" otherwise
    error: Failure | None
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


@dataclass(frozen=True, kw_only=True)
class RequestAnswer:
    """What became of a request."""

    ok: bool  #: it was carried out
    message: str  #: what was done, or why it was not
    missing: bool = False  #: what it is about does not exist

    def as_dict(self) -> dict[str, Any]:
        """Return it as the store has it."""
        missing = {"missing": True} if self.missing else {}
        return {"ok": self.ok, "message": self.message, **missing}
