"""Steps that wait for a target beside others: each says for which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the paused target a step waits for."""
    op.add_column("steps", sa.Column("target", sa.Text, nullable=False, server_default=""))
