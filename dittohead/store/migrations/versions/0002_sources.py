"""Sources: items seen upstream, folders dropped of them, orders to be settled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables; jobs are found by their folder's inode."""
    op.create_index("ix_jobs_ino", "jobs", ["ino"])
    op.create_table(
        "sources",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("position", sa.JSON, nullable=False),
        sa.Column("looked_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sources"),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("ready_at", sa.Double, nullable=False),
        sa.Column("marker", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("drop_id", sa.BigInteger),
        sa.Column("fetched", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
    )
    op.create_index("ix_items_source_key", "items", ["source", "key"], unique=True)
    op.create_index("ix_items_source_state_folder", "items", ["source", "state", "folder"])
    op.create_index("ix_items_drop_id", "items", ["drop_id"])
    op.create_table(
        "drops",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ino", sa.Text, nullable=False),
        sa.Column("earlier", sa.JSON, nullable=False),
        sa.Column("job_id", sa.String(26)),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("verified", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("dropped_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_drops"),
    )
    op.create_index("ix_drops_source_state", "drops", ["source", "state"])
    op.create_index("ix_drops_folder", "drops", ["folder"])
    op.create_index("ix_drops_ino", "drops", ["ino"])
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("handle", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("keep_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
    )
    op.create_index("ix_orders_source_handle", "orders", ["source", "handle"], unique=True)
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("order_id", "key", name="pk_order_items"),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name="fk_order_items_order_id", ondelete="CASCADE"
        ),
    )
