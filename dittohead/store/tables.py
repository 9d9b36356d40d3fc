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

from dittohead.errors import storable

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


class Word(TypeDecorator[str]):
    """A short text; what is no character in it is stored as its escape: it would end the transaction."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what the database is given."""
        return None if value is None else storable(value)


class Words(Word):
    """A text; what is no character in it is stored as its escape."""

    impl = Text
    cache_ok = True


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


class Facts(Json):
    """JSON that the database looks into: PostgreSQL refuses the whole of one that holds what is no character.

    Elsewhere such text comes back as it was: a path that is not UTF-8 is to be found again by it.
    """

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return what the database is given."""
        return _storable(value)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(inner) for inner in value]
    return value


#: One row for each passage of an arrival through a pipeline.
jobs = Table(
    "jobs",
    metadata,
    Column("id", Word(26), primary_key=True),
    Column("name", Words, nullable=False),
    Column("folder", LargeBinary, nullable=False),
    Column("station", Word(16), nullable=False),
    Column("dev", Words, nullable=False),  # text: some file systems use all 64 bits
    Column("ino", Words, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("pipeline", Words, nullable=False),
    Column("definition", Json, nullable=False),
    Column("vals", Json, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("reason", Words, nullable=False),
    Column("error", Json(none_as_null=True)),
    Column("token", Integer, nullable=False),
    Column("wake_at", Double),
    Column("target", Words, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("claimed_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("host", Words, nullable=False),
    Column("reopened_at", Double),  # when it was last tried again after it had been over
    Column("outcome", Word(16), nullable=False, server_default=""),  # of a failed job, see model.Outcome
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
    Column("job_id", Word(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sqlite_with_rowid=False,
)

#: One row for each step of a job.
steps = Table(
    "steps",
    metadata,
    Column("job_id", Word(26), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", Words, nullable=False),
    Column("worker", Words, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("attempts", Integer, nullable=False),  # failed tries since it last began afresh
    Column("crashes", Integer, nullable=False),  # times the daemon died while it was in flight
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("saved", Json, nullable=False),
    Column("result", Json, nullable=False),
    Column("error", Words, nullable=False),
    Column("wake_at", Double),  # not to be tried before; NULL: as soon as its job runs
    Column("target", Words, nullable=False, server_default=""),  # that was paused when it was last tried
)

#: PREMIS events of jobs, in the order they happened.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", Word(26), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Words, nullable=False),
    Column("type", Words, nullable=False),
    Column("outcome", Word(16), nullable=False),
    Column("detail", Words, nullable=False),
    Column("agent", Words, nullable=False),
    Column("at", Double, nullable=False),
    Index(None, "job_id"),
)

#: Notices to be sent; a row is kept after sending, as evidence and against sending twice.
outbox = Table(
    "outbox",
    metadata,
    Column("id", Word(26), primary_key=True),
    Column("rule", Words, nullable=False),
    Column("event", Word(16), nullable=False),
    Column("job_id", Word(26)),
    Column("subject", Words, nullable=False),
    Column("body", Words, nullable=False),
    # due, sent, given_up; held until its digest is made, gathered into it; parked: its receiver is disabled
    Column("state", Word(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Words, nullable=False),
    Column(
        "recipient", Words, nullable=False, server_default=""
    ),  # an uploader's address; "": the rule's own
    Column("pipeline", Words, nullable=False, server_default=""),  # of its job
    Column("data", Facts, nullable=False, server_default="{}"),  # its facts, as programs get them
    Column("parent", Word(26)),  # the digest it was gathered into
    Index(None, "state", "due_at"),
    Index(None, "rule", "state", "created_at"),
)

#: Receivers of notices that fail, or are disabled, by their rule's key; no row for one that never failed.
receivers = Table(
    "receivers",
    metadata,
    Column("key", Words, primary_key=True),
    Column("failing_since", Double),  # of the first try that failed since one was taken
    Column("disabled_at", Double),
    Column("error", Words, nullable=False),
    Column("error_at", Double),
)

#: Outside places that are, or once were, paused or nearly full.
targets = Table(
    "targets",
    metadata,
    Column("name", Words, primary_key=True),
    Column("paused", Integer, nullable=False),
    Column("reason", Words, nullable=False),
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
    Column("action", Word(16), nullable=False),
    Column("job", Words, nullable=False),
    Column("args", Json, nullable=False),
    Column("who", Words, nullable=False),
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
    Column("name", Words, primary_key=True),
    Column("position", Json, nullable=False),  # of a round under way; {} when it came to its end
    Column("looked_at", Double),  # when the last round began
    Column("finished_at", Double),  # when the last round came to its end
    Column("error", Words, nullable=False),  # why the last try failed; "" when it did not
)

#: One row for each item seen upstream, by its key; the version is the one seen last.
items = Table(
    "items",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("folder", Words, nullable=False),
    Column("path", Words, nullable=False),
    Column("version", Words, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("marker", Integer, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("reason", Words, nullable=False),
    Column("data", Json, nullable=False),
    Column("drop_id", BigInteger),
    Column("fetched", Words, nullable=False),  # the version that lies verified below the drop's folder
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
    Column("source", Words, nullable=False),
    Column("folder", Words, nullable=False),
    Column("state", Word(16), nullable=False),
    Column("reason", Words, nullable=False),
    Column("ino", Words, nullable=False),  # "" until the directory is made
    Column("earlier", Json, nullable=False),  # ids of jobs of other folders that had this inode before
    Column("job_id", Word(26)),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("verified", Words, nullable=False),  # how its files were, in words
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
    Column("source", Words, nullable=False),
    Column("handle", Words, nullable=False),
    Column("state", Word(16), nullable=False),  # open, unreadable
    Column("reason", Words, nullable=False),
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
    Column("key", Words, primary_key=True),
)
