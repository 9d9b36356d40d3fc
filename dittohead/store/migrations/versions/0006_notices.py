"""Notices gathered into digests, receivers that fail, targets that people were notified of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add what a notice is made of, the state of receivers, and since when a job is open again."""
    op.add_column("outbox", sa.Column("recipient", sa.Text, nullable=False, server_default=""))
    op.add_column("outbox", sa.Column("pipeline", sa.Text, nullable=False, server_default=""))
    op.add_column("outbox", sa.Column("data", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("outbox", sa.Column("parent", sa.String(26)))
    op.create_index("ix_outbox_rule_state_created_at", "outbox", ["rule", "state", "created_at"])
    op.create_table(
        "receivers",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("failing_since", sa.Double),
        sa.Column("disabled_at", sa.Double),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("error_at", sa.Double),
        sa.PrimaryKeyConstraint("key", name="pk_receivers"),
    )
    op.add_column("targets", sa.Column("told", sa.Integer, nullable=False, server_default="0"))
    op.add_column("targets", sa.Column("filled", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE targets SET told = paused")
    op.add_column("jobs", sa.Column("reopened_at", sa.Double))
