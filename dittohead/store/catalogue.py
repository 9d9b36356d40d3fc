"""Transactions on catalogues: all that sources know of the remote system, by millions of entries.

Counts by state are kept in the transaction that changes a state, and never counted. What a listing has named
is noted while it is open, by number; an entry that is as it was is not written. So a listing of a million
costs its reading, and a million small rows that go again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.contract.catalogue import CatalogueEntry, Change, Leaving, Listing, Told, ToldCounts
from dittohead.model.errors import storable
from dittohead.store.tables import (
    entries,
    entry_changes,
    entry_counts,
    entry_flow,
    listing_entries,
    listings,
)

#: Keys in one statement; SQLite takes 32,766 values.
_CHUNK = 1000

#: How long an hour is, in seconds, and for how many of them it is known how many entries came where.
HOUR_S, FLOW_HOURS = 3600, 8 * 24

#: Entries that leave in one transaction.
LEAVE = 2000

#: What a listing is to entries it has named: states of listings that are not over.
_OPEN = ("open", "ending")

_CHANGE = entries.update().where(entries.c.id == sa.bindparam("b_id"))

#: Columns that telling may change.
_CHANGED = ("state", "stage", "reason", "rank", "attributes", "since")


def tell(
    connection: Connection,
    source: str,
    kind: str,
    told: Sequence[Told],
    now: float,
    *,
    by: str = "",
    listing: int | None = None,
    position: Mapping[str, Any] | None = None,
    only_known: bool = False,
) -> ToldCounts:
    """Remember what is said about entries, as `contract.catalogue.Catalogue.tell` promises.

    Args:
        source: the source's name.
        kind: the kind of entry.
        told: what is said; of two with one key the last counts.
        now: seconds since the epoch.
        by: what tells it, for the history.
        listing: the number of the listing that names them; None for none.
        position: how far that listing is; None: as it was.
        only_known: entries that are not known are not made.
    """
    wanted = {storable(one.key): one for one in told}  # the last of a key counts
    known = {row["key"]: row for row in _rows(connection, source, kind, list(wanted))}
    unknown = [key for key in wanted if key not in known]
    fresh = [] if only_known else [_new(source, kind, key, wanted[key], now) for key in unknown]
    if fresh:
        connection.execute(entries.insert(), fresh)
    moved: Counter[tuple[str, str]] = Counter((row["state"], row["stage"]) for row in fresh)
    changed = _change_all(connection, [(known[key], one) for key, one in wanted.items() if key in known], now)
    for row, change in changed:
        moved[row["state"], row["stage"]] -= 1
        moved[change["state"], change["stage"]] += 1
    _write_history(connection, changed, now, by)
    _count(connection, source, kind, moved)
    came = Counter((row["state"], row["stage"]) for row in fresh)
    came.update((to["state"], to["stage"]) for row, to in changed if _moved(row, to))
    flow(connection, source, kind, came, now)
    tally = ToldCounts(
        seen=len(told),
        new=len(fresh),
        changed=len(changed),
        unknown=tuple(unknown) if only_known else (),
    )
    if listing is not None:
        _name(connection, listing, source, kind, list(wanted))
        _note(connection, listing, position, tally)
    return tally


def _rows(connection: Connection, source: str, kind: str, keys: Sequence[str]) -> Iterator[RowMapping]:
    for begin in range(0, len(keys), _CHUNK):
        chunk = keys[begin : begin + _CHUNK]
        query = sa.select(entries).where(
            entries.c.source == source, entries.c.kind == kind, entries.c.key.in_(chunk)
        )
        yield from connection.execute(query).mappings()


def _new(source: str, kind: str, key: str, told: Told, now: float) -> dict[str, Any]:
    return {
        "source": source,
        "kind": kind,
        "key": key,
        "state": told.state or "",
        "stage": told.stage or "",
        "reason": told.reason or "",
        "rank": -(told.priority or 0),
        "attributes": {name: value for name, value in told.attributes.items() if value is not None},
        "first_at": now,
        "changed_at": now,
        "since": now if told.since is None else told.since,
    }


def _change_all(
    connection: Connection, pairs: Sequence[tuple[RowMapping, Told]], now: float
) -> list[tuple[RowMapping, dict[str, Any]]]:
    """Write what differs; return (row as it was, row as it is) of those."""
    changed = []
    for row, told in pairs:
        after = _after(row, told, now)
        if any(after[name] != row[name] for name in _CHANGED):
            changed.append((row, after))
    if changed:
        connection.execute(
            _CHANGE, [{"b_id": row["id"], "changed_at": now, **after} for row, after in changed]
        )
    return changed


def _after(row: RowMapping, told: Told, now: float) -> dict[str, Any]:
    """Return what an entry is after it was told."""
    after = {name: row[name] for name in _CHANGED}
    if told.attributes:
        merged = {**row["attributes"], **told.attributes}
        after["attributes"] = {name: value for name, value in merged.items() if value is not None}
    if told.priority is not None:
        after["rank"] = -told.priority
    if told.state is not None and (told.over is None or row["state"] in told.over):
        after["state"] = told.state
        if told.since is not None:
            after["since"] = told.since
        elif told.state != row["state"]:
            after["since"] = now
    if told.stage is not None and (told.over_stages is None or row["stage"] in told.over_stages):
        after["stage"] = told.stage
    moved = (after["state"], after["stage"]) != (row["state"], row["stage"])
    # Why it is so belongs to where it is: what moves nothing says nothing of that.
    refused = not moved and (told.state, told.stage) != (None, None) and not _is_at(after, told)
    if told.reason is not None and not refused:
        after["reason"] = told.reason
    return after


def _is_at(after: Mapping[str, Any], told: Told) -> bool:
    return told.state in (None, after["state"]) and told.stage in (None, after["stage"])


def _write_history(
    connection: Connection, changed: Sequence[tuple[RowMapping, dict[str, Any]]], now: float, by: str
) -> None:
    lines = [
        {
            "entry_id": row["id"],
            "at": now,
            "state": after["state"],
            "stage": after["stage"],
            "reason": after["reason"],
            "by": by,
        }
        for row, after in changed
        if any(after[name] != row[name] for name in ("state", "stage", "reason"))
    ]
    if lines:
        connection.execute(entry_changes.insert(), lines)


def _count(connection: Connection, source: str, kind: str, moved: Mapping[tuple[str, str], int]) -> None:
    for (state, stage), difference in moved.items():
        if not difference:
            continue
        here = (
            entry_counts.c.source == source,
            entry_counts.c.kind == kind,
            entry_counts.c.state == state,
            entry_counts.c.stage == stage,
        )
        result = connection.execute(
            entry_counts.update().where(*here).values(count=entry_counts.c.count + difference)
        )
        if result.rowcount == 0:
            connection.execute(
                entry_counts.insert().values(
                    source=source, kind=kind, state=state, stage=stage, count=difference
                )
            )


def _moved(row: RowMapping, after: Mapping[str, Any]) -> bool:
    return bool((row["state"], row["stage"]) != (after["state"], after["stage"]))


def flow(
    connection: Connection, source: str, kind: str, came: Mapping[tuple[str, str], int], now: float
) -> None:
    """Count how many entries came to a (state, stage) in this hour; hours of long ago are forgotten.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        came: (state, stage) -> how many.
        now: seconds since the epoch.
    """
    hour = int(now // HOUR_S)
    for (state, stage), count in came.items():
        if not count:
            continue
        here = {"source": source, "kind": kind, "state": state, "stage": stage}
        wanted = [entry_flow.c[name] == value for name, value in here.items()]
        result = connection.execute(
            entry_flow.update()
            .where(*wanted, entry_flow.c.hour == hour)
            .values(count=entry_flow.c.count + count)
        )
        if result.rowcount == 0:
            connection.execute(entry_flow.delete().where(*wanted, entry_flow.c.hour < hour - FLOW_HOURS))
            connection.execute(entry_flow.insert().values(**here, hour=hour, count=count))


def flows(
    connection: Connection, source: str, kind: str, since: float
) -> dict[tuple[str, str], dict[int, int]]:
    """Return how many entries came, by (state, stage) and by the hour: hours since the epoch.

    Args:
        connection: of the transaction.
        source: the source's name.
        kind: the kind of entry.
        since: seconds since the epoch; the hour that it lies in is the first.
    """
    query = sa.select(entry_flow).where(
        entry_flow.c.source == source, entry_flow.c.kind == kind, entry_flow.c.hour >= int(since // HOUR_S)
    )
    found: dict[tuple[str, str], dict[int, int]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault((row["state"], row["stage"]), {})[row["hour"]] = row["count"]
    return found


# -- listings --------------------------------------------------------------------------------


def begin(connection: Connection, source: str, kind: str, name: str, now: float) -> Listing:
    """Return the listing of this name that is open, or open one.

    Args:
        source: the source's name.
        kind: the kind of entry that it names.
        name: the listing's name.
        now: when it is begun, seconds since the epoch.
    """
    query = sa.select(listings).where(
        listings.c.source == source,
        listings.c.kind == kind,
        listings.c.name == name,
        listings.c.state.in_(_OPEN),
    )
    row = connection.execute(query.order_by(listings.c.id.desc()).limit(1)).mappings().first()
    if row is None:
        blank: dict[str, Any] = {"seen": 0, "new": 0, "changed": 0, "gone": 0, "sha256": "", "file": ""}
        result = connection.execute(
            listings.insert().values(
                source=source,
                kind=kind,
                name=name,
                state="open",
                reason="",
                begun_at=now,
                ended_at=None,
                position={},
                **blank,
            )
        )
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101
        return listing(connection, key[0])
    return _to_listing(row)


def listing(connection: Connection, number: int) -> Listing:
    """Return one listing. Raises: KeyError."""
    row = connection.execute(sa.select(listings).where(listings.c.id == number)).mappings().first()
    if row is None:
        raise KeyError(number)
    return _to_listing(row)


def _name(connection: Connection, number: int, source: str, kind: str, keys: Sequence[str]) -> None:
    """Note that a listing has named these."""
    named = listing_entries.alias()
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        there = sa.select(named.c.entry_id).where(
            named.c.listing_id == number, named.c.entry_id == entries.c.id
        )
        found = sa.select(sa.literal(number, sa.BigInteger), entries.c.id).where(
            entries.c.source == source,
            entries.c.kind == kind,
            entries.c.key.in_(chunk),
            ~sa.exists(there.correlate(entries)),
        )
        connection.execute(listing_entries.insert().from_select(["listing_id", "entry_id"], found))


def _note(connection: Connection, number: int, position: Mapping[str, Any] | None, tally: ToldCounts) -> None:
    more: dict[str, Any] = {} if position is None else {"position": dict(position)}
    connection.execute(
        listings.update()
        .where(listings.c.id == number)
        .values(
            seen=listings.c.seen + tally.seen,
            new=listings.c.new + tally.new,
            changed=listings.c.changed + tally.changed,
            **more,
        )
    )


def note(connection: Connection, number: int, position: Mapping[str, Any]) -> None:
    """Remember how far a listing is."""
    _note(connection, number, position, ToldCounts())


def over(
    connection: Connection,
    number: int,
    state: str,
    now: float,
    *,
    reason: str = "",
    sha256: str = "",
    file: str = "",
) -> None:
    """Let a listing be over, or be ending.

    Args:
        number: the listing's.
        state: ending, whole, cut or doubtful.
        now: seconds since the epoch.
        reason: why, for people; "" for none.
        sha256: of the file that it is kept in, in hex; "" where there is none.
        file: that file, relative to the source's directory; "" where there is none.
    """
    ended = None if state in _OPEN else now
    connection.execute(
        listings.update()
        .where(listings.c.id == number)
        .values(state=state, reason=reason, ended_at=ended, sha256=sha256, file=file)
    )


def _left_out(number: int, source: str, kind: str, leaving: Leaving) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for an entry that a listing did not name, and that is to leave by it."""
    named = sa.select(listing_entries.c.entry_id).where(
        listing_entries.c.listing_id == number, listing_entries.c.entry_id == entries.c.id
    )
    wanted = [
        entries.c.source == source,
        entries.c.kind == kind,
        entries.c.changed_at < leaving.before,
        entries.c.state != leaving.state,
        ~sa.exists(named.correlate(entries)),
    ]
    if leaving.states is not None:
        wanted.append(entries.c.state.in_(sorted(leaving.states)))
    return wanted


