"""Transactions on jobs, steps and events. Each function is one, given its Connection by the Store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.model.definition import Failure, JobDefinition, StepTotals
from dittohead.model.errors import Superseded
from dittohead.model.events import Event, EventType
from dittohead.model.records import Job, JobId, StepRow
from dittohead.model.states import ACTIVE, TERMINAL, JobState, Outcome, Station, StepState
from dittohead.model.text import utcnow
from dittohead.store.tables import events, jobs, steps, targets

# The statements of every step of every job, built once: building one again costs several times
# what SQLite needs to run it. The columns an UPDATE sets are those it is given values for.
_JOB = sa.select(jobs).where(jobs.c.id == sa.bindparam("b_job"))
_STEPS = sa.select(steps).where(steps.c.job_id == sa.bindparam("b_job")).order_by(steps.c.position)
_HELD = sa.select(jobs.c.id).where(
    jobs.c.id == sa.bindparam("b_job"),
    jobs.c.token == sa.bindparam("b_token"),
    jobs.c.state == JobState.RUNNING.value,
)
# An ended job is owned by nobody: an interruption in the moment after the last commit must
# not make it wait again.
_UPDATE_JOB = jobs.update().where(
    jobs.c.id == sa.bindparam("b_job"),
    jobs.c.token == sa.bindparam("b_token"),
    jobs.c.state == JobState.RUNNING.value,
)
_UPDATE_STEP = steps.update().where(
    steps.c.job_id == sa.bindparam("b_job"), steps.c.position == sa.bindparam("b_position")
)
_IN_FLIGHT = (steps.c.job_id == sa.bindparam("b_job"), steps.c.state == StepState.RUNNING.value)
# The deaths it has met stay with it: only its own end shows that it does not kill.
_STOPPED = steps.update().where(*_IN_FLIGHT).values(state=StepState.PENDING.value)
_BEGIN = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("b_job"), jobs.c.state.in_(sa.bindparam("b_states", expanding=True)))
    .values(token=jobs.c.token + 1, state=JobState.RUNNING.value, reason="", wake_at=None, target="")
)
_TURN = sa.func.row_number().over(
    partition_by=[jobs.c.uid, jobs.c.batch], order_by=[jobs.c.claimed_at, jobs.c.id]
)
_MOVED = jobs.update().where(jobs.c.id == sa.bindparam("b_job"))
_INSERT_JOB, _INSERT_STEPS, _INSERT_EVENTS = jobs.insert(), steps.insert(), events.insert()

#: How the event begins that a folder was changed after its job's end.
LATE = "late change"

#: How the event begins that says that a job's own folder was removed.
REMOVED = "removed from"

#: States from which dispatch may run a job; a paused one only as its target's probe.
RUNNABLE = frozenset({JobState.WAITING, JobState.RUNNING, JobState.PAUSED})


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What is known of a job at its claim."""

    id: JobId
    name: str
    folder: bytes
    dev: int
    ino: int
    uid: int
    pipeline: str
    definition: JobDefinition
    values: dict[str, str]
    steps: Sequence[tuple[str, str]]  #: (step's name, worker's name)
    host: str
    batch: str = ""  #: id of the batch it comes with


def create(connection: Connection, new: NewJob, *found: Event, waits: bool = False) -> Job:
    """Add a job whose folder has just come to rest in processing/; its first run begins with this.

    Args:
        waits: it is to wait for its turn instead.
    """
    now = utcnow().timestamp()
    connection.execute(
        _INSERT_JOB,
        {
            "id": new.id,
            "name": new.name,
            "folder": new.folder,
            "station": Station.PROCESSING.value,
            "dev": str(new.dev),
            "ino": str(new.ino),
            "uid": new.uid,
            "pipeline": new.pipeline,
            "definition": new.definition,
            "vals": new.values,
            # Its run follows at once; left over, it is taken up again.
            "state": (JobState.WAITING if waits else JobState.RUNNING).value,
            "reason": "",
            "error": None,
            "token": 1,
            "wake_at": None,
            "target": "",
            "files": 0,
            "size": 0,
            "claimed_at": now,
            "finished_at": None,
            "host": new.host,
            "batch": new.batch,
        },
    )
    if new.steps:
        connection.execute(
            _INSERT_STEPS,
            [_blank_step(new.id, i, name, worker) for i, (name, worker) in enumerate(new.steps)],
        )
    add_events(connection, new.id, found)
    return get(connection, new.id)


