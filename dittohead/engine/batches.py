"""A batch: a collection that was dropped as one, whose folders are a job each.

The collection's directory stays in processing/ until the last of its folders has left it: each goes to
done/COLLECTION/ or failed/COLLECTION/ by itself. What lies beside the folders goes with them in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Mapping
from datetime import datetime

from dittohead.engine.engine import Engine
from dittohead.folders.stations import Stations, fit
from dittohead.model.records import Batch, Job, collection_of
from dittohead.model.states import Station
from dittohead.model.text import display, utcnow, visible
from dittohead.store import Connection, Store
from dittohead.store import batches as batch_store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice
from dittohead.system import log
from dittohead.system.files import kind_of

#: Failures that a notice names.
NAMED = 50

#: Where a collection lies when it has ended: what lies beside its folders goes to the first it has come to.
_OVER = (Station.DONE, Station.FAILED)


async def lies_under(store: Store, stations: Stations, job: Job, station: Station) -> bytes:
    """Return the name of the collection's directory in done/ or failed/ that a job's folder is to lie in.

    That of the collection, unless a folder that was dropped by itself has it: then with the batch's time.

    Args:
        job: a job of a folder in a collection.
        station: done or failed.

    Raises: StoreError; OSError: the station cannot be read.
    """
    collection = collection_of(job.folder)
    if not await is_by_itself(store, stations, station, collection):
        return collection
    batch = await store.read(batch_store.get, job.batch)
    return _with_time(collection, batch.claimed_at if batch is not None else job.claimed_at)


async def is_by_itself(store: Store, stations: Stations, station: Station, folder: bytes) -> bool:
    """Tell whether what lies under a name in a station was dropped by itself, and is not a collection.

    Args:
        station: where it lies.
        folder: its name there, as bytes.

    Returns: True for a dropped folder; False for a collection's directory, and where nothing lies there.
    Raises: StoreError; OSError: the station cannot be read.
    """
    try:
        there = await asyncio.to_thread(stations.identity, station, folder)
    except FileNotFoundError:
        return False
    return await store.read(batch_store.has_station, station, folder, there.st_ino)


def _with_time(collection: bytes, moment: datetime) -> bytes:
    return fit(collection, moment.strftime(".%Y%m%dT%H%M%SZ").encode())


async def clear_up(store: Store, stations: Stations, collection: bytes) -> None:
    """Remove a collection's directory from processing/ when its folders have left it.

    What lies beside them is moved to done/, where the collection lies there, otherwise to failed/. So is what
    was left in failed/ beside folders that are done by now. Folders that came later stay: they are adopted.
    Harmless to repeat.

    Args:
        collection: the name of its directory, as bytes.

    Raises: StationError, OSError: something cannot be moved.
    """
    if await asyncio.to_thread(_holds_folders, stations, collection):
        return
    batch = await store.read(batch_store.of_name, collection)
    if batch is not None and not batch.whole:
        return
    places = {place: await _place(store, stations, place, collection, batch) for place in _OVER}
    with contextlib.suppress(FileNotFoundError):  # another job that ended now has done it
        await asyncio.to_thread(_clear, stations, collection, places)
    if not await asyncio.to_thread(stations.exists, Station.PROCESSING, collection):
        await store.write(batch_store.left, collection)


async def _place(
    store: Store, stations: Stations, station: Station, collection: bytes, batch: Batch | None
) -> bytes:
    """Return under which name a collection lies in done/ or failed/, if it does."""
    if not await is_by_itself(store, stations, station, collection):
        return collection
    return _with_time(collection, batch.claimed_at if batch is not None else utcnow())


def _holds_folders(stations: Stations, collection: bytes) -> bool:
    try:
        return stations.holds_folders(Station.PROCESSING, collection)
    except FileNotFoundError:  # it is gone already
        return True


def _clear(stations: Stations, collection: bytes, places: Mapping[Station, bytes]) -> None:
    there = [place for place in _OVER if stations.exists(place, places[place])]
    to = next(iter(there), Station.FAILED)
    failed = places[Station.FAILED]
    if there == list(_OVER) and not stations.holds_folders(Station.FAILED, failed):
        _move_beside(stations, Station.FAILED, failed, to, places[to])
        stations.clear(Station.FAILED, failed)
    # Last: as long as the directory is there, the comparison comes back to it.
    _move_beside(stations, Station.PROCESSING, collection, to, places[to])
    stations.clear(Station.PROCESSING, collection)


def _move_beside(stations: Stations, source: Station, collection: bytes, to: Station, place: bytes) -> None:
    for path in stations.beside(source, collection):
        name = stations.move_to(path, to, to=place + path.removeprefix(collection), source=source)
        log.get().info(log.COLLECTION_BESIDE, name=display(path), station=to.value, folder=display(name))


async def _told_beside(engine: Engine, batch: Batch) -> list[str]:
    """Return what belongs to no job and was delivered nowhere: names, with the kind of what is not a file."""
    stations, collection = engine.stations, batch.folder
    places = [(s, await _place(engine.store, stations, s, collection, batch)) for s in _OVER]

    def listed() -> list[str]:
        found: list[str] = []
        for station, place in (*places, (Station.PROCESSING, collection)):
            with contextlib.suppress(OSError):  # it does not lie there, or cannot be looked at
                found += [_in_words(stations, station, path) for path in stations.beside(station, place)]
        return sorted(set(filter(None, found)))

    return await asyncio.to_thread(listed)


def _in_words(stations: Stations, station: Station, path: bytes) -> str:
    """Return the name of what lies beside a collection's folders; "" for what is ignored."""
    name = path.rpartition(b"/")[2]
    if stations.is_ignored(name):
        return ""
    mode = stations.identity(station, path).st_mode
    shown = visible(display(name))
    return shown if stat.S_ISREG(mode) else f"{shown} (a {kind_of(mode)})"


async def ended(engine: Engine, batch_id: str) -> None:
    """Report a batch when the last of its jobs has ended: once, until one of them is tried again."""
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
    """Tell whether a batch has ended and its end not told."""
    if batch_store.is_under_way(connection, batch_id):
        return False
    batch = batch_store.get(connection, batch_id)
    return batch is not None and batch.told in ("", "again")


async def _notices(engine: Engine, batch: Batch) -> list[NewNotice]:
    counts = (await engine.store.read(batch_store.counts, [batch.id]))[batch.id]
    failed_before = await engine.store.read(batch_store.had_failed, batch)
    event = "failed" if counts.failed else "recovered" if failed_before else "done"
    if not counts.failed and not counts.done:  # nothing of it was done, and nothing waits for anybody
        event = "cancelled"
    if not any(engine.wants(wanted, batch.pipeline) for wanted in (event, "done")):
        return []
    failures = await engine.store.read(batch_store.open_failures, batch.id)
    given = {"outcome": event, "batch": batch, "counts": counts, "failures": failures[:NAMED]}
    given["beside"] = await _told_beside(engine, batch)
    return await asyncio.to_thread(lambda: engine.compose("batch", **given))
