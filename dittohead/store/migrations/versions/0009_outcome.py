"""A failed job has an outcome beside its state: cancelled, dismissed, or its folder is gone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; what was cancelled before is marked so."""
    op.add_column("jobs", sa.Column("outcome", sa.String(16), nullable=False, server_default=""))
    jobs = sa.table(
        "jobs",
        sa.column("id", sa.String),
        sa.column("state", sa.String),
        sa.column("error", sa.JSON),
        sa.column("outcome", sa.String),
    )
    # What is counted of ended jobs stands in one index: its cancelled ones are not failures.
    over = sa.text("finished_at IS NOT NULL")
    op.drop_index("ix_jobs_finished_at_state_size", "jobs")
    op.create_index(
        "ix_jobs_finished_at_state_size_outcome",
        "jobs",
        ["finished_at", "state", "size", "outcome"],
        sqlite_where=over,
        postgresql_where=over,
    )
    failed = op.get_bind().execute(sa.select(jobs.c.id, jobs.c.error).where(jobs.c.state == "failed")).all()
    cancelled = [id_ for id_, error in failed if isinstance(error, dict) and error.get("kind") == "cancelled"]
    for id_ in cancelled:
        op.execute(jobs.update().where(jobs.c.id == id_).values(outcome="cancelled"))