def _blank_step(job_id: str, position: int, name: str, worker: str) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "position": position,
        "name": name,
        "worker": worker,
        "state": StepState.PENDING.value,
        "attempts": 0,
        "crashes": 0,
        "started_at": None,
        "finished_at": None,
        "saved": {},
        "result": {},
        "error": "",
        "wake_at": None,
        "target": "",
    }


def get(connection: Connection, job_id: str) -> Job:
    """Return one job. Raises: KeyError."""
    row = connection.execute(_JOB, {"b_job": job_id}).mappings().first()
    if row is None:
        raise KeyError(job_id)
    return to_job(row)


def steps_of(connection: Connection, job_id: str) -> list[StepRow]:
    """Return a job's steps in order."""
    return [_to_step(row) for row in connection.execute(_STEPS, {"b_job": job_id}).mappings()]


def events_of(connection: Connection, job_id: str) -> list[Event]:
    """Return a job's events in the order they were recorded."""
    found = connection.execute(
        sa.select(events).where(events.c.job_id == job_id).order_by(events.c.id)
    ).mappings()
    return [
        Event(
            type=EventType(row["type"]),
            outcome=row["outcome"],
            detail=row["detail"],
            agent=row["agent"],
            step=row["step"],
            at=datetime.fromtimestamp(row["at"], UTC),
        )
        for row in found
    ]


def begin_run(
    connection: Connection, job_id: str, states: Collection[JobState] = RUNNABLE
) -> tuple[Job, list[StepRow], int]:
    """Take a job for a new run: its token grows, so that any earlier run's results are refused.

    A job in another state than `states` is left as it is.

    Returns: the job, its steps, and how many deaths of the daemon (store/suspects.py) one of them has met.
    """
    connection.execute(_BEGIN, {"b_job": job_id, "b_states": _values(states)})
    rows = steps_of(connection, job_id)
    return get(connection, job_id), rows, max((row.crashes for row in rows), default=0)


def ending(connection: Connection, job_id: str) -> tuple[list[StepRow], list[Event]]:
    """Return what a receipt needs of a job: its steps and its events."""
    return steps_of(connection, job_id), events_of(connection, job_id)


def check_token(connection: Connection, job_id: str, token: int) -> None:
    """Raises: Superseded: another run owns the job, or it has ended."""
    if connection.execute(_HELD, {"b_job": job_id, "b_token": token}).first() is None:
        raise Superseded("another run owns this job", where=job_id)


def update_job(connection: Connection, job_id: str, token: int, **changes: Any) -> None:
    """Change a job that this run owns.

    Args:
        token: the run that owns the job.
        changes: columns of the job.

    Raises: Superseded (and nothing is changed).
    """
    result = connection.execute(_UPDATE_JOB, {"b_job": job_id, "b_token": token, **changes})
    if result.rowcount != 1:
        raise Superseded("another run owns this job", where=job_id)


def set_manifest(
    connection: Connection,
    job_id: str,
    token: int,
    files: int,
    size: int,
    found: Iterable[Event],
    begin: Iterable[int] = (),
    definition: JobDefinition | None = None,
) -> None:
    """Record that the manifest is on disk, and that the first steps are in flight: one commit.

    Args:
        files, size: what steps are given.
        definition: what is known of the pipeline now; None: nothing new.
    """
    more = {} if definition is None else {"definition": definition}
    update_job(connection, job_id, token, files=files, size=size, **more)
    add_events(connection, job_id, found)
    now = utcnow().timestamp()
    for position in begin:
        _step(connection, job_id, position, **_STARTED(now))


