"""Which rows of the store hold what nobody can have written: found in SQL, named for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.model.shown import ShownRow
from dittohead.store.columns import Word
from dittohead.store.tables import digests, jobs, listing_entries, metadata, order_items

#: Rows that are looked at in one transaction.
PIECE = 20_000

#: Rows that are named of a table at most.
NAMED = 20

#: Tables of which every column is a key.
_KEYS = (digests, order_items, listing_entries)

#: Tables that are read through.
TABLES = tuple(table for table in metadata.sorted_tables if table not in _KEYS)

_ROWID: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)


@dataclass(frozen=True, kw_only=True)
class DamagedRow:
    """A row with a value that cannot be right; it is read as if a harmless one stood there."""

    table: str
    key: str
    columns: tuple[str, ...]
    name: str  #: of the job it is, or belongs to; "" for none

    def as_dict(self) -> ShownRow:
        """Return it as JSON fields."""
        return {
            "table": self.table,
            "key": self.key,
            "columns": list(self.columns),
            "name": self.name,
            "hint": _hint(self),
        }


def _hint(row: DamagedRow) -> str:
    if row.table == "jobs":
        return (
            "Its folder and its receipt are as they were; run it again if it is not over: "
            f"`dittohead rerun {row.key}`. Or rebuild the store: stop the daemon, then: `dittohead rebuild`"
        )
    return "The others go on. To rebuild the store: stop the daemon, then: `dittohead rebuild`"


def damaged_rows(
    connection: Connection, table: sa.Table, after: int = 0
) -> tuple[list[DamagedRow], int | None]:
    """Look through a piece of a table; return what is damaged, and where the next piece begins.

    On PostgreSQL, which keeps to its types, only words are looked at, and all rows at once.
    """
    sqlite = connection.dialect.name == "sqlite"
    wrong = {
        column.name: sa.type_coerce(_wrong(column, sqlite=sqlite), sa.Integer)
        for column in table.columns
        if _is_checked(column, sqlite=sqlite)
    }
    if not wrong:
        return [], None
    keys = [sa.cast(column, sa.Text).label(f"key_{column.name}") for column in table.primary_key]
    query = sa.select(*keys, *(flag.label(name) for name, flag in wrong.items())).select_from(table)
    query = query.where(sa.or_(*(flag.is_(sa.true()) if not sqlite else flag for flag in wrong.values())))
    if sqlite:
        query = query.where(_ROWID.between(after + 1, after + PIECE))
    rows = connection.execute(query.limit(NAMED)).mappings().all()
    found = [_row(connection, table, row, list(wrong)) for row in rows]
    last = connection.execute(sa.select(sa.func.max(_ROWID)).select_from(table)).scalar() if sqlite else 0
    return found, after + PIECE if (last or 0) > after + PIECE else None


def _is_checked(column: sa.Column[Any], *, sqlite: bool) -> bool:
    if not sqlite:
        return isinstance(column.type, Word) and bool(column.type.known)
    return hasattr(column.type, "wrong")


def _wrong(column: sa.Column[Any], *, sqlite: bool) -> sa.ColumnElement[bool]:
    kind: Any = column.type
    raw = sa.type_coerce(column, sa.Text if isinstance(kind, Word) else sa.types.NullType())
    found: sa.ColumnElement[bool] = kind.wrong(raw) if sqlite else raw.not_in(kind.known)
    return sa.func.coalesce(found, sa.false())


def _row(connection: Connection, table: sa.Table, row: RowMapping, columns: list[str]) -> DamagedRow:
    key = " ".join(str(row[f"key_{column.name}"]) for column in table.primary_key)
    job = key if table is jobs else row.get("key_job_id")
    name = connection.execute(sa.select(jobs.c.name).where(jobs.c.id == job)).scalar() if job else None
    damaged = tuple(column for column in columns if row[column])
    return DamagedRow(table=table.name, key=key, columns=damaged, name=name or "")


def listed(connection: Connection) -> list[DamagedRow]:
    """Return the damaged rows of all tables. Blocking: it reads all of them."""
    every = []
    for table in TABLES:
        after: int | None = 0
        while after is not None:
            found, after = damaged_rows(connection, table, after)
            every += found
    return every
