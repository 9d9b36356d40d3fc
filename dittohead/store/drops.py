"""Transactions on folders that sources drop into the inbox, and on the jobs that come of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.contract.source import Item
from dittohead.model.records import Job
from dittohead.model.states import DropState, ItemState, JobState
from dittohead.store.items import rounds, to_item
from dittohead.store.tables import drops, items, jobs


@dataclass(frozen=True, kw_only=True)
class SourceDrop:
    """A folder that a source fetches, or has dropped."""

    id: int
    source: str
    folder: str
    state: DropState
    reason: str
    ino: str  #: st_ino; "" until the directory is made
    job_id: str | None
    files: int
    size: int  #: bytes


OPEN = frozenset({DropState.FETCHING, DropState.DROPPED})


def begin(connection: Connection, source: str, folder: str, now: float) -> SourceDrop | None:
    """Begin a folder with all its items that were seen; None while it may not begin.

    Of two items with one path the first stays; the other is refused.

    It may not while one of its name is open, or something came meanwhile.

    Args:
        source: the source's name.
        folder: the folder's name.
        now: seconds since the epoch.
    """
    busy = sa.select(drops.c.id).where(drops.c.folder == folder, drops.c.state.in_(sorted(OPEN)))
    if connection.execute(busy.limit(1)).first() is not None:
        return None
    mine = (items.c.source == source, items.c.state == ItemState.SEEN.value, items.c.folder == folder)
    doubles = _doubles(connection, mine)
    files = sa.func.coalesce(sa.func.sum(1 - items.c.marker), 0)
    size = sa.func.coalesce(sa.func.sum(items.c.size * (1 - items.c.marker)), 0)
    newest = (sa.func.max(items.c.ready_at), sa.func.max(items.c.seen_at))
    row = connection.execute(sa.select(files, size, *newest).where(*mine)).one()
    if row[2] is None or row[2] > now or row[3] >= rounds(connection, source).whole_before:
        return None  # something came meanwhile
    result = connection.execute(
        drops.insert().values(
            source=source,
            folder=folder,
            state=DropState.FETCHING.value,
            reason="",
            ino="",
            earlier=[],
            job_id=None,
            files=int(row[0]),
            size=int(row[1]),
            verified="",
            created_at=now,
            dropped_at=None,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101
    connection.execute(
        items.update().where(*mine).values(state=ItemState.FETCHING.value, drop_id=key[0], fetched="")
    )
    for number, why in doubles:
        leave_out(connection, number, ItemState.REFUSED, why)
    return get(connection, key[0])


def _doubles(connection: Connection, mine: Collection[sa.ColumnElement[bool]]) -> list[tuple[int, str]]:
    """Return (item, why not) of each whose path in the folder is another's already."""
    first = sa.func.min(items.c.id)
    doubled = connection.execute(
        sa.select(items.c.path, first).where(*mine).group_by(items.c.path).having(sa.func.count() > 1)
    ).all()
    found = []
    for path, kept in doubled:
        name = connection.execute(sa.select(items.c.key).where(items.c.id == kept)).scalar()
        others = sa.select(items.c.id).where(*mine, items.c.path == path, items.c.id != kept)
        why = f'it would be "{path}" in its folder, which {name} is already'
        found += [(number, why) for number in connection.execute(others).scalars()]
    return found


def get(connection: Connection, drop_id: int) -> SourceDrop:
    """Return one. Raises: KeyError."""
    row = connection.execute(sa.select(drops).where(drops.c.id == drop_id)).mappings().first()
    if row is None:
        raise KeyError(drop_id)
    return _to_drop(row)


def of_source(connection: Connection, source: str, states: Collection[DropState] = OPEN) -> list[SourceDrop]:
    """Return a source's folders in these states, oldest first."""
    query = sa.select(drops).where(drops.c.source == source, drops.c.state.in_(sorted(states)))
    return [_to_drop(row) for row in connection.execute(query.order_by(drops.c.id)).mappings()]


def later(connection: Connection, drop: SourceDrop) -> bool:
    """Tell whether its source has begun another folder of the same name since."""
    query = sa.select(drops.c.id).where(
        drops.c.source == drop.source,
        drops.c.folder == drop.folder,
        drops.c.id > drop.id,
        drops.c.state != DropState.VOID.value,
    )
    return connection.execute(query.limit(1)).first() is not None


def made(connection: Connection, drop_id: int, ino: int) -> None:
    """Record which directory it is."""
    connection.execute(drops.update().where(drops.c.id == drop_id).values(ino=str(ino)))