def note(connection: Connection, job_id: str, token: int, found: Iterable[Event]) -> None:
    """Add events to a job that this run owns. Raises: Superseded: another run owns it."""
    check_token(connection, job_id, token)
    add_events(connection, job_id, found)


def start_step(connection: Connection, job_id: str, token: int, position: int) -> None:
    """Record that a step is in flight.

    Args:
        token: the run that owns the job.
        position: the step's, from 0.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    check_token(connection, job_id, token)
    _step(connection, job_id, position, **_STARTED(utcnow().timestamp()))


def _STARTED(now: float) -> dict[str, Any]:  # reads as the constant it nearly is
    return {
        "state": StepState.RUNNING.value,
        "started_at": now,
        "finished_at": None,
        "error": "",
        "wake_at": None,
        "target": "",
    }


def finish_step(
    connection: Connection,
    job_id: str,
    token: int,
    position: int,
    *,
    result: StepTotals,
    found: Iterable[Event],
    following: Iterable[int],
) -> None:
    """Record a step's result and events, and that the steps behind it are in flight: one commit.

    Args:
        token: the run that owns the job.
        position: the step's, from 0.
        result: how much it made and delivered.
        found: the step's events, in their order.
        following: positions of the steps that begin now.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    now = utcnow().timestamp()
    check_token(connection, job_id, token)
    _step(
        connection,
        job_id,
        position,
        state=StepState.DONE.value,
        finished_at=now,
        result=result,
        saved={},
        error="",
        crashes=0,
    )
    add_events(connection, job_id, found)
    for later in following:
        _step(connection, job_id, later, **_STARTED(now))


def save_step(connection: Connection, job_id: str, token: int, position: int, saved: dict[str, Any]) -> None:
    """Keep what a worker needs at its next try.

    Args:
        token: the run that owns the job.
        position: the step's, from 0.
        saved: JSON, the worker's own; it replaces what was kept before.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    check_token(connection, job_id, token)
    _step(connection, job_id, position, saved=saved)


def interrupt(connection: Connection, job_id: str, token: int) -> None:
    """Record that a run was stopped in good order: its steps in flight have met no death."""
    update_job(connection, job_id, token, state=JobState.WAITING.value, reason="")
    connection.execute(_STOPPED, {"b_job": job_id})


def forgive(connection: Connection, job_id: str, token: int, positions: Collection[int]) -> None:
    """Forget how often the daemon died in these steps: their job was frozen for that, and may try again.

    Args:
        token: the run that owns the job.
        positions: the steps', from 0.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    check_token(connection, job_id, token)
    connection.execute(
        steps.update()
        .where(steps.c.job_id == job_id, steps.c.position.in_(list(positions)))
        .values(crashes=0)
    )


def put_off_step(
    connection: Connection,
    job_id: str,
    token: int,
    position: int,
    changes: dict[str, Any],
    found: Iterable[Event] = (),
) -> None:
    """Put one step off, while others of its job may go on.

    Args:
        token: the run that owns the job.
        position: the step's, from 0.
        changes: columns of the step, such as its state, the time to try again and the target.
        found: events to add, in their order.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    check_token(connection, job_id, token)
    _step(connection, job_id, position, **changes)
    add_events(connection, job_id, found)


def put_off(
    connection: Connection,
    job_id: str,
    token: int,
    *,
    state: JobState,
    reason: str,
    wake_at: float | None,
    waits_for: Collection[str] = (),
) -> None:
    """Lay a job aside (waiting, paused or frozen); it holds no slot and no memory until it wakes.

    Args:
        waits_for: the paused targets of its steps. One that was resumed since they met it has woken
            everyone who waited then: this job is to be tried again at once.
    """
    paused = sa.select(targets.c.name).where(targets.c.name.in_(list(waits_for)), targets.c.paused == 1)
    if waits_for and len(connection.execute(paused).all()) < len(set(waits_for)):
        state, reason, wake_at = JobState.WAITING, "", None
    target = min(waits_for, default="") if state is JobState.PAUSED else ""
    update_job(connection, job_id, token, state=state.value, reason=reason, wake_at=wake_at, target=target)
    connection.execute(_STOPPED, {"b_job": job_id})
    # What a step met in an earlier run, and was not tried again in this one, is not news of a target.
    connection.execute(
        steps.update()
        .where(steps.c.job_id == job_id, steps.c.target.not_in(["", *waits_for]))
        .values(target="")
    )


def forget(connection: Connection, job_id: str, token: int, positions: Collection[int]) -> None:
    """Let steps of a job begin again from their start: what they made is lost.

    Args:
        token: the run that owns the job.
        positions: the steps', from 0.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    check_token(connection, job_id, token)
    _afresh(connection, job_id, positions)


