"""What earlier jobs of a folder became, and which failures nobody has taken up: questions about many jobs."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.events import Event, EventType
from dittohead.model.records import Job, JobId
from dittohead.model.request_args import read_args
from dittohead.model.states import ACTIVE, TERMINAL, Action, JobState, Outcome, Station
from dittohead.model.text import display
from dittohead.store.jobs import events_of, to_job
from dittohead.store.tables import events, jobs, requests

_TERMINAL = sorted(state.value for state in TERMINAL)


def original_name(connection: Connection, folder: bytes, ino: int) -> str | None:
    """Return the name a folder had at its last job, when a finished job left it under this one."""
    return connection.execute(
        sa.select(jobs.c.name)
        .where(
            jobs.c.folder == folder,
            jobs.c.ino == str(ino),
            jobs.c.state.in_(_TERMINAL),
        )
        .order_by(jobs.c.claimed_at.desc())
        .limit(1)
    ).scalar()


def owner(connection: Connection, folder: bytes, ino: int) -> int | None:
    """Return whose a folder was at its last job, when that left it under this name."""
    return connection.execute(
        sa.select(jobs.c.uid)
        .where(jobs.c.folder == folder, jobs.c.ino == str(ino), jobs.c.state.in_(_TERMINAL))
        .order_by(jobs.c.claimed_at.desc())
        .limit(1)
    ).scalar()


def replaced_in(connection: Connection, folder: bytes, ino: int) -> tuple[str, list[Event]]:
    """Return (id, events) of a folder's last job, if it failed: of what was replaced in it since.

    Args:
        folder: its name; a job that it left under another one is told what was renamed.
    """
    renamed = sa.select(requests.c.id).where(
        requests.c.job == jobs.c.id, requests.c.action == Action.RENAME.value
    )
    query = (
        sa.select(jobs.c.id, jobs.c.state)
        .where(
            jobs.c.ino == str(ino),
            jobs.c.state.in_(_TERMINAL),
            sa.or_(jobs.c.folder == folder, jobs.c.name == display(folder), sa.exists(renamed)),
        )
        .order_by(jobs.c.claimed_at.desc())
        .limit(1)
    )
    last = connection.execute(query).first()
    if last is None or last.state != JobState.FAILED.value:
        return "", []
    found = events_of(connection, last.id)
    return last.id, [event for event in found if event.type is EventType.MODIFICATION]


def replacements(connection: Connection, ino: int) -> list[str]:
    """Return the sentences on files that were replaced in a folder, whichever of its jobs had failed.

    Args:
        ino: the folder's inode number.
    """
    query = (
        sa.select(events.c.detail)
        .join(jobs, jobs.c.id == events.c.job_id)
        .where(jobs.c.ino == str(ino), events.c.type == EventType.MODIFICATION.value)
    )
    return list(connection.execute(query).scalars())


def earlier(connection: Connection, job: Job, limit: int = 3) -> list[JobId]:
    """Return the ids of jobs of the same name that have ended, the latest first."""
    return [
        JobId(found)
        for found in connection.execute(
            sa.select(jobs.c.id)
            .where(jobs.c.name == job.name, jobs.c.id != job.id, jobs.c.state.in_(_TERMINAL))
            .order_by(jobs.c.claimed_at.desc())
            .limit(limit)
        ).scalars()
    ]


def events_before(connection: Connection, job: Job) -> list[Event]:
    """Return what is recorded of the jobs of the same name that have ended, the earliest job first."""
    found = connection.execute(
        sa.select(jobs.c.id)
        .where(jobs.c.name == job.name, jobs.c.id != job.id, jobs.c.state.in_(_TERMINAL))
        .order_by(jobs.c.claimed_at, jobs.c.id)
    ).scalars()
    return [event for earlier_job in found for event in events_of(connection, earlier_job)]


def last_failure(connection: Connection, job: Job) -> Job | None:
    """Return the latest earlier job of the same name, where that one failed."""
    query = (
        sa.select(jobs)
        .where(jobs.c.name == job.name, jobs.c.id != job.id, jobs.c.state.in_(_TERMINAL))
        .order_by(jobs.c.finished_at.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    last = to_job(row) if row is not None else None
    failed = last is not None and last.state is JobState.FAILED and last.outcome is not Outcome.CANCELLED
    return last if failed else None


def under_way_since(connection: Connection, before: float) -> list[tuple[Job, float]]:
    """Return the jobs that are not over and began before a moment, with when, the longest first.

    A job that was tried again after it had been over began then.
    """
    began = sa.func.coalesce(jobs.c.reopened_at, jobs.c.claimed_at)
    active = sorted(state.value for state in ACTIVE)
    query = sa.select(jobs).where(jobs.c.state.in_(active), began < before).order_by(began, jobs.c.id)
    return [
        (to_job(row), row["reopened_at"] or row["claimed_at"]) for row in connection.execute(query).mappings()
    ]


def of_name(connection: Connection, name: str) -> list[Job]:
    """Return all jobs of a name, the latest first."""
    query = sa.select(jobs).where(jobs.c.name == name).order_by(jobs.c.claimed_at.desc(), jobs.c.id.desc())
    return [to_job(row) for row in connection.execute(query).mappings()]


def taken_up_by(connection: Connection, job: Job) -> JobId | None:
    """Return the latest job that has taken up the same folder since; None where there is none.

    Under the same name, or under one that somebody has given it since.
    """
    given = connection.execute(
        sa.select(requests.c.args).where(requests.c.job == job.id, requests.c.action == Action.RENAME.value)
    ).scalars()
    found = connection.execute(
        sa.select(jobs.c.id)
        .where(
            jobs.c.name.in_([job.name, *(read_args(args).name for args in given)]),
            jobs.c.ino == str(job.ino),
            jobs.c.claimed_at > job.claimed_at.timestamp(),
        )
        .order_by(jobs.c.claimed_at.desc())
        .limit(1)
    ).scalar()
    return None if found is None else JobId(found)


def is_superseded(connection: Connection, job: Job) -> bool:
    """Tell whether a later job has done the same folder again."""
    return (
        connection.execute(
            sa.select(jobs.c.id)
            .where(
                jobs.c.name == job.name,
                jobs.c.ino == str(job.ino),
                jobs.c.claimed_at > job.claimed_at.timestamp(),
                jobs.c.state == JobState.DONE.value,
            )
            .limit(1)
        ).first()
        is not None
    )


def open_failure(*, but_for: Collection[Outcome] = ()) -> sa.ColumnElement[bool]:
    """Return the condition for a failed job that waits for somebody.

    It has ended where somebody dismissed or cancelled it, where its folder is gone, where a later job took
    up the same folder (also under another name, as the hint may have advised), and where another folder of
    its name was done since.

    Args:
        but_for: outcomes that do not end it for this question.
    """
    later = jobs.alias()
    same_folder = sa.and_(
        later.c.ino == jobs.c.ino, sa.or_(later.c.name == jobs.c.name, later.c.dev == jobs.c.dev)
    )
    done_since = sa.and_(later.c.name == jobs.c.name, later.c.state == JobState.DONE.value)
    open_ones = [outcome.value for outcome in (Outcome.NONE, *but_for)]
    return sa.and_(
        jobs.c.state == JobState.FAILED.value,
        jobs.c.outcome.in_(open_ones),
        ~sa.exists().where(same_folder, later.c.claimed_at > jobs.c.claimed_at),
        ~sa.exists().where(done_since, later.c.claimed_at > jobs.c.claimed_at),
    )


def open_failures(connection: Connection, limit: int) -> list[Job]:
    """Return failed jobs that wait for somebody, the latest first."""
    query = sa.select(jobs).where(open_failure())
    query = query.order_by(jobs.c.claimed_at.desc(), jobs.c.id.desc()).limit(limit)
    return [to_job(row) for row in connection.execute(query).mappings()]


def may_be_gone(connection: Connection, limit: int) -> list[Job]:
    """Return failed jobs that are open, or were until their folder was found gone; the latest first."""
    query = sa.select(jobs).where(
        open_failure(but_for=[Outcome.GONE]), jobs.c.station == Station.FAILED.value
    )
    query = query.order_by(jobs.c.claimed_at.desc(), jobs.c.id.desc()).limit(limit)
    return [to_job(row) for row in connection.execute(query).mappings()]


def count_open_failures(connection: Connection) -> int:
    """Return how many failed jobs wait for somebody."""
    return connection.execute(sa.select(sa.func.count()).select_from(jobs).where(open_failure())).scalar_one()


def count_failed_since(connection: Connection, moment: float) -> int:
    """Return how many jobs have failed since a moment; cancelled ones are not failures."""
    query = (
        sa.select(sa.func.count())
        .select_from(jobs)
        .where(
            jobs.c.finished_at >= moment,
            jobs.c.state == JobState.FAILED.value,
            jobs.c.outcome != Outcome.CANCELLED.value,
        )
    )
    return connection.execute(query).scalar_one()


def ended_between(connection: Connection, after: float, until: float, limit: int) -> list[Job]:
    """Return jobs that were done between two moments and not processed again, the earliest first.

    Args:
        after: seconds since the epoch; a job that ended exactly then is left out.
        until: seconds since the epoch; a job that ended exactly then is in.
        limit: how many at most.
    """
    later = jobs.alias()
    query = (
        sa.select(jobs)
        .where(
            jobs.c.finished_at > after,
            jobs.c.finished_at <= until,
            jobs.c.state == JobState.DONE.value,
            jobs.c.station == Station.DONE.value,
            ~sa.exists().where(later.c.ino == jobs.c.ino, later.c.claimed_at > jobs.c.claimed_at),
        )
        .order_by(jobs.c.finished_at, jobs.c.id)
        .limit(limit)
    )
    return [to_job(row) for row in connection.execute(query).mappings()]


def latest_done(connection: Connection, pipeline: str) -> list[Job]:
    """Return the jobs of a pipeline that are done and were not done again, by name."""
    later = jobs.alias()
    query = sa.select(jobs).where(
        jobs.c.pipeline == pipeline,
        jobs.c.state == JobState.DONE.value,
        ~sa.exists().where(
            later.c.name == jobs.c.name,
            later.c.ino == jobs.c.ino,
            later.c.claimed_at > jobs.c.claimed_at,
        ),
    )
    return [to_job(row) for row in connection.execute(query.order_by(jobs.c.name)).mappings()]


def others_of_name(connection: Connection, job: Job, limit: int) -> list[Job]:
    """Return the other jobs of a job's name, the latest first, `limit` at most."""
    found = connection.execute(
        sa.select(jobs)
        .where(jobs.c.name == job.name, jobs.c.id != job.id)
        .order_by(jobs.c.claimed_at.desc())
        .limit(limit)
    ).mappings()
    return [to_job(row) for row in found]


def taken_names(connection: Connection, names: Collection[str]) -> frozenset[str]:
    """Return those of these names that jobs have had."""
    return frozenset(connection.execute(sa.select(jobs.c.name).where(jobs.c.name.in_(names))).scalars())


def job_of_folder(connection: Connection, name: str, ino: str, after: str) -> str | None:
    """Return the id of the latest job that took a folder, None where there is none yet.

    Args:
        name: the folder's name.
        ino: its inode, as the job has it.
        after: an id: earlier jobs do not count.
    """
    query = sa.select(jobs.c.id).where(jobs.c.name == name, jobs.c.ino == ino, jobs.c.id > after)
    return connection.execute(query.order_by(jobs.c.claimed_at.desc()).limit(1)).scalar()
