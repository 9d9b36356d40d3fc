"""The read door: what the command line, the page and metrics may ask of the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.folders.receipt import event_fields
from dittohead.model.errors import NoSuchJob
from dittohead.model.records import Batch, Job, StepRow
from dittohead.model.shown import (
    DisabledReceiver,
    ShownBatch,
    ShownJob,
    ShownStep,
    ShownTarget,
    StoredJob,
    StoredSource,
    StoreStatus,
    StoreTotals,
)
from dittohead.model.states import JobState, StepState
from dittohead.model.text import display, rfc3339
from dittohead.store import batches as batch_store
from dittohead.store import drops as drop_store
from dittohead.store import history
from dittohead.store import items as item_store
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store import targets as target_store
from dittohead.store.search import latest_first
from dittohead.store.tables import jobs, outbox


def resolve(connection: Connection, wanted: str, states: Sequence[JobState] = ()) -> Job:
    """Return the job of an id, the beginning of an id, or the latest job of a name.

    Args:
        states: of several jobs of one name, those in these states come first.

    Raises: NoSuchJob.
    """
    exact = connection.execute(sa.select(jobs).where(jobs.c.id == wanted.upper())).mappings().first()
    if exact is not None:
        return job_store.to_job(exact)
    preferred = (
        sa.case((jobs.c.state.in_([s.value for s in states]), 0), else_=1) if states else sa.literal(0)
    )
    named = (
        connection.execute(
            sa.select(jobs)
            .where(jobs.c.name == wanted)
            .order_by(preferred, jobs.c.claimed_at.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )
    if named is not None:
        return job_store.to_job(named)
    if len(wanted) >= 6 and wanted.isalnum():
        begun = connection.execute(
            sa.select(jobs).where(jobs.c.id.startswith(wanted.upper())).limit(2)
        ).mappings()
        found = list(begun)
        if len(found) == 1:
            return job_store.to_job(found[0])
        if found:
            raise NoSuchJob(f'more than one job\'s id begins with "{wanted}"; give more of it')
    batch = batch_store.named(connection, wanted)
    if batch is not None:
        raise NoSuchJob(f"{batch.name} is a collection; see its jobs: dittohead list --batch {batch.id}")
    raise NoSuchJob(f'there is no job "{wanted}"; see: dittohead list')


def resolve_batch(connection: Connection, wanted: str) -> Batch:
    """Return the batch of an id, or the latest one of a collection's name. Raises: NoSuchJob."""
    found = batch_store.named(connection, wanted)
    if found is None:
        raise NoSuchJob(f'there is no batch "{wanted}"; see: dittohead batches')
    return found


def batches(connection: Connection, limit: int) -> list[ShownBatch]:
    """Return the latest batches in a few fields each."""
    found = batch_store.latest(connection, limit)
    counts = batch_store.counts(connection, [batch.id for batch in found])
    return [batch_fields(batch, counts[batch.id]) for batch in found]


def batch(connection: Connection, wanted: str) -> ShownBatch:
    """Return one batch in a few fields. Raises: NoSuchJob."""
    found = resolve_batch(connection, wanted)
    return batch_fields(found, batch_store.counts(connection, [found.id])[found.id])


def batch_fields(found: Batch, counts: batch_store.BatchCounts) -> ShownBatch:
    """Return a batch as JSON."""
    return {
        "id": found.id,
        "name": found.name,
        "pipeline": found.pipeline,
        "state": counts.state if found.whole else "running",
        "claimed_at": rfc3339(found.claimed_at),
        "uid": found.uid,
        "jobs": counts.total,
        "done": counts.done,
        "failed": counts.failed,
        "settled": counts.settled,
        "active": counts.active,
    }


def listing(
    connection: Connection,
    *,
    states: Sequence[JobState] = (),
    pipeline: str = "",
    name: str = "",
    limit: int = 50,
) -> list[Job]:
    """Return jobs, the latest claim first.

    Args:
        states: only jobs in these states; empty for all.
        pipeline: only jobs of this pipeline; "" for all.
        name: only jobs whose name has this in it; "" for all.
        limit: how many at most.
    """
    query = sa.select(jobs).order_by(*latest_first(states)).limit(limit)
    if states:
        query = query.where(jobs.c.state.in_([state.value for state in states]))
    if pipeline:
        query = query.where(jobs.c.pipeline == pipeline)
    if name:
        query = query.where(jobs.c.name.contains(name, autoescape=True))
    return [job_store.to_job(row) for row in connection.execute(query).mappings()]


def counts(connection: Connection) -> dict[str, int]:
    """Return how many jobs there are in each state."""
    found = connection.execute(sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)).all()
    totals = {state.value: 0 for state in JobState}
    for state, count in found:  # several that are damaged stand for one
        totals[state] += count
    return totals


def unsent(connection: Connection) -> int:
    """Return how many notices wait to be sent."""
    return connection.execute(
        sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == "due")
    ).scalar_one()


