"""Transactions on requests: what people asked for, and what the daemon answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model import utcnow
from dittohead.store.tables import requests


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something a person asked for."""

    id: int
    action: str
    job: str
    args: dict[str, Any]
    who: str


def add(connection: Connection, action: str, job: str, args: dict[str, Any], who: str) -> int:
    """Leave a request for the daemon; return its number."""
    result = connection.execute(
        requests.insert().values(
            action=action, job=job, args=args, who=who, at=utcnow().timestamp(), answer=None
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101
    return int(key[0])


def open_requests(connection: Connection) -> list[Request]:
    """Return requests that have no answer yet, in the order they were made."""
    found = connection.execute(
        sa.select(requests).where(requests.c.answer.is_(None)).order_by(requests.c.id)
    ).mappings()
    return [
        Request(id=row["id"], action=row["action"], job=row["job"], args=row["args"], who=row["who"])
        for row in found
    ]


def answer(connection: Connection, request: int, said: dict[str, Any]) -> None:
    """Record what became of a request: {"ok": bool, "message": str}."""
    connection.execute(requests.update().where(requests.c.id == request).values(answer=said))


def answer_to(connection: Connection, request: int) -> dict[str, Any] | None:
    """Return the answer to a request, None while there is none."""
    found: dict[str, Any] | None = connection.execute(
        sa.select(requests.c.answer).where(requests.c.id == request)
    ).scalar()
    return found
