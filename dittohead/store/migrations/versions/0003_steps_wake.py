"""Steps that wait beside others: each has a moment of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the moment before which a step is not to be tried."""
    op.add_column("steps", sa.Column("wake_at", sa.Double))
