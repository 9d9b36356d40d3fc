"""Take back what a job has created in systems outside: records and pages, where nobody has changed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dittohead import receipt
from dittohead.context import JobFiles
from dittohead.errors import DittoheadError, StepError
from dittohead.model import TERMINAL, Job
from dittohead.process import environment
from dittohead.recorded import Recorded, recorded
from dittohead.registry import Registry
from dittohead.stations import Stations
from dittohead.store import Store
from dittohead.store import jobs as job_store
from dittohead.worker import UndoContext, Worker


@dataclass
class Undone:
    """What became of each thing a job had created."""

    job: str
    steps: list[str] = field(default_factory=list)  #: those that know how to take something back
    gone: list[tuple[str, str]] = field(default_factory=list)  #: (uri, statement)
    kept: list[tuple[str, str]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing had to stay."""
        return not self.kept

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON fields."""
        return {
            "job": self.job,
            "good": self.good,
            "steps": self.steps,
            "gone": [{"uri": uri, "what": what} for uri, what in self.gone],
            "kept": [{"uri": uri, "what": what} for uri, what in self.kept],
        }


async def undo_job(
    job: Job,
    store: Store,
    stations: Stations,
    workers: Registry,
    secret: Callable[[str], str],
    *,
    dry_run: bool,
) -> Undone:
    """Have each step's worker take back what it created, the last step first.

    Raises: DittoheadError: the job is not over, or another of the folder is under way and takes what this
        one created for recorded, or none of its steps knows how.
    """
    if job.state not in TERMINAL:
        raise DittoheadError(
            f"{job.name} is not over ({job.state})", hint=f"First: dittohead cancel {job.id}"
        )
    active = [] if dry_run else await store.read(job_store.active)
    if other := next((one for one in active if one.name == job.name), None):
        raise DittoheadError(
            f"{other.name} is being done again ({other.id}), and goes by what this job created",
            hint=f"Wait until that is over, or: dittohead cancel {other.id}",
        )
    undone = Undone(job.id)
    steps = [step async for step in recorded(job, store, stations, workers)]
    for step in reversed(steps):
        if step.problem:
            undone.kept.append((f"step {step.row.name}", f"cannot be undone: {step.problem}"))
        elif type(step.worker).undo is not Worker.undo:
            undone.steps.append(step.row.name)
            await _undo(job, stations, step, secret, undone, dry_run=dry_run)
    if not undone.steps and not undone.kept:
        raise DittoheadError(
            f"no step of {job.name} can be undone: what they delivered stays",
            hint="Remove it where it lies; its places: dittohead show " + job.id,
        )
    return undone


async def _undo(
    job: Job,
    stations: Stations,
    step: Recorded,
    secret: Callable[[str], str],
    undone: Undone,
    *,
    dry_run: bool,
) -> None:
    files = JobFiles(stations, job)

    def locations() -> Any:
        path = receipt.path_of(stations.receipts, job)
        found = json.loads(path.read_bytes())["locations"] if path.exists() else []
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
    except (StepError, OSError) as error:
        report(False, f"step {step.row.name}", f"cannot be undone now: {error}")
