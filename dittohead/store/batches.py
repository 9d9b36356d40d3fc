"""Transactions on batches: collections that were dropped as one, with a job for each of their folders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.model.records import Batch, Job
from dittohead.model.states import ACTIVE, JobState, Station
from dittohead.store import history
from dittohead.store.jobs import to_job
from dittohead.store.tables import batches, jobs

#: Batches whose jobs are counted by one statement.
_AT_ONCE = 500

_ACTIVE = sorted(state.value for state in ACTIVE)


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """How many folders of a batch there are, by what happened to the last job of each."""

    done: int = 0
    failed: int = 0  #: that wait for somebody
    settled: int = 0  #: failed, and dismissed, cancelled, gone or done again
    active: int = 0  #: not over

    @property
    def total(self) -> int:
        """All of them."""
        return self.done + self.failed + self.settled + self.active

    @property
    def state(self) -> str:
        """`running`, `failed` where a failure waits for somebody, otherwise `done`."""
        if self.active:
            return "running"
        return "failed" if self.failed else "done"


def create(connection: Connection, batch: Batch) -> None:
    """Add a batch whose collection has just come to rest in processing/."""
    connection.execute(
        batches.insert().values(
            id=batch.id,
            name=batch.name,
            folder=batch.folder,
            dev=str(batch.dev),
            ino=str(batch.ino),
            uid=batch.uid,
            pipeline=batch.pipeline,
            claimed_at=batch.claimed_at.timestamp(),
            whole=int(batch.whole),
            told=batch.told,
        )
    )


def set_whole(connection: Connection, batch_id: str) -> None:
    """Record that each folder of the collection has its job."""
    connection.execute(batches.update().where(batches.c.id == batch_id).values(whole=1))


def set_told(connection: Connection, batch_id: str, state: str) -> None:
    """Record which state people were told last."""
    connection.execute(batches.update().where(batches.c.id == batch_id).values(told=state))


def tell_no_more(connection: Connection) -> None:
    """Take it that people know how each batch ended whose jobs are all over."""
    ids = list(connection.execute(sa.select(batches.c.id)).scalars())
    for start in range(0, len(ids), _AT_ONCE):
        for batch_id, found in counts(connection, ids[start : start + _AT_ONCE]).items():
            set_told(connection, batch_id, found.state)


def goes_on(connection: Connection, batch_id: str) -> None:
    """Record that a job of a batch is tried again, or another has come: its end will be told again."""
    told = sa.case((batches.c.told.in_(["failed", "again"]), "again"), else_="")
    connection.execute(batches.update().where(batches.c.id == batch_id).values(told=told))


def untold(connection: Connection) -> list[Batch]:
    """Return the batches that have ended, and of which nobody was told."""
    going = sa.exists().where(jobs.c.batch == batches.c.id, jobs.c.state.in_(_ACTIVE))
    query = sa.select(batches).where(batches.c.told.in_(["", "again"]), batches.c.whole == 1, ~going)
    return [_to_batch(row) for row in connection.execute(query).mappings()]


def had_failed(connection: Connection, batch: Batch) -> bool:
    """Tell whether people were told last of this collection that it had failed."""
    if batch.told == "again":
        return True
    query = (
        sa.select(batches.c.told)
        .where(batches.c.name == batch.name, batches.c.claimed_at < batch.claimed_at.timestamp())
        .order_by(batches.c.claimed_at.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() in ("failed", "again")


def get(connection: Connection, batch_id: str) -> Batch | None:
    """Return a batch by its id."""
    row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().first()
    return None if row is None else _to_batch(row)


def named(connection: Connection, wanted: str) -> Batch | None:
    """Return the batch of an id, or the latest one of a name."""
    query = sa.select(batches).where(sa.or_(batches.c.id == wanted.upper(), batches.c.name == wanted))
    row = connection.execute(query.order_by(batches.c.claimed_at.desc()).limit(1)).mappings().first()
    return None if row is None else _to_batch(row)


def latest(connection: Connection, limit: int) -> list[Batch]:
    """Return batches, the latest claim first."""
    query = sa.select(batches).order_by(batches.c.claimed_at.desc(), batches.c.id.desc()).limit(limit)
    return [_to_batch(row) for row in connection.execute(query).mappings()]


def left(connection: Connection, folder: bytes) -> None:
    """Record that a collection's directory is gone from processing/: another one may get its inode."""
    connection.execute(batches.update().where(batches.c.folder == folder).values(ino="0"))


def in_processing(connection: Connection) -> set[bytes]:
    """Return the names of collections whose directory was last known to be in processing/."""
    return set(connection.execute(sa.select(batches.c.folder).where(batches.c.ino != "0")).scalars())


def of_directory(connection: Connection, folder: bytes, ino: int) -> Batch | None:
    """Return the batch whose collection is this directory of processing/."""
    query = sa.select(batches).where(batches.c.folder == folder, batches.c.ino == str(ino))
    row = connection.execute(query.order_by(batches.c.claimed_at.desc()).limit(1)).mappings().first()
    return None if row is None else _to_batch(row)


def of_name(connection: Connection, folder: bytes) -> Batch | None:
    """Return the latest batch whose collection had this name in processing/."""
    query = sa.select(batches).where(batches.c.folder == folder).order_by(batches.c.claimed_at.desc())
    row = connection.execute(query.limit(1)).mappings().first()
    return None if row is None else _to_batch(row)


