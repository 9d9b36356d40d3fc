"""Counts and sums over many jobs, for people who look at how it goes; each quick, however many there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.states import ACTIVE, JobState, Outcome, StepState
from dittohead.store.columns import LAST
from dittohead.store.tables import jobs, steps

DAY_S = 86400

#: The latest jobs that are done, of which the durations of steps are taken: enough for a 95th percentile.
_SAMPLE = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """What ended on one day, UTC."""

    start: float  #: seconds since the epoch
    done: int
    failed: int
    size: int  #: bytes of the folders that are done
    claimed: int
    left: int  #: jobs that were not over at the end of the day, reckoned back from now


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPace:
    """How long a step of a pipeline takes."""

    pipeline: str
    step: str
    worker: str
    count: int  #: how many were looked at
    median: float  #: seconds
    p95: float  #: seconds


# The state stands in what is counted, not among the conditions: SQLite would take an index of states, and
# read every job's row, where another index holds all that is asked for.
_DONE = jobs.c.state == JobState.DONE.value
_DONE_COUNT = sa.func.coalesce(sa.func.sum(sa.case((_DONE, 1), else_=0)), 0)
_DONE_SIZE = sa.func.coalesce(sa.func.sum(sa.case((_DONE, jobs.c.size), else_=0)), 0)


def done_since(connection: Connection, moment: float) -> tuple[int, int]:
    """Return how many jobs were done since a moment, and their bytes."""
    found = connection.execute(sa.select(_DONE_COUNT, _DONE_SIZE).where(jobs.c.finished_at >= moment)).one()
    return int(found[0]), int(found[1])


def waiting_for(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Return how many jobs wait for each of these targets."""
    found = connection.execute(
        sa.select(jobs.c.target, sa.func.count())
        .where(jobs.c.state == JobState.PAUSED.value, jobs.c.target.in_(list(names)))
        .group_by(jobs.c.target)
    ).all()
    return dict.fromkeys(names, 0) | {row[0]: row[1] for row in found}


def days(connection: Connection, count: int, now: float | None = None) -> list[Day]:
    """Return what ended on each of the last days, today last; days without any stand there too."""
    today = int((time.time() if now is None else now) // DAY_S)
    first = today - count + 1
    ended, claimed = _ended(connection, first), _claimed(connection, first)
    left = _unfinished(connection)
    found = []
    for number in range(today, first - 1, -1):
        done, failed, size = ended.get(number, (0, 0, 0))
        came = claimed.get(number, 0)
        found.append(
            Day(start=float(number * DAY_S), done=done, failed=failed, size=size, claimed=came, left=left)
        )
        left = max(left + done + failed - came, 0)
    return found[::-1]


def _day_of(moment: sa.ColumnElement[float]) -> sa.ColumnElement[int]:
    # Whole days by arithmetic that both databases do alike: a cast alone rounds on one of them.
    return sa.cast(sa.func.floor(moment / DAY_S), sa.Integer)


def _ended(connection: Connection, first: int) -> dict[int, tuple[int, int, int]]:
    """Return (done, failed, bytes done) by day since the epoch, from a day on."""
    day = _day_of(jobs.c.finished_at)
    failed = sa.func.sum(sa.case((sa.or_(_DONE, jobs.c.outcome == Outcome.CANCELLED.value), 0), else_=1))
    found = connection.execute(
        sa.select(day, _DONE_COUNT, failed, _DONE_SIZE)
        .where(jobs.c.finished_at.between(first * DAY_S, LAST))
        .group_by(day)
    ).all()
    return {int(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in found}


def _claimed(connection: Connection, first: int) -> dict[int, int]:
    """Return how many were claimed by day since the epoch, from a day on."""
    day = _day_of(jobs.c.claimed_at)
    found = connection.execute(
        sa.select(day, sa.func.count()).where(jobs.c.claimed_at.between(first * DAY_S, LAST)).group_by(day)
    ).all()
    return {int(row[0]): int(row[1]) for row in found}


def _unfinished(connection: Connection) -> int:
    states = [state.value for state in ACTIVE]
    return connection.execute(
        sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state.in_(states))
    ).scalar_one()


def size_before(connection: Connection, moment: float) -> int:
    """Return the bytes of all folders that were done before a moment."""
    return int(connection.execute(sa.select(_DONE_SIZE).where(jobs.c.finished_at < moment)).scalar_one())


def paces(connection: Connection, sample: int = _SAMPLE) -> list[StepPace]:
    """Return how long steps took in the latest jobs that are done, by pipeline, in the order of steps."""
    latest = (
        sa.select(jobs.c.id, jobs.c.pipeline)
        .where(jobs.c.state == JobState.DONE.value)
        .order_by(jobs.c.claimed_at.desc())
        .limit(sample)
        .subquery()
    )
    found = connection.execute(
        sa.select(
            latest.c.pipeline,
            steps.c.position,
            steps.c.name,
            steps.c.worker,
            steps.c.finished_at - steps.c.started_at,
        )
        .join(latest, latest.c.id == steps.c.job_id)
        .where(
            steps.c.state == StepState.DONE.value,
            steps.c.started_at.is_not(None),
            steps.c.finished_at.is_not(None),
        )
    ).all()
    known: dict[tuple[str, str, str], list[float]] = {}
    places: dict[tuple[str, str, str], int] = {}
    for pipeline, position, name, worker, seconds in found:
        key = (pipeline, name, worker)
        known.setdefault(key, []).append(max(seconds, 0.0))
        places[key] = max(places.get(key, 0), position)
    return [
        StepPace(
            pipeline=key[0],
            step=key[1],
            worker=key[2],
            count=len(known[key]),
            median=_rank(known[key], 0.5),
            p95=_rank(known[key], 0.95),
        )
        for key in sorted(known, key=lambda key: (key[0], places[key], key[1]))
    ]


def _rank(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of them lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(-int(-part * len(ordered) // 1) - 1, 0)]
