"""The end of a job: receipt, commit, notices, and the folder's durable move to done/ or failed/."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dittohead.engine import batches
from dittohead.engine.engine import Engine
from dittohead.folders import manifest, receipt
from dittohead.folders.job_files import MANIFEST, JobFiles
from dittohead.folders.stations import Stations
from dittohead.model.definition import Failure
from dittohead.model.errors import DittoheadError, StationError, Unreadable
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Job, Output, StepRow, collection_of
from dittohead.model.states import JobState, Outcome, Station, StepState
from dittohead.model.text import display, shell_word, utcnow, visible
from dittohead.store import Connection, Store, history
from dittohead.store import digests as digest_store
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice, instead
from dittohead.system import fail_points, log


async def finish(
    engine: Engine,
    job: Job,
    state: JobState,
    error: Failure | None,
    *,
    failed_step: int | None = None,
) -> None:
    """End a job that this run owns.

    # 1 receipt durable  2 commit state, event and notices  3 reason file  4 rename the folder
    # 5 record where it is.  A crash after 2 is corrected by `leave_processing` at the next start.

    A list of the job's own that is damaged fails it: what is not in the receipt was not verified.

    Args:
        job: as the store has it, with the token of this run.
        state: done or failed.
        error: why it failed or was cancelled; None when it is done.
        failed_step: position of the step that failed, from 0; None when it was not a step.

    Raises: Superseded, StoreError; StationMissing: receipts/ is not there; OSError.
    """
    fail_points.point("finish.begun")
    reason = _reason(error)
    outcome = "success" if state is JobState.DONE else "failure"
    event = Event(type=EventType.INGESTION_END, outcome=outcome, detail=reason or "done", agent=AGENT)
    ended = Outcome.CANCELLED if error is not None and error.kind == "cancelled" else Outcome.NONE
    over = dataclasses.replace(
        job, state=state, error=error, reason=reason, finished_at=utcnow(), outcome=ended
    )
    steps, events = await engine.store.read(job_store.ending, job.id)
    known = len(events)
    events.append(event)
    path = receipt.path_of(engine.stations.receipts, job)
    try:
        heads = await asyncio.to_thread(write_receipt, path, engine.stations, over, steps, events)
    except Unreadable as unreadable:
        if state is JobState.DONE:  # what is not in the receipt cannot be said to have been verified
            await finish(engine, job, JobState.FAILED, damaged(unreadable, job))
            return
        events.append(_left_out(unreadable))
        written = (path, engine.stations, over, steps, events)
        heads = await asyncio.to_thread(write_receipt, *written, whole=False)
    fail_points.point("finish.receipt")
    heads = await _index(engine, over, heads)
    notices = await _notices(engine, over, steps, events, path)

    def work(connection: Connection) -> None:
        assert over.finished_at is not None  # noqa: S101
        job_store.finish(
            connection,
            job.id,
            job.token,
            state=state,
            reason=reason,
            error=error,
            finished_at=over.finished_at.timestamp(),
            failed_step=failed_step,
            outcome=ended,
        )
        job_store.add_events(connection, job.id, events[known:])
        digest_store.add(connection, job.id, heads)
        outbox_store.add(connection, notices)

    await engine.store.write(work)
    fail_points.point("finish.committed")
    try:
        await leave_processing(engine.store, engine.stations, over)
    except StationError as refused:  # moved when it can be: the comparison tries again and again
        log.get().error(log.JOB_STUCK, name=job.name, error=str(refused))
    _log_end(over, steps)
    engine.metrics.finished.labels(over.pipeline, state.value).inc()
    if notices:
        engine.wake_notifier()
    if over.batch:
        await batches.ended(engine, over.batch)


async def _index(engine: Engine, job: Job, heads: list[int]) -> list[int]:
    """Make a job's files findable by digest; return the last few, to be committed with its end."""
    while len(heads) > digest_store.AT_ONCE:
        now, heads = heads[: digest_store.AT_ONCE], heads[digest_store.AT_ONCE :]
        await engine.store.write(digest_store.add, job.id, now)
    return heads