def totals(connection: Connection) -> StoreTotals:
    """Return what monitoring wants of the store: numbers and the state of each target."""
    return {
        "counts": counts(connection),
        "failed_count": history.count_open_failures(connection),
        "targets": _targets(connection),
        "unsent_notices": unsent(connection),
        "disabled_receivers": outbox_store.count_disabled(connection),
        "oldest_waiting_at": connection.execute(
            sa.select(sa.func.min(jobs.c.claimed_at)).where(jobs.c.state == JobState.WAITING.value)
        ).scalar(),
    }


def _targets(connection: Connection) -> list[ShownTarget]:
    return [
        {"name": row.name, "paused": row.paused, "reason": row.reason, "nearly_full": row.nearly_full}
        for row in target_store.load(connection)
    ]


#: Failed jobs that `status` names; the others are only counted.
_FAILED = 5

#: Frozen jobs that it names.
_FROZEN = 5


def overview(connection: Connection) -> StoreStatus:
    """Return what `status` shows of the store: counts, unfinished jobs, the latest failures, targets."""
    unfinished = [s for s in JobState if s not in (JobState.DONE, JobState.FAILED, JobState.FROZEN)]
    frozen = listing(connection, states=[JobState.FROZEN], limit=_FROZEN)
    return {
        "counts": counts(connection),
        "active": [
            summary(job, job_store.steps_of(connection, job.id))
            for job in listing(connection, states=unfinished, limit=50)
        ],
        "frozen": [summary(job, job_store.steps_of(connection, job.id)) for job in frozen],
        "failed": [summary(job) for job in history.open_failures(connection, _FAILED)],
        "failed_count": history.count_open_failures(connection),
        "targets": _targets(connection),
        "unsent_notices": unsent(connection),
        "disabled_receivers": disabled_receivers(connection),
    }


def disabled_receivers(connection: Connection) -> list[DisabledReceiver]:
    """Return the receivers that get no notices any more, by their rule's key."""
    return [
        {"rule": row.key, "since": _moment(row.disabled_at), "error": row.error}
        for row in outbox_store.receiver_rows(connection).values()
        if row.disabled_at is not None
    ]


def summary(job: Job, steps: Sequence[StepRow] = ()) -> ShownJob:
    """Return a job in a few fields, for lists and as JSON."""
    fields: ShownJob = {
        "id": job.id,
        "name": job.name,
        "pipeline": job.pipeline,
        "state": job.state.value,
        "outcome": job.outcome.value,
        "reason": job.reason,
        "station": job.station.value,
        "folder": display(job.folder),
        "files": job.files,
        "bytes": job.size,
        "claimed_at": rfc3339(job.claimed_at),
        "finished_at": rfc3339(job.finished_at),
        "wake_at": rfc3339(job.wake_at),
        "target": job.target,
        "host": job.host,
        "uid": job.uid,
        "batch": job.batch,
    }
    if steps:
        done = sum(step.state is StepState.DONE for step in steps)
        fields["steps_done"], fields["steps"] = done, len(steps)
        left = [step.name for step in steps if step.state is not StepState.DONE]
        # Several where steps run in parallel; otherwise the one whose turn it is.
        now = [step.name for step in steps if step.state is StepState.RUNNING] or left[:1]
        fields["step"] = " and ".join(now)
    return fields


def detail(connection: Connection, job: Job) -> StoredJob:
    """Return everything about one job but its files."""
    return {
        **summary(job, job_store.steps_of(connection, job.id)),
        "error": None if job.error is None else job.error.as_dict(),
        "values": job.values,
        "definition": job.definition.as_dict(),
        "all_steps": [_step(row) for row in job_store.steps_of(connection, job.id)],
        "events": [event_fields(event) for event in job_store.events_of(connection, job.id)],
    }


def _step(row: StepRow) -> ShownStep:
    return {
        "name": row.name,
        "worker": row.worker,
        "state": row.state.value,
        "attempts": row.attempts,
        "started_at": rfc3339(row.started_at),
        "finished_at": rfc3339(row.finished_at),
        "error": row.error,
        **row.result.as_dict(),
    }


#: Items named with the reason why they are refused; the others are only counted.
_REFUSED = 10


def source(connection: Connection, name: str) -> StoredSource:
    """Return what the store knows of a source: its rounds, its items and orders by state."""
    row = item_store.rounds(connection, name)
    return {
        "looked_at": _moment(row.looked_at),
        "finished_at": _moment(row.finished_at),
        "items": item_store.counts(connection, name),
        "orders": item_store.order_counts(connection, name),
        "folders_under_way": len(drop_store.of_source(connection, name)),
        "refused": [
            {"key": key, "reason": reason} for key, reason in item_store.refused(connection, name, _REFUSED)
        ],
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(datetime.fromtimestamp(seconds, UTC))
