"""Transactions on targets: paused since when and why, when to try again, nearly full or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.states import JobState
from dittohead.store.tables import jobs, steps, targets


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
    told: bool = False  #: people think that it is paused: nobody has used it since they were told
    filled: bool = False  #: people were told that it is full


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
            told=bool(row["told"]),
            filled=bool(row["filled"]),
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
        "told": int(row.told),
        "filled": int(row.filled),
    }
    result = connection.execute(targets.update().where(targets.c.name == row.name).values(**values))
    if result.rowcount == 0:
        connection.execute(targets.insert().values(name=row.name, **values))


def _waiting(target: str) -> sa.ColumnElement[bool]:
    """Jobs that wait for a target: as a whole, or one of their steps beside others."""
    step = sa.exists().where(steps.c.job_id == jobs.c.id, steps.c.target == target)
    return sa.or_(
        sa.and_(jobs.c.state == JobState.PAUSED.value, jobs.c.target == target),
        sa.and_(
            jobs.c.state.in_([JobState.PAUSED.value, JobState.WAITING.value, JobState.RUNNING.value]), step
        ),
    )


def first_waiting(connection: Connection, target: str, leaving_out: Collection[str] = ()) -> str | None:
    """Return the oldest job that waits for a target; it may be running, for its other steps.

    Args:
        leaving_out: jobs that cannot be started at present.
    """
    waiting = sa.select(jobs.c.id).where(_waiting(target), jobs.c.id.not_in(list(leaving_out)))
    return connection.execute(waiting.order_by(jobs.c.claimed_at, jobs.c.id).limit(1)).scalar()


def wake(connection: Connection, target: str) -> None:
    """Let every job that waits for a target go on."""
    laid_aside = jobs.c.state != JobState.RUNNING.value
    connection.execute(
        jobs.update()
        .where(laid_aside, _waiting(target))
        .values(state=JobState.WAITING.value, reason="", wake_at=None, target="")
    )
    connection.execute(steps.update().where(steps.c.target == target).values(target=""))


def _forgotten() -> sa.ColumnElement[bool]:
    """Jobs that wait for a target which is not paused."""
    paused = sa.select(targets.c.name).where(targets.c.paused == 1)
    return sa.and_(jobs.c.state == JobState.PAUSED.value, jobs.c.target.not_in(paused))


def forgotten(connection: Connection) -> list[str]:
    """Return jobs that wait for a target which is not paused; there are none unless something is wrong."""
    return list(connection.execute(sa.select(jobs.c.id).where(_forgotten())).scalars())


def wake_forgotten(connection: Connection) -> None:
    """Let jobs go on that wait for a target which is not paused."""
    connection.execute(
        jobs.update()
        .where(_forgotten())
        .values(state=JobState.WAITING.value, reason="", wake_at=None, target="")
    )
