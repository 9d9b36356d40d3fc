"""Transactions on custody: when copies were last checked, which folders are to be removed or were."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.records import Job, JobId
from dittohead.model.shown import FixityCounts, ShownCustody
from dittohead.model.states import Fixity, JobState, Station
from dittohead.model.text import rfc3339
from dittohead.store.jobs import to_job
from dittohead.store.tables import custody, jobs

_LATER = jobs.alias("later")

#: Jobs that a later job of the same folder has made again are left out: what lies there is that job's.
_IS_LATEST = ~sa.exists(
    sa.select(_LATER.c.id).where(
        _LATER.c.ino == jobs.c.ino,
        _LATER.c.name == jobs.c.name,
        _LATER.c.claimed_at > jobs.c.claimed_at,
        _LATER.c.state == JobState.DONE.value,
    )
)

_DONE = jobs.c.state == JobState.DONE.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Custody:
    """What is known of one job's copies and folder; moments in seconds since the epoch."""

    job_id: JobId
    fixity: Fixity | None = None  #: of the latest check; None: there was none
    reason: str = ""  #: why it is not good
    looked: int = 0  #: files and places that were looked at
    checked_at: float | None = None  #: when a check last came to its end
    tried_at: float | None = None
    asked_at: float | None = None  #: when somebody asked for the folder's removal
    asked_by: str = ""
    asked_why: str = ""
    approved_by: str = ""  #: another than who asked, where that is needed; "" while nobody has
    unverified: bool = False  #: it is to go whatever its copies are like
    stays: str = ""  #: why the folder was not removed
    removed_why: str = ""  #: by whom and why; set before it goes
    removed_at: float | None = None  #: when it was removed

    def as_dict(self) -> ShownCustody:
        """Return it as JSON fields, without the job."""
        return {
            "fixity": self.fixity,
            "reason": self.reason,
            "looked": self.looked,
            "checked_at": _moment(self.checked_at),
            "tried_at": _moment(self.tried_at),
            "asked_at": _moment(self.asked_at),
            "asked_by": self.asked_by,
            "asked_why": self.asked_why,
            "approved_by": self.approved_by,
            "unverified": self.unverified,
            "stays": self.stays,
            "removed_why": self.removed_why,
            "removed_at": _moment(self.removed_at),
        }


def _moment(value: float | None) -> str | None:
    return None if value is None else rfc3339(datetime.fromtimestamp(value, UTC))


@dataclass(frozen=True, kw_only=True, slots=True)
class FixityReport:
    """How the checks stand, of all jobs that are done and that no later job has made again."""

    done: int = 0
    never: int = 0  #: never checked since their end
    overdue: int = 0  #: the latest check, or the end, is longer ago than the schedule allows
    good: int = 0
    wrong: int = 0
    unknown: int = 0
    oldest: float | None = None  #: the latest check or end that is longest ago, seconds since the epoch

    def as_dict(self) -> FixityCounts:
        """Return it as JSON fields, without the moment."""
        return {
            "done": self.done,
            "never": self.never,
            "overdue": self.overdue,
            "good": self.good,
            "wrong": self.wrong,
            "unknown": self.unknown,
        }


def get(connection: Connection, job_id: str) -> Custody:
    """Return what is known of a job; nothing of one that is not there."""
    row = connection.execute(sa.select(custody).where(custody.c.job_id == job_id)).mappings().first()
    return Custody(job_id=JobId(job_id)) if row is None else _custody(row)


def _custody(row: Any) -> Custody:
    fixity = Fixity(row["fixity"]) if row["fixity"] else None
    typed = {"job_id": JobId(row["job_id"]), "fixity": fixity, "unverified": bool(row["unverified"])}
    return Custody(**{**row, **typed})


def put(connection: Connection, /, job_id: str, **values: Any) -> None:
    """Set some of a job's columns."""
    changed = connection.execute(custody.update().where(custody.c.job_id == job_id).values(**values))
    if not changed.rowcount:
        connection.execute(custody.insert().values(job_id=job_id, **values))


