"""The tables, of jobs, notices, targets, requests and sources; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# Moments are seconds since the epoch, UTC, as doubles: SQLite has no type for them, and both
# databases compare and order doubles alike.


class Damaged(dict[str, Any]):
    """What stands for a JSON value that cannot be read."""


class Json(TypeDecorator[Any]):
    """JSON; a damaged value is an empty one: it ends what needs it, and not all that is read with it."""

    impl = JSON
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], Any] | None:
        """Return what turns what the database gives into a value."""
        process = super().result_processor(dialect, coltype)
        if process is None:
            return None

        def read(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError, RecursionError):
                return Damaged()

        return read


#: One row for each passage of an arrival through a pipeline.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("name", Text, nullable=False),
    Column("folder", LargeBinary, nullable=False),
    Column("station", String(16), nullable=False),
    Column("dev", Text, nullable=False),  # text: some file systems use all 64 bits
    Column("ino", Text, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("definition", Json, nullable=False),
    Column("vals", Json, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("error", Json(none_as_null=True)),
    Column("token", Integer, nullable=False),
    Column("wake_at", Double),
    Column("target", Text, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("claimed_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("host", Text, nullable=False),
    Column("reopened_at", Double),  # when it was last tried again after it had been over
    Column("outcome", String(16), nullable=False, server_default=""),  # of a failed job, see model.Outcome
    Index(None, "state", "wake_at"),
    Index(None, "name"),
    Index(None, "claimed_at", "id", "name"),  # all that a look for a name reads
    Index(None, "state", "claimed_at"),
    Index(None, "pipeline", "claimed_at"),
    Index(None, "ino"),
    # Of those that are over: a job on its way pays nothing for it.
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

#: The first eight bytes of the SHA-256 of files that a job was given or has made.
digests = Table(
    "digests",
    metadata,
    Column("head", BigInteger, primary_key=True, autoincrement=False),
    Column("job_id", String(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)

#: One row for each step of a job.
steps = Table(
    "steps",
    metadata,
    Column("job_id", String(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # failed tries since it last began afresh
    Column("crashes", Integer, nullable=False),  # times the daemon died while it was in flight
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("saved", Json, nullable=False),
    Column("result", Json, nullable=False),
    Column("error", Text, nullable=False),
    Column("wake_at", Double),  # not to be tried before; NULL: as soon as its job runs
    Column("target", Text, nullable=False, server_default=""),  # that was paused when it was last tried
)

#: PREMIS events of jobs, in the order they happened.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", String(26), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "job_id"),
)

#: Notices to be sent; a row is kept after sending, as evidence and against sending twice.
outbox = Table(
    "outbox",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("rule", Text, nullable=False),
    Column("event", String(16), nullable=False),
    Column("job_id", String(26)),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    # due, sent, given_up; held until its digest is made, gathered into it; parked: its receiver is disabled
    Column("state", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("recipient", Text, nullable=False, server_default=""),  # an uploader's address; "": the rule's own
    Column("pipeline", Text, nullable=False, server_default=""),  # of its job
    Column("data", Json, nullable=False, server_default="{}"),  # its facts, as programs get them
    Column("parent", String(26)),  # the digest it was gathered into
    Index(None, "state", "due_at"),
    Index(None, "rule", "state", "created_at"),
)

#: Receivers of notices that fail, or are disabled, by their rule's key; no row for one that never failed.
receivers = Table(
    "receivers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("failing_since", Double),  # of the first try that failed since one was taken
    Column("disabled_at", Double),
    Column("error", Text, nullable=False),
    Column("error_at", Double),
)

#: Outside places that are, or once were, paused or nearly full.
targets = Table(
    "targets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Double),
    Column("probe_at", Double),
    Column("failures", Integer, nullable=False),
    Column("nearly_full", Integer, nullable=False),
    Column("told", Integer, nullable=False, server_default="0"),  # people think that it is paused
    Column("filled", Integer, nullable=False, server_default="0"),  # people were told that it is full
)

_UNANSWERED = text("answer IS NULL")

#: What people asked for (retry, freeze, ...), whoever asks; the daemon carries it out and answers.
requests = Table(
    "requests",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False),
    Column("job", Text, nullable=False),
    Column("args", Json, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("answer", Json(none_as_null=True)),
    Index(None, "job"),
    # Of those that wait for an answer, which are few among all that were ever asked.
    Index(None, "id", sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED),
)

#: What each source remembers of its rounds.
sources = Table(
    "sources",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", Json, nullable=False),  # of a round under way; {} when it came to its end
    Column("looked_at", Double),  # when the last round began
    Column("finished_at", Double),  # when the last round came to its end
    Column("error", Text, nullable=False),  # why the last try failed; "" when it did not
)

#: One row for each item seen upstream, by its key; the version is the one seen last.
items = Table(
    "items",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("marker", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("data", Json, nullable=False),
    Column("drop_id", BigInteger),
    Column("fetched", Text, nullable=False),  # the version that lies verified below the drop's folder
    Column("seen_at", Double, nullable=False),
    Index(None, "source", "key", unique=True),
    Index(None, "source", "state", "folder"),
    Index(None, "drop_id"),
)

#: One row for each folder that a source dropped, or is fetching.
drops = Table(
    "drops",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("ino", Text, nullable=False),  # "" until the directory is made
    Column("earlier", Json, nullable=False),  # ids of jobs of other folders that had this inode before
    Column("job_id", String(26)),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("verified", Text, nullable=False),  # how its files were, in words
    Column("created_at", Double, nullable=False),
    Column("dropped_at", Double),
    Index(None, "source", "state"),
    Index(None, "folder"),
    Index(None, "ino"),
)

#: What upstream waits for: a queue's message, a token; a row goes when it is settled.
orders = Table(
    "orders",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("handle", Text, nullable=False),
    Column("state", String(16), nullable=False),  # open, unreadable
    Column("reason", Text, nullable=False),
    Column("data", Json, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("keep_at", Double),  # when upstream is to be told that it is still being carried out
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
    Column("key", Text, primary_key=True),
)
