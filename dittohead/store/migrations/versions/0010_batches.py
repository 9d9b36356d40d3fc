"""A dropped collection is a batch: a job for each of its folders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the table, and the column by which jobs name their batch."""
    op.create_table(
        "batches",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("folder", sa.LargeBinary, nullable=False),
        sa.Column("dev", sa.Text, nullable=False),
        sa.Column("ino", sa.Text, nullable=False),
        sa.Column("uid", sa.BigInteger, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("claimed_at", sa.Double, nullable=False),
        sa.Column("whole", sa.Integer, nullable=False),
        sa.Column("told", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_name_claimed_at", "batches", ["name", "claimed_at"])
    op.create_index("ix_batches_claimed_at", "batches", ["claimed_at"])
    op.add_column("jobs", sa.Column("batch", sa.String(26), nullable=False, server_default=""))
    within = sa.text("batch <> ''")
    op.create_index(
        "ix_jobs_batch_state", "jobs", ["batch", "state"], sqlite_where=within, postgresql_where=within
    )