def page(connection: Connection, drop_id: int, after: str | None, limit: int) -> list[Item]:
    """Return items of a folder that are still to be fetched, in the order of their keys.

    Args:
        drop_id: the drop's number.
        after: a key; only items behind it. None begins at the first.
        limit: how many at most.
    """
    query = sa.select(items).where(
        items.c.drop_id == drop_id, items.c.state == ItemState.FETCHING.value, items.c.marker == 0
    )
    if after is not None:
        query = query.where(items.c.key > after)
    return [to_item(row) for row in connection.execute(query.order_by(items.c.key).limit(limit)).mappings()]


def fetched(connection: Connection, done: Sequence[tuple[int, str]]) -> None:
    """Record (item, version) of files that lie verified below their folder."""
    connection.execute(
        items.update().where(items.c.id == sa.bindparam("b_id")).values(fetched=sa.bindparam("b_version")),
        [{"b_id": number, "b_version": version} for number, version in done],
    )


def leave_out(connection: Connection, item_id: int, state: ItemState, reason: str) -> None:
    """Take an item out of the folder being fetched.

    Args:
        item_id: the item's number.
        state: what happens to it, such as refused or gone.
        reason: why, for people.
    """
    connection.execute(items.update().where(items.c.id == item_id).values(state=state.value, reason=reason))


def progress(connection: Connection, drop_id: int) -> tuple[int, int, int]:
    """Return (files fetched in the version seen last, their bytes, files that are not)."""
    good = sa.and_(items.c.fetched == items.c.version)
    row = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(sa.case((good, 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((good, items.c.size), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((good, 0), else_=1)), 0),
        ).where(items.c.drop_id == drop_id, items.c.state == ItemState.FETCHING.value, items.c.marker == 0)
    ).one()
    return int(row[0]), int(row[1]), int(row[2])


def give_back(connection: Connection, drop_id: int, reason: str) -> None:
    """End a folder that has nothing to drop; what is left of its items is as before it began."""
    connection.execute(
        items.update()
        .where(items.c.drop_id == drop_id, items.c.state == ItemState.FETCHING.value)
        .values(state=ItemState.SEEN.value, drop_id=None, fetched="")
    )
    connection.execute(
        drops.update().where(drops.c.id == drop_id).values(state=DropState.VOID.value, reason=reason)
    )


def dropped(connection: Connection, drop_id: int, verified: str, now: float) -> bool:
    """Record that a folder is whole and durable, and about to be renamed; False when an item has changed.

    Jobs that other folders of the same inode number had before are noted: they are not this one's. An
    earlier folder of this number is evidently no more, and is not followed any longer.

    Args:
        drop_id: the drop's number.
        verified: how its files were verified, in words.
        now: seconds since the epoch.
    """
    files, size, undone = progress(connection, drop_id)
    if undone:
        return False
    drop = get(connection, drop_id)
    connection.execute(drops.update().where(drops.c.ino == drop.ino, drops.c.id != drop_id).values(ino=""))
    earlier = connection.execute(sa.select(jobs.c.id).where(jobs.c.ino == drop.ino)).scalars().all()
    connection.execute(
        drops.update()
        .where(drops.c.id == drop_id)
        .values(
            state=DropState.DROPPED.value,
            reason="",
            earlier=list(earlier),
            files=files,
            size=size,
            verified=verified,
            dropped_at=now,
        )
    )
    connection.execute(
        items.update()
        .where(items.c.drop_id == drop_id, items.c.state == ItemState.FETCHING.value)
        .values(state=ItemState.DROPPED.value)
    )
    return True


def is_of_source(connection: Connection, ino: int) -> bool:
    """Tell whether a source has dropped the folder that is about to be claimed."""
    query = sa.select(drops.c.id).where(
        drops.c.ino == str(ino), drops.c.state == DropState.DROPPED.value, drops.c.job_id.is_(None)
    )
    return connection.execute(query.limit(1)).first() is not None


