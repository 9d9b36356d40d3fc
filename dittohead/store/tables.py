"""The tables: jobs, steps, events, outbox, targets, requests; the same on SQLite and PostgreSQL."""

from __future__ import annotations

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
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# Moments are seconds since the epoch, UTC, as doubles: SQLite has no type for them, and both
# databases compare and order doubles alike.

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
    Column("definition", JSON, nullable=False),
    Column("vals", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("token", Integer, nullable=False),
    Column("wake_at", Double),
    Column("target", Text, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("claimed_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("host", Text, nullable=False),
    Index(None, "state", "wake_at"),
    Index(None, "name"),
    Index(None, "claimed_at"),
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
    Column("saved", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("error", Text, nullable=False),
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
    Column("state", String(16), nullable=False),  # due, sent, given_up
    Column("created_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Index(None, "state", "due_at"),
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
)

#: What people asked for (retry, freeze, ...), whoever asks; the daemon carries it out and answers.
requests = Table(
    "requests",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False),
    Column("job", Text, nullable=False),
    Column("args", JSON, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("answer", JSON(none_as_null=True)),
)
