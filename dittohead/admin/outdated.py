"""Which finished folders would do otherwise under the current configuration, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dittohead.config.loader import Config, Step
from dittohead.config.registry import Registry
from dittohead.contract import placeholders
from dittohead.contract.worker import Recipe
from dittohead.folders.job_files import JobFiles, values_of
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError
from dittohead.model.records import Job, StepRow
from dittohead.model.states import Station, StepState
from dittohead.store import Store, history
from dittohead.store import jobs as job_store
from dittohead.system.patterns import TooSlow


@dataclass(frozen=True, kw_only=True)
class OutdatedJob:
    """One folder in done/, compared with what would be done to it today."""

    job: Job
    changes: list[str] = field(default_factory=list)  #: such as "convert: quality 85 -> 90"
    tools: list[str] = field(default_factory=list)  #: such as "convert: libvips 8.14.1 -> 8.16.0"


def compare(
    config: Config, pipeline: str, workers: Registry, store: Store, stations: Stations
) -> Iterator[OutdatedJob]:
    """Yield a finding for each folder in done/ that a pipeline has processed, by name. Blocking.

    Args:
        config: the current configuration, to which each job's own definition is compared.
        pipeline: the pipeline's name.
        workers: the kinds of step that are installed now.
        store: only read.
        stations: only looked at; a folder that is no longer in done/ is passed over.

    Raises: StoreError.
    """
    for job in store.run(history.latest_done, pipeline):
        if stations.exists(Station.DONE, job.folder):
            yield _finding(config, workers, stations, job, store.run(job_store.steps_of, job.id))


def _finding(
    config: Config, workers: Registry, stations: Stations, job: Job, rows: list[StepRow]
) -> OutdatedJob:
    try:
        matched = config.pipeline_for(job.name)
    except TooSlow as error:
        return OutdatedJob(job=job, changes=[error.what])
    if matched is None:
        return OutdatedJob(job=job, changes=["no pipeline fits its name any more"])
    pipeline, values = matched
    if pipeline.name != job.pipeline:
        return OutdatedJob(job=job, changes=[f"its name fits the pipeline {pipeline.name} now"])
    finding = OutdatedJob(job=job)
    today = dataclasses.replace(job, values=values)
    known = {row.name: row for row in rows if row.state is StepState.DONE}
    names = {step.name for step in pipeline.definition(job.definition.purposes).steps}
    for step in pipeline.steps:
        if step.name not in names:
            continue  # nobody asked for it
        row = known.get(step.name)
        if row is None:
            finding.changes.append(f"{step.name}: is new")
        elif row.worker != step.worker:
            finding.changes.append(f"{step.name}: {row.worker} -> {step.worker}")
        else:
            _compare_step(finding, workers, step, today, JobFiles(stations, today), row)
    return finding


def _compare_step(
    finding: OutdatedJob, workers: Registry, step: Step, job: Job, files: JobFiles, row: StepRow
) -> None:
    try:
        recipe = _recipe(workers, step, job, files)
    except (ItemError, ValidationError) as error:
        finding.changes.append(f"{step.name}: {str(error).splitlines()[0]}")
        return
    if recipe is None:
        return
    before = row.result.recipe
    if before is None:
        finding.changes.append(f"{step.name}: how it was done is not recorded")
        return
    today = recipe.as_dict()
    finding.changes.extend(_differences(step.name, before["settings"], today["settings"]))
    finding.tools.extend(_differences(step.name, before["tools"], today["tools"]))


def _recipe(workers: Registry, step: Step, job: Job, files: JobFiles) -> Recipe | None:
    worker = workers.get(step.worker)
    filled = placeholders.render_options(step.options, values_of(job, files, step.name), worker)
    return worker.recipe(worker.Options.model_validate(filled))


def _differences(step: str, before: Mapping[str, Any], today: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(before.keys() | today.keys()):
        old, new = before.get(key, "unset"), today.get(key, "unset")
        if old != new:
            yield f"{step}: {key} {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
