"""People's requests are searched for by what they are about, and those without an answer again and again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add indexes of requests."""
    unanswered = sa.text("answer IS NULL")
    op.create_index("ix_requests_job", "requests", ["job"])
    op.create_index(
        "ix_requests_id", "requests", ["id"], sqlite_where=unanswered, postgresql_where=unanswered
    )