def due(connection: Connection, until: float, tried_until: float, limit: int) -> list[Job]:
    """Return jobs whose copies are to be checked: those that were looked at longest ago come first.

    Args:
        until: their latest check, or their end, is not later. Seconds since the epoch.
        tried_until: nor is the latest try, which did not come to an end.
        limit: so many at most.
    """
    checked = (
        sa.select(jobs)
        .join(custody, custody.c.job_id == jobs.c.id)
        .where(
            custody.c.checked_at <= until,
            sa.or_(custody.c.tried_at.is_(None), custody.c.tried_at <= tried_until),
            _DONE,
            _IS_LATEST,
        )
        .order_by(custody.c.checked_at)
        .limit(limit)
    )
    known = sa.exists(
        sa.select(custody.c.job_id).where(
            custody.c.job_id == jobs.c.id,
            sa.or_(custody.c.checked_at.is_not(None), custody.c.tried_at > tried_until),
        )
    )
    never = (
        sa.select(jobs)
        .where(jobs.c.finished_at <= until, _DONE, ~known, _IS_LATEST)
        .order_by(jobs.c.finished_at)
        .limit(limit)
    )
    found = [*connection.execute(never).mappings(), *connection.execute(checked).mappings()]
    return [to_job(row) for row in found][:limit]


def report(connection: Connection, until: float) -> FixityReport:
    """Return how the checks stand. Reads every job that is done.

    Args:
        until: a check, or an end, before this moment is overdue. Seconds since the epoch.
    """
    seen = sa.func.coalesce(custody.c.checked_at, jobs.c.finished_at)
    count, total = sa.func.count(), sa.func.sum

    def where(condition: Any) -> Any:
        return sa.func.coalesce(total(sa.case((condition, 1), else_=0)), 0)

    row = connection.execute(
        sa.select(
            count.label("done"),
            where(custody.c.checked_at.is_(None)).label("never"),
            where(seen <= until).label("overdue"),
            *(where(custody.c.fixity == one.value).label(one.value) for one in Fixity),
            sa.func.min(seen).label("oldest"),
        )
        .select_from(jobs.outerjoin(custody, custody.c.job_id == jobs.c.id))
        .where(_DONE, _IS_LATEST)
    ).one()
    return FixityReport(**{name: row._mapping[name] for name in FixityReport.__slots__})


def wrong(connection: Connection, limit: int) -> list[tuple[Job, Custody]]:
    """Return jobs of which something is missing or differs, the latest check first."""
    query = (
        sa.select(custody)
        .join(jobs, jobs.c.id == custody.c.job_id)
        .where(custody.c.fixity == Fixity.WRONG.value, _IS_LATEST)
        .order_by(custody.c.checked_at.desc())
        .limit(limit)
    )
    return _with_jobs(connection, query)


def _with_jobs(connection: Connection, query: sa.Select[Any]) -> list[tuple[Job, Custody]]:
    found = []
    for row in connection.execute(query).mappings().all():
        job = connection.execute(sa.select(jobs).where(jobs.c.id == row["job_id"])).mappings().one()
        found.append((to_job(job), _custody(row)))
    return found


# -- folders that are removed --------------------------------------------------------------------


def to_remove(
    connection: Connection, pipeline: str, until: float, but: Collection[str], limit: int
) -> list[Job]:
    """Return jobs whose folders have lain in done/ as long as their pipeline keeps them, oldest first.

    Args:
        pipeline: their pipeline's name.
        until: they ended not later. Seconds since the epoch.
        but: ids of jobs that are left out.
        limit: so many at most.
    """
    removed = sa.exists(
        sa.select(custody.c.job_id).where(custody.c.job_id == jobs.c.id, custody.c.removed_at.is_not(None))
    )
    query = (
        sa.select(jobs)
        .where(
            jobs.c.pipeline == pipeline,
            jobs.c.finished_at <= until,
            jobs.c.station == Station.DONE.value,
            jobs.c.id.not_in(list(but)),
            _DONE,
            ~removed,
            _IS_LATEST,
        )
        .order_by(jobs.c.finished_at)
        .limit(limit)
    )
    return [to_job(row) for row in connection.execute(query).mappings()]


def asked(connection: Connection) -> list[tuple[Job, Custody]]:
    """Return jobs whose folders somebody asked to be removed, and that are not, the first asked first."""
    query = (
        sa.select(custody)
        .where(custody.c.asked_at.is_not(None), custody.c.removed_at.is_(None))
        .order_by(custody.c.asked_at)
    )
    return _with_jobs(connection, query)


def being_removed(connection: Connection) -> list[Job]:
    """Return jobs whose folders were being removed when the daemon ended."""
    query = (
        sa.select(jobs)
        .join(custody, custody.c.job_id == jobs.c.id)
        .where(custody.c.removed_why != "", custody.c.removed_at.is_(None))
    )
    return [to_job(row) for row in connection.execute(query).mappings()]
