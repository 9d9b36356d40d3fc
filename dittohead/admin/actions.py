"""Carry out what people ask for: retry, rerun, freeze and the like; each request is answered once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dittohead.admin import admission
from dittohead.admin.request_queue import RequestQueue
from dittohead.config.loader import Config
from dittohead.engine.batches import is_by_itself
from dittohead.engine.dispatch import Dispatch
from dittohead.engine.engine import Engine
from dittohead.engine.finish import finish
from dittohead.engine.reconcile import fetch
from dittohead.folders import manifest, receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.replacement import Replacements
from dittohead.folders.replacement import words as replaced_words
from dittohead.model import step_graph
from dittohead.model.definition import Failure
from dittohead.model.errors import DittoheadError, ItemError, NameTaken, NoSuchJob, StoreError, Unreadable
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Job, RequestAnswer, collection_of
from dittohead.model.states import ACTIVE, TERMINAL, Action, JobState, Outcome, Station, StepState
from dittohead.model.text import counted, display, shell_word, visible
from dittohead.store import Connection, history, queries
from dittohead.store import batches as batch_store
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store.requests import Request
from dittohead.system import fail_points, log
from dittohead.system.threads import in_thread

#: A request that so many daemons have died of is not carried out any more.
_TRIES_MOST = 2

#: Refusals that an answer names.
_NAMED = 5

_CRASHED = "this cannot be carried out: the daemon met something unforeseen"
_SEE_LOG = "Its log has a traceback"


#: What would be done a second time if it were asked for twice: a whole passage of the folder.
_ONCE = frozenset({Action.RETRY, Action.RERUN, Action.RENAME, Action.REPLACE})


#: Does what a request asks for, and returns in words what was done. Raises: DittoheadError.
Handler = Callable[[Request], Awaitable[str]]


class _NotBegun(Exception):  # not an error of the request: it is tried again
    """The store did not take that a request begins."""

    def __init__(self, why: StoreError) -> None:
        super().__init__(str(why))
        self.why = why


class RequestRefused(DittoheadError):
    """The request cannot be carried out; nothing was changed."""


@dataclass(frozen=True)
class Actions:
    """Carries out what people ask for."""

    engine: Engine
    dispatch: Dispatch
    #: what is asked of others than jobs and targets (sources, receivers), by the name of the action
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    queue: RequestQueue | None = None  #: is told each answer
    config: Callable[[], Config] | None = None  #: the configuration in force
    mend: Callable[[], None] = lambda: None  #: have store and stations compared soon
    #: requests that this process has begun to carry out
    begun: set[int] = field(default_factory=set)
    #: answers that the store has not taken yet: what they are to is not carried out again
    unsaid: dict[int, RequestAnswer] = field(default_factory=dict)

    async def answer_all(self) -> int:
        """Carry out every open request, in order; return how many there were. Raises: StoreError."""
        waiting = await self.engine.store.read(request_store.open_numbers)
        for number in waiting:
            if number not in self.unsaid:
                self.unsaid[number] = await self._answer(number)
            said = self.unsaid[number]
            await self.engine.store.write(request_store.answer, number, said)
            del self.unsaid[number]
            if self.queue is not None:
                self.queue.answered(number, said)
        return len(waiting)

    async def _answer(self, number: int) -> RequestAnswer:
        """Return the answer to a request: whatever it meets, it alone is refused.

        Raises: StoreError: that it begins could not be noted; it has not begun.
        """
        about: dict[str, Any] = {"action": "", "of": number, "who": ""}
        try:
            request = await self.engine.store.read(request_store.get, number)
            about = {"action": request.action, "of": request.job, "who": request.who}
            said = RequestAnswer(ok=True, message=await self._counted(request))
        except _NotBegun as error:
            raise error.why from None
        except NoSuchJob as error:
            said = RequestAnswer(ok=False, message=str(error), missing=True)
        except DittoheadError as error:
            said = RequestAnswer(ok=False, message=str(error))
        except OSError as error:
            said = RequestAnswer(ok=False, message=f"{error.filename or ''}: {error.strerror}".lstrip(": "))
        except Exception as error:  # noqa: BLE001  # around one request: a defect refuses it only
            log.get().exception(log.REQUEST_CRASHED, **about, error=str(error))
            said = RequestAnswer(ok=False, message=f"{_CRASHED} ({type(error).__name__}). {_SEE_LOG}")
        log.get().info(log.REQUEST_ANSWERED, **about, ok=said.ok, message=said.message)
        return said

    async def _counted(self, request: Request) -> str:
        """Carry out a request, and count first that it is tried: it may be what a daemon dies of."""
        if request.tries >= _TRIES_MOST and request.id not in self.begun:
            text = f"the daemon died {request.tries} times while it carried this out"
            raise RequestRefused(
                text, hint="It is not tried again; the daemon's log or the system's says more"
            )
        if request.id not in self.begun:
            before = await self._before(request)
            if request.before and before and request.before != before:
                return f"{request.job}: the daemon ended while it carried this out; it is not done twice"
            try:
                await self.engine.store.write(request_store.count_try, request, 1, before)
            except StoreError as error:
                raise _NotBegun(error) from error
            self.begun.add(request.id)
        try:
            return await self.carry_out(request)
        except asyncio.CancelledError:  # an orderly stop is not a crash
            with contextlib.suppress(StoreError):
                await self.engine.store.write(request_store.count_try, request, -1)
            raise

    async def _before(self, request: Request) -> list[Any]:
        """Return what a request would change of an ended job: where that is otherwise, it has done so.

        Of others [] is returned: what is asked of them is the same when it is done twice.
        """
        if request.action not in _ONCE:
            return []
        with contextlib.suppress(NoSuchJob):
            job = await self.engine.store.read(queries.resolve, request.job)
            later = await self.engine.store.read(history.taken_up_by, job)
            there = await asyncio.to_thread(self.engine.stations.exists, job.station, job.folder)
            return [job.id, job.token, job.state, job.station, there, later] if job.state in TERMINAL else []
        return []

    async def carry_out(self, request: Request) -> str:
        """Do one thing and return what was done, in words. Raises: RequestRefused, NoSuchJob."""
        doers: dict[str, Callable[[Job, Request], Awaitable[str]]] = {
            Action.RETRY: self._retry,
            Action.RERUN: self._rerun,
            Action.RENAME: self._rename,
            Action.REPLACE: self._replace,
            Action.FREEZE: self._freeze,
            Action.THAW: self._thaw,
            Action.CANCEL: self._cancel,
            Action.DISMISS: self._dismiss,
            Action.POKE: self._poke,
            Action.UNDONE: self._undone,
        }
        if request.action in self.handlers:
            return await self.handlers[request.action](request)
        if request.action == Action.DROP:  # done already: the row is the record of who did it
            count, size = request.given.files, request.given.size
            return f"{request.job}: uploaded through the page, {counted(count, 'file')}, {size:,} bytes"
        if request.action == Action.RESUME:
            await self._must_be_paused(request.job)
            await self.engine.targets.lift(request.job)
            return f"{request.job}: its jobs go on"
        if request.action == Action.RETRY_BATCH:
            return await self._retry_batch(request)
        active = () if request.action in request_store.OF_ENDED_JOBS else sorted(ACTIVE)
        job = await self.engine.store.read(queries.resolve, request.job, active)
        if job.id != request.job:
            await self.engine.store.write(request_store.set_job, request.id, job.id)
        async with self.engine.folders:
            message = await doers[request.action](job, request)
        self.dispatch.wake()
        return message

    async def _must_be_paused(self, target: str) -> None:
        if self.engine.targets.paused(target) is None:
            raise RequestRefused("this target is not paused", where=target)

    async def _retry(self, job: Job, request: Request) -> str:
        if job.state is JobState.FAILED:
            steps = await self.engine.store.read(job_store.steps_of, job.id)
            await self._must_be_unchanged(job)
            await self._must_not_be_undone(job)
            undone = [step for step in steps if step.state is not StepState.DONE]
            failed = [step for step in undone if step.state is StepState.FAILED] or undone
            # Those beside the one that failed may have asked somebody outside: not to be asked twice.
            resumed = [step.position for step in undone if step not in failed]
            await self._reopen(job, [step.position for step in failed], resumed)
            name = f"step {failed[0].name}" if failed else "the last check"
            return f"{job.name}: tried again from {name}{self._as_at_the_claim(job)}"
        if job.state is JobState.DONE:
            raise RequestRefused(f"{job.name} is done", hint=f"To do it all again: dittohead rerun {job.id}")
        return await self._poke(job, request)

    async def _retry_batch(self, request: Request) -> str:
        """Try all of a batch again that failed; one that cannot be does not keep back the others."""
        batch = await self.engine.store.read(queries.resolve_batch, request.job)
        failed = await self.engine.store.read(batch_store.open_failures, batch.id)
        if not failed:
            raise RequestRefused(
                f"nothing of {batch.name} has failed", hint=f"dittohead list --batch {batch.id}"
            )
        refused = []
        for job in failed:
            try:
                async with self.engine.folders:
                    await self._retry(job, request)
            except StoreError:
                raise
            except DittoheadError as error:
                refused.append(str(error))
        self.dispatch.wake()
        tried = counted(len(failed) - len(refused), "folder")
        if refused:
            more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
            text = (
                f"{batch.name}: {tried} tried again, {len(refused)} not: {'; '.join(refused[:_NAMED])}{more}"
            )
            raise RequestRefused(text)
        return f"{batch.name}: {tried} tried again, each from the step that failed"

    async def _rerun(self, job: Job, request: Request) -> str:
        if job.state not in TERMINAL:
            raise RequestRefused(
                f"{job.name} is not over ({job.state})", hint=f"First: dittohead cancel {job.id}"
            )
        step = request.given.step
        if not step:
            return await self._back_to_inbox(job, request)
        await self._must_not_be_undone(job)
        steps = await self.engine.store.read(job_store.steps_of, job.id)
        position = next((s.position for s in steps if s.name == step), None)
        if position is None:
            names = ", ".join(s.name for s in steps)
            raise RequestRefused(f'{job.name} has no step "{step}"', hint=f"There are {names}")
        needed = step_graph.needs(job.definition)
        before = (s for s in steps if s.position in needed[position])
        undone = next((s for s in before if s.state is not StepState.DONE), None)
        if undone is not None:
            raise RequestRefused(
                f"the step {undone.name} comes before {step} and is not done",
                hint=f"dittohead retry {job.id}",
            )
        await self._reopen(job, step_graph.dependents(needed, [position]))
        return f"{job.name}: run again from step {step}"

    async def _back_to_inbox(self, job: Job, request: Request) -> str:
        name = job.name.encode()
        self._must_lie_there(job)
        if job.batch:
            return await self._back_to_its_batch(job, request)
        try:
            await asyncio.to_thread(
                self.engine.stations.bring_back, job.station, job.folder, Station.INBOX, name
            )
        except NameTaken as error:
            raise RequestRefused(
                "a folder of this name is in the inbox already", where=error.where
            ) from error
        log.get().info(log.JOB_REOPENED, job=job.id, name=job.name, who=request.who)
        return f"{job.name}: moved back to the inbox; a new job begins"

    async def _back_to_its_batch(self, job: Job, request: Request) -> str:
        """Move one folder of a collection back to processing/, where it is adopted."""
        name = job.name.encode()
        await self._must_not_meet(job, name)
        try:
            await asyncio.to_thread(
                self.engine.stations.bring_back, job.station, job.folder, Station.PROCESSING, name
            )
        except NameTaken as error:
            raise RequestRefused("another folder of this name is being processed", where=job.name) from error
        log.get().info(log.JOB_REOPENED, job=job.id, name=job.name, who=request.who)
        self.mend()
        return f"{job.name}: moved back to processing/; a new job begins"

    async def _rename(self, job: Job, request: Request) -> str:
        """Move a failed folder to the inbox under a name that fits; it is checked before."""
        config, name = self.config() if self.config is not None else None, request.given.name
        if job.state is not JobState.FAILED or config is None:
            hint = f"To run it again under its own name: dittohead rerun {job.id}"
            raise RequestRefused(f"{job.name} has not failed ({job.state})", hint=hint)
        self._must_lie_there(job)
        if job.batch:
            raise RequestRefused(
                f"{job.name} is part of a collection, by whose name the pipeline is chosen",
                hint="Rename it where it lies, then move the collection to the inbox. "
                f"Where that is: dittohead show {job.id}",
            )
        stations = self.engine.stations
        pipeline = await asyncio.to_thread(admission.renamed, config, stations, job, name)
        try:
            await asyncio.to_thread(
                stations.bring_back, job.station, job.folder, Station.INBOX, name.encode()
            )
        except NameTaken as error:
            raise RequestRefused("a folder of this name is in the inbox already", where=name) from error
        log.get().info(log.JOB_REOPENED, job=job.id, name=job.name, who=request.who, renamed=name)
        await self._note(job, EventType.RENAMING, f"renamed to {name} by {request.who}")
        return f"{job.name}: renamed to {name}; a new job begins, by the pipeline {pipeline.name}"

    async def _replace(self, job: Job, request: Request) -> str:
        """Put another file in the place of one in a failed folder; then it is done again, as a new job."""
        if job.state is not JobState.FAILED:
            hint = f"Only folders that failed are corrected: dittohead show {job.id}"
            raise RequestRefused(f"{job.name} has not failed ({job.state})", hint=hint)
        self._must_lie_there(job)
        replacements, given = Replacements(self.engine.stations), request.given
        offer = await asyncio.to_thread(replacements.get, given.offer, job.id)
        if (offer.job, offer.who) != (job.id, request.who):
            raise RequestRefused(
                "this file was uploaded for another job, or by somebody else", where=offer.shown
            )
        if given.run and not job.batch and self.engine.stations.exists(Station.INBOX, job.name.encode()):
            raise RequestRefused("a folder of this name is in the inbox already", where=job.name)
        put, earlier = await in_thread(lambda stop: replacements.put(job, offer))
        why = visible(given.reason)
        detail = replaced_words(put, request.who, why, earlier, self.engine.stations.root)
        events = await self.engine.store.read(job_store.events_of, job.id)
        if all(event.detail != detail for event in events):  # else a daemon has died before it could answer
            await self._note(job, EventType.MODIFICATION, detail)
        about = {"job": job.id, "name": job.name, "who": request.who, "reason": why}
        log.get().info(log.FILE_REPLACED, **about, path=put.shown, was=put.was, sha256=put.sha256)
        if not given.run:
            return f"{job.name}: {put.shown} replaced; when all are: dittohead rerun {job.id}"
        await self._back_to_inbox(job, request)
        where = "processing/" if job.batch else "the inbox"
        return f"{job.name}: {put.shown} replaced; moved back to {where}, and a new job begins"

    async def _reopen(self, job: Job, positions: Collection[int], resumed: Collection[int] = ()) -> None:
        self._must_lie_there(job)
        if self.engine.stations.exists(Station.PROCESSING, job.folder):
            raise RequestRefused(
                "another folder of this name is being processed",
                where=job.name,
                hint="Try again when it is done",
            )
        await self._must_not_meet(job, job.folder)
        async with self.dispatch.halted(job.id):  # not to be run before its folder is back
            await self.engine.store.write(_reopen, job, positions, resumed)
            await fetch(self.engine, await self.engine.store.read(job_store.get, job.id))

    async def _must_not_meet(self, job: Job, folder: bytes) -> None:
        """See that a folder of a collection does not come back into one that was dropped by itself."""
        collection = collection_of(folder)
        place = (self.engine.store, self.engine.stations, Station.PROCESSING, collection)
        if collection and await is_by_itself(*place):
            raise RequestRefused(
                f"the folder {display(collection)}, which was dropped by itself, is being processed",
                where=job.name,
                hint="Try again when it is done",
            )

    def _must_lie_there(self, job: Job) -> None:
        folder = self.engine.stations.folder(job.station, job.folder)
        if folder.is_symlink() or not folder.is_dir():
            raise RequestRefused(
                "the folder is no longer there",
                where=str(folder),
                hint="If it was moved elsewhere, move it to the inbox to process it again"
                + (f", in a folder called {display(collection_of(job.folder))}" if job.batch else ""),
            )

    async def _must_not_be_undone(self, job: Job) -> None:
        """See that what the steps that stay done have created is still there."""
        if await self.engine.store.read(job_store.was_undone, job.id):
            raise RequestRefused(
                "what this job had created was taken back, and steps that are done would not create it again",
                where=job.name,
                hint=f"Do all of it again: dittohead rerun {job.id}",
            )

    async def _must_be_unchanged(self, job: Job) -> None:
        """See that the folder is still what the job was made of: one that was corrected is another job."""
        self._must_lie_there(job)
        folder = self.engine.stations.folder(job.station, job.folder)
        inbox = shell_word(os.fsencode(self.engine.stations.path(Station.INBOX)))
        again = f"mv {shell_word(os.fsencode(folder))} {inbox}/"
        if job.batch:  # by itself it would not be of the collection any more
            again = f"dittohead rerun {job.id}"
        if job.definition.refusal is not None:
            raise RequestRefused(
                f"{job.name} has no steps to be tried", hint=f"Fix what it failed of, then: {again}"
            )
        listed = JobFiles(self.engine.stations, job).manifest
        if not os.path.lexists(listed):
            return
        try:
            await in_thread(lambda stop: manifest.recheck(folder, listed, stop=stop, quick=True))
        except ItemError as error:
            raise RequestRefused(
                f"{job.name} is not what it was at the claim any more ({error.where}: {error.what})",
                hint=f"As it is now it is a new job: {again}",
            ) from error
        except Unreadable as error:
            raise RequestRefused(
                f"what {job.name} was at the claim cannot be read any more: {error.what}",
                where=error.where,
                hint=f"As it is now it is a new job: {again}",
            ) from error

    async def _freeze(self, job: Job, request: Request) -> str:
        self._must_be_active(job)
        reason = request.given.reason or "no reason given"
        text = f"frozen by {request.who}: {reason}"
        async with self.dispatch.halted(job.id):
            await self.engine.store.write(job_store.set_state, job.id, JobState.FROZEN, text)
        log.get().info(log.JOB_FROZEN, job=job.id, name=job.name, reason=text)
        return f"{job.name}: frozen"

    async def _thaw(self, job: Job, request: Request) -> str:
        if job.state is not JobState.FROZEN:
            raise RequestRefused(f"{job.name} is not frozen ({job.state})")
        await self.engine.store.write(job_store.set_state, job.id, JobState.WAITING, "")
        log.get().info(log.JOB_THAWED, job=job.id, name=job.name, who=request.who)
        return f"{job.name}: thawed"

    async def _cancel(self, job: Job, request: Request) -> str:
        self._must_be_active(job)
        async with self.dispatch.halted(job.id):
            return await self._end(job, request)

    async def _end(self, job: Job, request: Request) -> str:
        taken, steps, _ = await self.engine.store.write(job_store.begin_run, job.id, ACTIVE)
        if taken.state in TERMINAL:
            raise RequestRefused(f"{job.name} has just ended ({taken.state})")
        step = next((s for s in steps if s.state is not StepState.DONE), None)
        error = Failure(
            what=f"cancelled by {request.who}",
            where=job.name,
            hint=f"To go on after all: dittohead retry {job.id}",
            kind="cancelled",
            step=step.name if step else "",
        )
        log.get().info(log.JOB_CANCELLED, job=job.id, name=job.name, who=request.who)
        await finish(self.engine, taken, JobState.FAILED, error)
        return f"{job.name}: cancelled; the folder is in failed/"

    async def _dismiss(self, job: Job, request: Request) -> str:
        """Note that nothing more is to be done about a failure. The folder stays where it is."""
        if job.state is not JobState.FAILED:
            raise RequestRefused(f"{job.name} has not failed ({job.state})", hint=f"dittohead show {job.id}")
        if job.outcome is Outcome.DISMISSED:
            return f"{job.name}: was dismissed already"
        before = (Outcome.NONE, Outcome.CANCELLED, Outcome.GONE)
        if not await self.engine.store.write(job_store.set_outcome, job.id, Outcome.DISMISSED, before):
            raise RequestRefused(f"{job.name} has just changed", hint=f"dittohead show {job.id}")
        reason = request.given.reason or "no reason given"
        log.get().info(log.JOB_DISMISSED, job=job.id, name=job.name, who=request.who, reason=reason)
        return f"{job.name}: dismissed; its folder stays in {job.station.value}/"

    async def _poke(self, job: Job, request: Request) -> str:
        self._must_be_active(job)
        if job.state is JobState.FROZEN:
            raise RequestRefused(f"{job.name} is frozen", hint=f"dittohead thaw {job.id}")
        if job.state is JobState.RUNNING:
            return f"{job.name}: is running"
        # Not resumed: that it is well again is known when a job has used it.
        if job.state is not JobState.PAUSED or not self.engine.targets.try_now(job.target):
            await self.engine.store.write(job_store.set_state, job.id, JobState.WAITING, "")
        return f"{job.name}: looked at now{self._as_at_the_claim(job)}"

    def _as_at_the_claim(self, job: Job) -> str:
        """Say that a job goes by its own options where config.yaml has others by now; "" where it has not."""
        config = self.config() if self.config is not None else None
        pipeline = config and next((p for p in config.pipelines if p.name == job.pipeline), None)
        if not pipeline:
            return ""
        today = {step.name: (step.worker, step.options) for step in pipeline.steps}
        had = job.definition.steps
        other = [step.name for step in had if today.get(step.name) != (step.worker, step.options)]
        if not other:
            return ""
        first = "" if job.state in TERMINAL else f"dittohead cancel {job.id}; "
        return (
            f", with the options it was claimed with; config.yaml has others by now for {', '.join(other)}. "
            f"To go by those: {first}dittohead rerun {job.id}"
        )

    async def _undone(self, job: Job, request: Request) -> str:
        """Record that somebody has taken back what the job had created outside."""
        event = Event(
            type=EventType.DELETION,
            outcome="success" if request.given.good else "warning",
            detail=f"undone by {request.who}: {request.given.what}",
            agent=AGENT,
        )
        await self.engine.store.write(job_store.mark_undone, job.id, event)
        await self._add_to_receipt(job, event)
        return f"{job.name}: recorded in its receipt"

    async def _note(self, job: Job, kind: EventType, detail: str) -> None:
        """Record an event of an ended job, also in its receipt."""
        event = Event(type=kind, outcome="success", detail=detail, agent=AGENT)
        await self.engine.store.write(job_store.add_events, job.id, [event])
        fail_points.point("replace.recorded")
        with contextlib.suppress(RequestRefused):  # somebody has edited it; the store has the event
            await self._add_to_receipt(job, event)

    async def _add_to_receipt(self, job: Job, event: Event) -> None:
        path = receipt.path_of(self.engine.stations.receipts, job)
        try:
            await asyncio.to_thread(receipt.add_event, path, event)
        except FileNotFoundError:  # moved elsewhere with its folder: the store has it
            return
        except Unreadable as error:
            raise RequestRefused(
                f"recorded in the store, but not in the receipt: {error.what}",
                where=error.where,
                hint="It was changed by hand: put back what the daemon had written, from a backup",
            ) from error

    def _must_be_active(self, job: Job) -> None:
        if job.state in TERMINAL:
            raise RequestRefused(f"{job.name} has ended ({job.state})", hint=f"dittohead show {job.id}")


def _reopen(connection: Connection, job: Job, positions: Collection[int], resumed: Collection[int]) -> None:
    job_store.reopen(connection, job.id, positions, resumed)
    if job.batch:
        batch_store.goes_on(connection, job.batch)