def claimed(connection: Connection, ino: int, job_id: str) -> str:
    """Note which job a dropped folder has become, in the transaction of its claim.

    Returns: where it came from and how it was verified, in words; "" when no source dropped it.
    """
    row = (
        connection.execute(
            sa.select(drops).where(
                drops.c.ino == str(ino), drops.c.state == DropState.DROPPED.value, drops.c.job_id.is_(None)
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        return ""
    connection.execute(drops.update().where(drops.c.id == row["id"]).values(job_id=job_id))
    return (
        f"{row['files']} files of {row['size']} bytes fetched by the source {row['source']}, "
        f"each verified: {row['verified']}"
    )


def sources_of(connection: Connection, found: Collection[Job]) -> dict[str, str]:
    """Return which source has dropped the folders of some jobs, by the jobs' ids; of those alone."""
    ids, inodes = {job.id for job in found}, {str(job.ino) for job in found}
    rows = connection.execute(
        sa.select(drops.c.job_id, drops.c.source).where(drops.c.ino.in_(inodes), drops.c.job_id.in_(ids))
    )
    return {row.job_id: row.source for row in rows}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A folder whose job is in another state than was known."""

    drop: SourceDrop
    state: DropState
    job: str
    reason: str


def follow(connection: Connection, source: str) -> list[Turn]:
    """Find the jobs of folders that were dropped or failed, and record what happened to them.

    The job is the one noted at the claim; or a later one of the same inode, with the very number of
    files and bytes: the folder of a job that failed, moved back to the inbox by `rerun` or by hand, under
    whatever name. What is done stays done.
    """
    query = (
        sa.select(
            drops,
            jobs.c.id.label("job"),
            jobs.c.state.label("job_state"),
            jobs.c.reason.label("job_reason"),
            jobs.c.files.label("job_files"),
            jobs.c.size.label("job_size"),
            jobs.c.definition.label("job_definition"),
        )
        .join(jobs, jobs.c.ino == drops.c.ino)
        .where(
            drops.c.source == source,
            drops.c.state.in_([DropState.DROPPED.value, DropState.FAILED.value]),
        )
        .order_by(jobs.c.claimed_at, jobs.c.id)
    )
    latest: dict[int, RowMapping] = {}
    for row in connection.execute(query).mappings():
        # What the pipeline ignores was fetched as well.
        ignored = row["job_definition"].ignored
        holds = (row["job_files"] + ignored.files, row["job_size"] + ignored.size)
        alike = holds == (row["files"], row["size"])
        own = row["job"] == row["job_id"] or (alike and row["job"] not in row["earlier"])
        # Done is done, also by an earlier job that was tried again after a later one had failed.
        before = latest.get(row["id"])
        if own and (before is None or before["job_state"] != JobState.DONE.value):
            latest[row["id"]] = row
    return [turn for row in latest.values() if (turn := _turn(connection, row)) is not None]


def _turn(connection: Connection, row: RowMapping) -> Turn | None:
    job = JobState(row["job_state"])
    state = {JobState.DONE: DropState.DONE, JobState.FAILED: DropState.FAILED}.get(job, DropState.DROPPED)
    if row["state"] == state.value:
        if row["job_id"] != row["job"]:
            connection.execute(drops.update().where(drops.c.id == row["id"]).values(job_id=row["job"]))
        return None
    reason = row["job_reason"] if state is DropState.FAILED else ""
    turn_to(connection, row["id"], state, reason, job_id=row["job"])
    return Turn(drop=_to_drop(row), state=state, job=row["job"], reason=reason)


_ITEM_STATES = {
    DropState.DONE: ItemState.DONE,
    DropState.FAILED: ItemState.FAILED,
    DropState.DROPPED: ItemState.DROPPED,
}


def turn_to(connection: Connection, drop_id: int, state: DropState, reason: str, /, **changes: Any) -> None:
    """Record the new state of a folder that was dropped, and of its items that have not changed since.

    Args:
        drop_id: the drop's number.
        state: what it is now.
        reason: why, in words; "" for none.
        changes: further columns of the drop.
    """
    connection.execute(
        drops.update().where(drops.c.id == drop_id).values(state=state.value, reason=reason, **changes)
    )
    connection.execute(
        items.update()
        .where(
            items.c.drop_id == drop_id,
            items.c.state.in_([ItemState.DROPPED.value, ItemState.FAILED.value]),
        )
        .values(state=_ITEM_STATES[state].value, reason=reason)
    )


def _to_drop(row: RowMapping) -> SourceDrop:
    return SourceDrop(
        id=row["id"],
        source=row["source"],
        folder=row["folder"],
        state=DropState(row["state"]),
        reason=row["reason"],
        ino=row["ino"],
        job_id=row["job_id"],
        files=row["files"],
        size=row["size"],
    )


def done_jobs(connection: Connection, source: str, folders: Sequence[str]) -> dict[str, str]:
    """Return the latest job that is done of each of these folders of a source: folder -> job's id."""
    query = (
        sa.select(drops.c.folder, drops.c.job_id)
        .where(
            drops.c.source == source,
            drops.c.folder.in_(list(folders)),
            drops.c.state == DropState.DONE.value,
            drops.c.job_id.is_not(None),
        )
        .order_by(drops.c.id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def done_folders(connection: Connection, source: str, after: str, limit: int) -> list[str]:
    """Return names of a source's folders whose jobs are done, in their order.

    Args:
        source: the source's name.
        after: a name; only those behind it. "" begins at the first.
        limit: how many at most.
    """
    query = (
        sa.select(drops.c.folder)
        .where(drops.c.source == source, drops.c.state == DropState.DONE.value, drops.c.folder > after)
        .distinct()
        .order_by(drops.c.folder)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())
