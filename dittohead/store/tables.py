"""The tables, of jobs, notices, targets, requests and sources; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, Table, text

from dittohead.model.events import EventType
from dittohead.model.states import DropState, Fixity, ItemState, JobState, Outcome, Station, StepState
from dittohead.store.columns import (
    DEFINITION,
    FAILURE,
    TOTALS,
    Digits,
    Facts,
    FolderPath,
    Id,
    Json,
    Moment,
    Plain,
    Whole,
    Word,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

#: States, and what stands for one that nobody knows: what harms least.
_JOB = ("frozen", *(state.value for state in JobState))
_TOLD = ("", "done", "failed", "again")
_STATION = ("failed", *(station.value for station in Station))
_OUTCOME = ("", *(outcome.value for outcome in Outcome))
_STEP = ("failed", *(state.value for state in StepState))
_EVENT = ("metadata modification", *(kind.value for kind in EventType))
_ITEM = ("refused", *(state.value for state in ItemState))
_NOTICE = ("given_up", "due", "sent", "held", "gathered", "parked")
_ORDER = ("unreadable", "open")
_DROP = ("void", *(state.value for state in DropState))
_FIXITY = ("", *(fixity.value for fixity in Fixity))
_LISTING = ("cut", "open", "ending", "whole", "doubtful")

_IN_BATCH = text("batch <> ''")

#: One row for each passage of an arrival through a pipeline.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Id(26), primary_key=True),
    Column("name", Word(), nullable=False),
    Column("folder", FolderPath, nullable=False),
    Column("station", Word(16, _STATION), nullable=False),
    Column("dev", Digits(), nullable=False),  # text: some file systems use all 64 bits
    Column("ino", Digits(), nullable=False),
    Column("uid", Whole(BigInteger), nullable=False),
    Column("pipeline", Word(), nullable=False),
    Column("definition", Json(shape=DEFINITION), nullable=False),
    Column("vals", Json(), nullable=False),
    Column("state", Word(16, _JOB), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("error", Json(shape=FAILURE, none_as_null=True)),
    Column("token", Whole(), nullable=False),
    Column("wake_at", Moment()),
    Column("target", Word(), nullable=False),
    Column("files", Whole(BigInteger), nullable=False),
    Column("size", Whole(BigInteger), nullable=False),
    Column("claimed_at", Moment(0.0), nullable=False),
    Column("finished_at", Moment()),
    Column("host", Word(), nullable=False),
    Column("reopened_at", Moment()),  # when it was last tried again after it had been over
    Column(
        "outcome", Word(16, _OUTCOME), nullable=False, server_default=""
    ),  # of a failed job, see model.Outcome
    Column("batch", Id(26), nullable=False, server_default=""),  # that it came with; "" for none
    Index(None, "state", "wake_at"),
    Index(None, "name"),
    Index(None, "claimed_at", "id", "name"),  # all that a look for a name reads
    Index(None, "state", "claimed_at"),
    Index(None, "pipeline", "claimed_at"),
    Index(None, "ino"),
    Index(None, "batch", "state", sqlite_where=_IN_BATCH, postgresql_where=_IN_BATCH),
    # Of those that have ended: a job on its way pays nothing for it.
    Index(
        None,
        "finished_at",
        "state",
        "size",
        "outcome",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
)

#: One row for each passage of a collection, whose folders have a job each.
batches = Table(
    "batches",
    metadata,
    Column("id", Id(26), primary_key=True),
    Column("name", Word(), nullable=False),
    Column("folder", FolderPath, nullable=False),
    Column("dev", Digits(), nullable=False),
    Column("ino", Digits(), nullable=False),
    Column("uid", Whole(BigInteger), nullable=False),
    Column("pipeline", Word(), nullable=False),
    Column("claimed_at", Moment(0.0), nullable=False),
    Column("whole", Whole(), nullable=False),  # 1: each folder has its job
    Column("told", Word(16, _TOLD), nullable=False),  # the state that was told last
    Index(None, "name", "claimed_at"),
    Index(None, "claimed_at"),
)

#: The first eight bytes of the SHA-256 of files that a job was given or has made.
digests = Table(
    "digests",
    metadata,
    Column("head", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", Id(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)

#: One row for each step of a job.
steps = Table(
    "steps",
    metadata,
    Column("job_id", Id(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Plain(), nullable=False),
    Column("worker", Word(), nullable=False),
    Column("state", Word(16, _STEP), nullable=False),
    Column("attempts", Whole(), nullable=False),  # failed tries since it last began afresh
    Column("crashes", Whole(), nullable=False),  # times the daemon died while it was in flight
    Column("started_at", Moment()),
    Column("finished_at", Moment()),
    Column("saved", Json(), nullable=False),
    Column("result", Json(shape=TOTALS), nullable=False),
    Column("error", Word(), nullable=False),
    Column("wake_at", Moment()),  # not to be tried before; NULL: as soon as its job runs
    Column("target", Word(), nullable=False, server_default=""),  # that was paused when it was last tried
)

#: PREMIS events of jobs, in the order they happened.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", Id(26), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Word(), nullable=False),
    Column("type", Word(known=_EVENT), nullable=False),
    Column("outcome", Word(16), nullable=False),
    Column("detail", Word(), nullable=False),
    Column("agent", Word(), nullable=False),
    Column("at", Moment(0.0), nullable=False),
    Index(None, "job_id"),
)

#: Notices to be sent; a row is kept after sending, as evidence and against sending twice.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Id(26), primary_key=True),
    Column("rule", Word(), nullable=False),
    Column("event", Word(16), nullable=False),
    Column("job_id", Id(26)),
    Column("subject", Word(), nullable=False),
    Column("body", Word(), nullable=False),
    # due, sent, given_up; held until its digest is made, gathered into it; parked: its receiver is disabled
    Column("state", Word(16, _NOTICE), nullable=False),
    Column("created_at", Moment(0.0), nullable=False),
    Column("due_at", Moment(0.0), nullable=False),
    Column("attempts", Whole(), nullable=False),
    Column("error", Word(), nullable=False),
    Column(
        "recipient", Word(), nullable=False, server_default=""
    ),  # an uploader's address; "": the rule's own
    Column("pipeline", Word(), nullable=False, server_default=""),  # of its job
    Column("data", Facts(), nullable=False, server_default="{}"),  # its facts, as programs get them
    Column("parent", Id(26)),  # the digest it was gathered into
    Index(None, "state", "due_at"),
    Index(None, "rule", "state", "created_at"),
)

#: Receivers of notices that fail, or are disabled, by their rule's key; no row for one that never failed.
receivers = Table(
    "receivers",
    metadata,
    Column("key", Word(), primary_key=True),
    Column("failing_since", Moment()),  # of the first try that failed since one was taken
    Column("disabled_at", Moment()),
    Column("error", Word(), nullable=False),
    Column("error_at", Moment()),
)

#: Outside places that are, or once were, paused or nearly full.
targets = Table(
    "targets",
    metadata,
    Column("name", Word(), primary_key=True),
    Column("paused", Whole(), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("since", Moment()),
    Column("probe_at", Moment()),
    Column("failures", Whole(), nullable=False),
    Column("nearly_full", Whole(), nullable=False),
    Column("told", Whole(), nullable=False, server_default="0"),  # people think that it is paused
    Column("filled", Whole(), nullable=False, server_default="0"),  # people were told that it is full
)

_UNANSWERED = text("answer IS NULL")

#: What people asked for (retry, freeze, ...), no matter who asks; the daemon carries it out and answers.
requests = Table(
    "requests",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("action", Word(16), nullable=False),
    Column("job", Word(), nullable=False),
    Column("args", Json(), nullable=False),
    Column("who", Word(), nullable=False),
    Column("at", Moment(0.0), nullable=False),
    Column("answer", Json(none_as_null=True)),
    Index(None, "job"),
    # Of those that wait for an answer, which are few among all that were ever asked.
    Index(None, "id", sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED),
)

#: What is known of an ended job's copies and folder; no row while nothing was checked, asked for or removed.
custody = Table(
    "custody",
    metadata,
    Column("job_id", Id(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("fixity", Word(16, _FIXITY), nullable=False, server_default=""),  # of the latest check
    Column("reason", Word(), nullable=False, server_default=""),  # why it is not good
    Column("looked", Whole(BigInteger), nullable=False, server_default="0"),  # files and places
    Column("checked_at", Moment()),  # when a check last came to its end; NULL: never
    Column("tried_at", Moment()),  # when one was last begun
    Column("asked_at", Moment()),  # when somebody asked for the folder's removal
    Column("asked_by", Word(), nullable=False, server_default=""),
    Column("asked_why", Word(), nullable=False, server_default=""),
    Column("approved_by", Word(), nullable=False, server_default=""),  # another, where that is needed
    Column("unverified", Whole(), nullable=False, server_default="0"),  # 1: whatever its copies are like
    Column("stays", Word(), nullable=False, server_default=""),  # why the folder was not removed
    Column("removed_why", Word(), nullable=False, server_default=""),  # by whom, and why; set before it goes
    Column("removed_at", Moment()),  # when the folder was removed
    Index(None, "checked_at"),
    Index(None, "fixity", sqlite_where=text("fixity = 'wrong'"), postgresql_where=text("fixity = 'wrong'")),
    Index(
        None,
        "removed_why",
        sqlite_where=text("removed_why <> '' AND removed_at IS NULL"),
        postgresql_where=text("removed_why <> '' AND removed_at IS NULL"),
    ),
    Index(
        None,
        "asked_at",
        sqlite_where=text("asked_at IS NOT NULL"),
        postgresql_where=text("asked_at IS NOT NULL"),
    ),
)

#: What each source remembers of its rounds.
sources = Table(
    "sources",
    metadata,
    Column("name", Word(), primary_key=True),
    Column("position", Json(), nullable=False),  # of a round under way; {} when it came to its end
    Column("looked_at", Moment()),  # when the last round began
    Column("finished_at", Moment()),  # when the last round came to its end
    Column("error", Word(), nullable=False),  # why the last try failed; "" when it did not
)

#: One row for each item seen upstream, by its key; the version is the one seen last.
items = Table(
    "items",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Word(), nullable=False),
    Column("key", Word(), nullable=False),
    Column("folder", Word(), nullable=False),
    Column("path", Word(), nullable=False),
    Column("version", Word(), nullable=False),
    Column("size", Whole(BigInteger), nullable=False),
    Column("ready_at", Moment(0.0), nullable=False),
    Column("marker", Whole(), nullable=False),
    Column("state", Word(16, _ITEM), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("data", Json(), nullable=False),
    Column("drop_id", Whole(BigInteger)),
    Column("fetched", Word(), nullable=False),  # the version that lies verified below the drop's folder
    Column("seen_at", Moment(0.0), nullable=False),
    Column("rank", Whole(), nullable=False, server_default="0"),  # lower comes first: the priority, negative
    Column(
        "turn", Word(), nullable=False, server_default=""
    ),  # another one has the same version fetched again
    Index(None, "source", "key", unique=True),
    Index(None, "source", "state", "folder"),
    Index(None, "drop_id"),
)

#: One row for each folder that a source dropped, or is fetching.
drops = Table(
    "drops",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Word(), nullable=False),
    Column("folder", Word(), nullable=False),
    Column("state", Word(16, _DROP), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("ino", Digits(empty=True), nullable=False),  # "" until the directory is made
    Column(
        "earlier", Json("array"), nullable=False
    ),  # ids of jobs of other folders that had this inode before
    Column("job_id", Id(26)),
    Column("files", Whole(BigInteger), nullable=False),
    Column("size", Whole(BigInteger), nullable=False),
    Column("verified", Word(), nullable=False),  # how its files were, in words
    Column("created_at", Moment(0.0), nullable=False),
    Column("dropped_at", Moment()),
    Index(None, "source", "state"),
    Index(None, "folder"),
    Index(None, "ino"),
)

#: What upstream waits for: a queue's message, a token; a row goes when it is settled.
orders = Table(
    "orders",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Word(), nullable=False),
    Column("handle", Word(), nullable=False),
    Column("state", Word(16, _ORDER), nullable=False),  # open, unreadable
    Column("reason", Word(), nullable=False),
    Column("data", Json(), nullable=False),
    Column("seen_at", Moment(0.0), nullable=False),
    Column("keep_at", Moment()),  # when upstream is to be told that it is still being carried out
    Index(None, "source", "handle", unique=True),
)

#: The items of each order.
order_items = Table(
    "order_items",
    metadata,
    Column(
        "order_id",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("orders.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("key", Word(), primary_key=True),
)

#: All that a source knows of the remote system; states, stages and attributes are the source's own words.
entries = Table(
    "entries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Word(), nullable=False),
    Column("kind", Word(32), nullable=False),
    Column("key", Word(), nullable=False),
    Column("state", Word(32), nullable=False),  # what upstream makes of it
    Column("stage", Word(32), nullable=False),  # what we make of it; "" for nothing
    Column("reason", Word(), nullable=False),
    Column("rank", Whole(), nullable=False),  # lower comes first: the priority, negative
    Column("attributes", Json(), nullable=False),
    Column("first_at", Moment(0.0), nullable=False),
    Column("changed_at", Moment(0.0), nullable=False),
    Column("since", Moment(0.0), nullable=False, server_default="0"),  # when it came into its state
    Index(None, "source", "kind", "key", unique=True),
    # In the order in which entries are picked: of a million, none is sorted.
    Index(None, "source", "kind", "stage", "state", "rank", "since", "id"),
)

#: What became of entries: rows are added, never changed.
entry_changes = Table(
    "entry_changes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("entry_id", Whole(BigInteger), ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
    Column("at", Moment(0.0), nullable=False),
    Column("state", Word(32), nullable=False),
    Column("stage", Word(32), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("by", Word(), nullable=False),
    Index(None, "entry_id"),
)

#: How many entries there are, kept in the transactions that change them.
entry_counts = Table(
    "entry_counts",
    metadata,
    Column("source", Word(), primary_key=True),
    Column("kind", Word(32), primary_key=True),
    Column("state", Word(32), primary_key=True),
    Column("stage", Word(32), primary_key=True),
    Column("count", Whole(BigInteger), nullable=False),
)

#: How many entries came to a state and a stage, by the hour (hours since the epoch); for rates.
entry_flow = Table(
    "entry_flow",
    metadata,
    Column("source", Word(), primary_key=True),
    Column("kind", Word(32), primary_key=True),
    Column("state", Word(64), primary_key=True),
    Column("stage", Word(64), primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("count", Whole(BigInteger), nullable=False),
)

#: Passages through what upstream lists.
listings = Table(
    "listings",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Word(), nullable=False),
    Column("kind", Word(32), nullable=False),
    Column("name", Word(), nullable=False),
    Column("state", Word(16, _LISTING), nullable=False),
    Column("reason", Word(), nullable=False),
    Column("begun_at", Moment(0.0), nullable=False),
    Column("ended_at", Moment()),
    Column("position", Json(), nullable=False),
    Column("seen", Whole(BigInteger), nullable=False),
    Column("new", Whole(BigInteger), nullable=False),
    Column("changed", Whole(BigInteger), nullable=False),
    Column("gone", Whole(BigInteger), nullable=False),
    Column("sha256", Word(), nullable=False),
    Column("file", Word(), nullable=False),
    Index(None, "source", "kind", "name", "begun_at"),
)

#: Which entries an open listing has named; its rows go when it ends.
listing_entries = Table(
    "listing_entries",
    metadata,
    Column("listing_id", BigInteger, primary_key=True, autoincrement=False),
    Column("entry_id", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
