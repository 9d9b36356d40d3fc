"""Take back what a job has created in systems outside: records and pages, where nobody has changed them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from dittohead.admin.finished_steps import FinishedStep, recorded
from dittohead.config.registry import Registry
from dittohead.contract.worker import UndoContext, Worker
from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.receipt import RecordedLocation
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError
from dittohead.model.records import Job
from dittohead.model.shown import ShownUndo
from dittohead.model.states import TERMINAL, JobState
from dittohead.store import Store, history
from dittohead.store import jobs as job_store
from dittohead.system.process import environment


@dataclass
class UndoReport:
    """What became of each thing a job had created."""

    job: str
    steps: list[str] = field(default_factory=list)  #: those that know how to take something back
    gone: list[tuple[str, str]] = field(default_factory=list)  #: (uri, statement)
    kept: list[tuple[str, str]] = field(default_factory=list)
    #: earlier jobs of the folder that have the same records: one of them may have created them
    created_by: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing had to stay."""
        return not self.kept

    def as_dict(self) -> ShownUndo:
        """Return it as JSON fields."""
        return {
            "job": self.job,
            "good": self.good,
            "steps": self.steps,
            "gone": [{"uri": uri, "what": what} for uri, what in self.gone],
            "kept": [{"uri": uri, "what": what} for uri, what in self.kept],
            "created_by": self.created_by,
        }


async def undo_job(
    job: Job,
    store: Store,
    stations: Stations,
    workers: Registry,
    secret: Callable[[str], str],
    *,
    dry_run: bool,
    besides: Collection[str] = (),
) -> UndoReport:
    """Have each step's worker take back what it created, the last step first.

    Args:
        besides: jobs that are undone together with this one, and need not be asked about.

    Raises: DittoheadError: the job is not over, or another of the folder is under way or was done later and
        takes what this one created for recorded, or none of its steps knows how.
    """
    if job.state not in TERMINAL:
        raise DittoheadError(
            f"{job.name} is not over ({job.state})", hint=f"First: dittohead cancel {job.id}"
        )
    active = [] if dry_run else await store.read(job_store.active)
    if other := next((one for one in active if one.name == job.name), None):
        raise DittoheadError(
            f"{other.name} is being done again ({other.id}), and goes by what this job created",
            hint=f"Wait until that has ended, or: dittohead cancel {other.id}",
        )
    steps = [step async for step in recorded(job, store, stations, workers)]
    sharing = await _sharing(job, steps, store, stations)
    for other in sharing:
        if other.claimed_at > job.claimed_at and other.id not in besides:
            raise DittoheadError(
                f"{job.name} was done again since ({other.id}), and that job goes by what this one created",
                hint=f"Take back what all jobs of this name created: dittohead undo --all {job.id}",
            )
    undone = UndoReport(job.id, created_by=[other.id for other in sharing if other.id not in besides])
    for step in reversed(steps):
        if step.problem:
            undone.kept.append((f"step {step.row.name}", f"cannot be undone: {step.problem}"))
        elif _can_undo(step):
            undone.steps.append(step.row.name)
            await _undo(job, stations, step, secret, undone, dry_run=dry_run)
    if not undone.steps and not undone.kept:
        raise DittoheadError(
            f"no step of {job.name} can be undone: what they delivered stays",
            hint="Remove it where it lies; its places: dittohead show " + job.id,
        )
    return undone


async def undo_all(
    job: Job,
    store: Store,
    stations: Stations,
    workers: Registry,
    secret: Callable[[str], str],
    *,
    dry_run: bool,
) -> AsyncIterator[UndoReport]:
    """Undo every job of a name whose steps know how, the latest first.

    Args:
        job: any job of the name; only its name counts.
        secret: a credential by its file name. It raises ItemError where there is none.
        dry_run: report what would be removed, and change nothing.

    Returns: a report for each job that has a step to undo.
    Raises: DittoheadError: as `undo_job`; those before are undone then, and were yielded.
    """
    jobs = [one for one in await store.read(history.of_name, job.name) if one.state in TERMINAL]
    besides = {one.id for one in jobs}
    found = False
    for one in jobs:
        steps = [step async for step in recorded(one, store, stations, workers)]
        if any(step.problem or _can_undo(step) for step in steps):
            found = True
            yield await undo_job(one, store, stations, workers, secret, dry_run=dry_run, besides=besides)
    if not found:
        raise DittoheadError(f"no step of any job of {job.name} can be undone: what they delivered stays")


def _can_undo(step: FinishedStep) -> bool:
    return not step.problem and type(step.worker).undo is not Worker.undo


async def _sharing(job: Job, steps: list[FinishedStep], store: Store, stations: Stations) -> list[Job]:
    """Return other jobs of the same name that are done, were not undone, and have a record of this one's."""
    ours = await asyncio.to_thread(_records, stations, job, {s.row.name for s in steps if _can_undo(s)})
    found = []
    for other in await store.read(history.of_name, job.name) if ours else ():
        if other.id == job.id or other.state is not JobState.DONE:
            continue
        if await store.read(job_store.was_undone, other.id):
            continue
        if ours & await asyncio.to_thread(_records, stations, other, None):
            found.append(other)
    return found


def _records(stations: Stations, job: Job, steps: Collection[str] | None) -> set[str]:
    """Return the URIs of a job's locations that its steps (None: any) have recorded. Blocking."""
    return {fields["uri"] for fields in _located(stations, job) if steps is None or fields["step"] in steps}


def _located(stations: Stations, job: Job) -> list[RecordedLocation]:
    path = receipt.path_of(stations.receipts, job)
    try:
        return receipt.read(path)["locations"]
    except FileNotFoundError:
        return []


async def _undo(
    job: Job,
    stations: Stations,
    step: FinishedStep,
    secret: Callable[[str], str],
    undone: UndoReport,
    *,
    dry_run: bool,
) -> None:
    files = JobFiles(stations, job)

    def locations() -> Any:
        found = _located(stations, job)
        return (receipt.read_location(fields) for fields in found if fields["step"] == step.row.name)

    def report(gone: bool, uri: str, what: str) -> None:
        (undone.gone if gone else undone.kept).append((uri, what))

    context = UndoContext(
        job_id=job.id,
        ledger=files.ledger(step.row.name),
        locations=locations,
        env=environment(stations.root),
        secret=secret,
        dry_run=dry_run,
        report=report,
    )
    try:
        await step.worker.undo(context, step.options)
    except (DittoheadError, OSError) as error:
        report(False, f"step {step.row.name}", f"cannot be undone now: {error}")