def leaving(connection: Connection, number: int, source: str, kind: str, rule: Leaving) -> int:
    """Return how many entries would leave by a listing.

    Args:
        number: the listing's.
        source: the source's name.
        kind: the kind of entry.
        rule: which of those that it did not name would.
    """
    query = sa.select(sa.func.count()).select_from(entries).where(*_left_out(number, source, kind, rule))
    return int(connection.execute(query).scalar_one())


def leave(connection: Connection, number: int, source: str, kind: str, rule: Leaving, now: float) -> int:
    """Let some of the entries leave that a listing did not name; return how many: 0 when none is left.

    Args:
        number: the listing's.
        source: the source's name.
        kind: the kind of entry.
        rule: which of them leave, and what they become.
        now: seconds since the epoch.
    """
    query = sa.select(entries.c.key).where(*_left_out(number, source, kind, rule)).limit(LEAVE)
    keys = list(connection.execute(query).scalars())
    named = connection.execute(sa.select(listings.c.name).where(listings.c.id == number)).scalar()
    told = [Told(key=key, state=rule.state, stage=rule.stage, reason=rule.reason) for key in keys]
    tally = tell(connection, source, kind, told, now, by=named or "", only_known=True)
    connection.execute(
        listings.update().where(listings.c.id == number).values(gone=listings.c.gone + tally.changed)
    )
    return len(keys)


