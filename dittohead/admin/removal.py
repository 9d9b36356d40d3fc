"""Folders that leave done/ or failed/ for good: when their time has come, or when somebody asks for it.

The rule in config.yaml, or the person who approves, decides that a folder goes. Whether it may is found out
by reading: its copies are compared with its receipt, and each of its files must have been delivered,
or something made of it. The receipt stays, with an event of who removed the folder and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dittohead.admin.fixity import Compare, fixity_of, words
from dittohead.admin.verify import Reading
from dittohead.config.loader import Config
from dittohead.config.registry import Registry
from dittohead.engine.engine import Engine
from dittohead.engine.supervisor import alone
from dittohead.folders import receipt
from dittohead.model.definition import JobDefinition
from dittohead.model.errors import DittoheadError, StoreError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.paths import path_bytes
from dittohead.model.records import Job, collection_of
from dittohead.model.shown import ShownDeletion
from dittohead.model.states import TERMINAL, Action, Fixity, JobState
from dittohead.model.text import counted, display, visible
from dittohead.model.units import duration
from dittohead.store import Connection, custody, queries
from dittohead.store import jobs as job_store
from dittohead.store.custody import Custody
from dittohead.store.requests import Request
from dittohead.system import fail_points, files, log
from dittohead.system.threads import Stop, in_thread
from dittohead.system.waiting import event_or_time

#: Between two rounds; the first comes soon after the start. Seconds.
_ROUND_S, _FIRST_S = 600.0, 5.0

#: A folder that could not be removed is looked at again after this time. Seconds.
_AGAIN_S = 86_400.0

#: Folders removed in one round of one pipeline.
_PAGE = 50

#: Files that a reason names.
_NAMED = 5


class Stays(DittoheadError):
    """A folder is not removed; says why."""


@dataclass(frozen=True, kw_only=True)
class _Why:
    """Who has a folder removed, in words, and whether its copies are compared first."""

    text: str
    verified: bool


class Removal:
    """Makes rounds, and takes what people ask for.

    Args:
        config: the configuration in force.
        compare: looks at one job's copies.
    """

    def __init__(self, engine: Engine, config: Callable[[], Config], compare: Compare) -> None:
        self._engine, self._config, self._compare = engine, config, compare
        self._put_off: dict[str, float] = {}  #: job -> not looked at again before, by time.monotonic
        self._wake = asyncio.Event()
        self.pending: list[ShownDeletion] = []  #: for readers: what another person has to approve
        self.handlers: Mapping[str, Callable[[Request], Awaitable[str]]] = {
            Action.DELETE: self._delete,
            Action.APPROVE: self._approve,
            Action.KEEP: self._keep,
        }

    async def run(self) -> None:
        """Make rounds until cancelled."""
        wait = _FIRST_S
        while True:
            await event_or_time(self._wake, wait)
            self._wake.clear()
            wait = _ROUND_S
            for task in (self.unfinished_round, self.asked_round, self.due_round):
                await alone("removal", task)

    # -- rounds ------------------------------------------------------------------------------

    async def unfinished_round(self) -> None:
        """Go on with what a daemon before had begun."""
        for job in await self._engine.store.read(custody.being_removed):
            await self._one(job, self._go_on)

    async def asked_round(self) -> None:
        """Remove what people have asked for, where nobody else has to approve it any more."""
        await self._tell()
        for job, known in await self._engine.store.read(custody.asked):
            if known.approved_by:
                why = _Why(text=_asked_words(known), verified=not known.unverified)
                await self._one(job, lambda job, why=why: self._remove(job, why))  # type: ignore[misc]

    async def _tell(self) -> None:
        self.pending = [
            {
                "job": job.id,
                "name": job.name,
                "by": known.asked_by,
                "why": known.asked_why,
                "at": known.asked_at,
            }
            for job, known in await self._engine.store.read(custody.asked)
            if not known.approved_by
        ]

    async def due_round(self) -> None:
        """Remove what has lain in done/ for as long as its pipeline says."""
        for pipeline in self._config().pipelines:
            keep = pipeline.keep_done_s
            if keep is None:
                continue
            now = time.monotonic()
            self._put_off = {job: until for job, until in self._put_off.items() if until > now}
            place = (pipeline.name, time.time() - keep, list(self._put_off), _PAGE)
            why = _Why(text=f"keep_done of the pipeline {pipeline.name}: {duration(keep)}", verified=True)
            for job in await self._engine.store.read(custody.to_remove, *place):
                await self._one(job, lambda job, why=why: self._remove(job, why))  # type: ignore[misc]

    async def _one(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        """Do one folder: what is wrong with it holds up no other. Raises: StoreError."""
        try:
            await work(job)
        except StoreError:
            raise
        except (DittoheadError, OSError) as error:
            await self._stays(job, str(error))
        except Exception as error:  # noqa: BLE001  # around one folder
            log.get().exception(log.JOB_STAYS, job=job.id, name=job.name, reason=str(error))
            await self._stays(job, f"{type(error).__name__}: {error}")

    async def _stays(self, job: Job, why: str) -> None:
        """Note why a folder was not removed; who asked for it has to ask again."""
        self._put_off[job.id] = time.monotonic() + _AGAIN_S
        values = {"stays": why, "asked_at": None, "approved_by": "", "unverified": 0}
        await self._engine.store.write(custody.put, job.id, **values)
        log.get().warning(log.JOB_STAYS, job=job.id, name=job.name, reason=why)

    # -- one folder --------------------------------------------------------------------------

    async def _remove(self, job: Job, why: _Why) -> None:
        # 1 compare  2 intent  3 rename aside, durable  4 changed meanwhile? then back  5 receipt  6 remove
        # 7 commit.  `unfinished_round` goes on after a crash: forward after 5, back before it.
        stations = self._engine.stations
        folder = stations.folder(job.station, job.folder)
        if not await in_thread(lambda stop: _is_there(folder, job.ino)):
            await self._engine.store.write(
                custody.put,
                job.id,
                removed_at=time.time(),
                removed_why="it was no longer there",
                asked_at=None,
            )
            return
        began = await in_thread(lambda stop: _moment(folder))
        if job.state is JobState.DONE and why.verified:
            await self._must_be_kept_elsewhere(job)
        await in_thread(lambda stop: _must_be_removable(folder, stop))
        async with self._engine.folders:
            await self._must_be_the_same(job)
            await self._engine.store.write(custody.put, job.id, removed_why=why.text, stays="")
            fail_points.point("removal.intent")
            try:
                await asyncio.to_thread(stations.set_aside, job.station, job.folder, job.id)
            except (DittoheadError, OSError):
                await self._engine.store.write(custody.put, job.id, removed_why="")
                raise
        aside = stations.folder(job.station, stations.aside(job.folder, job.id))
        changed = await in_thread(lambda stop: _changed_since(aside, began, stop)) if why.verified else ""
        if changed:
            await self._back(job)
            raise Stays(f"{changed} was changed while its copies were compared", where=str(folder))
        fail_points.point("removal.aside")
        await self._finish(job, aside, why.text)

    async def _go_on(self, job: Job) -> None:
        """Go on with a folder that was being removed when the daemon ended."""
        stations = self._engine.stations
        aside = stations.folder(job.station, stations.aside(job.folder, job.id))
        known = await self._engine.store.read(custody.get, job.id)
        path = receipt.path_of(stations.receipts, job)
        if await asyncio.to_thread(_is_noted, path, _event(job, known.removed_why)):
            await self._finish(job, aside, known.removed_why)
        elif os.path.lexists(aside):
            await self._back(job)
        else:
            await self._engine.store.write(custody.put, job.id, removed_why="")  # it had not begun

    async def _finish(self, job: Job, aside: Path, why: str) -> None:
        event = _event(job, why)
        path = receipt.path_of(self._engine.stations.receipts, job)
        if not await asyncio.to_thread(_is_noted, path, event):
            await asyncio.to_thread(receipt.add_event, path, event)
        fail_points.point("removal.noted")
        await in_thread(lambda stop: _remove_tree(aside, stop))
        if collection_of(job.folder):
            await asyncio.to_thread(self._engine.stations.clear, job.station, collection_of(job.folder))
        fail_points.point("removal.removed")

        def work(connection: Connection) -> None:
            job_store.add_events(connection, job.id, [event])
            custody.put(connection, job.id, removed_at=time.time(), asked_at=None, stays="")

        await self._engine.store.write(work)
        log.get().info(log.JOB_REMOVED, job=job.id, name=job.name, station=job.station.value, reason=why)

    async def _back(self, job: Job) -> None:
        """Let a folder that was set aside lie where it lay."""
        name = await asyncio.to_thread(self._engine.stations.put_back, job.station, job.folder, job.id)

        def work(connection: Connection) -> None:
            job_store.moved(connection, job.id, job.station, name)
            custody.put(connection, job.id, removed_why="")

        await self._engine.store.write(work)

    async def _must_be_kept_elsewhere(self, job: Job) -> None:
        """See that its copies are as the receipt says, and that nothing of it lies here alone."""
        report = await self._compare(job, Reading())
        if fixity_of(report) is not Fixity.GOOD:
            raise Stays(f"its copies are not all as the receipt says: {words(report)}", where=job.name)
        path = receipt.path_of(self._engine.stations.receipts, job)
        alone = await asyncio.to_thread(
            lambda: only_here(receipt.read(path), job.definition, self._engine.workers)
        )
        if alone:
            named = ", ".join(visible(display(one)) for one in alone[:_NAMED])
            more = f" and {len(alone) - _NAMED:,} more" if len(alone) > _NAMED else ""
            raise Stays(
                f"{counted(len(alone), 'file')} of it were delivered nowhere: {named}{more}",
                where=job.name,
                hint="Deliver them too, or name them in `ignore:` of the pipeline",
            )

    async def _must_be_the_same(self, job: Job) -> None:
        now = await self._engine.store.read(job_store.get, job.id)
        if (now.state, now.station, now.folder, now.token) != (job.state, job.station, job.folder, job.token):
            raise Stays("it was taken up again meanwhile", where=job.name)

    # -- what people ask for -----------------------------------------------------------------

    async def _delete(self, request: Request) -> str:
        job = await self._ended(request)
        why = visible(str(request.args.get("reason") or "")).strip()
        if not why:
            raise Stays("a reason is needed", where=job.name, hint="dittohead delete JOB --reason TEXT")
        folder = self._engine.stations.folder(job.station, job.folder)
        if not await in_thread(lambda stop: _is_there(folder, job.ino)):
            raise Stays("its folder is no longer there", where=str(folder))
        needs = self._config().settings.needs_approval
        values: dict[str, Any] = {
            "asked_at": time.time(),
            "asked_by": request.who,
            "asked_why": why,
            "approved_by": "" if needs else request.who,
            "unverified": int(bool(request.args.get("unverified"))),
            "stays": "",
        }
        await self._engine.store.write(custody.put, job.id, **values)
        await self._tell()
        if needs:
            return f"{job.name}: another person has to approve it: dittohead approve {job.id}"
        self._wake.set()
        return self._soon(job, bool(values["unverified"]))

    async def _approve(self, request: Request) -> str:
        job = await self._ended(request)
        known = await self._asked_of(job)
        if known.approved_by:
            return f"{job.name}: was approved already, by {known.approved_by}"
        if known.asked_by == request.who:
            raise Stays(
                f"{request.who} asked for it, so another person has to approve it",
                where=job.name,
                hint=f"To keep the folder: dittohead keep {job.id}",
            )
        await self._engine.store.write(custody.put, job.id, approved_by=request.who)
        await self._tell()
        self._wake.set()
        return self._soon(job, known.unverified)

    async def _keep(self, request: Request) -> str:
        job = await self._ended(request)
        known = await self._asked_of(job)
        stays = f"{request.who} keeps it"
        await self._engine.store.write(custody.put, job.id, asked_at=None, approved_by="", stays=stays)
        await self._tell()
        return f"{job.name}: stays in {job.station.value}/; {known.asked_by} had asked to delete it"

    @staticmethod
    def _soon(job: Job, unverified: bool) -> str:
        if job.state is JobState.DONE and not unverified:
            return f"{job.name}: is removed as soon as its copies are compared with the receipt once more"
        return f"{job.name}: is removed now"

    async def _asked_of(self, job: Job) -> Custody:
        known = await self._engine.store.read(custody.get, job.id)
        if known.asked_at is None or known.removed_at is not None:
            raise Stays("nobody has asked to delete it", where=job.name)
        return known

    async def _ended(self, request: Request) -> Job:
        job = await self._engine.store.read(queries.resolve, request.job, ())
        if job.state not in TERMINAL:
            raise Stays(f"{job.name} has not ended ({job.state})", hint=f"dittohead show {job.id}")
        return job


def _event(job: Job, why: str) -> Event:
    where = f"{job.station.value}/{display(job.folder)}"
    detail = f"{job_store.REMOVED} {where}, {counted(job.files, 'file')}, {job.size:,} bytes: {why}"
    return Event(type=EventType.DELETION, outcome="success", detail=visible(detail), agent=AGENT)


def _asked_words(known: Custody) -> str:
    approved = f", approved by {known.approved_by}" if known.approved_by != known.asked_by else ""
    unverified = ", whatever its copies are like" if known.unverified else ""
    return f"{known.asked_by}{approved}{unverified}: {known.asked_why}"


# -- what lies nowhere else ----------------------------------------------------------------------


def only_here(fields: Mapping[str, Any], definition: JobDefinition, workers: Registry) -> list[bytes]:
    """Return the folder's files of which neither they nor something made of them was delivered, sorted.

    Files that no step was given (`ignore:`) do not count.

    Args:
        fields: of the receipt.
        definition: the job's, with what each step took.
        workers: of its steps.
    """
    own = {path_bytes(one) for one in fields["manifest"]["files"] if not one.get("ignored")}
    origins: dict[str, dict[bytes, frozenset[bytes]]] = {"": {path: frozenset([path]) for path in own}}
    for step in definition.steps:
        taken = origins.get(step.source, {})
        made = origins.setdefault(step.name, {})
        outputs = [output for output in fields["outputs"] if output["step"] == step.name]
        # One of several is a tag file or a METS document, which holds none of the others.
        holds_all = len(outputs) == 1 and _packs(step.worker, workers)
        for output in outputs:
            made[path_bytes(output)] = _origin(output, taken, holds_all)
    delivered: set[bytes] = set()
    for step in definition.steps:
        taken = origins.get(step.source, {})
        for one in fields["locations"]:
            if one["step"] == step.name and not one.get("use"):
                found = taken.get(receipt.read_location(one).path)
                delivered |= found if found is not None else frozenset()
    return sorted(own - delivered)


def _origin(
    output: dict[str, Any], taken: Mapping[bytes, frozenset[bytes]], holds_all: bool
) -> frozenset[bytes]:
    source = receipt.read_output(output).source
    if source:
        return taken.get(source, frozenset())
    return frozenset().union(*taken.values()) if holds_all else frozenset()


def _packs(worker: str, workers: Registry) -> bool:
    try:
        return workers.get(worker).packs
    except LookupError:
        return False


# -- the folder on disk; all of it blocking ------------------------------------------------------


def _is_there(folder: Path, ino: int) -> bool:
    try:
        status = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_ino == ino


def _moment(folder: Path) -> int:
    """Return what time it is for the file system of a folder, in nanoseconds: a server's clock is its own."""
    probe = folder.parent / f".{folder.name[:100]}.moment"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        return os.lstat(probe).st_ctime_ns
    finally:
        probe.unlink(missing_ok=True)


