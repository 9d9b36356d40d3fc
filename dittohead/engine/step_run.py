"""One step of a job's run: prepared, tried, recorded; and its worker's preflight before all steps."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dittohead.contract import placeholders
from dittohead.contract.worker import (
    Done,
    Freeze,
    Made,
    Options,
    Recipe,
    Remake,
    StepResult,
    Wait,
    Worker,
)
from dittohead.engine.context import Context
from dittohead.engine.engine import Engine
from dittohead.folders.job_files import JobFiles, read_released, values_of
from dittohead.model import step_graph
from dittohead.model.definition import StepDefinition, StepTotals
from dittohead.model.errors import ItemError
from dittohead.model.records import Job, JobId, StepRow
from dittohead.model.states import JobState, StepState
from dittohead.store import history
from dittohead.store import jobs as job_store
from dittohead.store.columns import DamagedJson
from dittohead.system import fail_points, log
from dittohead.system.files import durable_file, fsync_dir


class RunState:
    """What the steps of one run share: the job, how far it is, where its files lie."""

    def __init__(self, engine: Engine, job: Job, steps: list[StepRow]) -> None:
        self.engine, self.job, self.steps = engine, job, steps
        self.files = JobFiles(engine.stations, job)
        self.needs = step_graph.needs(job.definition)
        self.busy: set[int] = set()  #: steps that are running or laid aside in this run
        self._earlier: list[JobId] | None = None

    def replace_job(self, **changes: Any) -> None:
        """Take over what was learnt of the job."""
        self.job = replace(self.job, **changes)
        self.files = JobFiles(self.engine.stations, self.job)

    async def earlier(self) -> list[JobId]:
        """Return the latest jobs of this name that have ended; the store is asked once a run."""
        if self._earlier is None:
            self._earlier = await self.engine.store.read(history.earlier, self.job)
        return self._earlier

    def needing(self, step: str) -> list[str]:
        """Return the steps that are not done and wait for a step: they may take what it made."""
        at = {row.position for row in self.steps if row.name == step}
        return [
            row.name
            for row in self.steps
            if row.state is not StepState.DONE and self.needs[row.position] & at
        ]

    def describing(self) -> str:
        """Return the first step that finds out what is known of the folder's objects, "" for none."""
        return next((row.name for row in self.steps if StepRun(self, row.position).describes), "")


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """Why a step does not go on for now."""

    state: JobState  #: WAITING, PAUSED or FROZEN
    reason: str
    #: by `time.monotonic`, as the system's clock may be set; None: when its target is resumed, or thawed
    due: float | None
    target: str = ""

    @property
    def wake_at(self) -> float | None:
        """When it is to go on, seconds since the epoch; None: when its target is resumed."""
        return None if self.due is None else time.time() + self.due - time.monotonic()


