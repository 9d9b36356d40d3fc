"""Bring store and stations together: the directory decides where a folder is, the store how far it got."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterator

from dittohead.engine import batches
from dittohead.engine.claim import Claimer
from dittohead.engine.engine import Engine
from dittohead.engine.finish import finish, leave_processing
from dittohead.folders import lone_files
from dittohead.folders.stations import owner_of
from dittohead.model.definition import Failure
from dittohead.model.errors import DittoheadError, NameTaken, StationError, StoreError
from dittohead.model.records import Arrival, Batch, Job, collection_of
from dittohead.model.states import ACTIVE, JobState, Outcome, Station
from dittohead.model.text import display
from dittohead.store import batches as batch_store
from dittohead.store import history
from dittohead.store import jobs as job_store
from dittohead.system import log

#: Failures whose folders are searched for in one round; the latest.
_LOOKED_AT = 1000


async def reconcile(engine: Engine, claimer: Claimer, running: Collection[str]) -> int:
    """Repair every difference that a crash or an admin's `mv` left; return how many there were.

    A claim without a row is adopted; a finished row whose folder has not moved is moved; a
    reopened job's folder is fetched; a folder that an admin moved out of processing/ cancels its
    job; what is not a folder is moved to failed/, so that it holds no name. Jobs in `running` are left
    alone. A folder that cannot be brought to where it belongs holds up no other: `claimer.stuck` says why.

    Args:
        claimer: adopts claims without a row; its `stuck` is written.
        running: ids of the jobs that run now.

    Raises: StoreError; OSError: processing/ cannot be read.
    """
    async with engine.folders:
        return await _mend(engine, claimer, running)


async def _mend(engine: Engine, claimer: Claimer, running: Collection[str]) -> int:
    mended = 0
    with contextlib.suppress(OSError):  # without an inbox there is nothing of it to be done
        mended += await asyncio.to_thread(lone_files.finish_all, engine.stations)
    stuck: dict[bytes, str] = {}
    for job in await engine.store.read(job_store.unmoved):
        if job.id in running:
            continue
        with _alone(claimer, job.folder, stuck, job=job.id, name=job.name):
            await leave_processing(engine.store, engine.stations, job)
            mended += 1
    mended += await _gone(engine)
    active = await engine.store.read(job_store.active)
    collections = {collection_of(job.folder) for job in active}
    were_there = await engine.store.read(batch_store.in_processing)  # before the listing: one may come
    present, unlisted = await asyncio.to_thread(_listed, engine, Station.PROCESSING, collections)
    for collection, error in unlisted.items():
        with _alone(claimer, collection, stuck, name=display(collection)):
            raise error
    # Of those where its folder is, nobody knows.
    for job in (job for job in active if collection_of(job.folder) not in unlisted):
        if job.id not in running and job.folder not in present:
            with _alone(claimer, job.folder, stuck, job=job.id, name=job.name):
                await _absent(engine, job)
                mended += 1
    for collection in were_there - present:
        await _left(engine, collection)
    mended += await _adopt_all(engine, claimer, present, stuck)
    mended += await _batches(engine, claimer, stuck)
    for folder in await asyncio.to_thread(engine.stations.strays):
        if not claimer.is_taking(folder) and not engine.stations.is_ignored(folder):
            with _alone(claimer, folder, stuck, name=display(folder)):
                mended += await _put_aside(engine, folder)
    claimer.stuck = stuck
    return mended


async def _left(engine: Engine, collection: bytes) -> None:
    """Note that a collection's directory has left processing/."""
    if not await asyncio.to_thread(engine.stations.exists, Station.PROCESSING, collection):
        await engine.store.write(batch_store.left, collection)