async def _notices(
    engine: Engine, over: Job, steps: list[StepRow], events: list[Event], path: Path
) -> list[NewNotice]:
    """Return the notices about the end of a job; where nobody asks for them, nothing is looked up."""
    if over.batch:  # reported together with the others, when the last of them has ended
        return []
    failure = None
    if over.state is JobState.DONE and engine.wants("recovered", over.pipeline):
        failure = await _earlier_failure(engine, over, events)
    event = over.outcome.value or over.state.value  # done, failed, cancelled
    if failure is None and not engine.wants(event, over.pipeline):
        return []

    def work() -> list[NewNotice]:
        given = {"job": over, "steps": steps, "receipt": path}
        given["links"] = JobFiles(engine.stations, over).links(steps)
        found = engine.compose(event, **given)
        return (
            found
            if failure is None
            else instead(engine.compose("recovered", failure=failure, **given), found)
        )

    return await asyncio.to_thread(work)


async def _earlier_failure(engine: Engine, over: Job, events: list[Event]) -> dict[str, Any] | None:
    """Return how the folder had failed last, when that was its last end; None when it had not."""
    ends = [event for event in events if event.type is EventType.INGESTION_END]
    if len(ends) > 1:  # the job itself was tried again; the last of them is that of now
        before = ends[-2]
        failed = before.outcome == "failure"
        return {"job": over.id, "at": before.at, "reason": before.detail} if failed else None
    job = await engine.store.read(history.last_failure, over)
    return None if job is None else {"job": job.id, "at": job.finished_at, "reason": job.reason}


def _log_end(job: Job, steps: list[StepRow]) -> None:
    assert job.finished_at is not None  # noqa: S101
    fields = {
        "state": job.outcome.value or job.state.value,
        "files": job.files,
        "bytes": job.size,
        "seconds": round((job.finished_at - job.claimed_at).total_seconds(), 3),
        "locations": sum(step.result.locations for step in steps),
        "pipeline": job.pipeline,
    }
    if job.state is JobState.DONE or job.outcome is Outcome.CANCELLED:
        log.get().info(log.JOB_FINISHED, **fields, **({"reason": job.reason} if job.reason else {}))
    else:
        log.get().error(log.JOB_FINISHED, **fields, reason=job.reason)


def _reason(error: Failure | None) -> str:
    if error is None:
        return ""
    text = str(DittoheadError(error.what, where=error.where, hint=error.hint))
    step = f"step {error.step}"
    return text if not error.step or text.startswith(step) else f"{step}: {text}"


def write_receipt(
    path: Path,
    stations: Stations,
    job: Job,
    steps: list[StepRow],
    events: list[Event],
    *,
    whole: bool = True,
) -> list[int]:
    """Write a job's receipt from its manifest and its steps' result files. Blocking.

    Args:
        whole: a list that is damaged is an error; otherwise it is taken as far as it can be read.

    Returns: the heads of the digests in it (see store/digests.py), sorted.
    Raises: Unreadable: a list is damaged; StationMissing: receipts/ is not there; OSError.
    """
    files = JobFiles(stations, job)
    done = [step.name for step in steps if step.state is StepState.DONE]
    heads: set[int] = set()
    listed = _all if whole else _as_far_as_readable
    made = ((s, listed(receipt.read_outputs(files.outputs(s)))) for s in done)
    try:
        receipt.write(
            path,
            job,
            entries=_noted(listed(_entries(files.manifest)), heads),
            outputs=((s, o) for s, outputs in made for o in _noted(outputs, heads)),
            locations=((s, o) for s in done for o in listed(receipt.read_locations(files.locations(s)))),
            events=events,
            steps=steps,
        )
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise stations.missing(path.parent.name) from error
    return sorted(heads)


def _entries(path: Path) -> Iterator[Entry]:
    with contextlib.suppress(FileNotFoundError):  # none was taken before the job ended
        yield from manifest.read(path, ignored=True)


_Item = TypeVar("_Item")


def _all(items: Iterator[_Item]) -> Iterator[_Item]:
    return items


def _as_far_as_readable(items: Iterator[_Item]) -> Iterator[_Item]:
    with contextlib.suppress(Unreadable):
        yield from items


def damaged(error: Unreadable, job: Job) -> Failure:
    """Return how a job has failed, a list of whose own cannot be read."""
    return Failure(
        what=f"a list that the daemon had written of this job cannot be read: {error.what}",
        where=error.where,
        hint=f"The folder itself is as it was. Run it again from the first step: dittohead rerun {job.id}",
    )


def _left_out(error: Unreadable) -> Event:
    return Event(
        type=EventType.VALIDATION,
        outcome="warning",
        detail=f"this receipt is not complete: {error}",
        agent=AGENT,
    )


