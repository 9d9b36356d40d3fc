"""Rebuild a lost store from what lies on disk: receipts, stations and work/.

Ended jobs come from their receipts. A folder in processing/ gets its job back under its old
id when work/ holds a manifest that names that very folder; its steps begin again, and find what
earlier tries have left. Lost permanently are notices not yet sent, and why a job was frozen or waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ulid import ULID

from dittohead.config.loader import Config
from dittohead.engine.claim import new_job
from dittohead.folders import manifest, receipt
from dittohead.folders.receipt import Receipt, ReceiptStep, folder_bytes, read_events
from dittohead.folders.stations import Stations, owner_of
from dittohead.model import paths
from dittohead.model.definition import StepTotals, read_failure
from dittohead.model.errors import StoreError, Unreadable
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Arrival, Batch, JobId, collection_of
from dittohead.model.states import JobState, Station, StepState
from dittohead.model.text import display, is_utf8
from dittohead.store import Connection, Store
from dittohead.store import batches as batch_store
from dittohead.store import digests as digest_store
from dittohead.store import jobs as job_store
from dittohead.store import rebuild as rows
from dittohead.store.jobs import NewJob
from dittohead.system import log
from dittohead.system.patterns import TooSlow


@dataclass
class Rebuilt:
    """What came back."""

    over: int = 0  #: jobs from receipts
    resumed: int = 0  #: folders in processing/ whose job has its old id and work
    unreadable: list[str] = field(default_factory=list)  #: receipts that are not receipts

    def __str__(self) -> str:
        text = f"{self.over} finished jobs from their receipts, {self.resumed} jobs under way from work/"
        if self.unreadable:
            text += f"; {len(self.unreadable)} receipts cannot be read: {', '.join(self.unreadable[:3])}"
        return text


def is_empty(store: Store) -> bool:
    """Tell whether the store knows no job. Blocking."""
    return not store.run(rows.any_job)


def is_needed(store: Store, stations: Stations) -> bool:
    """Tell whether the store knows no job while receipts or work name some. Blocking."""
    return is_empty(store) and any(any(_visible(path)) for path in (stations.receipts, stations.work))


def _visible(path: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def rebuild(store: Store, stations: Stations, config: Config) -> Rebuilt:
    """Fill an empty store from what lies on disk. Blocking; only under the root's lock.

    Folders in processing/ that no work/ names are left for the next start, which adopts them.

    A receipt that cannot be read, or says what cannot be, is named, and the others are taken.

    Args:
        store: new and empty.
        stations: receipts/, work/ and the four stations are read; nothing there is changed.
        config: the current configuration, for the pipelines of jobs that were not over.

    Returns: how many jobs are there again, and the names of the receipts that cannot be read.
    Raises: StoreError: the store cannot be written now.
    """
    done = Rebuilt()
    # By id: a job's id sorts by the time of its claim.
    for path in sorted((Path(e.path) for e in _visible(stations.receipts)), key=_job_in_name):
        try:
            store.run(_finished(receipt.read(path), stations, config))
        except Exception as error:  # around one receipt: none stands in the way of the others
            if isinstance(error, StoreError) and error.passing:
                raise
            done.unreadable.append(path.name)
            log.get().error(
                log.REBUILD_UNREADABLE, receipt=str(path), error=f"{type(error).__name__}: {error}"
            )
            continue
        done.over += 1
    store.run(batch_store.tell_no_more)
    done.resumed = _resume(store, stations, config)
    log.get().warning(
        log.STORE_REBUILT, finished=done.over, resumed=done.resumed, unreadable=len(done.unreadable)
    )
    return done


def _job_in_name(path: Path) -> str:
    return path.name.removesuffix(".json").rpartition(".")[2]


# -- ended jobs ----------------------------------------------------------------------


def _finished(fields: Receipt, stations: Stations, config: Config) -> Callable[[Connection], None]:
    """Return the transaction that adds a job from its receipt."""
    state = JobState(fields["state"])
    station = Station.DONE if state is JobState.DONE else Station.FAILED
    folder = _lies_as(folder_bytes(fields), fields, stations, station)
    status = stations.identity(station, folder) if stations.exists(station, folder) else None
    arrival = Arrival(
        folder=folder,
        dev=status.st_dev if status else 0,
        ino=status.st_ino if status else 0,
        uid=int(fields.get("uid", status.st_uid if status else 0)),
        seen_at=_seconds(fields["claimed_at"]),
    )
    lies = stations.folder(station, folder) if status is not None else None
    new = new_job(
        config, arrival, fields["name"], JobId(fields["job"]), folder=lies, pipeline=fields["pipeline"]
    )
    steps = [(step["name"], step["worker"]) for step in fields.get("steps", [])]
    results = {step["name"]: _result(step, fields) for step in fields.get("steps", [])}
    states = {step["name"]: StepState(step["state"]) for step in fields.get("steps", [])}
    if [name for name, _ in steps] != [name for name, _ in new.steps]:
        # Its pipeline has changed since: the history stands, but it can only be run again as a whole.
        new = rows.without_definition(new, steps, _CHANGED)
    new = replace(new, batch=str(fields.get("batch", "")))
    files = fields["manifest"]["files"]
    given = [file for file in files if not file.get("ignored")]
    found = list(read_events(fields["events"]))
    heads = {digest_store.head(file["sha256"]) for file in (*files, *fields["outputs"])}

    def add(connection: Connection) -> None:
        _belongs(connection, new, fields["name"], _seconds(fields["claimed_at"]))
        job_store.create(connection, new, *found)
        rows.put_over(
            connection,
            new.id,
            state=state,
            station=station,
            error=None if fields["error"] is None else read_failure(fields["error"]),
            files=len(given),
            size=sum(file["size"] for file in given),
            claimed_at=_seconds(fields["claimed_at"]),
            finished_at=_seconds(fields["finished_at"]),
            host=fields["host"],
            pipeline=fields["pipeline"],
            steps={name: (states[name], results[name]) for name, _ in steps},
        )
        digest_store.add(connection, new.id, heads)

    return add


def _belongs(connection: Connection, new: NewJob, name: str, claimed_at: float) -> None:
    """See that the batch of a job is there; of its directory nothing is known any more."""
    if not new.batch or batch_store.get(connection, new.batch) is not None:
        return
    batch_store.create(
        connection,
        Batch(
            id=new.batch,
            name=name.rpartition("/")[0],
            folder=collection_of(new.folder),
            dev=0,
            ino=0,
            uid=new.uid,
            pipeline=new.pipeline,
            claimed_at=datetime.fromtimestamp(claimed_at, UTC),
            whole=True,
            told="done",  # of what ended before nobody is told again; see `tell_no_more`
        ),
    )


_CHANGED = "its pipeline has changed since it ran, and the store was rebuilt"


def _lies_as(folder: bytes, fields: Receipt, stations: Stations, station: Station) -> bytes:
    """Return the name under which the folder of a job lies in its station now.

    A name that was taken got a time suffix: where there are such, the one that holds what the
    receipt says.
    """
    try:
        listed = stations.listing(station, collection_of(folder))
    except FileNotFoundError:
        return folder
    names = [n for n in listed if n == folder or n.startswith(folder[:200] + b".2")]
    if len(names) < 2:
        return names[0] if names else folder
    expected = {paths.path_bytes(file): file["size"] for file in fields["manifest"]["files"]}
    for name in names:
        if all(_size(stations.folder(station, name), path) == size for path, size in expected.items()):
            return name
    return folder


def _size(root: Path, path: bytes) -> int | None:
    try:
        return os.lstat(os.path.join(os.fsencode(root), path)).st_size
    except OSError:
        return None


def _result(step: ReceiptStep, fields: Receipt) -> StepTotals:
    outputs = [o for o in fields["outputs"] if o["step"] == step["name"]]
    locations = [o for o in fields["locations"] if o["step"] == step["name"]]
    return StepTotals(
        detail=step.get("detail", ""),
        outputs=len(outputs),
        size=sum(o["size"] for o in outputs),
        locations=len(locations),
        copies=sum(not o.get("use") for o in locations),
        delivered_size=sum(o["size"] for o in locations),
        recipe=step.get("recipe"),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- jobs under way --------------------------------------------------------------------------


def _resume(store: Store, stations: Stations, config: Config) -> int:
    """Give folders in processing/ their old ids back."""
    homes = {
        entry.name: Path(entry.path) / "manifest.jsonl"
        for entry in _visible(stations.work)
        if (Path(entry.path) / "manifest.jsonl").exists() and not store.run(rows.knows, entry.name)
    }
    count = 0
    for folder in _in_processing(stations, config):
        root = stations.folder(Station.PROCESSING, folder)
        # The latest first: a folder that was run again has more than one.
        job_id = next((job for job in sorted(homes, reverse=True) if _speaks_of(homes[job], root)), None)
        if job_id is None:
            continue
        try:
            store.run(_under_way(store, folder, JobId(job_id), homes.pop(job_id), stations, config))
        except Exception as error:  # around one folder: it is adopted as another job
            if isinstance(error, StoreError) and error.passing:
                raise
            log.get().exception(log.JOB_STUCK, job=job_id, name=display(folder), error=str(error))
            continue
        count += 1
    return count


def _in_processing(stations: Stations, config: Config) -> Iterator[bytes]:
    """Yield the folders that are a job each: those by themselves, and those of collections."""
    for folder in stations.listing(Station.PROCESSING):
        try:
            matched = config.pipeline_for(display(folder)) if is_utf8(folder) else None
            if matched is not None and matched[0].settings.each:
                yield from stations.listing(Station.PROCESSING, folder)
            else:
                yield folder
        except (TooSlow, OSError) as error:  # around one folder: the comparison says what is wrong with it
            log.get().error(log.JOB_STUCK, name=display(folder), error=str(error))


def _under_way(
    store: Store, folder: bytes, job_id: JobId, listed: Path, stations: Stations, config: Config
) -> Callable[[Connection], None]:
    status = stations.identity(Station.PROCESSING, folder)
    arrival = Arrival(
        folder=folder,
        dev=status.st_dev,
        ino=status.st_ino,
        uid=owner_of(os.fsencode(stations.folder(Station.PROCESSING, folder)), status),
        seen_at=status.st_ctime,
    )
    lies = stations.folder(Station.PROCESSING, folder)
    new = new_job(config, arrival, display(folder), job_id, folder=lies)
    collection = collection_of(folder)
    known = store.run(batch_store.of_name, collection) if collection else None
    if collection:
        new = replace(new, batch=known.id if known is not None else str(ULID()))
    sizes = [entry.size for entry in manifest.read(listed) if not entry.is_dir]
    event = Event(
        type=EventType.INGESTION_START,
        outcome="warning",
        detail="the store was lost and rebuilt; the manifest is the one taken at the claim",
        agent=AGENT,
    )

    def add(connection: Connection) -> None:
        _belongs(connection, new, display(folder), status.st_ctime)
        if new.batch:
            batch_store.goes_on(connection, new.batch)
        job_store.create(connection, new, event)
        job_store.set_manifest(connection, new.id, 1, len(sizes), sum(sizes), [])

    return add


def _speaks_of(listed: Path, root: Path) -> bool:
    """Tell whether a manifest is of the folder: each file is there by its own inode."""
    empty = True
    try:
        for entry in manifest.read(listed, ignored=True):
            status = os.lstat(os.path.join(os.fsencode(root), entry.path))
            if not entry.is_dir:
                empty = False
                if status.st_ino != entry.ino:
                    return False
    except (OSError, Unreadable):
        return False
    return not empty and is_utf8(os.path.basename(os.fsencode(root)))
