"""What would be done with a folder, step by step: a dry run of the current configuration on it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from dittohead.config.loader import Config, Pipeline, Step
from dittohead.config.registry import Registry
from dittohead.contract import placeholders
from dittohead.contract.worker import Inputs, Made, Options, Planned, StepContext, Worker
from dittohead.engine.claim import wanted
from dittohead.folders import manifest
from dittohead.folders.job_files import names_of
from dittohead.model.description import Described
from dittohead.model.errors import DittoheadError, StepError, TargetError, TransientError
from dittohead.model.events import Event
from dittohead.model.records import Entry, Location, Output
from dittohead.model.text import utcnow
from dittohead.system.process import environment
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import natural_order

#: Stands for the id of the job there is none of yet.
JOB = "JOB"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A folder as it would be claimed."""

    name: str
    pipeline: Pipeline
    purposes: frozenset[str]
    files: int
    size: int  #: bytes
    left_out: str  #: what no step would be given, in words
    steps: tuple[PlannedStep, ...]


@dataclass(kw_only=True)
class PlannedStep:
    """One step it would have."""

    name: str
    worker: str
    purpose: str
    needs: list[str]  #: the steps it would wait for
    target: str = ""
    found: Mapping[str, Any] | None = None  #: what its preflight found; None: it has none
    problem: str = ""  #: why it could not be done
    waits: bool = False  #: the problem is a place's: it would be waited for
    begun: bool = False  #: it would show only once steps had begun
    do: Callable[[], AsyncIterator[Planned]] | None = None  #: to be called in the steps' order


async def plan(
    config: Config, workers: Registry, secret: Callable[[str], str], folder: Path, name: str, scratch: Path
) -> Plan:
    """Take a folder's manifest and have every worker look; nothing is changed, here or outside.

    Args:
        folder: wherever it lies; it need not be in the inbox. A file stands for a folder that holds it.
        name: what it would be called there; COLLECTION/NAME for a folder of a collection.
        scratch: a directory for the manifest and what workers write nothing into.

    Raises: ItemError: it would go to failed/ before its first step.
    """
    matched = config.pipeline_for(name.rpartition("/")[0] or name)
    if matched is None:
        raise config.no_pipeline(name, "Give another with --as,")
    pipeline, values = matched
    only = os.fsencode(folder.name) if folder.is_file() else b""
    purposes = wanted(pipeline, values, None if only else folder)
    definition = pipeline.definition(purposes)
    listed, root = scratch / "manifest.jsonl", folder.parent if only else folder

    def take(stop: Stop) -> manifest.Totals:
        links, ignore = definition.skips_links, definition.ignore
        return manifest.take(root, listed, stop=stop, skip_specials=links, ignore=ignore, only=only)

    totals = await in_thread(take)
    if totals.files == 0:
        raise manifest.nothing_in(totals, str(folder))
    shared = _Shared(
        folder=root,
        name=name,
        pipeline=pipeline,
        values=values,
        listed=listed,
        scratch=scratch,
        secret=secret,
        totals=totals,
        workers=workers,
    )
    known = {step.name: step for step in pipeline.steps}
    for step in definition.steps:  # that they will make something is known before all of them look
        shared.made[step.name] = _nothing_yet(shared, known[step.name])
    steps = {step.name: list(step.needs or ()) for step in definition.steps}
    # As the pipeline has them look: those first that find out what the folder holds.
    first = sorted(steps, key=lambda name: not workers.get(known[name].worker).describes)
    made = {name: await _foreseen(shared, known[name], steps[name]) for name in first}
    return Plan(
        name=name,
        pipeline=pipeline,
        purposes=purposes,
        files=totals.files,
        size=totals.size,
        left_out=totals.left_out,
        steps=tuple(made[name] for name in steps),
    )


def _nothing_yet(shared: _Shared, step: Step) -> Made:
    return Made(
        name=step.name,
        worker=step.worker,
        source=step.source,
        root=shared.scratch / "work" / step.name,
        outputs=lambda: iter(()),
        locations=lambda: iter(()),
    )


@dataclass(kw_only=True)
class _Shared:
    folder: Path
    name: str
    pipeline: Pipeline
    values: Mapping[str, str]
    listed: Path
    scratch: Path
    secret: Callable[[str], str]
    totals: manifest.Totals
    workers: Registry
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)

    @property
    def originals(self) -> Inputs:
        return Inputs(
            root=self.folder,
            entries=lambda: manifest.read(self.listed),
            files=self.totals.files,
            size=self.totals.size,
        )

    @functools.cached_property
    def ordered(self) -> Inputs:
        """The same, page by page, for people to read what would be done."""
        found = sorted(manifest.read(self.listed), key=lambda entry: natural_order.key(entry.path))
        return dataclasses.replace(self.originals, entries=lambda: iter(found))


