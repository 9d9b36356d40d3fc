"""What a running step is given: its folders, its source, its recorders; one for each try."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Inputs, Made, StepContext
from dittohead.folders import manifest, receipt
from dittohead.folders.stations import Stations
from dittohead.model import Entry, Event, Job, Location, Output, Station, StepRow, StepState
from dittohead.model.description import Described
from dittohead.model.errors import ItemError, Unreadable
from dittohead.store import Store
from dittohead.store import jobs as job_store
from dittohead.system import log, own_files
from dittohead.system.files import make_way
from dittohead.system.limits import FairLimiter
from dittohead.system.process import environment

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

    def source(self, step: str, result: dict[str, Any]) -> Inputs:
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
            files=result.get("outputs", 0),
            size=result.get("bytes", 0),
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

    def lost(self, step: StepRow) -> bool:
        """Tell whether a step that is done made files that are no longer there."""
        return bool(step.result.get("outputs")) and not (
            self.outputs(step.name).exists() and self.work(step.name).is_dir()
        )


def _entries(path: Path) -> Iterator[Entry]:
    for output in receipt.read_outputs(path):
        yield Entry(path=output.path, size=output.size, sha256=output.sha256)


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a preflight has found; {} when it has not run. Blocking, but short."""
    try:
        return own_files.document(path, own_files.mapping)
    except FileNotFoundError:
        return {}


def has_facts(path: Path) -> bool:
    """Tell whether a preflight has left what can be read; else it is to look again. Blocking, but short."""
    try:
        own_files.document(path, own_files.mapping)
    except (FileNotFoundError, Unreadable):
        return False
    return True


def values_of(job: Job, files: JobFiles, step: str) -> dict[str, str]:
    """Return what the placeholders of a step's options stand for."""
    source = next((given["from"] for given in job.definition["steps"] if given["name"] == step), "")
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


class Context(StepContext):
    """One try of one step."""

    def __init__(
        self,
        *,
        job: Job,
        row: StepRow,
        files: JobFiles,
        source: Inputs,
        others: Mapping[str, Made],
        describing: str,
        earlier: Sequence[Path],
        before: Callable[[], Awaitable[Sequence[str]]],
        store: Store,
        limiter: FairLimiter,
        secret: Callable[[str], str],
        report: Callable[[str, str, int, int, str], None],
    ) -> None:
        self.job_id, self.pipeline, self.step = job.id, job.pipeline, row.name
        self.name, self.batch = names_of(job.name)["name"], names_of(job.name).get("batch", "")
        self.payload, self.source = files.payload, source
        self.originals = files.source("", {})
        self.earlier = earlier
        self.attempt = row.attempts + 1
        self.claimed_at = job.claimed_at.timestamp()
        self.outside = files.outside(row.name)
        self.ledger = files.ledger(row.name)
        self.saved = row.saved
        self.written = job.definition["steps"][row.position]["options"]
        self.log = log.get()
        self.events: list[Event] = []
        self.fullness: list[tuple[str, float, int]] = []
        self.outputs = receipt.Recorder(files.outputs(row.name))
        self.locations = receipt.Recorder(files.locations(row.name))
        self._job, self._row, self._files, self._store = job, row, files, store
        self._others, self._describing, self._before = others, describing, before
        self._limiter, self._secret, self._report = limiter, secret, report

    @cached_property
    def env(self) -> dict[str, str]:  # type: ignore[override]  # made when it is first asked for
        """The environment for child processes."""
        return environment(self._files.stations.root)

    @cached_property
    def work(self) -> Path:  # type: ignore[override]  # made when it is first asked for
        """work/<job id>/<step>/."""
        path = self._files.work(self.step)
        path.mkdir(exist_ok=True)  # not its parents: where work/ was moved away, that is to be seen
        return path

    def made_by(self, step: str) -> Made | None:
        return self._others.get(step)

    def facts(self, step: str) -> Mapping[str, Any]:
        return read_facts(self._files.facts(step))

    def described(self, step: str = "") -> Described:
        found = self.facts(step or self._describing).get("described") if step or self._describing else None
        return Described.nameless(self.name) if found is None else Described.model_validate(found)

    async def came_before(self) -> bool:
        return bool(await self._before())

    async def save(self, state: dict[str, Any]) -> None:
        await self._store.write(job_store.save_step, self.job_id, self._job.token, self._row.position, state)
        self.saved = state

    async def fence(self) -> None:
        await self._store.read(job_store.check_token, self.job_id, self._job.token)

    def progress(self, done: int, total: int, unit: str) -> None:
        self._report(self.job_id, self.step, done, total, unit)

    def output(self, output: Output) -> None:
        self.outputs.add(receipt.output_fields(output))

    def location(self, location: Location) -> None:
        self.locations.add(receipt.location_fields(location))

    def event(self, event: Event) -> None:
        self.events.append(dataclasses.replace(event, step=self.step))

    def full(self, target: str, used: float, capacity: int) -> None:
        self.fullness.append((target, used, capacity))

    def spare_slot(self) -> AbstractAsyncContextManager[None] | None:
        return self._limiter.spare(self._job.uid)

    @property
    def contended(self) -> bool:
        return self._limiter.contended

    def log_file(self) -> Path:
        path = self._files.log(self.step)
        make_way(path)
        return path

    def secret(self, name: str) -> str:
        try:
            return self._secret(name)
        except ItemError as error:
            hint = f"{error.hint}, then: dittohead retry {self.job_id}"
            raise ItemError(error.what, where=f"step {self.step}", hint=hint) from error

    def close(self, *, durable: bool) -> None:
        """Finish the result files. Blocking when durable."""
        self.outputs.close(durable=durable)
        self.locations.close(durable=durable)
