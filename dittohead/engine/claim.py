"""From arrival to job: may this folder be taken now, and the claim itself."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from ulid import ULID

from dittohead.config import registry
from dittohead.config.loader import Config, Pipeline
from dittohead.config.registry import Registry
from dittohead.contract import placeholders
from dittohead.engine.disk_budget import DiskBudget, Lack, Need
from dittohead.engine.disks import Disks
from dittohead.engine.targets import Targets
from dittohead.engine.waiting_room import Promises, WaitingRoom
from dittohead.folders import lone_files, replacement, sidecar
from dittohead.folders.stations import Stations, owner_of
from dittohead.model import units
from dittohead.model.definition import JobDefinition, Refusal
from dittohead.model.errors import Immovable, ItemError, NameTaken, StationError, StationMissing
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.held import Held, HeldKind, immovable, silent, unreadable
from dittohead.model.records import Arrival, Batch, Job, JobId, collection_of
from dittohead.model.states import Station
from dittohead.model.text import display, host_name, is_utf8, rfc3339, shell_word, utcnow
from dittohead.store import Connection, Store, history
from dittohead.store import batches as batch_store
from dittohead.store import board as board_store
from dittohead.store import drops as drop_store
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store.jobs import NewJob
from dittohead.system import fail_points, log
from dittohead.system.files import kind_of
from dittohead.system.patterns import TooSlow
from dittohead.system.threads import Hung, Stop
from dittohead.system.users import Owner, owner

#: What could not be looked at is tried again after this. Seconds.
_AGAIN_S = 5.0

#: A file that has become a folder is found as that by the next scan, which its rename brings about. Seconds.
_WRAPPED_S = 1.0

#: Jobs of a collection that are made in one transaction: others wait for the store no longer than that takes.
_AT_ONCE = 100


@dataclass(kw_only=True)
class Claimer:
    """Takes arrivals into processing/, or says why not yet."""

    config: Config
    stations: Stations
    store: Store
    workers: Registry
    targets: Targets
    #: folders between their rename and the commit of their row
    claiming: set[bytes] = field(default_factory=set)
    #: folders whose name in processing/ is not free and that no run of a job will free, and why
    stuck: dict[bytes, str] = field(default_factory=dict)
    room: WaitingRoom = field(init=False)
    on_split: Callable[[], None] = lambda: None  #: some jobs of a collection have come
    _splitting: dict[bytes, asyncio.Task[None]] = field(default_factory=dict)
    #: what jobs and sources under way may still write under the root
    budget: DiskBudget = field(init=False)

    def __post_init__(self) -> None:
        self.waiting_room = WaitingRoom(self.stations)
        self.budget = DiskBudget(Disks(self.stations, lambda: self.config.settings.space.floor))

    async def claim(self, arrival: Arrival) -> Job | Batch | Held | None:
        """Claim an arrival: the durable rename, then its row; None when it has gone.

        Of a collection whose pipeline says `each: folder` the rows are those of its folders, and wait. A file
        whose pipeline says `files: folder` becomes a folder, which is an arrival by itself.

        A crash between the two leaves a folder in processing/ without a row, which the next start
        adopts.
        """
        try:
            matched = self.config.pipeline_for(display(arrival.folder)) if is_utf8(arrival.folder) else None
        except TooSlow:
            matched = None  # the job itself will say what is wrong
        needed = await self._admitted(arrival, matched)
        if not isinstance(needed, Need):
            return needed
        if (lack := self.budget.lacking(needed)) is not None:
            return self._without_space(needed, lack)
        self.claiming.add(arrival.folder)
        try:
            # In the loop's own thread: a rename and two fsyncs take less than a hop to another one
            # may, and nothing else is to happen between the decision and the claim.
            fail_points.point("claim.decided")
            if not self.stations.claim(arrival):
                return None
            self.waiting_room.forget(arrival.folder)
            # Whose it is, of the folder that was moved: the scan may have seen another of its name.
            status = self.stations.identity(Station.PROCESSING, arrival.folder)
            path = os.fsencode(self.stations.folder(Station.PROCESSING, arrival.folder))
            found = replace(arrival, dev=status.st_dev, ino=status.st_ino, uid=owner_of(path, status))
            taken = await self.adopt(found)
        except NameTaken:
            return Held(reason=await asyncio.to_thread(self._holder, arrival.folder), kind=HeldKind.NAMESAKE)
        except StationError as error:
            return _immovable(error, arrival)
        finally:
            self.claiming.discard(arrival.folder)
        self.budget.reserve(taken.id, needed)
        return taken

    async def _admitted(
        self, arrival: Arrival, matched: tuple[Pipeline, Mapping[str, str]] | None
    ) -> Need | Held | None:
        """Return what must be free for an arrival, why it cannot be taken yet, or None: it has gone."""
        try:
            if arrival.is_file:
                return await self._make_folder(arrival, matched)
            held = await self._waits_for_target(matched, arrival)
            return held or await self._needed(arrival, matched)
        except FileNotFoundError:
            return None
        except Hung:
            return replace(silent(), again_s=_AGAIN_S)
        except StationError as error:
            return _immovable(error, arrival)
        except OSError as error:  # of this one arrival, whatever it is
            folder = self.stations.folder(Station.INBOX, arrival.folder)
            return replace(unreadable(error, folder), again_s=_AGAIN_S)

    async def _make_folder(
        self, arrival: Arrival, matched: tuple[Pipeline, Mapping[str, str]] | None
    ) -> Held | None:
        """Make a folder of a file that has settled; return why it cannot be taken yet, or None: it has gone.

        While a folder of its name is under way it stays a file: a further one of the name can still take its
        place then, where `mv` would put that into the folder.
        Raises: StationError, OSError, Hung.
        """
        if matched is None or not matched[0].settings.files:  # another configuration by now
            return None
        if self.stations.exists(Station.PROCESSING, arrival.folder):
            return Held(reason=await asyncio.to_thread(self._holder, arrival.folder), kind=HeldKind.NAMESAKE)
        needed = await self._needed(arrival, matched)
        if isinstance(needed, Held):
            return needed
        if not await asyncio.to_thread(lone_files.wrap, self.stations, arrival):
            return None
        self.waiting_room.forget(arrival.folder)
        log.get().info(log.FILE_WRAPPED, name=display(arrival.folder), uid=arrival.uid)
        return Held(reason="it has become a folder", quiet=True, again_s=_WRAPPED_S)

    def _holder(self, folder: bytes) -> str:
        """Return, in words, what holds a folder's name in processing/. Blocking, but short."""
        if folder in self.stuck:
            return f"an earlier folder of this name cannot leave processing/: {self.stuck[folder]}"
        try:
            mode = self.stations.identity(Station.PROCESSING, folder).st_mode
        except OSError:
            return "an earlier folder of this name was being processed; it is looked at again"
        if not stat.S_ISDIR(mode):
            return f"a {kind_of(mode)} of this name lies in processing/, and is moved to failed/ in a minute"
        return "an earlier folder of this name is still being processed"

    async def adopt(self, arrival: Arrival) -> Job | Batch:
        """Make the job of a folder that lies in processing/, or those of a collection."""
        if collection_of(arrival.folder):
            return await self._adopt_of_batch(arrival)
        name, folders = await self._collection(arrival)
        if folders:
            batch = await self.store.write(self._create_batch, arrival, name)
            # Beside the loop's other claims: of thousands of folders it takes seconds.
            task = asyncio.create_task(self._split(batch, folders), name=f"split:{batch.id}")
            self._splitting[batch.folder] = task
            return batch
        arrival = await self._with_owner(arrival)
        job = await self.store.write(self._create, arrival, await self._known_owner(arrival.uid))
        log.get().info(log.JOB_CLAIMED, job=job.id, name=job.name, pipeline=job.pipeline, uid=arrival.uid)
        return job

    async def _with_owner(self, arrival: Arrival) -> Arrival:
        """Return an arrival with its owner: of a folder made of a file, who brought that before.

        The file may be the daemon's by now, where somebody replaced it.
        """
        if arrival.uid != os.geteuid() or not any(one.settings.files for one in self.config.pipelines):
            return arrival
        known = await self.store.read(history.owner, arrival.folder, arrival.ino)
        return arrival if known is None else replace(arrival, uid=known)

    async def _known_owner(self, uid: int) -> Owner | None:
        guarded = any(pipeline.settings.uploaders for pipeline in self.config.pipelines)
        return await asyncio.to_thread(owner, uid) if guarded else None

    async def _collection(self, arrival: Arrival) -> tuple[str, list[Arrival]]:
        """Return the name and the folders of a collection; no folders where it is to be one job."""
        name = display(arrival.folder)
        if not any(pipeline.settings.each for pipeline in self.config.pipelines):
            return name, []
        folders = await asyncio.to_thread(self.folders_in, arrival.folder)
        for first in folders[:1]:  # one that lay in done/ under another name gets its own back
            known = await self.store.read(history.original_name, first.folder, first.ino)
            name = (known or "").rpartition("/")[0] or name
        try:
            matched = self.config.pipeline_for(name) if is_utf8(arrival.folder) else None
        except TooSlow:
            matched = None
        splits = matched is not None and matched[0].settings.each is not None
        if not splits or await self.store.read(drop_store.is_of_source, arrival.ino):
            return name, []
        return name, folders

    def folders_in(self, collection: bytes) -> list[Arrival]:
        """Return the folders of a collection in processing/, in order; blocking."""
        found = []
        for folder in sorted(self.stations.listing(Station.PROCESSING, collection)):
            if self.stations.is_ignored(folder.rpartition(b"/")[2]):
                continue
            status = self.stations.identity(Station.PROCESSING, folder)
            found.append(
                Arrival(
                    folder=folder,
                    dev=status.st_dev,
                    ino=status.st_ino,
                    uid=status.st_uid,
                    seen_at=status.st_ctime,
                )
            )
        return found

    def _create_batch(self, connection: Connection, arrival: Arrival, name: str) -> Batch:
        matched = self.config.pipeline_for(name)
        batch = Batch(
            id=str(ULID()),
            name=name,
            folder=arrival.folder,
            dev=arrival.dev,
            ino=arrival.ino,
            uid=arrival.uid,
            pipeline=matched[0].name if matched is not None else "",
            claimed_at=utcnow(),
            whole=False,
            told="",
        )
        batch_store.create(connection, batch)
        log.get().info(log.COLLECTION_CLAIMED, batch=batch.id, name=batch.name, pipeline=batch.pipeline)
        return batch

    def is_taking(self, folder: bytes) -> bool:
        """Tell whether a folder is between its rename and its row, or the last row of its collection."""
        return folder in self.claiming or folder in self._splitting

    async def close(self) -> None:
        """Stop making jobs of collections; the next start goes on with it."""
        tasks = list(self._splitting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _split(self, batch: Batch, folders: Sequence[Arrival]) -> None:
        try:
            await self.split(batch, folders)
        except Exception as error:  # noqa: BLE001  # the comparison goes on with it, and says it again
            log.get().error(log.JOB_STUCK, name=batch.name, error=f"{type(error).__name__}: {error}")
        finally:
            self.budget.release(batch.id)
            del self._splitting[batch.folder]

    async def split(self, batch: Batch, folders: Sequence[Arrival]) -> int:
        """Make the jobs of a batch's folders that have none yet, some at a time; return how many.

        A crash in between leaves folders without a row and the batch not whole: the next comparison goes on.
        """
        await asyncio.to_thread(self.stations.forget_old_reasons, batch.folder)
        known = await self.store.read(batch_store.known, batch.folder)
        wanting = [arrival for arrival in folders if arrival.folder not in known]
        owners = {uid: await self._known_owner(uid) for uid in {arrival.uid for arrival in wanting}}
        for start in range(0, len(wanting), _AT_ONCE):
            some = wanting[start : start + _AT_ONCE]
            last = start + _AT_ONCE >= len(wanting)
            made = await self.store.write(self._create_some, batch, some, owners, last)
            self.budget.share(batch.id, made, len(wanting) - start)
            fail_points.point("claim.split")
            self.on_split()
        if not wanting and not batch.whole:
            await self.store.write(batch_store.set_whole, batch.id)
        return len(wanting)

    def _create_some(
        self,
        connection: Connection,
        batch: Batch,
        arrivals: Sequence[Arrival],
        owners: Mapping[int, Owner | None],
        last: bool,
    ) -> list[JobId]:
        """Make the jobs of some folders. With the last the batch is whole: its end is seen by their ends."""
        made = [self._create(connection, one, owners[one.uid], batch.id).id for one in arrivals]
        if batch.told:
            batch_store.goes_on(connection, batch.id)
        if last:
            batch_store.set_whole(connection, batch.id)
        return made

    async def _adopt_of_batch(self, arrival: Arrival) -> Job:
        """Make the job of one folder of a collection: of the batch that the collection was last."""
        collection = collection_of(arrival.folder)
        batch = await self.store.read(batch_store.of_name, collection)
        if batch is None:
            place = self.stations.identity(Station.PROCESSING, collection)
            whole = replace(arrival, folder=collection, dev=place.st_dev, ino=place.st_ino, uid=place.st_uid)
            batch = await self.store.write(self._create_batch, whole, display(collection))
            await self.store.write(batch_store.set_whole, batch.id)
        known_owner = await self._known_owner(arrival.uid)
        await self.store.write(batch_store.goes_on, batch.id)
        return await self.store.write(self._create, arrival, known_owner, batch.id)

    def _create(
        self, connection: Connection, arrival: Arrival, known_owner: Owner | None, batch: str = ""
    ) -> Job:
        # A folder that a finished job had left under another name gets its original one back.
        known = history.original_name(connection, arrival.folder, arrival.ino)
        name = known or display(arrival.folder)
        ready = datetime.fromtimestamp(arrival.seen_at, UTC)
        folder = self.stations.folder(Station.PROCESSING, arrival.folder)
        new = new_job(self.config, arrival, name, JobId(str(ULID())), known_owner, folder=folder)
        fields = board_store.fields(connection, self._kinds(), arrival.ino, name)
        new = replace(new, batch=batch, values={**fields, **new.values})
        origin = drop_store.claimed(connection, arrival.ino, new.id)
        if not origin and known is None:  # a folder that is done again came to us before
            who = request_store.dropped_by(connection, name, arrival.ino)
            origin = f"uploaded through the page by {who}" if who else ""
        events = _renamings(connection, name, arrival.ino) if known is None else []
        transfer = [Event(type=EventType.TRANSFER, outcome="success", detail=origin, agent=AGENT)]
        return job_store.create(
            connection,
            new,
            *(transfer if origin else ()),
            *events,
            *self._replaced(connection, arrival, folder),
            Event(
                type=EventType.INGESTION_START,
                outcome="success",
                detail=f"claimed from the inbox; owner uid {arrival.uid}, ready since {rfc3339(ready)}",
                agent=AGENT,
            ),
            waits=bool(batch),
        )

    def _kinds(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return what entries of each source are that has fields in its tokens, and those by default."""
        return {
            one.name: (registry.sources().get(one.kind).shows, one.options.fields)
            for one in self.config.sources
            if one.options.fields
        }

    def _replaced(self, connection: Connection, arrival: Arrival, folder: Path) -> list[Event]:
        """Return which files were replaced since the folder failed, and lie there still."""
        last, events = history.replaced_in(connection, arrival.folder, arrival.ino)
        there = replacement.in_place(self.stations, last, folder) if events else ()
        return [event for event in events if event.detail.startswith(tuple(there))]

    async def _waits_for_target(
        self, matched: tuple[Pipeline, Mapping[str, str]] | None, arrival: Arrival
    ) -> Held | None:
        if matched is None or not any(row.paused for row in self.targets.rows()):
            return None
        pipeline, groups = matched
        payload = str(self.stations.folder(Station.PROCESSING, arrival.folder))
        values = {
            "id": "0",
            "date": "0",
            "work": str(self.stations.work),
            "payload": payload,
            **await self.store.read(board_store.fields, self._kinds(), arrival.ino, display(arrival.folder)),
            **groups,
            "name": display(arrival.folder),
            **({"batch": display(arrival.folder)} if pipeline.settings.each else {}),
        }
        try:
            purposes = await self._asked(pipeline, groups, arrival)
        except ItemError:
            return None  # the job itself will say what is wrong
        if isinstance(purposes, Held):
            return purposes
        for step in pipeline.definition(purposes).steps:
            worker = self.workers.get(step.worker)
            try:
                filled = placeholders.render_options(step.options, values, worker)
                options = worker.Options.model_validate(filled)
            except (ItemError, ValidationError):
                return None  # as above
            for target in (worker.target(options), worker.room(options, step.options)):
                why = self.targets.paused(target) if target else None
                if why is not None:
                    return Held(reason=f"the target {target} is paused: {why}", kind=HeldKind.TARGET)
        return None

    async def _asked(
        self, pipeline: Pipeline, groups: Mapping[str, str], arrival: Arrival
    ) -> frozenset[str] | Held:
        if not pipeline.purposes or pipeline.settings.each:  # each of a collection's folders may ask
            return frozenset()
        folder = self.stations.folder(Station.INBOX, arrival.folder)

        def work(stop: Stop) -> frozenset[str]:
            return wanted(pipeline, groups, folder)

        return await self.waiting_room.beside(arrival, "purposes", work)

    async def _needed(
        self, arrival: Arrival, matched: tuple[Pipeline, Mapping[str, str]] | None
    ) -> Need | Held:
        """Return what must be free for an arrival that has settled, or why it has not."""
        watch = self.config.settings.watch
        own = matched[0].settings.partial if matched is not None else None
        factor = matched[0].space_factor if matched is not None else 0.0
        partial = watch.partial if own is None else own
        each = matched is not None and matched[0].settings.each is not None
        promises = _promises(matched)
        if not (watch.settle or partial or factor or each or arrival.is_file):
            return await self.waiting_room.is_complete(arrival, promises) or Need()
        size = await self.waiting_room.admit(arrival, watch, partial, each=each, promises=promises)
        return size if isinstance(size, Held) else Need(work=int(size * factor))

    def _without_space(self, needed: Need, lack: Lack) -> Held:
        # Others wait only where waiting helps: jobs under way will give room back.
        for_space = self.budget.is_promised and needed.on(lack.disk) < lack.capacity
        # Below the floor no folder is taken at all, and that is told by itself.
        is_told = self.budget.is_full
        place = lack.disk.place
        reason = f"needs {units.size(lack.size)} more free disk space under {place}"
        if for_space or is_told:
            return Held(reason=reason, kind=HeldKind.SPACE, for_space=for_space)
        return Held(
            reason=reason,
            kind=HeldKind.TOO_LARGE,
            cure="No job under way will free so much. Make room there, or set space_factor: of its pipeline",
            command=f"sudo du -xhd1 {shell_word(os.fsencode(place))}",
        )


def _promises(matched: tuple[Pipeline, Mapping[str, str]] | None) -> Promises:
    if matched is None:
        return Promises()
    settings = matched[0].settings
    return Promises(
        asked=settings.completeness, ignore=tuple(settings.ignore), each=settings.each is not None
    )


def _immovable(error: StationError, arrival: Arrival) -> Held:
    if isinstance(error, StationMissing):  # told by itself, and not this folder's fault
        return Held(reason=str(error))
    if not isinstance(error, Immovable):
        return Held(reason=str(error), kind=HeldKind.IMMOVABLE, since=arrival.seen_at)
    return immovable(error, arrival)


def _renamings(connection: Connection, name: str, ino: int) -> list[Event]:
    """Return the event of a folder that failed under another name, and was given this one."""
    before, who = request_store.renamed_from(connection, name, ino)
    detail = f"renamed from {before} by {who}"
    return [Event(type=EventType.RENAMING, outcome="success", detail=detail, agent=AGENT)] if before else []


def new_job(
    config: Config,
    arrival: Arrival,
    name: str,
    job_id: JobId,
    known_owner: Owner | None = None,
    *,
    folder: Path | None = None,
    pipeline: str | None = None,
) -> NewJob:
    """Return what the store is to know of a folder, by the current configuration.

    Args:
        name: the folder's original name.
        folder: where it lies, to be asked what it is for; None: only its name says so.
        known_owner: who it is that must be admitted by the pipeline; None for a job that was.
        pipeline: the one it is known to belong to; chosen by its name when None.
    """
    matched, refusal = None, None
    try:
        # Of a folder in a collection, by the name of the collection.
        matched = config.pipeline_for(name.rpartition("/")[0] or name) if is_utf8(arrival.folder) else None
    except TooSlow as error:
        refusal = _refused(error)
    if pipeline is not None and matched is not None and matched[0].name != pipeline:
        matched = None
    chosen, values = matched if matched is not None else (None, {})
    if chosen is None and refusal is None:
        refusal = _refusal(config, arrival.folder, name)
    purposes: frozenset[str] = frozenset()
    if chosen is not None:
        try:
            purposes = wanted(chosen, values, folder)
        except ItemError as error:
            refusal = _refused(error)
    if chosen is not None and known_owner is not None and not known_owner.may_use(chosen.settings.uploaders):
        refusal = _not_admitted(chosen, known_owner, name)
    if chosen is not None and chosen.settings.each and not collection_of(arrival.folder):
        refusal = _refused(_no_collection(chosen, name))
    definition = refusal if chosen is None or refusal is not None else chosen.definition(purposes)
    assert definition is not None  # noqa: S101  # without a pipeline there is a refusal
    return NewJob(
        id=job_id,
        name=name,
        folder=arrival.folder,
        dev=arrival.dev,
        ino=arrival.ino,
        uid=arrival.uid,
        pipeline=chosen.name if chosen else "",
        definition=definition,
        values=values,
        steps=[(step.name, step.worker) for step in definition.steps],
        host=host_name(),
    )


def _no_collection(pipeline: Pipeline, name: str) -> ItemError:
    return ItemError(
        f"the pipeline {pipeline.name} makes a job of each folder in a collection, and there is none in it",
        where=name,
        hint="Put what belongs together into folders of this one, then move it to the inbox again. What a "
        "source drops is never split: let its folders' names fit another pipeline",
    )


def wanted(pipeline: Pipeline, values: Mapping[str, str], folder: Path | None) -> frozenset[str]:
    """Return the purposes a folder asks for: by the group `purpose` of the match, or by its side-car.

    Args:
        pipeline: the one it goes through; without purposes of its own nothing is read.
        values: the named groups of the match.
        folder: where it lies, for its side-car; None: only its name counts.

    Raises: ItemError: it asks for what the pipeline does not do, or for two different things.
    """
    named = frozenset(re.findall(r"[^\s,+]+", values.get("purpose", "")))
    if not pipeline.purposes:
        return frozenset()
    asked = frozenset() if folder is None else sidecar.purposes(folder)
    if named and asked and named != asked:
        raise ItemError(
            f"the folder's name asks for {_words(named)}, and the file in it for {_words(asked)}",
            where=sidecar.NAME,
            hint="Let one of them go, then move the folder to the inbox again",
        )
    unknown = sorted((named | asked) - pipeline.purposes)
    if unknown:
        raise ItemError(
            f"the pipeline {pipeline.name} has nothing for {_words(unknown)}",
            where=sidecar.NAME if asked else "the folder's name",
            hint=f"Ask for {_words(pipeline.purposes, 'or')}, then move the folder to the inbox again",
        )
    return named | asked


def _words(purposes: Iterable[str], joined: str = "and") -> str:
    return f" {joined} ".join(sorted(purposes))


def _refused(error: ItemError) -> JobDefinition:
    return JobDefinition(refusal=Refusal(what=error.what, where=error.where, hint=error.hint))


def _refusal(config: Config, folder: bytes, name: str) -> JobDefinition:
    command = f"`dittohead rename {shell_word(os.fsencode(name))} NEWNAME`"
    if is_utf8(folder) and collection_of(folder):
        again = "Then move it to the inbox again"
        return _refused(config.no_pipeline(name, f"Rename failed/{display(collection_of(folder))}", again))
    if is_utf8(folder):
        return _refused(config.no_pipeline(name, "Rename it", f"Type: {command}"))
    hint = f"Give it a name that is: {command}"
    if collection_of(folder):
        hint = "Give it a name that is, where it lies, then move the collection to the inbox again"
    return _refused(ItemError("the folder's name is not UTF-8 text", where=name, hint=hint))


def _not_admitted(pipeline: Pipeline, known_owner: Owner, name: str) -> JobDefinition:
    what = (
        f"its owner, {known_owner.user}, may not use the pipeline {pipeline.name}: "
        f"that is for {', '.join(pipeline.settings.uploaders)}"
    )
    hint = "Have one of those upload it, or rename it for another pipeline; then move it to the inbox again"
    return _refused(ItemError(what, where=name, hint=hint))