async def _foreseen(shared: _Shared, step: Step, needs: list[str]) -> PlannedStep:
    worker = shared.workers.get(step.worker)
    made = PlannedStep(name=step.name, worker=step.worker, purpose=step.purpose, needs=needs)
    context = _Context(shared, step)
    values = {
        **shared.values,
        **names_of(shared.name),
        "id": JOB,
        "date": utcnow().strftime("%Y-%m-%d"),
        "payload": str(shared.folder),
        "source": str(shared.scratch / "work" / step.source if step.source else shared.folder),
        "work": str(context.work),
    }
    try:
        filled = placeholders.render_options(step.options, values, worker)
        options = worker.Options.model_validate(filled)
        made.target = worker.target(options)
        made.do = lambda: _do(shared, context, worker, options)
        if type(worker).preflight is not Worker.preflight:
            made.found = await worker.preflight(context, options)
            shared.facts[step.name] = json.loads(json.dumps(dict(made.found)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        made.problem = f"option {'.'.join(map(str, first['loc']))} does not fit this folder: {first['msg']}"
    except StepError as error:
        made.problem = str(error)
        made.waits = isinstance(error, (TargetError, TransientError))
    return made


async def _do(
    shared: _Shared, context: _Context, worker: Worker[Any], options: Options
) -> AsyncIterator[Planned]:
    """Yield what a step would do; what it would make is kept for those that come after."""
    context.originals = await asyncio.to_thread(lambda: shared.ordered)
    async for planned in worker.plan(context, options):
        yield planned
    shared.made[context.step] = Made(
        name=context.step,
        worker=worker.name,
        source=context.taken,
        root=context.work,
        outputs=lambda: iter(context.outputs),
        locations=lambda: iter(context.locations),
    )


class _Context(StepContext):
    """A step's context for planning: it reads, and keeps what is said in memory."""

    dry_run = True

    def __init__(self, shared: _Shared, step: Step) -> None:
        self._shared = shared
        self.job_id, self.pipeline = JOB, shared.pipeline.name
        self.name, self.batch = names_of(shared.name)["name"], names_of(shared.name).get("batch", "")
        self.step, self.taken = step.name, step.source
        self.payload = shared.folder
        self.work = shared.scratch / "work" / step.name
        self.earlier = ()
        self.attempt = 1
        self.claimed_at = time.time()
        self.outside = shared.scratch / "none" / step.name
        self.ledger = shared.scratch / "none" / f"{step.name}.ledger"
        self.saved = {}
        self.written = step.options
        self.log = structlog.get_logger()
        self.env = environment(shared.scratch)
        self.originals = shared.originals
        self.outputs: list[Output] = []
        self.locations: list[Location] = []

    @property
    def source(self) -> Inputs:  # type: ignore[override]  # known when the step it takes from has been planned
        """The folder's files, or what the step it takes from said it would make."""
        made = self._shared.made.get(self.taken)
        if not self.taken:
            return self.originals
        outputs = list(made.outputs()) if made is not None else []

        def entries() -> Iterator[Entry]:
            return (Entry(path=o.path, size=o.size, sha256=o.sha256) for o in outputs)

        return Inputs(
            root=self._shared.scratch / "work" / self.taken,
            entries=entries,
            files=len(outputs),
            size=sum(o.size for o in outputs),
            made=made,
        )

    def made_by(self, step: str) -> Made | None:
        return self._shared.made.get(step)

    def facts(self, step: str) -> Mapping[str, Any]:
        return self._shared.facts.get(step, {})

    def described(self, step: str = "") -> Described:
        names = [step] if step else [s.name for s in self._shared.pipeline.steps]
        for name in names:
            if "described" in self.facts(name):
                return Described.model_validate(self.facts(name)["described"])
        return Described.nameless(self.name)

    async def save(self, state: dict[str, Any]) -> None:
        """Nothing is kept of a plan."""

    async def fence(self) -> None:
        raise DittoheadError("a plan writes nothing", where=f"step {self.step}")

    def progress(self, done: int, total: int, unit: str) -> None:
        """Nobody watches."""

    def output(self, output: Output) -> None:
        self.outputs.append(output)

    def location(self, location: Location) -> None:
        self.locations.append(location)

    def event(self, event: Event) -> None:
        """Nothing happens."""

    def full(self, target: str, used: float, capacity: int) -> None:
        """Nobody is told."""

    def spare_slot(self) -> AbstractAsyncContextManager[None] | None:
        return None

    @property
    def contended(self) -> bool:
        return False

    def log_file(self) -> Path:
        return self._shared.scratch / f"{self.step}.log"

    def secret(self, name: str) -> str:
        return self._shared.secret(name)
