"""What a running step is given: its folders, its source, its recorders; one for each try."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Inputs, Made, StepContext
from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles, names_of, read_facts, read_released
from dittohead.model.definition import StepTotals
from dittohead.model.description import Described
from dittohead.model.errors import ItemError
from dittohead.model.events import Event
from dittohead.model.records import Job, Location, Output, StepRow
from dittohead.store import Store, history
from dittohead.store import jobs as job_store
from dittohead.system import log
from dittohead.system.files import empty, make_way, write_durably
from dittohead.system.limits import FairLimiter
from dittohead.system.process import environment


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
        waited_for: Collection[str],
        needed_by: Collection[str],
        store: Store,
        limiter: FairLimiter,
        secret: Callable[[str], str],
        report: Callable[[str, str, int, int, str], None],
    ) -> None:
        self.job_id, self.pipeline, self.step = job.id, job.pipeline, row.name
        self.name, self.batch = names_of(job.name)["name"], names_of(job.name).get("batch", "")
        self.payload, self.source = files.payload, source
        self.originals = files.source("", StepTotals())
        self.earlier = earlier
        self.attempt = row.attempts + 1
        self.claimed_at = job.claimed_at.timestamp()
        self.outside = files.outside(row.name)
        self.ledger = files.ledger(row.name)
        self.saved = row.saved
        self.written = job.definition.steps[row.position].options
        self.log = log.get()
        self.events: list[Event] = []
        self.fullness: list[tuple[str, float, int]] = []
        self.outputs = receipt.Recorder(files.outputs(row.name))
        self.locations = receipt.Recorder(files.locations(row.name))
        self._job, self._row, self._files, self._store = job, row, files, store
        self._others, self._describing, self._before = others, describing, before
        self._recorded, self._needed_by = frozenset({"", *waited_for}), frozenset(needed_by)
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

    async def history(self, *, earlier: bool = False) -> Sequence[Event]:
        if earlier:
            return await self._store.read(history.events_before, self._job)
        found = await self._store.read(job_store.events_of, self.job_id)
        return [event for event in found if event.step in self._recorded]

    async def release(self) -> None:
        made = self.source.made
        if made is None or self.source.released:
            return
        await self.fence()
        path, here = self._files.released(made.name), self.step
        await asyncio.to_thread(_release, path, made.root, here, self._needed_by)

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


def _release(path: Path, root: Path, step: str, needed_by: Collection[str]) -> None:
    """Note that a step needs files no more, and remove them when nobody does.

    # 1 note durably  2 remove: what is half removed is known to be gone
    """
    steps = read_released(path).steps | {step}
    gone = steps.issuperset(needed_by)
    write_durably(path, json.dumps({"steps": sorted(steps), "gone": gone}).encode())
    if gone:
        empty(root)
