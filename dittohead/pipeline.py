"""One generic loop: which step of a job is next, run it, record it, finish; survives kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dittohead import faults, log, manifest, templates
from dittohead.context import Context, JobFiles, values_of
from dittohead.engine import AGENT, Engine
from dittohead.errors import (
    DittoheadError,
    ItemError,
    StoreError,
    Superseded,
    TargetError,
    TransientError,
)
from dittohead.files import fsync_dir
from dittohead.finish import finish
from dittohead.limits import FairLimiter
from dittohead.model import (
    Event,
    EventType,
    Job,
    JobState,
    StepRow,
    StepState,
)
from dittohead.store import jobs as job_store
from dittohead.threads import in_thread
from dittohead.worker import Done, Made, Options, Recipe, StepResult, Wait, Worker

#: A step that has seen the daemon die this often without ending is frozen: it may be the cause.
CRASHES_MOST = 5

#: The daemon's own disk being full or gone is nobody's folder's fault.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}


async def run_job(engine: Engine, job: Job, *, fresh: bool = False) -> bool:
    """Walk a job's steps from where the store says it is, until it ends or is laid aside.

    Everything the job can meet is dealt with here. What leaves is cancellation, and a fault of
    the store or the receipts' disk: the job is then as the store says, to be run again later.

    Args:
        fresh: the job was created this moment, and its first run with it.

    Returns: whether the job is over.
    """
    probed = job.target  # paused, if this run is to try it; a step's target may be another by now
    if fresh:
        steps, crashes = _fresh_steps(job), 0
    else:
        job, steps, crashes = await engine.store.write(job_store.begin_run, job.id)
    if job.state is not JobState.RUNNING:
        return False
    run = _Run(engine, job, steps)
    with log.bind(job=job.id, name=job.name):
        try:
            if crashes >= CRASHES_MOST:
                await run.freeze_after_crashes(crashes)
            else:
                return await run.whole()
        except asyncio.CancelledError:
            await run.interrupted()
            raise
        except Superseded:
            log.get().info(log.JOB_SUPERSEDED)
        finally:
            engine.clear_report(job.id)
            for target in {run.target, probed} - {""}:
                engine.targets.probe_over(target)
    return False


def _fresh_steps(job: Job) -> list[StepRow]:
    """Return the steps of a job that was created this moment, as the store has just been told."""
    return [
        StepRow(
            position=position,
            name=given["name"],
            worker=given["worker"],
            state=StepState.PENDING,
            attempts=0,
            started_at=None,
            finished_at=None,
            saved={},
            result={},
            error="",
        )
        for position, given in enumerate(job.definition["steps"])
    ]


class _Run:
    """One run of one job; owns it as long as its token holds."""

    def __init__(self, engine: Engine, job: Job, steps: list[StepRow]) -> None:
        self.engine, self.job, self.steps = engine, job, steps
        self.files = JobFiles(engine.stations, job)
        self.position: int | None = None
        self.target = ""

    # -- the story of a job ------------------------------------------------------------------

    async def whole(self) -> bool:
        """Manifest, steps, check, finish; whatever goes wrong ends in the right place.

        Returns: whether the job is over.
        """
        try:
            if not await self._walk():
                return False
        except (Superseded, StoreError):
            raise
        except Exception as error:  # noqa: BLE001  # around one job: a defect fails that job only
            return await self._went_wrong(error)
        await self._over(JobState.DONE, None)
        return True

    async def _walk(self) -> bool:
        """Do what is left to do; return False when the job was laid aside."""
        self._check_matched()
        await self._take_manifest()
        for index in range(self._first(), len(self.steps)):
            if not await self._step(index):
                return False
        self.position = None
        self.target = ""
        await self._recheck()
        return True

    async def _went_wrong(self, error: Exception) -> bool:
        if isinstance(error, OSError) and error.errno in _DISK:
            self.target = f"disk of {self.engine.stations.root}"
            what = f"the disk gave an error ({error.strerror})"
            error = TargetError(what, where=os.fsdecode(error.filename or ""))
        else:
            error = await self._folders_fault() or error
        if isinstance(error, TransientError):
            return await self._retry(error)
        if isinstance(error, TargetError):
            await self._pause(error)
            return False
        if isinstance(error, DittoheadError):
            await self._over(JobState.FAILED, _fields(error, "item", self._step_name()))
        else:
            await self._fail_as_defect(error)
        return True

    async def _folders_fault(self) -> ItemError | None:
        """Return what was changed in the folder since the claim, where a step has met trouble.

        Before a target is paused for all, or somebody told of a program's words: what a step stumbled
        over may be the folder not being any more what was handed over.
        """
        if self.position is None or not self.files.manifest.exists():
            return None
        try:
            await self._recheck()
        except ItemError as error:
            return error
        except OSError:  # the trouble itself; it is told already
            return None
        return None

    def _check_matched(self) -> None:
        refusal = self.job.definition.get("refuse")
        if refusal:
            raise ItemError(refusal["what"], where=refusal["where"], hint=refusal["hint"])

    def _first(self) -> int:
        """Return the first step that is not done, or whose output has been lost."""
        for index, row in enumerate(self.steps):
            if row.state is not StepState.DONE or self.files.lost(row):
                return index
        return len(self.steps)

    def _step_name(self) -> str:
        return "" if self.position is None else self.steps[self.position].name

    async def _take_manifest(self) -> None:
        if self.files.manifest.exists() and self.job.files + self.job.size > 0:
            return
        _make_home(self.files.home)
        definition = self.job.definition
        started = time.monotonic()
        totals = await in_thread(
            lambda stop: manifest.take(
                self.files.payload,
                self.files.manifest,
                stop=stop,
                skip_specials=definition.get("links") == "skip",
                ignore=definition.get("ignore", []),
                progress=self._counter("manifest"),
            )
        )
        faults.point("manifest.taken")
        seconds = round(time.monotonic() - started, 3)
        if totals.files == 0:
            raise ItemError(
                "the folder holds no files",
                hint="If the upload was cut short, upload it again under the same name",
            )
        detail = f"{totals.files} files, {totals.size} bytes, SHA-256"
        if totals.skipped:
            detail += f"; {totals.skipped} links or special files left out"
        event = Event(
            type=EventType.DIGEST,
            outcome="warning" if totals.skipped else "success",
            detail=detail,
            agent=AGENT,
        )
        await self.engine.store.write(
            job_store.set_manifest, self.job.id, self.job.token, totals.files, totals.size, [event]
        )
        self._replace_job(files=totals.files, size=totals.size)
        if self.steps:
            self.steps[0] = dataclasses.replace(self.steps[0], state=StepState.RUNNING)
        log.get().info(
            log.STEP_FINISHED, step="manifest", files=totals.files, bytes=totals.size, seconds=seconds
        )

    def _counter(self, step: str) -> Callable[[int], None]:
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self.engine.report(self.job.id, step, done, 0, "bytes")

        return count

    async def _recheck(self) -> None:
        """Find what was changed after the claim: whoever held a file open could still write it."""
        await in_thread(lambda stop: manifest.recheck(self.files.payload, self.files.manifest, stop=stop))

    # -- one step ----------------------------------------------------------------------------

    async def _step(self, index: int) -> bool:
        """Run a step; return whether it is done (False: the job was laid aside)."""
        self.position = index
        row = self.steps[index]
        given = self.job.definition["steps"][index]
        worker, options = self._prepare(row, given)
        self.target = worker.target(options)
        if self.target and not self.engine.targets.may_try(self.target):
            await self._lay_aside_for(self.target, self.engine.targets.paused(self.target) or "")
            return False
        limiter = self.engine.limits[row.worker]
        async with limiter.slot(self.job.uid):
            if row.state is not StepState.RUNNING:
                await self.engine.store.write(job_store.start_step, self.job.id, self.job.token, index)
            context, result, seconds = await self._attempt(index, worker, options, limiter)
        # The slot is for the work; the next one need not wait for this one's commit.
        with log.bind(step=row.name, attempt=context.attempt):
            if isinstance(result, Wait):
                context.close(durable=False)
                await self._wait(index, result, context.events)
                return False
            await self._done(index, result, context, seconds, worker.recipe(options))
        return True

    def _prepare(self, row: StepRow, given: dict[str, Any]) -> tuple[Worker[Any], Options]:
        try:
            worker = self.engine.workers.get(row.worker)
        except KeyError as error:
            raise ItemError(
                f'the worker "{row.worker}" is not installed any more',
                hint=f"Install its package, then: dittohead retry {self.job.id}",
            ) from error
        values = values_of(self.job, self.files, row.name)
        filled = templates.render_options(given["options"], values, worker.per_file)
        try:
            return worker, worker.Options.model_validate(filled)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ItemError(
                f"option {'.'.join(map(str, first['loc']))} does not fit this folder: {first['msg']}",
                where=f"step {row.name}",
            ) from error

    async def _attempt(
        self, index: int, worker: Worker[Any], options: Options, limiter: FairLimiter
    ) -> tuple[Context, StepResult, float]:
        row, engine = self.steps[index], self.engine
        source = self.job.definition["steps"][index]["from"]
        taken = next((step.result for step in self.steps if step.name == source), {})
        before = await engine.store.read(job_store.earlier, self.job) if worker.makes_outputs else []
        context = Context(
            job=self.job,
            row=row,
            files=self.files,
            source=dataclasses.replace(self.files.source(source, taken), made=self._results().get(source)),
            others=self._results(),
            describing=self._describing(),
            earlier=self.files.earlier(row.name, before),
            store=engine.store,
            limiter=limiter,
            secret=engine.secret,
            report=engine.report,
        )
        with log.bind(step=row.name, attempt=context.attempt):
            log.get().info(log.STEP_STARTED, worker=row.worker)
            started = time.monotonic()
            try:
                result = await worker.run(context, options)
            except BaseException:
                context.close(durable=False)
                raise
        return context, result, time.monotonic() - started

    def _results(self) -> dict[str, Made]:
        """Return what the steps that are done have made."""
        given = self.job.definition["steps"]
        return {
            row.name: self.files.results(row, given[row.position]["from"])
            for row in self.steps
            if row.state is StepState.DONE
        }

    def _describing(self) -> str:
        """Return the first step that finds out what is known of the folder's objects, "" for none."""
        workers = self.engine.workers
        known = (row for row in self.steps if row.worker in workers.names())
        return next((row.name for row in known if workers.get(row.worker).describes), "")

    async def _done(
        self, index: int, result: Done, context: Context, seconds: float, recipe: Recipe | None
    ) -> None:
        # 1 result files durable  2 commit the result, its events and the next step's start.
        faults.point("step.ran")
        row, engine = self.steps[index], self.engine
        made, delivered = context.outputs.count, context.locations.count
        if made or delivered:
            await asyncio.to_thread(_make_durable, context, self.files.home)
        else:
            context.close(durable=True)
        faults.point("step.durable")
        totals = {
            "detail": result.detail,
            "outputs": made,
            "bytes": context.outputs.size,
            "locations": delivered,
            "delivered_bytes": context.locations.size,
            "seconds": round(seconds, 3),
            **({"recipe": recipe.as_dict()} if recipe is not None else {}),
        }
        following = index + 1 if index + 1 < len(self.steps) else None
        await engine.store.write(
            job_store.finish_step,
            self.job.id,
            self.job.token,
            index,
            result=totals,
            found=context.events,
            following=following,
        )
        self.steps[index] = dataclasses.replace(row, state=StepState.DONE, result=totals)
        if following is not None:
            self.steps[following] = dataclasses.replace(self.steps[following], state=StepState.RUNNING)
        log.get().info(
            log.STEP_FINISHED,
            seconds=round(seconds, 3),
            detail=result.detail,
            outputs=made,
            locations=delivered,
        )
        if self.target:
            await engine.targets.resume(self.target)
        for target, used, capacity in context.fullness:
            await engine.targets.fullness(target, used, capacity)

    async def interrupted(self) -> None:
        """Note that the step in flight was stopped in good order, not by a crash."""
        with contextlib.suppress(Superseded, StoreError):
            await self.engine.store.write(job_store.interrupt, self.job.id, self.job.token, self.position)

    # -- laying aside ------------------------------------------------------------------------

    async def _wait(self, index: int, result: Wait, events: list[Event]) -> None:
        await self._put_off(
            JobState.WAITING,
            reason=result.reason,
            wake_at=time.time() + result.seconds,
            step={"state": StepState.WAITING.value, "saved": result.state, "crashes": 0},
            found=events,
        )
        log.get().info(log.STEP_WAITING, reason=result.reason, seconds=result.seconds)

    async def _retry(self, error: TransientError) -> bool:
        policy, index = self.engine.retry, self.position
        attempts = 1 if index is None else self.steps[index].attempts + 1
        if index is None or attempts >= policy.attempts:
            text = f"{error.what} (tried {attempts} times)"
            final = ItemError(text, where=error.where, hint=error.hint)
            await self._over(JobState.FAILED, _fields(final, "transient", self._step_name()))
            return True
        wait = min(policy.first * 2 ** (attempts - 1), policy.most) * random.uniform(0.7, 1.3)  # noqa: S311
        if error.retry_after_s is not None:
            wait = max(wait, error.retry_after_s)
        await self._put_off(
            JobState.WAITING,
            reason=f"step {self._step_name()}: {error}; try {attempts + 1} of {policy.attempts} follows",
            wake_at=time.time() + wait,
            step={
                "state": StepState.WAITING.value,
                "attempts": attempts,
                "error": str(error),
                "crashes": 0,
            },
        )
        log.get().warning(log.STEP_RETRIED, error=str(error), wait_seconds=round(wait, 1))
        return False

    async def _pause(self, error: TargetError) -> None:
        name = self.target or self._step_name()
        self.target = name
        await self.engine.targets.pause(name, str(error))
        await self._lay_aside_for(name, str(error))

    async def _lay_aside_for(self, target: str, reason: str) -> None:
        await self._put_off(
            JobState.PAUSED,
            reason=reason,
            wake_at=None,
            step={"state": StepState.WAITING.value, "error": reason, "crashes": 0},
            target=target,
        )
        log.get().info(log.JOB_PAUSED, target=target, reason=reason)

    async def freeze_after_crashes(self, crashes: int) -> None:
        """Freeze a job whose step has met the daemon's death again and again."""
        self.position = self._first()
        reason = (
            f"the daemon died {crashes} times during step {self._step_name()}; "
            f"when the cause is found: dittohead thaw {self.job.id}"
        )
        await self._put_off(
            JobState.FROZEN,
            reason=reason,
            wake_at=None,
            step={"state": StepState.WAITING.value, "crashes": 0},
        )
        log.get().error(log.JOB_FROZEN, reason=reason)

    async def _put_off(self, state: JobState, **changes: Any) -> None:
        await self.engine.store.write(
            job_store.put_off,
            self.job.id,
            self.job.token,
            -1 if self.position is None else self.position,
            state=state,
            **changes,
        )

    # -- the end -----------------------------------------------------------------------------

    async def _over(self, state: JobState, error: dict[str, Any] | None) -> None:
        await finish(
            self.engine,
            self.job,
            state,
            error,
            failed_step=self.position if state is JobState.FAILED else None,
        )

    async def _fail_as_defect(self, error: Exception) -> None:
        log.get().error(log.STEP_FAILED, step=self._step_name(), exc_info=error)
        text = f"the worker failed in an unforeseen way ({type(error).__name__})"
        hint = f"See the daemon's log for the traceback, then: dittohead retry {self.job.id}"
        fields = _fields(ItemError(text, hint=hint), "defect", self._step_name())
        await self._over(JobState.FAILED, fields)

    def _replace_job(self, **changes: Any) -> None:
        self.job = dataclasses.replace(self.job, **changes)
        self.files = JobFiles(self.engine.stations, self.job)


def _fields(error: DittoheadError, kind: str, step: str) -> dict[str, Any]:
    return {"what": error.what, "where": error.where, "hint": error.hint, "kind": kind, "step": step}


def _make_home(home: Path) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_durable(context: Context, home: Path) -> None:
    context.close(durable=True)
    fsync_dir(home)
