"""Sources may keep a catalogue of all there is upstream."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the tables."""
    _entries()
    _changes_and_counts()
    _listings()


def _entries() -> None:
    op.create_table(
        "entries",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("first_at", sa.Double, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_entries"),
    )
    op.create_index("ix_entries_source_kind_key", "entries", ["source", "kind", "key"], unique=True)
    chosen = ["source", "kind", "stage", "state", "rank", "id"]
    op.create_index("ix_entries_source_kind_stage_state_rank_id", "entries", chosen)


def _changes_and_counts() -> None:
    op.create_table(
        "entry_changes",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_entry_changes"),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["entries.id"], name="fk_entry_changes_entry_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_entry_changes_entry_id", "entry_changes", ["entry_id"])
    op.create_table(
        "entry_counts",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "kind", "state", "stage", name="pk_entry_counts"),
    )


def _listings() -> None:
    op.create_table(
        "listings",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("begun_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("position", sa.JSON, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("new", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_listings"),
    )
    named = ["source", "kind", "name", "begun_at"]
    op.create_index("ix_listings_source_kind_name_begun_at", "listings", named)
    op.create_table(
        "listing_entries",
        sa.Column("listing_id", sa.BigInteger, nullable=False),
        sa.Column("entry_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("listing_id", "entry_id", name="pk_listing_entries"),
        sqlite_with_rowid=False,
    )