def finish(
    connection: Connection,
    job_id: str,
    token: int,
    *,
    state: JobState,
    reason: str,
    error: Failure | None,
    finished_at: float,
    failed_step: int | None,
    outcome: Outcome = Outcome.NONE,
) -> None:
    """Record that the job has ended; its folder is moved after this commit.

    Args:
        token: the run that owns the job.
        state: done or failed.
        reason: why it failed, or was cancelled; for lists and notices.
        error: the same, with its kind and hint; None when the job is done.
        finished_at: seconds since the epoch.
        failed_step: position of the step that failed, from 0; None when it was not a step.
        outcome: set when the end needs nobody any more, such as a cancelled job.

    Raises: Superseded: another run owns the job, and nothing was changed.
    """
    update_job(
        connection,
        job_id,
        token,
        state=state.value,
        reason=reason,
        error=error,
        wake_at=None,
        target="",
        finished_at=finished_at,
        outcome=outcome.value,
    )
    connection.execute(_STOPPED, {"b_job": job_id})
    if failed_step is not None:
        _step(
            connection,
            job_id,
            failed_step,
            state=StepState.FAILED.value,
            finished_at=finished_at,
            error=reason,
        )


def moved(connection: Connection, job_id: str, station: Station, folder: bytes) -> None:
    """Record where the folder of a job lies now.

    Args:
        station: done, failed, or wherever it was moved to.
        folder: its name there, as bytes.
    """
    connection.execute(_MOVED, {"b_job": job_id, "station": station.value, "folder": folder})


def reopen(
    connection: Connection, job_id: str, positions: Collection[int], resumed: Collection[int] = ()
) -> None:
    """Make a finished job wait again, with some steps to be done; the others keep their results.

    Args:
        positions: steps that begin afresh.
        resumed: steps that go on where they were: they were interrupted, or wait for an answer.

    The folder is moved back after this commit.
    """
    connection.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(
            state=JobState.WAITING.value,
            reason="",
            error=None,
            wake_at=None,
            finished_at=None,
            target="",
            outcome=Outcome.NONE.value,
            token=jobs.c.token + 1,
            reopened_at=utcnow().timestamp(),
        )
    )
    _afresh(connection, job_id, positions)
    connection.execute(
        steps.update()
        .where(steps.c.job_id == job_id, steps.c.position.in_(list(resumed)))
        .values(state=StepState.PENDING.value, attempts=0, crashes=0, error="", wake_at=None, target="")
    )


def set_outcome(connection: Connection, job_id: str, outcome: Outcome, before: Collection[Outcome]) -> bool:
    """Record what happened to a failed job; return False where its state or outcome is another by now.

    Args:
        before: the outcomes it may have until then.
    """
    changed = connection.execute(
        jobs.update()
        .where(
            jobs.c.id == job_id, jobs.c.state == JobState.FAILED.value, jobs.c.outcome.in_(_values(before))
        )
        .values(outcome=outcome.value)
    )
    return bool(changed.rowcount)


