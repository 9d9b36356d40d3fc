"""One generic loop: which step of a job is next, run it, record it, finish; survives kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from dittohead.engine import remedies
from dittohead.engine.disks import disk_of
from dittohead.engine.engine import Engine
from dittohead.engine.finish import damaged, finish
from dittohead.engine.sending import as_sent
from dittohead.engine.step_run import RunState, SetAside, StepRun
from dittohead.folders import manifest
from dittohead.folders.job_files import has_facts
from dittohead.model import step_graph
from dittohead.model.definition import Failure, Ignored, StepTotals
from dittohead.model.errors import (
    DittoheadError,
    ItemError,
    StationMissing,
    StoreError,
    Superseded,
    TargetError,
    TransientError,
    Unreadable,
)
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Job, StepRow
from dittohead.model.states import JobState, Station, StepState
from dittohead.model.text import counted
from dittohead.store import Connection
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store.suspects import FREEZE_AT
from dittohead.system import fail_points, log, machine_faults
from dittohead.system.threads import in_thread
from dittohead.toolkit.backoff import wait_s

#: A run looks so often whether a target that one of its steps waits for may be tried again.
_LOOK_AGAIN_S = 5.0


async def run_job(engine: Engine, job: Job, *, fresh: bool = False) -> bool:
    """Walk a job's steps from where the store says it is, until it ends or is laid aside.

    Everything the job can meet is dealt with here. What leaves is cancellation, and a fault of
    the store or the receipts' disk: the job is then as the store says, to be run again later.

    Args:
        fresh: the job was created this moment, and its first run with it.

    Returns: whether the job has ended.
    """
    try:
        if fresh:
            steps, crashes = _fresh_steps(job), 0
        else:
            job, steps, crashes = await engine.store.write(job_store.begin_run, job.id)
        return job.state is JobState.RUNNING and await _run(engine, job, steps, crashes)
    finally:
        engine.targets.probe_over(job.id)  # also where it had ended before it could be tried


async def _run(engine: Engine, job: Job, steps: list[StepRow], crashes: int) -> bool:
    run = _Run(engine, job, steps)
    with log.bind(job=job.id, name=job.name):
        try:
            if crashes >= FREEZE_AT:
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
    return False


def _fresh_steps(job: Job) -> list[StepRow]:
    """Return the steps of a job that was created this moment, as the store has just been told."""
    return [
        StepRow(
            position=position,
            name=step.name,
            worker=step.worker,
            state=StepState.PENDING,
            attempts=0,
            started_at=None,
            finished_at=None,
            saved={},
            result=StepTotals(),
            error="",
            wake_at=None,
        )
        for position, step in enumerate(job.definition.steps)
    ]


class _Run:
    """One run of one job; owns it as long as its token holds."""

    def __init__(self, engine: Engine, job: Job, steps: list[StepRow]) -> None:
        self.engine, self.run_state = engine, RunState(engine, job, steps)

    @property
    def job(self) -> Job:
        """The job, as far as this run knows it."""
        return self.run_state.job

    # -- the story of a job ------------------------------------------------------------------

    async def whole(self) -> bool:
        """Manifest, steps, check, finish; whatever goes wrong ends in the right place.

        Returns: whether the job has ended.
        """
        try:
            asides = await self._walk()
        except (Superseded, StoreError):
            raise
        except _Failed as over:
            return await self._finish(JobState.FAILED, over.failure, over.position)
        if asides:
            await self._lay_aside(asides)
            return False
        return await self._finish(JobState.DONE, None, None)

    async def _finish(self, state: JobState, error: Failure | None, failed_step: int | None) -> bool:
        """End the job; return whether it has ended: without room for its receipt it waits for that."""
        try:
            await finish(self.engine, self.job, state, error, failed_step=failed_step)
        except StationMissing as missing:
            await self._lay_aside([await self._pause_for_root(missing)])
            return False
        return True

    async def _walk(self) -> list[SetAside]:
        """Do what is left to do; return why what is left does not go on now, [] when nothing is."""
        try:
            self._check_matched()
            await self._forget_lost()
            await self._take_manifest()
            asides = await self._preflight() or await self._steps()
            if not asides:
                await self._last_check()
                self._check_delivered()
        except (Superseded, StoreError, _Failed):
            raise
        except Exception as error:  # noqa: BLE001  # around one job: a defect fails that job only
            return [await self._judge(None, error)]
        return asides

    async def _forget_lost(self) -> None:
        """Have steps done again whose outputs are gone, and all that wait for them.

        Durably, before any of them begins: what rests on files that are no more is not to be
        believed by a later run either, when this one is interrupted.
        """
        run_state = self.run_state
        gone = [
            row.position
            for row in run_state.steps
            if row.state is StepState.DONE and run_state.files.lost(row, run_state.needing(row.name))
        ]
        if not gone:
            return
        await self.engine.store.write(
            job_store.forget, self.job.id, self.job.token, step_graph.dependents(run_state.needs, gone)
        )
        run_state.steps[:] = await self.engine.store.read(job_store.steps_of, self.job.id)

    async def _folders_fault(self) -> ItemError | None:
        """Return what was changed in the folder since the claim, where a step has met trouble.

        Before a target is paused for all, or somebody told a program's words: what a step stumbled
        over may be the folder not being any more what was handed over.
        """
        if not self.run_state.files.manifest.exists():
            return None
        try:
            await self._recheck()
        except ItemError as error:
            return error
        except (OSError, Unreadable):  # the trouble itself; it is told already
            return None
        return None

    def _check_matched(self) -> None:
        refusal = self.job.definition.refusal
        if refusal is not None:
            raise ItemError(refusal.what, where=refusal.where, hint=refusal.hint)

    async def _take_manifest(self) -> None:
        if os.path.lexists(self.run_state.files.manifest) and self.job.files + self.job.size > 0:
            return
        _make_home(self.run_state.files.home)
        definition = self.job.definition
        started = time.monotonic()
        totals = await in_thread(
            lambda stop: manifest.take(
                self.run_state.files.payload,
                self.run_state.files.manifest,
                stop=stop,
                skip_specials=definition.skips_links,
                ignore=definition.ignore,
                progress=self._counter("manifest"),
            )
        )
        self.engine.step_over(self.job.id, "manifest")
        fail_points.point("manifest.taken")
        proved = await as_sent(self.engine, self.job, self.run_state.files)
        seconds = round(time.monotonic() - started, 3)
        if totals.files == 0:
            raise manifest.nothing_in(totals)
        detail = f"{counted(totals.files, 'file')}, {totals.size:,} bytes, SHA-256"
        if totals.left_out:
            detail += f"; {totals.left_out}"
        event = Event(
            type=EventType.DIGEST,
            outcome="warning" if totals.skipped else "success",
            detail=detail,
            agent=AGENT,
        )
        steps = self.run_state.steps
        if totals.ignored:  # kept with the job: who drops folders again knows them by all their files
            ignored = Ignored(files=totals.ignored, size=totals.ignored_size)
            definition = dataclasses.replace(definition, ignored=ignored)
        looks = any(StepRun(self.run_state, row.position).has_preflight for row in steps)
        begin = [] if looks else step_graph.ready(steps, self.run_state.needs, ())
        await self.engine.store.write(
            job_store.set_manifest,
            self.job.id,
            self.job.token,
            totals.files,
            totals.size,
            [event, *proved],
            begin,
            definition if totals.ignored else None,
        )
        self.run_state.replace_job(files=totals.files, size=totals.size, definition=definition)
        self.engine.metrics.claimed_bytes.inc(totals.size + totals.ignored_size)
        for index in begin:
            steps[index] = dataclasses.replace(steps[index], state=StepState.RUNNING)
        log.get().info(
            log.STEP_FINISHED, step="manifest", files=totals.files, bytes=totals.size, seconds=seconds
        )

    def _check_delivered(self) -> None:
        """See that something has gone out where that was to be. Raises: ItemError.

        What steps were to deliver may be nothing at all, where it comes from a step that made nothing.
        """
        workers, steps = self.engine.workers, self.run_state.steps
        known = workers.names()
        to_deliver = [row for row in steps if row.worker in known and workers.get(row.worker).delivers]
        if to_deliver and not any(row.result.locations for row in to_deliver):
            names = " and ".join(row.name for row in to_deliver)
            raise ItemError(
                "nothing of the folder was delivered: what these steps were given holds no files",
                where=f"step {names}",
                hint="See from: in config.yaml and what the steps before have made; then: "
                f"dittohead rerun {self.job.id}",
            )

    def _counter(self, step: str) -> Callable[[int], None]:
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            self.engine.report(self.job.id, step, done, 0, "bytes")

        return count

    async def _recheck(self, *, writers: bool = False) -> manifest.ManifestCheck:
        """Find what was changed after the claim: anyone who held a file open could still write it."""
        files = self.run_state.files
        return await in_thread(
            lambda stop: manifest.recheck(files.payload, files.manifest, stop=stop, writers=writers)
        )

    async def _last_check(self) -> None:
        """Compare the folder with its manifest when nothing in it has changed for as long as at the claim.

        What was written between the look before the claim and the manifest is in the manifest; somebody
        who goes on writing is met here.
        """
        settle = self.engine.settle_s
        checked = await self._recheck(writers=settle > 0)
        age = time.time() - checked.newest_ns / 1e9
        if age < settle:
            await asyncio.sleep(settle - max(age, 0.0))
            await self._recheck(writers=True)

    # -- the steps ---------------------------------------------------------------------------

    async def _preflight(self) -> list[SetAside]:
        """Have each worker look whether its step can be done, before any step writes anything anywhere.

        All of them again as long as none has begun: what is out of date then need not be believed.
        What the steps have begun with stays true for those that come later.
        """
        rows = self.run_state.steps
        anew = not any(row.state is StepState.DONE or row.started_at is not None for row in rows)
        looking = [
            step
            for step in (StepRun(self.run_state, row.position) for row in rows)
            # What the folder holds must be known to those that are left, also when its facts are lost.
            if step.has_preflight and (step.row.state is not StepState.DONE or step.describes)
        ]
        if all(row.state is StepState.DONE for row in rows):
            return []
        # Those first that find out what the folder holds: the others look with that in mind.
        for step in sorted(looking, key=lambda step: not step.describes):
            _heed_cancellation()
            if not anew and has_facts(self.run_state.files.facts(step.name)):
                continue
            try:
                aside = await step.preflight()
            except (Superseded, StoreError):
                raise
            except Exception as error:  # noqa: BLE001  # around one step: a defect fails its job only
                aside = await self._judge(step, error)
            if aside is not None:
                return [aside]
        return []

    async def _steps(self) -> list[SetAside]:
        """Run every step as soon as what it needs is done; return why those that are left do not go on.

        A step that fails ends the job at once: those beside it are interrupted.
        """
        aside: dict[int, SetAside] = {}
        running: dict[asyncio.Task[SetAside | None], int] = {}
        run_state = self.run_state
        try:
            while True:
                _heed_cancellation()
                if running:
                    await self._resume_put_off(aside)
                begin = step_graph.ready(run_state.steps, run_state.needs, run_state.busy)
                run_state.busy.update(begin)
                if len(begin) == 1 and not running and not aside:  # nothing beside it: no task of its own
                    self._ended(aside, begin[0], await self._one(begin[0]))
                    continue
                for index in begin:
                    task = asyncio.create_task(self._one(index), name=f"step:{run_state.steps[index].name}")
                    running[task] = index
                if not running:
                    return list(aside.values())
                over, _ = await asyncio.wait(
                    running, timeout=_patience(aside.values()), return_when=asyncio.FIRST_COMPLETED
                )
                for task in over:
                    self._ended(aside, running.pop(task), task.result())
        finally:
            await self._end(running)

    def _ended(self, aside: dict[int, SetAside], index: int, why: SetAside | None) -> None:
        if why is None:
            self.run_state.busy.discard(index)
        else:
            aside[index] = why

    async def _resume_put_off(self, aside: dict[int, SetAside]) -> None:
        """Let steps that were put off be tried again, where that is due while others still run."""
        now = time.monotonic()
        for index, why in list(aside.items()):
            if why.state is JobState.FROZEN:
                continue
            if why.due is not None:
                due = why.due <= now
            else:
                due = self.engine.targets.may_try(why.target, self.job.id)
            if due:
                await StepRun(self.run_state, index).again()
                del aside[index]
                self.run_state.busy.discard(index)

    async def _end(self, running: Collection[asyncio.Task[SetAside | None]]) -> None:
        """Cancel steps and wait until they have ended; what they still say is overtaken by events.

        However often this is cancelled itself: nobody may take the job on while a step of it runs.
        """
        cancelled: asyncio.CancelledError | None = None
        left = set(running)
        for task in left:
            task.cancel()
        while left:
            try:
                _, left = await asyncio.wait(left)
            except asyncio.CancelledError as error:
                cancelled = error
                left = {task for task in left if not task.done()}
                for task in left:
                    task.cancel()
        for task in running:
            if not task.cancelled():
                task.exception()  # seen, or asyncio complains
        if cancelled is not None:
            raise cancelled

    async def _one(self, index: int) -> SetAside | None:
        step = StepRun(self.run_state, index)
        try:
            return await step.run()
        except (Superseded, StoreError, _Failed):
            raise
        except Exception as error:  # noqa: BLE001  # around one step: a defect fails its job only
            return await self._judge(step, error)

    async def _judge(self, step: StepRun | None, error: Exception) -> SetAside:
        """Return for how long a step (None: the job before or after its steps) is put off by an error.

        Raises: _Failed: the job has failed.
        """
        target = "" if step is None else step.target
        if short := machine_faults.short_of(error):
            return await self._wait_for_more(step, short)
        if (disk := machine_faults.of_disk(error)) is not None:
            target = await asyncio.to_thread(self.engine.disks.of_error, disk)
            what = f"the {target} gave an error ({machine_faults.words(disk)})"
            full = disk.errno in machine_faults.FULL
            error = TargetError(what, where=os.fsdecode(disk.filename or ""), full=full)
        elif (removed := await asyncio.to_thread(self._removed)) is not None:
            if isinstance(removed, StationMissing):
                return await self._pause_for_root(removed, step)
            error = removed
        elif step is not None:
            error = await self._folders_fault() or error
        name = "" if step is None else step.name
        worker = "" if step is None else step.row.worker
        self.engine.metrics.faults.labels(worker, _kind(error)).inc()
        if isinstance(error, TransientError):
            return await self._try_again(step, error)
        if isinstance(error, TargetError):
            if error.apart and step is not None and step.room:
                await self.engine.targets.resume(target)  # it has answered
                target = step.room
            return await self._pause(step, target or name, error)
        raise self._over(step, error, name)

    def _over(self, step: StepRun | None, error: Exception, name: str) -> _Failed:
        """Return the end of a job that an error is: its own reason, or that it was not foreseen."""
        if isinstance(error, Unreadable):
            return _Failed(dataclasses.replace(damaged(error, self.job), step=name), step)
        if isinstance(error, DittoheadError):
            failure = _failure(error, error.kind, name)
            if isinstance(error, ItemError):
                hint = remedies.hint(error, self.job, self.engine.stations)
                failure = dataclasses.replace(failure, hint=hint)
            return _Failed(failure, step)
        log.get().error(log.STEP_FAILED, step=name, exc_info=error)
        text = f"the worker failed in an unforeseen way ({type(error).__name__})"
        hint = f"See the daemon's log for the traceback, then: dittohead retry {self.job.id}"
        return _Failed(_failure(ItemError(text, hint=hint), "defect", name), step)

    def _removed(self) -> StationMissing | ItemError | None:
        """Return what was moved away under the root, where a run has stumbled over something. Blocking."""
        stations, run_state = self.engine.stations, self.run_state
        try:
            missing = stations.missing_names()
        except StationMissing as error:
            return error
        except OSError:
            return None
        for name in ("processing", "work"):
            if name in missing:
                return stations.missing(name)
        if not os.path.lexists(run_state.files.payload):
            return ItemError(
                "the folder was moved out of processing/ by hand while its job ran",
                where=str(run_state.files.payload),
                hint=f"To process it, move it to {stations.path(Station.INBOX)}",
            )
        if self.job.files and not os.path.lexists(run_state.files.manifest):
            return ItemError(
                "what the job had noted and made was moved out of work/ by hand while it ran",
                where=str(run_state.files.home),
                hint=f"Move it back, or let it be made again; then: dittohead retry {self.job.id}",
            )
        return None

    async def _pause_for_root(self, missing: StationMissing, step: StepRun | None = None) -> SetAside:
        error = TargetError(missing.what, where=missing.where, hint=missing.hint)
        return await self._pause(step, disk_of(self.engine.stations.root), error)

    async def interrupted(self) -> None:
        """Note that the steps in flight were stopped in good order, not by a crash."""
        with contextlib.suppress(Superseded, StoreError):
            await self.engine.store.write(job_store.interrupt, self.job.id, self.job.token)

    # -- laying aside ------------------------------------------------------------------------

    async def _try_again(self, step: StepRun | None, error: TransientError) -> SetAside:
        policy = self.engine.retry
        attempts = 1 if step is None else step.row.attempts + 1
        name = "" if step is None else step.name
        if step is None or attempts >= policy.attempts:
            text = f"{error.what} (tried {attempts} times)"
            final = ItemError(text, where=error.where, hint=error.hint)
            raise _Failed(_failure(final, "transient", name), step)
        wait = wait_s(attempts, first_s=policy.first, most_s=policy.most, asked_s=error.retry_after_s)
        reason = f"step {name}: {error}; try {attempts + 1} of {policy.attempts} follows"
        aside = SetAside(state=JobState.WAITING, reason=reason, due=time.monotonic() + wait)
        await step.lay_aside({"attempts": attempts, "error": str(error), "wake_at": aside.wake_at})
        log.get().warning(log.STEP_RETRIED, step=name, error=str(error), wait_seconds=round(wait, 1))
        return aside

    async def _wait_for_more(self, step: StepRun | None, short: str) -> SetAside:
        """Put a step off while this machine has too little of something: that counts as no try."""
        wait = self.engine.shortage.met()
        reason = f"this machine has too little of something: no more {short}; it is tried again by itself"
        aside = SetAside(state=JobState.WAITING, reason=reason, due=time.monotonic() + wait)
        if step is not None:
            await step.lay_aside({"error": reason, "wake_at": aside.wake_at})
        name = "" if step is None else step.name
        log.get().warning(log.MACHINE_SHORT, of=short, step=name, wait_seconds=round(wait, 1))
        return aside

    async def _pause(self, step: StepRun | None, target: str, error: TargetError) -> SetAside:
        reason, is_own = str(error), target in self.engine.disks.names
        await self.engine.targets.pause(target, reason, full=error.full, is_own=is_own)
        if step is not None:
            await step.lay_aside({"error": reason, "target": target})
        return SetAside(state=JobState.PAUSED, reason=reason, due=None, target=target)

    async def _lay_aside(self, asides: Sequence[SetAside]) -> None:
        """Let the job wait for what its steps wait for; for several things, for the first of them."""
        reason = "; ".join(dict.fromkeys(aside.reason for aside in asides))
        targets = sorted({aside.target for aside in asides} - {""})
        wake_at = min((aside.wake_at for aside in asides if aside.wake_at is not None), default=None)
        if frozen := "; ".join(aside.reason for aside in asides if aside.state is JobState.FROZEN):
            await self._freeze(frozen)
            log.get().warning(log.JOB_FROZEN, reason=frozen)
            return
        # What waits for a target is woken by it, whatever else the job waits for.
        state = JobState.PAUSED if wake_at is None else JobState.WAITING
        await self._put_off(state, reason=reason, wake_at=wake_at, waits_for=targets)
        if state is JobState.PAUSED:
            log.get().info(log.JOB_PAUSED, target=", ".join(targets), reason=reason)

    async def freeze_after_crashes(self, crashes: int) -> None:
        """Freeze a job whose steps have met the daemon's death again and again."""
        rows = [row for row in self.run_state.steps if row.crashes >= FREEZE_AT]
        names = " and ".join(row.name for row in rows)
        reason = (
            f"the daemon died {crashes} times during step {names}; "
            f"when the cause is found: dittohead thaw {self.job.id}"
        )
        positions = [row.position for row in rows]
        await self.engine.store.write(job_store.forgive, self.job.id, self.job.token, positions)
        await self._freeze(reason)
        log.get().error(log.JOB_FROZEN, reason=reason)

    async def _freeze(self, reason: str) -> None:
        """Freeze the job for a person to decide, and tell them: one commit."""
        notices = await asyncio.to_thread(self.engine.compose, "frozen", job=self.job, reason=reason)

        def work(connection: Connection) -> None:
            job_store.put_off(
                connection, self.job.id, self.job.token, state=JobState.FROZEN, reason=reason, wake_at=None
            )
            outbox_store.add(connection, notices)

        await self.engine.store.write(work)
        if notices:
            self.engine.wake_notifier()

    async def _put_off(self, state: JobState, **changes: Any) -> None:
        await self.engine.store.write(job_store.put_off, self.job.id, self.job.token, state=state, **changes)


def _heed_cancellation() -> None:
    """Raises: CancelledError: the run was told to end, and a step has swallowed it; no other is to begin."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _patience(asides: Collection[SetAside]) -> float | None:
    """Return for how many seconds a run may sleep while steps that were put off wait beside others."""
    if not asides:
        return None
    now = time.monotonic()
    due = (now + _LOOK_AGAIN_S if aside.due is None else aside.due for aside in asides)
    return max(min(due) - now, 0.01)


class _Failed(Exception):  # an outcome, not an error
    """The job has failed: why, and in which step or outside of all."""

    def __init__(self, failure: Failure, step: StepRun | None) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.position = None if step is None else step.index


def _kind(error: Exception) -> str:
    """Return what kind of fault an error is, for those who count."""
    if isinstance(error, TransientError):
        return "transient"
    if isinstance(error, TargetError):
        return "target"
    return "item" if isinstance(error, DittoheadError) else "defect"


def _failure(error: DittoheadError, kind: str, step: str) -> Failure:
    return Failure(
        what=error.what, where=error.where, hint=error.hint, kind=kind, step=step, files=tuple(error.files)
    )


def _make_home(home: Path) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