class StepRun:
    """One step in one run of its job."""

    def __init__(self, run_state: RunState, index: int) -> None:
        self.run_state, self.index = run_state, index
        self.target = ""
        self.room = ""  #: the part of the target that may be full alone

    @property
    def row(self) -> StepRow:
        """What the store knows of it."""
        return self.run_state.steps[self.index]

    @property
    def name(self) -> str:
        """The step's name."""
        return self.row.name

    @property
    def _given(self) -> StepDefinition:
        return self.run_state.job.definition.steps[self.index]

    async def run(self) -> SetAside | None:
        """Try the step; return why it does not go on, None when it is done and recorded.

        Raises: whatever the worker does; Superseded, StoreError.
        """
        engine, job = self.run_state.engine, self.run_state.job
        if (aside := self.waits()) is not None:
            return aside
        worker, options = self._prepare()
        if (aside := self._paused(worker, options)) is not None:
            await self.lay_aside({"error": aside.reason, "target": aside.target}, tried=False)
            return aside
        async with engine.runner.slot(self.row.worker, job.uid):
            if self.row.state is not StepState.RUNNING:
                await engine.store.write(job_store.start_step, job.id, job.token, self.index)
                self._now(StepState.RUNNING)
            try:
                context, result, seconds = await self._attempt(worker, options)
            finally:
                engine.step_over(job.id, self.name)
        # The slot is for the work; the next one need not wait for this one's commit.
        with log.bind(step=self.name, attempt=context.attempt):
            if isinstance(result, Wait):
                context.close(durable=False)
                return await self._wait(result, context)
            if isinstance(result, Freeze):
                context.close(durable=False)
                return await self._freeze(result, context)
            if isinstance(result, Remake):
                context.close(durable=False)
                return await self._remake(result, context)
            await self._done(result, context, seconds, worker.recipe(options))
        return None

    async def preflight(self) -> SetAside | None:
        """Have the worker look before any step begins; return why it cannot now.

        Raises: whatever the worker does; Superseded, StoreError.
        """
        job = self.run_state.job
        if (aside := self.waits()) is not None:
            return aside
        worker, options = self._prepare()
        if (aside := self._paused(worker, options)) is not None:
            await self.lay_aside({"error": aside.reason, "target": aside.target}, tried=False)
            return aside
        runner = self.run_state.engine.runner
        async with runner.slot(self.row.worker, job.uid):
            with log.bind(step=self.name):
                context = await self._context(worker, before_all=True)
                facts = await runner.preflight(worker, options, context)
        await asyncio.to_thread(_keep_facts, self.run_state.files.facts(self.name), dict(facts))
        if self.row.attempts and self.row.started_at is None:  # those were of looking
            await self.lay_aside({"attempts": 0}, tried=False)
            self._now(StepState.WAITING, attempts=0)
        if self.target:
            await self.run_state.engine.targets.resume(self.target)
        return None

    @property
    def has_preflight(self) -> bool:
        """Whether its worker has something to look for before all steps."""
        worker = self._known()
        return worker is not None and type(worker).preflight is not Worker.preflight

    @property
    def describes(self) -> bool:
        """Whether its worker finds out what is known of the folder's objects."""
        worker = self._known()
        return worker is not None and worker.describes

    def _known(self) -> Worker[Any] | None:
        workers = self.run_state.engine.workers
        return workers.get(self.row.worker) if self.row.worker in workers.names() else None

    async def again(self) -> None:
        """Take over what the store knows of the step since it was put off, to try it again in this run."""
        steps = await self.run_state.engine.store.read(job_store.steps_of, self.run_state.job.id)
        self.run_state.steps[self.index] = steps[self.index]

    def waits(self) -> SetAside | None:
        """Return why the step is not to be tried yet: an earlier run has put it off."""
        row = self.row
        if row.wake_at is None or (left := row.wake_at.timestamp() - time.time()) <= 0:
            return None
        return SetAside(state=JobState.WAITING, reason=row.error, due=time.monotonic() + left)

    def _paused(self, worker: Worker[Any], options: Options) -> SetAside | None:
        self.target, self.room = worker.target(options), worker.room(options, self._given.options)
        targets = self.run_state.engine.targets
        for name in filter(None, (self.target, self.room)):
            if not targets.may_try(name, self.run_state.job.id):
                why = targets.paused(name) or ""
                return SetAside(state=JobState.PAUSED, reason=why, due=None, target=name)
        return None

    async def lay_aside(self, changes: dict[str, Any], *, tried: bool = True, **more: Any) -> None:
        """Record that the step is put off, beside others that may go on.

        Args:
            changes: of the step's row.
            tried: it has run, and the daemon lives.
        """
        job = self.run_state.job
        changes = {"state": StepState.WAITING.value, "wake_at": None, "target": "", **changes}
        if tried:
            changes["crashes"] = 0
        await self.run_state.engine.store.write(
            job_store.put_off_step, job.id, job.token, self.index, changes, **more
        )
        self._now(StepState.WAITING)
        if tried:
            self.run_state.engine.suspects.step_over(job.id, self.index)

    def _now(self, state: StepState, **changes: Any) -> None:
        self.run_state.steps[self.index] = replace(self.row, state=state, **changes)

    # -- a try -------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Worker[Any], Options]:
        job, workers = self.run_state.job, self.run_state.engine.workers
        try:
            worker = workers.get(self.row.worker)
        except KeyError as error:
            raise ItemError(
                f'the worker "{self.row.worker}" is not installed any more',
                hint=f"Install its package, then: dittohead retry {job.id}",
            ) from error
        values = values_of(job, self.run_state.files, self.name)
        filled = placeholders.render_options(self._given.options, values, worker)
        try:
            return worker, worker.Options.model_validate(filled)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ItemError(
                f"option {'.'.join(map(str, first['loc']))} does not fit this folder: {first['msg']}",
                where=f"step {self.name}",
                hint="Change the option, or the name that is filled in there; then run the folder again",
            ) from error

    async def _context(self, worker: Worker[Any], *, before_all: bool = False) -> Context:
        run_state, engine = self.run_state, self.run_state.engine
        if isinstance(
            self.row.saved, DamagedJson
        ):  # it may have asked somebody outside: not to be asked twice
            raise ItemError(
                "what this step had noted of itself in the store cannot be read any more",
                where=f"step {self.name}",
                hint="See what it has begun outside; then run the folder again: "
                f"dittohead rerun {run_state.job.id}",
            )
        source = self._given.source
        taken = next((row.result for row in run_state.steps if row.name == source), StepTotals())
        before = await run_state.earlier() if worker.makes_outputs else []
        made = self._made(before_all=before_all)
        return Context(
            job=run_state.job,
            row=self.row,
            files=run_state.files,
            source=replace(
                run_state.files.source(source, taken),
                made=made.get(source),
                released=self._is_released(source),
            ),
            others=made,
            describing=run_state.describing(),
            earlier=run_state.files.earlier(self.name, before),
            before=run_state.earlier,
            waited_for={run_state.steps[at].name for at in step_graph.before(run_state.needs, self.index)},
            needed_by=run_state.needing(source),
            store=engine.store,
            limiter=engine.limits[self.row.worker],
            secret=engine.secret,
            report=engine.report,
        )

    def _is_released(self, source: str) -> bool:
        return bool(source) and read_released(self.run_state.files.released(source)).gone

    def _made(self, *, before_all: bool) -> dict[str, Made]:
        """Return what the steps that are done have made; before all of them, nothing yet of each."""
        given = self.run_state.job.definition.steps
        return {
            row.name: self.run_state.files.results(row, given[row.position].source)
            for row in self.run_state.steps
            if before_all or row.state is StepState.DONE
        }

    async def _attempt(self, worker: Worker[Any], options: Options) -> tuple[Context, StepResult, float]:
        context = await self._context(worker)
        # What this step made may have been let go; it is there again from now on.
        await asyncio.to_thread(self.run_state.files.released(self.name).unlink, missing_ok=True)
        with log.bind(step=self.name, attempt=context.attempt):
            log.get().info(log.STEP_STARTED, worker=self.row.worker)
            started = time.monotonic()
            try:
                result = await self.run_state.engine.runner.run(worker, options, context)
            except BaseException as error:
                context.close(durable=False)
                if isinstance(error, ItemError):
                    await self._keep_failures(context)
                raise
        return context, result, time.monotonic() - started

    async def _keep_failures(self, context: Context) -> None:
        """Record what the step has found wrong: of a step that fails, that is evidence."""
        found = [event for event in context.events if event.outcome == "failure"]
        if found:
            job = self.run_state.job
            await self.run_state.engine.store.write(job_store.note, job.id, job.token, found)

    async def _wait(self, result: Wait, context: Context) -> SetAside:
        aside = SetAside(state=JobState.WAITING, reason=result.reason, due=time.monotonic() + result.seconds)
        await self.lay_aside(
            {"saved": result.state, "wake_at": aside.wake_at, "error": result.reason}, found=context.events
        )
        log.get().info(log.STEP_WAITING, reason=result.reason, seconds=result.seconds)
        return aside

    async def _freeze(self, result: Freeze, context: Context) -> SetAside:
        aside = SetAside(state=JobState.FROZEN, reason=result.reason, due=None)
        await self.lay_aside({"saved": result.state, "error": result.reason}, found=context.events)
        return aside

    async def _remake(self, result: Remake, context: Context) -> SetAside | None:
        """Have the step that made the source's files done again; this one is ready again after it."""
        run_state = self.run_state
        await self.lay_aside({"saved": result.state, "error": ""}, found=context.events)
        made = [row.position for row in run_state.steps if row.name == self._given.source]
        await run_state.engine.store.write(job_store.forget, run_state.job.id, run_state.job.token, made)
        steps = await run_state.engine.store.read(job_store.steps_of, run_state.job.id)
        for position in (self.index, *made):
            run_state.steps[position] = steps[position]
        run_state.busy.difference_update(made)
        return None

    async def _done(
        self,
        result: Done,
        context: Context,
        seconds: float,
        recipe: Recipe | None,
    ) -> None:
        # 1 result files durable  2 commit the result, its events and the start of those that follow.
        fail_points.point("step.ran")
        run_state, engine, job = self.run_state, self.run_state.engine, self.run_state.job
        made, delivered = context.outputs.count, context.locations.count
        if made or delivered:
            await asyncio.to_thread(_make_durable, context, run_state.files.home)
        else:
            context.close(durable=True)
        fail_points.point("step.durable")
        totals = StepTotals(
            detail=result.detail,
            outputs=made,
            size=context.outputs.size,
            locations=delivered,
            copies=context.locations.copies,
            delivered_size=context.locations.size,
            seconds=round(seconds, 3),
            recipe=recipe.as_dict() if recipe is not None else None,
        )
        following = self._following()
        await engine.store.write(
            job_store.finish_step,
            job.id,
            job.token,
            self.index,
            result=totals,
            found=context.events,
            following=following,
        )
        self._now(StepState.DONE, result=totals)
        engine.suspects.step_over(job.id, self.index)
        engine.shortage.over()
        for index in following:  # they begin at once; what they need can no longer be taken back
            run_state.steps[index] = replace(run_state.steps[index], state=StepState.RUNNING)
        log.get().info(
            log.STEP_FINISHED,
            seconds=round(seconds, 3),
            detail=result.detail,
            outputs=made,
            locations=delivered,
        )
        engine.metrics.steps.labels(self.row.worker).observe(seconds)
        engine.metrics.delivered_bytes.labels(self.row.worker).inc(context.locations.size)
        # What it may have been paused under: its target, its own name, or the disk that has held all this.
        await engine.targets.resume(self.target or self.name)
        if self.room:
            await engine.targets.resume(self.room)
        for name in engine.disks.names:
            await engine.targets.worked(name, job.id)
        for place, used, capacity in context.fullness:
            # By the target's name: what a delivery calls its place may hold the folder's. On a host, by
            # the file system, of which it may have many.
            target = place if self.target and place.startswith(f"{self.target}:") else self.target or place
            engine.metrics.target_free.labels(target).set(capacity * (1 - used))
            await engine.targets.fullness(target, used, capacity)

    def _following(self) -> list[int]:
        """Return the steps that can begin as soon as this one is done."""
        passed = replace(self.row, state=StepState.DONE)
        steps = [passed if row.position == self.index else row for row in self.run_state.steps]
        return step_graph.ready(steps, self.run_state.needs, self.run_state.busy)


def _make_durable(context: Context, home: Path) -> None:
    context.close(durable=True)
    fsync_dir(home)


def _keep_facts(path: Path, facts: dict[str, Any]) -> None:
    with durable_file(path) as out:
        out.write(json.dumps(facts).encode())