def _afresh(connection: Connection, job_id: str, positions: Collection[int]) -> None:
    connection.execute(
        steps.update()
        .where(steps.c.job_id == job_id, steps.c.position.in_(list(positions)))
        .values(
            state=StepState.PENDING.value,
            attempts=0,
            crashes=0,
            saved={},
            result=StepTotals(),
            error="",
            started_at=None,
            finished_at=None,
            wake_at=None,
            target="",
        )
    )


def set_state(connection: Connection, job_id: str, state: JobState, reason: str) -> None:
    """Freeze or thaw: change the state of an active job, whichever run has it. That run loses its token.

    Args:
        state: the state it gets; nothing is changed when the job has ended.
        reason: why, for people; "" for none.
    """
    connection.execute(
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.state.in_(_values(ACTIVE)))
        .values(state=state.value, reason=reason, wake_at=None, target="", token=jobs.c.token + 1)
    )
    connection.execute(steps.update().where(steps.c.job_id == job_id).values(wake_at=None, target=""))


def ready(connection: Connection, now: float, limit: int, leaving_out: Collection[str]) -> list[Job]:
    """Return jobs that may run now, oldest claim first: waiting and due, or left running by a crash.

    Args:
        now: seconds since the epoch; jobs that wait for a later time are left out.
        limit: how many at most.
        leaving_out: ids of jobs that are not to be returned.
    """
    found = connection.execute(
        sa.select(jobs).where(*_may_run(now, leaving_out)).order_by(jobs.c.claimed_at, jobs.c.id).limit(limit)
    ).mappings()
    return [to_job(row) for row in found]


def ready_of_each(connection: Connection, now: float, limit: int, leaving_out: Collection[str]) -> list[Job]:
    """Return jobs that may run now, oldest claim first: some of each owner and batch.

    Slower where thousands may run; those of one batch hide nobody else's.

    Args:
        limit: at most so many of each.
    """
    found = sa.select(jobs.c.id, _TURN.label("turn")).where(*_may_run(now, leaving_out)).subquery()
    rows = connection.execute(
        sa.select(jobs)
        .where(jobs.c.id.in_(sa.select(found.c.id).where(found.c.turn <= limit)))
        .order_by(jobs.c.claimed_at, jobs.c.id)
    ).mappings()
    return [to_job(row) for row in rows]


def _may_run(now: float, leaving_out: Collection[str]) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        jobs.c.state.in_([JobState.WAITING.value, JobState.RUNNING.value]),
        sa.or_(jobs.c.wake_at.is_(None), jobs.c.wake_at <= now),
        jobs.c.id.not_in(list(leaving_out)),
    )


def next_wake(connection: Connection, now: float) -> float | None:
    """Return when the next waiting job is due, later than `now`."""
    return connection.execute(
        sa.select(sa.func.min(jobs.c.wake_at)).where(
            jobs.c.state == JobState.WAITING.value, jobs.c.wake_at > now
        )
    ).scalar()


def sooner(connection: Connection, seconds: float) -> None:
    """Let what waits for a moment be due so much earlier: the clock was set back."""
    connection.execute(
        jobs.update().where(jobs.c.wake_at.is_not(None)).values(wake_at=jobs.c.wake_at - seconds)
    )
    connection.execute(
        steps.update().where(steps.c.wake_at.is_not(None)).values(wake_at=steps.c.wake_at - seconds)
    )


def active(connection: Connection) -> list[Job]:
    """Return every job that is not over, oldest first."""
    found = connection.execute(
        sa.select(jobs).where(jobs.c.state.in_(_values(ACTIVE))).order_by(jobs.c.claimed_at)
    ).mappings()
    return [to_job(row) for row in found]


def uploaders(connection: Connection) -> list[int]:
    """Return the numbers of the users whose folders there were."""
    return list(connection.execute(sa.select(jobs.c.uid).distinct().order_by(jobs.c.uid)).scalars())