def _changed_since(folder: Path, began_ns: int, stop: Stop) -> str:
    """Return a file or directory in a folder that came or changed since a moment, or in it; "" for none."""
    for item in _all(os.fsencode(folder), stop):
        if item.stat(follow_symlinks=False).st_ctime_ns >= began_ns:
            return visible(display(os.path.relpath(item.path, os.fsencode(folder))))
    return ""


def _must_be_removable(folder: Path, stop: Stop) -> None:
    """See that all directories may be emptied. Raises: Stays, OSError."""
    top = os.fsencode(folder)
    closed = next(
        (
            item.path
            for item in _all(top, stop)
            if item.is_dir(follow_symlinks=False) and not _open(item.path)
        ),
        None,
    )
    if closed is None and not _open(top):
        closed = top
    if closed is not None:
        raise Stays(
            "the daemon may not remove what lies in this directory",
            where=display(closed),
            hint="Give its user the right to write there, or remove the folder by hand",
        )


def _open(path: bytes) -> bool:
    return os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)


def _all(top: bytes, stop: Stop) -> Iterator[os.DirEntry[bytes]]:
    """Yield all that lies below a directory, in no order, with no link followed."""
    waiting = [top]
    while waiting:
        stop.check()
        with os.scandir(waiting.pop()) as listed:
            for entry in listed:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _remove_tree(folder: Path, stop: Stop) -> None:
    stop.check()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)  # it follows no link: rmtree.avoids_symlink_attacks holds on Linux
    files.fsync_dir(folder.parent)


def _is_noted(path: Path, event: Event) -> bool:
    """Tell whether a receipt says that the folder was removed: then it is to go, whatever happens."""
    known = receipt.read(path)["events"]
    return any(one["type"] == event.type.value and one["detail"] == event.detail for one in known)