def forget_named(connection: Connection, number: int) -> int:
    """Forget some of what a listing that has ended has named; return how many: 0 when none is left."""
    some = (
        sa.select(listing_entries.c.entry_id)
        .where(listing_entries.c.listing_id == number)
        .order_by(listing_entries.c.entry_id)
        .offset(50_000)
        .limit(1)
    )
    until = connection.execute(some).scalar()
    wanted = [listing_entries.c.listing_id == number]
    if until is not None:
        wanted.append(listing_entries.c.entry_id < until)
    return int(connection.execute(listing_entries.delete().where(*wanted)).rowcount)


def listings_of(
    connection: Connection, source: str, kind: str, name: str, limit: int, *, state: str = ""
) -> list[Listing]:
    """Return listings of a name, the latest first.

    Args:
        source: the source's name.
        kind: the kind of entry.
        name: the listings' name.
        limit: how many at most.
        state: only those in this state; "" for all.
    """
    query = sa.select(listings).where(
        listings.c.source == source, listings.c.kind == kind, listings.c.name == name
    )
    if state:
        query = query.where(listings.c.state == state)
    query = query.order_by(listings.c.begun_at.desc(), listings.c.id.desc()).limit(limit)
    return [_to_listing(row) for row in connection.execute(query).mappings()]