_Listed = TypeVar("_Listed", Entry, Output)


def _noted(listed: Iterable[_Listed], heads: set[int]) -> Iterator[_Listed]:
    """Note the digests of files that are being listed: a folder of a million is not read twice."""
    for file in listed:
        if file.sha256:
            heads.add(digest_store.head(file.sha256))
        yield file


async def leave_processing(store: Store, stations: Stations, job: Job) -> None:
    """Move the folder of an ended job to done/ or failed/, and record where it lies.

    Harmless to repeat: a folder that has left processing/ is left where it is.

    Args:
        job: an ended job, as the store has it.
    """
    station = Station.DONE if job.state is JobState.DONE else Station.FAILED
    collection, folder = collection_of(job.folder), job.folder
    if collection:
        place = await batches.lies_under(store, stations, job, station)
        folder = place + folder.removeprefix(collection)

    def move() -> bytes:
        if stations.is_another(Station.PROCESSING, job.folder, job.ino):  # its own was moved before
            raise FileNotFoundError
        if station is Station.FAILED and not stations.exists(station, folder):
            stations.write_reason(folder, _reason_text(stations, job, folder))
            fail_points.point("finish.reason")
        name = stations.move_to(job.folder, station, to=folder)
        if station is Station.FAILED and name != folder:
            stations.write_reason(name, _reason_text(stations, job, name))
            if not stations.folder(
                station, folder
            ).is_dir():  # a file has taken the name: the reason of another
                stations.forget_reason(folder)
        return name

    try:
        name = await asyncio.to_thread(move)
    except FileNotFoundError:  # it has been moved before, by us or by an admin
        name = await asyncio.to_thread(stations.lies_as, station, folder, job.ino)
    fail_points.point("finish.moved")
    await store.write(job_store.moved, job.id, station, name)
    log.get().info(log.JOB_MOVED, station=station.value, folder=os.fsdecode(name))
    if collection:
        try:
            await batches.clear_up(store, stations, collection)
        except (StationError, OSError) as error:  # the comparison tries again
            log.get().error(log.JOB_STUCK, name=display(collection), error=str(error))


def _reason_text(stations: Stations, job: Job, folder: bytes) -> str:
    error = job.error or Failure(what=job.reason)
    # Of a collection all that failed: what is dropped is a collection again.
    source = shell_word(os.fsencode(stations.folder(Station.FAILED, collection_of(folder) or folder)))
    inbox = shell_word(os.fsencode(stations.path(Station.INBOX)))
    place = f"step {error.step}" if error.step else "the folder"
    lines = [
        f"{visible(job.name)} was not finished.",
        "",
        f"What:   {visible(error.what)}",
        f"Where:  {visible(error.where) or place}",
        f"Do:     {visible(error.hint) or 'Fix it, then try again.'}",
        "",
        *(_retry_lines(job) if job.definition.refusal is None else _rename_lines(job)),
        "To try again from the first step, move the folder back"
        + (", with all that failed of its collection:" if collection_of(folder) else ":"),
        f"    mv {source} {inbox}/",
        "",
        f"Job {job.id}, pipeline {job.pipeline or 'none'}, step {error.step or 'none'}.",
    ]
    return "\n".join(lines) + "\n"


def _retry_lines(job: Job) -> tuple[str, ...]:
    return (
        "To try again from the step that failed, with the folder as it is:",
        f"    dittohead retry {job.id}",
    )


def _rename_lines(job: Job) -> tuple[str, ...]:
    """Return how to rename a folder that no pipeline takes; no lines where that does not help."""
    if job.pipeline or job.batch:  # of a collection's folder no name chooses the pipeline
        return ()
    return ("To give it a name that fits, and run it:", f"    dittohead rename {job.id} NAME")


def remove_work(stations: Stations, job_id: str, *, but_manifest: bool = False) -> None:
    """Remove work/<job id>/ with all that is in it, or all but the manifest. Blocking; never leaves work/.

    Args:
        job_id: the job's id.
        but_manifest: keep the manifest, where there is one, and the other files beside it.
    """
    home = stations.work / job_id
    if home.parent != stations.work or not home.is_dir() or home.is_symlink():
        return
    if but_manifest and (home / MANIFEST).is_file():
        for directory in (entry for entry in home.iterdir() if entry.is_dir() and not entry.is_symlink()):
            shutil.rmtree(directory, ignore_errors=True)
    else:
        shutil.rmtree(home, ignore_errors=True)
