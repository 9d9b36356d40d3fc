"""What is picked of a catalogue comes in the order in which it came into its state; items have a priority."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_CHOSEN = ["source", "kind", "stage", "state", "rank"]


def upgrade() -> None:
    """Add the columns; the index has the new order."""
    op.add_column("entries", sa.Column("since", sa.Double, nullable=False, server_default="0"))
    # Nothing older is known of when it came into its state.
    op.execute("UPDATE entries SET since = changed_at")
    op.drop_index("ix_entries_source_kind_stage_state_rank_id", "entries")
    op.create_index("ix_entries_source_kind_stage_state_rank_since_id", "entries", [*_CHOSEN, "since", "id"])
    op.add_column("items", sa.Column("rank", sa.Integer, nullable=False, server_default="0"))
    op.add_column("items", sa.Column("turn", sa.Text, nullable=False, server_default=""))
