"""Transactions that fill an empty store from receipts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.definition import Failure, JobDefinition, Refusal, StepTotals
from dittohead.model.states import JobState, Outcome, Station, StepState
from dittohead.store.jobs import NewJob
from dittohead.store.tables import jobs, steps


def any_job(connection: Connection) -> bool:
    """Tell whether the store knows a job."""
    return connection.execute(sa.select(jobs.c.id).limit(1)).first() is not None


def knows(connection: Connection, job_id: str) -> bool:
    """Tell whether the store knows this job."""
    return connection.execute(sa.select(jobs.c.id).where(jobs.c.id == job_id)).first() is not None


def without_definition(new: NewJob, known: Sequence[tuple[str, str]], why: str) -> NewJob:
    """Return a job whose pipeline is not what it was: its steps are history, and none can be run.

    Args:
        new: the job as it would be created.
        known: its steps, as its receipt or its work directory has them: (name, worker).
        why: why they cannot be run, for people.
    """
    hint = "Move the folder to the inbox to process it from the first step"
    refusal = Refusal(what=why, where=new.name, hint=hint)
    return dataclasses.replace(new, steps=known, definition=JobDefinition(refusal=refusal))


def put_over(
    connection: Connection,
    job_id: str,
    *,
    state: JobState,
    station: Station,
    error: Failure | None,
    files: int,
    size: int,
    claimed_at: float,
    finished_at: float,
    host: str,
    pipeline: str,
    steps: Mapping[str, tuple[StepState, StepTotals]],
) -> None:
    """Turn a job that was just created into one that has ended, as its receipt tells it.

    Args:
        job_id: the job's id; it has its steps already.
        state: done or failed.
        station: where its folder lies now.
        error: why it failed; None when it is done.
        files: how many files its folder had.
        size: their size in bytes.
        claimed_at, finished_at: seconds since the epoch.
        host: the machine that ran it.
        pipeline: the name of its pipeline at that time.
        steps: by step name: its state and its totals.
    """
    connection.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(
            state=state.value,
            station=station.value,
            error=error,
            outcome=(Outcome.CANCELLED if error and error.kind == "cancelled" else Outcome.NONE).value,
            reason=error.what if error else "",
            files=files,
            size=size,
            claimed_at=claimed_at,
            finished_at=finished_at,
            host=host,
            pipeline=pipeline,
        )
    )
    _put_steps(connection, job_id, steps, finished_at)


def _put_steps(
    connection: Connection,
    job_id: str,
    found: Mapping[str, tuple[StepState, StepTotals]],
    finished_at: float,
) -> None:
    for name, (state, result) in found.items():
        done = state is StepState.DONE
        connection.execute(
            steps.update()
            .where(steps.c.job_id == job_id, steps.c.name == name)
            .values(
                state=state.value, result=result if done else {}, finished_at=finished_at if done else None
            )
        )
