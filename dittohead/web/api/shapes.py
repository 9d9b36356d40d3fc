"""The shapes of what the API takes and answers: the one source of openapi.json, and of the tests."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
)

from dittohead.model.states import JobState, StepState

#: Text from outside: bounded, and without NUL, which no database takes.
Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _written(given: object) -> object:
    # A bare number would be read as seconds, or milliseconds: anyone who writes one means neither surely.
    if not isinstance(given, str) or not re.match(r"\d{4}-\d\d-\d\d", given):
        raise ValueError("a moment such as 2026-01-31T12:00:00Z is required")
    return given


#: A moment in RFC 3339; a date alone is its beginning, and without a zone it is UTC.
Moment = Annotated[
    datetime,
    BeforeValidator(_written),
    AfterValidator(_aware),
    Field(json_schema_extra={"examples": ["2026-01-31T12:00:00Z"]}),
]

#: States of jobs and steps, and moments, as they stand in answers.
_State = Literal["waiting", "running", "paused", "frozen", "done", "failed"]
_Time = Annotated[str, Field(description="RFC 3339, UTC.", json_schema_extra={"format": "date-time"})]


class _Asked(BaseModel):
    """What comes from outside: unknown members are refused, so that a mistyped one is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    """What is answered: members may be added later, none is renamed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Paged(_Asked):
    limit: int = Field(50, ge=1, le=1000, description="Items at most.")
    cursor: Text = Field("", description="From `next` of an earlier answer: its next page.")


class JobQuery(_Paged):
    """Which jobs; everything given must hold."""

    q: Text = Field("", description="Part of a name, the beginning of an id, or of a file's SHA-256.")
    state: list[JobState] = Field(default_factory=list, description="In one of these states.")
    pipeline: Text = Field("", description="Of this pipeline.")
    name: Text = Field("", description="Whose name holds this text.")
    holds: Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{8,64})?$")] = Field(
        "", description="That was given or has made a file of this SHA-256; its first eight digits will do."
    )
    uid: int | None = Field(None, ge=0, le=2**32 - 1, description="Whose folder this user uploaded.")
    since: Moment | None = Field(None, description="Claimed at this moment or later.")
    until: Moment | None = Field(None, description="Claimed before this moment.")
    open: bool = Field(False, description="Only failures that wait for somebody.")
    reason: Text = Field("", description="Whose reason holds this text.")
    batch: Text = Field("", description="Of this batch, by its id, or of a collection's latest, by its name.")


class EntryQuery(_Paged):
    """Which entries of a source's catalogue; everything given must hold."""

    state: Text = Field("", description="What the remote system makes of it, in a word of the source's.")
    stage: Text | None = Field(None, description="What is done with it here; empty for nothing.")


class BatchQuery(_Asked):
    """How many batches."""

    limit: int = Field(50, ge=1, le=1000, description="Items at most.")


class RequestQuery(_Paged):
    """Which requests."""

    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9]{0,15}$")] = Field(
        "", description="From `next` of an earlier answer: its next page."
    )
    of: Text = Field("", description="Of this job, by its whole id, or of this source.")
    who: Text = Field("", description="Of this person.")
    action: Text = Field("", description="Of this kind, such as retry.")


class FileQuery(_Paged):
    """Which of a job's files."""


class Nothing(_Asked):
    """No member at all."""


class Dismiss(_Asked):
    """Why nothing more is to be done about a failure."""

    reason: Text = Field("", description="Shown with the job.")


class Delete(_Asked):
    """Why a folder is to be removed."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")] = Field(
        description="It stands in the receipt."
    )
    unverified: bool = Field(False, description="Do not compare the copies of a finished job first.")


class Freeze(_Asked):
    """Why a job is to stop where it is."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")] = Field(
        description="Shown wherever the job is shown."
    )


class Rerun(_Asked):
    """From where a job is to be done again."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: Text | None = Field(
        None, alias="from", description="From this step on; without it, as a new job from the inbox."
    )


class Rename(_Asked):
    """What a failed folder is to be called."""

    name: Text = Field(min_length=1, description="Must fit a pipeline, and be in the inbox nowhere yet.")


class Replacement(_Asked):
    """Which file of a failed folder another is to stand in for."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00]*$")] = Field(
        description="Within the folder, as its list of files has it."
    )
    encoding: Literal["", "percent"] = Field("", description="Of the path, as the list of files has it.")


