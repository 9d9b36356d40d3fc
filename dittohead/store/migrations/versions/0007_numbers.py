"""People look at how many jobs ended when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add an index of ended jobs, with all that is counted of them."""
    over = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "ix_jobs_finished_at_state_size",
        "jobs",
        ["finished_at", "state", "size"],
        sqlite_where=over,
        postgresql_where=over,
    )
