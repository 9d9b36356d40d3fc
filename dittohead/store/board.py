"""Transactions of boards: where each entry stands that is on its way, and what tokens ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.contract.board import FIELDS
from dittohead.contract.catalogue import CatalogueEntry, Change
from dittohead.model.request_args import read_args
from dittohead.model.states import DropState, ItemState, JobState, Outcome, StepState
from dittohead.store import catalogue as catalogue_store
from dittohead.store import history
from dittohead.store import requests as request_store
from dittohead.store.tables import (
    drops,
    entries,
    entry_changes,
    entry_counts,
    items,
    jobs,
    orders,
    requests,
    steps,
)

#: Values in one statement.
_CHUNK = 1000

#: The latest requests about a source or a job that are searched for one that was made already.
_LATEST = 500

#: The latest requests that are read at the start, for files that were asked for and are still there.
_ASKED = 5_000

#: States of items that nobody fetches or processes now.
_OVER = (ItemState.DONE.value, ItemState.FAILED.value, ItemState.SEEN.value, ItemState.GONE.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepAt:
    """One step of a job, as far as a board needs it."""

    name: str
    worker: str
    options: Mapping[str, Any]
    state: StepState
    finished_at: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """An entry that is on its way, or was just stored, with its folder and its job."""

    entry: CatalogueEntry
    drop: DropState | None = None
    job: str = ""
    job_state: JobState | None = None
    reason: str = ""  #: why its folder or job failed
    finished_at: float | None = None
    steps: tuple[StepAt, ...] = ()

    @property
    def active(self) -> bool:
        """Whether its job is not over."""
        return self.job_state not in (None, JobState.DONE, JobState.FAILED)


def some(
    connection: Connection,
    source: str,
    kind: str,
    place: tuple[str, str],
    after: CatalogueEntry | None,
    limit: int,
) -> list[CatalogueEntry]:
    """Return entries of one state and stage in the order in which they are picked, behind one of them.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        place: (state, stage).
        after: the last one that was returned; None begins at the first.
        limit: how many at most.
    """
    query = sa.select(entries).where(
        entries.c.source == source,
        entries.c.kind == kind,
        entries.c.state == place[0],
        entries.c.stage == place[1],
    )
    if after is not None:
        behind = sa.tuple_(sa.literal(-after.priority), sa.literal(after.since), sa.literal(after.id))
        query = query.where(sa.tuple_(entries.c.rank, entries.c.since, entries.c.id) > behind)
    rows = connection.execute(
        query.order_by(entries.c.rank, entries.c.since, entries.c.id).limit(limit)
    ).mappings()
    return [catalogue_store.to_entry(row) for row in rows]


def lately(
    connection: Connection, source: str, kind: str, *, since: float, most: int, recent: int
) -> list[Standing]:
    """Return entries whose folders are under way or failed, and those that were stored lately.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        since: stored entries whose jobs ended later; seconds since the epoch.
        most: folders under way, or failed, at most.
        recent: stored entries, at most.
    """
    rows = {row["folder"]: row for row in reversed(_done_drops(connection, source, since, recent))}
    rows |= {row["folder"]: row for row in _open_drops(connection, source, most)}
    known = catalogue_store.get(connection, source, kind, list(rows))
    found = [_with_job(Standing(entry=entry), rows[key]) for key, entry in known.items()]
    return list(_with_steps(connection, found))


def with_folders(connection: Connection, source: str, kind: str, most: int) -> list[Standing]:
    """Return entries whose folders are under way, or whose jobs failed and wait for somebody.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        most: how many at most.
    """
    rows = {row["folder"]: row for row in _open_drops(connection, source, most)}
    known = catalogue_store.get(connection, source, kind, list(rows))
    found = [_with_job(Standing(entry=entry), rows[key]) for key, entry in known.items()]
    return list(_with_steps(connection, found))


def standing(connection: Connection, source: str, kind: str, key: str) -> Standing | None:
    """Return where one entry stands, with its latest folder and job; None where it is not known."""
    entry = catalogue_store.get(connection, source, kind, [key]).get(key)
    if entry is None:
        return None
    query = _drops().where(drops.c.source == source, drops.c.folder == key)
    row = connection.execute(query.order_by(drops.c.id.desc()).limit(1)).mappings().first()
    found = Standing(entry=entry)
    return next(iter(_with_steps(connection, [_with_job(found, row) if row is not None else found])))


def jobs_of(connection: Connection, source: str, key: str, limit: int) -> list[RowMapping]:
    """Return (job_id, state, reason, created_at, job_state, outcome) of an entry's folders, latest first.

    Args:
        connection: of the transaction.
        source: the source's name.
        key: the entry's key.
        limit: how many at most.
    """
    query = (
        sa.select(
            drops.c.job_id,
            drops.c.state,
            drops.c.reason,
            drops.c.created_at,
            drops.c.size,
            jobs.c.state.label("job_state"),
            jobs.c.outcome,
            jobs.c.finished_at,
        )
        .outerjoin(jobs, jobs.c.id == drops.c.job_id)
        .where(drops.c.source == source, drops.c.folder == key)
    )
    return list(connection.execute(query.order_by(drops.c.id.desc()).limit(limit)).mappings())


def _drops() -> sa.Select[Any]:
    return sa.select(
        drops.c.folder,
        drops.c.state,
        drops.c.reason,
        drops.c.job_id,
        jobs.c.state.label("job_state"),
        jobs.c.reason.label("job_reason"),
        jobs.c.outcome,
        jobs.c.definition,
        jobs.c.finished_at,
    ).outerjoin(jobs, jobs.c.id == drops.c.job_id)


def _open_drops(connection: Connection, source: str, most: int) -> list[RowMapping]:
    """Return the latest folder of each name that is under way, or whose job failed and waits for somebody."""
    states = [DropState.FETCHING.value, DropState.DROPPED.value, DropState.FAILED.value]
    waits = sa.or_(
        drops.c.state != DropState.FAILED.value,
        jobs.c.id.is_(None),
        jobs.c.state != JobState.FAILED.value,
        history.open_failure(),
    )
    query = _drops().where(drops.c.source == source, drops.c.state.in_(states), waits)
    rows = connection.execute(query.order_by(drops.c.id.desc()).limit(most)).mappings()
    return list(reversed(list(rows)))


def _done_drops(connection: Connection, source: str, since: float, most: int) -> list[RowMapping]:
    query = _drops().where(drops.c.source == source, drops.c.state == DropState.DONE.value)
    rows = connection.execute(query.order_by(drops.c.id.desc()).limit(most)).mappings()
    return [row for row in rows if row["finished_at"] is None or row["finished_at"] >= since]


def _with_job(found: Standing, row: RowMapping) -> Standing:
    state = None if row["job_state"] is None else JobState(row["job_state"])
    failed = is_failed(state, DropState(row["state"]))
    known = () if row["definition"] is None else row["definition"].steps
    return replace(
        found,
        drop=DropState(row["state"]),
        job=row["job_id"] or "",
        job_state=state,
        reason=(row["job_reason"] or row["reason"]) if failed else "",
        finished_at=row["finished_at"],
        steps=tuple(
            StepAt(
                name=step.name,
                worker=step.worker,
                options=step.options,
                state=StepState.PENDING,
                finished_at=None,
            )
            for step in known
        ),
    )


def is_failed(job: JobState | None, drop: DropState | None) -> bool:
    """Tell whether a job failed, or a folder that has not become one."""
    return job is JobState.FAILED or (job is None and drop is DropState.FAILED)


def _with_steps(connection: Connection, found: Collection[Standing]) -> Iterator[Standing]:
    ids = [one.job for one in found if one.job]
    states: dict[tuple[str, str], tuple[StepState, float | None]] = {}
    for begin in range(0, len(ids), _CHUNK):
        query = sa.select(steps.c.job_id, steps.c.name, steps.c.state, steps.c.finished_at).where(
            steps.c.job_id.in_(ids[begin : begin + _CHUNK])
        )
        for row in connection.execute(query):
            states[row[0], row[1]] = (StepState(row[2]), row[3])
    for one in found:
        yield replace(
            one,
            steps=tuple(
                replace(step, state=now[0], finished_at=now[1])
                if (now := states.get((one.job, step.name))) is not None
                else step
                for step in one.steps
            ),
        )


def histories(connection: Connection, numbers: Sequence[int], most: int) -> dict[int, list[Change]]:
    """Return the changes of entries, by their numbers: the latest of each, the oldest first."""
    found: dict[int, list[Change]] = {}
    for begin in range(0, len(numbers), _CHUNK):
        query = (
            sa.select(entry_changes)
            .where(entry_changes.c.entry_id.in_(numbers[begin : begin + _CHUNK]))
            .order_by(entry_changes.c.id)
        )
        for row in connection.execute(query).mappings():
            told = {name: row[name] for name in ("at", "state", "stage", "reason", "by")}
            found.setdefault(row["entry_id"], []).append(Change(**told))
    return {number: changes[-most:] for number, changes in found.items()}


def fields(
    connection: Connection, kinds: Mapping[str, tuple[str, Mapping[str, str]]], ino: int, folder: str
) -> dict[str, str]:
    """Return what the fields of tokens stand for in a folder that is claimed.

    Args:
        connection: of the transaction.
        kinds: source -> (kind of its entries, its fields by default).
        ino: the folder's st_ino.
        folder: its name.
    """
    found = {name: value for _, given in kinds.values() for name, value in given.items()}
    if not kinds:
        return found
    query = sa.select(drops.c.source).where(drops.c.ino == str(ino), drops.c.folder == folder)
    source = connection.execute(query.order_by(drops.c.id.desc()).limit(1)).scalar()
    if isinstance(source, str) and source in kinds:
        kind, given = kinds[source]
        entry = catalogue_store.get(connection, source, kind, [folder]).get(folder)
        told = entry.attributes.get(FIELDS) if entry is not None else None
        found |= {name: str(told[name]) for name in given if isinstance(told, dict) and name in told}
    return found


# -- what tokens ask for -------------------------------------------------------------------------


def ask_once(
    connection: Connection, action: str, of: str, args: dict[str, Any], who: str, token: str
) -> int | None:
    """Leave a request for the daemon that a token makes; None where this very token has made it already.

    Args:
        connection: of the transaction.
        action: such as "source-tell" or "rerun".
        of: a source's name, or a job's id.
        args: the action's own.
        who: who owns the token.
        token: what tells this file from every other, also from a later one of its name.
    """
    query = sa.select(requests.c.args).where(requests.c.job == of, requests.c.action == action)
    latest = connection.execute(query.order_by(requests.c.id.desc()).limit(_LATEST)).scalars()
    if any(read_args(one).token == token for one in latest):
        return None
    return request_store.add(connection, action, of, {**args, "token": token}, who)


def asked_before(connection: Connection) -> frozenset[str]:
    """Return the files of boards of which all requests are made: the digests that "asked" of them names."""
    query = sa.select(requests.c.args).order_by(requests.c.id.desc()).limit(_ASKED)
    return frozenset(mark for one in connection.execute(query).scalars() for mark in read_args(one).asked)


def forget_folder(connection: Connection, source: str, folder: str) -> int:
    """Let a folder be fetched again when its source sees its items the next time; return how many items."""
    result = connection.execute(
        items.update()
        .where(items.c.source == source, items.c.folder == folder, items.c.state.in_(_OVER))
        .values(state=ItemState.GONE.value, drop_id=None, fetched="")
    )
    return int(result.rowcount)


# -- where store and board disagree --------------------------------------------------------------


def recount(connection: Connection, source: str, kind: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (kept, counted) of each (state, stage) where they differ. Reads every entry."""
    query = (
        sa.select(entries.c.state, entries.c.stage, sa.func.count())
        .where(entries.c.source == source, entries.c.kind == kind)
        .group_by(entries.c.state, entries.c.stage)
    )
    counted = {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}
    kept = catalogue_store.counts(connection, source, kind)
    pairs = {key: (kept.get(key, 0), counted.get(key, 0)) for key in kept.keys() | counted.keys()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def keep_counts(connection: Connection, source: str, kind: str) -> None:
    """Keep what is counted now."""
    for (state, stage), (_, count) in recount(connection, source, kind).items():
        key = {"source": source, "kind": kind, "state": state, "stage": stage}
        connection.execute(
            entry_counts.delete().where(*(entry_counts.c[name] == value for name, value in key.items()))
        )
        connection.execute(entry_counts.insert().values(**key, count=count))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """An entry that the engine is said to have, and has not."""

    key: str
    why: str
    given_up: bool  #: somebody has ended its job. If not, it can be brought in again


def lost(connection: Connection, source: str, kind: str, stage: str, most: int) -> list[Lost]:
    """Return entries that are said to be fetched, of which the engine knows nothing that is under way.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        stage: the source's word for what the engine has.
        most: how many at most.
    """
    mine = (entries.c.source == source, entries.c.kind == kind, entries.c.stage == stage)
    waiting = sa.exists().where(
        items.c.source == source,
        items.c.folder == entries.c.key,
        items.c.state.in_([ItemState.SEEN.value, ItemState.FETCHING.value, ItemState.DROPPED.value]),
    )
    ordered = sa.exists().where(orders.c.source == source, orders.c.handle == entries.c.key)
    over = _ended(source)
    query = (
        sa.select(entries.c.key, over.label("outcome"))
        .where(*mine, ~waiting.correlate(entries), sa.or_(~ordered.correlate(entries), over.is_not(None)))
        .limit(most)
    )
    return [
        Lost(
            key=row.key,
            why=f"its job was {row.outcome}" if row.outcome else "the engine knows nothing of it",
            given_up=bool(row.outcome),
        )
        for row in connection.execute(query)
    ]


def _ended(source: str) -> sa.ScalarSelect[Any]:
    """Return what a person has made of the failed job of an entry's latest folder; NULL for nothing."""
    latest = sa.select(sa.func.max(drops.c.id)).where(
        drops.c.source == source, drops.c.folder == entries.c.key
    )
    ended = [Outcome.CANCELLED.value, Outcome.DISMISSED.value, Outcome.GONE.value]
    return (
        sa.select(jobs.c.outcome)
        .join(drops, drops.c.job_id == jobs.c.id)
        .where(
            drops.c.id == latest.correlate(entries).scalar_subquery(),
            jobs.c.state == JobState.FAILED.value,
            jobs.c.outcome.in_(ended),
        )
        .correlate(entries)
        .scalar_subquery()
    )
