"""What people and programs are shown, as JSON: what the API answers and commands print, field by field.

They are dictionaries with known keys, because they are written and read as JSON: `TypedDict` says which keys
there are. `web/api/shapes.py` publishes the same, for programs of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

# -- jobs ---------------------------------------------------------------------------------------


class ShownJob(TypedDict):
    """A job in a few fields, for lists."""

    id: str
    name: str
    pipeline: str
    state: str  #: a `JobState`
    outcome: str  #: a `JobOutcome`; "" for none
    reason: str
    station: str
    folder: str
    files: int
    bytes: int
    claimed_at: str  #: RFC 3339, as all moments here
    finished_at: str | None
    wake_at: str | None
    target: str
    host: str
    uid: int
    batch: str
    steps_done: NotRequired[int]  #: these three only where its steps were asked for
    steps: NotRequired[int]
    step: NotRequired[str]


class ShownTotals(TypedDict, total=False):
    """What a step has come to; {} until it is done."""

    detail: str
    outputs: int
    bytes: int
    locations: int
    copies: int
    delivered_bytes: int
    seconds: float
    recipe: Mapping[str, Any]  #: as the worker decides


class ShownStep(ShownTotals):
    """A step of a job."""

    name: str
    worker: str
    state: str
    attempts: int
    started_at: str | None
    finished_at: str | None
    error: str


class ShownEvent(TypedDict):
    """A PREMIS event, as in receipts."""

    type: str
    step: str
    at: str
    outcome: str
    detail: str
    agent: str


class ShownFailure(TypedDict):
    """Why a job has failed."""

    what: str
    where: str
    hint: str
    kind: str
    step: str
    files: NotRequired[list[str]]


class ShownLink(TypedDict):
    """A record, page, thumbnail or IIIF manifest that a job has made."""

    use: str
    uri: str


class ShownPlace(TypedDict):
    """Where files were delivered, and how they were verified there."""

    uri: str
    files: int
    verified_by: str


class ShownRequest(TypedDict):
    """What somebody asked for."""

    id: int
    action: str
    of: str
    args: dict[str, Any]
    who: str
    at: str
    ok: bool | None  #: None while it is not answered
    message: str


class StoredJob(ShownJob):
    """Everything that the store knows about one job."""

    error: ShownFailure | None
    values: dict[str, str]
    definition: dict[str, Any]
    all_steps: list[ShownStep]
    events: list[ShownEvent]


class ShownCustody(TypedDict):
    """When a job's copies were checked, and what is to become of its folder; see `store.custody.Custody`."""

    fixity: str | None  #: a `Fixity`
    reason: str
    looked: int
    checked_at: str | None
    tried_at: str | None
    asked_at: str | None
    asked_by: str
    asked_why: str
    approved_by: str
    unverified: bool
    stays: str
    removed_why: str
    removed_at: str | None


class WholeJob(StoredJob):
    """Everything about one job but its files."""

    custody: ShownCustody
    taken_up_by: str | None
    folder_path: str
    receipt: str | None
    links: list[ShownLink]
    locations: list[ShownPlace]
    requests: list[ShownRequest]


class ShownBatch(TypedDict):
    """A collection that was dropped, and what happened to its jobs."""

    id: str
    name: str
    pipeline: str
    state: str
    claimed_at: str
    uid: int
    jobs: int
    done: int
    failed: int
    settled: int
    active: int


class ShownCopy(TypedDict):
    """Where a copy of a file lies."""

    step: str
    uri: str
    verified_by: str


class ShownFile(TypedDict):
    """A file of a job."""

    path: str
    encoding: str
    size: int
    sha256: str
    step: str
    source: str
    locations: list[ShownCopy]


# -- what is true only now ------------------------------------------------------------------------


class ShownProgress(TypedDict):
    """How far a step is."""

    step: str
    done: int
    total: int
    unit: str
    per_second: float
    eta_seconds: NotRequired[float]
    beside: NotRequired[list[ShownProgress]]  #: of steps that run in parallel with the first


class ShownHeld(TypedDict):
    """Why something stays in the inbox."""

    kind: str
    due: str
    reason: str
    cure: str
    command: str
    since: float | None  #: seconds since the epoch


class ShownOverdue(TypedDict):
    """What stays in the inbox until somebody acts."""

    name: str
    kind: str
    reason: str
    cure: str
    command: str
    since: float
    uid: int | None
    owner: str


class ShownUpload(TypedDict):
    """An upload that nobody goes on with."""

    name: str
    age_seconds: int
    bytes: int


class ShownWatcher(TypedDict):
    """How the inbox is watched."""

    mode: str
    reason: str
    last_scan_at: int
    losses: int


class ShownTrouble(TypedDict):
    """What of the daemon itself needs attention."""

    what: str
    where: str
    hint: str


class ShownRow(TypedDict):
    """A damaged row of the store."""

    table: str
    key: str
    columns: list[str]
    name: str
    hint: str


class RunningSource(TypedDict):
    """What is true only now of a source."""

    state: str
    error: str
    held: str
    waiting: dict[str, str]
    reserved: NotRequired[int]  #: bytes that its fetches still need


class FixityCounts(TypedDict):
    """How many of the jobs that are done were checked again, and what was found."""

    done: int
    never: int
    overdue: int
    good: int
    wrong: int
    unknown: int


class ShownDamage(TypedDict):
    """A job whose copies are not as they were delivered."""

    job: str
    name: str
    reason: str
    at: float | None  #: seconds since the epoch


