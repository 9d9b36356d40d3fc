"""Transactions on targets: paused since when and why, when to try again, nearly full or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.store.tables import targets


@dataclass(frozen=True, kw_only=True)
class TargetRow:
    """A target as the store knows it."""

    name: str
    paused: bool
    reason: str
    since: float | None  #: seconds since the epoch
    probe_at: float | None  #: when the next job may try it
    failures: int  #: in a row
    nearly_full: bool


def load(connection: Connection) -> list[TargetRow]:
    """Return every target the store knows."""
    return [
        TargetRow(
            name=row["name"],
            paused=bool(row["paused"]),
            reason=row["reason"],
            since=row["since"],
            probe_at=row["probe_at"],
            failures=row["failures"],
            nearly_full=bool(row["nearly_full"]),
        )
        for row in connection.execute(sa.select(targets).order_by(targets.c.name)).mappings()
    ]


def put(connection: Connection, row: TargetRow) -> None:
    """Write a target as it is now."""
    values: dict[str, Any] = {
        "paused": int(row.paused),
        "reason": row.reason,
        "since": row.since,
        "probe_at": row.probe_at,
        "failures": row.failures,
        "nearly_full": int(row.nearly_full),
    }
    result = connection.execute(targets.update().where(targets.c.name == row.name).values(**values))
    if result.rowcount == 0:
        connection.execute(targets.insert().values(name=row.name, **values))
