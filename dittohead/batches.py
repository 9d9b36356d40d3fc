"""A batch: a collection that was dropped as one, whose folders are a job each.

The collection's directory stays in processing/ until the last of its folders has left it: each goes to
done/COLLECTION/ or failed/COLLECTION/ by itself. What lies beside the folders goes with them in the end.
"""

from __future__ import annotations

import asyncio
import contextlib

from sqlalchemy.engine import Connection

from dittohead import log
from dittohead.engine import Engine
from dittohead.model import Batch, Job, Station, collection_of, display
from dittohead.stations import Stations, fit
from dittohead.store import Store
from dittohead.store import batches as batch_store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice

#: Failures that a notice names.
NAMED = 50


async def lies_under(store: Store, job: Job, station: Station) -> bytes:
    """Return the name of the collection's directory in done/ or failed/ that a job's folder is to lie in.

    That of the collection, unless a folder that was dropped by itself has it: then with the batch's time.
    """
    collection = collection_of(job.folder)
    if not await store.read(batch_store.has_station, station, collection):
        return collection
    batch = await store.read(batch_store.get, job.batch)
    moment = batch.claimed_at if batch is not None else job.claimed_at
    return fit(collection, moment.strftime(".%Y%m%dT%H%M%SZ").encode())


async def clear_up(store: Store, stations: Stations, collection: bytes) -> None:
    """Remove a collection's directory from processing/ when its folders have left it.

    What lies beside them is moved to done/, where the collection lies there, else to failed/. Folders that
    came later stay: they are adopted. Harmless to repeat.

    Raises: StationError, OSError: something cannot be moved.
    """
    if await asyncio.to_thread(_holds_folders, stations, collection):
        return
    batch = await store.read(batch_store.of_name, collection)
    if batch is not None and not batch.whole:
        return
    with contextlib.suppress(FileNotFoundError):  # another job that ended now has done it
        await asyncio.to_thread(_clear, stations, collection)


def _holds_folders(stations: Stations, collection: bytes) -> bool:
    try:
        return bool(stations.listing(Station.PROCESSING, collection))
    except FileNotFoundError:  # it is gone already
        return True


def _clear(stations: Stations, collection: bytes) -> None:
    places = (place for place in (Station.DONE, Station.FAILED) if stations.exists(place, collection))
    to = next(places, Station.FAILED)
    for path in stations.beside(collection):
        name = stations.settle(path, to)
        log.get().info(log.COLLECTION_BESIDE, name=display(path), station=to.value, folder=display(name))
    stations.clear(Station.PROCESSING, collection)


async def ended(engine: Engine, batch_id: str) -> None:
    """Tell of a batch when the last of its jobs is over: once, until one of them is tried again."""
    if not await engine.store.read(_is_over, batch_id):
        return
    batch = await engine.store.read(batch_store.get, batch_id)
    assert batch is not None  # noqa: S101
    notices = await _notices(engine, batch)

    def work(connection: Connection) -> str:
        if not _is_over(connection, batch_id):
            return ""
        state = batch_store.counts(connection, [batch_id])[batch_id].state
        batch_store.set_told(connection, batch_id, state)
        outbox_store.add(connection, notices)
        return state

    if state := await engine.store.write(work):
        log.get().info(log.COLLECTION_ENDED, batch=batch_id, name=batch.name, state=state)
        engine.wake_notifier()


def _is_over(connection: Connection, batch_id: str) -> bool:
    """Tell whether a batch is over and its end not told."""
    if batch_store.is_under_way(connection, batch_id):
        return False
    batch = batch_store.get(connection, batch_id)
    return batch is not None and batch.told in ("", "again")


async def _notices(engine: Engine, batch: Batch) -> list[NewNotice]:
    counts = (await engine.store.read(batch_store.counts, [batch.id]))[batch.id]
    failed_before = await engine.store.read(batch_store.had_failed, batch)
    event = "failed" if counts.failed else "recovered" if failed_before else "done"
    if not any(engine.wants(wanted, batch.pipeline) for wanted in (event, "done")):
        return []
    failures = await engine.store.read(batch_store.open_failures, batch.id)
    given = {"outcome": event, "batch": batch, "counts": counts, "failures": failures[:NAMED]}
    return await asyncio.to_thread(lambda: engine.compose("batch", **given))