def unmoved(connection: Connection) -> list[Job]:
    """Return ended jobs while their folder was last seen in processing/."""
    found = connection.execute(
        sa.select(jobs).where(jobs.c.state.in_(_values(TERMINAL)), jobs.c.station == Station.PROCESSING.value)
    ).mappings()
    return [to_job(row) for row in found]


def unknown(connection: Connection) -> list[bytes]:
    """Return the folders of jobs whose state is damaged: whether they have ended, nobody knows."""
    found = connection.execute(sa.select(jobs.c.folder).where(jobs.c.state.not_in(_values(JobState))))
    return list(found.scalars())


def mark_undone(connection: Connection, job_id: str, event: Event) -> None:
    """Record that what a job had created outside was taken back; lists show it as the job's reason."""
    add_events(connection, job_id, [event])
    done = (jobs.c.id == job_id, jobs.c.state == JobState.DONE.value)
    connection.execute(jobs.update().where(*done).values(reason=event.detail))


def mark_changed_late(connection: Connection, job_id: str, event: Event) -> None:
    """Record that a folder was changed after its job's end; lists show it as the job's reason."""
    mark_undone(connection, job_id, event)


def changed_late(connection: Connection, job_id: str) -> bool:
    """Tell whether that was recorded before."""
    query = sa.select(events.c.id).where(
        events.c.job_id == job_id,
        events.c.type == EventType.FIXITY.value,
        events.c.detail.startswith(LATE, autoescape=True),
    )
    return connection.execute(query.limit(1)).first() is not None


def was_undone(connection: Connection, job_id: str) -> bool:
    """Tell whether what a job had created outside was taken back."""
    query = sa.select(events.c.id).where(
        events.c.job_id == job_id,
        events.c.type == EventType.DELETION.value,
        ~events.c.detail.startswith(REMOVED, autoescape=True),
    )
    return connection.execute(query.limit(1)).first() is not None


def add_events(connection: Connection, job_id: str, found: Iterable[Event]) -> None:
    """Append events to a job."""
    rows = [
        {
            "job_id": job_id,
            "step": event.step,
            "type": event.type.value,
            "outcome": event.outcome,
            "detail": event.detail,
            "agent": event.agent,
            "at": event.at.timestamp(),
        }
        for event in found
    ]
    if rows:
        connection.execute(_INSERT_EVENTS, rows)


def _step(connection: Connection, job_id: str, position: int, **changes: Any) -> None:
    connection.execute(_UPDATE_STEP, {"b_job": job_id, "b_position": position, **changes})


def _values(states: Iterable[JobState] | Iterable[Outcome]) -> list[str]:
    return sorted(state.value for state in states)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_job(row: RowMapping) -> Job:
    """Return a row of the jobs table as a Job."""
    return Job(
        id=JobId(row["id"]),
        name=row["name"],
        folder=bytes(row["folder"]),
        station=Station(row["station"]),
        dev=int(row["dev"]),
        ino=int(row["ino"]),
        uid=row["uid"],
        pipeline=row["pipeline"],
        definition=row["definition"],
        values=row["vals"],
        state=JobState(row["state"]),
        reason=row["reason"],
        error=row["error"],
        token=row["token"],
        wake_at=_moment(row["wake_at"]),
        target=row["target"],
        files=row["files"],
        size=row["size"],
        claimed_at=datetime.fromtimestamp(row["claimed_at"], UTC),
        finished_at=_moment(row["finished_at"]),
        host=row["host"],
        outcome=Outcome(row["outcome"]),
        batch=row["batch"],
    )


def _to_step(row: RowMapping) -> StepRow:
    return StepRow(
        position=row["position"],
        name=row["name"],
        worker=row["worker"],
        state=StepState(row["state"]),
        attempts=row["attempts"],
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        saved=row["saved"],
        result=row["result"],
        error=row["error"],
        wake_at=_moment(row["wake_at"]),
        target=row["target"],
        crashes=row["crashes"],
    )
