"""People look for jobs by state, pipeline, name, date and digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the digests of files that jobs held, and indexes for pages of jobs."""
    op.create_table(
        "digests",
        sa.Column("head", sa.BigInteger, nullable=False),
        sa.Column(
            "job_id",
            sa.String(26),
            sa.ForeignKey("jobs.id", name="fk_digests_job_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("head", "job_id", name="pk_digests"),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_jobs_claimed_at", "jobs")
    op.create_index("ix_jobs_claimed_at_id_name", "jobs", ["claimed_at", "id", "name"])
    op.create_index("ix_jobs_state_claimed_at", "jobs", ["state", "claimed_at"])
    op.create_index("ix_jobs_pipeline_claimed_at", "jobs", ["pipeline", "claimed_at"])