class Replace(_Asked):
    """What is to be put in the place of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    with_: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] = Field(
        alias="with", description="The id of the new file, from replacements."
    )
    reason: Text = Field("", description="Why; stands in both jobs' receipts.")
    run: StrictBool = Field(True, description="Move the folder back to the inbox: a new job begins.")


class Undone(_Asked):
    """What somebody has taken back outside."""

    what: Text = Field(description="In words; stands in the receipt.")
    good: StrictBool = Field(description="Whether all of it could be taken back.")


class Sync(_Asked):
    """What a source is to look for."""

    prefix: Text = Field("", description="Only for keys that begin so.")


class Reset(_Asked):
    """What is to be fetched again."""

    prefix: Text = Field("", description="Only items whose keys begin so.")
    sync: StrictBool = Field(False, description="Look for them at once.")


class SourcePause(_Asked):
    """What of a source is to be paused."""

    what: Text = Field("fetches", description="A word of the source's, such as `fetches`.")
    reason: Text = Field("", description="Why, for people.")


class SourceResume(_Asked):
    """What of a source is to go on."""

    what: Text = Field("fetches", description="A word of the source's, such as `fetches`.")


class SourceTell(_Asked):
    """What a source is told, by one of its commands."""

    command: Text = Field(description="A word of the source's, such as `want`.")
    args: dict[str, Any] = Field(default_factory=dict, description="As the command takes them.")


class SourceEntries(_Asked):
    """Which entries of a source's catalogue are meant."""

    keys: list[Text] = Field(max_length=500, description="Their keys.")


class SourceCheck(_Asked):
    """What is to be done about what is found. The message is a JSON list: kind, what, why, done."""

    repair: StrictBool = Field(False, description="Make the board and the disk say what the store says.")


class Rules(_Asked):
    """Which rule of notify: is meant."""

    rule: Text = Field("", description="Its name, key or number; empty: all of them.")


class OneRule(_Asked):
    """Which rule of notify: is meant."""

    rule: Text = Field(min_length=1, description="Its name, key or number.")


class Replacing(_Answer):
    """A file that waits to be put in the place of another."""

    id: str = Field(description="For `with` of replace; it waits for a day.")
    path: str
    encoding: Literal["", "percent"]
    size: int
    sha256: str = Field(description="As it was read back from the disk.")


class Done(_Answer):
    """What was done."""

    message: str


class Problem(BaseModel):
    """Why not. Source: RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = Field("", description="What to do about it.")


class JobSummary(_Answer):
    """A job in a few fields."""

    id: str
    name: str
    pipeline: str
    state: _State
    outcome: Literal["", "cancelled", "dismissed", "gone"] = Field(
        description="What happened to a failed job; a failure without one waits for somebody."
    )
    reason: str = Field(description="Why it waits, is paused, frozen or failed.")
    station: Literal["inbox", "processing", "done", "failed"]
    folder: str = Field(description="Its present name; percent-encoded where it is not UTF-8.")
    files: int
    bytes: int
    claimed_at: _Time
    finished_at: _Time | None
    wake_at: _Time | None = Field(description="When it goes on by itself.")
    target: str = Field(description="The paused target it waits for.")
    host: str
    uid: int = Field(description="Of the uploader.")
    batch: str = Field("", description="Id of the batch it came with; empty for a folder dropped by itself.")
    steps_done: int = 0
    steps: int = 0
    step: str = Field("", description="The step whose turn it is; several where they run in parallel.")


class Jobs(_Answer):
    """A page of jobs, the latest claim first."""

    items: list[JobSummary]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class Batch(_Answer):
    """A collection that was dropped: a job for each of its folders."""

    id: str
    name: str
    pipeline: str
    state: Literal["running", "failed", "done"] = Field(
        description="`running` while a job is not over, `failed` where a failure waits for somebody."
    )
    claimed_at: _Time
    uid: int = Field(description="Of the uploader.")
    jobs: int = Field(description="All of them.")
    done: int
    failed: int = Field(description="Failures that wait for somebody.")
    settled: int = Field(description="Failures that were dismissed, cancelled or done again.")
    active: int = Field(description="Not over.")


class Batches(_Answer):
    """Batches, the latest claim first."""

    items: list[Batch]


class Step(BaseModel):
    """A step of a job, with what its worker says of its result."""

    name: str
    worker: str
    state: StepState
    attempts: int
    started_at: _Time | None
    finished_at: _Time | None
    error: str


class Event(_Answer):
    """A PREMIS event."""

    type: str
    step: str
    at: _Time
    outcome: str
    detail: str
    agent: str


class Link(_Answer):
    """A record, page, thumbnail or IIIF manifest that the job has made."""

    use: str
    uri: str


class Place(_Answer):
    """Where files were delivered, and how they were verified there."""

    uri: str
    files: int
    verified_by: str


class Request(_Answer):
    """What somebody asked for."""

    id: int
    action: str
    of: str = Field(description="The job's id, or the source's name.")
    args: dict[str, Any]
    who: str
    at: _Time
    ok: bool | None = Field(description="Whether it was done; null while it is not answered.")
    message: str


class Requests(_Answer):
    """A page of requests, the latest first."""

    items: list[Request]
    next: str | None


class CustodyFields(_Answer):
    """When a job's copies were checked, and what is to become of its folder."""

    fixity: Literal["good", "wrong", "unknown"] | None = Field(
        description="What the latest check of its copies has found; null: there was none."
    )
    reason: str = Field(description="Why that is not good.")
    looked: int = Field(description="Files and places that were looked at.")
    checked_at: _Time | None = Field(description="When a check last came to its end.")
    tried_at: _Time | None = Field(description="When one was last begun.")
    asked_at: _Time | None = Field(description="When somebody asked for the folder to be deleted.")
    asked_by: str
    asked_why: str
    approved_by: str = Field(description="Who approved that; empty while nobody has.")
    unverified: bool = Field(description="It is deleted whatever its copies are like.")
    stays: str = Field(description="Why the folder was not deleted.")
    removed_why: str = Field(description="By whom the folder was removed, and why.")
    removed_at: _Time | None = Field(description="When the folder was removed.")


