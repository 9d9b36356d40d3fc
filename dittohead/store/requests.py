"""Transactions on requests: what people asked for, and what the daemon answered."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model import Job, JobId, utcnow
from dittohead.store.tables import jobs, requests

#: What may be asked of jobs that are over; of several jobs of a name the latest is meant, not one under way.
OF_ENDED_JOBS = frozenset({"retry", "rerun", "rename", "undone", "dismiss"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something a person asked for."""

    id: int
    action: str
    job: str
    args: dict[str, Any]
    who: str


@dataclass(frozen=True, kw_only=True)
class Asked(Request):
    """A request with when it was made, and what became of it."""

    at: datetime
    answer: dict[str, Any] | None  #: {"ok": bool, "message": str}; None: not yet answered


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


def settle_job(connection: Connection, request: int, job: str) -> None:
    """Record which job a request meant, that was named by a folder's name or the beginning of an id."""
    connection.execute(requests.update().where(requests.c.id == request).values(job=job))


def listing(
    connection: Connection,
    *,
    job: str = "",
    who: str = "",
    action: str = "",
    before: int | None = None,
    limit: int = 50,
) -> list[Asked]:
    """Return requests, the latest first.

    Args:
        job: a job's id, or a source's name.
        before: only those with a smaller number.
    """
    query = sa.select(requests).order_by(requests.c.id.desc()).limit(limit)
    for column, wanted in ((requests.c.job, job), (requests.c.who, who), (requests.c.action, action)):
        if wanted:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(requests.c.id < before)
    return [
        Asked(
            **{key: row[key] for key in ("id", "action", "job", "args", "who", "answer")},
            at=datetime.fromtimestamp(row["at"], UTC),
        )
        for row in connection.execute(query).mappings()
    ]


def renamed_from(connection: Connection, name: str, ino: int) -> tuple[str, str]:
    """Return (earlier name, who asked) of a folder that a failed job had left under another name."""
    found = connection.execute(
        sa.select(jobs.c.name, requests.c.who, requests.c.args)
        .join(requests, requests.c.job == jobs.c.id)
        .where(jobs.c.ino == str(ino), requests.c.action == "rename")
        .order_by(requests.c.id.desc())
    )
    return next(((row.name, row.who) for row in found if row.args.get("name") == name), ("", ""))


def dropped(connection: Connection, found: Collection[Job]) -> dict[JobId, str]:
    """Return who has uploaded the folders of some jobs through the page; of those alone."""
    rows = connection.execute(
        sa.select(requests.c.job, requests.c.who, requests.c.args)
        .where(requests.c.action == "drop", requests.c.job.in_({job.name for job in found}))
        .order_by(requests.c.id)
    )
    who = {(row.job, row.args.get("ino")): row.who for row in rows}
    return {job.id: who[job.name, job.ino] for job in found if (job.name, job.ino) in who}


def dropped_by(connection: Connection, name: str, ino: int) -> str:
    """Return who has uploaded a folder through the page; "" when nobody has."""
    found = connection.execute(
        sa.select(requests.c.who, requests.c.args)
        .where(requests.c.job == name, requests.c.action == "drop")
        .order_by(requests.c.id.desc())
    )
    return next((row.who for row in found if row.args.get("ino") == ino), "")
