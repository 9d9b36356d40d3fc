"""The files of a job beside its folder: what lies in work/<job id>/ and in state/, and how it is called."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Inputs, Made
from dittohead.folders import manifest, receipt
from dittohead.folders.stations import Stations
from dittohead.model.definition import StepTotals
from dittohead.model.errors import Unreadable
from dittohead.model.records import Entry, Job, StepRow
from dittohead.model.states import Station, StepState
from dittohead.system import own_files

#: The manifest's name in work/<job id>/.
MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class JobFiles:
    """Where a job's files lie: work/<job id>/ and what is in it."""

    stations: Stations
    job: Job

    @cached_property
    def payload(self) -> Path:
        """The folder itself, in processing/."""
        return self.stations.folder(Station.PROCESSING, self.job.folder)

    @cached_property
    def home(self) -> Path:
        """work/<job id>/."""
        return self.stations.work / self.job.id

    @cached_property
    def manifest(self) -> Path:
        """The manifest taken at the claim."""
        return self.home / MANIFEST

    def work(self, step: str) -> Path:
        """Return the directory a step makes things in; step names hold no dot."""
        return self.home / step

    def earlier(self, step: str, jobs: Sequence[str]) -> list[Path]:
        """Return the directories this step made things in, in other jobs, where they still are."""
        found = (self.stations.work / job / step for job in jobs)
        return [path for path in found if path.is_dir()]

    def outputs(self, step: str) -> Path:
        """Return the list of what a step made."""
        return self.home / f"{step}.outputs.jsonl"

    def locations(self, step: str) -> Path:
        """Return the list of what a step delivered."""
        return self.home / f"{step}.locations.jsonl"

    def outside(self, step: str) -> Path:
        """Return the notes of what a step has begun outside; they outlive work/."""
        return self.stations.state / "outside" / f"{self.job.id}.{step}.jsonl"

    def ledger(self, step: str) -> Path:
        """Return the notes of what a step has created outside; they outlive work/."""
        return self.stations.state / "ledger" / f"{self.job.id}.{step}.jsonl"

    def facts(self, step: str) -> Path:
        """Return what a step's preflight has found."""
        return self.home / f"{step}.facts.json"

    def log(self, step: str) -> Path:
        """Return what a step's programs printed."""
        return self.home / f"{step}.log"

    def source(self, step: str, result: StepTotals) -> Inputs:
        """Return the files of an earlier step's output, or with step "" of the payload."""
        if not step:
            return Inputs(
                root=self.payload,
                entries=lambda: manifest.read(self.manifest),
                files=self.job.files,
                size=self.job.size,
            )
        path = self.outputs(step)
        return Inputs(
            root=self.work(step),
            entries=lambda: _entries(path),
            files=result.outputs,
            size=result.size,
        )

    def results(self, step: StepRow, source: str) -> Made:
        """Return what a step that is done has made and delivered; it took from the step `source`."""
        return Made(
            name=step.name,
            worker=step.worker,
            source=source,
            root=self.work(step.name),
            outputs=lambda: receipt.read_outputs(self.outputs(step.name)),
            locations=lambda: receipt.read_locations(self.locations(step.name)),
        )

    def links(self, steps: Iterable[StepRow]) -> list[tuple[str, str]]:
        """Return (use, URI) of each record, page, thumbnail and manifest that steps have made. Blocking."""
        found = []
        for step in steps:
            if step.state is StepState.DONE:
                with contextlib.suppress(Unreadable, OSError):  # it is only shown
                    places = receipt.read_locations(self.locations(step.name))
                    found += [(place.use, place.uri) for place in places if place.use]
        return found

    def released(self, step: str) -> Path:
        """Return the list of the steps that need what a step made no more; see `StepContext.release`."""
        return self.home / f"{step}.released.json"

    def lost(self, step: StepRow, needed_by: Collection[str] = ()) -> bool:
        """Tell whether a step that is done made files that are no longer there.

        Args:
            step: the step.
            needed_by: the steps that are not done and take these files. Where files were let go, only those
                that have agreed to it may be left.
        """
        if not step.result.outputs:
            return False
        if not (self.outputs(step.name).exists() and self.work(step.name).is_dir()):
            return True
        agreed = read_released(self.released(step.name))
        return agreed.gone and not agreed.steps.issuperset(needed_by)


def _entries(path: Path) -> Iterator[Entry]:
    for output in receipt.read_outputs(path):
        yield Entry(path=output.path, size=output.size, sha256=output.sha256)


@dataclass(frozen=True)
class Released:
    """Who needs what a step made no more."""

    steps: frozenset[str] = frozenset()
    gone: bool = False  #: the files are removed, or are about to be


def read_released(path: Path) -> Released:
    """Return who has let a step's files go. Blocking, but short. Raises: Unreadable."""
    try:
        told = own_files.document(path, own_files.mapping)
    except FileNotFoundError:
        return Released()
    return Released(frozenset(told["steps"]), bool(told["gone"]))


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a preflight has found; {} when it has not run. Blocking, but short."""
    try:
        return own_files.document(path, own_files.mapping)
    except FileNotFoundError:
        return {}


def has_facts(path: Path) -> bool:
    """Tell whether what a preflight has left can be read; if not, it looks again. Blocking, but short."""
    try:
        own_files.document(path, own_files.mapping)
    except (FileNotFoundError, Unreadable):
        return False
    return True


def values_of(job: Job, files: JobFiles, step: str) -> dict[str, str]:
    """Return what the placeholders of a step's options stand for, by name without braces.

    Args:
        files: the job's directories, for `{payload}`, `{work}` and `{source}`.
        step: the step's name.
    """
    had = job.definition.step(step)
    source = had.source if had is not None else ""
    return {
        **job.values,
        **names_of(job.name),
        "id": job.id,
        "date": job.claimed_at.astimezone(UTC).strftime("%Y-%m-%d"),
        "payload": str(files.payload),
        "work": str(files.work(step)),
        "source": str(files.work(source) if source else files.payload),
    }


def names_of(name: str) -> dict[str, str]:
    """Return what {name}, and {batch} for a folder of a collection, stand for in a job."""
    collection, _, own = name.rpartition("/")
    return {"name": own, **({"batch": collection} if collection else {})}
