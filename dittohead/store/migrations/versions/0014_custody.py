"""It is known when a job's copies were last checked, and that its folder was removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_WRONG = sa.text("fixity = 'wrong'")
_REMOVING = sa.text("removed_why <> '' AND removed_at IS NULL")
_ASKED = sa.text("asked_at IS NOT NULL")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "custody",
        sa.Column("job_id", sa.String(26), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("fixity", sa.String(16), nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("looked", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("checked_at", sa.Double),
        sa.Column("tried_at", sa.Double),
        sa.Column("asked_at", sa.Double),
        sa.Column("asked_by", sa.Text, nullable=False, server_default=""),
        sa.Column("asked_why", sa.Text, nullable=False, server_default=""),
        sa.Column("approved_by", sa.Text, nullable=False, server_default=""),
        sa.Column("unverified", sa.Integer, nullable=False, server_default="0"),
        sa.Column("stays", sa.Text, nullable=False, server_default=""),
        sa.Column("removed_why", sa.Text, nullable=False, server_default=""),
        sa.Column("removed_at", sa.Double),
        sa.PrimaryKeyConstraint("job_id", name="pk_custody"),
    )
    op.create_index("ix_custody_checked_at", "custody", ["checked_at"])
    op.create_index("ix_custody_fixity", "custody", ["fixity"], sqlite_where=_WRONG, postgresql_where=_WRONG)
    op.create_index(
        "ix_custody_removed_why",
        "custody",
        ["removed_why"],
        sqlite_where=_REMOVING,
        postgresql_where=_REMOVING,
    )
    op.create_index(
        "ix_custody_asked_at", "custody", ["asked_at"], sqlite_where=_ASKED, postgresql_where=_ASKED
    )
