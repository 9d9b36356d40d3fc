"""The steps of an ended job, each with its worker and the options it had: to check or to undo them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dittohead.config.registry import Registry
from dittohead.contract import placeholders
from dittohead.contract.worker import Options, Worker
from dittohead.folders.job_files import JobFiles, values_of
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError
from dittohead.model.records import Job, StepRow
from dittohead.store import Store
from dittohead.store import jobs as job_store


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """One step as it was done."""

    row: StepRow
    worker: Worker[Any]
    options: Options
    source: str  #: the step it took from; "" for the payload
    problem: str = ""  #: why its worker cannot be asked; worker and options then mean nothing


async def recorded(
    job: Job, store: Store, stations: Stations, workers: Registry
) -> AsyncIterator[FinishedStep]:
    """Yield the steps of a job in their order, each with its worker and the options it had.

    Args:
        job: the job, over or not; its own definition counts, and not the current configuration.
        workers: the kinds of step that are installed now.

    Raises: StoreError. A step whose worker is missing or refuses its options is yielded with `problem`.
    """
    files = JobFiles(stations, job)
    for row in await store.read(job_store.steps_of, job.id):
        try:
            step = job.definition.steps[row.position]
            worker = workers.get(row.worker)
            filled = placeholders.render_options(step.options, values_of(job, files, row.name), worker)
            options = worker.Options.model_validate(filled)
        except (LookupError, DittoheadError, ValidationError) as error:
            nothing: Any = None
            yield FinishedStep(row=row, worker=nothing, options=nothing, source="", problem=str(error))
        else:
            yield FinishedStep(row=row, worker=worker, options=options, source=step.source)