def split(connection: Connection) -> list[Batch]:
    """Return the batches of which not each folder may have its job: a crash came in between."""
    return [
        _to_batch(row)
        for row in connection.execute(sa.select(batches).where(batches.c.whole == 0)).mappings()
    ]


def unfinished(connection: Connection) -> int:
    """Return how many batches are not split to the end, or have ended without that having been told."""
    waiting = sa.select(sa.func.count()).select_from(batches).where(batches.c.whole == 0)
    return connection.execute(waiting).scalar_one() + len(untold(connection))


def known(connection: Connection, collection: bytes) -> set[bytes]:
    """Return the folders of a collection in processing/ that have their job, of whichever batch."""
    head = collection + b"/"
    query = sa.select(jobs.c.folder).where(
        jobs.c.station == Station.PROCESSING.value, jobs.c.folder > head, jobs.c.folder < collection + b"0"
    )
    return set(connection.execute(query).scalars())


def came_back(connection: Connection, batch_id: str, inodes: Collection[int]) -> bool:
    """Tell whether one of these folders was a job's of a batch before."""
    some = [str(ino) for ino in inodes]
    query = sa.select(jobs.c.id).where(jobs.c.batch == batch_id, jobs.c.ino.in_(some))
    return connection.execute(query.limit(1)).first() is not None


def is_under_way(connection: Connection, batch_id: str) -> bool:
    """Tell whether a job of the batch is not over, or not each folder has its job yet."""
    query = sa.select(jobs.c.id).where(jobs.c.batch == batch_id, jobs.c.state.in_(_ACTIVE)).limit(1)
    if connection.execute(query).first() is not None:
        return True
    row = connection.execute(sa.select(batches.c.whole).where(batches.c.id == batch_id)).first()
    return row is not None and not row.whole


def has_station(connection: Connection, station: Station, folder: bytes, ino: int) -> bool:
    """Tell whether a folder by itself, and not a collection, lies under this name in a station.

    Args:
        ino: of what lies there. One that was there before may have been moved away.
    """
    query = sa.select(jobs.c.id).where(
        jobs.c.folder == folder, jobs.c.station == station.value, jobs.c.ino == str(ino)
    )
    return connection.execute(query.limit(1)).first() is not None


def jobs_of(
    connection: Connection, batch_id: str, states: Collection[JobState] = (), limit: int = -1
) -> list[Job]:
    """Return a batch's jobs: those that failed first, then by name.

    Args:
        batch_id: the batch's id.
        states: only jobs in these states; empty for all.
        limit: how many at most; a negative number for all.
    """
    failed_last = sa.case((jobs.c.state == JobState.FAILED.value, 0), else_=1)
    query = sa.select(jobs).where(jobs.c.batch == batch_id).order_by(failed_last, jobs.c.name, jobs.c.id)
    if states:
        query = query.where(jobs.c.state.in_([state.value for state in states]))
    if limit >= 0:
        query = query.limit(limit)
    return [to_job(row) for row in connection.execute(query).mappings()]


def open_failures(connection: Connection, batch_id: str) -> list[Job]:
    """Return the failed jobs of a batch that wait for somebody, by name."""
    query = sa.select(jobs).where(jobs.c.batch == batch_id, history.open_failure())
    return [to_job(row) for row in connection.execute(query.order_by(jobs.c.name)).mappings()]


def counts(connection: Connection, ids: Sequence[str]) -> Mapping[str, BatchCounts]:
    """Return how many folders each of these batches has. One that was done again has more than one job."""
    waits = sa.case((history.open_failure(), 1), else_=0)
    later = jobs.alias()
    again = sa.exists().where(
        later.c.batch == jobs.c.batch,
        later.c.ino == jobs.c.ino,
        later.c.name == jobs.c.name,
        later.c.claimed_at > jobs.c.claimed_at,
    )
    query = (
        sa.select(jobs.c.batch, jobs.c.state, waits.label("waits"), sa.func.count().label("count"))
        .where(jobs.c.batch.in_(list(ids)), ~again)
        .group_by(jobs.c.batch, jobs.c.state, waits)
    )
    found: dict[str, dict[str, int]] = {batch_id: {} for batch_id in ids}
    for row in connection.execute(query).mappings():
        of = found[row["batch"]]
        kind = _kind(row["state"], bool(row["waits"]))
        of[kind] = of.get(kind, 0) + row["count"]
    return {batch_id: BatchCounts(**of) for batch_id, of in found.items()}


def _kind(state: str, waits: bool) -> str:
    if state == JobState.DONE.value:
        return "done"
    if state == JobState.FAILED.value:
        return "failed" if waits else "settled"
    return "active"


def _to_batch(row: RowMapping) -> Batch:
    return Batch(
        id=row["id"],
        name=row["name"],
        folder=bytes(row["folder"]),
        dev=int(row["dev"]),
        ino=int(row["ino"]),
        uid=row["uid"],
        pipeline=row["pipeline"],
        claimed_at=datetime.fromtimestamp(row["claimed_at"], UTC),
        whole=bool(row["whole"]),
        told=row["told"],
    )