def forget_listings(connection: Connection, source: str, kind: str, name: str, keep: int) -> list[str]:
    """Forget all but the latest ended listings of a name; return the files of the others.

    Args:
        source: the source's name.
        kind: the kind of entry.
        name: the listings' name.
        keep: how many of the latest stay.
    """
    old = [
        one for one in listings_of(connection, source, kind, name, 10_000)[keep:] if one.state not in _OPEN
    ]
    if old:
        connection.execute(listings.delete().where(listings.c.id.in_([one.id for one in old])))
    return [one.file for one in old if one.file]


# -- questions -------------------------------------------------------------------------------


def counts(connection: Connection, source: str, kind: str) -> dict[tuple[str, str], int]:
    """Return how many entries there are by (state, stage)."""
    query = sa.select(entry_counts.c.state, entry_counts.c.stage, entry_counts.c.count).where(
        entry_counts.c.source == source, entry_counts.c.kind == kind, entry_counts.c.count != 0
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def kinds(connection: Connection, source: str) -> list[str]:
    """Return the kinds of entries that a source has."""
    query = sa.select(entry_counts.c.kind).where(entry_counts.c.source == source).distinct()
    return sorted(connection.execute(query).scalars())


def get(connection: Connection, source: str, kind: str, keys: Sequence[str]) -> dict[str, CatalogueEntry]:
    """Return those of these entries that are known."""
    return {row["key"]: to_entry(row) for row in _rows(connection, source, kind, keys)}


def pick(
    connection: Connection,
    source: str,
    kind: str,
    states: Collection[str],
    stages: Collection[str],
    limit: int,
    *,
    sample: bool = False,
) -> list[CatalogueEntry]:
    """Return entries in these states and stages: the highest priority first, then the longest in its state.

    Args:
        source: the source's name.
        kind: the kind of entry.
        states: each of these.
        stages: with each of these.
        limit: how many at most.
        sample: any of them, each as likely as every other.
    """
    found: list[CatalogueEntry] = []
    pairs = [(state, stage) for state in states for stage in stages]
    shares = _shares(connection, source, kind, pairs, limit) if sample else dict.fromkeys(pairs, limit)
    by = (sa.func.random(),) if sample else (entries.c.rank, entries.c.since, entries.c.id)
    # One question for each pair: all of them at once would sort what the index has sorted already.
    for (state, stage), share in shares.items():
        query = sa.select(entries).where(
            entries.c.source == source,
            entries.c.kind == kind,
            entries.c.stage == stage,
            entries.c.state == state,
        )
        rows = connection.execute(query.order_by(*by).limit(share)).mappings()
        found += [to_entry(row) for row in rows]
    if not sample:
        found.sort(key=lambda entry: (-entry.priority, entry.since, entry.id))
    return found[:limit]


def _shares(
    connection: Connection, source: str, kind: str, pairs: Sequence[tuple[str, str]], limit: int
) -> dict[tuple[str, str], int]:
    """Return how many of a sample come from each (state, stage): drawn by lot, by how many each has."""
    known = counts(connection, source, kind)
    there = [known.get(pair, 0) for pair in pairs]
    # Not for secrets: a fair draw is all that is needed.
    drawn = random.sample(pairs, min(limit, sum(there)), counts=there) if sum(there) else []
    return dict(Counter(drawn))


def page(
    connection: Connection,
    source: str,
    kind: str,
    *,
    after: str = "",
    limit: int = 1000,
    state: str = "",
    stage: str | None = None,
) -> list[CatalogueEntry]:
    """Return entries by key, after one of them.

    Args:
        source: the source's name.
        kind: the kind of entry.
        after: only keys behind this one; "" begins at the first.
        limit: how many at most.
        state: only entries in this state; "" for all.
        stage: only entries in this stage; "" for those without one, None for all.
    """
    query = sa.select(entries).where(
        entries.c.source == source, entries.c.kind == kind, entries.c.key > after
    )
    if state:
        query = query.where(entries.c.state == state)
    if stage is not None:
        query = query.where(entries.c.stage == stage)
    return [
        to_entry(row) for row in connection.execute(query.order_by(entries.c.key).limit(limit)).mappings()
    ]


def history(connection: Connection, source: str, kind: str, key: str, limit: int) -> list[Change]:
    """Return what became of an entry, the latest first.

    Args:
        source: the source's name.
        kind: the kind of entry.
        key: the entry's key.
        limit: how many changes at most.
    """
    number = sa.select(entries.c.id).where(
        entries.c.source == source, entries.c.kind == kind, entries.c.key == key
    )
    query = sa.select(entry_changes).where(entry_changes.c.entry_id == number.scalar_subquery())
    rows = connection.execute(query.order_by(entry_changes.c.id.desc()).limit(limit)).mappings()
    return [
        Change(
            at=row["at"], state=row["state"], stage=row["stage"], reason=row["reason"], by=row["by"]
        )
        for row in rows
    ]  # fmt: skip


def to_entry(row: RowMapping) -> CatalogueEntry:
    """Return a row as an entry."""
    return CatalogueEntry(
        id=row["id"],
        key=row["key"],
        state=row["state"],
        stage=row["stage"],
        reason=row["reason"],
        priority=-row["rank"],
        attributes=row["attributes"],
        first_at=row["first_at"],
        changed_at=row["changed_at"],
        since=row["since"],
    )


def _to_listing(row: RowMapping) -> Listing:
    return Listing(**{field.name: row[field.name] for field in fields(Listing)})
