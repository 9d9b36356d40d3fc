"""Transactions on the daemon's deaths: whom they met, and how often."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.model.states import JobState, StepState
from dittohead.store.tables import jobs, steps

#: A step that has met so many deaths is suspected, and its job runs beside no other suspect.
SUSPECT_AT = 3

#: A job one of whose steps has met so many deaths is frozen. The last ones it met as the only suspect.
FREEZE_AT = 5

_ROWS = (
    sa.select(steps.c.job_id, steps.c.position, steps.c.state, steps.c.crashes)
    .join(jobs, jobs.c.id == steps.c.job_id)
    .where(jobs.c.state == JobState.RUNNING.value)
    .order_by(steps.c.job_id, steps.c.position)
)


def take_over(connection: Connection) -> dict[str, dict[int, int]]:
    """Charge the death of an earlier daemon to the steps it was in, once; none of them runs any more.

    To be called at a start, before any run of a job begins: whatever is running now was left so by a
    death. It makes no difference whether that was a crash or somebody's kill: nobody can tell. A run
    that ended otherwise, also because the store was away, has met none.

    Returns: for each active job, its steps that have met deaths, with how many.
    """
    in_flight = _in_flight(connection)
    # Who was there beside a suspect is suspected too: else a guilty one among them would let the suspect
    # pay for it a second time.
    beside = any(row["crashes"] >= SUSPECT_AT for row in in_flight)
    for row in in_flight:
        met = max(row["crashes"] + 1, SUSPECT_AT if beside else 0)
        where = (steps.c.job_id == row["job_id"], steps.c.position == row["position"])
        connection.execute(steps.update().where(*where).values(crashes=met))
    running = (steps.c.state == StepState.RUNNING.value,)
    connection.execute(steps.update().where(*running).values(state=StepState.PENDING.value))
    left = jobs.update().where(jobs.c.state == JobState.RUNNING.value)
    connection.execute(left.values(state=JobState.WAITING.value, reason="", wake_at=None, target=""))
    return _charged(connection)


def _in_flight(connection: Connection) -> list[RowMapping]:
    """Return the steps that jobs were in; of one that was in none, the step that it looked ahead to."""
    by_job: dict[str, list[RowMapping]] = {}
    for row in connection.execute(_ROWS).mappings():
        by_job.setdefault(row["job_id"], []).append(row)
    return [row for rows in by_job.values() for row in _of_one(rows)]


def _of_one(rows: Sequence[RowMapping]) -> Sequence[RowMapping]:
    running = [row for row in rows if row["state"] == StepState.RUNNING.value]
    # Its manifest, the preflights and its end are in no step: they count for the next one that is left.
    left = [row for row in rows if row["state"] != StepState.DONE.value] or rows[-1:]
    return running or left[:1]


def _charged(connection: Connection) -> dict[str, dict[int, int]]:
    query = (
        sa.select(steps.c.job_id, steps.c.position, steps.c.crashes)
        .join(jobs, jobs.c.id == steps.c.job_id)
        .where(jobs.c.state.in_([JobState.WAITING.value, JobState.PAUSED.value]), steps.c.crashes > 0)
    )
    found: dict[str, dict[int, int]] = {}
    for job, position, met in connection.execute(query):
        found.setdefault(job, {})[position] = met
    return found