class Job(JobSummary):
    """Everything about one job but its files."""

    error: dict[str, Any] | None
    values: dict[str, str] = Field(description="What the pipeline's match found in the name.")
    definition: dict[str, Any] = Field(description="The pipeline as it was at the claim.")
    all_steps: list[Step]
    events: list[Event]
    custody: CustodyFields = Field(description="Of its copies and its folder.")
    taken_up_by: str | None = Field(description="The later job that has done the same folder again.")
    folder_path: str
    receipt: str | None = Field(description="The receipt's path, when there is one.")
    links: list[Link]
    locations: list[Place]
    requests: list[Request] = Field(description="The latest of what people asked for.")
    progress: dict[str, Any] | None = Field(description="How far the step in flight is.")


class FilePlace(_Answer):
    """Where a copy of a file lies, and how it was verified there."""

    step: str
    uri: str
    verified_by: str


class File(_Answer):
    """A file of a job."""

    path: str = Field(description="Within the folder, or within what the step made.")
    encoding: Literal["", "percent"] = Field(description="`percent` where the path is not UTF-8.")
    size: int = Field(description="Bytes.")
    sha256: str
    step: str = Field(description="The step that made it; empty for the folder's own files.")
    source: str = Field(description="Of what a step made: the file it was made from.")
    locations: list[FilePlace]


class Files(_Answer):
    """A page of a job's files."""

    items: list[File]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class Receiver(_Answer):
    """Who gets no notices any more."""

    rule: str = Field(description="The rule's key.")
    to: str = Field(description="What it is called.")
    since: str | None
    error: str


class Status(_Answer):
    """What runs, what waits and why, and what needs attention."""

    running_daemon: Literal[True]
    root: str
    counts: dict[str, int]
    active: list[JobSummary]
    frozen: list[JobSummary] = Field(description="Jobs that wait until somebody decides; the latest.")
    failed: list[JobSummary]
    failed_count: int
    targets: list[dict[str, Any]]
    unsent_notices: int
    disabled_receivers: list[Receiver]
    live: dict[str, Any] = Field(description="What is true only now.")
    inbox: list[str] = Field(description="Folders that wait in the inbox; the first thousand.")


class Health(_Answer):
    """Whether the store answers, the inbox is watched and nothing is missing."""

    ok: bool
    watcher: str
    jobs: dict[str, int]
    troubles: list[str] = Field(description="What of the daemon itself needs attention.")


class Finding(_Answer):
    """One thing looked at."""

    level: Literal["good", "warning", "bad"]
    about: str
    message: str


class Findings(_Answer):
    """What was found, in the order of the configuration."""

    findings: list[Finding]


class Source(BaseModel):
    """What brings work in from elsewhere."""

    name: str
    kind: str
    state: str
    error: str
    held: str
    waiting: dict[str, str]
    looked_at: _Time | None
    finished_at: _Time | None
    next_at: _Time | None
    items: dict[str, int]
    orders: dict[str, int]
    folders_under_way: int
    refused: list[dict[str, str]]
    panels: list[dict[str, Any]] = Field(description="Of its catalogue: titles, each with labels and values.")
    paused: dict[str, str] = Field(description="What of it is paused, each with the reason.")


class Entry(BaseModel):
    """One entry of a source's catalogue."""

    key: str
    state: str = Field(description="What the remote system makes of it, in a word of the source's.")
    stage: str = Field(description="What is done with it here, in a word of the source's.")
    reason: str
    priority: int
    attributes: dict[str, Any]
    first_at: _Time
    changed_at: _Time


class Entries(_Answer):
    """A page of a source's catalogue, by key."""

    items: list[Entry]
    next: str | None


class EntryChange(BaseModel):
    """One line of an entry's history."""

    at: _Time
    state: str
    stage: str
    reason: str
    by: str


class EntryStory(Entry):
    """One entry, and what became of it, the latest first."""

    history: list[EntryChange]


class Sources(_Answer):
    """All sources of the configuration."""

    items: list[Source]
