"""Transactions on the outbox: notices written with the change they tell of, and sent after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from ulid import ULID

from dittohead.model import utcnow
from dittohead.store.engine import Store
from dittohead.store.tables import outbox


@dataclass(frozen=True, kw_only=True)
class NewNotice:
    """A notice to be put in the outbox."""

    rule: str  #: key of the rule it is for
    event: str
    subject: str
    body: str
    job: str | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One row of the outbox."""

    id: str  #: the idempotency key, sent with every try
    rule: str
    event: str
    job: str | None
    subject: str
    body: str
    created_at: datetime
    attempts: int


def add(connection: Connection, notices: Iterable[NewNotice], *, about: str | None = None) -> None:
    """Put notices in, due at once; in the same transaction as what they tell of.

    Args:
        about: what they are about where that is no job; 26 characters at most.
    """
    now = utcnow().timestamp()
    rows = [
        {
            "id": str(ULID()),
            "rule": notice.rule,
            "event": notice.event,
            "job_id": notice.job or about,
            "subject": notice.subject,
            "body": notice.body,
            "state": "due",
            "created_at": now,
            "due_at": now,
            "attempts": 0,
            "error": "",
        }
        for notice in notices
    ]
    if rows:
        connection.execute(outbox.insert(), rows)


def sooner(connection: Connection, seconds: float) -> None:
    """Let notices be due so much earlier: the clock was set back."""
    connection.execute(
        outbox.update().where(outbox.c.state == "due").values(due_at=outbox.c.due_at - seconds)
    )


def _due(connection: Connection, now: float, limit: int) -> list[Notice]:
    found = connection.execute(
        sa.select(outbox)
        .where(outbox.c.state == "due", outbox.c.due_at <= now)
        .order_by(outbox.c.due_at, outbox.c.id)
        .limit(limit)
    ).mappings()
    return [
        Notice(
            id=row["id"],
            rule=row["rule"],
            event=row["event"],
            job=row["job_id"],
            subject=row["subject"],
            body=row["body"],
            created_at=datetime.fromtimestamp(row["created_at"], UTC),
            attempts=row["attempts"],
        )
        for row in found
    ]


def _next_due(connection: Connection) -> float | None:
    return connection.execute(sa.select(sa.func.min(outbox.c.due_at)).where(outbox.c.state == "due")).scalar()


def _set(connection: Connection, notice: str, values: dict[str, object]) -> None:
    connection.execute(
        outbox.update().where(outbox.c.id == notice).values(attempts=outbox.c.attempts + 1, **values)
    )


@dataclass(frozen=True)
class StoreOutbox:
    """The outbox as the notifier sees it."""

    store: Store

    async def due(self, now: datetime, limit: int) -> list[Notice]:
        """Return notices to be sent now, oldest first."""
        return await self.store.read(_due, now.timestamp(), limit)

    async def next_due(self) -> datetime | None:
        """Return when the next notice is due; None when the outbox is empty."""
        seconds = await self.store.read(_next_due)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    async def sent(self, id: str) -> None:
        """Record that a notice has been handed over."""
        await self.store.write(_set, id, {"state": "sent", "error": ""})

    async def postponed(self, id: str, until: datetime, error: str) -> None:
        """Record a failed try and when the next is due."""
        await self.store.write(_set, id, {"due_at": until.timestamp(), "error": error})

    async def given_up(self, id: str, error: str) -> None:
        """Record that no more tries will be made."""
        await self.store.write(_set, id, {"state": "given_up", "error": error})