async def _adopt_all(engine: Engine, claimer: Claimer, present: set[bytes], stuck: dict[bytes, str]) -> int:
    """Make jobs of the folders that lie in processing/ and belong to no job."""
    mended = 0
    # A row is written right after its folder came: what is being claimed is noted between the
    # listing and the reading of the rows, so that each folder listed is in one of them.
    claiming = set(claimer.claiming)
    rows = [*await engine.store.read(job_store.active), *await engine.store.read(job_store.unmoved)]
    # One whose state is damaged may be under way: its folder must not be mistaken for one without a job.
    unknown = await engine.store.read(job_store.unknown)
    owned = claiming | {job.folder for job in rows} | set(unknown)
    owned |= {collection_of(folder) for folder in owned}
    for folder in sorted(present - owned):
        if engine.stations.is_ignored(folder.rpartition(b"/")[2]):  # a file server's own, in every directory
            continue
        if claimer.is_taking(folder) or claimer.is_taking(collection_of(folder)):
            continue
        with _alone(claimer, folder, stuck, name=display(folder)):
            mended += await _adopt(engine, claimer, folder)
    return mended


async def _batches(engine: Engine, claimer: Claimer, stuck: dict[bytes, str]) -> int:
    """Split collections to the end, and report those that have ended, where a crash came in between."""
    mended = 0
    for batch in await engine.store.read(batch_store.split):
        if not claimer.is_taking(batch.folder):
            with _alone(claimer, batch.folder, stuck, name=batch.name):
                mended += await _split(engine, claimer, batch)
    for batch in await engine.store.read(batch_store.untold):
        await batches.ended(engine, batch.id)
    return mended


def _listed(
    engine: Engine, station: Station, collections: set[bytes]
) -> tuple[set[bytes], dict[bytes, OSError]]:
    """Return the folders in a station and those in collections there; and which cannot be listed. Blocking.

    Raises: OSError: the station itself cannot be.
    """
    there, unlisted = set(engine.stations.listing(station)), {}
    for collection in collections & there:
        try:
            there.update(engine.stations.listing(station, collection))
        except FileNotFoundError:  # moved away in this moment
            continue
        except OSError as error:
            unlisted[collection] = error
    return there, unlisted


@contextlib.contextmanager
def _alone(claimer: Claimer, folder: bytes, stuck: dict[bytes, str], **about: str) -> Iterator[None]:
    """Have what goes wrong around one folder end only that; why it is stuck is said where its name appears.

    Raises: StoreError: it is not this folder that is at fault.
    """
    try:
        yield
    except StoreError:
        raise
    except (DittoheadError, OSError) as error:
        stuck[folder] = str(error)
        if claimer.stuck.get(folder) != stuck[folder]:  # said once
            log.get().error(log.JOB_STUCK, **about, error=str(error))
    except Exception as error:  # noqa: BLE001  # around one folder: a defect holds up nobody else
        stuck[folder] = f"{type(error).__name__}: {error}"
        if claimer.stuck.get(folder) != stuck[folder]:
            log.get().exception(log.JOB_STUCK, **about, error=str(error))


async def _put_aside(engine: Engine, name: bytes) -> int:
    """Free a name in processing/ that is held by what is not a folder."""
    try:
        aside = await asyncio.to_thread(engine.stations.put_aside, name)
    except FileNotFoundError:
        return 0
    log.get().warning(log.STRAY_MOVED, name=display(name), folder=display(aside))
    return 1


async def _gone(engine: Engine) -> int:
    """Note which failed folders have left failed/, or are back in it; return how many changed.

    What is no longer there waits for nobody. One listing answers for all of them.
    """
    jobs = await engine.store.read(history.may_be_gone, _LOOKED_AT)
    if not jobs:
        return 0
    try:
        collections = {collection_of(job.folder) for job in jobs} - {b""}
        there, unlisted = await asyncio.to_thread(_listed, engine, Station.FAILED, collections)
    except OSError:  # the station itself is not to be seen: that says nothing of the folders
        return 0
    changed = 0
    for job in jobs:
        if collection_of(job.folder) in unlisted:
            continue
        # By name alone: a root that was copied to another disk has other inodes, and overlayfs changes them.
        now = Outcome.NONE if job.folder in there else Outcome.GONE
        if now is not job.outcome:
            changed += await engine.store.write(job_store.set_outcome, job.id, now, (job.outcome,))
            log.get().info(log.JOB_GONE, job=job.id, name=job.name, gone=now is Outcome.GONE)
    return changed