class ShownFixity(FixityCounts):
    """The same, with the jobs that need attention."""

    found: list[ShownDamage]


class ShownDeletion(TypedDict):
    """A folder that somebody asked to delete and nobody has approved yet."""

    job: str
    name: str
    by: str
    why: str
    at: float | None  #: seconds since the epoch


class LiveFacts(TypedDict, total=False):
    """What the daemon knows now, but for what its jobs do; parts that it has not yet are missing."""

    version: str
    config_sha256: str
    watcher: ShownWatcher
    backlog: int
    oldest_arrival_at: float | None
    running: int
    uploads: int
    strays: list[str]
    stray_count: int
    ignored: int
    held_kinds: dict[str, int]
    overdue: list[ShownOverdue]
    overdue_count: int
    overdue_strays: int
    stale: list[ShownUpload]
    stale_count: int
    sources: dict[str, RunningSource]
    free_bytes: int
    fixity: ShownFixity | None  #: None without a schedule
    deletions: list[ShownDeletion]
    troubles: list[ShownTrouble]
    damaged_rows: list[ShownRow]
    stuck: dict[str, str]


class LiveStatus(LiveFacts, total=False):
    """All that is true only now; {} where no daemon runs."""

    pid: int
    held: dict[str, str]  #: name -> why, in one line
    waiting: dict[str, ShownHeld]  #: the same, part by part
    held_count: int
    progress: dict[str, ShownProgress]  #: job's id -> how far it is


# -- status ---------------------------------------------------------------------------------------


class ShownTarget(TypedDict):
    """A target, and whether it is paused."""

    name: str
    paused: bool
    reason: str
    nearly_full: bool


class DisabledReceiver(TypedDict):
    """Who gets no notices any more."""

    rule: str
    since: str | None
    error: str


class ShownReceiver(DisabledReceiver):
    """The same, with what it is called."""

    to: str


class StoreTotals(TypedDict):
    """What monitoring wants of the store."""

    counts: dict[str, int]
    failed_count: int
    targets: list[ShownTarget]
    unsent_notices: int
    disabled_receivers: int
    oldest_waiting_at: float | None


class StoreOverview(TypedDict):
    """What `status` shows of the store."""

    counts: dict[str, int]
    active: list[ShownJob]
    frozen: list[ShownJob]
    failed: list[ShownJob]
    failed_count: int
    targets: list[ShownTarget]
    unsent_notices: int


class StoreStatus(StoreOverview):
    """The same, with receivers by their rules' keys."""

    disabled_receivers: list[DisabledReceiver]


class ShownStatus(StoreOverview):
    """What runs, what waits and why, and what needs attention."""

    disabled_receivers: list[ShownReceiver]
    running_daemon: bool
    root: str
    live: LiveStatus
    inbox: list[str]


# -- sources --------------------------------------------------------------------------------------


class ShownLabel(TypedDict):
    """A line of a panel."""

    label: str
    value: str


class ShownPanel(TypedDict):
    """A few lines about a source."""

    title: str
    rows: list[ShownLabel]


class RefusedItem(TypedDict):
    """An item that is not taken."""

    key: str
    reason: str


class StoredSource(TypedDict):
    """What the store knows of a source's items."""

    looked_at: str | None
    finished_at: str | None
    items: dict[str, int]
    orders: dict[str, int]
    folders_under_way: int
    refused: list[RefusedItem]


class ShownSource(StoredSource):
    """A source: what it does, and why it holds back."""

    name: str
    kind: str
    state: str
    error: str
    held: str
    waiting: dict[str, str]
    reserved: NotRequired[int]  #: bytes that its fetches still need; where it runs
    next_at: str | None
    panels: list[ShownPanel]
    paused: dict[str, str]


class ShownEntry(TypedDict):
    """One entry of a source's catalogue."""

    key: str
    state: str
    stage: str
    reason: str
    priority: int
    attributes: dict[str, Any]  #: the source's own
    first_at: str
    changed_at: str


class ShownChange(TypedDict):
    """One line of an entry's history."""

    at: str
    state: str
    stage: str
    reason: str
    by: str


class EntryHistory(ShownEntry):
    """One entry, and what happened to it, the latest first."""

    history: list[ShownChange]


# -- reports --------------------------------------------------------------------------------------


class ShownProblem(TypedDict):
    """A place that is not as the receipt says."""

    where: str
    what: str


class ShownUnchecked(TypedDict):
    """A place that could not be looked at."""

    where: str
    why: str


class ShownReport(TypedDict):
    """A finished job, compared with its receipt."""

    job: str
    good: bool
    checked: dict[str, int]
    problems: list[ShownProblem]
    taken_back: list[str]
    unchecked: list[ShownUnchecked]


class ShownRecord(TypedDict):
    """A record or page, and what an undo did with it."""

    uri: str
    what: str


class ShownUndo(TypedDict):
    """What an undo took back, and what it left."""

    job: str
    good: bool
    steps: list[str]
    gone: list[ShownRecord]
    kept: list[ShownRecord]
    created_by: list[str]


class ShownFinding(TypedDict):
    """Something that a comparison of a source found."""

    what: str
    why: str


class ShownAudit(TypedDict):
    """What a source says is stored, compared."""

    stored: int
    objects: int
    by: dict[str, int]
    wrong: int
    counts: dict[str, int]
    missing: list[ShownFinding]
    surplus: list[ShownFinding]
    changed: list[ShownFinding]