async def _absent(engine: Engine, job: Job) -> None:
    if job.station in (Station.DONE, Station.FAILED):
        await fetch(engine, job)
        return
    current = await engine.store.read(job_store.get, job.id)
    if current.state not in ACTIVE or engine.stations.exists(Station.PROCESSING, job.folder):
        return  # it ended while we looked
    taken, _, _ = await engine.store.write(job_store.begin_run, job.id, ACTIVE)
    error = Failure(
        what="the folder was moved out of processing/ by hand, which cancels its job",
        where=job.name,
        hint=f"To process it, move it{_within(job)} to {engine.stations.path(Station.INBOX)}",
        kind="cancelled",
    )
    log.get().warning(log.JOB_CANCELLED, job=job.id, name=job.name, reason=error.what)
    await finish(engine, taken, JobState.FAILED, error)


def _within(job: Job) -> str:
    """Return in what a folder of a collection is to be moved; "" for one that was dropped by itself."""
    return f", in a folder called {display(collection_of(job.folder))}," if job.batch else ""


async def fetch(engine: Engine, job: Job) -> None:
    """Bring a reopened job's folder from done/ or failed/ back to processing/.

    Raises: NameTaken, FileNotFoundError, StationError.
    """
    try:
        await asyncio.to_thread(engine.stations.bring_back, job.station, job.folder, Station.PROCESSING)
    except (NameTaken, FileNotFoundError, StationError) as error:
        log.get().warning(log.CLAIM_REFUSED, job=job.id, name=job.name, reason=str(error))
        taken, _, _ = await engine.store.write(job_store.begin_run, job.id, ACTIVE)
        failure = Failure(
            what="the folder could not be brought back to processing/",
            where=str(engine.stations.folder(job.station, job.folder)),
            hint="See that it lies there and that no other folder of its name is in processing/, "
            f"then: dittohead retry {job.id}",
        )
        # It never left its station: only the row goes back.
        await engine.store.write(
            job_store.finish,
            taken.id,
            taken.token,
            state=JobState.FAILED,
            reason=failure.what,
            error=failure,
            finished_at=taken.claimed_at.timestamp(),
            failed_step=None,
        )
        raise
    await engine.store.write(job_store.moved, job.id, Station.PROCESSING, job.folder)
    log.get().info(log.JOB_REOPENED, job=job.id, name=job.name)


async def _adopt(engine: Engine, claimer: Claimer, folder: bytes) -> int:
    try:
        status = engine.stations.identity(Station.PROCESSING, folder)
    except FileNotFoundError:
        return 0
    path = os.fsencode(engine.stations.folder(Station.PROCESSING, folder))
    arrival = Arrival(
        folder=folder,
        dev=status.st_dev,
        ino=status.st_ino,
        uid=owner_of(path, status),
        seen_at=status.st_ctime,
    )
    batch = await engine.store.read(batch_store.of_directory, folder, status.st_ino)
    if batch is None and status.st_uid == os.geteuid():
        batch = await _made_for(engine, claimer, folder)
    if batch is not None:  # its folders have all left it, but for those that came later
        await _split(engine, claimer, batch)
        await batches.clear_up(engine.store, engine.stations, folder)
        return 1
    taken = await claimer.adopt(arrival)
    log.get().warning(log.CLAIM_ADOPTED, job=taken.id, name=taken.name)
    return 1


async def _made_for(engine: Engine, claimer: Claimer, collection: bytes) -> Batch | None:
    """Return the batch for whose folder, which came back, we had made a directory; None: it is new."""
    batch = await engine.store.read(batch_store.of_name, collection)
    if batch is None:
        return None
    folders = await asyncio.to_thread(claimer.folders_in, collection)
    inodes = [folder.ino for folder in folders[:_LOOKED_AT]]
    if await engine.store.read(batch_store.came_back, batch.id, inodes):
        return batch
    empty = not folders and not await asyncio.to_thread(
        engine.stations.beside, Station.PROCESSING, collection
    )
    return batch if empty else None


async def _split(engine: Engine, claimer: Claimer, batch: Batch) -> int:
    """Make the jobs of a collection's folders that have none: a crash came in between, or they came later."""
    try:
        folders = await asyncio.to_thread(claimer.folders_in, batch.folder)
    except FileNotFoundError:  # moved away by an admin: its jobs are cancelled one by one
        folders = []
    return await claimer.split(batch, folders)
